"""H: hit rate against cache size (H-lru, H-per-block, H-sample), and against time to live."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeVar, cast

import numpy as np

from dpplan.arrays import Array, Ints
from dpplan.traces.caches.reuse import NEVER
from dpplan.traces.requests import with_room

__all__ = ["CLASSES", "HitCounts", "HitCurve", "TtlCurve"]


CLASSES: Final = 16
"""Classes of sampled blocks; the spread of their hits gives the error."""
_PER_OCTAVE: Final = 8
_OCTAVES: Final = 40
_GRID_PER_OCTAVE: Final = 4

_Blocks = TypeVar("_Blocks", float, Array)


@dataclass(frozen=True, eq=False)
class HitCurve:
    """Hits of an LRU cache of any capacity (H-lru, H-per-block).

    Examples
    --------
    Ten blocks of 16 tokens, two of which hit at distance 0 and one at distance 2:

    >>> curve = HitCurve(np.array([0.0, 2, 2, 3]), np.array([0.0, 32, 32, 48]), 10, 160)
    >>> curve.block_hit_fraction(np.array([1, 3, 1000])).tolist()
    [0.2, 0.3, 0.3]
    >>> curve.token_hit_fraction(3)
    0.3
    >>> curve.capacities().tolist()
    [1, 2, 3]
    """

    hit_blocks: Array = field(repr=False)
    """Blocks that hit in a cache of 0, 1, 2, ... blocks; in steps of 1/sampled_fraction blocks."""
    hit_tokens: Array = field(repr=False)
    """The same in tokens."""
    blocks: int
    """All block references."""
    tokens: int
    """All input tokens."""
    sampled_fraction: float = 1.0
    """Share of the blocks followed; 1 = exact."""
    block_error: tuple[Array, Array] | None = field(default=None, repr=False)
    """Capacities, and the standard error of the block hit fraction there; None = exact."""

    def block_hit_fraction(self, capacity_blocks: _Blocks) -> _Blocks:
        """Share of block references that hit in a cache of so many blocks; of the same shape."""
        return self._at(self.hit_blocks, capacity_blocks, self.blocks)

    def token_hit_fraction(self, capacity_blocks: _Blocks) -> _Blocks:
        """Share of all input tokens that hit in a cache of so many blocks; of the same shape."""
        return self._at(self.hit_tokens, capacity_blocks, self.tokens)

    def standard_error(self, capacity_blocks: _Blocks) -> _Blocks:
        """Standard error of the block hit fraction; 0 where the curve is exact (H-sample)."""
        capacities, errors = self.block_error or (np.zeros(1), np.zeros(1))
        error = np.asarray(np.interp(capacity_blocks, capacities, errors))
        return _as_given(error, capacity_blocks)

    @property
    def saturation_blocks(self) -> int:
        """Smallest capacity beyond which nothing is gained."""
        return round((len(self.hit_blocks) - 1) / self.sampled_fraction)

    def capacities(self) -> Ints:
        """Capacities [blocks] worth showing: four per doubling, up to where no more is gained."""
        top = self.saturation_blocks
        if top < 1:
            return np.array([1])
        steps = np.arange(0, np.log2(top) * _GRID_PER_OCTAVE + 1)
        grid = np.minimum(np.round(2 ** (steps / _GRID_PER_OCTAVE)), top)
        return np.unique(np.append(grid, top)).astype(np.int64)

    def _at(self, hits: Array, capacity_blocks: _Blocks, of: int) -> _Blocks:
        capacity = np.asarray(capacity_blocks, dtype=float)
        # An exact curve has no hits between its steps: 2.5 blocks hold 2. Of a sampled one, those
        # at a distance of d are spread evenly from d - 1/2 to d + 1/2.
        fraction = self.sampled_fraction
        at = np.floor(capacity)
        if fraction < 1:
            at = np.minimum(capacity, capacity * fraction + (1 - fraction) / 2)
        at = np.clip(at, 0, len(hits) - 1)
        low = at.astype(np.int64)
        high = np.minimum(low + 1, len(hits) - 1)
        found = (hits[low] + (at - low) * (hits[high] - hits[low])) / max(of, 1)
        return _as_given(found, capacity_blocks)


def _as_given(values: Array, given: _Blocks) -> _Blocks:
    return cast(_Blocks, values if np.ndim(given) else float(values))


@dataclass(frozen=True)
class TtlCurve:
    """Hits of a cache without limit that drops blocks idle for longer than a TTL (H-ttl)."""

    ttls_s: tuple[float, ...]
    block_hit_fraction: tuple[float, ...]
    """Of all block references, for each TTL."""
    token_hit_fraction: tuple[float, ...]
    """Of all input tokens, for each TTL."""


class HitCounts:
    """Histogram of the distances at which blocks hit.

    Where blocks are sampled, each stands for `weight` of them, and a distance of D sampled blocks
    for one of D * weight. What is estimated then are the misses (SHARDS-adj): the difference
    between all references and those the sample stands for is put to the shortest distance, since
    it mostly comes from a few blocks that are in use all the time.

    Examples
    --------
    >>> counts = HitCounts()
    >>> counts.add(np.array([0, 2, NEVER]), np.array([16, 16, 7]))
    >>> counts.curve(3, 39).block_hit_fraction(np.array([2, 3])).round(3).tolist()
    [0.333, 0.667]
    """

    def __init__(self) -> None:
        # One place on: the entry of distance D stands at D + 1, to become the hits of D + 1 blocks.
        self._blocks = np.zeros(1)
        self._tokens = np.zeros(1)
        self._summed = False
        # By class of block and by distance on a logarithmic grid, since blocks are sampled; the
        # last bin is for those that never hit.
        self._by_class = np.zeros((CLASSES, _PER_OCTAVE * _OCTAVES + 1))

    def add(
        self, distances: Ints, tokens: Ints, weight: float = 1.0, classes: Ints | None = None
    ) -> None:
        """Count blocks at their distances, `NEVER` = no hit; all of shape (m,).

        Parameters
        ----------
        distances, tokens : array of int
            Distance and tokens of each block.
        weight : float
            Blocks that each stands for.
        classes : array of int, optional
            Class of each block, where blocks are sampled.
        """
        self._undo_sums()
        if classes is not None:
            bins = _bins(distances * np.float64(weight))
            bins[distances == NEVER] = self._by_class.shape[1] - 1
            np.add.at(self._by_class, (classes, bins), weight)
        hit = np.flatnonzero(distances < NEVER)
        if not hit.size:
            return
        distance = distances[hit] + 1
        longest = int(distance.max())
        self._blocks = with_room(self._blocks, longest + 1)
        self._tokens = with_room(self._tokens, longest + 1)
        np.add.at(self._blocks, distance, np.full(len(hit), weight))
        np.add.at(self._tokens, distance, tokens[hit] * weight)

    def halve(self) -> None:
        """Distances from now on are counted in every second block only."""
        self._undo_sums()
        self._blocks, self._tokens = _halved(self._blocks), _halved(self._tokens)

    def curve(
        self,
        blocks: int,
        tokens: int,
        sampled_fraction: float = 1.0,
        missing: tuple[float, float] = (0.0, 0.0),
    ) -> HitCurve:
        """Hits at every capacity.

        Parameters
        ----------
        blocks, tokens : int
            All block references, all input tokens.
        sampled_fraction : float
            Share of the blocks followed now.
        missing : tuple of float
            Blocks, and tokens, that the sample doesn't stand for, though it should.
        """
        if not self._summed:
            used = np.flatnonzero(self._blocks)
            top = int(used[-1]) + 1 if used.size else 1
            self._blocks, self._tokens = self._blocks[:top], self._tokens[:top]
            np.cumsum(self._blocks, out=self._blocks)
            np.cumsum(self._tokens, out=self._tokens)
            self._summed = True
        if sampled_fraction == 1:
            return HitCurve(self._blocks, self._tokens, blocks, tokens)
        hit_blocks = np.maximum(self._blocks + missing[0], 0)
        hit_tokens = np.maximum(self._tokens + missing[1], 0)
        hit_blocks[0] = hit_tokens[0] = 0
        error = self._error(hit_blocks, sampled_fraction, blocks)
        return HitCurve(hit_blocks, hit_tokens, blocks, tokens, sampled_fraction, error)

    def _undo_sums(self) -> None:
        if self._summed:  # the curve that was given out keeps the sums
            self._blocks = np.diff(self._blocks, prepend=0.0)
            self._tokens = np.diff(self._tokens, prepend=0.0)
            self._summed = False

    def _error(
        self, hit_blocks: Array, sampled_fraction: float, blocks: int
    ) -> tuple[Array, Array]:
        """Capacities, and the standard error of the hit fraction at each.

        Two sources, taken as independent: which blocks are in the sample (spread of the misses
        over the classes) and, at capacity C, the count of the sampled blocks among C (a relative
        1/sqrt(C * sampled fraction) in the capacity).
        """
        bins = np.arange(_PER_OCTAVE * _OCTAVES)
        capacity = 2.0 ** ((bins + 1) / _PER_OCTAVE) - 1
        hits = np.cumsum(self._by_class, axis=1)
        misses = hits[:, -1:] - hits[:, :-1]
        # No error comes from the share of the blocks that is followed.
        spread = np.sqrt((1 - sampled_fraction) * CLASSES * misses.var(axis=0, ddof=1))
        shift = np.sqrt((1 - sampled_fraction) / np.maximum(capacity * sampled_fraction, 1))
        curve = HitCurve(hit_blocks, hit_blocks, blocks, blocks, sampled_fraction)
        high = np.asarray(curve.block_hit_fraction(capacity * (1 + shift)))
        low = np.asarray(curve.block_hit_fraction(capacity * np.maximum(1 - shift, 0)))
        return capacity, np.hypot(spread / max(blocks, 1), (high - low) / 2)


def _bins(distance: Array) -> Ints:
    bins = np.log2(distance + 1.0)
    bins *= _PER_OCTAVE
    return np.minimum(bins.astype(np.int64), _PER_OCTAVE * _OCTAVES - 1)


def _halved(values: Array) -> Array:
    inner = values[1:]
    even = np.pad(inner, (0, len(inner) % 2))
    return np.concatenate((values[:1], even[::2] + even[1::2]))
