"""What the readers of all formats share: the head of a file, options, what is told on the way."""

from __future__ import annotations

import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Final, TypeVar

import msgspec
import numpy as np

from dpplan.arrays import Ints
from dpplan.traces.reading.faults import BadRecord, Faults, Notes
from dpplan.traces.reading.lines import LINE_LIMIT_BYTES, Chunk
from dpplan.traces.requests import NO_IDS, Requests, TokenSource

__all__ = [
    "JSON_ERRORS",
    "MAX_TIME_S",
    "MAX_TOKENS",
    "ChunkReader",
    "FormatReader",
    "Head",
    "Options",
    "Reading",
    "check_ids",
    "check_tokens",
    "decoded",
    "integers",
]

MAX_TOKENS: Final = 10**9
"""No prompt is longer: a larger count is a fault, and sums stay far from overflow."""
MAX_TIME_S: Final = 1e11

# RecursionError: brackets nested without end.
JSON_ERRORS: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError, OverflowError)


_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Options:
    """What the user said about a trace."""

    columns: Mapping[str, str] | None = None
    tokenizer: str | None = None
    block_tokens: int | None = None


@dataclass(frozen=True)
class Head:
    """The start of a text, for telling its format."""

    lines: list[bytes]
    """Whole lines that aren't blank."""
    rest: bytes
    """The start of a line that doesn't end within the head."""

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The lines that are JSON objects."""
        found = []
        for line in self.lines:
            try:
                record = msgspec.json.decode(line)
            except JSON_ERRORS:
                continue
            if isinstance(record, dict):
                found.append(record)
        return found

    @cached_property
    def keys(self) -> frozenset[str]:
        """Keys of the first record; of one that doesn't end, the keys seen in it at any depth."""
        if self.records:
            return frozenset(self.records[0])
        if not (self.rest or b"".join(self.lines[:1])).lstrip().startswith(b"{"):
            return frozenset()
        text = b"\n".join([*self.lines, self.rest])
        return frozenset(
            key.decode() for key in re.findall(rb'(?<!\\)"([A-Za-z_]{1,40})"\s*:', text)
        )


@dataclass
class Reading:
    """What a reader of a format is given: options, and where to tell faults and notes."""

    options: Options
    faults: Faults
    notes: Notes = field(default_factory=Notes)
    where: str = ""
    """The first file, for messages."""


class FormatReader(ABC):
    """Reads the texts of one trace one after another; made anew for each trace."""

    name: ClassVar[str]
    block_tokens: int | None = None
    """Tokens of a full block; None = no ids."""
    scoped = False
    has_sessions = False
    token_source: TokenSource = "given"
    limit_bytes = LINE_LIMIT_BYTES
    """Longest line."""
    in_order = True
    """Whether requests are put into order of time further up."""

    def __init__(self, head: Head, reading: Reading) -> None:
        self._faults, self._notes = reading.faults, reading.notes

    @staticmethod
    @abstractmethod
    def recognises(head: Head) -> bool:
        """Whether a text is of this format."""

    @abstractmethod
    def read(self, chunks: Iterator[Chunk], member: str) -> Iterator[Requests]:
        """The requests of one text, as far as they can be given already."""

    def finish(self) -> Iterator[Requests]:
        """The requests held back until all texts were read."""
        return iter(())

    def each(
        self, lines: Iterable[tuple[int, bytes]], member: str, read: Callable[[bytes], _Read]
    ) -> Iterator[_Read]:
        """What is read of each good line; good and bad ones are counted."""
        for number, line in lines:
            try:
                record = read(line)
            except BadRecord as fault:
                self._faults.bad(number, fault.needed, fault.got, member=member)
            else:
                self._faults.good(1)
                yield record


class ChunkReader(FormatReader):
    """Reads a chunk of lines at once, and one by one only where something is wrong."""

    def read(self, chunks: Iterator[Chunk], member: str) -> Iterator[Requests]:
        """Requests of each chunk of lines."""
        for chunk in chunks:
            batch = self.at_once(chunk)
            if batch is None:
                yield self.one_by_one(chunk, member)
            else:
                self._faults.good(len(batch))
                yield batch

    @abstractmethod
    def at_once(self, chunk: Chunk) -> Requests | None:
        """The batch of a chunk, None if any line is blank or faulty."""

    @abstractmethod
    def one_by_one(self, chunk: Chunk, member: str) -> Requests:
        """The good lines of a chunk, counted by `each`."""


def check_tokens(name: str, value: int) -> None:
    """Check a count of tokens.

    Raises
    ------
    BadRecord
        If it is negative, or beyond any prompt.
    """
    if not 0 <= value <= MAX_TOKENS:
        raise BadRecord(f"{name}: 0 to {MAX_TOKENS} tokens are needed", str(value)[:40])


def integers(text: bytes) -> Ints | None:
    """Integers between commas; None if anything else stands there, or one is beyond 64 bits.

    >>> integers(b"1, -2,3")
    array([ 1, -2,  3])
    >>> integers(b"1,2.5") is None, integers(b"99999999999999999999") is None
    (True, True)
    """
    if not text:
        return NO_IDS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # numpy before 2.3 only warns
            ids = np.fromstring(text, np.int64, sep=",")
    except (ValueError, DeprecationWarning):
        return None
    limits = np.iinfo(np.int64)  # what larger numbers become
    return ids if ids.min() > limits.min and ids.max() < limits.max else None


def check_ids(name: str, ids: list[int]) -> None:
    """Check that ids fit 64 bits.

    Raises
    ------
    BadRecord
        If one doesn't.
    """
    if ids and not -(2**63) <= min(ids) <= max(ids) < 2**63:
        widest = max(ids, key=abs)
        raise BadRecord(f"{name}: ids of 64 bits are needed", f"one of {widest.bit_length()} bits")


def decoded(decoder: msgspec.json.Decoder[_Read], line: bytes) -> _Read:
    """What a line of JSON holds.

    Raises
    ------
    BadRecord
        If JSON's reader refuses it.
    """
    try:
        return decoder.decode(line)
    except JSON_ERRORS as error:
        raise _json_fault(error, line) from None


def _json_fault(error: Exception, line: bytes) -> BadRecord:
    """What to say about a line that JSON's reader refuses."""
    if isinstance(error, RecursionError):
        return BadRecord("JSON is needed", "brackets nested too deep")
    if isinstance(error, msgspec.ValidationError):
        text = str(error)
        what, _, place = text.partition(" - at `$.")
        place = place.rstrip("`")
        return BadRecord(f"{place}: {what[:1].lower()}{what[1:]}" if place else text)
    start = line[:40].decode("utf-8", errors="replace").strip()
    what = str(error).removeprefix("JSON is malformed: ")
    return BadRecord(f"JSON is needed ({what})", start)
