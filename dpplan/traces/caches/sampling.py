"""H-sample: a sample of the blocks in bounded memory (SHARDS).

A block is followed or not by a hash of its id, for good: so all its touches are seen, and of the
blocks between two of them a known share. All blocks are followed until they are more than a limit;
then every second one is forgotten, and again. (Waldspurger et al., "Efficient MRC construction with
SHARDS", FAST 2015, the variant of fixed size.)

Blocks are sampled one by one, though hits go by contiguous prefixes. That is right where ids stand
for a block and all before it, as in prefix trees: each request that touches a block touches all
before it, later (last to first), so along a request blocks only get older, and whether a block is
in the cache says that all before it are. Where ids are otherwise, hits would be overestimated:
beyond a few such ids that is refused.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from dpplan.arrays import Flags, Ints
from dpplan.errors import BadInput, Fault
from dpplan.traces.caches.curves import CLASSES

__all__ = ["BlockSample", "blocks_within", "check_prefixes"]


BASE_BYTES: Final = 200 * 10**6
"""Interpreter, reader, and what a batch takes while it is analysed."""
BYTES_PER_BLOCK: Final = 130.0
"""What is kept of a distinct block, with room to grow."""
_BEHIND_MISSES: Final = 0.01
"""Share of the blocks that may have been seen before though one in front of them was not."""
_FEWEST: Final = 1 << 14
"""With fewer sampled blocks, errors are several percent."""


def blocks_within(memory_bytes: float) -> int:
    """Distinct blocks that can be followed in so much memory.

    Raises
    ------
    BadInput
        If they are too few for a sample.

    Examples
    --------
    >>> blocks_within(1.5e9)
    10000000
    """
    blocks = int((memory_bytes - BASE_BYTES) / BYTES_PER_BLOCK)
    if blocks < _FEWEST:
        least_mb = int(np.ceil((BASE_BYTES + _FEWEST * BYTES_PER_BLOCK) / 1e6))
        raise BadInput(
            Fault(
                "--memory",
                f"at least {least_mb} MB are needed, for the program itself and a sample of blocks",
                f"{memory_bytes / 1e6:g} MB",
                f"give --memory {least_mb}MB or more, or leave it out for exact figures",
            )
        )
    return blocks


class BlockSample:
    """Which blocks are followed (H-sample).

    Parameters
    ----------
    limit_blocks : int, optional
        The most that may be followed; None = all.

    Examples
    --------
    >>> sample = BlockSample(limit_blocks=600)
    >>> ids = np.arange(1000)
    >>> sample.too_many(len(ids)), int(sample.halve(ids).sum()), sample.weight
    (True, 497, 2.0)
    """

    def __init__(self, limit_blocks: int | None = None) -> None:
        self._limit = limit_blocks
        self._halvings = 0

    @property
    def weight(self) -> float:
        """Blocks that each one followed stands for."""
        return float(2**self._halvings)

    @property
    def fraction(self) -> float:
        """Share of the blocks that is followed."""
        return 1 / self.weight

    def followed(self, ids: Ints) -> Flags | None:
        """Whether each block is followed, None = all; of the shape of `ids`."""
        if not self._halvings:
            return None
        return np.asarray(_mixed(ids) >> np.uint64(64 - self._halvings) == 0)

    def classes(self, ids: Ints) -> Ints | None:
        """Class of each followed block, None = nothing is sampled; of the shape of `ids`."""
        if not self._halvings:
            return None
        return (_mixed(ids) & np.uint64(CLASSES - 1)).astype(np.int64)

    def too_many(self, blocks: int) -> bool:
        """Whether so many blocks are beyond the limit."""
        return self._limit is not None and blocks > self._limit

    def halve(self, ids: Ints) -> Flags:
        """Follow every second block only; which of those present that leaves."""
        self._halvings += 1
        kept = self.followed(ids)
        assert kept is not None
        return kept


def check_prefixes(sample: BlockSample, behind_misses: float, blocks: int) -> None:
    """Hold that a sample may stand for all: that ids stand for a block and all before it.

    Raises
    ------
    BadInput
        If blocks are sampled and too many were seen before, though one in front of them was not.

    Examples
    --------
    >>> check_prefixes(BlockSample(), 900, 1000)
    """
    if sample.fraction < 1 and behind_misses > _BEHIND_MISSES * blocks:
        share = f"{behind_misses / blocks:.0%} of the blocks came before, behind others than now"
        needed = "to sample a trace, ids that stand for a block and all before it are needed"
        raise BadInput(Fault("--memory", needed, share, "give more memory, or leave it out"))


def _mixed(ids: Ints) -> npt.NDArray[np.uint64]:
    """All 64 bits of each id stirred into each bit (the finaliser of SplitMix64)."""
    mixed = ids.astype(np.uint64)
    mixed += np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed
