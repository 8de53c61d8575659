"""Block ids of any kind to dense numbers 0, 1, 2, ... in order of first appearance.

Everything behind this works on arrays indexed by number. Small ids find their number in a table
indexed by id; others in an open-addressing hash table, probed for a whole batch at a time: as fast
as pandas' factorizer, in a fraction of its memory.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from dpplan.arrays import Flags, Ints, Ints32
from dpplan.traces.requests import NO_IDS, with_room

__all__ = ["Numbering"]


_TABLE_MIN: Final = 1 << 16
_TABLE_MAX: Final = 1 << 25
_TABLE_PER_ID: Final = 8
"""A table indexed by id may have this many entries per distinct block, within the two limits."""
_PIECE: Final = 1 << 20
"""Ids put into the hash table at a time, so that its growth takes little memory beside it."""
_FIRST_FACTOR: Final = np.uint64(0x9E3779B97F4A7C15)
_SECOND_FACTOR: Final = np.uint64(0xD6E8FEB86659FD93)


class Numbering:
    """Numbers of all block ids seen so far.

    Examples
    --------
    >>> import numpy as np
    >>> numbering = Numbering()
    >>> numbers, first = numbering.number(np.array([70, 10**15, 70]))
    >>> numbers.tolist(), first.tolist(), numbering.count
    ([0, 1, 0], [0, 1], 2)
    """

    def __init__(self) -> None:
        self.count = 0
        """Distinct ids so far."""
        self._table: Ints32 | None = np.full(_TABLE_MIN, -1, np.int32)
        self._ids: Ints = NO_IDS
        """Of each number, once the table is left."""
        self._slots: Ints32 = np.empty(0, np.int32)
        """Numbers, each where the search for its id leads; at most 5/8 are taken."""

    def number(self, ids: Ints) -> tuple[Ints32, Ints]:
        """Number of each id, and where in `ids` each new number came up first, in order.

        Parameters
        ----------
        ids : array of int64, shape (m,)
        """
        if not len(ids):
            return np.empty(0, np.int32), NO_IDS
        if self._table is not None:
            limit = min(_TABLE_MAX, max(_TABLE_MIN, _TABLE_PER_ID * (self.count + len(ids))))
            if int(ids.min()) >= 0 and int(ids.max()) < limit:
                self._table = with_room(self._table, int(ids.max()) + 1, -1)
                return self._number_by_table(self._table, ids)
            self._leave_table()
        numbers = self._found(ids)
        fresh = np.flatnonzero(numbers < 0)
        distinct, first, which = np.unique(ids[fresh], return_index=True, return_inverse=True)
        by_place = np.argsort(first)
        new = np.empty(len(distinct), np.int32)
        new[by_place] = np.arange(self.count, self.count + len(distinct))
        numbers[fresh] = new[which]
        self._append(distinct[by_place])
        return numbers, fresh[first[by_place]]

    def ids(self) -> Ints:
        """Id of each number, shape (count,)."""
        if self._table is not None:
            used = np.flatnonzero(self._table >= 0)
            return used[np.argsort(self._table[used])]
        return self._ids[: self.count]

    def keep(self, kept: Flags) -> None:
        """Forget the other ids; those kept are numbered anew, in the same order; shape (count,)."""
        ids = self.ids()[kept]
        self._table, self._slots, self._ids, self.count = None, self._slots[:0], NO_IDS, 0
        self._append(ids)

    def _number_by_table(self, table: Ints32, ids: Ints) -> tuple[Ints32, Ints]:
        numbers = np.take(table, ids)
        fresh = np.flatnonzero(numbers < 0)
        if not fresh.size:
            return numbers, fresh
        # Backwards, so that of several references to a new id the first one stays written.
        table[ids[fresh[::-1]]] = fresh[::-1]
        first = fresh[np.take(table, ids[fresh]) == fresh]
        table[ids[first]] = np.arange(self.count, self.count + len(first))
        numbers[fresh] = np.take(table, ids[fresh])
        self.count += len(first)
        return numbers, first

    def _leave_table(self) -> None:
        ids, self._table, self.count = self.ids(), None, 0
        self._append(ids)

    def _append(self, ids: Ints) -> None:
        """Take in ids that are all new, and unlike one another."""
        begin, self.count = self.count, self.count + len(ids)
        self._ids = with_room(self._ids, self.count)
        self._ids[begin : self.count] = ids
        if 8 * self.count > 5 * len(self._slots):
            size = 1 << max(10, (self.count * 8 // 5).bit_length())
            self._slots, begin = np.full(size, -1, np.int32), 0
        for at in range(begin, self.count, _PIECE):
            numbers = np.arange(at, min(at + _PIECE, self.count), dtype=np.int32)
            slot, step = self._slot(self._ids[numbers]), 0
            while numbers.size:
                empty = np.take(self._slots, slot) < 0
                self._slots[slot[empty]] = numbers[empty]
                left = np.take(self._slots, slot) != numbers  # taken before, or by another just now
                step += 1
                numbers, slot = numbers[left], (slot[left] + step) & (len(self._slots) - 1)

    def _found(self, ids: Ints) -> Ints32:
        """Number of each id, -1 where it is unknown."""
        numbers = np.full(len(ids), -1, np.int32)
        if not self.count:
            return numbers
        open_, slot, step = np.arange(len(ids)), self._slot(ids), 0
        while open_.size:
            there = np.take(self._slots, slot)
            numbers[open_] = there
            other = np.flatnonzero((np.take(self._ids, there) != ids) & (there >= 0))
            step += 1
            open_, ids, slot = open_[other], ids[other], slot[other]
            slot = (slot + step) & (len(self._slots) - 1)
        return numbers

    def _slot(self, ids: Ints) -> Ints:
        """Where the search for each id begins; it goes on in steps of 1, 2, 3, ... slots."""
        mixed = np.ascontiguousarray(ids).view(np.uint64) * _FIRST_FACTOR
        mixed ^= mixed >> np.uint64(32)
        mixed *= _SECOND_FACTOR
        mixed >>= np.uint64(65 - len(self._slots).bit_length())
        return mixed.view(np.int64)
