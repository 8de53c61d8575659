"""`dpplan trace ...`: commands about traces of real requests; each loads its work when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

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
    Traffic,
    Unlimited,
    Workload,
)
from dpplan.cli.trace_options import (
    Arrivals,
    BlockTokens,
    CacheBlocks,
    CacheSize,
    Capacities,
    Columns,
    Conversations,
    DramSize,
    DramSizes,
    Files,
    Force,
    FormatOf,
    HitFraction,
    Memory,
    Output,
    Seed,
    SessionCount,
    Sizes,
    Strict,
    Tokenizer,
    TraceModel,
    TracePlot,
    Ttls,
    Turns,
    WorkloadName,
)

__all__ = ["trace_app"]

trace_app = typer.Typer(
    name="trace",
    help="Workloads from traces of real requests: statistics, profiles, cache sizes, synthesis.",
    rich_markup_mode=None,
    add_completion=False,
)


@trace_app.callback()
def _trace() -> None:
    pass


@trace_app.command()
def stats(
    files: Files,
    format_of: FormatOf = None,
    columns: Columns = None,
    tokenizer: Tokenizer = None,
    block_tokens: BlockTokens = None,
    capacity: Capacities = None,
    ttl: Ttls = None,
    memory: Memory = None,
    strict: Strict = False,
    curves: Annotated[
        bool,
        typer.Option(
            "--curves/--no-curves", help="Hit rates against cache size, the slowest part."
        ),
    ] = True,
    plot: TracePlot = None,
    format: Format = "table",
) -> None:
    """What a trace holds: requests, sessions, token counts, gaps, and what caches would hit."""
    from dpplan.cli.commands.trace_reading import Source
    from dpplan.cli.commands.trace_stats import run_stats

    run_stats(
        Source(tuple(files), format_of, columns, tokenizer, block_tokens, strict),
        tuple(capacity or ()),
        tuple(ttl or ()),
        memory,
        curves,
        plot,
        format,
    )


@trace_app.command()
def cache(
    files: Files,
    hw: Hw = None,
    model: TraceModel = None,
    storage: Sizes = None,
    dram: DramSizes = None,
    ttl: Ttls = None,
    conversations: Conversations = 1,
    prefill_hw: PrefillHw = None,
    decode_hw: DecodeHw = None,
    nodes: Nodes = None,
    prefill_nodes: PrefillNodes = None,
    decode_nodes: DecodeNodes = None,
    settings: Settings = None,
    unlimited: Unlimited = None,
    traffic: Traffic = "full",
    format_of: FormatOf = None,
    columns: Columns = None,
    tokenizer: Tokenizer = None,
    block_tokens: BlockTokens = None,
    memory: Memory = None,
    strict: Strict = False,
    plot: TracePlot = None,
    format: Format = "table",
) -> None:
    """How much KV to keep, in storage and in DRAM, and for how long: hit rates and throughput."""
    from dpplan.cli.commands.trace_cache import CacheQuestion, run_cache
    from dpplan.cli.commands.trace_reading import Source

    run_cache(
        Source(tuple(files), format_of, columns, tokenizer, block_tokens, strict),
        CacheQuestion(
            hw=hw,
            model=model,
            storage=tuple(storage or ()),
            dram=tuple(dram or ()),
            ttl=tuple(ttl or ()),
            conversations=conversations,
            prefill_hw=prefill_hw,
            decode_hw=decode_hw,
            nodes=nodes,
            prefill_nodes=prefill_nodes,
            decode_nodes=decode_nodes,
            settings=tuple(settings or ()),
            unlimited=tuple(unlimited or ()),
            traffic=traffic,
            memory=memory,
        ),
        plot,
        format,
    )


@trace_app.command()
def workload(
    files: Files,
    name: WorkloadName = None,
    model: ModelName = None,
    cache: CacheSize = None,
    cache_blocks: CacheBlocks = None,
    dram: DramSize = None,
    conversations: Conversations = 1,
    hit_fraction: HitFraction = None,
    turns: Turns = None,
    format_of: FormatOf = None,
    columns: Columns = None,
    tokenizer: Tokenizer = None,
    block_tokens: BlockTokens = None,
    memory: Memory = None,
    strict: Strict = False,
    target: Output = None,
    force: Force = False,
    format: Annotated[
        str,
        typer.Option(
            "--format", metavar="table|json|markdown", help="How the answer is written to stdout."
        ),
    ] = "table",
) -> None:
    """The workload profile that a trace shows, with how sure its means are."""
    from dpplan.cli.commands.trace_reading import Source
    from dpplan.cli.commands.trace_workload import WorkloadQuestion, run_workload

    run_workload(
        Source(tuple(files), format_of, columns, tokenizer, block_tokens, strict),
        WorkloadQuestion(
            name, model, cache, cache_blocks, dram, conversations, hit_fraction, turns, memory
        ),
        target,
        force,
        format,
    )


@trace_app.command()
def synthesize(
    workload: Workload = "agentic",
    sessions: SessionCount = 100,
    seed: Seed = 0,
    agents_per_s: Arrivals = 1.0,
    target: Output = None,
    force: Force = False,
) -> None:
    """Write a made-up trace of a workload, in the session form that load generators replay."""
    from dpplan.cli.commands.trace_synthesize import run_synthesize

    run_synthesize(workload, sessions, seed, agents_per_s, target, force)
