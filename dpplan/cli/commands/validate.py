"""`dpplan validate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dpplan.cli import output
from dpplan.cli.arguments import check_choice
from dpplan.cli.commands.optimize import FORMATS, write_document
from dpplan.cli.files import plot_kind
from dpplan.errors import BadInput, Drift, Fault

if TYPE_CHECKING:
    from dpplan.validation.validate import Validation

__all__ = ["run_validate"]

_SHIPPED = "dualpath.csv"


def run_validate(
    csv: str | None, calibration: str, fail_above: str | None, plot: str | None, format: str
) -> None:
    """Validate, print and draw; errors beyond what is allowed end in their exit code."""
    faults = check_choice("--format", format, FORMATS)
    most = _most(fail_above, faults)
    kind = plot_kind(plot, faults)
    if csv is not None and (not csv or "\0" in csv):
        faults.append(Fault("CSV", "the path of a file of measurements is needed", repr(csv[:60])))
    if faults:
        raise BadInput(faults)
    with output.quick_start():
        from dpplan.profiles.library import shipped_root
        from dpplan.validation.measurements import fingerprint, read_measurements
        from dpplan.validation.validate import validate

        shipped = shipped_root() / "measurements" / _SHIPPED
        path = shipped if csv is None else Path(csv)
        shown = f"shipped measurements/{_SHIPPED}" if csv is None else csv
        measurements = read_measurements(path)
        found = validate(measurements, calibration, data_sha256=fingerprint(path))
    if plot is not None:
        _draw(found, shown, plot, kind)
    if format == "json":
        output.json_document(found.to_dict())
    elif format == "csv":
        from dpplan.report.renderers.csv import to_csv
        from dpplan.validation.validate import ADDED

        columns = tuple(dict.fromkeys([*measurements[0].cells, *ADDED]))
        rows = [row.measurement.cells | row.added for row in found.rows]
        output.text(to_csv(columns, [[row[name] for name in columns] for row in rows]))
    else:
        from dpplan.report.documents.validate import validation_document

        write_document(validation_document(found, shown), format)
    if plot is not None:
        output.message(f"wrote {plot}")
    if format in ("json", "csv"):
        _warn(found)
    if most is not None and not found.passes(most):
        from dpplan.report.documents.validate import validation_sentence

        needed = f"a prediction for every row and a median error of at most {most * 100:.4g} % are"
        raise Drift(str(Fault(shown, f"{needed} needed", validation_sentence(found))))


def _warn(found: Validation) -> None:
    if found.assumed:
        count = len(found.assumed)
        output.message(f"warning: {count} rows rest on assumed constants, not on a calibration")
    for row in found.uncovered[:20]:
        output.message(f"warning: line {row.measurement.line}: {row.reason}")


def _most(text: str | None, faults: list[Fault]) -> float | None:
    """`10%` as a fraction."""
    if text is None:
        return None
    from dpplan.validation.check.scenarios import parse_percent

    try:
        return parse_percent(text)
    except ValueError as error:
        faults.append(Fault("--fail-above", str(error), repr(text[:40])))
        return None


def _draw(found: Validation, shown: str, plot: str, kind: str) -> None:
    from dpplan.cli.files import write_file
    from dpplan.report.documents.validate import validation_sentence
    from dpplan.report.plots.validate import draw_validation

    title = f"{shown}: {validation_sentence(found)}"
    write_file(Path(plot), draw_validation(found, kind, title), "--plot", overwrite=True)
