"""The house stands: each module imports only from what lies below it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dpplan

PACKAGE = Path(dpplan.__file__).parent

# From the ground up, one module or subpackage a line; a module imports only from lines above its
# own (and, in a subpackage given as one line, from its own rooms). A new module gets its line here.
ORDER = (
    # L0: numbers with units, errors
    "dpplan.units",
    "dpplan.errors",
    # L1: data
    "dpplan.profiles.architecture",
    "dpplan.profiles.parameter_counts",
    "dpplan.profiles.yaml_reader",
    "dpplan.profiles.yaml_writer",
    "dpplan.profiles.config_reader",
    "dpplan.profiles.attention_kinds",
    "dpplan.profiles.grouped_query_families",
    "dpplan.profiles.latent_families",
    "dpplan.profiles.recurrent_families",
    "dpplan.profiles.hybrid_families",
    "dpplan.profiles.huggingface",
    "dpplan.profiles.schema",
    "dpplan.profiles.hardware",
    "dpplan.profiles.workload",
    "dpplan.profiles.model",
    "dpplan.profiles.model_import",
    "dpplan.profiles.calibration",
    "dpplan.profiles.measurements",
    "dpplan.profiles.library",
    "dpplan.profiles",
    # L2: pure functions, the traffic table, results
    "dpplan.demand.kv_cache",
    "dpplan.demand.flop",
    "dpplan.demand.collectives",
    "dpplan.demand.decode",
    "dpplan.demand",
    "dpplan.capacity",
    "dpplan.routes",
    "dpplan.result",
    # L3: what the limits imply
    "dpplan.closed_form",
    "dpplan.bottleneck_free",
    "dpplan.certificate",
    "dpplan.lp",
    "dpplan.deployment.placement",
    "dpplan.deployment.sides",
    "dpplan.deployment.turns",
    "dpplan.deployment.engines",
    "dpplan.deployment.limits",
    "dpplan.deployment",
    "dpplan.strategies",
    "dpplan.prefill_time",
    "dpplan.queueing.constants",
    "dpplan.queueing.systems",
    "dpplan.queueing.quantiles",
    "dpplan.queueing.sessions",
    "dpplan.queueing.scenario",
    "dpplan.queueing.stations",
    "dpplan.queueing.offline",
    "dpplan.queueing.online",
    "dpplan.queueing",
    # L4: the chain
    "dpplan.nodes",
    "dpplan.assumptions",
    "dpplan.advice",
    "dpplan.summaries",
    "dpplan.planner",
    # L5: questions around a plan, and how answers look
    "dpplan.break_even",
    "dpplan.pools",
    "dpplan.fleet",
    "dpplan.sweep",
    "dpplan.traces",
    "dpplan.cache_sizes",
    "dpplan.cache_plan",
    "dpplan.calibrations",
    "dpplan.comparison",
    "dpplan.calibrate",
    "dpplan.validate",
    "dpplan.prediction",
    "dpplan.prospect",
    "dpplan.predictor",
    "dpplan.explain",
    "dpplan.check",
    "dpplan.report",
    "dpplan.pytest_plugin",
    # L6: the command line
    "dpplan.cli",
    "dpplan.__main__",
)
# Neighbours that meet only further up, through the traffic table.
STRANGERS = (("dpplan.demand", "dpplan.capacity"), ("dpplan.demand", "dpplan.routes"))
FACADE = "dpplan"
MAX_LINES = 400
FILE_USERS = (
    "dpplan.profiles",
    "dpplan.traces",
    "dpplan.check.baseline",  # reads and writes the predictions that `dpplan check` holds
    "dpplan.cli.import_command",  # reads the config.json
    "dpplan.cli.files",  # writes what `--output` and `--plot` name
    "dpplan.cli.output",  # points a closed stdout at the null device
)
FILE_CALLS = {"open", "fdopen", "read_text", "read_bytes", "read_csv", "read_json", "read_parquet"}
HEAVY = {"numpy", "pandas", "scipy", "pulp", "highspy", "pydantic", "rich", "matplotlib", "yaml"}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in PATHS.items()}
every_module = pytest.mark.parametrize("name", PATHS)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def rank(name: str) -> int:
    """Line of a module in ORDER, by its own name or that of the package it lies in."""
    ranks = [i for i, line in enumerate(ORDER) if within(name, line)]
    assert ranks, f"{name} has no place in the house: give it a line in ORDER"
    return ranks[0]


def imports(name: str) -> Iterator[str]:
    """Every module that a module imports, at the top or inside a function."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: an absolute import is needed"
            base = node.module or ""
            modules = {f"{base}.{alias.name}" for alias in node.names} & PATHS.keys()
            if modules != {f"{base}.{alias.name}" for alias in node.names}:
                modules.add(base)
            yield from sorted(modules)


def calls(name: str) -> Iterator[tuple[str, int]]:
    """Name and line of every call of a function or method."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            yield called, node.lineno


def test_every_line_of_the_order_is_a_module() -> None:
    assert [line for line in ORDER if line not in PATHS] == []


@every_module
def test_a_module_imports_only_from_below(name: str) -> None:
    if name == FACADE:
        pytest.skip("the facade names what it re-exports")
    above = [
        imported
        for imported in imports(name)
        if within(imported, FACADE) and imported != FACADE and rank(imported) > rank(name)
    ]
    assert above == []


@pytest.mark.parametrize(("one", "other"), STRANGERS)
def test_strangers_do_not_know_each_other(one: str, other: str) -> None:
    for name in PATHS:
        for mine, theirs in ((one, other), (other, one)):
            if within(name, mine):
                assert [i for i in imports(name) if within(i, theirs)] == []


def test_only_lp_imports_the_solver() -> None:
    users = {
        name for name in PATHS for i in imports(name) if i.split(".")[0] in ("pulp", "highspy")
    }
    assert users == {"dpplan.lp"}


@every_module
def test_only_profiles_open_files(name: str) -> None:
    if not any(within(name, user) for user in FILE_USERS):
        assert [f"{name}:{line}: {call}" for call, line in calls(name) if call in FILE_CALLS] == []


@every_module
def test_only_the_command_line_prints(name: str) -> None:
    if not within(name, "dpplan.cli"):
        assert [f"{name}:{line}" for call, line in calls(name) if call == "print"] == []


@every_module
def test_rooms_are_small(name: str) -> None:
    lines = len(PATHS[name].read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, f"{name}: split by subject"


@pytest.mark.parametrize("name", ["dpplan", "dpplan.cli", "dpplan.pytest_plugin"])
def test_importing_costs_nothing_heavy(name: str) -> None:
    code = f"import json, sys, {name}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, encoding="utf-8"
    )
    loaded = {module.split(".")[0] for module in json.loads(done.stdout)}
    assert loaded & HEAVY == set()
