"""Every term of an answer, for a reader who wants to check it by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dpplan.report.document import Block, Document, Paragraph, Section
from dpplan.report.documents.sentences import headline
from dpplan.report.words import number, scaled
from dpplan.results.optimize import Plan

if TYPE_CHECKING:
    from dpplan.planner.explain import Term

__all__ = ["explain_document"]

_PARTS = {
    "D": "Demand of one turn",
    "C": "Capacity",
    "T": "Traffic",
    "S": "Bound, split, range",
    "L": "Linear programme",
    "Q": "Time",
}


_SCALED = {"bytes": "B", "FLOP": "FLOP"}
_DIGITS = 5
"""Enough to follow the sums; the JSON has them all."""


def explain_document(plan: Plan, terms: Sequence[Term]) -> Document:
    """The terms in the order the numbers flow, a section a part of the method."""
    sections: list[Section] = []
    blocks: list[Block] = []
    title = ""
    for term in terms:
        part = _PARTS.get(term.tag[:1], "Further terms")
        if part != title:
            if blocks:
                sections.append(Section(title, tuple(blocks)))
            blocks, title = [], part
        blocks += _term(term)
    if blocks:
        sections.append(Section(title, tuple(blocks)))
    return Document(headline(plan), tuple(sections))


def _term(term: Term) -> list[Block]:
    result = _value(term.value, term.unit).strip()
    return [
        Paragraph(f"{term.tag}  {term.name} = {result}", is_strong=True),
        *(Paragraph(text, indent=4) for text in (term.equation, term.numbers) if text),
        *([Paragraph(f"source: {term.source}", is_note=True, indent=4)] if term.source else []),
    ]


def _value(value: float | str | None, unit: str) -> str:
    if value is None:
        return "none"
    if isinstance(value, str):
        return value
    base, slash, per = unit.partition("/")
    if base in _SCALED and math.isfinite(value):
        return f"{_trimmed(scaled(value, _SCALED[base], _DIGITS))}{slash}{per}"
    return f"{_trimmed(number(value, _DIGITS))} {unit}"


def _trimmed(text: str) -> str:
    """Without the noughts that end a decimal fraction."""
    digits, space, unit = text.partition(" ")
    return f"{digits.rstrip('0').rstrip('.') if '.' in digits else digits}{space}{unit}"
