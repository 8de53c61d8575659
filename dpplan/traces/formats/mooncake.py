"""Mooncake JSONL: one request a line, with the ids of all its blocks of 512 tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, TypeVar

import msgspec
import numpy as np

from dpplan.arrays import Ints
from dpplan.traces.formats.common import (
    JSON_ERRORS,
    MAX_TIME_S,
    MAX_TOKENS,
    ChunkReader,
    Head,
    Reading,
    check_ids,
    check_tokens,
    decoded,
    integers,
)
from dpplan.traces.reading.faults import BadRecord
from dpplan.traces.reading.lines import Chunk
from dpplan.traces.requests import NO_IDS, Requests, requests_of

__all__ = ["Blocks", "MooncakeReader", "blocks_of", "check_no_ids"]

BLOCK_TOKENS: Final = 512
# Sizes of blocks that serving engines use, tried where 512 does not fit.
SIZES: Final = (512, 16, 32, 64, 128, 256, 1024, 2048)
MIN_FIT_FRACTION: Final = 0.9
MAX_TIME_MS: Final = MAX_TIME_S * 1e3


_Count = TypeVar("_Count", int, Ints)


class Record(msgspec.Struct, gc=False):
    """A line."""

    timestamp: float
    input_length: int
    output_length: int
    hash_ids: list[int] | None = None


class RawRecord(msgspec.Struct, gc=False):
    """A line whose ids are left as they are written."""

    timestamp: float
    input_length: int
    output_length: int
    hash_ids: msgspec.Raw = msgspec.Raw(b"")


@dataclass(frozen=True)
class Blocks:
    """How a prompt is cut into blocks."""

    tokens: int
    """Of a full block."""
    partial: bool
    """Whether the last one may be partial; else the tail has no id."""

    def due(self, prompt_tokens: _Count) -> _Count:
        """Ids that a prompt has."""
        return -(-prompt_tokens // self.tokens) if self.partial else prompt_tokens // self.tokens

    def check(self, ids: list[int], prompt_tokens: int) -> None:
        """Check the ids of a prompt.

        Raises
        ------
        BadRecord
            If they are too wide, too few or too many.
        """
        check_ids("hash_ids", ids)
        due = self.due(prompt_tokens)
        if len(ids) != due:
            blocks = f"{prompt_tokens} tokens in blocks of {self.tokens}"
            raise BadRecord(f"hash_ids: {due} ids are needed for {blocks}", str(len(ids)))

    def sizes(self, counts: Ints, prompt_tokens: Ints) -> Ints:
        """Tokens of each block of prompts with so many blocks; shape (sum of counts,)."""
        sizes = np.full(int(counts.sum()), self.tokens, np.int64)
        if self.partial:
            some = counts > 0
            sizes[np.cumsum(counts)[some] - 1] = (
                prompt_tokens[some] - (counts[some] - 1) * self.tokens
            )
        return sizes


def check_no_ids(ids: list[int] | None) -> None:
    """Check that a line has no ids, as the first lines have none.

    Raises
    ------
    BadRecord
        If it has.
    """
    if ids:
        raise BadRecord("no hash_ids are needed: the first lines have none", "some")


def blocks_of(records: list[dict[str, Any]], given: int | None) -> Blocks | None:
    """How prompts are cut into blocks by the first records; None = no ids.

    >>> blocks_of([{"input_length": 1000, "hash_ids": [1, 2]}], None)
    Blocks(tokens=512, partial=True)
    >>> blocks_of([{"input_length": 1000, "hash_ids": list(range(15))}], None)
    Blocks(tokens=64, partial=False)
    >>> blocks_of([{"input_length": 1000}], None) is None
    True
    """
    pairs = [
        (record["input_length"], len(record["hash_ids"]))
        for record in records
        if isinstance(record.get("input_length"), int) and isinstance(record.get("hash_ids"), list)
    ]
    if records and not any(count or not tokens for tokens, count in pairs):
        return None
    for partial in (True, False):
        for size in (given,) if given else SIZES:
            blocks = Blocks(size, partial)
            fit = sum(count == blocks.due(tokens) for tokens, count in pairs)
            if fit >= MIN_FIT_FRACTION * len(pairs):  # the first that fits, not a rarer one
                return blocks
    return Blocks(given or BLOCK_TOKENS, True)


class MooncakeReader(ChunkReader):
    """See `FormatReader`."""

    name = "mooncake"

    def __init__(self, head: Head, reading: Reading) -> None:
        super().__init__(head, reading)
        self._blocks = blocks_of(head.records, reading.options.block_tokens)
        self._decoder = msgspec.json.Decoder(Record)
        self._raw_decoder = msgspec.json.Decoder(RawRecord)
        if self._blocks is None:
            self._notes.add("no block ids: no hit rates can be told")
            return
        self.block_tokens = self._blocks.tokens
        if not self._blocks.partial or self.block_tokens != BLOCK_TOKENS:
            kind = "the last one partial" if self._blocks.partial else "the tail without an id"
            self._notes.add(f"blocks of {self.block_tokens} tokens, {kind}, by the first lines")

    @staticmethod
    def recognises(head: Head) -> bool:
        """Whether a text is of this format."""
        needed = {"timestamp", "input_length", "output_length"}
        return needed <= head.keys and not ({"session_id", "delay"} & head.keys)

    def at_once(self, chunk: Chunk) -> Requests | None:
        """The batch of a chunk, None if any line is blank or faulty.

        The ids stay text until numpy reads those of all lines together: a third of the time that
        lists of Python's integers take.
        """
        try:
            records = self._raw_decoder.decode_lines(chunk.data)
        except JSON_ERRORS:
            return None
        # Fewer records than lines: blank lines; more: several on one line.
        if len(records) != chunk.line_count:
            return None
        texts = [bytes(record.hash_ids)[1:-1] for record in records]
        counts = np.fromiter([t.count(b",") + 1 if t else 0 for t in texts], np.int64, len(texts))
        ids = integers(b",".join(filter(None, texts)))
        if ids is None or len(ids) != counts.sum():
            return None
        return self._checked(records, counts, ids)

    def one_by_one(self, chunk: Chunk, member: str) -> Requests:
        """The good lines of a chunk in which something is wrong."""
        records = list(self.each(chunk.lines(), member, self._record))
        lists = [record.hash_ids or [] for record in records]
        counts = np.fromiter(map(len, lists), np.int64, len(lists))
        ids = np.fromiter(chain.from_iterable(lists), np.int64, int(counts.sum()))
        batch = self._checked(records, counts, ids)
        assert batch is not None
        return batch

    def _checked(
        self, records: Sequence[Record | RawRecord], counts: Ints, ids: Ints
    ) -> Requests | None:
        """The batch, None if a number in it is out of range."""
        n = len(records)
        try:
            time_ms = np.fromiter([r.timestamp for r in records], np.float64, n)
            inputs = np.fromiter([r.input_length for r in records], np.int64, n)
            outputs = np.fromiter([r.output_length for r in records], np.int64, n)
        except OverflowError:
            return None
        limits = ((time_ms, MAX_TIME_MS), (inputs, MAX_TOKENS), (outputs, MAX_TOKENS))
        if not all(((column >= 0) & (column <= most)).all() for column, most in limits):
            return None
        due = np.zeros(n, np.int64) if self._blocks is None else self._blocks.due(inputs)
        if not (counts == due).all():
            return None
        sizes = NO_IDS if self._blocks is None else self._blocks.sizes(counts, inputs)
        return requests_of(
            time_ms / 1e3, inputs, outputs, block_counts=counts, block_ids=ids, block_tokens=sizes
        )

    def _record(self, line: bytes) -> Record:
        """A line, checked."""
        record = decoded(self._decoder, line)
        if not (math.isfinite(record.timestamp) and 0 <= record.timestamp <= MAX_TIME_MS):
            needed = "timestamp: milliseconds from 0 are needed"
            raise BadRecord(needed, f"{record.timestamp:g}")
        check_tokens("input_length", record.input_length)
        check_tokens("output_length", record.output_length)
        if self._blocks is None:
            check_no_ids(record.hash_ids)
        elif record.hash_ids is None:
            raise BadRecord("hash_ids are needed", "none")
        else:
            self._blocks.check(record.hash_ids, record.input_length)
        return record
