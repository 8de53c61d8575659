"""What the readers of all formats share: the head of a file, options, what is told on the way."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Protocol

import msgspec
import numpy as np

from dpplan.arrays import Ints
from dpplan.traces.columns import NO_IDS
from dpplan.traces.reading.faults import BadRecord, Faults
from dpplan.traces.reading.lines import Chunk
from dpplan.traces.requests import Requests, TokenSource

__all__ = [
    "JSON_ERRORS",
    "MAX_ID",
    "MAX_TIME_S",
    "MAX_TOKENS",
    "FormatReader",
    "Head",
    "Notes",
    "Options",
    "Reading",
    "check_ids",
    "check_tokens",
    "integers",
    "json_fault",
]

MAX_TOKENS: Final = 10**9
"""No prompt is longer: a larger count is a fault, and sums stay far from overflow."""
MAX_ID: Final = 2**63 - 1
MAX_TIME_S: Final = 1e11

# RecursionError: brackets nested without end.
JSON_ERRORS: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError, OverflowError)


class Notes:
    """What a reader of the numbers must know, once each, in order; counts are filled in."""

    def __init__(self) -> None:
        self._texts: dict[str, int] = {}

    def add(self, text: str, count: int = 1) -> None:
        """Note something; `{}` in the text stands for how often."""
        self._texts[text] = self._texts.get(text, 0) + count

    @property
    def texts(self) -> tuple[str, ...]:
        """All notes."""
        return tuple(text.replace("{}", str(count)) for text, count in self._texts.items())


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


class FormatReader(Protocol):
    """Reads the texts of one trace one after another; made anew for each trace."""

    name: str
    block_tokens: int | None
    """Tokens of a full block; None = no ids."""
    scoped: bool
    has_sessions: bool
    token_source: TokenSource
    limit_bytes: int
    """Longest line."""
    in_order: bool
    """Whether requests are put into order of time further up."""

    def read(self, chunks: Iterator[Chunk], member: str) -> Iterator[Requests]:
        """The requests of one text, as far as they can be given already."""
        ...

    def finish(self) -> Iterator[Requests]:
        """The requests held back until all texts were read."""
        ...


@dataclass
class Reading:
    """What a reader of a format is given: options, and where to tell faults and notes."""

    options: Options
    faults: Faults
    notes: Notes = field(default_factory=Notes)
    where: str = ""
    """The first file, for messages."""


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


def json_fault(error: Exception, line: bytes) -> BadRecord:
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
