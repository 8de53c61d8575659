"""Sessions as they unfold: turns, appends, contexts and gaps, batch by batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from dpplan.arrays import Array, Flags, Ints
from dpplan.traces.requests import GAP_HUMAN, GAP_TOOL, GAP_UNKNOWN, Requests
from dpplan.traces.statistics.distributions import (
    Distribution,
    TimeCounter,
    TokenCounter,
    weighted_by_size,
)

__all__ = ["GAP_NAMES", "MOST_TURNS", "SessionTurns", "Sessions", "TurnMean"]


MOST_TURNS: Final = 200
"""Turn numbers that have a mean input of their own."""
GAP_NAMES: Final = {GAP_TOOL: "gap_tool_s", GAP_HUMAN: "gap_human_s", GAP_UNKNOWN: "gap_unknown_s"}
_SESSION_ENDS: Final = ("first_prompt_tokens", "session_tokens", "turns_per_session")
_FIRST_ROOM: Final = 1024


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


class _Columns:
    """State of open sessions, one row a session number, from `base` on."""

    FIELDS: Final = (
        "turns", "input", "output", "append", "context", "appends", "prompt", "last_total",
        "last_input", "main_turns",
    )  # fmt: skip

    def __init__(self) -> None:
        self.base = 0
        self.ints = np.zeros((len(self.FIELDS), 0), dtype=np.int64)
        self.times = np.empty((2, 0))

    def reach(self, session: int) -> None:
        """Have a row for a session number."""
        needed = session + 1 - self.base
        held = self.ints.shape[1]
        if needed > held:
            more = max(needed, 2 * held, _FIRST_ROOM) - held
            self.ints = np.pad(self.ints, ((0, 0), (0, more)))
            self.times = np.concatenate([self.times, _no_times(more)], axis=1)

    def field(self, name: str) -> Ints:
        """One column, a view; shape (rows,)."""
        column: Ints = self.ints[self.FIELDS.index(name)]
        return column

    def drop(self, rows: int) -> None:
        """Forget the first rows."""
        self.ints = self.ints[:, rows:].copy()
        self.times = self.times[:, rows:].copy()
        self.base += rows


def _no_times(rows: int) -> Array:
    return np.stack([np.full(rows, np.inf), np.full(rows, -np.inf)])


class SessionTurns:
    """Takes in requests, gives `Sessions` (H-sessions).

    Where scopes are read one after another, a session is closed when the next scope begins, and
    memory depends on the sessions open; else it is 100 bytes a session until the end.

    Parameters
    ----------
    scoped : bool
        Each session lies within one scope, and scopes follow one another.
    """

    def __init__(self, *, scoped: bool) -> None:
        self._scoped = scoped
        self._open = _Columns()
        self._agents: dict[tuple[int, int], tuple[int, int]] = {}
        """Sub-agents of open sessions -> input and output of their last turn."""
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
        self._growth_sums = np.zeros(MOST_TURNS + 1, dtype=np.int64)
        self._growth_counts = np.zeros(MOST_TURNS + 1, dtype=np.int64)

    def add(self, requests: Requests) -> None:
        """Take in a batch; requests that no session is known of are left out."""
        known = np.flatnonzero(requests.session >= 0)
        if not len(known):
            return
        session, agent = requests.session[known], requests.agent[known]
        if self._scoped:
            self._close(int(session[0]))
        self._open.reach(int(session.max()))
        # Turns of one agent side by side, in the order given.
        order = np.lexsort((agent, session))
        known, session, agent = known[order], session[order], agent[order]
        inputs, outputs = requests.input_tokens[known], requests.output_tokens[known]
        starts = np.concatenate([[True], (session[1:] != session[:-1]) | (agent[1:] != agent[:-1])])
        before, before_input = self._before(session, agent, inputs, outputs, starts)
        later = before >= 0
        append = inputs - before
        self._count_turns(session, agent, inputs, later, starts)
        self._by_turn["append_tokens"].add(append[later])
        self._by_turn["context_tokens"].add(before[later])
        self._negative += int((append[later] < 0).sum())
        self._growth_tokens += int((inputs - before_input)[later].sum())
        self._count_gaps(requests, known)
        self._sum_up(session, inputs, outputs, before, later)
        self._mark_times(session, requests.time_s[known], requests.service_s[known])

    def _before(
        self, session: Ints, agent: Ints, inputs: Ints, outputs: Ints, starts: Flags
    ) -> tuple[Ints, Ints]:
        """Tokens held before each turn (-1 = an agent's first) and the previous input."""
        totals = inputs + outputs
        before = np.concatenate([[0], totals[:-1]])
        before_input = np.concatenate([[0], inputs[:-1]])
        ends = np.concatenate([starts[1:], [True]])
        main = agent == 0
        rows = session - self._open.base
        last_total, last_input = self._open.field("last_total"), self._open.field("last_input")
        firsts = starts & main
        fresh = self._open.field("main_turns")[rows[firsts]] == 0
        before[firsts] = np.where(fresh, -1, last_total[rows[firsts]])
        before_input[firsts] = np.where(fresh, 0, last_input[rows[firsts]])
        self._open.field("prompt")[rows[firsts][fresh]] = inputs[firsts][fresh]
        lasts = ends & main
        last_total[rows[lasts]] = totals[lasts]
        last_input[rows[lasts]] = inputs[lasts]
        begun = []
        for first, last in zip(
            np.flatnonzero(starts & ~main).tolist(),
            np.flatnonzero(ends & ~main).tolist(),
            strict=True,
        ):
            key = int(session[first]), int(agent[first])
            held = self._agents.get(key)
            if held is None:
                begun.append(first)
                before[first], before_input[first] = -1, 0
            else:
                before_input[first], before[first] = held[0], held[0] + held[1]
            self._agents[key] = int(inputs[last]), int(outputs[last])
        self._subagents += len(begun)
        self._subagent_prompts.add(inputs[begun])
        return before, before_input

    def _count_turns(
        self, session: Ints, agent: Ints, inputs: Ints, later: Flags, starts: Flags
    ) -> None:
        """Turn numbers of main agents, and the mean prompt of each."""
        self._turns += len(session)
        main = agent == 0
        self._subagent_turns += int((~main).sum())
        rows = (session - self._open.base)[main]
        if not len(rows):
            return
        done = self._open.field("main_turns")
        # Place within the run of this agent's turns in the batch.
        at = np.flatnonzero(starts[main])
        run = np.cumsum(starts[main]) - 1
        turn = done[rows] + np.arange(len(rows)) - at[run] + 1
        early = turn <= MOST_TURNS
        self._growth_counts += np.bincount(turn[early], minlength=MOST_TURNS + 1)
        np.add.at(self._growth_sums, turn[early], inputs[main][early])
        np.add.at(done, rows, 1)

    def _count_gaps(self, requests: Requests, known: Ints) -> None:
        gaps, kinds = requests.gap_s[known], requests.gap_kind[known]
        for kind, name in GAP_NAMES.items():
            self._gaps[name].add(gaps[kinds == kind])

    def _sum_up(
        self, session: Ints, inputs: Ints, outputs: Ints, before: Ints, later: Flags
    ) -> None:
        """Add a batch, sorted by session, to the sums of its sessions."""
        at = np.flatnonzero(np.concatenate([[True], session[1:] != session[:-1]]))
        rows = session[at] - self._open.base
        held = np.where(later, before, 0)
        for name, values in (
            ("turns", np.ones_like(inputs)),
            ("input", inputs),
            ("output", outputs),
            ("append", np.where(later, inputs - before, 0)),
            ("context", held),
            ("appends", later.astype(np.int64)),
        ):
            self._open.field(name)[rows] += np.add.reduceat(values, at)

    def _mark_times(self, session: Ints, time_s: Array, service_s: Array) -> None:
        known = ~np.isnan(time_s)
        rows = session[known] - self._open.base
        ends = time_s[known] + np.nan_to_num(service_s[known])
        np.minimum.at(self._open.times[0], rows, time_s[known])
        np.maximum.at(self._open.times[1], rows, ends)

    def _close(self, session: int) -> None:
        """Count all open sessions below a number, and forget them."""
        rows = min(session - self._open.base, self._open.ints.shape[1])
        if rows <= 0:
            return
        kept = self._open.ints[:, :rows]
        held = dict(zip(_Columns.FIELDS, kept[:, kept[0] > 0], strict=True))
        turns, appends = held["turns"], held["appends"]
        self._sessions += len(turns)
        several = appends > 0
        counters = self._by_session
        counters["turns_per_session"].add(turns)
        for name, field, n, some in (
            ("input_tokens", "input", turns, turns > 0),
            ("output_tokens", "output", turns, turns > 0),
            ("append_tokens", "append", appends, several),
            ("context_tokens", "context", appends, several),
        ):
            counters[name].add(np.rint(held[field][some] / n[some]).astype(np.int64))
        main = held["main_turns"] > 0
        counters["first_prompt_tokens"].add(held["prompt"][main])
        counters["session_tokens"].add(held["last_total"][main])
        times = self._open.times[:, :rows][:, np.isfinite(self._open.times[0, :rows])]
        self._durations.add(times[1] - times[0])
        self._open.drop(rows)
        self._agents = {key: value for key, value in self._agents.items() if key[0] >= session}

    def result(self) -> Sessions:
        """Close every session; nothing can be added afterwards."""
        self._close(self._open.base + self._open.ints.shape[1])
        by_turn = {name: counter.result() for name, counter in self._by_turn.items()}
        by_turn |= {name: counter.result() for name, counter in self._gaps.items()}
        by_session = {name: counter.result() for name, counter in self._by_session.items()}
        by_turn["turns_per_session"] = weighted_by_size(by_session["turns_per_session"])
        by_session["session_duration_s"] = self._durations.result()
        appends = by_turn["append_tokens"].count
        counts, sums = self._growth_counts.tolist(), self._growth_sums.tolist()
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
            growth=tuple(
                TurnMean(turn, counts[turn], sums[turn] / counts[turn])
                for turn in range(1, MOST_TURNS + 1)
                if counts[turn]
            ),
        )
