"""Azure's LLM inference traces: CSV with TIMESTAMP, ContextTokens and GeneratedTokens."""

from __future__ import annotations

import re
from typing import Final

import numpy as np

from dpplan.traces.formats.common import ChunkReader, Head, Reading, check_tokens
from dpplan.traces.formats.stamps import DATE, date_ns
from dpplan.traces.reading.faults import BadRecord
from dpplan.traces.reading.lines import Chunk
from dpplan.traces.requests import Requests, requests_of

__all__ = ["AzureReader"]

HEADER: Final = re.compile(rb"TIMESTAMP,ContextTokens,GeneratedTokens\s*", re.IGNORECASE)
# Up to ten digits: what is larger is a fault, which shows where each line is looked at.
LINE: Final = re.compile(rb"^" + DATE + rb",(\d{1,10}),(\d{1,10})[ \t]*\r?$", re.MULTILINE)

Row = tuple[bytes, bytes, bytes, bytes]


class AzureReader(ChunkReader):
    """See `FormatReader`."""

    name = "azure"

    def __init__(self, head: Head, reading: Reading) -> None:
        super().__init__(head, reading)
        self._origin_ns: int | None = None
        self._notes.add("no block ids and no sessions: no hit rates, no turns can be told")

    @staticmethod
    def recognises(head: Head) -> bool:
        """Whether a text is of this format."""
        return bool(head.lines) and HEADER.fullmatch(head.lines[0]) is not None

    def at_once(self, chunk: Chunk) -> Requests | None:
        """The batch, None if any row is faulty."""
        rows: list[Row] = LINE.findall(chunk.data)
        return self._requests(rows) if len(rows) == chunk.line_count else None

    def one_by_one(self, chunk: Chunk, member: str) -> Requests:
        """The good rows of a chunk that holds the header, blank lines or faults."""
        lines = (
            (number, line)
            for number, line in chunk.lines()
            if number != chunk.first_line or not HEADER.fullmatch(line)
        )
        batch = self._requests(list(self.each(lines, member, _row)))
        assert batch is not None
        return batch

    def _requests(self, rows: list[Row]) -> Requests | None:
        """The batch, None if any row is faulty."""
        if not rows:
            return requests_of([], [], [])
        try:
            times_ns = date_ns([(day, time) for day, time, _, _ in rows])
            for column in (2, 3):
                check_tokens("", max(int(row[column]) for row in rows))
        except ValueError:  # BadRecord is one
            return None
        if self._origin_ns is None:
            self._origin_ns = int(times_ns.min())
        return requests_of(
            (times_ns - self._origin_ns) / 1e9,
            np.array([int(row[2]) for row in rows]),
            np.array([int(row[3]) for row in rows]),
        )


def _row(line: bytes) -> Row:
    found = LINE.fullmatch(line)
    got = line[:60].decode("utf-8", errors="replace")
    if found is None:
        raise BadRecord("a UTC date and two counts of tokens are needed", got)
    day, time, context, generated = found.groups()
    check_tokens("ContextTokens", int(context))
    check_tokens("GeneratedTokens", int(generated))
    try:
        date_ns([(day, time)])
    except ValueError:
        raise BadRecord("TIMESTAMP: a date is needed", got) from None
    return day, time, context, generated
