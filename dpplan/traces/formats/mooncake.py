"""Mooncake JSONL: one request a line, with the ids of all its blocks of 512 tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Final

import msgspec
import numpy as np

from dpplan.arrays import Ints
from dpplan.traces.columns import NO_IDS, requests_of
from dpplan.traces.formats.common import (
    JSON_ERRORS,
    MAX_TIME_S,
    MAX_TOKENS,
    Head,
    Reading,
    check_ids,
    check_tokens,
    integers,
    json_fault,
)
from dpplan.traces.reading.faults import BadRecord
from dpplan.traces.reading.lines import LINE_LIMIT_BYTES, Chunk
from dpplan.traces.requests import Requests, TokenSource

__all__ = ["MooncakeReader", "block_size", "recognises"]

BLOCK_TOKENS: Final = 512
# Sizes of blocks that serving engines use, tried where 512 does not fit.
SIZES: Final = (512, 16, 32, 64, 128, 256, 1024, 2048)
MIN_FIT_FRACTION: Final = 0.9
MAX_TIME_MS: Final = MAX_TIME_S * 1e3


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


def recognises(head: Head) -> bool:
    """Whether a text is of this format."""
    return {"timestamp", "input_length", "output_length"} <= head.keys and not (
        {"session_id", "delay"} & head.keys
    )


def block_size(records: list[dict[str, Any]], given: int | None) -> tuple[int | None, bool]:
    """Tokens of a block, and whether the last one is partial, by the first records.

    >>> block_size([{"input_length": 1000, "hash_ids": [1, 2]}], None)
    (512, True)
    >>> block_size([{"input_length": 1000, "hash_ids": list(range(15))}], None)
    (64, False)
    >>> block_size([{"input_length": 1000}], None)
    (None, True)
    """
    pairs = [
        (record["input_length"], len(record["hash_ids"]))
        for record in records
        if isinstance(record.get("input_length"), int) and isinstance(record.get("hash_ids"), list)
    ]
    if records and not any(count or not tokens for tokens, count in pairs):
        return None, True
    for partial in (True, False):
        for size in (given,) if given else SIZES:
            fit = sum(
                count == (-(-tokens // size) if partial else tokens // size)
                for tokens, count in pairs
            )
            if fit >= MIN_FIT_FRACTION * len(pairs):  # the first that fits, not a rarer one
                return size, partial
    return given or BLOCK_TOKENS, True


class MooncakeReader:
    """See `FormatReader`."""

    name = "mooncake"
    scoped = False
    has_sessions = False
    token_source: TokenSource = "given"
    limit_bytes = LINE_LIMIT_BYTES
    in_order = True

    def __init__(self, head: Head, reading: Reading) -> None:
        self.block_tokens, self._partial = block_size(head.records, reading.options.block_tokens)
        self._faults = reading.faults
        self._decoder = msgspec.json.Decoder(Record)
        self._raw_decoder = msgspec.json.Decoder(RawRecord)
        if self.block_tokens is None:
            reading.notes.add("no block ids: no hit rates can be told")
        elif not self._partial or self.block_tokens != BLOCK_TOKENS:
            kind = "the last one partial" if self._partial else "the tail without an id"
            reading.notes.add(f"blocks of {self.block_tokens} tokens, {kind}, by the first lines")

    def read(self, chunks: Iterator[Chunk], member: str) -> Iterator[Requests]:
        """Requests of each chunk of lines."""
        for chunk in chunks:
            batch = self._at_once(chunk)
            if batch is None:
                batch = self._requests(self._line_by_line(chunk, member))
                assert batch is not None
            self._faults.good(len(batch))
            yield batch

    def finish(self) -> Iterator[Requests]:
        """Nothing is held back."""
        return iter(())

    def _at_once(self, chunk: Chunk) -> Requests | None:
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
        if self.block_tokens is None:
            return None if any(texts) else self._checked(records, None, NO_IDS)
        counts = np.fromiter([t.count(b",") + 1 if t else 0 for t in texts], np.int64, len(texts))
        ids = integers(b",".join(filter(None, texts)))
        if ids is None or len(ids) != counts.sum():
            return None
        return self._checked(records, counts, ids)

    def _requests(self, records: list[Record]) -> Requests:
        """The batch of records that were checked one by one."""
        if self.block_tokens is None:
            batch = self._checked(records, None, NO_IDS)
        else:
            lists = [record.hash_ids or [] for record in records]
            counts = np.fromiter(map(len, lists), np.int64, len(lists))
            ids = np.fromiter(chain.from_iterable(lists), np.int64, int(counts.sum()))
            batch = self._checked(records, counts, ids)
        assert batch is not None
        return batch

    def _checked(
        self, records: Sequence[Record | RawRecord], counts: Ints | None, ids: Ints
    ) -> Requests | None:
        """The batch, None if a number in it is out of range."""
        n = len(records)
        try:
            time_ms = np.fromiter([r.timestamp for r in records], np.float64, n)
            inputs = np.fromiter([r.input_length for r in records], np.int64, n)
            outputs = np.fromiter([r.output_length for r in records], np.int64, n)
        except OverflowError:
            return None
        if not (
            ((time_ms >= 0) & (time_ms <= MAX_TIME_MS)).all()
            and ((inputs >= 0) & (inputs <= MAX_TOKENS)).all()
            and ((outputs >= 0) & (outputs <= MAX_TOKENS)).all()
        ):
            return None
        if self.block_tokens is None or counts is None:
            return requests_of(time_ms / 1e3, inputs, outputs)
        if not (counts == self._expected(inputs)).all():
            return None
        tokens = np.full(len(ids), self.block_tokens, np.int64)
        if self._partial:
            held = counts > 0
            last = np.cumsum(counts)[held] - 1
            tokens[last] = inputs[held] - (counts[held] - 1) * self.block_tokens
        return requests_of(
            time_ms / 1e3,
            inputs,
            outputs,
            block_counts=counts,
            block_ids=ids,
            block_tokens=tokens,
        )

    def _expected(self, inputs: Ints) -> Ints:
        """Ids due."""
        assert self.block_tokens is not None
        return -(-inputs // self.block_tokens) if self._partial else inputs // self.block_tokens

    def _line_by_line(self, chunk: Chunk, member: str) -> list[Record]:
        """The good records of a chunk in which something is wrong."""
        good = []
        for number, line in chunk.lines():
            try:
                try:
                    record = self._decoder.decode(line)
                except JSON_ERRORS as error:
                    raise json_fault(error, line) from None
                self._check(record)
            except BadRecord as fault:
                self._faults.bad(number, fault.needed, fault.got, member=member)
            else:
                good.append(record)
        return good

    def _check(self, record: Record) -> None:
        if not (math.isfinite(record.timestamp) and 0 <= record.timestamp <= MAX_TIME_MS):
            needed = "timestamp: milliseconds from 0 are needed"
            raise BadRecord(needed, f"{record.timestamp:g}")
        check_tokens("input_length", record.input_length)
        check_tokens("output_length", record.output_length)
        ids = record.hash_ids
        if self.block_tokens is None:
            if ids:
                raise BadRecord("no hash_ids are needed: the first lines have none", "some")
            return
        if ids is None:
            raise BadRecord("hash_ids are needed", "none")
        check_ids("hash_ids", ids)
        due = int(self._expected(np.array(record.input_length)))
        if len(ids) != due:
            blocks = f"{record.input_length} tokens in blocks of {self.block_tokens}"
            raise BadRecord(f"hash_ids: {due} ids are needed for {blocks}", str(len(ids)))
