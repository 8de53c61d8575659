"""H: hit rate against cache size, and against how long blocks are kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, overload

import numpy as np
import numpy.typing as npt

from dpplan.arrays import Array, Ints

__all__ = ["HitCurve", "TtlCurve"]


_GRID_PER_OCTAVE: Final = 4


@dataclass(frozen=True, eq=False)
class HitCurve:
    """Hits of an LRU cache of any capacity (H-lru, H-per-block).

    Examples
    --------
    Ten blocks of 16 tokens, two of which hit at distance 0 and one at distance 2:

    >>> curve = HitCurve(np.array([0.0, 2, 2, 3]), np.array([0.0, 32, 32, 48]), 10, 160)
    >>> curve.block_hit_fraction([1, 3, 1000]).tolist()
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

    @overload
    def block_hit_fraction(self, capacity_blocks: float) -> float: ...
    @overload
    def block_hit_fraction(self, capacity_blocks: npt.ArrayLike) -> float | Array: ...
    def block_hit_fraction(self, capacity_blocks: npt.ArrayLike) -> float | Array:
        """Share of block references that hit in a cache of so many blocks; of the same shape."""
        return self._at(self.hit_blocks, capacity_blocks, self.blocks)

    @overload
    def token_hit_fraction(self, capacity_blocks: float) -> float: ...
    @overload
    def token_hit_fraction(self, capacity_blocks: npt.ArrayLike) -> float | Array: ...
    def token_hit_fraction(self, capacity_blocks: npt.ArrayLike) -> float | Array:
        """Share of all input tokens that hit in a cache of so many blocks; of the same shape."""
        return self._at(self.hit_tokens, capacity_blocks, self.tokens)

    @overload
    def standard_error(self, capacity_blocks: float) -> float: ...
    @overload
    def standard_error(self, capacity_blocks: npt.ArrayLike) -> float | Array: ...
    def standard_error(self, capacity_blocks: npt.ArrayLike) -> float | Array:
        """Standard error of the block hit fraction; 0 where the curve is exact (H-sample)."""
        capacity = np.asarray(capacity_blocks, dtype=float)
        if self.block_error is None:
            error = np.zeros_like(capacity)
        else:
            error = np.asarray(np.interp(capacity, *self.block_error))
        return float(error) if capacity.ndim == 0 else error

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

    def _at(self, hits: Array, capacity_blocks: npt.ArrayLike, of: int) -> float | Array:
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
        return float(found) if capacity.ndim == 0 else np.asarray(found)


@dataclass(frozen=True)
class TtlCurve:
    """Hits of a cache without limit that drops blocks idle for longer than a TTL (H-ttl)."""

    ttls_s: tuple[float, ...]
    block_hit_fraction: tuple[float, ...]
    """Of all block references, for each TTL."""
    token_hit_fraction: tuple[float, ...]
    """Of all input tokens, for each TTL."""
