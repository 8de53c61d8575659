"""Block ids of any kind to dense numbers 0, 1, 2, ... in order of first appearance.

Everything behind this works on arrays indexed by number. Small ids find their number in a table
indexed by id, others by binary search among all ids known, kept sorted.
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
        self._sorted: Ints = NO_IDS
        self._numbers: Ints32 = np.empty(0, np.int32)  # of the sorted ids

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
        distinct, first, which = np.unique(ids, return_index=True, return_inverse=True)
        at = np.searchsorted(self._sorted, distinct)
        numbers = np.full(len(distinct), -1, np.int32)
        inside = np.flatnonzero(at < self.count)
        known = inside[self._sorted[at[inside]] == distinct[inside]]
        numbers[known] = self._numbers[at[known]]
        new = np.flatnonzero(numbers < 0)
        by_place = new[np.argsort(first[new])]
        numbers[by_place] = np.arange(self.count, self.count + len(new))
        self._sorted = np.insert(self._sorted, at[new], distinct[new])
        self._numbers = np.insert(self._numbers, at[new], numbers[new])
        self.count += len(new)
        return numbers[which], first[by_place]

    def ids(self) -> Ints:
        """Id of each number, shape (count,)."""
        if self._table is not None:
            used = np.flatnonzero(self._table >= 0)
            return used[np.argsort(self._table[used])]
        ids = np.empty(self.count, np.int64)
        ids[self._numbers] = self._sorted
        return ids

    def keep(self, kept: Flags) -> None:
        """Forget the other ids; those kept are numbered anew, in the same order; shape (count,)."""
        if self._table is not None:
            self._leave_table()
        left = kept[self._numbers]
        renumbered = np.cumsum(kept, dtype=np.int32) - np.int32(1)
        self._sorted, self._numbers = self._sorted[left], renumbered[self._numbers[left]]
        self.count = len(self._sorted)

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
        assert self._table is not None
        self._sorted = np.flatnonzero(self._table >= 0)
        self._numbers, self._table = self._table[self._sorted], None
