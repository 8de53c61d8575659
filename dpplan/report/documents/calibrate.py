"""What a calibration says to a person: constants, how well they are known, how far they carry."""

from __future__ import annotations

from collections.abc import Mapping

from dpplan.queueing import CONSTANTS
from dpplan.report.document import Block, Column, Document, Items, Paragraph, Section, Table
from dpplan.report.words import number, scaled, seconds
from dpplan.validation.calibrate import FITTED, Calibrated, Errors

__all__ = ["calibration_document"]

_MOST_REASONS = 10
_ERRORS = (
    Column(""),
    Column("rows", "right"),
    Column("median", "right"),
    Column("P90", "right"),
    Column("median with sign", "right"),
)


def calibration_document(found: Calibrated, name: str) -> Document:
    """The report of a calibration.

    Parameters
    ----------
    found : Calibrated
    name : str
        What the calibration is called.

    Returns
    -------
    Document
        Headline, what the data are too little for, constants with intervals and meanings, errors
        of the fit, errors of models that a fit never saw.
    """
    sections = [Section("Beware", (Items(found.warnings),))] if found.warnings else []
    sections += [
        Section("Constants", (_fitted(found), Paragraph(_READING, is_note=True))),
        Section("What they mean", (Items(tuple(map(_meaning, FITTED))),)),
        Section("Not fitted", (Items(_fixed(found)),)),
        Section("Errors of the fit", (_errors(found.error_groups()),)),
    ]
    groups = found.left_out_groups()
    if groups:
        note = "Each model's rows as predicted by constants that were fitted without them."
        blocks: tuple[Block, ...] = (_errors(groups), Paragraph(note, is_note=True))
        sections.append(Section("Errors of a model left out", blocks))
    reasons = _reasons(found)
    if reasons:
        sections.append(Section("Rows that cannot be predicted", (Items(reasons),)))
    return Document(_headline(found, name), tuple(sections))


_READING = (
    "Intervals hold 90 % of what the data allow, given what was assumed; they say nothing of what "
    "the model itself gets wrong."
)


def _headline(found: Calibrated, name: str) -> str:
    fitted = found.error_groups()["all"]
    text = f"{name}: {found.free_numbers} free numbers on {fitted.rows} rows"
    text += f", median error {_percent(fitted.median_abs_error)}"
    left = found.left_out_groups().get("all")
    if left is not None:
        text += f"; {_percent(left.median_abs_error)} for models left out of the fit"
    return text


def _value(name: str, value: float) -> str:
    unit = CONSTANTS[name].unit
    if unit == "s":
        return seconds(value)
    return scaled(value, "B/s") if unit == "bytes/s" else number(value)


def _fitted(found: Calibrated) -> Table:
    rows = []
    for name in FITTED:
        low, high = found.interval(name)
        what = CONSTANTS[name]
        said = [f"at its {bound}" for bound in [found.bound(name)] if bound]
        said += [] if found.is_told(name) else ["hardly told"]
        rows.append(
            (
                name,
                _value(name, float(getattr(found.constants, name))),
                f"{_value(name, low)} to {_value(name, high)}",
                f"{_value(name, what.lowest)} to {_value(name, what.highest)}",
                ", ".join(said),
            )
        )
    columns = (
        Column(""),
        Column("value", "right"),
        Column("90 % interval", "right"),
        Column("range", "right"),
        Column("", may_wrap=True),
    )
    return Table(columns, tuple(rows))


def _meaning(name: str) -> str:
    what = CONSTANTS[name]
    return f"{name}{'' if what.unit == '1' else f' [{what.unit}]'}: {what.meaning}"


def _fixed(found: Calibrated) -> tuple[str, ...]:
    lines = [
        f"{name} = {_value(name, float(getattr(found.constants, name)))}: {what.meaning} "
        f"({what.source})"
        for name, what in CONSTANTS.items()
        if not what.fitted
    ]
    lines += [
        f"stored KV of {model} = {size:,.0f} bytes a token: given, counted as a free number"
        for model, size in found.stored_kv_bytes_per_token.items()
    ]
    return tuple(lines)


def _errors(groups: Mapping[str, Errors]) -> Table:
    rows = [
        (
            key,
            f"{group.rows}" + (f" ({group.unpredicted} unstable)" if group.unpredicted else ""),
            _percent(group.median_abs_error),
            _percent(group.p90_abs_error),
            "-" if group.median_error is None else f"{group.median_error * 100:+.1f} %",
        )
        for key, group in groups.items()
    ]
    return Table(_ERRORS, tuple(rows), frozenset({len(rows) - 1}))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.1f} %"


def _reasons(found: Calibrated) -> tuple[str, ...]:
    lines: dict[str, list[int]] = {}
    for i, reason in found.comparison.reasons.items():
        lines.setdefault(reason, []).append(found.measurements[i].line)
    said = [
        f"line{'s' if len(at) > 1 else ''} {', '.join(map(str, at[:8]))}"
        f"{', ...' if len(at) > 8 else ''}: {reason}"
        for reason, at in lines.items()
    ]
    more = [f"{len(said) - _MOST_REASONS} further reasons"] if len(said) > _MOST_REASONS else []
    return tuple(said[:_MOST_REASONS] + more)
