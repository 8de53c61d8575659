"""H-ideal: contiguous prefixes of requests, and hits where every block seen stays."""

from __future__ import annotations

import numpy as np

from dpplan.arrays import Flags, Ints, Ints32

__all__ = ["prefix_lengths", "running_maximum", "seen_before", "sums_of"]


_BITS = 31
"""Values under a running maximum stay below 2**31."""


def seen_before(numbers: Ints32, known: int, first: Ints, block_starts: Ints) -> Flags:
    """Whether each block was seen in an earlier request (H-ideal).

    Parameters
    ----------
    numbers : array of int, shape (m,)
        Dense number of each block.
    known : int
        Numbers below it were seen before this batch.
    first : array of int, shape (new,)
        Where numbers known, known + 1, ... came up first.
    block_starts : array of int, shape (n + 1,)
        Where each request's blocks start.

    Examples
    --------
    >>> import numpy as np
    >>> numbers, starts = np.array([0, 1, 0, 1, 1], np.int32), np.array([0, 2, 5])
    >>> seen_before(numbers, 1, np.array([1]), starts).tolist()
    [True, False, True, True, True]
    """
    seen = numbers < known
    new = np.flatnonzero(~seen)
    if new.size:
        start = block_starts[np.searchsorted(block_starts, new, side="right") - 1]
        seen[new] = first[numbers[new] - known] < start
    return seen


def prefix_lengths(hit: Flags, block_starts: Ints) -> Ints:
    """Leading blocks of each request up to the first that misses; shape (n,).

    Examples
    --------
    >>> import numpy as np
    >>> prefix_lengths(np.array([True, False, True, True]), np.array([0, 3, 3, 4])).tolist()
    [1, 0, 1]
    """
    misses = np.append(np.flatnonzero(~hit), len(hit))
    starts, ends = block_starts[:-1], block_starts[1:]
    first_miss = misses[np.searchsorted(misses, starts)]
    return np.asarray(np.minimum(first_miss, ends) - starts)


def sums_of(values: Ints, starts: Ints, lengths: Ints) -> Ints:
    """Sum of `lengths[r]` values from `starts[r]` on, for each r.

    Examples
    --------
    >>> import numpy as np
    >>> sums_of(np.array([1, 2, 4, 8]), np.array([0, 2]), np.array([2, 1])).tolist()
    [3, 4]
    """
    cumulative = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=cumulative[1:])
    return np.asarray(cumulative[starts + lengths] - cumulative[starts])


def running_maximum(values: Ints, request: Ints32) -> Ints:
    """Largest value from the request's start up to each place; in place, values in [0, 2**31).

    Examples
    --------
    >>> import numpy as np
    >>> running_maximum(np.array([2, 1, 3, 0]), np.array([0, 0, 1, 1], np.int32)).tolist()
    [2, 2, 3, 3]
    """
    floor = request.astype(np.int64)
    floor <<= _BITS
    values += floor
    np.maximum.accumulate(values, out=values)
    values -= floor
    return values
