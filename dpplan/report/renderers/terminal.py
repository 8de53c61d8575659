"""A report on a terminal: plain text in columns, a little colour where there is some.

Written without rich: loading it takes longer than the plan, and a report must read well as bare
text anyway.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from dpplan.report.document import (
    Bar,
    Block,
    Cell,
    Column,
    Document,
    Items,
    Paragraph,
    Section,
    Table,
)
from dpplan.report.words import plain

__all__ = ["Screen", "fold", "render", "width_of"]

_GAP = 2
_LEAST_WRAPPED = 12
_BAR_CELLS = 12
_BREAKS = re.compile(r" +(?!%|(?:turns|[kMGTP]?(?:B|tok|FLOP))(?:/s)?\b)")
"""Where a line may end: not between a number and its unit."""
_EIGHTHS = " ▏▎▍▌▋▊▉█"


@dataclass(frozen=True)
class Screen:
    """What the output can show."""

    width: int = 100
    colour: bool = False
    blocks: bool = True
    """Unicode block characters; ASCII otherwise."""


def render(document: Document, screen: Screen) -> str:
    """The report as text, no line wider than the screen, colour codes only where it has colour."""
    parts = [_emphasised(fold(plain(document.headline), screen.width), "1", screen)]
    parts += [_section(section, screen) for section in document.sections]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _section(section: Section, screen: Screen) -> list[str]:
    lines: list[str] = []
    blocks = list(section.blocks)
    # A table that opens a section has the title in its first column's head.
    if blocks and isinstance(blocks[0], Table) and not blocks[0].columns[0].title:
        table = blocks.pop(0)
        assert isinstance(table, Table)
        head = Column(section.title.upper(), table.columns[0].align, table.columns[0].may_wrap)
        lines += _table(Table((head, *table.columns[1:]), table.rows, table.strong), screen)
    elif section.title:
        lines += _emphasised(fold(plain(section.title).upper(), screen.width), "1", screen)
    for block in blocks:
        lines += _block(block, screen)
    return lines


def _block(block: Block, screen: Screen) -> list[str]:
    if isinstance(block, Table):
        return _table(block, screen)
    if isinstance(block, Items):
        return _items(block, screen)
    assert isinstance(block, Paragraph)
    room = max(8, screen.width - block.indent)
    lines = [" " * block.indent + line for line in fold(plain(block.text), room)]
    if block.is_strong:
        return _emphasised(lines, "1", screen)
    return _emphasised(lines, "2", screen) if block.is_note else lines


def _items(block: Items, screen: Screen) -> list[str]:
    lines = []
    indent = len(str(len(block.items))) + 2 if block.is_numbered else 2
    for index, item in enumerate(block.items, 1):
        mark = f"{index}. ".rjust(indent + 1) if block.is_numbered else "- "
        folded = fold(plain(item), max(8, screen.width - len(mark)))
        lines += [f"{mark}{folded[0]}", *(f"{' ' * len(mark)}{line}" for line in folded[1:])]
    return lines


def _emphasised(lines: list[str], code: str, screen: Screen) -> list[str]:
    return [f"\x1b[{code}m{line}\x1b[0m" for line in lines] if screen.colour else lines


def width_of(text: str) -> int:
    """Columns a text takes: wide characters two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def fold(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns, broken at spaces where there are any.

    >>> fold("one two three", 8)
    ['one two', 'three']
    """
    if width_of(text) <= width:
        return [text]
    lines: list[str] = []
    line = ""
    for word in _BREAKS.split(text):
        joined = f"{line} {word}" if line else word
        if width_of(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        while width_of(word) > width:
            cut = next(
                n
                for n in range(min(len(word), width), 0, -1)
                if width_of(word[:n]) <= width or n == 1
            )
            lines.append(word[:cut])
            word = word[cut:]
        line = word
    return [*lines, line] if line or not lines else lines


def _table(table: Table, screen: Screen) -> list[str]:
    rows = [[_flat(cell) for cell in row] for row in table.rows]
    has_bar = [
        any(isinstance(row[i], Bar) for row in table.rows) for i in range(len(table.columns))
    ]
    titles = [plain(column.title) for column in table.columns]
    columns = range(len(titles))
    cells = [max([width_of(_text(row[i])) for row in rows], default=0) for i in columns]
    natural = [max(width_of(titles[i]), cells[i]) for i in columns]
    gaps = _GAP * (len(natural) - 1)
    bars = 0
    for wanted in range(_BAR_CELLS, 3, -1) if any(has_bar) else ():
        drawn = [
            max(natural[i], cells[i] + 1 + wanted) if has_bar[i] else natural[i] for i in columns
        ]
        if sum(drawn) + gaps <= screen.width:
            bars, natural = wanted, drawn
            break
    widths = list(natural)
    over = sum(widths) + gaps - screen.width
    for i in sorted(range(len(widths)), key=lambda i: -widths[i]):
        if over > 0 and table.columns[i].may_wrap:
            shrunk = max(_LEAST_WRAPPED, widths[i] - over)
            over -= max(0, widths[i] - shrunk)
            widths[i] = min(widths[i], shrunk)
    if over > 0:
        return _records(table, screen)
    lines = []
    if any(titles):
        lines += _emphasised(_row(list(titles), table, widths, 0, screen), "1", screen)
    for index, row in enumerate(rows):
        body = _row(row, table, widths, bars, screen)
        lines += _emphasised(body, "1", screen) if index in table.strong else body
    return lines


def _flat(cell: Cell) -> Cell:
    return cell if isinstance(cell, Bar) else plain(cell)


def _text(cell: Cell) -> str:
    return cell.text if isinstance(cell, Bar) else cell


def _row(row: list[Cell], table: Table, widths: list[int], bars: int, screen: Screen) -> list[str]:
    cells = []
    for cell, column, width in zip(row, table.columns, widths, strict=True):
        if isinstance(cell, Bar) and bars:
            drawn = draw_bar(cell.fraction, bars, screen.blocks)
            shown = f"{drawn} {cell.text:>{width - bars - 1}}"
            cells.append([shown])
        else:
            folded = fold(_text(cell), width)
            pad = str.rjust if column.align == "right" else str.ljust
            # Padding counts columns, not characters.
            cells.append([pad(line, width - width_of(line) + len(line)) for line in folded])
    height = max(len(cell) for cell in cells)
    return [
        (" " * _GAP)
        .join(
            cell[n] if n < len(cell) else " " * width
            for cell, width in zip(cells, widths, strict=True)
        )
        .rstrip()
        for n in range(height)
    ]


def draw_bar(fraction: float, cells: int, blocks: bool) -> str:
    """A bar of a share, in eighths of a cell or in ASCII.

    >>> draw_bar(0.5, 4, False)
    '##..'
    """
    share = min(max(fraction, 0.0), 1.0)
    if not blocks:
        filled = round(share * cells)
        return "#" * filled + "." * (cells - filled)
    eighths = round(share * cells * 8)
    if share > 0 and eighths == 0:
        eighths = 1
    whole, part = divmod(eighths, 8)
    drawn = "█" * whole + (_EIGHTHS[part] if part else "")
    return drawn + "·" * (cells - len(drawn))


def _records(table: Table, screen: Screen) -> list[str]:
    """A table too wide for the screen: one cell a line."""
    lines: list[str] = []
    title = plain(table.columns[0].title)
    if title:
        lines += _emphasised(fold(title, screen.width), "1", screen)
    for row in table.rows:
        lines += fold(plain(_text(row[0])).strip(), screen.width)
        for cell, column in zip(row[1:], table.columns[1:], strict=True):
            text = plain(_text(cell)).strip()
            said = f"{plain(column.title)}: {text}" if column.title.strip() and text else text
            if not said:
                continue
            lines += [f"  {line}" for line in fold(said, max(8, screen.width - 2))]
    return lines
