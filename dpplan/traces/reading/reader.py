"""Opening a trace: which files, which format, then its requests in batches."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dpplan.errors import BadInput, Fault
from dpplan.traces.reading.faults import Faults, Notes, printable
from dpplan.traces.reading.lines import StoredFile, chunks, head_of, trace_paths, unreadable
from dpplan.traces.requests import Requests, TraceFacts, TraceFile

if TYPE_CHECKING:
    from dpplan.traces.formats.common import FormatReader, Head, Reading

__all__ = ["Trace", "open_trace"]

FAR_S: Final = 1e8
MAX_OVERLAP_FRACTION: Final = 0.01

OnProgress = Callable[[int, int], None]
PathLike = str | os.PathLike[str]


def open_trace(
    paths: PathLike | Sequence[PathLike],
    *,
    format: str | None = None,
    columns: Mapping[str, str] | str | None = None,
    tokenizer: PathLike | None = None,
    block_tokens: int | None = None,
    strict: bool = False,
    on_progress: OnProgress | None = None,
) -> Trace:
    """Open a trace for reading.

    Parameters
    ----------
    paths : path or paths
        Files of one format, plain, gzip, zstd or in a tar; a directory stands for the trace files
        directly in it.
    format : str, optional
        Name of the format; absent: told by the first records.
    columns : mapping or str, optional
        Of a table: role -> column name, as in "time:ms=When,input=Prompt,output=Answer".
    tokenizer : path, optional
        A tokenizer.json, for traces that hold text; absent: 4 characters are taken for a token.
    block_tokens : int, optional
        Tokens of a block [tokens]; absent: as the trace tells, 64 for text.
    strict : bool
        Whether the first bad line is an error.
    on_progress : callable, optional
        Called with the stored bytes read so far and those of all files [bytes].

    Returns
    -------
    Trace
        Iterated once, it gives batches of requests.

    Raises
    ------
    BadInput
        If a file cannot be read, its format cannot be told, or files differ in format.
    """
    from dpplan.traces.formats import detect, make_reader
    from dpplan.traces.formats.common import Options, Reading

    if block_tokens is not None and block_tokens < 1:
        raise BadInput(Fault("--block-tokens", "at least 1 token is needed", str(block_tokens)))
    if isinstance(block_tokens, bool | float):
        raise BadInput(Fault("--block-tokens", "a whole number is needed", repr(block_tokens)))
    if isinstance(columns, str):
        from dpplan.traces.formats.table import parse_columns

        columns = parse_columns(columns)
    if columns is not None and format is None:
        format = "table"
    options = Options(columns, None if tokenizer is None else os.fspath(tokenizer), block_tokens)
    notes = Notes()
    reading = Reading(options, Faults(strict=strict), notes)
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    found: list[tuple[Path, str, Head]] = []
    for path in map(Path, given):
        files = trace_paths(path)
        for file in files:
            head = _head(file, notes)
            name = head and (format or detect(head))
            if head and name:
                found.append((file, name, head))
            elif files == [path]:
                raise _unusable(file, head)
            elif head:
                notes.add(f"{file} was passed over: its format cannot be told")
            else:
                notes.add("empty files passed over: {}")
    if not found:
        needed = "a trace is needed"
        raise BadInput(Fault(", ".join(map(str, given)), needed, "; ".join(notes.texts)))
    path, name, head = found[0]
    if tokenizer is not None and name != "chat":
        needed, cure = "a trace of text is needed with it", "leave it out"
        raise BadInput(Fault("--tokenizer", needed, f"{path}: {name}", cure))
    for other, its_name, _ in found:
        if its_name != name:
            needed = f"files of one format are needed: {path} is {name}"
            raise BadInput(Fault(str(other), needed, its_name, "read them one by one"))
    if name == "mooncake":
        # Parts of one trace: one clock, and ids that mean the same in all of them.
        found.sort(key=lambda one: _first_time(one[2]))
    reading.where = str(found[0][0])
    reader = make_reader(name, found[0][2], reading)
    return Trace([file for file, _, _ in found], reader, reading, on_progress)


class Trace:
    """A trace that is read once, front to back; made by `open_trace`.

    Iterating gives `Requests` of about a million block references or 65,536 requests at most.
    """

    def __init__(
        self,
        paths: list[Path],
        reader: FormatReader,
        reading: Reading,
        on_progress: OnProgress | None = None,
    ) -> None:
        self._paths = paths
        self._reader = reader
        self._reading = reading
        self._on_progress = on_progress
        self._files: list[TraceFile] = []
        self._started = False
        try:
            self._total_bytes = sum(path.stat().st_size for path in paths)
        except OSError as error:
            raise unreadable(str(paths[0]), error) from None
        self._read_bytes = 0

    @property
    def facts(self) -> TraceFacts:
        """What the trace tells about itself; files, faults and notes are complete at the end."""
        reader = self._reader
        return TraceFacts(
            format=reader.name,
            block_tokens=reader.block_tokens,
            scoped=reader.scoped,
            has_sessions=reader.has_sessions,
            token_source=reader.token_source,
            files=tuple(self._files),
            faults=self._reading.faults.kept,
            notes=self._reading.notes.texts,
        )

    def __iter__(self) -> Iterator[Requests]:
        """Batches of requests.

        Raises
        ------
        BadInput
            If a file breaks off, too many lines are bad, or there are no requests.
        """
        from dpplan.traces.requests import batches, in_time_order

        if self._started:
            raise RuntimeError("a trace is read once: open it again")
        self._started = True
        parts = self._parts()
        if self._reader.in_order:
            return _from_start(in_time_order(parts, self._reading.notes))
        return batches(parts)

    def _parts(self) -> Iterator[Requests]:
        """Requests of one file after another."""
        any_requests = False
        begun_s = ended_s = -math.inf
        for path in self._paths:
            first = True
            for part in filter(len, self._file(path)):
                if first and self._reader.name == "mooncake":
                    _check_clock(path, float(part.time_s[0]), begun_s, ended_s)
                    begun_s = float(part.time_s[0])
                first = False
                ended_s = max(ended_s, float(part.time_s.max()))
                any_requests = True
                yield part
        for part in self._reader.finish():
            any_requests = True
            yield part
        if not any_requests:
            names = ", ".join(map(str, self._paths[:3]))
            raise BadInput(Fault(names, "requests are needed", "no requests"))

    def _file(self, path: Path) -> Iterator[Requests]:
        faults = self._reading.faults
        file = StoredFile(path, self._progress)
        faults.begin(file.name)
        for member, blocks in file.texts():
            where = f"{file.name}/{member}" if member else file.name
            limit = self._reader.limit_bytes
            too_long = partial(
                faults.bad,
                needed=f"a line of at most {limit >> 20} MiB is needed",
                got="a longer one",
                member=member,
            )
            before = faults.lines
            yield from self._reader.read(chunks(blocks, where, too_long, limit), member)
            if faults.lines == before and member:
                self._reading.notes.add("files without requests in archives: {}")
        faults.end()
        self._files.append(
            TraceFile(file.name, file.bytes, file.sha256, faults.lines, faults.bad_lines)
        )

    def _progress(self, count: int) -> None:
        self._read_bytes += count
        if self._on_progress is not None:
            self._on_progress(self._read_bytes, self._total_bytes)


def _head(path: Path, notes: Notes) -> Head | None:
    """The start of the first text in a file that isn't blank; None if there is none."""
    from dpplan.traces.formats.common import Head

    for _, blocks in StoredFile(path, hashed=False).texts():
        lines, rest, marked = head_of(blocks)
        if lines or rest:
            if marked:
                notes.add("files that start with a byte-order mark, which is passed over: {}")
            return Head(lines, rest)
    return None


def _from_start(batches: Iterator[Requests]) -> Iterator[Requests]:
    """Times since the first request, where the clock started long before it, or after it."""
    start_s: float | None = None
    for batch in batches:
        if start_s is None:
            first_s = float(batch.time_s[0])
            start_s = 0.0 if 0 <= first_s <= FAR_S else first_s
        yield replace(batch, time_s=batch.time_s - start_s) if start_s else batch


def _first_time(head: Head) -> float:
    """Time of the first record, for sorting files."""
    time = head.records[0].get("timestamp") if head.records else None
    return float(time) if isinstance(time, int | float) else math.inf


def _check_clock(path: Path, start_s: float, begun_s: float, ended_s: float) -> None:
    """Check that a file goes on where the one before it ended.

    Raises
    ------
    BadInput
        If it overlaps it: then they hardly are parts of one trace, whose ids mean the same.
    """
    if ended_s - start_s > MAX_OVERLAP_FRACTION * (ended_s - begun_s):
        needed = "files that follow one another in time are needed"
        got = f"a start at {start_s:g} s, before the end of the file before it at {ended_s:g} s"
        cure = "read them one by one, or sort the parts of one trace into one file"
        raise BadInput(Fault(str(path), needed, got, cure))


def _unusable(path: Path, head: Head | None) -> BadInput:
    """What to say about a file without requests, or of no known format."""
    from dpplan.traces.formats import FORMATS

    if head is None:
        return BadInput(Fault(str(path), "requests are needed", "an empty file: no requests"))
    start = (head.lines[0] if head.lines else head.rest)[:40]
    got = start.decode("utf-8", errors="replace").strip()
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        got = "UTF-16 text (save it as UTF-8)"
    needed = f"a trace is needed ({', '.join(FORMATS)})"
    cure = "name its format with --format-of, or the columns of a table with --columns"
    return BadInput(Fault(str(path), needed, printable(got), cure))
