"""H: what caches make of a trace: ideal hits, LRU at all capacities, time to live, working set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from dpplan.arrays import Array, Flags, Ints
from dpplan.traces.caches.curves import HitCounts, HitCurve, TtlCurve
from dpplan.traces.caches.numbering import Numbering
from dpplan.traces.caches.prefix_hits import prefix_lengths, running_maximum, seen_before, sums_of
from dpplan.traces.caches.reuse import RecencyOrder, Touches, touches_of
from dpplan.traces.caches.sampling import BlockSample, blocks_within, check_prefixes
from dpplan.traces.caches.ttl import LastTouches, TtlHits
from dpplan.traces.caches.working_set import WorkingSet, WorkingSetCounter
from dpplan.traces.requests import Requests

__all__ = ["CacheAnalysis", "CacheResult", "RequestHits"]

_Scalar = TypeVar("_Scalar", np.int64, np.float64)

_PIECE: Final = 1 << 20
_SMALL_PIECE: Final = 1 << 18
"""Block references analysed at a time, without and with a limit on memory."""


@dataclass(frozen=True)
class RequestHits:
    """Hit tokens of each request of a batch.

    Where blocks are sampled they are estimates: right in the sum over many requests, not one by
    one (a request none of whose blocks is followed seems to hit nothing).
    """

    ideal_tokens: Ints
    """In a cache that keeps everything; shape (n,)."""
    lru_tokens: Ints
    """In LRU caches of the capacities asked for, requests whole; shape (capacities, n)."""


@dataclass(frozen=True)
class CacheResult:
    """What caches make of a whole trace."""

    blocks: int
    """Block references."""
    tokens: int
    """Input tokens, those without a block too."""
    unique_blocks: int
    """Distinct blocks."""
    unique_tokens: int
    """Tokens of the distinct blocks."""
    ideal_hit_blocks: int
    """Blocks that hit in a cache that keeps everything."""
    ideal_hit_tokens: int
    """Their tokens."""
    ideal_block_hit_fraction: float | None
    """Of all block references; None = the trace has no blocks."""
    ideal_token_hit_fraction: float | None
    """Of all input tokens; None = the trace has no blocks."""
    lru: HitCurve | None
    """Requests whole, contiguous prefixes; None = not asked for, or no blocks."""
    per_block_lru: HitCurve | None
    """Block by block: equal to Mattson's stack distances; None = not asked for, or no blocks."""
    ttl: TtlCurve | None
    """None = not asked for, or times or blocks unknown."""
    sampled_fraction: float
    """Share of the blocks followed at the end; 1 = all figures are exact."""
    working_set: WorkingSet | None
    """None = curves not asked for, or times or blocks unknown."""


class CacheAnalysis:
    """Follow a trace batch by batch and find what caches would hit (H-ideal, H-lru, H-per-block).

    Parameters
    ----------
    capacities_blocks : sequence of int
        Capacities for which the hits of every single request are wanted [blocks].
    ttls_s : sequence of float
        Times to live to find hit rates at [s].
    memory_bytes : float, optional
        Beyond about so much memory of the whole process, only a sample of the blocks is followed
        (H-sample); None = all, in about 130 bytes per distinct block.
    curves : bool
        Find hit rates at all capacities and working sets; without it this is much faster.

    Raises
    ------
    BadInput
        If `memory_bytes` is too little for a sample.

    Examples
    --------
    Two requests of 3 blocks share the first 2; a cache of 2 blocks keeps the head of the first.

    >>> import numpy as np
    >>> n, unknown = np.zeros(2, np.int64), np.full(2, np.nan)
    >>> requests = Requests(
    ...     time_s=np.array([0.0, 1.0]), input_tokens=np.array([48, 48]), output_tokens=n,
    ...     session=n - 1, agent=n, scope=n, gap_s=unknown, gap_kind=n, service_s=unknown,
    ...     block_starts=np.array([0, 3, 6]), block_ids=np.array([7, 8, 9, 7, 8, 5]),
    ...     block_tokens=np.full(6, 16),
    ... )
    >>> analysis = CacheAnalysis(capacities_blocks=[1, 2])
    >>> analysis.add(requests).lru_tokens.tolist()
    [[0, 16], [0, 32]]
    >>> result = analysis.result()
    >>> result.ideal_hit_blocks, result.unique_tokens, round(result.lru.block_hit_fraction(1), 3)
    (2, 64, 0.167)
    """

    def __init__(
        self,
        *,
        capacities_blocks: Sequence[int] = (),
        ttls_s: Sequence[float] = (),
        memory_bytes: float | None = None,
        curves: bool = True,
    ) -> None:
        limit = None if memory_bytes is None else blocks_within(memory_bytes)
        self._sample = BlockSample(limit)
        self._piece = _PIECE if limit is None else _SMALL_PIECE
        self._capacities = tuple(capacities_blocks)
        self._curves = curves
        self._numbering = Numbering()
        self._whole = RecencyOrder(whole=True) if curves or self._capacities else None
        self._by_block = RecencyOrder(whole=False) if curves else None
        self._whole_counts, self._by_block_counts = HitCounts(), HitCounts()
        # These need times, and are given up at the first that is unknown.
        self._ttl = TtlHits(ttls_s) if len(ttls_s) else None
        self._working_set = WorkingSetCounter() if curves else None
        self._last = LastTouches()
        self._blocks = self._tokens = self._block_tokens = 0
        self._followed_blocks = self._followed_tokens = 0.0
        self._unique_blocks = self._unique_tokens = 0.0
        self._hit_blocks = self._hit_tokens = self._behind_misses = 0.0

    def add(self, requests: Requests) -> RequestHits:
        """Take the next requests of the trace, and tell what each of them hits.

        Parameters
        ----------
        requests : Requests
            In the order in which a cache sees them; scopes one after another.

        Raises
        ------
        BadInput
            If blocks have to be sampled, and their ids don't form prefix trees.
        """
        ideal = np.zeros(len(requests), np.int64)
        lru = np.zeros((len(self._capacities), len(requests)), np.int64)
        self._tokens += int(requests.input_tokens.sum())
        if not np.isfinite(requests.time_s).all():
            self._ttl = self._working_set = None
            self._last = LastTouches()
        for low, high in _pieces(requests.block_starts, self._piece):
            edges = requests.block_starts[low : high + 1]
            part = slice(int(edges[0]), int(edges[-1]))
            ids, tokens = requests.block_ids[part], requests.block_tokens[part]
            starts = edges - edges[0]
            self._blocks += len(ids)
            self._block_tokens += int(tokens.sum())
            followed = self._sample.followed(ids)
            if followed is not None:
                before = np.concatenate(([0], np.cumsum(followed)))
                ids, tokens, starts = ids[followed], tokens[followed], before[starts]
            scope, time_s = requests.scope[low:high], requests.time_s[low:high]
            found = self._take(ids, tokens, starts, time_s, scope)
            ideal[low:high], lru[:, low:high] = found
            while self._sample.too_many(self._numbering.count):
                self._forget_half()
                check_prefixes(self._sample, self._behind_misses, self._blocks)
        return RequestHits(ideal, lru)

    def result(self) -> CacheResult:
        """What was found in all requests so far.

        Raises
        ------
        BadInput
            If blocks had to be sampled, and their ids don't form prefix trees.
        """
        check_prefixes(self._sample, self._behind_misses, self._blocks)
        blocks, tokens, sample = self._blocks, self._tokens, self._sample
        missing = blocks - self._followed_blocks, self._block_tokens - self._followed_tokens
        hit_blocks = min(max(round(self._hit_blocks + missing[0]), 0), blocks)
        hit_tokens = min(max(round(self._hit_tokens + missing[1]), 0), self._block_tokens)
        lru = per_block_lru = ttl = working_set = None
        if self._curves and blocks:
            lru = self._whole_counts.curve(blocks, tokens, sample.fraction, missing)
            per_block_lru = self._by_block_counts.curve(blocks, tokens, sample.fraction, missing)
        if self._ttl is not None and blocks:
            ttl = self._ttl.curve(blocks, tokens, missing)
        if self._working_set is not None and blocks:
            count = self._numbering.count
            working_set = self._working_set.result(self._last, count, sample.weight)
        return CacheResult(
            blocks=blocks,
            tokens=tokens,
            unique_blocks=round(self._unique_blocks),
            unique_tokens=round(self._unique_tokens),
            ideal_hit_blocks=hit_blocks,
            ideal_hit_tokens=hit_tokens,
            ideal_block_hit_fraction=hit_blocks / blocks if blocks else None,
            ideal_token_hit_fraction=hit_tokens / max(tokens, 1) if blocks else None,
            lru=lru,
            per_block_lru=per_block_lru,
            ttl=ttl,
            sampled_fraction=sample.fraction,
            working_set=working_set,
        )

    def _take(
        self, ids: Ints, tokens: Ints, starts: Ints, time_s: Array, scope: Ints
    ) -> tuple[Ints, Ints]:
        """Ideal and LRU hit tokens of each request; of the blocks followed only."""
        weight = self._sample.weight
        known = self._numbering.count
        numbers, first = self._numbering.number(ids)
        self._unique_blocks += weight * len(first)
        self._unique_tokens += weight * int(tokens[first].sum())
        self._followed_blocks += weight * len(ids)
        self._followed_tokens += weight * int(tokens.sum())
        seen = seen_before(numbers, known, first, starts)
        length = prefix_lengths(seen, starts)
        self._behind_misses += weight * (int(np.count_nonzero(seen)) - int(length.sum()))
        ideal = sums_of(tokens, starts[:-1], length) * round(weight)
        self._hit_blocks += weight * int(length.sum())
        self._hit_tokens += int(ideal.sum())
        lru = np.zeros((len(self._capacities), len(ideal)), np.int64)
        if self._whole is None and self._ttl is None and self._working_set is None:
            return ideal, lru

        touches = touches_of(numbers, starts)
        classes = self._sample.classes(ids)
        if self._by_block is not None:
            distance = self._by_block.distances(touches, self._numbering.count)
            self._by_block_counts.add(distance, tokens, weight, classes)
            del distance
        once, kept = touches.once()
        if self._whole is not None:
            distance = self._whole.distances(once, self._numbering.count)
            distance = running_maximum(_spread(distance, kept, 0), touches.request)
            if self._curves:
                self._whole_counts.add(distance, tokens, weight, classes)
            for row, capacity in enumerate(self._capacities):
                length = prefix_lengths(distance < capacity * self._sample.fraction, starts)
                lru[row] = sums_of(tokens, starts[:-1], length) * round(weight)
            del distance
        if self._ttl is not None or self._working_set is not None:
            self._follow_time(touches, once, kept, time_s, scope, tokens, known)
        return ideal, lru

    def _follow_time(
        self,
        touches: Touches,
        once: Touches,
        kept: Flags | None,
        time_s: Array,
        scope: Ints,
        tokens: Ints,
        known: int,
    ) -> None:
        weight = self._sample.weight
        tokens_once = tokens if kept is None else tokens[kept]
        previous_s = self._last.take(once, time_s, tokens_once, self._numbering.count)
        if self._ttl is not None:
            age_s = np.take(time_s, once.request) - previous_s
            self._ttl.add(_spread(age_s, kept, -np.inf), touches.request, tokens, weight)
        if self._working_set is not None:
            self._working_set.add(
                once, previous_s, time_s, scope, tokens_once, known, self._last, weight
            )

    def _forget_half(self) -> None:
        weight = self._sample.weight
        kept = self._sample.halve(self._numbering.ids())
        self._numbering.keep(kept)
        if self._working_set is not None:
            self._working_set.keep(kept, self._last, weight)
        if self._working_set is not None or self._ttl is not None:
            self._last.keep(kept)
        for order in (self._whole, self._by_block):
            if order is not None:
                order.keep(kept)
        self._whole_counts.halve()
        self._by_block_counts.halve()


def _spread(
    values: npt.NDArray[_Scalar], kept: Flags | None, elsewhere: float
) -> npt.NDArray[_Scalar]:
    """Put values back to the blocks they belong to: repeated ones hit where those before them do.

    Their first mention in the request is among those, so any value that changes no maximum will do.
    """
    if kept is None:
        return values
    everywhere = np.full(len(kept), elsewhere, values.dtype)
    everywhere[kept] = values
    return everywhere


def _pieces(starts: Ints, size: int) -> Iterator[tuple[int, int]]:
    """Cut a batch into ranges of whole requests of about `size` block references."""
    low, count = 0, len(starts) - 1
    while low < count:
        high = int(np.searchsorted(starts, starts[low] + size, side="right")) - 1
        high = min(max(high, low + 1), count)
        yield low, high
        low = high
