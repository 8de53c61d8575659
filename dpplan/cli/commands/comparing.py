"""The commands that hold predictions against what is known, and their options."""

from __future__ import annotations

from typing import Annotated

import typer

from dpplan.cli.options import Format

__all__ = ["check", "validate"]


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
    from dpplan.cli.commands.check import run_check

    run_check(scenarios, baseline, update, format)


def validate(
    csv: Annotated[
        str | None,
        typer.Argument(
            metavar="CSV",
            help="Measured results, columns as in measurements/README.md; absent = the paper's.",
        ),
    ] = None,
    calibration: Annotated[
        str,
        typer.Option(
            "--calibration",
            metavar="auto|none|PROFILE",
            help="Measured constants: those of each row's hardware, none (assumed ones), or a "
            "profile's.",
        ),
    ] = "auto",
    fail_above: Annotated[
        str | None,
        typer.Option(
            "--fail-above",
            metavar="PERCENT",
            help="Exit with code 4 if the median absolute error of the rows predicted is larger "
            "(10%, say), or any row cannot be predicted.",
        ),
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option(
            "--plot",
            metavar="FILE.png|svg",
            help="Draw predicted against measured; needs matplotlib.",
        ),
    ] = None,
    format: Format = "table",
) -> None:
    """Predictions against measured results: errors by row, figure, model, system and metric."""
    from dpplan.cli.commands.validate import run_validate

    run_validate(csv, calibration, fail_above, plot, format)
