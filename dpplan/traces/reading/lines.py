"""Lines out of stored files in bounded memory, with the hash of what was stored."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dpplan.errors import BadInput, Fault
from dpplan.traces.reading.packed import BLOCK_BYTES, Blocks, members, unpack

__all__ = [
    "DOCUMENT_LIMIT_BYTES",
    "LINE_LIMIT_BYTES",
    "Chunk",
    "StoredFile",
    "chunks",
    "head_of",
    "trace_paths",
    "unreadable",
]

LINE_LIMIT_BYTES: Final = 16 << 20
"""A longer line of a file of many lines is a bad line."""
DOCUMENT_LIMIT_BYTES: Final = 64 << 20
"""The same where one document of one conversation is a file."""
# A line that doesn't end is passed over, not kept; one that goes on for this long isn't a line.
ENDLESS_BYTES: Final = 8 << 30
HEAD_BYTES: Final = 1 << 16
UTF8_MARK: Final = b"\xef\xbb\xbf"
WIDE_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")
TRACE_NAME: Final = re.compile(
    r"\.(jsonl?|ndjson|csv|tsv|tar|tgz)(\.(gz|gzip|zst|zstd))?$", re.IGNORECASE
)

OnBytes = Callable[[int], None]


@dataclass(frozen=True)
class Chunk:
    """Whole lines of a file, one after another."""

    first_line: int
    """Number of the first line, from 1."""
    data: bytes
    line_count: int

    def lines(self) -> Iterator[tuple[int, bytes]]:
        r"""Number and text of every line that isn't blank.

        >>> list(Chunk(5, b"a\r\n\nb\rc", 4).lines())
        [(5, b'a'), (7, b'b'), (8, b'c')]
        """
        for number, line in enumerate(self.data.splitlines(), self.first_line):
            if line and not line.isspace():
                yield number, line


class StoredFile:
    """A file while it is read once: its name, size and hash, and the texts in it.

    Parameters
    ----------
    path : Path
        A plain, gzip or zstd file, or a tar of such files.
    on_bytes : callable, optional
        Told the stored bytes of every block read.
    hashed : bool
        Whether the hash is wanted.
    """

    def __init__(self, path: Path, on_bytes: OnBytes | None = None, *, hashed: bool = True) -> None:
        self.name = str(path)
        self.path = path
        self.bytes = 0
        self._on_bytes = on_bytes
        self._hash = hashlib.sha256() if hashed else None

    @property
    def sha256(self) -> str:
        """Of the stored bytes, as far as they were read."""
        return self._hash.hexdigest() if self._hash else ""

    def texts(self) -> Iterator[tuple[str, Blocks]]:
        """Name within the file and unpacked bytes of each text in it; "" is the file itself.

        Raises
        ------
        BadInput
            If the file cannot be read, breaks off or is damaged.
        """
        stored = self._stored()
        try:
            for member, blocks in members(unpack(stored, self.name), self.name):
                where = f"{self.name}/{member}" if member else self.name
                # Within a tar each file may be packed once more.
                yield member, unpack(blocks, where) if member else blocks
            for _ in stored:  # behind a tar's end: for the hash
                pass
        finally:
            stored.close()

    def _stored(self) -> Generator[bytes, None, None]:
        try:
            # Opened without blocking and looked at before reading: a pipe or a device in the place
            # of a trace must not hang the reader.
            descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
            with (
                os.fdopen(descriptor, "rb", buffering=0) as stream,
                ThreadPoolExecutor(1) as worker,
            ):
                if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                    raise BadInput(Fault(self.name, "a regular file is needed", "something else"))
                hashing: Future[None] | None = None
                while block := stream.read(BLOCK_BYTES):
                    if self._hash is not None:
                        # Beside the parsing: the hash lets other threads run.
                        if hashing is not None:
                            hashing.result()
                        hashing = worker.submit(self._hash.update, block)
                    self.bytes += len(block)
                    if self._on_bytes is not None:
                        self._on_bytes(len(block))
                    yield block
        except OSError as error:
            raise unreadable(self.name, error) from None


def chunks(
    blocks: Blocks, where: str, on_long: Callable[[int], None], limit_bytes: int = LINE_LIMIT_BYTES
) -> Iterator[Chunk]:
    r"""Whole lines, about a block at a time; LF, CR LF and CR all end a line.

    Parameters
    ----------
    blocks : iterator of bytes
        Unpacked bytes; a UTF-8 byte-order mark at the start is passed over.
    where : str
        Name of the file in messages.
    on_long : callable
        Told the number of every line that is longer than the limit by more than a block; it is
        passed over unkept.
    limit_bytes : int
        Longest line [bytes].

    Raises
    ------
    BadInput
        If a line doesn't end at all.

    Examples
    --------
    >>> for chunk in chunks(iter([b"one\r", b"\ntw", b"o\nthree"]), "t", print):
    ...     print(chunk.first_line, chunk.data)
    1 b'one\r\n'
    2 b'two\n'
    3 b'three'
    """
    number = 1
    rest = b""  # a line whose end isn't there yet
    passed_bytes = 0  # of a line that is too long
    is_start = True
    for block in blocks:
        data = rest + block
        if is_start:
            if len(data) < len(UTF8_MARK):
                rest = data
                continue
            data, is_start = data.removeprefix(UTF8_MARK), False
        # A CR at the very end may be half of an end: it waits for the next block.
        if passed_bytes:
            ends = [at for at in (data.find(b"\n"), data.find(b"\r", 0, -1)) if at >= 0]
            if not ends:
                passed_bytes += len(block)
                if passed_bytes > ENDLESS_BYTES:
                    got = f"one of more than {passed_bytes >> 30} GiB"
                    raise BadInput(Fault(f"{where}:{number}", "a line with an end is needed", got))
                rest = b"\r" if data.endswith(b"\r") else b""
                continue
            on_long(number)
            number, passed_bytes = number + 1, 0
            data = data[min(ends) :].removeprefix(b"\r").removeprefix(b"\n")
        cut = max(data.rfind(b"\n"), data.rfind(b"\r", 0, -1)) + 1
        if cut:
            whole = data[:cut]
            count = whole.count(b"\n") if b"\r" not in whole else len(whole.splitlines())
            yield Chunk(number, whole, count)
            number += count
        rest = data[cut:]
        if len(rest) > limit_bytes:
            passed_bytes, rest = len(rest), b"\r" if rest.endswith(b"\r") else b""
    if passed_bytes:
        on_long(number)
    elif rest := rest.removeprefix(UTF8_MARK if is_start else b""):
        yield Chunk(number, rest, 1)


def head_of(blocks: Blocks) -> tuple[list[bytes], bytes, bool]:
    """The start of a text, for telling its format.

    Returns
    -------
    (list of bytes, bytes, bool)
        Its whole lines that aren't blank; the start of a line that doesn't end within the head;
        whether a byte-order mark stands before them.
    """
    head = bytearray()
    for block in blocks:
        head += block
        if len(head) > HEAD_BYTES:
            break
    ended = len(head) <= HEAD_BYTES
    text = bytes(head[:HEAD_BYTES])
    lines = text.removeprefix(UTF8_MARK).splitlines(keepends=True)
    rest = b"" if ended or not lines or lines[-1].endswith((b"\n", b"\r")) else lines.pop()
    stripped = [line for line in map(bytes.strip, lines) if line]
    return stripped, rest, text.startswith(UTF8_MARK)


def trace_paths(path: Path) -> list[Path]:
    """A file itself; of a directory, the files in it that are named like traces, sorted.

    Raises
    ------
    BadInput
        If there is no such file, or no trace in the directory.
    """
    try:
        if not stat.S_ISDIR(os.stat(path).st_mode):
            return [path]
        names = sorted(os.listdir(path))
    except (OSError, ValueError) as error:
        raise unreadable(str(path), error) from None
    found = [
        path / name
        for name in names
        if TRACE_NAME.search(name) and not name.startswith(".") and (path / name).is_file()
    ]
    if not found:
        got = f"a directory with none among its {len(names)} entries"
        cure = "give files: .jsonl, .json, .csv or .tar, plain, .gz or .zst"
        raise BadInput(Fault(str(path), "trace files are needed", got, cure))
    return found


def unreadable(where: str, error: OSError | ValueError) -> BadInput:
    """What to say about a file that cannot be read."""
    reason = str(getattr(error, "strerror", None) or error).lower()
    cure = "check the path and its permissions"
    return BadInput(Fault(where, "a readable file is needed", reason, cure))
