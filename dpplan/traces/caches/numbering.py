"""Block ids of any kind to dense numbers 0, 1, 2, ... in order of first appearance.

Everything behind this works on arrays indexed by number. Small ids find their number in a table
indexed by id; others in an open-addressing hash table, probed for a whole batch at a time.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from dpplan.arrays import Flags, Ints, Ints32

__all__ = ["Numbering"]


_TABLE_MIN: Final = 1 << 16
_TABLE_MAX: Final = 1 << 25
_TABLE_PER_ID: Final = 8
"""A table indexed by id may have this many entries per distinct block, within the two limits."""
_STRIDE: Final = 16
"""Every so many references one is looked up; those behind it probably have the next numbers."""
_PIECE: Final = 1 << 17
_CHUNK: Final = 1 << 20
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
        self._slots: Ints32 = np.empty(0, np.int32)
        self._ids: Ints = np.empty(0, np.int64)

    def number(self, ids: Ints) -> tuple[Ints32, Ints]:
        """Number of each id, and where in `ids` each new number came up first, in order.

        Parameters
        ----------
        ids : array of int64, shape (m,)
        """
        if not len(ids):
            return np.empty(0, np.int32), np.empty(0, np.int64)
        if self._table is not None:
            limit = min(_TABLE_MAX, max(_TABLE_MIN, _TABLE_PER_ID * (self.count + len(ids))))
            largest = int(ids.max())
            if int(ids.min()) >= 0 and largest < limit:
                return self._number_by_table(ids, largest)
            self._leave_table()
        # In pieces, since the next blocks are best guessed from what was numbered before.
        parts = [
            (at, *self._number_by_hash(ids[at : at + _PIECE])) for at in range(0, len(ids), _PIECE)
        ]
        return (
            np.concatenate([numbers for _, numbers, _ in parts]),
            np.concatenate([first + at for at, _, first in parts]),
        )

    def ids(self) -> Ints:
        """Id of each number, shape (count,)."""
        if self._table is None:
            return self._ids[: self.count]
        used = np.flatnonzero(self._table >= 0)
        ids = np.empty(self.count, np.int64)
        ids[self._table[used]] = used
        return ids

    def keep(self, kept: Flags) -> None:
        """Forget the other ids; those kept are numbered anew, in the same order; shape (count,)."""
        ids = self.ids()[kept]
        self._table, self._ids, self.count = None, ids, len(ids)
        self._fill(self.count)

    # -- small ids -----------------------------------------------------------------------------

    def _number_by_table(self, ids: Ints, largest: int) -> tuple[Ints32, Ints]:
        table = self._table
        assert table is not None
        if largest >= len(table):
            grown = np.full(max(largest + 1, min(2 * len(table), _TABLE_MAX)), -1, np.int32)
            grown[: len(table)] = table
            self._table = table = grown
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
        self._ids, self._table = self.ids(), None
        self._fill(self.count)

    # -- any ids -------------------------------------------------------------------------------

    def _number_by_hash(self, ids: Ints) -> tuple[Ints32, Ints]:
        numbers = self._guessed(ids)
        open_ = np.flatnonzero(numbers < 0)
        numbers[open_] = self._found(ids[open_])
        fresh = open_[numbers[open_] < 0]
        if not fresh.size:
            return numbers, fresh
        self._reserve(self.count + len(fresh))
        self._ids[self.count : self.count + len(fresh)] = ids[fresh]
        provisional = self._inserted(ids[fresh], self.count)
        is_first = provisional == np.arange(self.count, self.count + len(fresh))
        place = np.cumsum(is_first, dtype=np.int32)
        final = self.count + place[provisional - self.count] - 1
        first = fresh[is_first]
        # The slots hold provisional numbers, those of the first references: put the final ones.
        self._renumber(self._ids[self.count : self.count + len(fresh)], is_first, final)
        numbers[fresh] = final
        self._ids[self.count : self.count + len(first)] = ids[first]
        self.count += len(first)
        return numbers, first

    def _guessed(self, ids: Ints) -> Ints32:
        """Number, or -1: a block behind a known one most often was behind it before, too."""
        numbers = np.full(len(ids), -1, np.int32)
        if not self.count:
            return numbers
        anchor = self._found(ids[::_STRIDE])
        # Behind an unknown one numbers from 0 on are guessed, which may be right as well.
        guess = np.maximum(anchor, 0)[:, None] + np.arange(_STRIDE, dtype=np.int32)
        guess = np.minimum(guess.ravel()[: len(ids)], self.count - 1)
        np.copyto(numbers, guess, where=np.take(self._ids, guess) == ids)
        return numbers

    def _slot(self, ids: Ints) -> Ints:
        """Where the search for each id begins; it goes on in steps of 1, 2, 3, ... slots."""
        mixed = ids.view(np.uint64) * _FIRST_FACTOR
        mixed ^= mixed >> np.uint64(32)
        mixed *= _SECOND_FACTOR
        mixed >>= np.uint64(65 - len(self._slots).bit_length())
        return mixed.view(np.int64)

    def _found(self, ids: Ints) -> Ints32:
        """Number of each id, -1 where it is unknown."""
        if not self.count:
            return np.full(len(ids), -1, np.int32)
        last = len(self._slots) - 1
        ids = np.ascontiguousarray(ids)
        slot = self._slot(ids)
        numbers = np.take(self._slots, slot)
        # Most stand in the first slot, or it is empty; what there is another's goes on.
        open_ = np.flatnonzero((np.take(self._ids, numbers) != ids) & (numbers >= 0))
        ids, slot = ids[open_], slot[open_]
        step = 0
        while open_.size:
            step += 1
            slot = (slot + step) & last
            there = np.take(self._slots, slot)
            numbers[open_] = there
            other = np.flatnonzero((np.take(self._ids, there) != ids) & (there >= 0))
            open_, ids, slot = open_[other], ids[other], slot[other]
        return numbers

    def _inserted(self, ids: Ints, at: int) -> Ints32:
        """Put unknown ids, which may repeat, into the slots as numbers at, at + 1, ...

        `_ids` must hold them there already. Returns the number that each id got: that of its
        first occurrence, since equal ids probe the same slots in step, and the first wins.
        """
        numbers = np.empty(len(ids), np.int32)
        last = len(self._slots) - 1
        open_ = np.arange(len(ids))
        slot = self._slot(ids)
        step = 0
        while open_.size:
            empty = np.flatnonzero(np.take(self._slots, slot) < 0)[::-1]
            self._slots[slot[empty]] = open_[empty] + at
            there = np.take(self._slots, slot)
            same = np.take(self._ids, there) == ids
            numbers[open_[same]] = there[same]
            other = np.flatnonzero(~same)
            open_, ids = open_[other], ids[other]
            step += 1
            slot = (slot[other] + step) & last
        return numbers

    def _renumber(self, ids: Ints, is_first: Flags, final: Ints32) -> None:
        """Replace the provisional numbers of first references by final ones."""
        wanted = np.flatnonzero(is_first)
        if len(wanted) == len(ids):  # no id came twice: the provisional numbers are final
            return
        provisional = (wanted + self.count).astype(np.int32)
        slot = self._slot(ids[wanted])
        last = len(self._slots) - 1
        at = np.empty(len(wanted), np.int64)
        open_ = np.arange(len(wanted))
        step = 0
        while open_.size:
            same = np.take(self._slots, slot) == provisional[open_]
            at[open_[same]] = slot[same]
            other = np.flatnonzero(~same)
            open_ = open_[other]
            step += 1
            slot = (slot[other] + step) & last
        self._slots[at] = final[wanted]

    def _reserve(self, count: int) -> None:
        """Room for `count` ids, slots at most 5/8 full."""
        if count > len(self._ids):
            grown = np.empty(max(count, len(self._ids) * 5 // 4), np.int64)
            grown[: self.count] = self._ids[: self.count]
            self._ids = grown
        if 8 * count > 5 * len(self._slots):
            self._fill(count)

    def _fill(self, count: int) -> None:
        """New slots, with room for `count` ids, and those known put in."""
        size = 1 << max(10, (count * 8 // 5).bit_length())
        self._slots = np.full(size, -1, np.int32)
        for at in range(0, self.count, _CHUNK):
            self._inserted(self._ids[at : min(at + _CHUNK, self.count)], at)
