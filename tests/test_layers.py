"""The house stands: each module imports only from what lies below it."""

from __future__ import annotations

import ast
import graphlib
import io
import json
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import dpplan

PACKAGE = Path(dpplan.__file__).parent

# From the ground up, in the order of the data: a room imports only from rooms above its own line.
# Inside a room modules are as free as they like, but no import may lead back to where it began.
ROOMS = (
    "units",
    "errors",
    "arrays",
    "frozen",
    # what is given, and workloads out of logs
    "profiles",
    "demand",
    "traces",
    # demand meets capacity
    "solvers",
    "deployment",
    # what cannot be exceeded, what to expect
    "results",
    "bounds",
    "queueing",
    # questions, asked once, many times, against measurements
    "planner",
    "sweeps",
    "validation",
    # how answers look
    "report",
    "pytest_plugin",
    "cli",
    "__main__",
)
# Neighbours that meet only further up, through the traffic table.
STRANGERS = (
    ("dpplan.demand", "dpplan.deployment.capacity"),
    ("dpplan.demand", "dpplan.deployment.routes"),
    ("dpplan.demand", "dpplan.solvers"),
    ("dpplan.traces", "dpplan.solvers"),
)
FACADE = "dpplan"
MAX_CODE_LINES = 400
FILE_USERS = (
    "dpplan.profiles",
    "dpplan.traces",
    "dpplan.validation.measurements",  # reads measured tables
    "dpplan.validation.check.baseline",  # reads and writes what `dpplan check` holds
    "dpplan.cli.commands.import_model",  # reads the config.json
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
    """Line of a module's room in ROOMS."""
    room = name.split(".")[1]
    assert room in ROOMS, f"{name} has no place in the house: give {room} a line in ROOMS"
    return ROOMS.index(room)


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


def test_every_line_of_the_order_is_a_room() -> None:
    assert [line for line in ROOMS if f"dpplan.{line}" not in PATHS] == []


@every_module
def test_a_room_imports_only_from_below(name: str) -> None:
    if name == FACADE:
        pytest.skip("the facade names what it re-exports")
    above = [
        imported
        for imported in imports(name)
        if within(imported, FACADE) and imported != FACADE and rank(imported) > rank(name)
    ]
    assert above == []


def test_no_import_leads_back_to_where_it_began() -> None:
    graph = {
        name: {i for i in imports(name) if i in PATHS and i != FACADE}
        for name in PATHS
        if name != FACADE
    }
    # Raises CycleError, which names the modules of a circle.
    graphlib.TopologicalSorter(graph).prepare()


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
    assert users == {"dpplan.solvers.lp"}


@every_module
def test_only_profiles_open_files(name: str) -> None:
    if not any(within(name, user) for user in FILE_USERS):
        assert [f"{name}:{line}: {call}" for call, line in calls(name) if call in FILE_CALLS] == []


@every_module
def test_only_the_command_line_prints(name: str) -> None:
    if not within(name, "dpplan.cli"):
        assert [f"{name}:{line}" for call, line in calls(name) if call == "print"] == []


def code_lines(name: str) -> int:
    """Lines of a module that are neither blank, comment nor docstring."""
    words = {
        line
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    text = PATHS[name].read_text(encoding="utf-8")
    empty = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    code = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in empty | {tokenize.ENDMARKER}
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(code - words)


@every_module
def test_modules_are_small(name: str) -> None:
    assert code_lines(name) <= MAX_CODE_LINES, f"{name}: split by subject"


@pytest.mark.parametrize("name", ["dpplan", "dpplan.cli", "dpplan.pytest_plugin"])
def test_importing_costs_nothing_heavy(name: str) -> None:
    code = f"import json, sys, {name}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, encoding="utf-8"
    )
    loaded = {module.split(".")[0] for module in json.loads(done.stdout)}
    assert loaded & HEAVY == set()
