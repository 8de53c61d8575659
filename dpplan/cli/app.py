"""The commands and their options; each loads its work when it runs."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

import typer

from dpplan.cli.arguments import is_from_user, positive_number
from dpplan.cli.commands.calibrate import calibrate
from dpplan.cli.commands.comparing import check, validate
from dpplan.cli.commands.predict import predict
from dpplan.cli.commands.trace import trace_app
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
from dpplan.cli.trace_options import CacheSize, HitFraction, Traces

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
    settings: Settings = None,
    unlimited: Unlimited = None,
    traffic: Traffic = "full",
    format: Format = "table",
) -> None:
    """Best split of KV reads, throughput bound, what binds and what to change."""
    from dpplan.cli.commands.optimize import Question, run_optimize
    from dpplan.cli.commands.trace_workload import workload_option

    is_given = is_from_user(context, "workload")
    run_optimize(
        Question(
            hw,
            workload_option(workload, is_given, trace, cache, hit_fraction, model),
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
    from dpplan.cli.commands.optimize import Question, run_explain

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


app.command()(predict)


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
    from dpplan.cli.commands.size import run_size

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


app.command()(check)
app.command()(validate)
app.command()(calibrate)
app.add_typer(trace_app)


@app.command("list")
def list_profiles(
    kind: Annotated[
        str | None,
        typer.Argument(metavar="[hardware|models|workloads|calibrations]", help="One kind only."),
    ] = None,
    format: Format = "table",
) -> None:
    """Profiles by name, with what they are."""
    from dpplan.cli.commands.profiles import run_list

    run_list(kind, format)


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name or path of a profile.")],
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind",
            metavar="hardware|model|workload|calibration",
            help="Needed where a name is several.",
        ),
    ] = None,
    format: Format = "table",
) -> None:
    """Every number of a profile with its unit and where it comes from."""
    from dpplan.cli.commands.profiles import run_show

    run_show(name, kind, format)


@app.command()
def schema(
    kind: Annotated[
        str, typer.Argument(metavar="hardware|model|workload|calibration", help="Kind of profile.")
    ],
) -> None:
    """JSON Schema of a profile, for editors."""
    from dpplan.cli.commands.profiles import run_schema

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
    from dpplan.cli.commands.import_model import run_import

    run_import(config, out, name, tuple(ignore_field or ()), kv_dtype, weight_dtype, force)
