"""`dpplan predict` and its options."""

from __future__ import annotations

from typing import Annotated

import typer

from dpplan.cli.arguments import is_from_user, positive_number
from dpplan.cli.options import (
    DecodeHw,
    DecodeNodes,
    Format,
    Hw,
    ModelName,
    Nodes,
    PrefillHw,
    PrefillNodes,
    Settings,
    Workload,
)
from dpplan.cli.trace_options import CacheSize, HitFraction, Traces

__all__ = ["predict"]


def predict(
    context: typer.Context,
    hw: Hw = None,
    workload: Workload = "agentic",
    trace: Traces = None,
    cache: CacheSize = None,
    hit_fraction: HitFraction = None,
    model: ModelName = None,
    prefill_hw: PrefillHw = None,
    decode_hw: DecodeHw = None,
    nodes: Nodes = None,
    prefill_nodes: PrefillNodes = None,
    decode_nodes: DecodeNodes = None,
    agents: Annotated[
        float | None,
        typer.Option(
            "--agents",
            metavar="N",
            parser=positive_number("--agents"),
            help="Sessions that start together: when is the last one done?",
        ),
    ] = None,
    agents_per_s: Annotated[
        float | None,
        typer.Option(
            "--agents-per-s",
            metavar="RATE",
            parser=positive_number("--agents-per-s"),
            help="Sessions that arrive at random per second: how long do they wait?",
        ),
    ] = None,
    capacity: Annotated[
        bool,
        typer.Option("--capacity", help="Largest arrival rate within TTFT and TPOT limits."),
    ] = False,
    system: Annotated[
        str | None,
        typer.Option(
            "--system",
            metavar="NAME",
            help="basic, basic+layerwise, basic+layerwise+dualpath, dualpath (default) or oracle.",
        ),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy",
            metavar="prefill-only|dual-path|oracle",
            help="Instead of --system: how KV is loaded.",
        ),
    ] = None,
    layerwise: Annotated[
        bool | None,
        typer.Option("--layerwise/--no-layerwise", help="Loads overlap compute layer by layer."),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler", metavar="round-robin|adaptive", help="Who picks the side that reads."
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="SYSTEM", help="Compare with this system: the speedup."),
    ] = None,
    slo: Annotated[
        str | None,
        typer.Option(
            "--slo", metavar="ttft=4s,tpot=50ms", help="Limits on the means; absent = workload's."
        ),
    ] = None,
    calibration: Annotated[
        str,
        typer.Option(
            "--calibration",
            metavar="auto|none|PROFILE",
            help="Measured constants: those of this hardware, none (assumed ones), or a profile's.",
        ),
    ] = "auto",
    settings: Settings = None,
    format: Format = "table",
) -> None:
    """Times of a job or of arrivals, and the capacity within latency limits."""
    from dpplan.cli.commands.predict_run import Prospect, run_predict
    from dpplan.cli.commands.trace_workload import workload_option

    is_given = is_from_user(context, "workload")
    run_predict(
        Prospect(
            hw,
            workload_option(workload, is_given, trace, cache, hit_fraction, model),
            model,
            prefill_hw,
            decode_hw,
            nodes,
            prefill_nodes,
            decode_nodes,
            agents,
            agents_per_s,
            capacity,
            system,
            strategy,
            layerwise,
            scheduler,
            against,
            slo,
            calibration,
            tuple(settings or ()),
        ),
        format,
    )
