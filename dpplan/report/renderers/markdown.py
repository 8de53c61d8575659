"""A report as GitHub Markdown, to paste into a pull request."""

from __future__ import annotations

import re

from dpplan.report.document import Bar, Block, Cell, Document, Items, Paragraph, Table
from dpplan.report.words import plain

__all__ = ["escape", "render_markdown"]

_SPECIAL = re.compile(r"([\\`*\[\]|~<])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_LEADING = re.compile(r"^(?:[#+>=-](?=\s|[#=-])|\d+(?=[.)]\s))")


def render_markdown(document: Document) -> str:
    """The report as Markdown; text of profiles cannot break out of its cell or line."""
    parts = [f"**{escape(document.headline)}**"]
    for section in document.sections:
        if section.title:
            parts.append(f"#### {escape(section.title)}")
        parts += [_block(block) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    r"""Text as itself, whatever Markdown would make of its characters.

    >>> escape("a|b 2*x")
    'a\\|b 2\\*x'
    """
    flat = " ".join(plain(text).split())
    marked = _SPECIAL.sub(lambda match: "\\" + match[0], flat.replace("&", "&amp;"))
    return marked.replace("@", "&#64;")  # an @name would notify somebody


def _paragraph(text: str) -> str:
    """Escaped text that opens a line: no heading, list or quotation either."""
    return _LEADING.sub(_shielded, escape(text))


def _shielded(match: re.Match[str]) -> str:
    return f"{match[0]}&#8203;" if match[0].isdigit() else f"\\{match[0]}"


def _block(block: Block) -> str:
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Items):
        marks = (f"{n}." if block.is_numbered else "-" for n in range(1, len(block.items) + 1))
        return "\n".join(
            f"{mark} {_paragraph(item)}" for mark, item in zip(marks, block.items, strict=True)
        )
    assert isinstance(block, Paragraph)
    if block.is_strong:
        return f"**{escape(block.text)}**"
    return f"<sub>{escape(block.text)}</sub>" if block.is_note else _paragraph(block.text)


def _table(table: Table) -> str:
    lines = [
        _line([escape(column.title) for column in table.columns]),
        _line(["---:" if column.align == "right" else ":---" for column in table.columns]),
    ]
    for index, row in enumerate(table.rows):
        cells = [escape(_text(cell)) for cell in row]
        lines.append(_line([f"**{c}**" if c and index in table.strong else c for c in cells]))
    return "\n".join(lines)


def _text(cell: Cell) -> str:
    return cell.text if isinstance(cell, Bar) else cell


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
