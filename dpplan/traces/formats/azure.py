"""Azure's LLM inference traces: CSV with TIMESTAMP, ContextTokens and GeneratedTokens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import numpy as np

from dpplan.traces.columns import requests_of
from dpplan.traces.formats.common import Head, Reading, check_tokens
from dpplan.traces.formats.stamps import DATE, date_ns
from dpplan.traces.reading.faults import BadRecord
from dpplan.traces.reading.lines import LINE_LIMIT_BYTES, Chunk
from dpplan.traces.requests import Requests, TokenSource

__all__ = ["AzureReader", "recognises"]

HEADER: Final = re.compile(rb"TIMESTAMP,ContextTokens,GeneratedTokens\s*", re.IGNORECASE)
# Up to ten digits: what is larger is a fault, which shows where each line is looked at.
LINE: Final = re.compile(rb"^" + DATE + rb",(\d{1,10}),(\d{1,10})[ \t]*\r?$", re.MULTILINE)

Row = tuple[bytes, bytes, bytes, bytes]


def recognises(head: Head) -> bool:
    """Whether a text is of this format."""
    return bool(head.lines) and HEADER.fullmatch(head.lines[0]) is not None


class AzureReader:
    """See `FormatReader`."""

    name = "azure"
    block_tokens = None
    scoped = False
    has_sessions = False
    token_source: TokenSource = "given"
    limit_bytes = LINE_LIMIT_BYTES
    in_order = True

    def __init__(self, head: Head, reading: Reading) -> None:
        self._faults = reading.faults
        self._origin_ns: int | None = None
        reading.notes.add("no block ids and no sessions: no hit rates, no turns can be told")

    def read(self, chunks: Iterator[Chunk], member: str) -> Iterator[Requests]:
        """Requests of each chunk of lines."""
        for chunk in chunks:
            rows: list[Row] = LINE.findall(chunk.data)
            batch = self._requests(rows) if len(rows) == chunk.line_count else None
            if batch is None:
                batch = self._requests(self._line_by_line(chunk, member))
                assert batch is not None
            self._faults.good(len(batch))
            yield batch

    def finish(self) -> Iterator[Requests]:
        """Nothing is held back."""
        return iter(())

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

    def _line_by_line(self, chunk: Chunk, member: str) -> list[Row]:
        """The good rows of a chunk that holds the header, blank lines or faults."""
        good = []
        for number, line in chunk.lines():
            if number == chunk.first_line and HEADER.fullmatch(line):
                continue
            try:
                good.append(_row(line))
            except BadRecord as fault:
                self._faults.bad(number, fault.needed, fault.got, member=member)
        return good


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
