"""`dpplan size`."""

from __future__ import annotations

from dpplan.cli import output
from dpplan.cli.arguments import check_choice
from dpplan.cli.commands.optimize import FORMATS, write_document
from dpplan.errors import BadInput, Infeasible

__all__ = ["run_size"]

_SCHEMA = "dpplan.size/1"


def run_size(
    workload: str,
    model: str | None,
    prefill_hw: tuple[str, ...],
    decode_hw: tuple[str, ...],
    turns_per_s: float | None,
    sessions_per_s: float | None,
    strategy: str,
    settings: tuple[str, ...],
    unlimited: tuple[str, ...],
    traffic: str,
    format: str,
) -> None:
    """Size a fleet and print it."""
    faults = check_choice("--format", format, FORMATS)
    faults += check_choice("--traffic", traffic, ("full", "paper"))
    faults += check_choice("--strategy", strategy, ("dual-path", "prefill-only"))
    if faults:
        raise BadInput(faults)
    with output.quick_start():
        from dpplan.planner.size import size
    try:
        fleet = size(
            workload,
            prefill_hardware=prefill_hw,
            decode_hardware=decode_hw,
            turns_per_s=turns_per_s,
            sessions_per_s=sessions_per_s,
            model=model,
            strategy=strategy,
            traffic="paper" if traffic == "paper" else "full",
            unlimited=unlimited,
            settings=settings,
        )
    except Infeasible as error:
        if format == "json":
            reason = {"reason": error.reason, "limits": list(error.limits)}
            output.json_document({"schema": _SCHEMA, "infeasible": reason})
        raise
    if format == "json":
        output.json_document(fleet.to_dict())
    elif format == "csv":
        from dpplan.report.renderers.csv import to_csv

        columns = ("side", "hardware", "nodes", "nodes_per_engine", "turns_per_s", "cost")
        rows = [tuple(getattr(pool, column) for column in columns) for pool in fleet.pools]
        output.text(to_csv(columns, rows))
    else:
        from dpplan.report.documents.size import fleet_document

        write_document(fleet_document(fleet), format)
