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
"""

from __future__ import annotations

from typing import Final

import numpy as np

from dpplan.arrays import Flags, Ints, Ints32
from dpplan.traces.caches.inversions import larger_before
from dpplan.traces.caches.touches import Touches

__all__ = ["NEVER", "RecencyOrder"]


NEVER: Final = (1 << 31) - 1
"""Distance of a block that was never touched before."""
_DEAD_MIN: Final = 1 << 12
_DEAD_PER_LIVING: Final = 1 / 8
"""The order is compacted when it holds more dead positions than that."""


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
    >>> from dpplan.traces.caches.touches import touches_of
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
        if blocks > len(self._position):
            grown = np.full(max(blocks, len(self._position) * 5 // 4), -1, np.int32)
            grown[: len(self._position)] = self._position
            self._position = grown
        if positions > len(self._block):
            grown = np.empty(max(positions, len(self._block) * 5 // 4), np.int32)
            grown[: self._top] = self._block[: self._top]
            self._block = grown

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
    bits = len(keys).bit_length()
    mask = (1 << bits) - 1
    packed = keys.astype(np.int64) << bits
    packed |= np.arange(len(keys))
    packed.sort()
    by_rank = packed & mask
    packed[:] = request[by_rank]
    packed <<= bits
    packed |= np.arange(len(keys))
    packed.sort()
    rank = packed & mask
    original = by_rank[rank]
    result = np.empty(len(keys), np.int64)
    result[original] = larger_before(rank, weights[original])
    return result
