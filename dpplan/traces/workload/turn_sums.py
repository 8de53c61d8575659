"""Hits, misses and answers of a trace's turns: means with their sampling error, distributions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dpplan.arrays import Array, Ints
from dpplan.traces.caches.cache import RequestHits
from dpplan.traces.requests import Requests, with_room
from dpplan.traces.statistics.distributions import Distribution, TimeCounter, TokenCounter
from dpplan.traces.statistics.turns_before import TurnsBefore

__all__ = ["History", "Mean", "TurnSums", "Turns", "mean_of"]


_RUN: Final = 100
"""Consecutive requests that count as one unit where a trace names no sessions."""
_Z90: Final = 1.6448536269514722
"""Half-width of a normal distribution's middle 90 %, in standard deviations."""


@dataclass(frozen=True)
class Mean:
    """A mean and how well the trace tells it."""

    value: float
    standard_error: float | None
    """None where fewer than two units tell it."""
    units: int
    """Independent units behind it: sessions, or runs of consecutive requests."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """90 % confidence interval, by the normal law, never below zero."""
        if self.standard_error is None:
            return None
        reach = _Z90 * self.standard_error
        return max(self.value - reach, 0.0), self.value + reach


@dataclass(frozen=True, eq=False)
class Turns:
    """What a trace's turns hit (context), miss (append) and generate, and the gaps before them."""

    means: dict[str, Mean]
    """By key of a workload's profile; `tool_gap_s` only where a gap is known."""
    distributions: dict[str, Distribution]
    """By the same keys, one number a turn."""
    dram_hit_fraction: float
    """Share of the hits by ids that a DRAM tier has; 0 without one."""
    unit: str
    """`sessions`, or `runs of 100 requests`."""


def mean_of(sums: npt.ArrayLike, counts: npt.ArrayLike) -> Mean:
    """Mean over all turns with the error of a ratio of sums over independent units (H-error).

    m = sum y / sum n; its variance is U/(U-1) * sum (y - m*n)**2 / (sum n)**2 over U units, which
    is right for turns that are alike within a session: those of one session count as one draw.

    Parameters
    ----------
    sums, counts : array_like
        y and n of each unit, shape (units,); units without turns are left out.

    Examples
    --------
    >>> mean_of([2.0, 4.0], [1, 1])
    Mean(value=3.0, standard_error=1.0, units=2)
    """
    y, n = np.asarray(sums, dtype=float), np.asarray(counts, dtype=float)
    y, n = y[n > 0], n[n > 0]
    total = float(n.sum())
    if not total:
        return Mean(0.0, None, 0)
    mean, units = float(y.sum()) / total, len(n)
    if units < 2:
        return Mean(mean, None, units)
    spread = float(((y - mean * n) ** 2).sum()) * units / (units - 1)
    return Mean(mean, math.sqrt(spread) / total, units)


class History:
    """Takes in batches, gives what each prompt's session held before it."""

    def __init__(self) -> None:
        self._turns = TurnsBefore(columns=2)

    def hit_tokens(self, requests: Requests) -> Ints:
        """Tokens of each prompt that its session had read or written, at most all; shape (n,)."""
        total, _ = self._before(requests)
        hit: Ints = np.minimum(total, requests.input_tokens)
        return hit

    def with_outputs(self, requests: Requests, hit: Ints) -> Ints:
        """Hits by ids, and the answers between them where all of the last prompt is hit; (n,)."""
        total, named = self._before(requests)
        answers = np.where((named > 0) & (hit >= named), total - named, 0)
        more: Ints = np.minimum(hit + answers, requests.input_tokens)
        return more

    def _before(self, requests: Requests) -> tuple[Ints, Ints]:
        """Of the session's last turn: input and output; tokens of the prompt's blocks."""
        named = np.concatenate([[0], np.cumsum(requests.block_tokens)])[requests.block_starts]
        values = np.stack([requests.input_tokens + requests.output_tokens, np.diff(named)])
        # Requests that no session is known of stand together, and have nothing before them.
        _, before = self._turns.add(requests.session + 1, values)
        total, named = before.astype(np.int64) * (requests.session >= 0)
        return total, named


class TurnSums:
    """Takes in batches with their hits, gives `Turns`.

    Parameters
    ----------
    row : int, optional
        Which of the cache sizes counts; None = a cache that keeps everything.
    hit_fraction : float, optional
        Share of every prompt that is taken as hit, whatever the trace says.
    history : bool
        Without block ids: what the session held is taken as hit.
    answers : bool
        Answers have no ids in later prompts: they hit where all before them does.
    dram_row : int, optional
        Which of the cache sizes is a DRAM tier's.
    """

    def __init__(
        self,
        row: int | None = None,
        hit_fraction: float | None = None,
        *,
        history: bool = False,
        answers: bool = False,
        dram_row: int | None = None,
    ) -> None:
        self._row, self._hit_fraction = row, hit_fraction
        self._dram_row, self._by_ids, self._in_dram = dram_row, 0, 0
        self._is_history, self._has_answers = history, answers
        self._history = History()
        self._by_session: bool | None = None
        self._requests = 0
        self._counters: dict[str, Any] = {
            "context_tokens": TokenCounter(),
            "append_tokens": TokenCounter(),
            "output_tokens": TokenCounter(),
            "tool_gap_s": TimeCounter(),
        }
        self._sums: Array = np.zeros((2, len(self._counters), 0))
        """Numbers of each kind and their sums; by unit."""

    def add(self, requests: Requests, hits: RequestHits) -> None:
        """Take in a batch."""
        if not len(requests):
            return
        if self._hit_fraction is not None:
            hit = np.rint(requests.input_tokens * self._hit_fraction).astype(np.int64)
        elif self._is_history:
            hit = self._history.hit_tokens(requests)
        else:
            hit = hits.ideal_tokens if self._row is None else hits.lru_tokens[self._row]
            if self._dram_row is not None:
                self._by_ids += int(hit.sum())
                self._in_dram += int(hits.lru_tokens[self._dram_row].sum())
            if self._has_answers:
                hit = self._history.with_outputs(requests, hit)
        if self._by_session is None:
            self._by_session = bool((requests.session >= 0).any())
        unit = (
            requests.session + 1
            if self._by_session
            else (self._requests + np.arange(len(requests))) // _RUN
        )
        self._requests += len(requests)
        self._sums = with_room(self._sums, int(unit.max()) + 1)
        width = self._sums.shape[-1]
        columns = (hit, requests.input_tokens - hit, requests.output_tokens, requests.gap_s)
        for row, (counter, values) in enumerate(zip(self._counters.values(), columns, strict=True)):
            known = ~np.isnan(values)
            counter.add(values[known])
            self._sums[0, row] += np.bincount(unit[known], minlength=width)
            self._sums[1, row] += np.bincount(unit[known], values[known], width)

    def result(self) -> Turns:
        """Everything taken in so far."""
        distributions = {name: counter.result() for name, counter in self._counters.items()}
        return Turns(
            means={
                name: mean_of(sums, counts)
                for (name, kept), counts, sums in zip(
                    distributions.items(), *self._sums, strict=True
                )
                if kept.count or name != "tool_gap_s"
            },
            distributions=distributions,
            dram_hit_fraction=self._in_dram / self._by_ids if self._by_ids else 0.0,
            unit="sessions" if self._by_session else f"runs of {_RUN} requests",
        )
