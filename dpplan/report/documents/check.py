"""What a check says to a person: what moved, by how much, how to accept it, what held."""

from __future__ import annotations

from collections.abc import Sequence

from dpplan.report.document import Block, Cell, Column, Document, Items, Paragraph, Section, Table
from dpplan.report.words import join
from dpplan.validation.check import CheckResult, Row
from dpplan.validation.check.runner import Value

__all__ = ["check_document", "check_sentence"]

_SHORT = 16
"""Characters that a column of old or new values has room for."""


def check_sentence(result: CheckResult) -> str:
    """How many values held, moved, came and went.

    Parameters
    ----------
    result : CheckResult

    Returns
    -------
    str
        "14 values held, 2 drifted and 1 is new"; without those of which there are none.
    """
    said: list[str] = []
    for status, one, several in (
        ("held", "held", "held"),
        ("drifted", "drifted", "drifted"),
        ("new", "is new", "are new"),
        ("gone", "is gone", "are gone"),
    ):
        count = sum(row.status == status for row in result.rows)
        if count:
            noun = "" if said else " value" if count == 1 else " values"
            said.append(f"{count}{noun} {one if count == 1 else several}")
    return join(said)


def check_document(result: CheckResult) -> Document:
    """The report of a check.

    Parameters
    ----------
    result : CheckResult

    Returns
    -------
    Document
        Headline, what drifted with how to accept it, what held.
    """
    sections = []
    if result.drift:
        blocks: list[Block] = [_moved(result.drift)]
        if notes := _notes(result):
            blocks.append(Items(notes))
        sections.append(Section("Accepted" if result.updated else "Drift", tuple(blocks)))
    if not result.passed:
        sections.append(Section("To accept these predictions", (Paragraph(result.accept),)))
    held = tuple(row for row in result.rows if row.status == "held")
    if held:
        sections.append(Section("Held", (_held(held),)))
    return Document(_headline(result), tuple(sections))


def _headline(result: CheckResult) -> str:
    if result.updated:
        return f"{result.baseline} written from {result.scenarios}: {check_sentence(result)}"
    then, now = (versions.get("dpplan") for versions in (result.baseline_versions, result.versions))
    between = f" (dpplan {then} then, {now} now)" if then and then != now else ""
    verdict = "as in" if result.passed else "not as in"
    return f"{result.scenarios} {verdict} {result.baseline}{between}: {check_sentence(result)}"


def _moved(rows: Sequence[Row]) -> Table:
    """Old and new values; long texts stand in the notes."""
    columns = (
        Column("", may_wrap=True),
        Column("old", "right"),
        Column("new", "right"),
        Column("change", "right"),
        Column("tolerance", "right"),
    )
    return _by_scenario(
        columns,
        [(row, (*map(_short, _pair(row)), _change(row), _tolerance(row))) for row in rows],
    )


def _held(rows: Sequence[Row]) -> Table:
    """Values of now."""
    columns = (
        Column("", may_wrap=True),
        Column("value", "right", may_wrap=True),
        Column("change", "right"),
        Column("tolerance", "right"),
    )
    return _by_scenario(
        columns, [(row, (_text(row.new, 6), _change(row), _tolerance(row))) for row in rows]
    )


def _by_scenario(columns: tuple[Column, ...], rows: list[tuple[Row, tuple[str, ...]]]) -> Table:
    """Each scenario's name on a line of its own, its metrics below."""
    lines: list[tuple[Cell, ...]] = []
    strong: set[int] = set()
    scenario = None
    for row, cells in rows:
        if row.scenario != scenario:
            scenario = row.scenario
            strong.add(len(lines))
            lines.append((scenario, *[""] * len(cells)))
        lines.append((f"  {row.metric}", *cells))
    return Table(columns, tuple(lines), frozenset(strong))


def _tolerance(row: Row) -> str:
    is_text = any(isinstance(value, (bool, str, list)) for value in (row.old, row.new))
    return "exact" if is_text else f"{row.tolerance_fraction * 100:.4g} %"


def _pair(row: Row) -> tuple[str, str]:
    """Old and new with as many digits as tell them apart."""
    old, new = _text(row.old, 6), _text(row.new, 6)
    if old == new and row.old != row.new:
        old, new = _text(row.old, 12), _text(row.new, 12)
    return ("" if row.status == "new" else old), ("" if row.status == "gone" else new)


def _short(text: str) -> str:
    return text if len(text) <= _SHORT else "(below)"


def _text(value: Value, digits: int) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return value if isinstance(value, str) else f"{value:.{digits}g}"


def _change(row: Row) -> str:
    if row.status in ("new", "gone"):
        return row.status
    if row.change_fraction is not None:
        return f"{row.change_fraction * 100:+.3g} %" if row.change_fraction else "0 %"
    return "" if row.status == "held" else "changed"


def _notes(result: CheckResult) -> tuple[str, ...]:
    """What the table has no room for; of what is accepted, only why it has no number."""
    said = {
        "new scenario": "is not in the baseline yet.",
        "gone scenario": "is in the baseline and no scenario any more.",
    }
    notes: dict[str, None] = {}
    for row in result.drift:
        if row.note.startswith("infeasible"):
            notes[f"{row.scenario}: {row.note}"] = None
        elif row.note in said and not result.updated:
            notes[f"{row.scenario} {said[row.note]}"] = None
        old, new = _pair(row)
        if "(below)" in (_short(old), _short(new)):
            parts = [f"was {old}"] if row.status != "new" else []
            parts += [f"is {new}"] if row.status != "gone" else []
            notes[f"{row.scenario} {row.metric}: {'; '.join(parts)}"] = None
    return tuple(notes)
