"""`dpplan check`."""

from __future__ import annotations

from dpplan.cli import output
from dpplan.cli.arguments import check_choice
from dpplan.cli.commands.optimize import write_document
from dpplan.errors import BadInput, Drift, Fault

__all__ = ["FORMATS", "run_check"]

FORMATS = ("table", "json", "markdown")


def run_check(scenarios: str | None, baseline: str | None, update: bool, format: str) -> None:
    """Check and print; drift ends in its exit code."""
    faults = check_choice("--format", format, FORMATS)
    if faults:
        raise BadInput(faults)
    with output.quick_start():
        from dpplan.report.documents.check import check_document, check_sentence
        from dpplan.validation.check import check

    result = check(scenarios, baseline, update=update)
    if format == "json":
        output.json_document(result.to_dict())
    else:
        write_document(check_document(result), format)
    if result.updated:
        output.message(f"wrote {result.baseline}")
    elif not result.passed:
        needed = f"every prediction within its tolerance of {result.baseline} is needed"
        cure = f"find out why, or accept them with `{result.accept}`"
        raise Drift(str(Fault(result.scenarios, needed, check_sentence(result), cure)))
