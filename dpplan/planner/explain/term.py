"""One number of an answer and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PAPER", "Term", "short"]

PAPER = "DualPath, arXiv 2602.21548"


@dataclass(frozen=True)
class Term:
    """A law with its numbers put in."""

    tag: str
    """The law in docs/method.md: D1..D7, C, T, S1..S4, L."""
    name: str
    equation: str
    """In symbols."""
    numbers: str
    """The same equation with the numbers put in."""
    value: float | str | None
    unit: str
    source: str


def short(value: float) -> str:
    """Six digits, with thousands separated while they can be read."""
    return f"{value:,.6g}" if abs(value) < 1e7 else f"{value:.5g}"
