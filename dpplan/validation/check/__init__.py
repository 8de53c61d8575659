"""Hold predictions: recompute named scenarios and compare them with a baseline.

>>> from dpplan.validation.check import check
>>> check().passed
True
"""

from __future__ import annotations

import os
import platform
import shlex
from dataclasses import dataclass
from pathlib import Path

from dpplan import __version__
from dpplan.errors import BadInput, Fault
from dpplan.profiles.library import shipped_root
from dpplan.validation.check.baseline import baseline_text, read_baseline, write_baseline
from dpplan.validation.check.compare import CheckResult, HeldValue, Row, compare
from dpplan.validation.check.runner import evaluate_all
from dpplan.validation.check.scenarios import (
    DEFAULT,
    PlacedScenario,
    find_scenarios,
    read_scenarios,
)

__all__ = ["CheckResult", "Row", "check"]


def check(
    scenarios: str | os.PathLike[str] | None = None,
    baseline: str | os.PathLike[str] | None = None,
    *,
    update: bool = False,
) -> CheckResult:
    """Predictions of all scenarios beside their baseline.

    Parameters
    ----------
    scenarios : path or name, optional
        A YAML list of scenarios; absent = the shipped ones of the paper's results.
    baseline : path, optional
        JSON of accepted predictions; absent = the file beside the scenarios that ends in `.json`.
    update : bool
        Write the baseline, so that it holds the predictions of now. Nothing is written where an
        input is wrong.

    Returns
    -------
    CheckResult
        One row a value; `passed` is False where one drifted.

    Raises
    ------
    BadInput
        With all faults of scenarios and baseline, or of the calls that the scenarios make.
    """
    files = _locate(
        None if scenarios is None else os.fspath(scenarios),
        None if baseline is None else os.fspath(baseline),
    )
    placed, before, versions = _read(files, update)
    outcomes = evaluate_all(placed)
    tolerances = {
        one.scenario.name: {name: one.scenario.tolerance_of(name) for name in one.scenario.held}
        for one in placed
    }
    rows = compare(before, outcomes, tolerances)
    now = _versions()
    if update:
        write_baseline(files.baseline, baseline_text(placed, outcomes, now))
    return CheckResult(
        files.scenarios_shown, files.baseline_shown, files.accept, rows, now, versions, update
    )


@dataclass(frozen=True)
class _Files:
    """Where scenarios and baseline lie, and what they are called."""

    scenarios: Path
    scenarios_shown: str
    baseline: Path
    baseline_shown: str
    accept: str
    """Command that writes the baseline."""
    is_installed: bool
    """The baseline is the one installed with dpplan, which is nobody's to change."""


def _locate(scenarios: str | None, baseline: str | None) -> _Files:
    source = find_scenarios(DEFAULT if scenarios is None else scenarios)
    shown, is_shipped = str(source), False
    if scenarios is None or Path(scenarios).name == scenarios:
        root = shipped_root()
        is_shipped = source.is_absolute() and source.is_relative_to(root)
        shown = f"shipped {source.relative_to(root)}" if is_shipped else shown
    beside = source.with_suffix(".json")
    target = beside if baseline is None else Path(baseline)
    if target == source or not target.name or "\0" in str(target):
        needed = "the path of a JSON file is needed"
        raise BadInput(Fault("--baseline", needed, repr(str(target)[:60])))
    is_installed = is_shipped and baseline is None
    words = [] if scenarios is None else [scenarios]
    if baseline is not None or is_installed:
        words += ["--baseline", beside.name if baseline is None else baseline]
    return _Files(
        source,
        shown,
        target,
        f"shipped scenarios/{target.name}" if is_installed else str(target),
        shlex.join(["dpplan", "check", *words, "--update"]),
        is_installed,
    )


def _read(
    files: _Files, update: bool
) -> tuple[tuple[PlacedScenario, ...], dict[str, dict[str, HeldValue]], dict[str, str]]:
    """Scenarios, values of the baseline, its versions; the faults of both files together."""
    faults: list[Fault] = []
    placed: tuple[PlacedScenario, ...] = ()
    before: dict[str, dict[str, HeldValue]] = {}
    versions: dict[str, str] = {}
    if update and files.is_installed:
        needed = "a baseline of your own is needed with --update"
        faults.append(Fault("--baseline", needed, "none", f"for example `{files.accept}`"))
    try:
        placed = read_scenarios(files.scenarios, files.scenarios_shown)
    except BadInput as error:
        faults.extend(error.faults)
    try:
        if os.path.lexists(files.baseline):
            known = read_baseline(files.baseline, files.baseline_shown)
            versions = known.versions
            for scenario, metrics in known.scenarios.items():
                before[scenario] = {
                    metric: HeldValue(held.value, held.tolerance)
                    for metric, held in metrics.items()
                }
        elif not update:
            cure = f"write it with `{files.accept}`"
            faults.append(Fault(files.baseline_shown, "a baseline is needed", "no such file", cure))
    except BadInput as error:
        faults.extend(error.faults)
    if faults:
        raise BadInput(faults)
    return placed, before, versions


def _versions() -> dict[str, str]:
    """What the predictions are made with."""
    import numpy as np

    return {"dpplan": __version__, "python": platform.python_version(), "numpy": np.__version__}
