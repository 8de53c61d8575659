"""Sessions of a trace that names none, told by prompts that continue one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from dpplan.arrays import Array, Ints, Ints32
from dpplan.traces.caches.numbering import Numbering
from dpplan.traces.requests import Requests, with_room
from dpplan.traces.statistics.distributions import Distribution, of_values
from dpplan.traces.statistics.session_turns import MOST_TURNS, TurnMean, turn_means

__all__ = ["InferredSessions", "SessionFinder"]


MOST_REQUESTS: Final = 2**21
"""More are not held."""
MOST_BLOCKS: Final = 2**23
"""Nor more distinct blocks."""
HEAD_SHARE: Final = 0.01
"""A block that more of all requests continue from is no turn's end but a shared head."""
HEAD_REQUESTS: Final = 20
"""So many at least."""


@dataclass(frozen=True, eq=False)
class InferredSessions:
    """Sessions that prefixes suggest: an inference, never what the trace says (H-inferred)."""

    sessions: int
    single_turns: int
    """Sessions of one request."""
    forks: int
    """Requests that continue one which another continues, too."""
    without_room: int
    """Requests that share all full blocks of an earlier one but are too short for its answer."""
    head_blocks: int
    """Blocks that too many requests continue from to be a turn's end."""
    by_turn: dict[str, Distribution]
    """One number a turn that continues another: append_tokens, and pause_s from one request's
    arrival to the next one's, so with the answer's time."""
    by_session: dict[str, Distribution]
    """One number a session: its turns, first prompt, input and output of its last request."""
    growth_tokens_per_turn: float | None
    growth: tuple[TurnMean, ...]


class SessionFinder:
    """Takes in requests in order of time, gives `InferredSessions` or why there are none.

    A request continues an earlier one when its blocks start with all full blocks of that one and
    its prompt has room for that one's prompt and answer. Of several the one with the longest
    prefix counts, of equally long ones the latest. Where more than 1 % of all requests (and more
    than 20) would continue from the same block, it is a head that prompts share (a system prompt):
    they continue nothing.

    Parameters
    ----------
    block_tokens : int
        Tokens of a full block.
    """

    def __init__(self, block_tokens: int) -> None:
        self._block_tokens = block_tokens
        self._numbering = Numbering()
        self._owner: Ints32 = np.empty(0, np.int32)
        """Number of a last full block -> the latest request that ends so."""
        self._requests = 0
        self._parts: list[tuple[Ints32, Ints32, Ints, Ints, Array]] = []
        self.refusal: str | None = None
        """Why nothing can be told."""

    def add(self, requests: Requests) -> None:
        """Take in a batch."""
        if self.refusal is not None or not len(requests):
            return
        if self._requests + len(requests) > MOST_REQUESTS:
            self._refuse(f"more than {MOST_REQUESTS:,} requests")
            return
        numbers, _ = self._numbering.number(requests.block_ids)
        if self._numbering.count > MOST_BLOCKS:
            self._refuse(f"more than {MOST_BLOCKS:,} distinct blocks")
            return
        self._owner = with_room(self._owner, self._numbering.count, -1)
        self._link(requests, numbers)

    def _refuse(self, reason: str) -> None:
        self.refusal = reason
        self._parts, self._owner, self._numbering = [], np.empty(0, np.int32), Numbering()

    def _link(self, requests: Requests, ids: Ints32) -> None:
        n, first = len(requests), self._requests
        starts = requests.block_starts
        lengths = np.diff(starts)
        lasts = starts[1:] - 1
        full = lengths.copy()
        some = lengths > 0
        full[some] -= requests.block_tokens[lasts[some]] < self._block_tokens
        ending = np.flatnonzero(full > 0)
        end_ids = np.full(n, -1, dtype=np.int32)
        end_ids[ending] = ids[starts[ending] + full[ending] - 1]
        found = np.take(self._owner, ids)
        self._owner[end_ids[ending]] = first + ending  # of equal ids the last one stays
        # Requests of this batch may continue one another: the latest before the one that asks.
        near = np.flatnonzero(np.take(self._owner, ids) >= first)
        asking = np.repeat(np.arange(n), lengths)
        keys = np.sort(end_ids[ending].astype(np.int64) * n + ending)
        asked = ids[near].astype(np.int64) * n + asking[near]
        at = np.searchsorted(keys, asked) - 1
        held = (at >= 0) & (keys[np.maximum(at, 0)] // n == ids[near]) if len(keys) else at >= 0
        found[near[held]] = first + keys[at[held]] % n
        hits = np.flatnonzero(found >= 0)
        parents = np.full(n, -1, dtype=np.int32)
        parents[asking[hits]] = found[hits]  # the deepest comes last, and stays
        self._parts.append(
            (parents, end_ids, requests.input_tokens, requests.output_tokens, requests.time_s)
        )
        self._requests += n

    def result(self) -> InferredSessions | None:
        """The sessions; None where `refusal` says why, or there are no requests."""
        if self.refusal is not None or not self._requests:
            return None
        columns = zip(*self._parts, strict=True)
        parents, ends, inputs, outputs, times = (np.concatenate(part) for part in columns)
        linked = np.flatnonzero(parents >= 0)
        joints = ends[parents[linked]]
        asked = np.bincount(joints, minlength=1)
        head = asked > max(HEAD_SHARE * len(parents), HEAD_REQUESTS)
        kept = ~head[joints]
        linked = linked[kept]
        before = inputs[parents[linked]] + outputs[parents[linked]]
        room = inputs[linked] >= before
        links = np.full(len(parents), -1, dtype=np.int64)
        links[linked[room]] = parents[linked[room]]
        return _summary(links, inputs, outputs, times, int((~room).sum()), int(head.sum()))


def _summary(
    parents: Ints, inputs: Ints, outputs: Ints, times: Array, without_room: int, heads: int
) -> InferredSessions:
    later = np.flatnonzero(parents >= 0)
    past = parents[later]
    roots, turns = chains(parents)
    firsts, sizes = np.unique(roots, return_counts=True)
    lasts = np.zeros(len(parents), dtype=np.int64)
    np.maximum.at(lasts, roots, np.arange(len(parents)))
    lasts = lasts[firsts]
    growth = inputs[later] - inputs[past]
    pauses = times[later] - times[past]
    early = turns <= MOST_TURNS
    counts = np.bincount(turns[early], minlength=1)
    sums = np.bincount(turns[early], inputs[early].astype(float), minlength=1)
    return InferredSessions(
        sessions=len(firsts),
        single_turns=int((sizes == 1).sum()),
        forks=len(past) - len(np.unique(past)),
        without_room=without_room,
        head_blocks=heads,
        by_turn={
            "append_tokens": of_values(growth - outputs[past]),
            "pause_s": of_values(pauses[~np.isnan(pauses)]),
        },
        by_session={
            "turns_per_session": of_values(sizes),
            "first_prompt_tokens": of_values(inputs[firsts]),
            "session_tokens": of_values(inputs[lasts] + outputs[lasts]),
        },
        growth_tokens_per_turn=float(growth.mean()) if len(growth) else None,
        growth=turn_means(counts, sums),
    )


def chains(parents: Ints) -> tuple[Ints, Ints]:
    """First request of each chain, and the place in it.

    Parameters
    ----------
    parents : ndarray
        Index of an earlier element, or -1; shape (n,).

    Returns
    -------
    roots : ndarray
        Index of the first of its chain, shape (n,).
    turns : ndarray
        From 1, shape (n,).

    Examples
    --------
    >>> roots, turns = chains(np.array([-1, 0, -1, 1]))
    >>> roots.tolist(), turns.tolist()
    ([0, 0, 2, 0], [1, 2, 1, 3])
    """
    steps = (parents >= 0).astype(np.int64)
    ahead = np.where(parents >= 0, parents, np.arange(len(parents)))
    while True:  # twice as far each time
        further = ahead[ahead]
        if np.array_equal(further, ahead):
            return ahead, steps + 1
        steps = steps + steps[ahead]
        ahead = further
