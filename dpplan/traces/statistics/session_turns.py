"""Sessions as they unfold: turns, appends, contexts and gaps, batch by batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from dpplan.arrays import Array, Ints
from dpplan.traces.caches.numbering import Numbering
from dpplan.traces.requests import GAP_HUMAN, GAP_TOOL, GAP_UNKNOWN, Requests, with_room
from dpplan.traces.statistics.distributions import (
    Distribution,
    TimeCounter,
    TokenCounter,
    weighted_by_size,
)
from dpplan.traces.statistics.turns_before import TurnsBefore

__all__ = ["GAP_NAMES", "MOST_TURNS", "SessionTurns", "Sessions", "TurnMean", "turn_means"]


MOST_TURNS: Final = 200
"""Turn numbers that have a mean input of their own."""
GAP_NAMES: Final = {GAP_TOOL: "gap_tool_s", GAP_HUMAN: "gap_human_s", GAP_UNKNOWN: "gap_unknown_s"}
_SESSION_ENDS: Final = ("first_prompt_tokens", "session_tokens", "turns_per_session")
_SUMS: Final = (
    "turns", "input", "output", "append", "context", "appends", "main_turns", "total", "prompt",
)  # fmt: skip
"""What is kept of an open session; the last two are of its main agent's last and first turn."""
_AGENT_BITS: Final = 32


@dataclass(frozen=True)
class TurnMean:
    """Prompts of the main agents' n-th turns; only sessions that come so far are in it."""

    turn: int
    """From 1."""
    requests: int
    input_tokens_mean: float


@dataclass(frozen=True, eq=False)
class Sessions:
    """What the sessions of a trace are like; each distribution says what one number of it is."""

    sessions: int
    turns: int
    subagents: int
    """Agents beside the main one of a session."""
    subagent_turns: int
    by_turn: dict[str, Distribution]
    """One number a turn: append_tokens and context_tokens (none for an agent's first turn), gaps,
    turns_per_session (of the session that the turn is of)."""
    by_session: dict[str, Distribution]
    """One number a session: its mean input, output, append, context, its turns, duration, tokens
    at the end, the main agent's first prompt."""
    subagent_first_prompt_tokens: Distribution
    appends: int
    """Turns with a turn before them."""
    negative_appends: int
    growth_tokens_per_turn: float | None
    """Mean of input minus previous input of the same agent."""
    growth: tuple[TurnMean, ...]


class SessionTurns:
    """Takes in requests, gives `Sessions` (H-sessions).

    Where scopes are read one after another, a session is closed when the next scope begins, and
    memory depends on the sessions open; else it is about 150 bytes a session until the end.

    Parameters
    ----------
    scoped : bool
        Each session lies within one scope, and scopes follow one another.
    """

    def __init__(self, *, scoped: bool) -> None:
        self._scoped = scoped
        self._base = 0
        """Number of the first open session."""
        self._open: Ints = np.zeros((len(_SUMS), 0), np.int64)
        """Sums of the open sessions."""
        self._lives_s: Array = np.zeros((2, 0))
        """When each begins and ends."""
        self._agents, self._before = Numbering(), TurnsBefore(columns=2)
        self._sessions = self._turns = self._subagents = self._subagent_turns = 0
        self._growth_tokens = 0
        self._negative = 0
        tokens = ("append_tokens", "context_tokens")
        self._by_turn = {name: TokenCounter() for name in tokens}
        self._gaps = {name: TimeCounter() for name in GAP_NAMES.values()}
        names = ("input_tokens", "output_tokens", *tokens, *_SESSION_ENDS)
        self._by_session = {name: TokenCounter() for name in names}
        self._durations = TimeCounter()
        self._subagent_prompts = TokenCounter()
        self._growth_sums = np.zeros(MOST_TURNS + 1)
        self._growth_counts = np.zeros(MOST_TURNS + 1, dtype=np.int64)

    def add(self, requests: Requests) -> None:
        """Take in a batch; requests that no session is known of are left out."""
        known = np.flatnonzero(requests.session >= 0)
        if not len(known):
            return
        session, agent = requests.session[known], requests.agent[known]
        inputs, outputs = requests.input_tokens[known], requests.output_tokens[known]
        if self._scoped:
            self._close(int(session[0]))
        numbers, _ = self._agents.number(session << _AGENT_BITS | agent)
        earlier, before = self._before.add(numbers.astype(np.int64), np.stack([inputs, outputs]))
        later, main = earlier > 0, agent == 0
        before_input, before_output = before.astype(np.int64)
        context = np.where(later, before_input + before_output, 0)
        append = np.where(later, inputs - context, 0)
        self._turns += len(known)
        self._negative += int((append < 0).sum())
        self._growth_tokens += int((inputs - before_input)[later].sum())
        self._by_turn["append_tokens"].add(append[later])
        self._by_turn["context_tokens"].add(context[later])
        for kind, name in GAP_NAMES.items():
            self._gaps[name].add(requests.gap_s[known][requests.gap_kind[known] == kind])
        self._subagent_turns += int((~main).sum())
        begun = ~main & ~later
        self._subagents += int(begun.sum())
        self._subagent_prompts.add(inputs[begun])
        early = main & (earlier < MOST_TURNS)
        size = MOST_TURNS + 1
        self._growth_counts += np.bincount(earlier[early] + 1, minlength=size)
        self._growth_sums += np.bincount(earlier[early] + 1, inputs[early], size)

        rows = session - self._base
        self._open = with_room(self._open, int(rows.max()) + 1)
        sums = dict(zip(_SUMS, self._open, strict=True))
        for name, values in (
            ("turns", 1), ("input", inputs), ("output", outputs), ("append", append),
            ("context", context), ("appends", later), ("main_turns", main),
        ):  # fmt: skip
            np.add.at(sums[name], rows, values)
        # Of several turns of a session the last one stays.
        sums["total"][rows[main]] = (inputs + outputs)[main]
        sums["prompt"][rows[main & ~later]] = inputs[main & ~later]
        self._lives_s = with_room(self._lives_s, int(rows.max()) + 1, np.nan)
        time_s = requests.time_s[known]
        np.fmin.at(self._lives_s[0], rows, time_s)
        np.fmax.at(self._lives_s[1], rows, time_s + np.nan_to_num(requests.service_s[known]))

    def _close(self, session: int) -> None:
        """Count all open sessions below a number, and forget them."""
        rows = min(session - self._base, self._open.shape[1])
        if rows <= 0:
            return
        kept = self._open[:, :rows]
        sums = dict(zip(_SUMS, kept[:, kept[0] > 0], strict=True))
        turns, appends = sums["turns"], sums["appends"]
        self._sessions += len(turns)
        counters = self._by_session
        counters["turns_per_session"].add(turns)
        for name, count in (
            ("input", turns), ("output", turns), ("append", appends), ("context", appends),
        ):  # fmt: skip
            some = count > 0
            means = np.rint(sums[name][some] / count[some]).astype(np.int64)
            counters[f"{name}_tokens"].add(means)
        main = sums["main_turns"] > 0
        counters["first_prompt_tokens"].add(sums["prompt"][main])
        counters["session_tokens"].add(sums["total"][main])
        begin_s, end_s = self._lives_s[:, :rows]
        self._durations.add(end_s - begin_s)
        self._open, self._lives_s = self._open[:, rows:].copy(), self._lives_s[:, rows:].copy()
        self._base += rows
        still = self._agents.ids() >> _AGENT_BITS >= session
        self._agents.keep(still)
        self._before.keep(still)

    def result(self) -> Sessions:
        """Close every session; nothing can be added afterwards."""
        self._close(self._base + self._open.shape[1])
        by_turn = {name: counter.result() for name, counter in self._by_turn.items()}
        by_turn |= {name: counter.result() for name, counter in self._gaps.items()}
        by_session = {name: counter.result() for name, counter in self._by_session.items()}
        by_turn["turns_per_session"] = weighted_by_size(by_session["turns_per_session"])
        by_session["session_duration_s"] = self._durations.result()
        appends = by_turn["append_tokens"].count
        return Sessions(
            sessions=self._sessions,
            turns=self._turns,
            subagents=self._subagents,
            subagent_turns=self._subagent_turns,
            by_turn=by_turn,
            by_session=by_session,
            subagent_first_prompt_tokens=self._subagent_prompts.result(),
            appends=appends,
            negative_appends=self._negative,
            growth_tokens_per_turn=self._growth_tokens / appends if appends else None,
            growth=turn_means(self._growth_counts, self._growth_sums),
        )


def turn_means(counts: Ints, sums: Array | Ints) -> tuple[TurnMean, ...]:
    """Mean prompts by turn number, out of counts and sums of shape (turns + 1,)."""
    return tuple(
        TurnMean(turn, int(counts[turn]), float(sums[turn] / counts[turn]))
        for turn in np.flatnonzero(counts).tolist()
    )
