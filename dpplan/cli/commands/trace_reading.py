"""What the options say about reading a trace, and reading it with a progress bar."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dpplan.cli.arguments import check_choice
from dpplan.errors import BadInput, Fault

if TYPE_CHECKING:
    from rich.progress import Progress

    from dpplan.traces.reading.reader import Trace

__all__ = ["FORMATS_OF", "Source", "memory_bytes", "opened", "progress", "times_s", "whole_blocks"]

FORMATS_OF: Final = ("mooncake", "aiperf", "weka", "azure", "chat", "table")
_LONG_BYTES: Final = 4_000_000
"""Shorter files are read before a bar could be looked at."""
_MOST_BLOCKS: Final = 10**15
_MINUTES: Final = re.compile(r"([0-9.]+)\s*m", re.ASCII)


@dataclass(frozen=True)
class Source:
    """The files of a trace and how they are to be read."""

    paths: tuple[str, ...]
    format_of: str | None = None
    columns: str | None = None
    tokenizer: str | None = None
    block_tokens: int | None = None
    strict: bool = False

    def faults(self) -> list[Fault]:
        """What is wrong with the options themselves."""
        found = []
        if self.format_of is not None:
            found += check_choice("--format-of", self.format_of, FORMATS_OF)
        for path in self.paths:
            if not path or "\0" in path:
                found.append(Fault("FILE", "the path of a trace is needed", repr(path[:60])))
        if self.block_tokens is not None and not 1 <= self.block_tokens <= 1_000_000:
            needed = "a number of tokens from 1 to 1,000,000 is needed"
            found.append(Fault("--block-tokens", needed, str(self.block_tokens)))
        return found

    @property
    def name(self) -> str:
        """The files as a person says them."""
        more = len(self.paths) - 1
        first = Path(self.paths[0]).name or self.paths[0]
        return first if not more else f"{first} and {more} more file{'s' if more > 1 else ''}"


@contextmanager
def opened(source: Source) -> Iterator[Trace]:
    """An open trace; while it is read, a bar on stderr where that is a terminal.

    Raises
    ------
    BadInput
        If options or files are wrong.
    """
    if faults := source.faults():
        raise BadInput(faults)
    from dpplan.traces.reading.reader import open_trace

    with progress() as advance:
        yield open_trace(
            source.paths,
            format=source.format_of,
            columns=source.columns,
            tokenizer=source.tokenizer,
            block_tokens=source.block_tokens,
            strict=source.strict,
            on_progress=advance,
        )


@contextmanager
def progress() -> Iterator[Callable[[int, int], None] | None]:
    """A bar of the bytes read out of all; None where nobody would see it."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    bar: Progress | None = None

    def advance(read: int, total: int) -> None:
        nonlocal bar
        if total < _LONG_BYTES:
            return
        if bar is None:
            bar = _bar(total)
            bar.start()
        bar.update(bar.task_ids[0], completed=read)

    try:
        yield advance
    finally:
        if bar is not None:
            bar.stop()


def _bar(total_bytes: int) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    columns = ("reading", BarColumn(), DownloadColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    bar.add_task("reading", total=total_bytes)
    return bar


def times_s(option: str, texts: tuple[str, ...], faults: list[Fault]) -> tuple[float, ...]:
    """Times such as "10m", "90 s" or "1h" in seconds.

    >>> times_s("--ttl", ("10m", "90 s"), [])
    (600.0, 90.0)
    """
    from dpplan.units import parse_quantity

    found = []
    for text in texts:
        minutes = _MINUTES.fullmatch(text.strip())
        try:
            seconds = parse_quantity(f"{minutes[1]} min" if minutes else text, "s")
        except ValueError as error:
            faults.append(Fault(option, str(error), repr(text[:40])))
            continue
        if not 0 < seconds <= 1e9:
            faults.append(Fault(option, "a time above zero is needed", repr(text[:40])))
        else:
            found.append(seconds)
    return tuple(dict.fromkeys(found))


def whole_blocks(option: str, counts: tuple[int, ...], faults: list[Fault]) -> tuple[int, ...]:
    """Sizes of caches, each once, in the order given."""
    for count in counts:
        if not 0 <= count <= _MOST_BLOCKS:
            faults.append(Fault(option, "a number of blocks from 0 to 1e15 is needed", str(count)))
    return tuple(dict.fromkeys(counts))


def memory_bytes(text: str | None, faults: list[Fault]) -> float | None:
    """`--memory` in bytes."""
    from dpplan.units import parse_quantity

    if text is None:
        return None
    try:
        return parse_quantity(text, "bytes")
    except ValueError as error:
        faults.append(Fault("--memory", str(error), repr(text[:40])))
        return None
