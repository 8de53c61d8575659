"""Q-held: tokens that sessions hold over their lives, against half of what they end with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from dpplan.arrays import Array, Ints
from dpplan.traces.requests import Requests

__all__ = ["WorkingSetCheck", "WorkingSetLaw"]


_FIRST_ROOM: Final = 1024
_FIELDS: Final = ("begin_s", "last_s", "end_s", "first_tokens", "tokens", "token_s")


@dataclass(frozen=True)
class WorkingSetCheck:
    """The working-set law on a trace: what sessions held, and what the law says they do.

    The law takes contexts to grow evenly from nothing, so that a session of length S that lives
    for J seconds holds S/2 tokens on average. One that starts with c0 tokens holds (c0 + S)/2.
    """

    sessions: int
    """With two times at least; sub-agents are left out."""
    life_s_mean: float
    """J: first arrival to last arrival, or to the last answer where its time is known."""
    session_tokens_mean: float
    """S: input and output of the last turn."""
    first_prompt_tokens_mean: float
    held_tokens_mean: float
    """Tokens a living session holds: token-seconds of all over seconds of all."""
    held_over_law: float
    """Token-seconds measured over the sum of J * S/2, session by session."""
    held_over_law_of_means: float
    """The same over sessions * mean J * mean S/2, as a plan from means would say."""
    held_over_law_with_start: float
    """Token-seconds measured over the sum of J * (first prompt + S)/2."""


class WorkingSetLaw:
    """Takes in requests, gives a `WorkingSetCheck` (Q-held); 48 bytes a session.

    A session holds the input and output of a turn from the turn's arrival to the next one's.

    Examples
    --------
    One session: 100 tokens for 10 s, then 300 for the 10 s that its last answer takes.

    >>> law = WorkingSetLaw()
    >>> law.put(np.array([0, 0]), np.array([0.0, 10.0]), np.array([100.0, 300.0]),
    ...     np.array([90.0, 290.0]), np.array([np.nan, 10.0]))
    >>> found = law.result()
    >>> found.held_tokens_mean, round(found.held_over_law, 3), found.life_s_mean
    (200.0, 1.333, 20.0)
    """

    def __init__(self) -> None:
        self._held = np.full((len(_FIELDS), 0), np.nan)

    def add(self, requests: Requests) -> None:
        """Take in a batch; turns of sub-agents or of no known time don't count."""
        kept = np.flatnonzero(
            (requests.session >= 0) & (requests.agent == 0) & ~np.isnan(requests.time_s)
        )
        inputs = requests.input_tokens[kept].astype(float)
        self.put(
            requests.session[kept],
            requests.time_s[kept],
            inputs + requests.output_tokens[kept],
            inputs,
            requests.service_s[kept],
        )

    def put(
        self,
        session: Ints,
        time_s: Array,
        tokens: Array,
        prompt_tokens: Array,
        service_s: Array,
    ) -> None:
        """Take in turns as columns, those of a session in order; shape (n,)."""
        if not len(session):
            return
        self._reach(int(session.max()))
        order = np.argsort(session, kind="stable")
        session, time_s, tokens = session[order], time_s[order], tokens[order]
        prompt_tokens, service_s = prompt_tokens[order], service_s[order]
        starts = np.concatenate([[True], session[1:] != session[:-1]])
        ends = np.concatenate([starts[1:], [True]])
        begin, last, end, first, held, total = (self._held[i] for i in range(len(_FIELDS)))
        fresh = starts.copy()
        fresh[starts] = np.isnan(begin[session[starts]])
        begin[session[fresh]] = time_s[fresh]
        first[session[fresh]] = prompt_tokens[fresh]
        total[session[fresh]] = 0.0
        # What the turn before held, from its arrival to this one's.
        before_s, before = np.empty_like(time_s), np.empty_like(tokens)
        before_s[1:], before[1:] = time_s[:-1], tokens[:-1]
        before_s[starts], before[starts] = last[session[starts]], held[session[starts]]
        before_s[fresh], before[fresh] = time_s[fresh], 0.0
        np.add.at(total, session, before * np.maximum(time_s - before_s, 0.0))
        last[session[ends]], held[session[ends]] = time_s[ends], tokens[ends]
        end[session[ends]] = time_s[ends] + np.nan_to_num(service_s[ends])

    def result(self) -> WorkingSetCheck | None:
        """The check so far; None where no session has a life that can be told."""
        begin, last, end, first, tokens, total = self._held
        life = np.maximum(end - begin, 0.0)
        kept = life > 0
        if not kept.any():
            return None
        life, tokens, first = life[kept], tokens[kept], first[kept]
        held = total[kept] + tokens * (end - last)[kept]
        law = (life * tokens / 2).sum()
        return WorkingSetCheck(
            sessions=len(life),
            life_s_mean=float(life.mean()),
            session_tokens_mean=float(tokens.mean()),
            first_prompt_tokens_mean=float(first.mean()),
            held_tokens_mean=float(held.sum() / life.sum()),
            held_over_law=float(held.sum() / law),
            held_over_law_of_means=float(
                held.sum() / (len(life) * life.mean() * tokens.mean() / 2)
            ),
            held_over_law_with_start=float(held.sum() / (life * (first + tokens) / 2).sum()),
        )

    def _reach(self, session: int) -> None:
        room = self._held.shape[1]
        if session >= room:
            more = max(session + 1, 2 * room, _FIRST_ROOM) - room
            self._held = np.concatenate([self._held, np.full((len(_FIELDS), more), np.nan)], axis=1)
