"""What README and docs show is what happens.

- ```console: a line `$ dpplan ...` is run; lines up to the next `$` are the output it must give
  (trailing blanks aside; a line `...` stands for any lines). No lines: only the exit code counts.
  `python3 start.py COMMAND` is run as `dpplan COMMAND`; other commands are not run.
- ```bash: lines that start with `dpplan` or `cp` are run and must succeed.
- ```python: blocks that name dpplan are run (as a doctest where they hold `>>>`).
- `<!-- test: exit 3 -->` before a block: that exit code is due. `<!-- test: skip, REASON -->`: the
  block is not run.

All blocks of a document share one folder, which starts with copies of the profiles, and one Python
namespace. With DPPLAN_UPDATE_DOCS=1 the outputs shown are replaced by those found, those that
end in `...` by as many lines as stand before it.
"""

from __future__ import annotations

import doctest
import importlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(?:<!-- test: (?P<marker>[^\n]*?) -->\n+)?"
    r"^(?P<fence>`{3,})(?P<kind>console|bash|sh|python)\n(?P<body>.*?)^(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"\[[^\]]*\]\((?!https?:|mailto:)([^)#\s]+)(?:#[^)]*)?\)")
METHOD = ROOT / "docs" / "method.md"
UPDATE = os.environ.get("DPPLAN_UPDATE_DOCS") == "1"


@dataclass
class Page:
    """A document being run: where its commands run, what they showed wrong."""

    folder: Path
    namespace: dict[str, Any]
    faults: list[str]

    def shell(self, command: str) -> tuple[int, str, str]:
        environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "PYTHONPATH")}
        environment["PATH"] = os.pathsep.join(
            [str(Path(sys.executable).parent), os.environ["PATH"]]
        )
        environment |= {"NO_COLOR": "1", "TERM": "dumb", "PYTHONIOENCODING": "utf-8"}
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            stdin=subprocess.DEVNULL,
            timeout=300,
        )
        return done.returncode, done.stdout, done.stderr

    def check(self, line: int, command: str, due: int, shown: list[str] | None) -> list[str]:
        """Run a command; return the lines it printed."""
        code, out, errors = self.shell(command)
        got = [text.rstrip() for text in (out if due == 0 else out + errors).splitlines()]
        if code != due:
            self.faults.append(f"line {line}: exit {code}, not {due}: {command}\n{out}{errors}")
        elif shown and not matches(shown, got) and not UPDATE:
            found = "\n".join(got)
            self.faults.append(f"line {line}: {command}\nprints\n{found}\nand not what is shown")
        return got


def matches(shown: list[str], got: list[str]) -> bool:
    """Do the lines agree, where `...` stands for any lines?

    >>> matches(["a", "...", "d"], ["a", "b", "c", "d"]), matches(["a"], ["b"])
    (True, False)
    """
    pattern = "".join("(?:.*\n)*?" if line == "..." else re.escape(line) + "\n" for line in shown)
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in got)) is not None


def joined(body: str) -> list[str]:
    return re.sub(r"\\\n\s*", "", body).splitlines()


def installed(command: str) -> str:
    """The command of the installed package in place of the checkout's."""
    return re.sub(r"^python3 start\.py (?!test\b)", "dpplan ", command)


def console(page: Page, line: int, body: str, due: int) -> str:
    """Run a console block; return it with the outputs found."""
    commands: list[tuple[str, list[str]]] = []
    lines = iter(body.splitlines())
    for text in lines:
        if text.startswith("$ "):
            while text.endswith("\\"):
                text += "\n" + next(lines)
            commands.append((text, []))
        else:
            assert commands, f"line {line}: a console block starts with a command"
            commands[-1][1].append(text.rstrip())
    result = []
    for text, given in commands:
        shown = given
        command = installed(re.sub(r"\\\n\s*", "", text).removeprefix("$ "))
        if command.startswith("dpplan "):
            got = page.check(line, command, due, shown)
            if shown and "..." not in shown:
                shown = got
            elif shown and "..." not in shown[:-1]:  # a beginning, as long as it was
                shown = [*got[: len(shown) - 1], "..."]
        result += [text, *shown]
    return "".join(f"{text}\n" for text in result)


def python(page: Page, line: int, body: str) -> None:
    if ">>>" in body:
        test = doctest.DocTestParser().get_doctest(body, page.namespace, f"line {line}", None, line)
        runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
        report: list[str] = []
        if runner.run(test, out=report.append, clear_globs=False).failed:
            page.faults.append("".join(report))
        page.namespace.update(test.globs)
        return
    try:
        exec(compile(body, f"line {line}", "exec"), page.namespace)
    except Exception as error:
        page.faults.append(f"line {line}: {error!r}\n{body}")


@pytest.mark.skipif(os.name == "nt", reason="the commands shown are a POSIX shell's")
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_is_shown_happens(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in (
        "hardware",
        "models",
        "workloads",
        "calibrations",
        "measurements",
        "scenarios",
        "docs/ci",
        "docs/traces",
    ):
        shutil.copytree(ROOT / kind, tmp_path / kind)
    monkeypatch.chdir(tmp_path)
    page = Page(tmp_path, {}, [])
    text = document.read_text(encoding="utf-8")
    changes: list[tuple[str, str]] = []
    for block in BLOCK.finditer(text):
        marker, body = block["marker"] or "", block["body"]
        line = text.count("\n", 0, block.start("body")) + 1
        if marker.startswith("skip"):
            assert marker.partition(",")[2].strip(), f"line {line}: a reason to skip is needed"
            continue
        due = int(marker.removeprefix("exit ")) if marker else 0
        if block["kind"] == "console":
            changes.append((body, console(page, line, body, due)))
        elif block["kind"] == "python":
            if "dpplan" in body:
                python(page, line, body)
        else:
            for command in map(installed, joined(body)):
                if command.startswith(("dpplan ", "cp ")):
                    page.check(line, command, due, None)
    if UPDATE:
        for old, new in changes:
            text = text.replace(old, new)
        document.write_text(text, encoding="utf-8")
    assert not page.faults, "\n\n".join(page.faults)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    dead = [
        link
        for link in LINK.findall(document.read_text(encoding="utf-8"))
        # The package itself is not copied to where the tests run against an installed one.
        if not (document.parent / link).exists()
        and not link.removeprefix("../").startswith("dpplan/")
    ]
    assert dead == []


def law_rows() -> list[dict[str, str]]:
    """Rows of the tables in docs/method.md that name a tag, its function and its test."""
    rows: list[dict[str, str]] = []
    header: list[str] = []
    for line in METHOD.read_text(encoding="utf-8").splitlines() if METHOD.is_file() else []:
        if not line.startswith("|"):
            header = []
            continue
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        if not header:
            header = [cell.lower() for cell in cells]
        elif {"tag", "function", "test"} <= set(header) and not set("".join(cells)) <= set("-: "):
            rows.append(dict(zip(header, cells, strict=True)))
    return rows


def quoted(cell: str) -> list[str]:
    """Names in backquotes; a cell without any, or with only a dash, names nothing."""
    return re.findall(r"`([^`]+)`", cell)


def resolves(name: str) -> bool:
    """Is there a module, function or attribute of this dotted name, with or without `dpplan.`?"""
    parts = name.removesuffix("()").removeprefix("dpplan.").split(".")
    for length in range(len(parts), -1, -1):
        module = ".".join(["dpplan", *parts[:length]])
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if not hasattr(found, part):
                fields = getattr(found, "__dataclass_fields__", {})
                return part in fields or part in getattr(found, "model_fields", {})
            found = getattr(found, part)
        return True
    return False


def is_test(name: str) -> bool:
    """`tests/test_x.py`, `test_x.py::test_y` or `test_y`."""
    path, _, function = name.removeprefix("tests/").partition("::")
    if path.endswith(".py"):
        file = ROOT / "tests" / path
        files, names = ([file] if file.is_file() else []), function
    else:
        files, names = sorted((ROOT / "tests").glob("test_*.py")), path
    wanted = re.compile(rf"def {re.escape(names)}\b" if names else "")
    return any(wanted.search(file.read_text(encoding="utf-8")) for file in files)


@pytest.mark.skipif(not METHOD.is_file(), reason="docs/method.md is not written yet")
def test_the_method_has_tables_of_laws() -> None:
    assert len(law_rows()) >= 10


@pytest.mark.parametrize("row", law_rows(), ids=lambda row: re.sub(r"\W+", "-", row["tag"]))
def test_every_law_has_its_function_and_its_test(row: dict[str, str]) -> None:
    functions, tests = quoted(row["function"]), quoted(row["test"])
    assert functions, f"{row['tag']}: a function in backquotes is needed"
    assert tests, f"{row['tag']}: a test in backquotes is needed"
    assert [name for name in functions if not resolves(name)] == []
    assert [name for name in tests if not is_test(name)] == []
