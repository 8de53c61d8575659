"""`dpplan trace stats`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dpplan.cli import output
from dpplan.cli.arguments import check_choice
from dpplan.cli.commands.optimize import FORMATS, write_document
from dpplan.cli.commands.trace_reading import Source, memory_bytes, opened, times_s, whole_blocks
from dpplan.cli.files import plot_kind, write_file
from dpplan.errors import BadInput, Fault

if TYPE_CHECKING:
    from dpplan.traces.statistics.trace_summary import TraceStats

__all__ = ["run_stats"]


def run_stats(
    source: Source,
    capacities: tuple[int, ...],
    ttls: tuple[str, ...],
    memory: str | None,
    curves: bool,
    plot: str | None,
    format: str,
) -> None:
    """Read, count, print and draw."""
    faults = check_choice("--format", format, FORMATS) + source.faults()
    kind = plot_kind(plot, faults)
    capacities = whole_blocks("--capacity", capacities, faults)
    ttls_s = times_s("--ttl", ttls, faults)
    most_bytes = memory_bytes(memory, faults)
    if not curves and (capacities or ttls):
        cure = "leave --no-curves out, or --capacity and --ttl"
        faults.append(Fault("--no-curves", "no --capacity and no --ttl is needed", "one", cure))
    if faults:
        raise BadInput(faults)
    with output.quick_start():
        from dpplan.traces.statistics.trace_stats import TTLS_S, trace_stats
    with opened(source) as trace:
        found = trace_stats(
            trace,
            capacities_blocks=capacities,
            ttls_s=(ttls_s or TTLS_S) if curves else (),
            memory_bytes=most_bytes,
            curves=curves,
        )
    if plot is not None:
        from dpplan.report.plots.trace_stats import draw_trace

        drawn = draw_trace(found, kind, source.name)
        write_file(Path(plot), drawn, "--plot", overwrite=True)
    _write(found, source, format)
    if plot is not None:
        output.message(f"wrote {plot}")


def _write(found: TraceStats, source: Source, format: str) -> None:
    if format == "json":
        output.json_document(found.to_dict())
    elif format == "csv":
        from dpplan.report.documents.trace_stats_rows import STATS_COLUMNS, stats_rows
        from dpplan.report.renderers.csv import to_csv

        output.text(to_csv(STATS_COLUMNS, stats_rows(found)))
    else:
        from dpplan.report.documents.trace_stats import trace_document

        write_document(trace_document(found, source.name), format)
        return
    for note in found.notes:
        output.message(f"note: {note}")
    if found.bad_lines:
        output.message(f"warning: {found.bad_lines} bad lines are left out")
        for fault in found.facts.faults[:5]:
            output.message(f"warning: {fault}")
