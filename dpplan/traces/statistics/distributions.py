"""Distributions of a trace's numbers, gathered in bounded memory and kept as values with counts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dpplan.arrays import Array, Ints
from dpplan.traces.requests import with_room

__all__ = [
    "PERCENTILES",
    "Distribution",
    "TimeCounter",
    "TokenCounter",
    "of_values",
    "weighted_by_size",
]


PERCENTILES: Final = (1, 5, 10, 25, 50, 75, 90, 95, 99)
EXACT_TOKENS: Final = 2**20
"""Counts of tokens up to here are kept one by one."""
_BINS_PER_OCTAVE: Final = 1024
_LAST_BIN: Final = 43 * _BINS_PER_OCTAVE
TOKEN_ERROR: Final = 2.0 ** (0.5 / _BINS_PER_OCTAVE) - 1
"""Relative error of a larger one: half a bin."""
_LEAST_S: Final = 1e-6
_MOST_S: Final = 1e9
TIME_ERROR: Final = 1e-3
"""Relative error of a time."""
_STEP: Final = math.log1p(2 * TIME_ERROR)
_TIME_BINS: Final = math.ceil(math.log(_MOST_S / _LEAST_S) / _STEP) + 1


@dataclass(frozen=True, eq=False)
class Distribution:
    """Values and how often each came (H-dist)."""

    values: Array
    """Ascending; shape (k,)."""
    counts: Ints
    """Shape (k,)."""
    mean: float | None
    """Of the numbers themselves, also where values are rounded; None where there are none."""
    standard_deviation: float | None
    """Root of the mean squared distance from the mean (divided by n)."""
    relative_error: float = 0.0
    """How far off a value may be; 0 = exact."""

    @property
    def count(self) -> int:
        """Numbers gathered."""
        return int(self.counts.sum())

    def quantile(self, share: float) -> float | None:
        """Value below which a share of the numbers lies, linear between neighbours.

        Parameters
        ----------
        share : float
            In [0, 1].

        Returns
        -------
        float or None
            None where there are no numbers.

        Examples
        --------
        >>> of_values([1, 2, 2, 9]).quantile(0.5), of_values([1, 2]).quantile(0.25)
        (2.0, 1.25)
        """
        if not len(self.values):
            return None
        return float(self.quantiles(np.array([share]))[0])

    def quantiles(self, shares: npt.ArrayLike) -> Array:
        """Quantiles at several shares, as `quantile`.

        Parameters
        ----------
        shares : array_like
            In [0, 1].

        Returns
        -------
        ndarray
            Of the shape of `shares`; empty where there are no numbers.
        """
        if not len(self.values):
            return np.empty(0)
        # Each value stands at its first and its last place among all numbers in order.
        below = np.cumsum(self.counts)
        places = np.stack([below - self.counts, below - 1], axis=1).ravel()
        wanted = np.asarray(shares, dtype=float) * (below[-1] - 1)
        return np.asarray(np.interp(wanted, places, np.repeat(self.values, 2)))

    def to_dict(self) -> dict[str, Any]:
        """Count, mean, standard deviation, least, percentiles and most; None where there are none.

        Examples
        --------
        >>> of_values([1, 3]).to_dict()["p50"]
        2.0
        """
        return {
            "count": self.count,
            "mean": self.mean,
            "standard_deviation": self.standard_deviation,
            "min": self.quantile(0.0),
            **{f"p{p}": self.quantile(p / 100) for p in PERCENTILES},
            "max": self.quantile(1.0),
            "relative_error": self.relative_error,
        }


def of_values(values: npt.ArrayLike) -> Distribution:
    """Distribution of numbers that are all at hand.

    Parameters
    ----------
    values : array_like
        Numbers, shape (n,).

    Returns
    -------
    Distribution

    Examples
    --------
    >>> of_values([4, 4, 1]).counts.tolist()
    [1, 2]
    """
    given = np.asarray(values, dtype=float)
    kept, counts = np.unique(given, return_counts=True)
    moments = (float(given.mean()), float(given.std())) if len(given) else (None, None)
    return Distribution(kept, counts.astype(np.int64), *moments)


def weighted_by_size(sizes: Distribution) -> Distribution:
    """Sizes of groups as their members see them: each size counts as often as it is large.

    Parameters
    ----------
    sizes : Distribution
        Of groups; whole numbers.

    Returns
    -------
    Distribution
        Of members.

    Examples
    --------
    >>> weighted_by_size(of_values([1, 3])).mean
    2.5
    """
    counts = sizes.counts * np.rint(sizes.values).astype(np.int64)
    total = int(counts.sum())
    if not total:
        return Distribution(np.empty(0), np.empty(0, dtype=np.int64), None, None)
    mean = float((sizes.values * counts).sum() / total)
    squares = float((np.square(sizes.values - mean) * counts).sum() / total)
    return Distribution(sizes.values, counts, mean, math.sqrt(squares), sizes.relative_error)


class _Moments:
    """Count, mean and squared distances of numbers that come in batches (Chan's update)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.squares = 0.0

    def add(self, values: Array) -> None:
        """Take in a batch, shape (n,)."""
        n = len(values)
        if not n:
            return
        mean = float(values.mean())
        self.squares += float(np.square(values - mean).sum())
        both = self.count + n
        self.squares += (mean - self.mean) ** 2 * self.count * n / both
        self.mean += (mean - self.mean) * n / both
        self.count = both

    def result(self) -> tuple[float | None, float | None]:
        """Mean and standard deviation."""
        if not self.count:
            return None, None
        return self.mean, math.sqrt(self.squares / self.count)


class TokenCounter:
    """Counts of whole numbers, negative ones too: exact up to 2**20, in narrow bins beyond.

    At most 21 MB, however many numbers there are.

    Examples
    --------
    >>> counter = TokenCounter()
    >>> counter.add(np.array([5, -2, 5]))
    >>> found = counter.result()
    >>> found.values.tolist(), found.counts.tolist()
    ([-2.0, 5.0], [1, 2])
    """

    def __init__(self) -> None:
        self._moments = _Moments()
        self._counts: dict[int, Ints] = {sign: np.zeros(0, np.int64) for sign in (-1, 1)}

    def add(self, values: Ints) -> None:
        """Take in a batch, shape (n,)."""
        self._moments.add(values.astype(float))
        for sign, signed in ((-1, values < 0), (1, values >= 0)):
            sizes = np.abs(values[signed])
            large = sizes > EXACT_TOKENS
            if large.any():
                octaves = np.log2(sizes[large] / EXACT_TOKENS)
                bins = np.minimum((octaves * _BINS_PER_OCTAVE).astype(np.int64), _LAST_BIN)
                sizes[large] = EXACT_TOKENS + 1 + bins
            self._counts[sign] = with_room(self._counts[sign], int(sizes.max(initial=-1)) + 1)
            np.add.at(self._counts[sign], sizes, 1)

    def result(self) -> Distribution:
        """The distribution so far."""
        values, counts = [], []
        for sign, held in self._counts.items():
            at = np.flatnonzero(held)
            middles = (at - EXACT_TOKENS - 0.5) / _BINS_PER_OCTAVE
            sizes = np.where(at > EXACT_TOKENS, EXACT_TOKENS * np.exp2(middles), at)
            values.append((sign * sizes)[::sign])
            counts.append(held[at][::sign])
        exact = all(not held[EXACT_TOKENS + 1 :].any() for held in self._counts.values())
        return Distribution(
            np.concatenate(values),
            np.concatenate(counts),
            *self._moments.result(),
            0.0 if exact else TOKEN_ERROR,
        )


def _bins(times_s: Array) -> Ints:
    bins = np.zeros(len(times_s), dtype=np.int64)
    late = times_s > 0
    where = np.log(times_s[late] / _LEAST_S) / _STEP
    bins[late] = 1 + np.clip(where, 0, _TIME_BINS - 1).astype(np.int64)
    return bins


class TimeCounter:
    """Counts of times in bins 0.2 % wide, 1 us to 30 years; zero, least and most are exact.

    Examples
    --------
    >>> counter = TimeCounter()
    >>> counter.add(np.array([0.0, 2.0, 2.0]))
    >>> found = counter.result()
    >>> found.count, found.mean, found.quantile(0.0), found.quantile(1.0)
    (3, 1.3333333333333333, 0.0, 2.0)
    """

    def __init__(self) -> None:
        self._moments = _Moments()
        self._counts = np.zeros(_TIME_BINS + 1, dtype=np.int64)
        self._least = math.inf
        self._most = -math.inf

    def add(self, times_s: Array) -> None:
        """Take in a batch, shape (n,); unknown ones (NaN) are left out, none may be negative."""
        known = times_s[~np.isnan(times_s)]
        if not len(known):
            return
        self._moments.add(known)
        self._least = min(self._least, float(known.min()))
        self._most = max(self._most, float(known.max()))
        self._counts += np.bincount(_bins(known), minlength=len(self._counts))

    def result(self) -> Distribution:
        """The distribution so far."""
        counts = self._counts.copy()
        ends = [self._least, self._most] if counts.sum() > 1 else []
        for end in ends:
            counts[_bins(np.array([end]))] -= 1
        at = np.flatnonzero(counts)
        values = _LEAST_S * np.exp((at - 0.5) * _STEP)
        values[at == 0] = 0.0
        values, counts = np.clip(values, self._least, self._most), counts[at]
        if ends:
            values = np.concatenate([ends[:1], values, ends[1:]])
            counts = np.concatenate([[1], counts, [1]])
        return Distribution(values, counts, *self._moments.result(), TIME_ERROR)
