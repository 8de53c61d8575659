"""How requests arrive: rates, and how far from evenly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from dpplan.arrays import Array, Ints
from dpplan.traces.requests import Requests, with_room

__all__ = ["WINDOWS_S", "ArrivalCounter", "Arrivals", "Clock"]


WINDOWS_S: Final = (1, 10, 60, 600)
"""Windows in which arrivals are counted."""
_MOST_SECONDS: Final = 2**24
"""Longer traces (194 days) have no counts by window."""
_STEPS_S: Final = (1, 10, 60, 600, 3600, 86400)
_MOST_COUNTS: Final = 400
_LEAST_WINDOWS: Final = 10
"""Fewer windows say nothing about their variance."""

Clock = Literal["common", "per scope", "unknown"]


@dataclass(frozen=True)
class Arrivals:
    """Arrivals of a trace (H-arrivals)."""

    clock: Clock
    """Whether all arrivals are on one clock, each scope has one, or times are missing."""
    duration_s: float | None = None
    """From the first arrival to the last; of the longest scope where clocks are apart."""
    requests_per_s: float | None = None
    """Requests / duration; None without a common clock."""
    sessions_per_s: float | None = None
    """New sessions / duration; None without a common clock or sessions."""
    requests_per_s_per_scope: float | None = None
    """Requests / sum of all scopes' durations: the rate of one conversation while it lasts."""
    interarrival_cv2: float | None = None
    """Squared coefficient of variation of the times between arrivals: 1 = Poisson, 0 = even."""
    zero_interarrival_fraction: float | None = None
    """Arrivals at the very time of the one before: much of it means coarse time stamps."""
    time_step_s: float | None = None
    """Mean distance between distinct arrival times."""
    in_order: bool = True
    """False: some arrival is earlier than the one before it; then nothing is said of distances
    and windows."""
    dispersion: tuple[tuple[int, float | None], ...] = tuple((window, None) for window in WINDOWS_S)
    """Window in s and index of dispersion, variance / mean of the counts in whole windows: 1 =
    Poisson; None where there are fewer than 10 windows."""
    counts_window_s: int = 1
    """Length of the windows of `counts`: 1, 10, 60 s, ..., so that there are at most 400."""
    counts: tuple[int, ...] = ()
    """Arrivals in each whole window from the first arrival on; empty where there are none."""


class ArrivalCounter:
    """Takes in requests, gives `Arrivals`, in memory of 8 bytes a second of the trace, 16 a scope.

    Parameters
    ----------
    scoped : bool
        Each scope has a clock of its own; scopes follow one another.
    """

    def __init__(self, *, scoped: bool) -> None:
        self._scoped = scoped
        self._requests = self._sessions = 0
        self._has_unknown = False
        self._in_order = True
        self._first = self._last = math.nan
        self._least, self._most = math.inf, -math.inf
        self._steps = self._zero_steps = 0
        self._step_squares = 0.0
        self._seconds: Ints | None = np.zeros(0, dtype=np.int64)
        """Arrivals in each second; None = too many seconds."""
        self._scopes: Array = np.zeros((2, 0))
        """First and last arrival of each scope, NaN where there is none."""

    def add(self, requests: Requests) -> None:
        """Take in a batch."""
        if not len(requests):
            return
        times = requests.time_s
        self._requests += len(times)
        self._sessions = max(self._sessions, int(requests.session.max()) + 1)
        self._has_unknown |= bool(np.isnan(times).any())
        if self._scoped:
            self._scopes = with_room(self._scopes, int(requests.scope.max()) + 1, np.nan)
            np.fmin.at(self._scopes[0], requests.scope, times)
            np.fmax.at(self._scopes[1], requests.scope, times)
        elif not self._has_unknown:
            self._add_times(times)

    def _add_times(self, times: Array) -> None:
        self._least = min(self._least, float(times.min()))
        self._most = max(self._most, float(times.max()))
        if math.isnan(self._first):
            self._first = self._last = float(times[0])
            steps = np.diff(times)
        else:
            steps = np.diff(times, prepend=self._last)
        self._last = float(times[-1])
        self._in_order &= bool((steps >= 0).all())
        if not self._in_order:
            return
        self._steps += len(steps)
        self._zero_steps += int((steps == 0).sum())
        self._step_squares += float(np.square(steps).sum())
        if self._most - self._first >= _MOST_SECONDS:
            self._seconds = None
        if self._seconds is None:
            return
        seconds = np.floor(times - self._first).astype(np.int64)
        low, most = int(seconds[0]), int(seconds[-1]) + 1
        self._seconds = with_room(self._seconds, most)
        self._seconds[low:most] += np.bincount(seconds - low, minlength=most - low)

    def result(self) -> Arrivals:
        """The arrivals so far."""
        if self._scoped:
            lasted = self._scopes[1] - self._scopes[0]
            all_s, longest_s = float(np.nansum(lasted)), float(np.nanmax(lasted, initial=0.0))
            rate = _ratio(self._requests, all_s)
            return Arrivals("per scope", longest_s or None, requests_per_s_per_scope=rate)
        if self._has_unknown or not self._requests:
            return Arrivals("unknown")
        duration = self._most - self._least
        distinct = self._steps - self._zero_steps
        window_s = next((w for w in _STEPS_S if duration < w * _MOST_COUNTS), _STEPS_S[-1])
        ordered = self._in_order and self._steps > 0
        return Arrivals(
            clock="common",
            duration_s=duration,
            requests_per_s=_ratio(self._requests, duration),
            sessions_per_s=_ratio(self._sessions, duration) if self._sessions else None,
            interarrival_cv2=self._cv2() if ordered else None,
            zero_interarrival_fraction=self._zero_steps / self._steps if ordered else None,
            time_step_s=_ratio(duration, distinct) if ordered else None,
            in_order=self._in_order,
            dispersion=tuple((w, self._dispersion(w)) for w in WINDOWS_S),
            counts_window_s=window_s,
            counts=tuple(self._counts(window_s).tolist()),
        )

    def _cv2(self) -> float | None:
        """Variance of the steps over their squared mean; their sum is the duration."""
        mean = (self._last - self._first) / self._steps
        return None if not mean else max(0.0, self._step_squares / self._steps / mean**2 - 1)

    def _dispersion(self, window_s: int) -> float | None:
        counts = self._counts(window_s)
        if len(counts) < _LEAST_WINDOWS:
            return None
        return _ratio(float(counts.var()), float(counts.mean()))

    def _counts(self, window_s: int) -> Ints:
        """Arrivals in each whole window; empty where they cannot be told."""
        if self._seconds is None or not self._in_order:
            return np.zeros(0, dtype=np.int64)
        windows = int(self._most - self._first) // window_s
        kept = self._seconds[: windows * window_s]
        counts: Ints = kept.reshape(windows, window_s).sum(axis=1)
        return counts


def _ratio(over: float, under: float) -> float | None:
    return over / under if under else None
