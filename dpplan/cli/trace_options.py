"""Options that the commands of `dpplan trace` share."""

from __future__ import annotations

from typing import Annotated

import typer

from dpplan.cli.arguments import positive_number, share, whole_number

__all__ = [
    "Arrivals",
    "BlockTokens",
    "CacheBlocks",
    "CacheSize",
    "Capacities",
    "Columns",
    "Conversations",
    "DramSize",
    "DramSizes",
    "Files",
    "Force",
    "FormatOf",
    "HitFraction",
    "Memory",
    "Output",
    "Seed",
    "SessionCount",
    "Sizes",
    "Strict",
    "Tokenizer",
    "TraceModel",
    "TracePlot",
    "Traces",
    "Ttls",
    "Turns",
    "WorkloadName",
]

Files = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE", help="Files of one trace: plain, .gz or .zst; several are read in order."
    ),
]
FormatOf = Annotated[
    str | None,
    typer.Option(
        "--format-of",
        metavar="mooncake|aiperf|weka|azure|chat|table",
        help="What the files hold; absent = told by their first records.",
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="FIELD=COLUMN,...",
        help="Columns of a plain CSV, e.g. time:ms=start,input=prompt,output=answer,session=chat.",
    ),
]
Tokenizer = Annotated[
    str | None,
    typer.Option(
        "--tokenizer",
        metavar="FILE",
        help="tokenizer.json that counts the tokens of text; absent = an estimate, marked as such.",
    ),
]
BlockTokens = Annotated[
    int | None,
    typer.Option(
        "--block-tokens",
        metavar="N",
        parser=whole_number("--block-tokens"),
        help="Tokens of a block; absent = the format's.",
    ),
]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Stop at the first bad line; absent = count up to 1 % of them."),
]
Capacities = Annotated[
    list[int] | None,
    typer.Option(
        "--capacity",
        metavar="BLOCKS",
        parser=whole_number("--capacity"),
        help="Hit rate of an LRU cache of so many blocks; repeatable.",
    ),
]
Ttls = Annotated[
    list[str] | None,
    typer.Option(
        "--ttl",
        metavar="TIME",
        help="Hit rate of a cache that drops a block after so long unused, e.g. 10m; repeatable.",
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        help="Memory to stay within, e.g. 1GiB: beyond it blocks are sampled, with the error told.",
    ),
]
TracePlot = Annotated[
    str | None,
    typer.Option("--plot", metavar="FILE.png|svg", help="Draw it; needs matplotlib."),
]
Sizes = Annotated[
    list[str] | None,
    typer.Option(
        "--storage",
        metavar="SIZE",
        help="KV kept in storage, e.g. '2 TB'; repeatable; absent = sizes up to all that is hit.",
    ),
]
DramSizes = Annotated[
    list[str] | None,
    typer.Option(
        "--dram",
        metavar="SIZE",
        help="KV in DRAM of all prefill nodes, before the largest storage; repeatable.",
    ),
]
Conversations = Annotated[
    int,
    typer.Option(
        "--conversations",
        metavar="N",
        parser=whole_number("--conversations"),
        help="Where a trace's caches are per conversation: how many share a size at a time.",
    ),
]
SessionCount = Annotated[
    int,
    typer.Option(
        "--sessions", metavar="N", parser=whole_number("--sessions"), help="Sessions to write."
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        "--seed",
        metavar="S",
        parser=whole_number("--seed"),
        help="The same seed gives the same file.",
    ),
]
Arrivals = Annotated[
    float,
    typer.Option(
        "--agents-per-s",
        metavar="X",
        parser=positive_number("--agents-per-s"),
        help="Mean arrivals of sessions.",
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        "-o", "--output", metavar="FILE", help="File to write; .gz and .zst compress a trace."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing file.")]

TraceModel = Annotated[
    str | None,
    typer.Option("--model", metavar="PROFILE", help="Model: needed, a trace names none."),
]
Traces = Annotated[
    list[str] | None,
    typer.Option(
        "--trace",
        metavar="FILE",
        help="Instead of --workload: that of a trace of real requests; repeatable.",
    ),
]
CacheSize = Annotated[
    str | None,
    typer.Option(
        "--cache",
        metavar="SIZE",
        help="KV kept, e.g. '2 TB': hits of a trace are those of an LRU cache; absent = all kept.",
    ),
]
CacheBlocks = Annotated[
    int | None,
    typer.Option(
        "--cache-blocks",
        metavar="N",
        parser=whole_number("--cache-blocks"),
        help="The same in blocks of the trace.",
    ),
]
DramSize = Annotated[
    str | None,
    typer.Option(
        "--dram",
        metavar="SIZE",
        help="KV in DRAM of all prefill nodes before it: its share of the hits.",
    ),
]
HitFraction = Annotated[
    float | None,
    typer.Option(
        "--hit-fraction",
        metavar="SHARE",
        parser=share("--hit-fraction"),
        help="Share of each prompt taken as hit, for traces that don't tell.",
    ),
]
Turns = Annotated[
    float | None,
    typer.Option(
        "--turns",
        metavar="N",
        parser=positive_number("--turns"),
        help="Turns of a session, for traces that name none; absent = inferred, or 1.",
    ),
]
WorkloadName = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="Of the profile; absent = the file's.")
]
