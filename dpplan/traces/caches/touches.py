"""Which earlier reference of the batch held each block, and which blocks a request repeats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpplan.arrays import Flags, Ints, Ints32

__all__ = ["Touches", "touches_of"]


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
    count = len(numbers)
    bits = count.bit_length()
    packed = numbers.astype(np.int64)
    packed <<= bits
    packed |= np.arange(count)
    packed.sort()
    place = packed & ((1 << bits) - 1)
    packed >>= bits
    same = np.flatnonzero(packed[1:] == packed[:-1])
    previous = np.full(count, -1, np.int32)
    previous[place[same + 1]] = place[same]
    request = np.repeat(np.arange(len(starts) - 1, dtype=np.int32), np.diff(starts))
    return Touches(numbers, starts, request, previous)
