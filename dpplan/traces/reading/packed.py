"""Bytes out of gzip, zstd and tar, block by block: bounded memory whatever the file holds."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import chain
from typing import Final

from dpplan.errors import BadInput, Fault

__all__ = ["BLOCK_BYTES", "Blocks", "members", "unpack"]

Blocks = Iterator[bytes]

BLOCK_BYTES: Final = 1 << 20
GZIP_MAGIC: Final = b"\x1f\x8b"
ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
# Real traces pack to a seventieth at most; a bomb of gzip to a thousandth, one of zstd to far less.
MAX_RATIO: Final = 500
RATIO_FROM_BYTES: Final = 64 << 20
# A block of zstd (128 KiB of text) may lie in 4 bytes: what goes in at once bounds what comes out.
ZSTD_SLICE_BYTES: Final = 1 << 10
ZSTD_WINDOW_BYTES: Final = 1 << 27
TAR_BLOCK: Final = 512
MAX_TAR_NOTE_BYTES: Final = 1 << 20


def unpack(blocks: Blocks, where: str) -> Blocks:
    """Plain bytes of gzip, zstd or plain blocks, told apart by their first bytes.

    Parameters
    ----------
    blocks : iterator of bytes
        Stored bytes.
    where : str
        Name of the file in messages.

    Raises
    ------
    BadInput
        If the file breaks off, is damaged, or expands without measure.

    Examples
    --------
    >>> import gzip
    >>> b"".join(unpack(iter([gzip.compress(b"one "), gzip.compress(b"two")]), "t.gz"))
    b'one two'
    >>> b"".join(unpack(iter([b"as it is"]), "t"))
    b'as it is'
    """
    first, blocks = _peek(blocks, len(ZSTD_MAGIC))
    if first.startswith(GZIP_MAGIC):
        return _gunzip(blocks, where)
    if first.startswith(ZSTD_MAGIC):
        return _unzstd(blocks, where)
    return blocks


def members(blocks: Blocks, where: str) -> Iterator[tuple[str, Blocks]]:
    """Name and bytes of each file of a tar archive; of anything else, itself under no name.

    Each file must be read, or left, before the next is asked for. Nothing is written to disk.
    """
    first, blocks = _peek(blocks, TAR_BLOCK)
    if first[257:262] != b"ustar":
        yield "", blocks
        return
    reader = _Exact(blocks, where)
    note_name, note_size = "", None
    while (header := reader.take(TAR_BLOCK, at_end=True)).strip(b"\0"):
        kind = header[156:157]
        size = _tar_number(header[124:136], where) if note_size is None else note_size
        if kind in b"xLgK":
            if size > MAX_TAR_NOTE_BYTES:
                raise _damaged(where, "tar", f"a header of {size} bytes")
            note = reader.take(size)
            reader.skip(-size % TAR_BLOCK)
            if kind == b"x":
                note_name, note_size = _pax(note, note_name)
            elif kind == b"L":
                note_name = note.rstrip(b"\0").decode(errors="replace")
            continue
        prefix, name = _tar_text(header[345:500]), _tar_text(header[:100])
        name = note_name or (f"{prefix}/{name}" if prefix else name)
        note_name, note_size = "", None
        if kind in b"0\0" and not name.endswith("/"):
            body = reader.upto(size)
            yield name, body
            for _ in body:  # what the caller left
                pass
            reader.skip(-size % TAR_BLOCK)
        else:
            reader.skip(size + -size % TAR_BLOCK)


def _peek(blocks: Blocks, size: int) -> tuple[bytes, Blocks]:
    """At least the first `size` bytes, if there are as many, and all blocks again."""
    first = b""
    for block in blocks:
        first += block
        if len(first) >= size:
            break
    return first, chain((first,), blocks) if first else iter(())


def _gunzip(blocks: Blocks, where: str) -> Blocks:
    stored = made = 0
    stream = None
    for block in blocks:
        stored += len(block)
        while block:
            if stream is None:
                block = block.lstrip(b"\0")  # padding of tapes, between and after members
                if not block:
                    break
                stream = zlib.decompressobj(wbits=31)
            try:
                data = stream.decompress(block, BLOCK_BYTES)
                block = stream.unconsumed_tail
                while data:
                    made += len(data)
                    _check_ratio(made, stored - len(block), where)
                    yield data
                    if len(data) < BLOCK_BYTES and not block:
                        break
                    data = stream.decompress(block, BLOCK_BYTES)
                    block = stream.unconsumed_tail
            except zlib.error as error:
                raise _damaged(where, "gzip", str(error)) from None
            if stream.eof:
                block, stream = stream.unused_data, None
    if stream is not None:
        raise _broken_off(where, "gzip", made)


def _unzstd(blocks: Blocks, where: str) -> Blocks:
    import zstandard

    unzstd = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)
    stored = made = 0
    stream = None
    for block in blocks:
        for start in range(0, len(block), ZSTD_SLICE_BYTES):
            piece = block[start : start + ZSTD_SLICE_BYTES]
            stored += len(piece)
            while piece:
                stream = unzstd.decompressobj() if stream is None else stream
                try:
                    data = stream.decompress(piece)
                except zstandard.ZstdError as error:
                    raise _damaged(where, "zstd", str(error)) from None
                made += len(data)
                _check_ratio(made, stored, where)
                for cut in range(0, len(data), BLOCK_BYTES):
                    yield data[cut : cut + BLOCK_BYTES]
                piece = b""
                if stream.eof:
                    piece, stream = stream.unused_data, None
    if stream is not None:
        raise _broken_off(where, "zstd", made)


def _check_ratio(made: int, stored: int, where: str) -> None:
    if made > RATIO_FROM_BYTES and made > MAX_RATIO * stored:
        needed = f"a file that unpacks to at most {MAX_RATIO} times its size is needed"
        got = f"{made >> 20} MiB out of the first {stored} bytes"
        raise BadInput(Fault(where, needed, got, "if you trust it, unpack it first"))


def _broken_off(where: str, kind: str, made: int) -> BadInput:
    got = f"one that breaks off after {made} unpacked bytes"
    return BadInput(Fault(where, f"a whole {kind} file is needed", got, "fetch it again"))


def _damaged(where: str, kind: str, what: str) -> BadInput:
    return BadInput(Fault(where, f"an undamaged {kind} file is needed", what, "fetch it again"))


class _Exact:
    """Takes exact numbers of bytes out of blocks of any size."""

    def __init__(self, blocks: Blocks, where: str) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")
        self._where = where

    def _some(self, limit: int) -> memoryview:
        if not self._rest:
            self._rest = memoryview(next(self._blocks, b""))
        some, self._rest = self._rest[:limit], self._rest[limit:]
        return some

    def upto(self, size: int) -> Blocks:
        """The next `size` bytes in blocks."""
        left = size
        while left:
            some = self._some(left)
            if not some:
                got = f"one that breaks off {left} bytes before the end of a file in it"
                raise BadInput(
                    Fault(self._where, "a whole tar file is needed", got, "fetch it again")
                )
            left -= len(some)
            yield bytes(some)

    def take(self, size: int, *, at_end: bool = False) -> bytes:
        """The next `size` bytes in one; none at the end of the archive, if `at_end`."""
        if at_end:
            first = bytes(self._some(1))
            return first and first + b"".join(self.upto(size - 1))
        return b"".join(self.upto(size))

    def skip(self, size: int) -> None:
        """Pass over the next `size` bytes."""
        for _ in self.upto(size):
            pass


def _tar_text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode(errors="replace")


def _tar_number(field: bytes, where: str) -> int:
    """Octal digits, or base 256 behind a set high bit."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        raise _damaged(where, "tar", f"a size of {field!r}") from None


def _pax(note: bytes, name: str) -> tuple[str, int | None]:
    """Path and size out of an extended header's lines `length key=value`."""
    size = None
    for line in note.split(b"\n"):
        key, _, value = line.partition(b" ")[2].partition(b"=")
        if key == b"path":
            name = value.decode(errors="replace")
        elif key == b"size" and value.isdigit() and len(value) < 20:
            size = int(value)
    return name, size
