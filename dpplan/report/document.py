"""What a report is made of, whatever it is shown on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Bar", "Block", "Cell", "Column", "Document", "Items", "Paragraph", "Section", "Table"]


@dataclass(frozen=True)
class Bar:
    """A share in [0, 1], drawn where there is room; `text` says it everywhere."""

    fraction: float
    text: str
    is_full: bool = False


Cell = str | Bar


@dataclass(frozen=True)
class Column:
    """A column's title and manners."""

    title: str
    align: Literal["left", "right"] = "left"
    may_wrap: bool = False
    """Long text, folded where the table is too wide."""


@dataclass(frozen=True)
class Table:
    """Rows of cells; strong rows are the ones to look at."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    strong: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: str
    is_note: bool = False
    is_strong: bool = False
    indent: int = 0


@dataclass(frozen=True)
class Items:
    """A list, numbered or not."""

    items: tuple[str, ...]
    is_numbered: bool = False


Block = Table | Paragraph | Items


@dataclass(frozen=True)
class Section:
    """A titled part."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """A report: the one sentence that matters, then the parts."""

    headline: str
    sections: tuple[Section, ...]
