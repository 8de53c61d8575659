"""Requests of a trace as columns: what every reader gives and every analysis takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from dpplan.arrays import Array, Ints

__all__ = [
    "GAP_HUMAN",
    "GAP_TOOL",
    "GAP_UNKNOWN",
    "Requests",
    "TokenSource",
    "TraceFacts",
    "TraceFile",
]

TokenSource = Literal["given", "tokenizer", "estimate"]

GAP_UNKNOWN: Final = 0
GAP_TOOL: Final = 1
GAP_HUMAN: Final = 2


@dataclass(frozen=True)
class Requests:
    """Consecutive requests, in the order in which a cache sees them; columns of shape (n,)."""

    time_s: Array
    """Arrival since the start of the trace, or of its scope where clocks are apart; NaN unknown."""
    input_tokens: Ints
    """The whole prompt, also where the file gives increments."""
    output_tokens: Ints
    session: Ints
    """Number of the session, from 0 through the whole trace; -1 = the trace doesn't tell."""
    agent: Ints
    """Sub-agent within its session, 0 = the main one; turns of one agent follow one another."""
    scope: Ints
    """Requests of unlike scopes share no cache, and have clocks of their own."""
    gap_s: Array
    """Pause between the agent's previous answer and this request; NaN = first, or unknown."""
    gap_kind: Ints
    """`GAP_TOOL`, `GAP_HUMAN` or `GAP_UNKNOWN`."""
    service_s: Array
    """What the measured server took for the request; NaN unknown."""
    block_starts: Ints
    """Where each request's blocks start in the arrays below, shape (n + 1,)."""
    block_ids: Ints
    """Equal ids = equal content and equal content before it; distinct across scopes; shape (m,)."""
    block_tokens: Ints
    """Tokens of each block, shape (m,); a request's tail may have tokens without a block."""

    def __len__(self) -> int:
        """Requests."""
        return len(self.input_tokens)


@dataclass(frozen=True)
class TraceFile:
    """One file that was read."""

    name: str
    bytes: int
    """As stored."""
    sha256: str
    """Of the stored bytes."""
    lines: int
    """Records seen, good or bad."""
    bad_lines: int


@dataclass(frozen=True)
class TraceFacts:
    """What a trace tells about itself; complete once all requests are read."""

    format: str
    block_tokens: int | None
    """Tokens of a full block; None = no block ids."""
    scoped: bool
    """Each scope has a clock and a cache of its own (ids local to a conversation)."""
    has_sessions: bool
    token_source: TokenSource
    files: tuple[TraceFile, ...]
    faults: tuple[str, ...]
    """The first bad lines, each with file, line and what is wrong."""
    notes: tuple[str, ...]
    """What a reader of the numbers must know: reordered, estimated, missing."""

    @property
    def outputs_have_ids(self) -> bool:
        """Is what was generated among the blocks of later prompts? Not in AIPerf's increments."""
        return self.format != "aiperf"
