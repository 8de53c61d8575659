"""H-working-set: working set over time: what was touched in the last minute, ten minutes, hour.

A block belongs to the working set of a window W from each touch on for W seconds. The mean over
time is exact: each touch adds the shorter of W and the time to the next one. The peak needs the
order of events, which are entered into a grid of time steps, as fine as a fixed number of them
allows (1/16 s up to an hour and eight minutes, doubled whenever the trace grows twice as long);
what comes and goes within a step is not seen.

Where scopes have caches and clocks of their own, each is followed alone: the mean is that over the
time of all of them, the peak that of the scope with the largest.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dpplan.arrays import Array, Flags, Ints
from dpplan.traces.caches.reuse import Touches
from dpplan.traces.caches.ttl import LastTouches

__all__ = ["WINDOWS_S", "WorkingSet", "WorkingSetCounter"]


WINDOWS_S: Final = (60.0, 600.0, 3600.0)
_STEPS: Final = 1 << 16
_FINEST_S: Final = 1 / 16
_POINTS: Final = 200


@dataclass(frozen=True)
class WorkingSet:
    """Tokens of distinct blocks touched in the last `windows_s`, and since the start."""

    windows_s: tuple[float, ...]
    mean_tokens: tuple[float, ...]
    """Over the time from the first request to the last, for each window."""
    peak_tokens: tuple[float, ...]
    """For each window."""
    step_s: float
    """Time steps at whose ends the peak was looked for; of the longest scope."""
    scopes: int
    """Caches apart from one another; beyond 1, means and peaks are those of one scope."""
    time_s: tuple[float, ...]
    """At most 200 times from the start to the end; empty where scopes have clocks of their own."""
    unique_tokens: tuple[float, ...]
    """Tokens of the distinct blocks seen by then."""


class _Grid:
    """Changes of several quantities over time, entered in any order; shape (rows, steps)."""

    def __init__(self, rows: int) -> None:
        self.step_s = _FINEST_S
        self._changes = np.zeros((rows, _STEPS))
        self._used = 0

    def add(self, row: int, at_s: Array, change: Array) -> None:
        if not len(at_s):
            return
        latest = float(at_s.max())
        while latest >= self.step_s * _STEPS:
            self._changes[:, : _STEPS // 2] = self._changes[:, ::2] + self._changes[:, 1::2]
            self._changes[:, _STEPS // 2 :] = 0
            self._used = -(-self._used // 2)
            self.step_s *= 2
        steps = np.maximum(at_s / self.step_s, 0).astype(np.int64)
        np.add.at(self._changes[row], steps, change)
        self._used = max(self._used, int(steps.max()) + 1)

    def levels(self) -> Array:
        """At the end of each step used, from the first on."""
        return np.cumsum(self._changes[:, : self._used], axis=1)


class WorkingSetCounter:
    """Follows touches in time (H-working-set).

    Parameters
    ----------
    windows_s : sequence of float
        W [s].
    """

    def __init__(self, windows_s: Sequence[float] = WINDOWS_S) -> None:
        self._windows_s = tuple(windows_s)
        self._grid = _Grid(len(self._windows_s) + 1)
        self._token_seconds = np.zeros(len(self._windows_s))
        self._peak_tokens = np.zeros(len(self._windows_s))
        self._step_s = 0.0
        self._scope: int | None = None
        self._scopes = 0
        self._first_block = 0
        """Where the present scope's blocks begin."""
        self._start_s = self._end_s = 0.0
        """Of the present scope, on its own clock."""
        self._before_s = 0.0
        """Length of all scopes before."""

    def add(
        self,
        once: Touches,
        previous_s: Array,
        time_s: Array,
        scope: Ints,
        tokens: Ints,
        first_new: int,
        last: LastTouches,
        weight: float = 1.0,
    ) -> None:
        """Take a batch.

        Parameters
        ----------
        once : Touches
            Without blocks that a request repeats.
        previous_s : array, shape (m,)
            Time of each block's touch before, -inf = never [s].
        time_s, scope : array, shape (n,)
            Of each request.
        tokens : array of int, shape (m,)
            Of each block of `once`.
        first_new : int
            Number of the first block that is new in this batch.
        last : LastTouches
            After this batch.
        weight : float
            Blocks that each stands for.
        """
        count = len(time_s)
        if not count:
            return
        new = np.flatnonzero(previous_s == -np.inf)
        cuts = np.flatnonzero(np.diff(scope)) + 1
        for low, high in zip([0, *cuts.tolist()], [*cuts.tolist(), count], strict=True):
            part = slice(int(once.starts[low]), int(once.starts[high]))
            if self._scope != scope[low]:
                # New blocks are numbered in order, and ids of unlike scopes differ.
                begin = first_new + int(np.searchsorted(new, part.start))
                self._leave(begin, last, weight)
                self._grid = _Grid(len(self._windows_s) + 1)
                self._scope, self._first_block = int(scope[low]), begin
                self._scopes += 1
                self._start_s = self._end_s = float(time_s[low])
            self._end_s = max(self._end_s, float(time_s[low:high].max()))
            at_s = np.take(time_s, once.request[part])
            self._take(at_s, previous_s[part], tokens[part] * np.float64(weight))

    def keep(self, kept: Flags, last: LastTouches, weight: float) -> None:
        """Every block kept stands for twice as many from its last touch on, others for none.

        Parameters
        ----------
        kept : array of bool, shape (blocks,)
        last : LastTouches
            Before others are forgotten.
        weight : float
            Blocks that each stood for until now.
        """
        part = slice(self._first_block, len(kept))
        at_s = self._on_axis(last.time_s[part])
        change = np.where(kept[part], weight, -weight) * last.tokens[part].astype(float)
        for row in range(len(self._windows_s)):
            self._grid.add(row, at_s, change)
        self._first_block = int(kept[: self._first_block].sum())

    def result(self, last: LastTouches, blocks: int, weight: float = 1.0) -> WorkingSet | None:
        """Means and peaks, with the present scope ending here; None = no request yet."""
        if self._scope is None:
            return None
        end = copy.deepcopy(self)
        end._leave(blocks, last, weight)
        peaks = end._peak_tokens
        mean = end._token_seconds / end._before_s if end._before_s > 0 else peaks
        time_s, unique = _thinned(end._grid.levels()[-1], end._grid.step_s, end._before_s)
        return WorkingSet(
            self._windows_s,
            tuple(mean.tolist()),
            tuple(peaks.tolist()),
            end._step_s,
            self._scopes,
            time_s if self._scopes == 1 else (),
            unique if self._scopes == 1 else (),
        )

    def _on_axis(self, time_s: Array) -> Array:
        return time_s - self._start_s

    def _take(self, at_s: Array, previous_s: Array, tokens: Array) -> None:
        age_s = at_s - previous_s
        np.maximum(age_s, 0, out=age_s)
        new = np.flatnonzero(age_s == np.inf)
        self._grid.add(len(self._windows_s), self._on_axis(at_s[new]), tokens[new])
        age_s[new] = 0.0
        for row, window_s in enumerate(self._windows_s):
            self._token_seconds[row] += np.minimum(age_s, window_s) @ tokens
            back = np.flatnonzero(age_s >= window_s)
            self._grid.add(row, self._on_axis(previous_s[back] + window_s), -tokens[back])
            self._grid.add(row, self._on_axis(at_s[back]), tokens[back])
            self._grid.add(row, self._on_axis(at_s[new]), tokens[new])

    def _leave(self, end: int, last: LastTouches, weight: float) -> None:
        """Close the present scope, whose blocks end at number `end`."""
        if self._scope is None:
            return
        part = slice(self._first_block, end)
        time_s, tokens = last.time_s[part], last.tokens[part] * np.float64(weight)
        for row, window_s in enumerate(self._windows_s):
            left_s = np.minimum(self._end_s - time_s, window_s)
            self._token_seconds[row] += left_s @ tokens
            gone = np.flatnonzero(time_s + window_s <= self._end_s)
            self._grid.add(row, self._on_axis(time_s[gone] + window_s), -tokens[gone])
        levels = self._grid.levels()[:-1]
        self._peak_tokens = np.maximum(self._peak_tokens, levels.max(axis=1, initial=0.0))
        self._step_s = max(self._step_s, self._grid.step_s)
        self._before_s += self._end_s - self._start_s


def _thinned(
    levels: Array, step_s: float, duration_s: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    steps = len(levels)
    at = np.unique(np.linspace(0, steps - 1, min(steps, _POINTS)).round().astype(np.int64))
    ends_s = np.minimum((at + 1) * step_s, duration_s)
    return tuple(ends_s.tolist()), tuple(levels[at].tolist())
