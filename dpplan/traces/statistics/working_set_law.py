"""Q-held: tokens that sessions hold over their lives, against half of what they end with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpplan.arrays import Array, Ints
from dpplan.traces.requests import Requests, with_room
from dpplan.traces.statistics.turns_before import TurnsBefore

__all__ = ["WorkingSetCheck", "WorkingSetLaw"]


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
    """Takes in requests, gives a `WorkingSetCheck` (Q-held); 56 bytes a session.

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
        self._rows: Array = np.full((4, 0), np.nan)
        """Begin and end [s], first prompt [tokens] and token-seconds held, by session."""
        self._turns = TurnsBefore(columns=2)

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
        self, session: Ints, time_s: Array, tokens: Array, prompt_tokens: Array, service_s: Array
    ) -> None:
        """Take in turns as columns, those of a session in order; shape (n,)."""
        if not len(session):
            return
        self._rows = with_room(self._rows, int(session.max()) + 1, np.nan)
        begin, end, first, total = self._rows
        # A turn holds its tokens until the next one arrives.
        earlier, (before_s, before) = self._turns.add(session, np.stack([time_s, tokens]))
        fresh = earlier == 0
        begin[session[fresh]], first[session[fresh]] = time_s[fresh], prompt_tokens[fresh]
        total[session[fresh]] = 0.0
        np.add.at(total, session, before * np.maximum(time_s - before_s, 0.0))
        end[session] = time_s + np.nan_to_num(service_s)  # of several the last one stays

    def result(self) -> WorkingSetCheck | None:
        """The check so far; None where no session has a life that can be told."""
        begin, end, first, total = self._rows
        last, tokens = self._turns.last
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
