"""AIPerf's session form of Mooncake's: later turns bring a delay, and only what they add."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec
import numpy as np

from dpplan.arrays import Ints
from dpplan.traces.formats.common import (
    MAX_TIME_S,
    MAX_TOKENS,
    FormatReader,
    Head,
    Reading,
    check_tokens,
    decoded,
)
from dpplan.traces.formats.mooncake import blocks_of, check_no_ids
from dpplan.traces.reading.faults import BadRecord
from dpplan.traces.reading.lines import Chunk
from dpplan.traces.requests import Requests, Row, batches_of

__all__ = ["AiperfReader"]

# What is held to be sorted by time, and what sessions are remembered: each id once, 8 bytes each.
MAX_HELD_REQUESTS: Final = 1 << 18
MAX_SESSION_IDS: Final = 1 << 24
MAX_TIME_MS: Final = MAX_TIME_S * 1e3

CLOCK_NOTE: Final = (
    "a turn's time is that of the turn before plus the delay: how long the server took isn't known"
)
INCREMENT_NOTE: Final = (
    "prompts are all inputs and outputs of the session so far; blocks are those of its inputs:"
    " outputs have no ids and count as tokens that never hit"
)
PIECES_NOTE: Final = (
    f"sorted by time in pieces of {MAX_HELD_REQUESTS} requests: later sessions of the file may"
    " overlap earlier ones"
)


class Record(msgspec.Struct, gc=False):
    """A line."""

    session_id: str | int
    input_length: int
    output_length: int
    hash_ids: list[int] | None = None
    timestamp: float | None = None
    delay: float | None = None


@dataclass
class _Session:
    """What later turns build upon."""

    number: int
    time_ms: float
    context_tokens: int = 0
    ids: list[Ints] = field(default_factory=list)
    tokens: list[Ints] = field(default_factory=list)
    blocks: int = 0


class _Turn(NamedTuple):
    """A turn, the blocks it begins with being so many of its session's."""

    row: Row
    session: _Session
    blocks: int


class AiperfReader(FormatReader):
    """See `FormatReader`: turns are put into order of time, whole prompts built up."""

    name = "aiperf"
    has_sessions = True

    def __init__(self, head: Head, reading: Reading) -> None:
        super().__init__(head, reading)
        self._blocks = blocks_of(head.records, reading.options.block_tokens)
        self.block_tokens = self._blocks.tokens if self._blocks else None
        self._notes.add(CLOCK_NOTE)
        self._notes.add(INCREMENT_NOTE)
        self._decoder = msgspec.json.Decoder(Record)
        self._sessions: OrderedDict[str | int, _Session] = OrderedDict()
        self._session_ids = 0
        self._count = 0
        self._turns: list[_Turn] = []

    @staticmethod
    def recognises(head: Head) -> bool:
        """Whether a text is of this format."""
        return {"session_id", "input_length", "output_length"} <= head.keys

    def read(self, chunks: Iterator[Chunk], member: str) -> Iterator[Requests]:
        """Requests once enough of them are held."""
        for chunk in chunks:
            self._turns += self.each(chunk.lines(), member, self._turn)
            if len(self._turns) >= MAX_HELD_REQUESTS:
                self._notes.add(PIECES_NOTE)
                yield from self.finish()

    def finish(self) -> Iterator[Requests]:
        """What is held, in order of time."""
        turns, self._turns = self._turns, []
        turns.sort(key=lambda turn: turn.row.time_s)
        return batches_of(map(_row, turns))

    def _turn(self, line: bytes) -> _Turn:
        """A turn upon those before it in its session."""
        record = decoded(self._decoder, line)
        ids = self._check(record)
        key = record.session_id
        session = self._sessions.get(key)
        if session is None:
            if record.timestamp is None:
                raise BadRecord("timestamp: the first turn of a session needs one", "none")
            time_ms = record.timestamp
        elif record.timestamp is not None:
            time_ms = record.timestamp
        elif record.delay is not None:
            time_ms = session.time_ms + record.delay
        else:
            raise BadRecord("delay: later turns of a session need one, or a timestamp", "none")
        context = session.context_tokens if session else 0
        if context + record.input_length > MAX_TOKENS or time_ms > MAX_TIME_MS:
            raise BadRecord(f"sessions of at most {MAX_TOKENS} tokens are needed")
        gap_s = math.nan if session is None or record.delay is None else record.delay / 1e3
        if session is None:
            session = self._sessions[key] = _Session(self._count, time_ms)
            self._count += 1
        else:
            self._sessions.move_to_end(key)
        session.time_ms = time_ms
        if ids and self._blocks is not None:
            sizes = np.full(len(ids), self._blocks.tokens, np.int64)
            if self._blocks.partial:
                sizes[-1] = record.input_length - (len(ids) - 1) * self._blocks.tokens
            session.ids.append(np.array(ids, np.int64))
            session.tokens.append(sizes)
            session.blocks += len(ids)
            self._forget(len(ids))
        prompt = context + record.input_length
        session.context_tokens = prompt + record.output_length
        row = Row(time_ms / 1e3, prompt, record.output_length, session=session.number, gap_s=gap_s)
        return _Turn(row, session, session.blocks)

    def _check(self, record: Record) -> list[int]:
        """The ids of a record in range."""
        check_tokens("input_length", record.input_length)
        check_tokens("output_length", record.output_length)
        for name, value in (("timestamp", record.timestamp), ("delay", record.delay)):
            if value is not None and not 0 <= value <= MAX_TIME_MS:
                raise BadRecord(f"{name}: milliseconds from 0 are needed", f"{value:g}")
        ids = record.hash_ids or []
        if self._blocks is None:
            check_no_ids(ids)
        else:
            self._blocks.check(ids, record.input_length)
        return ids

    def _forget(self, added: int) -> None:
        """Drop the sessions not seen for longest beyond what may be remembered."""
        self._session_ids += added
        while self._session_ids > MAX_SESSION_IDS and len(self._sessions) > 1:
            _, oldest = self._sessions.popitem(last=False)
            self._session_ids -= oldest.blocks


def _row(turn: _Turn) -> Row:
    row, session, blocks = turn
    if not session.ids:
        return row
    if len(session.ids) > 1:  # once, for all turns of the session
        session.ids = [np.concatenate(session.ids)]
        session.tokens = [np.concatenate(session.tokens)]
    return row._replace(ids=session.ids[0][:blocks], tokens=session.tokens[0][:blocks])
