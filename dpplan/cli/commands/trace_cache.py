"""`dpplan trace cache`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpplan.cli import output
from dpplan.cli.arguments import check_choice
from dpplan.cli.commands.optimize import FORMATS, write_document
from dpplan.cli.commands.trace_reading import Source, memory_bytes, opened, times_s
from dpplan.cli.files import plot_kind, write_file
from dpplan.errors import BadInput, Fault, Infeasible

__all__ = ["CacheQuestion", "run_cache"]

_SCHEMA = "dpplan.trace_cache/1"


@dataclass(frozen=True)
class CacheQuestion:
    """What the options ask for."""

    hw: str | None
    model: str | None
    storage: tuple[str, ...]
    dram: tuple[str, ...]
    ttl: tuple[str, ...]
    conversations: int
    prefill_hw: str | None
    decode_hw: str | None
    nodes: int | None
    prefill_nodes: int | None
    decode_nodes: int | None
    settings: tuple[str, ...]
    unlimited: tuple[str, ...]
    traffic: str
    memory: str | None


def run_cache(source: Source, question: CacheQuestion, plot: str | None, format: str) -> None:
    """Read, plan, print and draw."""
    faults = check_choice("--format", format, FORMATS) + source.faults()
    kind = plot_kind(plot, faults)
    storage = _sizes("--storage", question.storage, faults)
    dram = _sizes("--dram", question.dram, faults)
    ttls_s = times_s("--ttl", question.ttl, faults)
    most_bytes = memory_bytes(question.memory, faults)
    if faults:
        raise BadInput(faults)
    with output.quick_start():
        from dpplan.planner.trace_cache import plan_cache_sizes
    more: dict[str, Any] = {} if most_bytes is None else {"memory_bytes": most_bytes}
    try:
        with opened(source) as trace:
            plan = plan_cache_sizes(
                trace,
                question.hw,
                question.model,
                storage_bytes=storage,
                dram_bytes=dram,
                ttls_s=ttls_s,
                conversations=question.conversations,
                prefill_hardware=question.prefill_hw,
                decode_hardware=question.decode_hw,
                nodes=question.nodes,
                prefill_nodes=question.prefill_nodes,
                decode_nodes=question.decode_nodes,
                traffic=question.traffic,  # type: ignore[arg-type]  # checked there
                unlimited=question.unlimited,
                settings=question.settings,
                **more,
            )
    except Infeasible as error:
        if format == "json":
            reason = {"reason": error.reason, "limits": list(error.limits)}
            output.json_document({"schema": _SCHEMA, "infeasible": reason})
        raise
    if plot is not None:
        from dpplan.report.plots.trace_cache import draw_cache_plan

        nodes = sum(getattr(plan.sizes[0], f"{side}_nodes") for side in ("prefill", "decode"))
        title = f"{source.name}: {plan.model} on {nodes} {plan.hardware} nodes"
        drawn = draw_cache_plan(plan, kind, title)
        write_file(Path(plot), drawn, "--plot", overwrite=True)
    if format == "json":
        output.json_document(plan.to_dict())
    elif format == "csv":
        from dpplan.report.renderers.csv import to_csv

        rows = plan.to_dict()["sizes"]
        cells = [[", ".join(v) if isinstance(v, list) else v for v in row.values()] for row in rows]
        output.text(to_csv(tuple(rows[0]), cells))
    else:
        from dpplan.report.documents.trace_cache import cache_plan_document

        write_document(cache_plan_document(plan, source.name), format)
    if format in ("json", "csv"):
        for note in plan.notes:
            output.message(f"note: {note}")
    if plot is not None:
        output.message(f"wrote {plot}")


def _sizes(option: str, texts: tuple[str, ...], faults: list[Fault]) -> tuple[float, ...]:
    """Sizes such as "200 GB" in bytes."""
    from dpplan.units import parse_quantity

    found = []
    for text in texts:
        try:
            value = parse_quantity(text, "bytes")
        except ValueError as error:
            faults.append(Fault(option, str(error), repr(text[:40])))
            continue
        if not 1 <= value <= 1e24:
            faults.append(Fault(option, "a size of 1 B to 1e24 B is needed", repr(text[:40])))
        else:
            found.append(value)
    return tuple(found)
