#!/usr/bin/env python3
"""Run dpplan, or its tests, from a fresh checkout with nothing but Python 3.11 or newer and pip.

    python3 start.py optimize --hw h800.yaml --workload agentic.yaml
    python3 start.py test

The first form makes `.venv` beside this file if need be, installs the checkout there and hands all
arguments to `dpplan`. The second builds the distributions, installs the wheel outside the checkout
and runs every check on it. Both install the versions of `constraints.txt`; later calls of the first
form start at once. What this script says goes to stderr: stdout is the planner's.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 - it is run by whatever Python there is
    sys.exit(
        f"start.py: Python 3.11 or newer is needed, got {sys.version.split()[0]}; "
        "try python3.13 start.py, python3.12 start.py or python3.11 start.py"
    )

ROOT = Path(__file__).resolve().parent
CONSTRAINTS = ROOT / "constraints.txt"
PROFILES = ("hardware", "models", "workloads", "scenarios", "calibrations", "measurements")
OTHER_PYTHONS = ("3.11", "3.12", "3.13")
BIN = "Scripts" if os.name == "nt" else "bin"
NO_PIP = (
    "start.py: pip is needed in the new environment, and neither ensurepip nor pip is there; "
    "install them (Debian, Ubuntu: apt install python3-venv python3-pip)"
)
NO_INDEX = (
    "start.py: pip could not install what is needed (its message stands above); the first run "
    "needs a package index, or a folder of wheels named by PIP_FIND_LINKS and PIP_NO_INDEX=1"
)


def say(text: str) -> None:
    """Print progress to stderr."""
    print(text, file=sys.stderr, flush=True)


def run(*command: str | Path, cwd: Path = ROOT) -> bool:
    """Run a command with its output sent to stderr; did it succeed?"""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, stdout=sys.stderr, env=clean_environment())
    return done.returncode == 0


def clean_environment() -> dict[str, str]:
    """The environment without what would let code from elsewhere into ours."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}


def script(venv: Path, name: str) -> Path:
    """Path of a command of a virtual environment."""
    return venv / BIN / (f"{name}.exe" if os.name == "nt" else name)


def make_venv(venv: Path, python: str = sys.executable) -> None:
    """Create a virtual environment with pip, also where Debian has split ensurepip off."""
    has_ensurepip = python != sys.executable or importlib.util.find_spec("ensurepip") is not None
    if has_ensurepip and run(python, "-m", "venv", "--clear", venv):
        return
    bare = run(python, "-m", "venv", "--clear", "--without-pip", venv)
    new_python = script(venv, "python")
    if not bare or not run(python, "-m", "pip", "--python", new_python, "install", "-q", "pip"):
        shutil.rmtree(venv, ignore_errors=True)
        sys.exit(NO_PIP)


def has_pip(venv: Path) -> bool:
    """Is this a virtual environment that can be installed into?"""
    python = script(venv, "python")
    command = [str(python), "-m", "pip", "--version"]
    return python.exists() and subprocess.run(command, capture_output=True).returncode == 0


def install(venv: Path, *what: str | Path) -> None:
    """Install with the versions of the lock, or stop with what to do."""
    pip = (script(venv, "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    if not run(*pip, "--no-input", "--constraint", CONSTRAINTS, *what):
        sys.exit(NO_INDEX)


# -- python3 start.py COMMAND ... ------------------------------------------------------------------


def planner_venv() -> Path:
    """The environment of the checkout, made or renewed when anything it depends on has changed."""
    venv = ROOT / ".venv"
    stamp = venv / "dpplan-start.txt"
    digest = hashlib.sha256(f"{ROOT}\n{sys.version}\n".encode())
    for name in ("start.py", "pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    stamped = stamp.read_text() if stamp.is_file() else ""
    if stamped == digest.hexdigest() and script(venv, "dpplan").exists():
        return venv
    say(f"start.py: installing dpplan into {venv} (once; about a minute)")
    # Another's environment is added to, never cleared, unless it is broken.
    if stamped or not has_pip(venv):
        make_venv(venv)
    install(venv, "--editable", ROOT)
    stamp.write_text(digest.hexdigest())
    return venv


def plan(arguments: list[str]) -> int:
    """Run `dpplan` with the arguments given, in the caller's working directory."""
    command = [str(script(planner_venv(), "dpplan")), *arguments]
    if os.name == "nt":  # execv would return to the prompt at once
        return subprocess.run(command, env=clean_environment()).returncode
    os.execve(command[0], command, clean_environment())


# -- python3 start.py test -------------------------------------------------------------------------


def test(pytest_arguments: list[str]) -> int:
    """Build, install elsewhere, check; every step runs, whatever the ones before it found."""
    work = Path(tempfile.mkdtemp(prefix="dpplan-test-")).resolve()
    try:
        return check_all(work, pytest_arguments)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def check_all(work: Path, pytest_arguments: list[str]) -> int:
    """Run the steps in `work`, a folder outside the checkout, and say which of them failed."""
    venv, dist = work / "venv", work / "dist"
    python = script(venv, "python")
    failed = []

    def step(name: str, passed: bool) -> None:
        say(f"-- {name}: {'ok' if passed else 'FAILED'}")
        if not passed:
            failed.append(name)

    say("-- environment")
    make_venv(venv)
    install(venv, "build", "hatchling")
    # The wheel is built from the sdist, so that the sdist is known to be whole.
    if not run(python, "-m", "build", "--no-isolation", "--outdir", dist, ROOT):
        step("build", False)
        return 1
    (wheel,) = dist.glob("*.whl")
    faults = wheel_faults(wheel)
    step("wheel contents", not faults)
    for fault in faults:
        say(f"   {fault}")
    install(venv, f"dpplan[test,dev,notebooks,tokenizer] @ {wheel.as_uri()}")

    step(
        "ruff check", run(python, "-m", "ruff", "check", "--no-cache", "--output-format", "concise")
    )
    step("ruff format", run(python, "-m", "ruff", "format", "--no-cache", "--check", "."))
    step("mypy", run(python, "-m", "mypy", "--cache-dir", work / "mypy"))
    # The wheel's scenarios and profiles against the predictions that the checkout has committed.
    for path in sorted((ROOT / "scenarios").glob("*.yaml")):
        words = ("check", path.stem, "--baseline", path.with_suffix(".json"))
        step(f"dpplan check {path.stem}", run(script(venv, "dpplan"), *words, cwd=work))
    for version in OTHER_PYTHONS:
        if version != f"{sys.version_info[0]}.{sys.version_info[1]}":
            smoke(version, wheel, work, step)

    # A copy of the checkout without the package: the tests can only import the installed wheel.
    copy = work / "checkout"
    hidden = shutil.ignore_patterns("dpplan", "__pycache__", "build", "dist", ".*")
    shutil.copytree(ROOT, copy, ignore=hidden)
    shared = Path(os.environ.get("DPPLAN_SHARED", ROOT.parent / "shared"))
    if shared.is_dir() and os.name != "nt":
        (work / "shared").symlink_to(shared.resolve(), target_is_directory=True)
    options = pytest_arguments or ["-n", "auto", "tests", "--pyargs", "dpplan"]
    step("pytest", run(python, "-m", "pytest", "-p", "no:cacheprovider", *options, cwd=copy))
    say(f"start.py: failed: {', '.join(failed)}" if failed else "start.py: every check passed")
    return 1 if failed else 0


def wheel_faults(wheel: Path) -> list[str]:
    """What a wheel holds too much or lacks, against the checkout."""
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "dpplan").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    profiles = {
        f"dpplan/shipped/{kind}/{path.name}"
        for kind in PROFILES
        for path in (ROOT / kind).iterdir()
    }
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    info = next(name.split("/")[0] for name in held if name.endswith("/METADATA"))
    names = ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")
    due = package | profiles | {f"{info}/{name}" for name in names}
    return [f"lacks {name}" for name in sorted(due - held)] + [
        f"holds {name}" for name in sorted(held - due)
    ]


def smoke(version: str, wheel: Path, work: Path, step: Callable[[str, bool], None]) -> None:
    """Plan once with the wheel under another Python, if this machine has it."""
    python = find_python(version)
    if python is None:
        say(f"-- Python {version}: not found here, skipped")
        return
    venv = work / f"venv-{version}"
    make_venv(venv, python)
    install(venv, wheel)
    words = ("optimize", "--hw", "h800.yaml", "--workload", "agentic.yaml", "--format", "json")
    command = [str(script(venv, "dpplan")), *words]
    answer = subprocess.run(command, cwd=work, stdout=subprocess.PIPE, env=clean_environment())
    step(f"Python {version}", answer.returncode == 0 and b'"dpplan.optimize/1"' in answer.stdout)


def find_python(version: str) -> str | None:
    """An interpreter of that version: on the PATH, or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [shutil.which(f"python{version}")]
    found += [str(path) for path in pyenv.glob(f"{version}.*/bin/python{version}")]
    for python in found:
        if python and subprocess.run([python, "-c", ""], capture_output=True).returncode == 0:
            return python
    return None


if __name__ == "__main__":
    words = sys.argv[1:]
    sys.exit(test(words[1:]) if words[:1] == ["test"] else plan(words))
