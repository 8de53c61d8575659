"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

from dpplan.cli.arguments import whole_number

__all__ = [
    "DecodeHw",
    "DecodeNodes",
    "Format",
    "Hw",
    "ModelName",
    "Nodes",
    "PrefillHw",
    "PrefillNodes",
    "Settings",
    "Traffic",
    "Unlimited",
    "Workload",
]

Hw = Annotated[
    str | None,
    typer.Option(
        "--hw", "--hardware", metavar="PROFILE", help="Node type of both sides: a name or a path."
    ),
]
PrefillHw = Annotated[
    str | None,
    typer.Option("--prefill-hw", metavar="PROFILE", help="Node type of prefill, if another."),
]
DecodeHw = Annotated[
    str | None,
    typer.Option("--decode-hw", metavar="PROFILE", help="Node type of decode, if another."),
]
Workload = Annotated[
    str,
    typer.Option("--workload", metavar="PROFILE", help="What a turn looks like: a name or a path."),
]
ModelName = Annotated[
    str | None, typer.Option("--model", metavar="PROFILE", help="Model; absent = the workload's.")
]
Nodes = Annotated[
    int | None,
    typer.Option(
        "--nodes",
        metavar="N",
        parser=whole_number("--nodes"),
        help="Nodes in all; the best P:D of them is planned.",
    ),
]
PrefillNodes = Annotated[
    int | None,
    typer.Option(
        "--prefill-nodes",
        metavar="P",
        parser=whole_number("--prefill-nodes"),
        help="Prefill nodes.",
    ),
]
DecodeNodes = Annotated[
    int | None,
    typer.Option(
        "--decode-nodes", metavar="D", parser=whole_number("--decode-nodes"), help="Decode nodes."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY.PATH=VALUE",
        help="Put a value in place of a profile's, e.g. storage_nic.count=2; repeatable.",
    ),
]
Unlimited = Annotated[
    list[str] | None,
    typer.Option(
        "--unlimited",
        metavar="RESOURCE",
        help="Treat a resource as infinite, e.g. decode.gpu; repeatable.",
    ),
]
Traffic = Annotated[
    str,
    typer.Option(
        "--traffic",
        metavar="full|paper",
        help="All traffic with efficiencies and headroom, or hit KV only at peaks as in the paper.",
    ),
]
Format = Annotated[
    str,
    typer.Option(
        "--format", metavar="table|json|csv|markdown", help="How the answer is written to stdout."
    ),
]
