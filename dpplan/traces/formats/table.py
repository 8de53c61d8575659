"""A plain CSV of requests, its columns named by the user or by the obvious headers."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Final

from dpplan.errors import BadInput, Fault, did_you_mean
from dpplan.traces.formats.common import MAX_TIME_S, FormatReader, Head, Reading, check_tokens
from dpplan.traces.formats.stamps import date_s
from dpplan.traces.reading.faults import BadRecord
from dpplan.traces.reading.lines import Chunk
from dpplan.traces.requests import Requests, Row, batches_of

__all__ = ["TableReader", "parse_columns"]

FAR_S: Final = 1e8
ROLES: Final = ("time", "input", "output", "session", "gap", "service")
UNITS: Final = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0}
# Headers in letters and digits only, without a unit.
OBVIOUS: Final = {
    "time": ("timestamp", "time", "arrival", "arrivaltime", "arrivaltimestamp", "arrivedat"),
    "input": (
        "inputtokens", "inputlength", "inputlen", "prompttokens", "promptlength", "promptlen",
        "contexttokens", "requesttokens", "numprefilltokens",
    ),
    "output": (
        "outputtokens", "outputlength", "outputlen", "completiontokens", "generatedtokens",
        "responsetokens", "numdecodetokens",
    ),
    "session": ("session", "sessionid", "conversation", "conversationid"),
}  # fmt: skip
HEADER_UNIT: Final = re.compile(r"[ _(\[]+(s|sec|seconds|ms|us|ns)[)\]]?$", re.IGNORECASE)
HEADER_UNITS: Final = {"sec": "s", "seconds": "s"}
COUNT: Final = re.compile(r"\d{1,18}(?:\.0*)?")


def parse_columns(text: str) -> dict[str, str]:
    """Role -> column out of `time:ms=When,input=Prompt,output=Answer`.

    Raises
    ------
    BadInput
        If a part isn't `role=column`, or the role is unknown.

    Examples
    --------
    >>> parse_columns("time:ms=When,input=Prompt,output=Answer")
    {'time:ms': 'When', 'input': 'Prompt', 'output': 'Answer'}
    """
    columns: dict[str, str] = {}
    for part in text.split(","):
        role, sign, column = (piece.strip() for piece in part.partition("="))
        if not (sign and role and column):
            needed = "role=column,... is needed, as in time:ms=When,input=Prompt,output=Answer"
            raise BadInput(Fault("--columns", needed, part))
        if role.partition(":")[0] in {known.partition(":")[0] for known in columns}:
            raise BadInput(Fault("--columns", f"one column for {role} is needed", part))
        if column in columns.values():
            raise BadInput(Fault("--columns", "each column once is needed", part))
        columns[role] = column
    return columns


class TableReader(FormatReader):
    """See `FormatReader`: each row a request, without blocks."""

    name = "table"

    def __init__(self, head: Head, reading: Reading) -> None:
        super().__init__(head, reading)
        if not head.lines:
            raise BadInput(Fault(reading.where, "a first line with column names is needed"))
        self._delimiter = _delimiter(head.lines[0])
        try:
            self._header = _cells(head.lines[0], self._delimiter)
        except BadRecord as fault:
            raise BadInput(Fault(f"{reading.where}:1", fault.needed, fault.got)) from None
        given = reading.options.columns
        columns = _obvious(self._header) if given is None else given
        self._places: dict[str, int] = {}
        self._scales: dict[str, float] = {}
        for role_unit, column in columns.items():
            self._place(role_unit, column)
        missing = [role for role in ("input", "output") if role not in self._places]
        if missing:
            needed = f"a column for {' and '.join(missing)} is needed"
            header = ", ".join(self._header)[:200]
            cure = "say --columns input=NAME,output=NAME"
            raise BadInput(Fault("--columns", needed, f"columns {header}", cure))
        self.has_sessions = "session" in self._places
        self.in_order = "time" in self._places
        self._sessions: dict[str, int] = {}
        self._origin_s: float | None = None
        self._notes.add("no block ids: no hit rates can be told")
        if not self.in_order:
            self._notes.add("no column tells the time: no rates can be told")
        elif given is None:
            column = self._header[self._places["time"]]
            unit = next((u for r, u in map(_role_unit, columns) if r == "time"), "") or "s"
            self._notes.add(f"time is read from column {column!r} in {unit}, unless it holds dates")

    @staticmethod
    def recognises(head: Head) -> bool:
        """Whether a text has a header that tells at least input and output."""
        if not head.lines or head.records:
            return False
        try:
            header = _cells(head.lines[0], _delimiter(head.lines[0]))
        except BadRecord:
            return False
        found = _obvious(header)
        return {"input", "output"} <= {role.partition(":")[0] for role in found}

    def read(self, chunks: Iterator[Chunk], member: str) -> Iterator[Requests]:
        """Requests of all lines but a header."""
        lines = chain.from_iterable(chunk.lines() for chunk in chunks)
        first = next(lines, None)
        if first is not None and not self._is_header(first[1]):
            lines = chain([first], lines)
        return batches_of(self.each(lines, member, self._row))

    def _is_header(self, line: bytes) -> bool:
        """Whether a first line names the columns: a part of a table may have none."""
        try:
            return _cells(line, self._delimiter) == self._header
        except BadRecord:
            return False

    def _place(self, role_unit: str, column: str) -> None:
        role, unit = _role_unit(role_unit)
        if role not in ROLES:
            needed = "a role of a column is needed"
            raise BadInput(Fault("--columns", needed, role, did_you_mean(role, ROLES)))
        if unit and (unit not in UNITS or role in ("input", "output", "session")):
            needed = f"{role} in one of {', '.join(UNITS)} is needed"
            if role in ("input", "output", "session"):
                needed = f"{role} without a unit is needed"
            raise BadInput(Fault("--columns", needed, unit))
        names = [name for name in self._header if name == column] or [
            name for name in self._header if name.casefold() == column.casefold()
        ]
        if len(names) != 1:
            got = f"{column!r} {len(names)} times" if names else repr(column)
            cure = did_you_mean(column, self._header)
            raise BadInput(Fault("--columns", "a column of the table is needed", got, cure))
        self._places[role] = self._header.index(names[0])
        self._scales[role] = UNITS[unit or "s"]

    def _row(self, line: bytes) -> Row:
        cells = _cells(line, self._delimiter)
        if len(cells) != len(self._header):
            raise BadRecord(f"{len(self._header)} cells are needed", str(len(cells)))
        session = -1
        if self.has_sessions:
            name = cells[self._places["session"]]
            if not name:
                raise BadRecord("session: a name is needed", "an empty cell")
            session = self._sessions.setdefault(name, len(self._sessions))
        return Row(
            self._time_s(cells),
            self._tokens("input", cells),
            self._tokens("output", cells),
            session=session,
            gap_s=self._seconds("gap", cells),
            service_s=self._seconds("service", cells),
        )

    def _tokens(self, role: str, cells: list[str]) -> int:
        text = cells[self._places[role]]
        if not COUNT.fullmatch(text):
            raise BadRecord(f"{role}: a whole number of tokens is needed", text[:40] or "nothing")
        count = int(text.partition(".")[0])
        check_tokens(role, count)
        return count

    def _seconds(self, role: str, cells: list[str]) -> float:
        """Seconds; NaN where there is no such column, or nothing in it."""
        place = self._places.get(role)
        if place is None or not cells[place]:
            return math.nan
        try:
            value = float(cells[place]) * self._scales[role]
        except ValueError:
            value = math.nan
        if value > MAX_TIME_S:
            needed = f"{role}: seconds are needed, or another unit: --columns {role}:ms=COLUMN"
            raise BadRecord(needed, cells[place][:40])
        if not 0 <= value <= MAX_TIME_S:
            raise BadRecord(f"{role}: a number from 0 or an ISO date is needed", cells[place][:40])
        return value

    def _time_s(self, cells: list[str]) -> float:
        place = self._places.get("time")
        if place is None:
            return math.nan
        seconds = date_s(cells[place])
        if seconds is None:
            seconds = self._seconds("time", cells)
            if math.isnan(seconds):
                raise BadRecord("time: a number or a date is needed", "nothing")
        if self._origin_s is None:
            # A clock since 1970, or some other far start, is set to the trace's.
            self._origin_s = seconds if seconds > FAR_S else 0.0
        return seconds - self._origin_s


def _role_unit(text: str) -> tuple[str, str]:
    role, _, unit = text.partition(":")
    return role.strip().lower(), unit.strip().lower()


def _delimiter(header: bytes) -> str:
    return max(",;\t", key=lambda sign: header.count(sign.encode()))


def _cells(line: bytes, delimiter: str) -> list[str]:
    try:
        text = line.decode("utf-8").strip("\r\n")
        cells = next(csv.reader([text], delimiter=delimiter, strict=True))
        return [cell.strip() for cell in cells]
    except UnicodeDecodeError as error:
        got = f"byte 0x{line[error.start]:02x}"
        raise BadRecord("UTF-8 text is needed", got) from None
    except (csv.Error, StopIteration) as error:
        raise BadRecord("cells of a table are needed", str(error)) from None


def _obvious(header: list[str]) -> Mapping[str, str]:
    """Role -> column, where the header tells."""
    found: dict[str, str] = {}
    for column in header:
        unit = HEADER_UNIT.search(column)
        name = column[: unit.start()] if unit else column
        plain = re.sub(r"[^a-z0-9]", "", name.casefold())
        for role, names in OBVIOUS.items():
            if plain in names and not any(_role_unit(known)[0] == role for known in found):
                told = unit[1].lower() if unit else ""
                told = HEADER_UNITS.get(told, told)
                found[f"{role}:{told}" if told and role == "time" else role] = column
    return found
