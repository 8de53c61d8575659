"""Weighted inversions of a sequence: for each element, the weight of larger ones before it.

A sequence of n is cut into about sqrt(n) chunks by place and as many buckets by rank. Pairs in
unlike chunks and unlike buckets are counted on the grid of both by cumulative sums; pairs within a
chunk, and pairs within a bucket, are problems of size sqrt(n): the same again, down to a size where
all pairs are compared.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from dpplan.arrays import Ints, Ints32

__all__ = ["larger_before"]


_ALL_PAIRS: Final = 32
_COLUMNS: Final = 4096
"""Rows of all-pairs problems done at a time, so that they stay in the processor's cache."""


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
