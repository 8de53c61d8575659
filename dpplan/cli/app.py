"""The commands and their options; each loads its work when it runs."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

import typer

from dpplan.cli.usage import positive_number, whole_number

__all__ = ["app", "command"]

app = typer.Typer(
    name="dpplan",
    help="Capacity planner for LLM serving with prefill and decode on separate nodes and the KV "
    "cache loaded from storage over two paths (DualPath, arXiv 2602.21548).",
    epilog="Exit codes: 0 fine, 2 bad input, 3 infeasible, 4 a check found drift, 1 anything "
    "else, such as output that cannot be written.",
    add_completion=False,
    # Plain help and our own messages: rich would cost more to load than the answer takes.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

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


@cache
def command() -> Any:
    """The parser of the whole command line."""
    return typer.main.get_command(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        from dpplan import __version__
        from dpplan.cli import output

        output.text(f"dpplan {__version__}\n")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


@app.command()
def optimize(
    hw: Hw = None,
    workload: Workload = "agentic",
    model: ModelName = None,
    prefill_hw: PrefillHw = None,
    decode_hw: DecodeHw = None,
    nodes: Nodes = None,
    prefill_nodes: PrefillNodes = None,
    decode_nodes: DecodeNodes = None,
    settings: Settings = None,
    unlimited: Unlimited = None,
    traffic: Traffic = "full",
    format: Format = "table",
) -> None:
    """Best split of KV reads, throughput bound, what binds and what to change."""
    from dpplan.cli.plan_commands import Question, run_optimize

    run_optimize(
        Question(
            hw,
            workload,
            model,
            prefill_hw,
            decode_hw,
            nodes,
            prefill_nodes,
            decode_nodes,
            tuple(settings or ()),
            tuple(unlimited or ()),
            traffic,
        ),
        format,
    )


@app.command()
def explain(
    hw: Hw = None,
    workload: Workload = "agentic",
    model: ModelName = None,
    prefill_hw: PrefillHw = None,
    decode_hw: DecodeHw = None,
    nodes: Nodes = None,
    prefill_nodes: PrefillNodes = None,
    decode_nodes: DecodeNodes = None,
    settings: Settings = None,
    unlimited: Unlimited = None,
    traffic: Traffic = "full",
    format: Format = "table",
) -> None:
    """Every term of the answer: equation, numbers put in, result, source."""
    from dpplan.cli.plan_commands import Question, run_explain

    run_explain(
        Question(
            hw,
            workload,
            model,
            prefill_hw,
            decode_hw,
            nodes,
            prefill_nodes,
            decode_nodes,
            tuple(settings or ()),
            tuple(unlimited or ()),
            traffic,
        ),
        format,
    )


@app.command()
def size(
    hw: Annotated[
        list[str] | None,
        typer.Option("--hw", metavar="PROFILE", help="Node type for both sides; repeatable."),
    ] = None,
    prefill_hw: Annotated[
        list[str] | None,
        typer.Option("--prefill-hw", metavar="PROFILE", help="Node type for prefill; repeatable."),
    ] = None,
    decode_hw: Annotated[
        list[str] | None,
        typer.Option("--decode-hw", metavar="PROFILE", help="Node type for decode; repeatable."),
    ] = None,
    workload: Workload = "agentic",
    model: ModelName = None,
    turns_per_s: Annotated[
        float | None,
        typer.Option(
            "--turns-per-s",
            metavar="RATE",
            parser=positive_number("--turns-per-s"),
            help="Turns per second to sustain.",
        ),
    ] = None,
    sessions_per_s: Annotated[
        float | None,
        typer.Option(
            "--sessions-per-s",
            metavar="RATE",
            parser=positive_number("--sessions-per-s"),
            help="Sessions per second to sustain.",
        ),
    ] = None,
    strategy: Annotated[
        str,
        typer.Option("--strategy", metavar="dual-path|prefill-only", help="How KV is loaded."),
    ] = "dual-path",
    settings: Settings = None,
    unlimited: Unlimited = None,
    traffic: Traffic = "full",
    format: Format = "table",
) -> None:
    """Fewest or cheapest nodes that sustain a demand, of one or several node types."""
    from dpplan.cli.fleet_command import run_size

    both = tuple(hw or ())
    run_size(
        workload,
        model,
        (*both, *(prefill_hw or ())),
        (*both, *(decode_hw or ())),
        turns_per_s,
        sessions_per_s,
        strategy,
        tuple(settings or ()),
        tuple(unlimited or ()),
        traffic,
        format,
    )


@app.command()
def check(
    scenarios: Annotated[
        str | None,
        typer.Argument(
            metavar="SCENARIOS.yaml",
            help="What to predict: a path, or the name of shipped ones; absent = dualpath-paper.",
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            metavar="FILE",
            help="Predictions once accepted; absent = the .json beside the scenarios.",
        ),
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Accept the predictions of now: write the baseline.")
    ] = False,
    format: Annotated[
        str,
        typer.Option(
            "--format", metavar="table|json|markdown", help="How the answer is written to stdout."
        ),
    ] = "table",
) -> None:
    """Recompute scenarios and fail (exit code 4) where a prediction left its tolerance."""
    from dpplan.cli.check_command import run_check

    run_check(scenarios, baseline, update, format)


@app.command("list")
def list_profiles(
    kind: Annotated[
        str | None, typer.Argument(metavar="[hardware|models|workloads]", help="One kind only.")
    ] = None,
    format: Format = "table",
) -> None:
    """Profiles by name, with what they are."""
    from dpplan.cli.profile_commands import run_list

    run_list(kind, format)


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name or path of a profile.")],
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind", metavar="hardware|model|workload", help="Needed where a name is several."
        ),
    ] = None,
    format: Format = "table",
) -> None:
    """Every number of a profile with its unit and where it comes from."""
    from dpplan.cli.profile_commands import run_show

    run_show(name, kind, format)


@app.command()
def schema(
    kind: Annotated[
        str, typer.Argument(metavar="hardware|model|workload", help="Kind of profile.")
    ],
) -> None:
    """JSON Schema of a profile, for editors."""
    from dpplan.cli.profile_commands import run_schema

    run_schema(kind)


@app.command("import-model")
def import_model(
    config: Annotated[str, typer.Argument(metavar="CONFIG.JSON", help="A model's config.json.")],
    out: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write here; absent = stdout."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Name of the profile; absent = the file's."),
    ] = None,
    ignore_field: Annotated[
        list[str] | None,
        typer.Option("--ignore-field", metavar="FIELD", help="A field you vouch for; repeatable."),
    ] = None,
    kv_dtype: Annotated[
        str,
        typer.Option(
            "--kv-dtype", metavar="DTYPE", help="Precision of the KV cache: the engine's choice."
        ),
    ] = "fp8",
    weight_dtype: Annotated[
        str | None,
        typer.Option(
            "--weight-dtype", metavar="DTYPE", help="Precision of weights in place of the file's."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Model profile from a Hugging Face config.json."""
    from dpplan.cli.import_command import run_import

    run_import(config, out, name, tuple(ignore_field or ()), kv_dtype, weight_dtype, force)
