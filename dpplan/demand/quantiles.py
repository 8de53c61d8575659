"""Distributions as measured quantiles, straight between them: means, slices, draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dpplan.arrays import Array

__all__ = ["Quantiles", "relative_quantiles"]


_LEAST: Final = 1e-6
"""Of the largest value: what is shared out by 1/value stays finite."""


@dataclass(frozen=True, eq=False)
class Quantiles:
    """A quantile function, linear between given points (Q-quantiles)."""

    fractions: Array
    """Rising from 0 to 1, shape (n,)."""
    values: Array
    """Never falling, shape (n,)."""

    def at(self, place: npt.ArrayLike) -> Array:
        """Values at places in [0, 1], any shape."""
        return np.asarray(np.interp(np.asarray(place, dtype=float), self.fractions, self.values))

    def slice_means(self, edges: Array) -> Array:
        """Mean value between neighbouring places, which rise from 0 to 1; shape (edges - 1,).

        Examples
        --------
        >>> Quantiles(np.array([0.0, 1.0]), np.array([0.0, 4.0])).slice_means(np.array([0, 0.5, 1]))
        array([1., 3.])
        """
        widths = np.diff(self.fractions)
        sums = np.concatenate([[0.0], np.cumsum(widths * self._middles())])
        index = np.clip(
            np.searchsorted(self.fractions, edges, "right") - 1, 0, len(self.fractions) - 2
        )
        into = edges - self.fractions[index]
        below = sums[index] + into * 0.5 * (self.values[index] + self.at(edges))
        return np.asarray(np.diff(below) / np.diff(edges))

    def mean(self) -> float:
        """Mean value."""
        return float((np.diff(self.fractions) * self._middles()).sum())

    def mean_inverse(self) -> float:
        """Mean of 1/value, of values above zero: log(b/a)/(b - a) from a to b."""
        a, b = self.values[:-1], self.values[1:]
        step = (b - a) / a
        # log1p(x)/x is lost in rounding where x is near 0.
        near = step < 1e-6
        shape = np.where(near, 1.0 - 0.5 * step, np.log1p(step) / np.where(near, 1.0, step))
        return float((np.diff(self.fractions) / a * shape).sum())

    def mean_product(self, other: Quantiles) -> float:
        """Mean of the product with another's value at the same place, of the same fractions."""
        a, b, c, d = self.values[:-1], self.values[1:], other.values[:-1], other.values[1:]
        inner = (2.0 * (a * c + b * d) + a * d + b * c) / 6.0
        return float((np.diff(self.fractions) * inner).sum())

    def _middles(self) -> Array:
        return np.asarray(0.5 * (self.values[:-1] + self.values[1:]))


def relative_quantiles(
    fractions: Sequence[float], values: Sequence[float] | None, *, positive: bool = False
) -> Quantiles:
    """Measured quantiles over their mean: the shape alone, of mean 1.

    Parameters
    ----------
    fractions : sequence of float
        Rising from 0 to 1.
    values : sequence of float, optional
        Absent or all zero = always 1.
    positive : bool
        No value below a millionth of the largest.

    Returns
    -------
    Quantiles

    Examples
    --------
    >>> relative_quantiles([0, 0.5, 1], [1, 1, 5]).values
    array([0.5, 0.5, 2.5])
    """
    at = np.asarray(fractions, dtype=float)
    if values is None or not values[-1]:
        return Quantiles(at, np.ones_like(at))
    given = np.asarray(values, dtype=float) / values[-1]
    given = np.maximum(given, _LEAST) if positive else given
    return Quantiles(at, given / Quantiles(at, given).mean())
