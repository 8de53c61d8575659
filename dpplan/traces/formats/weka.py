"""WEKA / kv-cache-tester conversations: JSON documents, verbatim or with ranges for runs of ids."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import reduce
from typing import Final, TypeVar

import msgspec
import numpy as np

from dpplan.arrays import Ints
from dpplan.traces.formats.common import (
    JSON_ERRORS,
    MAX_TIME_S,
    FormatReader,
    Head,
    Reading,
    check_ids,
    check_tokens,
    decoded,
    integers,
)
from dpplan.traces.reading.faults import BadRecord
from dpplan.traces.reading.lines import DOCUMENT_LIMIT_BYTES, LINE_LIMIT_BYTES, Chunk
from dpplan.traces.requests import (
    GAP_HUMAN,
    GAP_TOOL,
    GAP_UNKNOWN,
    NO_IDS,
    Requests,
    Row,
    batches_of,
)

__all__ = ["WekaReader"]

BLOCK_TOKENS: Final = 64
MAX_NESTING: Final = 8
# Ids of one conversation after ranges are expanded: a line of ranges could stand for any number.
MAX_EXPANDED: Final = 1 << 25
MAX_NEXT_ID: Final = 1 << 62
SUB_AGENT: Final = "subagent"


_Id = TypeVar("_Id")


class Entry(msgspec.Struct, gc=False):
    """A request, or a sub-agent with requests of its own."""

    t: float
    type: str
    input_tokens: int | None = msgspec.field(name="in", default=None)
    output_tokens: int | None = msgspec.field(name="out", default=None)
    hash_ids: msgspec.Raw = msgspec.Raw(b"")
    input_types: list[str] = []
    api_time: float | None = None
    think_time: float | None = None
    requests: list[Entry] | None = None


class Conversation(msgspec.Struct, gc=False):
    """A document."""

    requests: list[Entry]
    block_size: int = BLOCK_TOKENS
    hash_id_scope: str = "local"


class WekaReader(FormatReader):
    """See `FormatReader`: a conversation is a session and a scope, its requests in time order."""

    name = "weka"
    scoped = True
    has_sessions = True
    in_order = False

    def __init__(self, head: Head, reading: Reading) -> None:
        super().__init__(head, reading)
        start = head.lines[0] if head.lines else head.rest
        size = re.search(rb'"block_size"\s*:\s*([1-9]\d{0,5})\b', start)
        self._block = self.block_tokens = int(size[1]) if size else BLOCK_TOKENS
        ranges = re.search(rb'"hash_ids"\s*:\s*\[\s*\[', b"".join([*head.lines, head.rest]))
        self.limit_bytes = LINE_LIMIT_BYTES if ranges else DOCUMENT_LIMIT_BYTES
        # A document over many lines is read as a whole.
        self._whole = not head.records and bool(head.lines)
        self._decoder = msgspec.json.Decoder(Conversation)
        self._range_decoder = msgspec.json.Decoder(list[tuple[int, int]])
        self._ids_decoder = msgspec.json.Decoder(list[int])
        self._conversations = 0
        self._next_id = 0
        self._full_blocks = NO_IDS

    @staticmethod
    def recognises(head: Head) -> bool:
        """Whether a text is of this format."""
        return "requests" in head.keys and bool({"hash_id_scope", "block_size"} & head.keys)

    def read(self, chunks: Iterator[Chunk], member: str) -> Iterator[Requests]:
        """Requests of one conversation after another."""
        for rows in self.each(self._documents(chunks, member), member, self._rows):
            yield from batches_of(self._told_apart(rows))

    def _documents(self, chunks: Iterator[Chunk], member: str) -> Iterator[tuple[int, bytes]]:
        if not self._whole:
            for chunk in chunks:
                yield from chunk.lines()
            return
        parts: list[bytes] = []
        size = 0
        for chunk in chunks:
            size += len(chunk.data)
            if size > self.limit_bytes:
                needed = f"a document of at most {self.limit_bytes >> 20} MiB is needed"
                self._faults.bad(1, needed, "a longer one", member=member)
                return
            parts.append(chunk.data)
        if size:
            yield 1, b"".join(parts)

    def _rows(self, line: bytes) -> list[Row]:
        """Requests of a conversation, checked, in order of time; ids are the file's."""
        document = decoded(self._decoder, line)
        if document.block_size != self._block:
            needed = f"block_size: {self._block} is needed, as at the start"
            raise BadRecord(needed, str(document.block_size))
        if document.hash_id_scope != "local":
            raise BadRecord('hash_id_scope: "local" is needed', document.hash_id_scope[:40])
        rows: list[Row] = []
        self._agents = 0
        self._collect(document.requests, 0.0, 0, "requests", rows)
        expanded = sum(row.input_tokens for row in rows) // self._block
        if expanded > MAX_EXPANDED:
            needed = f"at most {MAX_EXPANDED} ids in a conversation are needed"
            raise BadRecord(needed, str(expanded))
        rows.sort(key=lambda row: row.time_s)
        return rows

    def _collect(
        self, entries: list[Entry], start_s: float, depth: int, place: str, rows: list[Row]
    ) -> None:
        """Add the requests of one agent, and of its sub-agents."""
        agent = self._agents
        first = True
        for index, entry in enumerate(entries):
            where = f"{place}[{index}]"
            time_s = start_s + entry.t
            if not (math.isfinite(time_s) and 0 <= time_s <= MAX_TIME_S):
                raise BadRecord(f"{where}.t: seconds from 0 are needed", f"{entry.t:g}")
            if entry.type == SUB_AGENT:
                if depth == MAX_NESTING:
                    raise BadRecord(f"at most {MAX_NESTING} nested sub-agents are needed")
                self._agents += 1
                self._collect(entry.requests or [], time_s, depth + 1, f"{where}.requests", rows)
                continue
            try:
                rows.append(self._row(entry, time_s, agent, first))
            except BadRecord as fault:
                raise BadRecord(f"{where}.{fault.needed}", fault.got) from None
            first = False

    def _row(self, entry: Entry, time_s: float, agent: int, first: bool) -> Row:
        if entry.input_tokens is None or entry.output_tokens is None:
            raise BadRecord("in, out: tokens are needed", "none")
        check_tokens("in", entry.input_tokens)
        check_tokens("out", entry.output_tokens)
        for name, value in (("api_time", entry.api_time), ("think_time", entry.think_time)):
            if value is not None and not 0 <= value <= MAX_TIME_S:
                raise BadRecord(f"{name}: seconds from 0 are needed", f"{value:g}")
        unknown = first or entry.think_time is None
        return Row(
            time_s,
            entry.input_tokens,
            entry.output_tokens,
            session=self._conversations,
            agent=agent,
            scope=self._conversations,
            gap_s=math.nan if unknown else entry.think_time or 0.0,
            gap_kind=GAP_UNKNOWN if first else _gap_kind(entry.input_types),
            service_s=math.nan if entry.api_time is None else entry.api_time,
            ids=self._ids(bytes(entry.hash_ids).strip(), entry.input_tokens),
        )

    def _ids(self, text: bytes, input_tokens: int) -> Ints:
        """Ids of a request, shape (n,), or inclusive ranges of them, shape (n, 2); checked."""
        ids = None
        if re.match(rb"\[\s*\[", text):
            ranges = self._listed(self._range_decoder, text)
            check_ids("hash_ids", [end for pair in ranges for end in pair])
            for first, last in ranges:
                if first > last:
                    needed = "hash_ids: ranges [first, last] are needed"
                    raise BadRecord(needed, f"[{first}, {last}]")
            count = sum(last - first + 1 for first, last in ranges)
            ids = np.array(ranges, np.int64)
        else:
            if text[:1] == b"[" and text[1:-1].strip():
                ids = integers(text[1:-1])
            if ids is None:
                listed = self._listed(self._ids_decoder, text or b"[]")
                check_ids("hash_ids", listed)
                ids = np.array(listed, np.int64)
            count = len(ids)
        due = input_tokens // self._block
        if count != due:
            blocks = f"{input_tokens} tokens in whole blocks of {self._block}"
            raise BadRecord(f"hash_ids: {due} ids are needed for {blocks}", str(count))
        return ids

    def _listed(self, decoder: msgspec.json.Decoder[list[_Id]], text: bytes) -> list[_Id]:
        try:
            return decoder.decode(text)
        except JSON_ERRORS as error:
            raise BadRecord(f"hash_ids: {error}") from None

    def _told_apart(self, rows: list[Row]) -> Iterator[Row]:
        """The requests of a conversation, its ids made unlike those of all others."""
        self._conversations += 1
        some = [row.ids for row in rows if len(row.ids)]
        lowest = min((int(ids.min()) for ids in some), default=0)
        span = max((int(ids.max()) for ids in some), default=-1) - lowest + 1
        dense = span > MAX_NEXT_ID - self._next_id
        if dense:  # far apart: numbered anew in the order of their values
            known = reduce(np.union1d, map(_expanded, some))
            span = len(known)
        for row in rows:
            ids = _expanded(row.ids)
            ids = np.searchsorted(known, ids) if dense else ids - lowest
            if len(ids) > len(self._full_blocks):
                self._full_blocks = np.full(2 * len(ids), self._block, np.int64)
            yield row._replace(ids=ids + self._next_id, tokens=self._full_blocks[: len(ids)])
        self._next_id += span


def _gap_kind(input_types: list[str]) -> int:
    """What the agent waited for: a tool, if the request brings a tool's result."""
    if "tool_result" in input_types:
        return GAP_TOOL
    return GAP_HUMAN if "text" in input_types else GAP_UNKNOWN


def _expanded(ids: Ints) -> Ints:
    """Ids out of ranges of them, if they are not ids already."""
    if ids.ndim == 1:
        return ids
    counts = ids[:, 1] - ids[:, 0] + 1
    ends = np.cumsum(counts)
    expanded: Ints = np.arange(ends[-1]) + np.repeat(ids[:, 0] - (ends - counts), counts)
    return expanded
