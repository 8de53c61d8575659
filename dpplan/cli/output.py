"""Writing to stdout and stderr, whatever they are connected to."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dpplan.errors import Fault

if TYPE_CHECKING:
    from dpplan.report.document import Document
    from dpplan.report.renderers.terminal import Screen

__all__ = [
    "CannotWrite",
    "discard",
    "document",
    "flush",
    "json_document",
    "message",
    "quick_start",
    "screen",
    "text",
]

DEFAULT_WIDTH = 100
"""Columns of a terminal that doesn't tell, and the most that reports use."""


class CannotWrite(Exception):
    """stdout is closed or its disk is full."""


@contextmanager
def quick_start() -> Iterator[None]:
    """Around what loads modules or makes one plan: no garbage, so none is looked for."""
    import gc

    # pydantic would read the metadata of every installed package in search of plug-ins.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def text(content: str) -> None:
    """Write to stdout; characters its encoding lacks become question marks."""
    stream = sys.stdout
    if stream is None:
        raise CannotWrite(_refusal("a closed one"))
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        stream.write(content.encode(encoding, "replace").decode(encoding))
    except OSError as error:
        raise _write_error(error) from None
    except ValueError:  # written to after it was closed
        raise CannotWrite(_refusal("a closed one")) from None


def json_document(value: Any) -> None:
    """Write the one JSON document of a run; NaN and Infinity are a bug, never written."""
    import json

    text(json.dumps(value, indent=2, allow_nan=False) + "\n")


def document(content: Document) -> None:
    """Write a report for people, as the terminal can show it."""
    from dpplan.report.renderers.terminal import render

    text(render(content, screen()))


def message(content: str) -> None:
    """Write a message to stderr, each line of it after the program's name."""
    from dpplan.report.words import plain

    stream = sys.stderr
    if stream is None:
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    lines = "".join(f"dpplan: {plain(line)}\n" for line in content.splitlines() if line.strip())
    try:
        stream.write(lines.encode(encoding, "replace").decode(encoding))
        stream.flush()
    except (OSError, ValueError):
        return  # nobody listens: the exit code still tells


def flush() -> None:
    """Hand everything to the system while an error can still be told."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError as error:
        raise _write_error(error) from None


def discard() -> None:
    """Point stdout at nothing, so that the interpreter's last flush cannot fail."""
    try:
        if sys.stdout is not None:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)
    except (OSError, ValueError):
        return


def screen() -> Screen:
    """What stdout can show: width, colour, block characters."""
    from dpplan.report.renderers.terminal import Screen

    stream = sys.stdout
    is_terminal = stream is not None and stream.isatty()
    wanted = os.environ.get("FORCE_COLOR", "") not in ("", "0")
    is_dumb = os.environ.get("TERM", "") == "dumb"
    colour = not os.environ.get("NO_COLOR") and (wanted or (is_terminal and not is_dumb))
    return Screen(width=_width(is_terminal), colour=colour, blocks=_can_encode("█▌─"))


def _width(is_terminal: bool) -> int:
    given = os.environ.get("COLUMNS", "")
    columns = int(given) if given.isascii() and given.isdigit() and len(given) < 6 else 0
    if not columns and is_terminal:
        try:
            columns = os.get_terminal_size(sys.stdout.fileno()).columns
        except (OSError, ValueError):
            columns = 0
    return max(20, min(columns or DEFAULT_WIDTH, DEFAULT_WIDTH))


def _can_encode(characters: str) -> bool:
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    try:
        characters.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _write_error(error: OSError) -> Exception:
    if error.errno in (errno.EPIPE, errno.ESHUTDOWN) or isinstance(error, BrokenPipeError):
        return BrokenPipeError()
    return CannotWrite(_refusal((error.strerror or type(error).__name__).lower()))


def _refusal(got: str) -> str:
    return str(Fault("stdout", "a writable output is needed", got, "check where it goes"))
