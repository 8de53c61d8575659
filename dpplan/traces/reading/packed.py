"""Bytes out of gzip, zstd and tar, block by block: bounded memory whatever the file holds."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, Final

from dpplan.errors import BadInput, Fault

__all__ = ["BLOCK_BYTES", "Blocks", "members", "unpack"]

Blocks = Iterator[bytes]

BLOCK_BYTES: Final = 1 << 20
GZIP_MAGIC: Final = b"\x1f\x8b"
ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
# Real traces pack to a seventieth at most; a bomb of gzip to a thousandth, one of zstd to far less.
MAX_RATIO: Final = 500
RATIO_FROM_BYTES: Final = 64 << 20
# A block of zstd (128 KiB of text) may lie in 4 bytes, and gzip packs to a thousandth: what goes in
# at once bounds what comes out.
SLICE_BYTES: Final = 1 << 10
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
        # 31: with gzip's header and check sum.
        return _inflated(blocks, where, "gzip", lambda: zlib.decompressobj(wbits=31), zlib.error)
    if first.startswith(ZSTD_MAGIC):
        import zstandard

        unzstd = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)
        return _inflated(blocks, where, "zstd", unzstd.decompressobj, zstandard.ZstdError)
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
            if kind == b"x":
                note_name, note_size = _pax(note, note_name)
            elif kind == b"L":
                note_name = note.rstrip(b"\0").decode(errors="replace")
        else:
            prefix, name = _tar_text(header[345:500]), _tar_text(header[:100])
            name = note_name or (f"{prefix}/{name}" if prefix else name)
            note_name, note_size = "", None
            body = reader.upto(size)
            if kind in b"0\0" and not name.endswith("/"):
                yield name, body
            for _ in body:  # no file, or what the caller left
                pass
        reader.take(-size % TAR_BLOCK)


def _peek(blocks: Blocks, size: int) -> tuple[bytes, Blocks]:
    """At least the first `size` bytes, if there are as many, and all blocks again."""
    first = b""
    for block in blocks:
        first += block
        if len(first) >= size:
            break
    return first, chain((first,), blocks) if first else iter(())


def _inflated(
    blocks: Blocks, where: str, kind: str, make: Callable[[], Any], refusal: type[Exception]
) -> Blocks:
    """Unpacked blocks of a stream of one frame after another, each undone by one `make`."""
    stored = made = 0
    parts: list[bytes] = []
    frame = None
    slices = (
        block[at : at + SLICE_BYTES] for block in blocks for at in range(0, len(block), SLICE_BYTES)
    )
    for piece in slices:
        stored += len(piece)
        while piece:
            if frame is None and kind == "gzip":
                piece = piece.lstrip(b"\0")  # padding of tapes, between and after members
                if not piece:
                    break
            frame = frame or make()
            try:
                parts.append(frame.decompress(piece))
            except refusal as error:
                raise _damaged(where, kind, str(error)) from None
            made += len(parts[-1])
            _check_ratio(made, stored, where)
            piece = b""
            if frame.eof:
                piece, frame = frame.unused_data, None
        if sum(map(len, parts)) >= BLOCK_BYTES:
            data, parts = b"".join(parts), []
            for at in range(0, len(data), BLOCK_BYTES):
                yield data[at : at + BLOCK_BYTES]
    if rest := b"".join(parts):
        yield rest
    if frame is not None:
        got = f"one that breaks off after {made} unpacked bytes"
        raise BadInput(Fault(where, f"a whole {kind} file is needed", got, "fetch it again"))


def _check_ratio(made: int, stored: int, where: str) -> None:
    if made > RATIO_FROM_BYTES and made > MAX_RATIO * stored:
        needed = f"a file that unpacks to at most {MAX_RATIO} times its size is needed"
        got = f"{made >> 20} MiB out of the first {stored} bytes"
        raise BadInput(Fault(where, needed, got, "if you trust it, unpack it first"))


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

    def upto(self, size: int, *, at_end: bool = False) -> Blocks:
        """The next `size` bytes in blocks; none at the end of the archive, if `at_end`."""
        left = size
        while left:
            some = self._some(left)
            if not some:
                if at_end and left == size:
                    return
                got = f"one that breaks off {left} bytes before the end of a file in it"
                raise BadInput(
                    Fault(self._where, "a whole tar file is needed", got, "fetch it again")
                )
            left -= len(some)
            yield bytes(some)

    def take(self, size: int, *, at_end: bool = False) -> bytes:
        """The same in one."""
        return b"".join(self.upto(size, at_end=at_end))


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
