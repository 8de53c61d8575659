"""What a validation says to a person: how far off, for what, and what that rests on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dpplan.queueing import CONSTANTS
from dpplan.report.document import Block, Cell, Column, Document, Items, Section, Table
from dpplan.report.words import join, number, scaled, seconds
from dpplan.validation.measurements import Measurement
from dpplan.validation.validate import Errors, Validation, Yardstick

__all__ = ["load_words", "shown_value", "validation_document", "validation_sentence"]

_MOST_REASONS = 50
_MOST_LINES = 12


def validation_document(found: Validation, source: str) -> Document:
    """The report of a validation.

    Parameters
    ----------
    found : Validation
    source : str
        What the file of measurements is called.

    Returns
    -------
    Document
        Headline, errors by group, what is not predicted, what it rests on, the rows.
    """
    sections = [Section("Absolute error", (_summary(found),))]
    if found.uncovered:
        sections.append(Section("Not predicted", (Items(_reasons(found)),)))
    sections.append(Section("What the predictions rest on", (Items(_grounds(found)),)))
    for yardstick in found.yardsticks:
        sections += _calibration(yardstick)
    sections.append(Section("Rows", (_rows(found),)))
    return Document(f"{source}: {validation_sentence(found)}", tuple(sections))


def validation_sentence(found: Validation) -> str:
    """How many rows are predicted, and how well.

    Parameters
    ----------
    found : Validation

    Returns
    -------
    str
        "62 of 62 rows predicted; error median 3.4 %, P90 9.7 %, worst 22.7 %".
    """
    every = found.overall
    covered = every.n - len(found.uncovered)
    said = f"{covered} of {every.n} rows predicted"
    if not covered:
        return said
    of = "" if covered == every.n else " of these"
    return (
        f"{said}; error{of} median {_share(every.median_abs_error)}, "
        f"P90 {_share(every.p90_abs_error)}, worst {_share(every.worst_abs_error)}"
    )


def load_words(m: Measurement) -> str:
    """The load of a run: "512 agents", "0.1 agents/s", or nothing where it is the result."""
    if m.agents is not None:
        count = (
            f"{m.agents:,.0f}" if m.agents >= 100 or m.agents.is_integer() else f"{m.agents:.3g}"
        )
        return f"{count if m.agents < 1e12 else f'{m.agents:.3g}'} agents"
    return "" if m.agents_per_s is None else f"{m.agents_per_s:.4g} agents/s"


def shown_value(metric: str, value: float | None) -> str:
    """A measured or predicted number with its unit.

    >>> shown_value("jct_s", 16756.0), shown_value("tpot_s", 0.0307)
    ('16,760 s', '30.70 ms')
    """
    if value is None:
        return "-"
    if metric.endswith("_per_s"):
        return f"{number(value, 4)} /s"
    if metric.endswith("_bytes"):
        return scaled(value, "B", 4)
    if not metric.endswith("_s"):
        return number(value, 4)
    return f"{number(value * 1e3, 4)} ms" if value < 1 else f"{number(value, 4)} s"


def _share(fraction: float | None, sign: str = "") -> str:
    if fraction is None:
        return "-"
    if abs(fraction) >= 100:
        return f"{fraction * 100:{sign}.3g} %"
    return f"{fraction * 100:{sign}.1f} %"


def _summary(found: Validation) -> Table:
    rows: list[tuple[Cell, ...]] = [_line("all", found.overall)]
    strong = {0}
    for column, groups in found.groups.items():
        if groups:
            strong.add(len(rows))
            rows.append((f"by {column}", "", "", "", "", ""))
            rows += [_line(f"  {name or '(none)'}", errors) for name, errors in groups.items()]
    return Table(
        (
            Column("", may_wrap=True),
            Column("rows", "right"),
            Column("predicted", "right"),
            Column("median", "right"),
            Column("P90", "right"),
            Column("worst", "right"),
        ),
        tuple(rows),
        frozenset(strong),
    )


def _line(name: str, errors: Errors) -> tuple[Cell, ...]:
    return (
        name,
        str(errors.n),
        str(round(errors.n * errors.coverage_fraction)),
        _share(errors.median_abs_error),
        _share(errors.p90_abs_error),
        _share(errors.worst_abs_error),
    )


def _reasons(found: Validation) -> tuple[str, ...]:
    """One line a row; they count against the file, whatever the others are like."""
    said = [
        f"line {row.measurement.line}: {_run(row.measurement)}, {row.measurement.system}, "
        f"{row.measurement.metric}: {row.reason}"
        for row in found.uncovered
    ]
    more = len(said) - _MOST_REASONS
    return tuple(said if more <= 0 else [*said[:_MOST_REASONS], f"and {more} more rows"])


def _run(m: Measurement) -> str:
    load = load_words(m)
    return f"{_nodes(m)} {m.hardware}, {_turns(m)}{f', {load}' if load else ''}"


def _nodes(m: Measurement) -> str:
    return f"{m.model} {m.prefill_nodes}P{m.decode_nodes}D"


def _turns(m: Measurement) -> str:
    scales = [
        f"{name} x{scale:g}"
        for name, scale in (("append", m.append_scale), ("output", m.output_scale))
        if scale != 1
    ]
    return ", ".join([m.workload, *scales])


def _grounds(found: Validation) -> tuple[str, ...]:
    said = []
    for y in found.yardsticks:
        rows = f"{y.rows} row{'' if y.rows == 1 else 's'} of {join(y.hardware)}"
        if y.calibration is None:
            where = _lines(y.lines)
            said.append(f"Assumed constants: {rows} ({where}); no calibration is used there.")
            continue
        data = y.calibration.data
        said.append(
            f"Calibration {y.name}: {rows}; measured on {join(y.calibration.hardware)}, fitted on "
            f"{data.rows} rows of {data.file}."
        )
        if y.fitted_on_these:
            said.append(
                "The rows below are those it was fitted on: errors of a fit. What to expect of a "
                "model it has never seen stands under models left out."
            )
        if y.free_numbers is not None:
            stored = len(y.calibration.stored_kv_bytes_per_token)
            models = f"{stored} model{'' if stored == 1 else 's'}"
            said.append(
                f"Free numbers of {y.name}: {y.free_numbers} ({y.free_numbers - stored} fitted "
                f"constants, stored KV of {models})."
            )
    said.append("Median, P90 and worst are of the rows predicted; the others count as failed.")
    return tuple(said)


def _lines(lines: Sequence[int]) -> str:
    """Lines of a file, runs of them joined.

    >>> _lines([2, 3, 4, 7])
    'lines 2-4, 7'
    """
    runs: list[list[int]] = []
    for line in lines:
        if runs and line == runs[-1][1] + 1:
            runs[-1][1] = line
        else:
            runs.append([line, line])
    parts = [str(a) if a == b else f"{a}-{b}" for a, b in runs]
    more = [] if len(parts) <= _MOST_LINES else ["..."]
    noun = "line" if len(lines) == 1 else "lines"
    return f"{noun} {', '.join([*parts[:_MOST_LINES], *more])}"


def _calibration(y: Yardstick) -> Iterator[Section]:
    """Constants with their intervals, and how the fit does on models left out of it."""
    if y.calibration is None:
        return
    rows: list[tuple[Cell, ...]] = []
    for name, constant in CONSTANTS.items():
        span, unit = y.interval(name), constant.unit
        shown = "-" if span is None else f"{_constant(span[0], unit)} to {_constant(span[1], unit)}"
        rows.append((f"  {name}", _constant(getattr(y.constants, name), unit), shown))
    for model, stored in y.calibration.stored_kv_bytes_per_token.items():
        rows.append((f"  stored KV of {model}", f"{stored:,.10g} B/token", "-"))
    columns = (Column(""), Column("value", "right"), Column("90 % interval"))
    blocks: list[Block] = [Table(columns, tuple(rows))]
    yield Section(f"Constants of {y.name}", tuple(blocks))
    if y.calibration.leave_one_model_out:
        left = tuple(
            (f"  {model}", str(e.rows), _share(e.median_abs_error), _share(e.p90_abs_error))
            for model, e in y.calibration.leave_one_model_out.items()
        )
        heads = (
            Column(""),
            Column("rows", "right"),
            Column("median", "right"),
            Column("P90", "right"),
        )
        yield Section(f"Models left out of {y.name}", (Table(heads, left),))


def _constant(value: float, unit: str) -> str:
    if unit == "s":
        return seconds(value)
    return scaled(value, "B/s") if unit == "bytes/s" else number(value)


def _rows(found: Validation) -> Table:
    """Runs on the same nodes under one heading, in the order of the file."""
    together: dict[tuple[str, str], list[tuple[Cell, ...]]] = {}
    for row in found.rows:
        m = row.measurement
        load = load_words(m) or "capacity"
        label = f"  {m.figure}: {load}" if m.figure else f"  {load}"
        place = _nodes(m), f"{m.hardware}, {_turns(m)}"
        together.setdefault(place, []).append(
            (
                label,
                m.system,
                m.metric,
                shown_value(m.metric, m.value),
                shown_value(m.metric, row.predicted),
                _share(row.relative_error, "+"),
            )
        )
    lines: list[tuple[Cell, ...]] = []
    strong: set[int] = set()
    for place, cells in together.items():
        strong.add(len(lines))
        lines += [(*place, "", "", "", ""), *cells]
    return Table(
        (
            Column("", may_wrap=True),
            Column("system", may_wrap=True),
            Column("metric"),
            Column("measured", "right"),
            Column("predicted", "right"),
            Column("error", "right"),
        ),
        tuple(lines),
        frozenset(strong),
    )
