"""H-lru, H-per-block: LRU stack distances, which give the hits at all capacities at once.

Of all blocks a recency order is kept, the oldest at position 0, and each touch puts its block at
the next position. At the time of a look-up the distance D of a block, that is how many others were
touched since it was, is the number of living positions above its own. So it hits in a cache of C
blocks if and only if D < C (Mattson et al., 1970).

Touch i of a batch gets position T + i and ends the life of the block's former position p_i. At the
time of touch s there lie T + s - p_i - 1 positions above p_i, of which those are dead that were so
at the start of the batch, and p_j > p_i for the touches j < s: weighted inversions.

Two conventions:

- *Requests whole.* All look-ups of a request come before its touches, and its blocks are touched
  last to first, so that the head stays most recent.
- *Block by block.* Every block is looked up and touched, one after another in the order given.

Most blocks follow the same block as last time, in runs: then their former positions fall by one
from block to block in the first convention, rise by one in the second. Along a run the number of
dead positions above is the same, since p_i and p_i +- 1 both live until now and nothing lies in
between. So whole runs are counted against whole runs.

Weighted inversions are, for each element of a sequence, the weight of larger ones before it. A
sequence of n is cut into about sqrt(n) chunks by place and as many buckets by rank. Pairs in unlike
chunks and unlike buckets are counted on the grid of both by cumulative sums; pairs within a chunk,
and pairs within a bucket, are problems of size sqrt(n): the same again, down to a size where all
pairs are compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dpplan.arrays import Flags, Ints, Ints32
from dpplan.traces.requests import with_room

__all__ = ["NEVER", "RecencyOrder", "Touches", "larger_before", "touches_of"]


NEVER: Final = (1 << 31) - 1
"""Distance of a block that was never touched before."""
_DEAD_MIN: Final = 1 << 12
_DEAD_PER_LIVING: Final = 1 / 8
"""The order is compacted when it holds more dead positions than that."""
_ALL_PAIRS: Final = 32
_COLUMNS: Final = 4096
"""Rows of all-pairs problems done at a time, so that they stay in the processor's cache."""


@dataclass(frozen=True)
class Touches:
    """Blocks that requests touch, in order of requests and of blocks in them."""

    numbers: Ints32
    """Dense number of each block, shape (m,)."""
    starts: Ints
    """Where each request's blocks start, shape (n + 1,)."""
    request: Ints32
    """Each block's request, shape (m,)."""
    previous: Ints32
    """Place of the last earlier reference to the block in this batch, -1 = none; shape (m,)."""

    def once(self) -> tuple[Touches, Flags | None]:
        """Without blocks that stand in the same request before; which are left, None = all."""
        kept = self.previous < self.starts[self.request]
        if kept.all():
            return self, None
        before = np.concatenate(([0], np.cumsum(kept)))
        return touches_of(self.numbers[kept], before[self.starts]), kept


def touches_of(numbers: Ints32, starts: Ints) -> Touches:
    """Find each block's previous reference.

    Examples
    --------
    >>> import numpy as np
    >>> touches_of(np.array([5, 6, 5, 5], np.int32), np.array([0, 2, 4])).previous.tolist()
    [-1, -1, 0, 2]
    """
    place = np.argsort(numbers, kind="stable")
    ordered = numbers[place]
    same = np.flatnonzero(ordered[1:] == ordered[:-1])
    previous = np.full(len(numbers), -1, np.int32)
    previous[place[same + 1]] = place[same]
    request = np.repeat(np.arange(len(starts) - 1, dtype=np.int32), np.diff(starts))
    return Touches(numbers, starts, request, previous)


class RecencyOrder:
    """Blocks in order of their last touch, in one of the two conventions (H-lru, H-per-block).

    Parameters
    ----------
    whole : bool
        Requests whole; else block by block.

    Examples
    --------
    A request of blocks 0, 1, 2, then one of 0, 1: between two touches of block 0 lie those of 1
    and 2 block by block; as whole requests block 0 was the last one touched.

    >>> import numpy as np
    >>> touches = touches_of(np.array([0, 1, 2, 0, 1], np.int32), np.array([0, 3, 5]))
    >>> RecencyOrder(whole=False).distances(touches, 3)[3:].tolist()
    [2, 2]
    >>> RecencyOrder(whole=True).distances(touches, 3)[3:].tolist()
    [0, 1]
    """

    def __init__(self, *, whole: bool) -> None:
        self._whole = whole
        self._position: Ints32 = np.empty(0, np.int32)  # of each block, -1 = never touched
        self._block: Ints32 = np.empty(0, np.int32)  # at each position
        self._top = 0
        self._dead: Ints32 = np.empty(0, np.int32)  # sorted

    def distances(self, touches: Touches, blocks: int) -> Ints:
        """D of each block of a batch, `NEVER` where it is new; touches them all.

        Parameters
        ----------
        touches : Touches
            Requests whole: without blocks that a request repeats.
        blocks : int
            All numbers lie below it.
        """
        self._reserve(blocks, self._top + len(touches.numbers))
        numbers = touches.numbers
        place = np.arange(self._top, self._top + len(numbers), dtype=np.int32)
        lookup = place
        if self._whole:  # mirrored within each request
            edges = touches.starts.astype(np.int32)
            lookup = np.take(edges[:-1] + np.int32(self._top), touches.request)
            place = np.take(edges[:-1] + edges[1:] - 1, touches.request) - place
            place += np.int32(2 * self._top)
        former = np.take(self._position, numbers)
        within = np.flatnonzero(touches.previous >= 0)
        former[within] = place[touches.previous[within]]

        distance = np.full(len(numbers), NEVER, np.int64)
        known = np.flatnonzero(former >= 0)
        if known.size:
            position = former[known]
            request = touches.request[known]
            step = np.diff(position)
            same = request[1:] == request[:-1]
            joined = (step == -1) & same if self._whole else step == 1
            first = np.concatenate(([0], np.flatnonzero(~joined) + 1))
            length = np.diff(first, append=len(known))
            gone = np.searchsorted(self._dead, position[first], side="right")
            gone = len(self._dead) - gone
            if self._whole:
                gone += _larger_in_earlier(position[first], length, request[first])
            else:
                gone += larger_before(position[first], length)
            above = lookup[known].astype(np.int64) - position - 1
            above -= np.repeat(gone, length)
            distance[known] = above
            self._touch(numbers, place, position)
        else:
            self._touch(numbers, place, former[:0])
        return distance

    def keep(self, kept: Flags) -> None:
        """Forget the other blocks; those kept are numbered anew, in the same order; shape (n,)."""
        self._reserve(len(kept), self._top)
        living = self._living(self._dead[:0], 0)
        block = self._block[: self._top][living]
        block = block[kept[block]]
        renumbered = np.cumsum(kept, dtype=np.int32) - np.int32(1)
        self._block = renumbered[block]
        self._position = np.full(int(kept.sum()), -1, np.int32)
        self._position[self._block] = np.arange(len(block), dtype=np.int32)
        self._top, self._dead = len(block), self._dead[:0].copy()

    def _reserve(self, blocks: int, positions: int) -> None:
        self._position = with_room(self._position, blocks, -1)
        self._block = with_room(self._block, positions)

    def _touch(self, numbers: Ints32, place: Ints32, killed: Ints32) -> None:
        self._block[place] = numbers
        self._top += len(numbers)
        self._position[numbers] = place  # written in order: the last touch stays
        dead = len(self._dead) + len(killed)
        if dead <= max(_DEAD_MIN, (self._top - dead) * _DEAD_PER_LIVING):
            self._dead = np.sort(np.concatenate((self._dead, killed)))
            return
        low = int(min(killed.min(initial=NEVER), self._dead.min(initial=NEVER)))
        living = self._living(killed, low)
        moved = self._block[low : self._top][living]
        self._top = low + len(moved)
        self._block[low : self._top] = moved
        self._position[moved] = np.arange(low, self._top, dtype=np.int32)
        self._dead = self._dead[:0].copy()

    def _living(self, killed: Ints32, low: int) -> Flags:
        """Whether each position from `low` on holds a block's last touch."""
        living = np.ones(self._top - low, np.bool_)
        living[self._dead - low] = False
        living[killed - low] = False
        return living


def _larger_in_earlier(keys: Ints32, weights: Ints, request: Ints32) -> Ints:
    """Weight of larger keys in earlier requests, for each key; all keys are distinct."""
    # By rising keys within each request no key counts another of its own request.
    order = np.argsort(request.astype(np.int64) << 31 | keys)
    result = np.empty(len(keys), np.int64)
    result[order] = larger_before(keys[order], weights[order])
    return result


def larger_before(keys: npt.ArrayLike, weights: npt.ArrayLike) -> Ints:
    """Sum of weights[j] over j < i with keys[j] > keys[i], for each i.

    Parameters
    ----------
    keys : array of int, shape (n,), 0 <= key < 2**31
    weights : array of int, shape (n,), with a sum below 2**31

    Examples
    --------
    >>> larger_before([3, 1, 2, 1], [10, 1, 1, 1]).tolist()
    [0, 10, 10, 11]
    """
    keys = np.asarray(keys, dtype=np.int32)
    weights = np.asarray(weights, dtype=np.int32)
    count = len(keys)
    width = _chunk(count) if count > _ALL_PAIRS else max(count, 1)
    padded = -(-count // width) * width
    # What fills up the end weighs nothing and stands behind everything.
    rows = [np.zeros((1, padded), np.int32) for _ in range(2)]
    rows[0][0, :count], rows[1][0, :count] = keys, weights
    return _count(*rows)[0, :count].astype(np.int64)


def _chunk(count: int) -> int:
    """Power of two next to the square root of `count`."""
    return 1 << ((count - 1).bit_length() + 1) // 2


def _count(keys: Ints32, weights: Ints32) -> Ints32:
    """`larger_before` of each row; the length is a multiple of its chunk, or small."""
    groups, count = keys.shape
    if count <= _ALL_PAIRS:
        return _all_pairs(keys, weights)
    chunk = _chunk(count)
    chunks = count // chunk
    bits = (count - 1).bit_length()

    # Elements in order of rank; equal keys by place, so that none counts another.
    packed = (keys.astype(np.int64) << bits) | np.arange(count)
    packed.sort(axis=1)
    place = packed & ((1 << bits) - 1)
    place += np.arange(groups)[:, None] * count
    del packed
    weight = np.take(weights, place)
    chunk_of = (place // chunk).astype(np.int32)  # through all groups: group * chunks + chunk
    cell = (chunk_of * chunks).reshape(groups, chunks, chunk)
    cell += np.arange(chunks, dtype=np.int32)[:, None]  # the bucket: rank // chunk
    weighed = np.bincount(cell.ravel(), weight.ravel(), groups * chunks * chunks)
    grid = weighed.astype(np.int32).reshape(groups, chunks, chunks)
    # Strictly earlier chunks, strictly higher buckets.
    later = np.zeros_like(grid)
    np.cumsum(grid[:, :-1], axis=1, out=later[:, 1:])
    higher = np.zeros_like(grid)
    higher[:, :, :-1] = np.cumsum(later[:, :, :0:-1], axis=2)[:, :, ::-1]
    counts = np.take(higher, cell).reshape(groups * chunks, chunk)
    del weighed, grid, later, higher, cell

    # Within a bucket, seen from its top: what comes before is larger, and must lie in an earlier
    # chunk, which is a larger key when chunks are counted from the end.
    shape = (groups * chunks, chunk)
    last = np.repeat(np.arange(1, groups + 1, dtype=np.int32) * chunks - 1, chunks)[:, None]
    counts += _count(
        np.ascontiguousarray((last - chunk_of.reshape(shape))[:, ::-1]),
        np.ascontiguousarray(weight.reshape(shape)[:, ::-1]),
    )[:, ::-1]
    result = np.empty(groups * count, np.int32)
    result[place.ravel()] = counts.ravel()
    del place, weight, chunk_of, counts

    result += _count(keys.reshape(shape), weights.reshape(shape)).ravel()
    return result.reshape(groups, count)


def _all_pairs(keys: Ints32, weights: Ints32) -> Ints32:
    groups, count = keys.shape
    counts = np.empty_like(keys)
    for at in range(0, groups, _COLUMNS):
        # Transposed: every step then runs along a long row of problems.
        key = np.ascontiguousarray(keys[at : at + _COLUMNS].T)
        weight = np.ascontiguousarray(weights[at : at + _COLUMNS].T)
        total = np.zeros_like(key)
        for lag in range(1, count):
            larger = key[:-lag] > key[lag:]
            total[lag:] += weight[:-lag] * larger
        counts[at : at + _COLUMNS] = total.T
    return counts
