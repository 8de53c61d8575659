"""`dpplan check`: predictions held to a baseline, on the command line and in pytest."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpplan.cli import main
from dpplan.errors import BadInput
from dpplan.report.documents.check import check_document
from dpplan.report.renderers.terminal import Screen, render
from dpplan.validation.check import baseline as baseline_module
from dpplan.validation.check import check
from dpplan.validation.check.baseline import Baseline, read_baseline
from dpplan.validation.check.compare import ROUND_OFF, HeldValue, compare, is_within
from dpplan.validation.check.runner import Outcome, Value, look_up
from dpplan.validation.check.scenarios import Scenario, find_scenarios, read_scenarios

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
STORAGE = ["prefill.storage_nic_read", "decode.storage_nic_read"]
SCENARIOS = """\
- name: two
  optimize: {hw: h800, workload: agentic, prefill_nodes: 2, decode_nodes: 4}
  metrics: [speedup, strategies.dual-path.turns_per_s, strategies.dual-path.bottlenecks]
  tolerance: 1%
- name: paper
  optimize:
    hw: h800
    prefill_nodes: 1
    decode_nodes: 2
    traffic: paper
    unlimited: [prefill.gpu, prefill.hbm, prefill.kv_buffer, decode.gpu, decode.hbm, decode.kv_buffer]
  metrics:
  - speedup
  - bottleneck_free.holds
  - strategies.oracle.turns_per_s
  tolerances: {speedup: 0.1%}
"""
RATE = "strategies.dual-path.turns_per_s"
BASELINE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["schema", "versions", "scenarios"],
    "properties": {
        "schema": {"const": "dpplan.check/1"},
        "versions": {
            "type": "object",
            "required": ["dpplan", "python", "numpy"],
            "additionalProperties": {"type": "string"},
        },
        "scenarios": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["value", "tolerance"],
                    "properties": {
                        "value": {
                            "type": ["number", "string", "boolean", "null", "array"],
                            "items": {"type": "string"},
                        },
                        "tolerance": {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?%$"},
                    },
                },
            },
        },
    },
}

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """`dpplan check` in this process: exit code, stdout, stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = main(["check", *arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        assert "internal error" not in captured.err, captured.err
        return code, captured.out, captured.err

    return call


@pytest.fixture
def held(run: Run) -> Path:
    """Scenarios and their baseline in the working folder; returns the baseline."""
    Path("s.yaml").write_text(SCENARIOS, encoding="utf-8")
    assert run("s.yaml", "--update")[0] == 0
    return Path("s.json")


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def put(path: Path, scenario: str, metric: str, value: object) -> None:
    edit(path, lambda content: content["scenarios"][scenario][metric].update(value=value))


def value_of(path: Path, scenario: str, metric: str) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))["scenarios"][scenario][metric]["value"]


# ------------------------------------------------------------------------ the shipped predictions


def test_the_shipped_predictions_hold(run: Run) -> None:
    code, out, err = run()
    assert (code, err) == (0, "")
    assert "DRIFT" not in out
    assert out.startswith("shipped scenarios/dualpath-paper.yaml as in")


def test_the_committed_predictions_are_those_of_the_paper() -> None:
    """S2: speedups at six P:D; D4: Table 1 within 2 % at 16K and 5 % at 64K, but for V3."""
    path = ROOT / "scenarios" / "dualpath-paper.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.validate(content, BASELINE_SCHEMA)
    values = {
        (scenario, metric): held["value"]
        for scenario, metrics in content["scenarios"].items()
        for metric, held in metrics.items()
    }
    speedups = {"1p1d": 2, "2p1d": 1.5, "1p2d": 3, "2p4d": 3, "8p1d": 1.125, "1p8d": 8}
    for name, speedup in speedups.items():
        assert values[f"speedup-{name}", "speedup"] == pytest.approx(speedup, rel=1e-11)
    printed = {
        "qwen2.5-32b": (117, 267),
        "gpt-oss-120b": (47, 95),
        "qwen3-235b-a22b": (39, 60),
        "deepseek-v3.2": (13, 36),
    }
    ratio = "demand.cache_compute_ratio_gb_per_pflop"
    for model, (low, high) in printed.items():
        assert values[f"table-1-{model}-16k", ratio] == pytest.approx(low, rel=0.02)
        assert values[f"table-1-{model}-64k", ratio] == pytest.approx(high, rel=0.05)
    assert values["table-1-deepseek-v3-16k", ratio] < 0.85 * 4.8
    assert values["headline", "speedup"] == pytest.approx(3)
    assert values["headline", "strategies.dual-path.bottlenecks"] == STORAGE


def test_every_shipped_scenario_file_has_its_baseline_and_sources() -> None:
    files = sorted((ROOT / "scenarios").glob("*.yaml"))
    assert files
    for path in files:
        assert path.with_suffix(".json").is_file()
        for placed in read_scenarios(path, path.name):
            assert placed.scenario.source, f"{path.name}: {placed.scenario.name}: a source"


def test_the_installed_baseline_is_not_written(run: Run) -> None:
    code, out, err = run("--update")
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert "--baseline: a baseline of your own is needed with --update" in line
    cure = re.search(r"`dpplan check (.*)`", line)
    assert cure is not None
    assert run(*shlex.split(cure[1]))[0] == 0
    shipped = find_scenarios("dualpath-paper").with_suffix(".json")
    assert run("--baseline", "dualpath-paper.json")[0] == 0
    ours, theirs = (json.loads(p.read_text()) for p in (Path("dualpath-paper.json"), shipped))
    assert ours["scenarios"].keys() == theirs["scenarios"].keys()


def test_a_scenario_file_of_that_name_comes_first(run: Run) -> None:
    Path("scenarios").mkdir()
    Path("scenarios/dualpath-paper.yaml").write_text(SCENARIOS)
    assert run("--update")[0] == 0
    assert sorted(p.name for p in Path("scenarios").iterdir()) == [
        "dualpath-paper.json",
        "dualpath-paper.yaml",
    ]
    assert "6 values held" in run("dualpath-paper")[1]


# ---------------------------------------------------------------------------------------- drift


def test_what_holds_exits_0(run: Run, held: Path) -> None:
    code, out, err = run("s.yaml")
    assert (code, err) == (0, "")
    assert "s.yaml as in s.json: 6 values held" in out
    assert "183.608" in out
    assert "ACCEPT" not in out


def test_drift_names_scenario_metric_old_new_percent_and_cure(run: Run, held: Path) -> None:
    put(held, "two", RATE, 200.0)
    code, out, err = run("s.yaml")
    assert code == 4
    drift, _, rest = out.partition("TO ACCEPT THESE PREDICTIONS\n")
    assert re.search(
        r"^two\n +strategies.dual-path.turns_per_s +200 +183.608 +-8.2 % +1 %$", drift, re.M
    )
    assert "paper" not in drift
    assert rest.splitlines()[0] == "dpplan check s.yaml --update"
    (line,) = err.splitlines()
    assert line == (
        "dpplan: s.yaml: every prediction within its tolerance of s.json is needed, got 5 values "
        "held and 1 drifted; find out why, or accept them with `dpplan check s.yaml --update`"
    )


def test_the_cure_cures(run: Run, held: Path) -> None:
    put(held, "two", "speedup", 4.0)
    Path("a folder").mkdir()
    held.rename("a folder/b.json")
    code, out, _ = run("s.yaml", "--baseline", "a folder/b.json")
    assert code == 4
    cure = out.partition("TO ACCEPT THESE PREDICTIONS\ndpplan check ")[2].splitlines()[0]
    assert run(*shlex.split(cure))[0] == 0
    assert run("s.yaml", "--baseline", "a folder/b.json")[0] == 0
    assert value_of(Path("a folder/b.json"), "two", "speedup") == pytest.approx(3)


@pytest.mark.parametrize(
    ("metric", "old", "shown"),
    [
        ("bottleneck_free.holds", False, r"false +true +changed +exact"),
        ("bottleneck_free.holds", 1, r"1 +true +changed +exact"),
        ("strategies.oracle.turns_per_s", 5.0, r"5 +none +changed +1 %"),
        ("speedup", None, r"none +3 +changed +0.1 %"),
        ("speedup", "3", r"3 +3 +changed +exact"),
        ("speedup", 0, r"0 +3 +changed +0.1 %"),
        ("speedup", 3.0031, r"3.0031 +3 +-0.103 % +0.1 %"),
        ("speedup", -3.0, r"-3 +3 +\+200 % +0.1 %"),
    ],
)
def test_every_kind_of_value_drifts(
    metric: str, old: object, shown: str, run: Run, held: Path
) -> None:
    put(held, "paper", metric, old)
    code, out, _ = run("s.yaml")
    assert code == 4
    drift = out.partition("TO ACCEPT")[0]
    assert re.search(rf"^  {re.escape(metric)} +{shown}$", drift, re.M), out


def test_what_binds_is_held_to_the_letter(run: Run, held: Path) -> None:
    put(held, "two", "strategies.dual-path.bottlenecks", STORAGE[:1])
    code, out, _ = run("s.yaml")
    assert code == 4
    told = " ".join(out.split())
    assert (
        "two strategies.dual-path.bottlenecks: was prefill.storage_nic_read; is "
        "prefill.storage_nic_read, decode.storage_nic_read" in told
    )


@pytest.mark.parametrize(("factor", "code"), [(1 / 1.00999, 0), (1 / 1.01001, 4), (1, 0)])
def test_the_tolerance_is_the_edge(factor: float, code: int, run: Run, held: Path) -> None:
    put(held, "two", RATE, value_of(held, "two", RATE) * factor)
    assert run("s.yaml")[0] == code


def test_a_metric_may_have_a_tolerance_of_its_own(run: Run, held: Path) -> None:
    """0.5 % off: too much for the 0.1 % of one scenario's speedup, not for the other's 1 %."""
    put(held, "two", "speedup", 3.015)
    assert run("s.yaml")[0] == 0
    put(held, "paper", "speedup", 3.015)
    assert run("s.yaml")[0] == 4
    Path("s.yaml").write_text(SCENARIOS.replace("speedup: 0.1%", "speedup: 0.6%"))
    assert run("s.yaml")[0] == 0


@pytest.mark.parametrize(
    ("old", "new", "tolerance", "within"),
    [
        (100.0, 101.0, 0.01, True),
        (100.0, 99.0, 0.01, True),
        (100.0, 101.0001, 0.01, False),
        (100.0, 98.9999, 0.01, False),
        (-100.0, -101.0, 0.01, True),
        (-100.0, -101.0001, 0.01, False),
        (1.1, 1.111, 0.01, True),  # 0.011 more is 1 %, but not in floats
        (3, 3.0, 0.0, True),
        (3.0, 3.0 * (1 + 1e-12), 0.0, True),
        (3.0, 3.0 * (1 + 1e-8), 0.0, False),
        (2.58e11, 2.58e11 * (1 + 1e-12), 0.0, True),
        (2.58e11, 2.58e11 * (1 + 1e-8), 0.0, False),
        (0.0, 0.0, 0.01, True),
        (0.0, ROUND_OFF, 0.01, True),
        (0.0, 2 * ROUND_OFF, 1.0, False),
        (2 * ROUND_OFF, 0.0, 0.01, False),
        (0, 0.5, 1.0, False),
        (None, None, 0.0, True),
        (None, 0.0, 1.0, False),
        (0.0, None, 1.0, False),
        (True, True, 0.0, True),
        (True, 1, 1.0, False),
        (False, 0, 1.0, False),
        ("gpu", "gpu", 0.0, True),
        ("gpu", "hbm", 1.0, False),
        (["a", "b"], ["a", "b"], 0.0, True),
        (["a", "b"], ["b", "a"], 1.0, False),
        ([], None, 1.0, False),
    ],
)
def test_within(old: Value, new: Value, tolerance: float, within: bool) -> None:
    assert is_within(old, new, tolerance) is within


@given(
    old=st.floats(1e-3, 1e15) | st.floats(-1e15, -1e-3),
    tolerance=st.floats(1e-6, 1),
    share=st.floats(-3, 3),
)
def test_within_is_the_share_of_the_tolerance(old: float, tolerance: float, share: float) -> None:
    if 1 - 1e-2 < abs(share) < 1 + 1e-2 or (abs(old) < 1 and abs(share) > 1):
        return  # rounding decides
    assert is_within(old, old + share * tolerance * abs(old), tolerance) is (abs(share) < 1)


# ---------------------------------------------------------------------------------- new and gone


def test_a_new_scenario_is_drift(run: Run, held: Path) -> None:
    more = SCENARIOS + "- name: third\n  optimize: {hw: h20}\n  metrics: [speedup]\n"
    Path("s.yaml").write_text(more)
    code, out, err = run("s.yaml")
    assert code == 4
    assert re.search(
        r"^third\n  speedup +\S+ +new +1 %\n- third is not in the baseline yet\.$", out, re.M
    )
    assert "6 values held and 1 is new" in err
    assert run("s.yaml", "--update")[0] == 0
    assert run("s.yaml")[0] == 0


def test_a_gone_scenario_is_drift(run: Run, held: Path) -> None:
    Path("s.yaml").write_text(SCENARIOS[SCENARIOS.index("- name: paper") :])
    code, out, err = run("s.yaml")
    assert code == 4
    assert "- two is in the baseline and no scenario any more." in out
    assert re.search(r"^  speedup +3 +gone +1 %$", out, re.M)
    assert "3 values held and 3 are gone" in err
    assert "accept them with `dpplan check s.yaml --update`" in err
    assert run("s.yaml", "--update")[0] == 0
    assert list(json.loads(held.read_text())["scenarios"]) == ["paper"]


def test_a_renamed_scenario_is_new_and_gone(run: Run, held: Path) -> None:
    Path("s.yaml").write_text(SCENARIOS.replace("name: two", "name: both"))
    code, out, err = run("s.yaml")
    assert code == 4
    assert "3 values held, 3 are new and 3 are gone" in err
    assert "- both is not in the baseline yet." in out


def test_a_changed_set_of_metrics_is_drift(run: Run, held: Path) -> None:
    Path("s.yaml").write_text(SCENARIOS.replace("- bottleneck_free.holds", "- inputs.traffic"))
    code, out, err = run("s.yaml", "--format", "json")
    assert code == 4
    rows = {row["metric"]: row for row in json.loads(out)["values"] if row["scenario"] == "paper"}
    new, gone = rows["inputs.traffic"], rows["bottleneck_free.holds"]
    assert (new["status"], new["old"], new["new"], new["note"]) == (
        "new",
        None,
        "paper",
        "new metric",
    )
    assert (gone["status"], gone["old"], gone["new"], gone["note"]) == (
        "gone",
        True,
        None,
        "gone metric",
    )
    assert "5 values held, 1 is new and 1 is gone" in err


def test_rows_by_hand() -> None:
    before = {
        "a": {"x": HeldValue(10.0, 0.5), "y": HeldValue(1, 0.5)},
        "b": {"z": HeldValue(2, 0.25)},
    }
    now = {"a": Outcome({"x": 10.2}), "c": Outcome({"w": None}, "too small")}
    rows = compare(before, now, {"a": {"x": 0.01}, "c": {"w": 0.01}})
    told = [
        (r.scenario, r.metric, r.status, r.old, r.new, r.tolerance_fraction, r.note) for r in rows
    ]
    assert told == [
        ("a", "x", "drifted", 10.0, 10.2, 0.01, ""),
        ("a", "y", "gone", 1, None, 0.5, "gone metric"),
        ("c", "w", "new", None, None, 0.01, "infeasible: too small"),
        ("b", "z", "gone", 2, None, 0.25, "gone scenario"),
    ]
    assert rows[0].change_fraction == pytest.approx(0.02)


# -------------------------------------------------------------------------------------- baseline


def test_the_baseline_keeps_its_contract(held: Path) -> None:
    content = json.loads(held.read_text(encoding="utf-8"))
    jsonschema.validate(content, BASELINE_SCHEMA)
    assert content["scenarios"]["two"]["speedup"] == {"value": 3.0, "tolerance": "1%"}
    assert content["scenarios"]["paper"]["speedup"]["tolerance"] == "0.1%"
    assert content["scenarios"]["two"]["strategies.dual-path.bottlenecks"]["value"] == STORAGE
    assert content["scenarios"]["paper"]["strategies.oracle.turns_per_s"]["value"] is None
    from dpplan import __version__

    assert content["versions"]["dpplan"] == __version__
    assert held.read_bytes().endswith(b"}\n")
    assert read_baseline(held, "s.json").scenarios["two"]["speedup"].tolerance == 0.01


def test_the_report_for_machines(run: Run, held: Path) -> None:
    put(held, "two", "speedup", 4.0)
    edit(held, lambda content: content["versions"].update(dpplan="0.0.9"))
    code, out, err = run("s.yaml", "--format", "json")
    assert code == 4
    content = json.loads(out)
    assert content["schema"] == "dpplan.check-result/1"
    assert (content["passed"], content["updated"]) == (False, False)
    assert content["accept"] == "dpplan check s.yaml --update"
    assert content["versions"]["baseline"]["dpplan"] == "0.0.9"
    row = content["values"][0]
    assert {k: row[k] for k in ("scenario", "metric", "status", "old", "new")} == {
        "scenario": "two", "metric": "speedup", "status": "drifted", "old": 4.0, "new": 3.0,
    }  # fmt: skip
    assert row["change_fraction"] == pytest.approx(-0.25)
    assert row["tolerance_fraction"] == 0.01
    assert len(err.splitlines()) == 1
    assert "(dpplan 0.0.9 then, " in run("s.yaml")[1]


def test_update_writes_the_same_bytes_again(run: Run, held: Path) -> None:
    first = held.read_bytes()
    code, out, err = run("s.yaml", "--update")
    assert (code, err) == (0, "dpplan: wrote s.json\n")
    assert out.startswith("s.json written from s.yaml: 6 values held")
    assert held.read_bytes() == first


def test_update_says_what_it_accepts(run: Run, held: Path) -> None:
    put(held, "two", "speedup", 4.0)
    code, out, _ = run("s.yaml", "--update")
    assert code == 0
    assert re.search(
        r"^ACCEPTED +old +new +change +tolerance\ntwo\n  speedup +4 +3 +-25 % +1 %$", out, re.M
    )
    assert "TO ACCEPT" not in out
    assert value_of(held, "two", "speedup") == 3.0


def test_without_update_nothing_is_written(run: Run, held: Path) -> None:
    put(held, "two", "speedup", 4.0)
    before, names = held.read_bytes(), sorted(os.listdir())
    assert run("s.yaml")[0] == 4
    assert (held.read_bytes(), sorted(os.listdir())) == (before, names)


@pytest.mark.parametrize("broken", ["replace", "fsync"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_baseline(
    broken: str, error: BaseException, run: Run, held: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(held, "two", "speedup", 4.0)
    before, names = held.read_bytes(), sorted(os.listdir())

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, broken, fail)
    code, out, err = run("s.yaml", "--update")
    assert code == (2 if isinstance(error, OSError) else 130)
    assert out == ""
    if isinstance(error, OSError):
        assert "a writable path is needed, got no space left on device" in err
    assert (held.read_bytes(), sorted(os.listdir())) == (before, names)


def test_the_baseline_is_whole_at_every_moment(
    run: Run, held: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the one step that replaces it, the old baseline stands; the new one is complete."""
    put(held, "two", "speedup", 4.0)
    before, real, seen = held.read_bytes(), os.replace, []

    def watched(source: str, target: str) -> None:
        assert held.read_bytes() == before
        seen.append(read_baseline(Path(source), "new").scenarios.keys())
        assert Path(source).parent == Path(target).parent
        real(source, target)

    monkeypatch.setattr(os, "replace", watched)
    assert run("s.yaml", "--update")[0] == 0
    assert seen == [{"two", "paper"}]


def test_update_with_a_faulty_scenario_writes_nothing(run: Run, held: Path) -> None:
    Path("s.yaml").write_text(SCENARIOS.replace("hw: h800, workload", "hw: h80, workload"))
    before = held.read_bytes()
    assert run("s.yaml", "--update")[0] == 2
    assert held.read_bytes() == before


def test_update_overwrites_no_other_file(run: Run, held: Path) -> None:
    for name, content in (("notes.md", "# Notes\n"), ("other.json", '{"schema": "other/1"}\n')):
        Path(name).write_text(content)
        code, out, err = run("s.yaml", "--baseline", name, "--update")
        assert (code, out) == (2, ""), err
        assert name in err
        assert Path(name).read_text() == content
    code, _, err = run("s.yaml", "--baseline", "s.yaml", "--update")
    assert (code, err) == (
        2,
        "dpplan: --baseline: the path of a JSON file is needed, got 's.yaml'\n",
    )
    assert Path("s.yaml").read_text() == SCENARIOS


@pytest.mark.skipif(os.name == "nt", reason="links of POSIX")
def test_a_link_to_the_baseline_stays_one(run: Run, held: Path) -> None:
    Path("real").mkdir()
    held.rename("real/s.json")
    held.symlink_to("real/s.json")
    put(Path("real/s.json"), "two", "speedup", 4.0)
    assert run("s.yaml", "--update")[0] == 0
    assert held.is_symlink()
    assert value_of(Path("real/s.json"), "two", "speedup") == 3.0


def test_a_missing_baseline_says_how_to_write_it(run: Run) -> None:
    Path("s.yaml").write_text(SCENARIOS)
    code, out, err = run("s.yaml", "--baseline", "new.json")
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith(
        "dpplan: new.json: a baseline is needed, got no such file; write it with"
    )
    cure = re.search(r"`dpplan check (.*)`", line)
    assert cure is not None
    assert run(*shlex.split(cure[1]))[0] == 0
    assert run("s.yaml", "--baseline", "new.json")[0] == 0


def test_a_folder_that_is_not_there(run: Run) -> None:
    Path("s.yaml").write_text(SCENARIOS)
    code, out, err = run("s.yaml", "--baseline", "no/such/b.json", "--update")
    assert (code, out) == (2, "")
    assert "--baseline no/such/b.json: a writable path is needed, got no such file" in err


# ------------------------------------------------------------------------------------ bad files

GOOD = """\
- name: one
  optimize: {hw: h800}
  metrics: [speedup]
"""
PREDICT = """\
- name: one
  predict: {hw: h800}
  compare: {jct_s: [basic, dualpath]}
"""
SCENARIO_FAULTS = {
    "misspelt key": (GOOD, "metrics:", "metric:", r"s.yaml:3: metric: a known key is needed, got 'metric'; did you mean metrics\?"),
    "misspelt argument": (GOOD, "{hw: h800}", "{hw: h800, node: 6}", r"s.yaml:2: optimize.node: a known key is needed.*did you mean nodes\?"),
    "no name": (GOOD, "- name: one\n  optimize", "- optimize", r"s.yaml:1: name: this key is needed"),
    "bad name": (GOOD, "name: one", "name: a b", r"s.yaml:1: name: a name of letters.*got 'a b'"),
    "no call": (GOOD, "  optimize: {hw: h800}\n", "", r"s.yaml:1: one of optimize and predict is needed, got none"),
    "empty call": (GOOD, "optimize: {hw: h800}", "optimize:", r"s.yaml:1: one of optimize and predict is needed, got none"),
    "two calls": (GOOD, "  metrics", "  predict: {hw: h800}\n  metrics", r"s.yaml:1: one of optimize and predict is needed, got both"),
    "call as text": (GOOD, "{hw: h800}", "h800", r"s.yaml:2: optimize: a mapping of keys to values is needed, got 'h800'"),
    "no metrics": (GOOD, "  metrics: [speedup]\n", "", r"s.yaml:1: metrics: a metric to hold is needed, got none; add it"),
    "metrics as text": (GOOD, "[speedup]", "speedup", r"s.yaml:3: metrics: a list is needed, got 'speedup'"),
    "metric as number": (GOOD, "[speedup]", "[7]", r"s.yaml:3: metrics.0: text is needed, got 7"),
    "metric twice": (GOOD, "[speedup]", "[speedup, speedup]", r"s.yaml:3: metrics.1: each metric once is needed, got 'speedup' again"),
    "unknown metric": (GOOD, "[speedup]", "[speedups]", r"s.yaml:3: metrics.0: a value of the answer is needed, got 'speedups'; did you mean speedup\?"),
    "metric by its end": (GOOD, "[speedup]", "[demand.hit_rate]", r"metrics.0: a value of the answer.*did you mean demand.hit_rate_fraction\?"),
    "metric without its head": (GOOD, "[speedup]", "[kv_bytes_per_token]", r"metrics.0: .*did you mean demand.kv_bytes_per_token\?"),
    "metric of many": (GOOD, "[speedup]", "[speedup, strategies.dual-path]", r"metrics.1: a single value or a list of names is needed, got a mapping; choose a value in it, such as strategies.dual-path.decode_read_fraction"),
    "metric of rows": (GOOD, "[speedup]", "[nodes]", r"metrics.0: a single value.*got a list; choose a value in it, such as nodes.0.prefill_nodes"),
    "no such row": (GOOD, "[speedup]", "[nodes.99.chosen]", r"metrics.0: a value of the answer is needed"),
    "through a number": (GOOD, "[speedup]", "[speedup.x]", r"metrics.0: a value of the answer is needed"),
    "bare tolerance": (GOOD, "metrics: ", "tolerance: 0.01\n  metrics: ", r"s.yaml:3: tolerance: a percentage from 0% to 100%, such as 1%, is needed, got 0.01"),
    "negative tolerance": (GOOD, "metrics: ", "tolerance: -1%\n  metrics: ", r"s.yaml:3: tolerance: a percentage .*got '-1%'"),
    "huge tolerance": (GOOD, "metrics: ", "tolerance: 101%\n  metrics: ", r"s.yaml:3: tolerance: a percentage"),
    "tolerance nan": (GOOD, "metrics: ", "tolerance: .nan\n  metrics: ", r"s.yaml:3: tolerance: a percentage"),
    "tolerance of nothing": (GOOD, "metrics: ", "tolerances: {speedups: 1%}\n  metrics: ", r"s.yaml:3: tolerances.speedups: a metric of this scenario is needed.*did you mean speedup\?"),
    "bare own tolerance": (GOOD, "metrics: ", "tolerances: {speedup: 1}\n  metrics: ", r"s.yaml:3: tolerances.speedup: a percentage"),
    "unknown hardware": (GOOD, "h800", "h80", r"s.yaml:2: optimize: hardware 'h80': a hardware profile.*did you mean h800\?"),
    "no hardware": (GOOD, "{hw: h800}", "{workload: agentic}", r"s.yaml:2: optimize: hardware: a hardware profile is needed"),
    "zero nodes": (GOOD, "{hw: h800}", "{hw: h800, prefill_nodes: 0}", r"s.yaml:2: optimize.prefill_nodes: a number of at least 1"),
    "half a node": (GOOD, "{hw: h800}", "{hw: h800, nodes: 6.5}", r"s.yaml:2: optimize.nodes: a whole number"),
    "unknown resource": (GOOD, "{hw: h800}", "{hw: h800, unlimited: [gpu]}", r"s.yaml:2: optimize: --unlimited: a resource is needed"),
    "unknown traffic": (GOOD, "{hw: h800}", "{hw: h800, traffic: half}", r"s.yaml:2: optimize.traffic: one of .*got 'half'"),
    "unknown setting": (GOOD, "{hw: h800}", "{hw: h800, set: {storage_nic.cuont: 2}}", r"s.yaml:2: optimize: --set storage_nic.cuont: .*did you mean storage_nic.count\?"),
    "wrong setting": (GOOD, "{hw: h800}", "{hw: h800, set: {storage_nic.count: two}}", r"s.yaml:2: optimize: --set storage_nic.count: .*'two'"),
    "settings as list": (GOOD, "{hw: h800}", "{hw: h800, set: [storage_nic.count=2]}", r"s.yaml:2: optimize.set: a mapping of keys to values is needed"),
    "compare without predict": (GOOD, "metrics: ", "compare: {speedup: [a, b]}\n  metrics: ", r"s.yaml:3: compare: a predict call is needed"),
    "compare one": (PREDICT, "[basic, dualpath]", "[basic]", r"s.yaml:3: compare.jct_s: two systems, first over second, are needed"),
    "compare three": (PREDICT, "[basic, dualpath]", "[a, b, c]", r"s.yaml:3: compare.jct_s: two systems"),
    "compare with itself": (PREDICT, "[basic, dualpath]", "[a, a]", r"s.yaml:3: compare.jct_s: two systems"),
    "compare text": (PREDICT, "[basic, dualpath]", "basic", r"s.yaml:3: compare.jct_s: two systems.*got 'basic'"),
    "compare and system": (PREDICT, "{hw: h800}", "{hw: h800, system: basic}", r"s.yaml:2: predict.system: no system is needed beside compare alone"),
    "capacity as text": (PREDICT, "{hw: h800}", "{hw: h800, capacity: 'yes'}", r"s.yaml:2: predict.capacity: true or false is needed"),
    "no agents": (PREDICT, "{hw: h800}", "{hw: h800, agents: 0}", r"s.yaml:2: predict.agents: a number above 0"),
    "duplicate key": (GOOD, "metrics:", "name: two\n  metrics:", r"s.yaml:3: 0.name: a key once is needed, got it twice \(first on line 1\)"),
    "a mapping": (GOOD, "- name: one", "  name: one", r"s.yaml:1: a list of scenarios is needed, got a mapping"),
    "a scenario as text": (GOOD, "- name", "- other\n- name", r"s.yaml:1: a mapping of keys to values is needed, got 'other'"),
    "name twice": (GOOD, GOOD, GOOD + GOOD, r"s.yaml:4: name: a name of its own is needed, got 'one' again \(first on line 1\)"),
    "broken YAML": (GOOD, "[speedup]", "[speedup", r"s.yaml:\d+: valid YAML is needed"),
    "anchor": (GOOD, "{hw: h800}", "&a {hw: h800}", r"s.yaml:2: plain values are needed, got a YAML anchor"),
    "tag": (GOOD, "h800}", "!!python/name:os.system ''}", r"s.yaml:2: plain values are needed, got the YAML tag"),
}  # fmt: skip


@pytest.mark.parametrize("case", SCENARIO_FAULTS.values(), ids=SCENARIO_FAULTS)
def test_a_faulty_scenario_is_one_message(case: tuple[str, str, str, str], run: Run) -> None:
    good, right, wrong, message = case
    assert right in good
    Path("s.yaml").write_text(good.replace(right, wrong, 1), encoding="utf-8")
    code, out, err = run("s.yaml", "--baseline", "b.json", "--update")
    assert (code, out) == (2, ""), out
    assert len([line for line in err.splitlines() if re.search(message, line)]) == 1, err
    # A misspelt key leaves the right one missing; nothing else is told.
    assert len(err.splitlines()) <= 2, err
    assert not Path("b.json").exists()


BASELINE_FAULTS = {
    "wrong schema": ('"dpplan.check/1"', '"dpplan.check/2"', r"s.json:2: schema: one of 'dpplan.check/1' is needed, got 'dpplan.check/2'"),
    "no schema": ('"schema"', '"schemas"', r"s.json.*: schema: this key is needed"),
    "misspelt key": ('"value": 3.0', '"values": 3.0', r"s.json:\d+: scenarios.two.speedup.value: this key is needed"),
    "value nan": ('"value": 3.0', '"value": NaN', r"s.json: finite numbers of reasonable length are needed"),
    "value infinite": ('"value": 3.0', '"value": 1e999', r"s.json:11: scenarios.two.speedup.value: a finite number, text.*got inf"),
    "value endless": ('"value": 3.0', '"value": ' + "9" * 400, r"s.json:11: scenarios.two.speedup.value: a finite number"),
    "value too long": ('"value": 3.0', '"value": ' + "9" * 5000, r"s.json: finite numbers of reasonable length are needed"),
    "value a mapping": ('"value": 3.0', '"value": {"a": 1}', r"s.json:11: scenarios.two.speedup.value: .*got a mapping"),
    "value a list of numbers": ('"value": 3.0', '"value": [1]', r"s.json:11: scenarios.two.speedup.value: .*got a list"),
    "bare tolerance": ('"1%"', "0.01", r"s.json:12: scenarios.two.speedup.tolerance: a percentage"),
    "scenario as number": ('"paper": {', '"paper": 5, "x": {', r"s.json:\d+: scenarios.paper: a mapping"),
    "key twice": ('"tolerance": "1%"', '"tolerance": "1%", "value": 3', r"s.json:12: scenarios.two.speedup.value: a key once is needed, got it twice \(first on line 11\)"),
    "merge conflict": ('  "scenarios": {', '<<<<<<< HEAD\n  "scenarios": {', r"s.json:\d+: valid JSON is needed.*; restore it, or delete it and write it anew with --update"),
    "cut short": ('"paper": {', "", r"s.json:\d+: valid JSON is needed"),
    "YAML": ('"two": {', "two: {", r"s.json:9: valid JSON is needed"),
    "anchor": ('"value": 3.0', '"value": &a 3.0', r"s.json:11: plain values are needed, got a YAML anchor"),
}  # fmt: skip


@pytest.mark.parametrize("case", BASELINE_FAULTS.values(), ids=BASELINE_FAULTS)
def test_a_faulty_baseline_is_one_message(case: tuple[str, str, str], run: Run, held: Path) -> None:
    right, wrong, message = case
    good = held.read_text(encoding="utf-8")
    assert right in good
    held.write_text(good.replace(right, wrong, 1), encoding="utf-8")
    for options in ((), ("--update",)):
        code, out, err = run("s.yaml", *options)
        assert (code, out) == (2, "")
        assert len([line for line in err.splitlines() if re.search(message, line)]) == 1, err
        assert len(err.splitlines()) <= 2, err
        assert len(err) < 1000


def test_all_faults_of_both_files_come_at_once(run: Run, held: Path) -> None:
    bad = SCENARIOS.replace("tolerance: 1%", "tolerance: 1").replace("name: paper", "name: a b")
    Path("s.yaml").write_text(bad)
    held.write_text(held.read_text().replace('"1%"', '"1"', 2))
    code, out, err = run("s.yaml")
    assert (code, out) == (2, "")
    assert [line.split(": ")[1] for line in err.splitlines()] == [
        "s.yaml:4", "s.yaml:5", "s.json:12", "s.json:16",
    ]  # fmt: skip


def test_a_baseline_that_an_editor_has_laid_out_is_read(run: Run, held: Path) -> None:
    content = json.loads(held.read_text())
    for options in ({"indent": "\t"}, {"separators": (",", ":")}, {"indent": 8, "sort_keys": True}):
        held.write_text(json.dumps(content, **options))
        assert run("s.yaml")[0] == 0


def test_all_faults_of_one_call_come_at_once(run: Run) -> None:
    arguments = "{hw: h80, workload: agentik, unlimited: [gpu]}"
    Path("s.yaml").write_text(GOOD.replace("{hw: h800}", arguments))
    code, _, err = run("s.yaml", "--update")
    assert code == 2
    for part in (
        "optimize: hardware 'h80'",
        "optimize: workload 'agentik'",
        "optimize: --unlimited",
    ):
        assert f"s.yaml:2: {part}" in err
    assert len(err.splitlines()) == 3
    Path("s.yaml").write_text(GOOD.replace("[speedup]", "[speedups, demands]"))
    code, _, err = run("s.yaml", "--update")
    assert code == 2
    assert len(err.splitlines()) == 2


def test_faults_of_all_calls_come_at_once(run: Run) -> None:
    text = SCENARIOS.replace("hw: h800", "hw: h80").replace("- speedup", "- speedups")
    Path("s.yaml").write_text(text.replace("speedup: 0.1%", "speedups: 0.1%"))
    code, _, err = run("s.yaml", "--update")
    assert code == 2
    assert [line.split(": ")[1] for line in err.splitlines()] == ["s.yaml:2", "s.yaml:6"]


LINES = {
    "unknown name": (("dualpath-papr",), r"scenarios 'dualpath-papr': a scenario file is needed, got no such file; did you mean dualpath-paper\?"),
    "no such path": (("no/such.yaml",), r"scenarios 'no/such.yaml': .*give the path of a YAML list.*\(dualpath-paper\)"),
    "empty name": (("",), r"scenarios '': a scenario file is needed"),
    "unknown format": (("--format", "csv"), r"--format: one of table, json, markdown is needed, got 'csv'"),
    "stray argument": (("a.yaml", "b.yaml"), r"(no further argument is needed|unexpected extra argument)"),
    "unknown option": (("--accept",), r"--accept: an option of `dpplan check` is needed"),
    "empty baseline": (("--baseline", ""), r"--baseline: the path of a JSON file is needed"),
    "a folder": (("--baseline", "."), r"is needed"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), LINES.values(), ids=LINES)
def test_command_lines(arguments: tuple[str, ...], message: str, run: Run) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert re.search(message, err), err
    assert len(err.splitlines()) == 1


BOMB = "\n".join(
    ["- a0: &a0 [x, x]"] + [f"- a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
).encode()
HOSTILE = {
    "empty": (b"", "is needed, got nothing"),
    "empty list": (b"[]", "is needed, got an? (empty one|list)"),
    "text": (b"just text\n", "is needed"),
    "mark": (b"\xef\xbb\xbf" + SCENARIOS.encode(), "a byte-order mark; save the file as UTF-8"),
    "UTF-16": (SCENARIOS.encode("utf-16"), "a byte-order mark"),
    "Latin-1": ("- name: größe\n".encode("latin-1"), ":1: UTF-8 text is needed, got byte 0x"),
    "binary": (b"\x00\x01\x02\x03" * 64, "plain text is needed, got the control character"),
    "deep lists": (b"[" * 100_000, "levels of nesting|valid JSON"),
    "deep mappings": (b'{"a": ' * 100_000, "levels of nesting|valid JSON"),
    "many values": (b"[" + b"1, " * 100_000 + b"1]", "at most 50000 values"),
    "bomb": (BOMB, ":1: plain values are needed, got a YAML anchor"),
    "long key": (b'{"' + b"k" * 200_000 + b'": 1}', "is needed"),
    "long number": (b"9" * 100_000, "(is|are) needed"),
}


@pytest.mark.parametrize(("data", "message"), HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("target", ["s.yaml", "s.json"])
def test_hostile_files(target: str, data: bytes, message: str, run: Run, held: Path) -> None:
    Path(target).write_bytes(data)
    if target == "s.json" and message.endswith("nothing"):
        message = "valid JSON is needed"
    code, out, err = run("s.yaml")
    assert (code, out) == (2, "")
    assert re.search(message, err), err
    assert err.startswith(f"dpplan: {target}")
    assert len(err) < 2000


@pytest.mark.parametrize("target", ["s.yaml", "s.json"])
def test_a_hundred_megabytes_are_not_read(target: str, run: Run, held: Path) -> None:
    with Path(target).open("wb") as stream:
        stream.truncate(100 << 20)
    code, _, err = run("s.yaml")
    assert code == 2
    assert "at most 1 MiB is read, got 100.0 MiB" in err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
@pytest.mark.parametrize("target", ["s.yaml", "s.json"])
def test_a_pipe_does_not_hang(target: str, run: Run, held: Path) -> None:
    Path(target).unlink()
    os.mkfifo(target)
    code, _, err = run("s.yaml")
    assert code == 2
    assert "a regular file is needed" in err


_relaxed = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def test_a_key_of_many_lines_is_told_in_one(run: Run) -> None:
    Path("s.yaml").write_text(GOOD.replace("metrics:", '"a\\nb": 1\n  metrics:'))
    code, _, err = run("s.yaml", "--update")
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith(r"dpplan: s.yaml:3: a\nb: a known key is needed")


@_relaxed
@given(st.data())
def test_fuzzed_files_end_in_scenarios_or_a_message(tmp_path: Path, data: st.DataObject) -> None:
    """Either file with one value put anywhere, or any bytes at all: read, or refused."""
    scenarios = yaml.safe_load(SCENARIOS)
    accepted: Any = {
        "schema": "dpplan.check/1",
        "versions": {"dpplan": "1"},
        "scenarios": {"two": {"speedup": {"value": 3.0, "tolerance": "1%"}}},
    }
    node: Any = data.draw(st.sampled_from([scenarios, accepted]))
    while True:
        keys = list(range(len(node))) if isinstance(node, list) else [*node, "new"]
        key = data.draw(st.sampled_from(keys))
        inner = node.get(key) if isinstance(node, dict) else node[key]
        if not isinstance(inner, (dict, list)) or not inner or data.draw(st.booleans()):
            break
        node = inner
    node[key] = data.draw(_values)
    path = tmp_path / "fuzz"
    for text, read in (
        (yaml.safe_dump(scenarios, allow_unicode=True), read_scenarios),
        (json.dumps(accepted), read_baseline),
    ):
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            read(path, "fuzz")
        except BadInput as error:
            assert all(str(fault).startswith("fuzz") for fault in error.faults)
            assert all("\n" not in str(fault) for fault in error.faults)


@_relaxed
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace")))
def test_fuzzed_bytes_end_in_a_message(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "fuzz"
    path.write_bytes(data)
    for read in (read_scenarios, read_baseline):
        with pytest.raises(BadInput, match=r"^fuzz"):
            read(path, "fuzz")


# ------------------------------------------------------------------------------ calls and metrics


def test_arguments_reach_the_planner(run: Run) -> None:
    """A scenario predicts what the command of the same options says."""
    Path("s.yaml").write_text(
        "- name: all\n"
        "  optimize:\n"
        "    prefill_hw: h800\n"
        "    decode_hw: h20\n"
        "    workload: agentic-32k\n"
        "    model: ds-27b\n"
        "    nodes: 5\n"
        "    unlimited: [decode.gpu]\n"
        "    set: {storage_nic.count: 2, gpu.hbm_bytes: 90 GB}\n"
        "  metrics: [speedup, inputs.decode_hardware, inputs.workload, inputs.model, inputs.unlimited, inputs.set]\n"
    )
    assert run("s.yaml", "--update")[0] == 0
    import dpplan

    plan = dpplan.optimize(
        prefill_hardware="h800",
        decode_hardware="h20",
        workload="agentic-32k",
        model="ds-27b",
        nodes=5,
        unlimited=["decode.gpu"],
        settings={"storage_nic.count": 2, "gpu.hbm_bytes": "90 GB"},
    )
    assert value_of(Path("s.json"), "all", "speedup") == pytest.approx(plan.speedup, rel=1e-11)
    for key in ("decode_hardware", "workload", "model", "unlimited", "set"):
        assert value_of(Path("s.json"), "all", f"inputs.{key}") == plan.to_dict()["inputs"][key]


def test_paths_into_an_answer() -> None:
    answer = {
        "a": {"b.c": {"d": 1}, "b": {"c.e": True}},
        "rows": [{"x": 1.5}, {"x": None}],
        "names": ["p", "q"],
        "empty": [],
        "third": 1 / 3,
    }
    assert look_up(answer, "a.b.c.d") == 1
    assert look_up(answer, "a.b.c.e") is True
    assert look_up(answer, "rows.0.x") == 1.5
    assert look_up(answer, "rows.1.x") is None
    assert look_up(answer, "names") == ["p", "q"]
    assert look_up(answer, "names.1") == "q"
    assert look_up(answer, "empty") == []
    assert look_up(answer, "third") == 0.333333333333
    for path in ("a.b.c", "a", "rows", "rows.2.x", "rows.-1.x", "rows.x", "z", "a..b", "third.0"):
        with pytest.raises(BadInput):
            look_up(answer, path)
    for bad in (math.nan, math.inf):
        with pytest.raises(BadInput, match="a finite number is"):
            look_up({"x": bad}, "x")


def test_an_infeasible_plan_is_a_prediction(run: Run, held: Path) -> None:
    """8P1D cannot be: drift against a plan that could, and held once accepted."""
    changed = SCENARIOS.replace(
        "prefill_nodes: 2, decode_nodes: 4", "prefill_nodes: 8, decode_nodes: 1"
    )
    Path("s.yaml").write_text(changed)
    code, out, _ = run("s.yaml")
    assert code == 4
    assert "- two: infeasible: 1 decode node is no multiple of the engine group" in out
    assert re.search(r"^  speedup +3 +none +changed +1 %$", out, re.M)
    assert run("s.yaml", "--update")[0] == 0
    assert value_of(held, "two", "speedup") is None
    assert run("s.yaml")[0] == 0
    Path("s.yaml").write_text(SCENARIOS)
    assert run("s.yaml")[0] == 4


@pytest.fixture
def predictions(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A stand-in for the prediction of latency; gives the calls it got."""
    calls: list[dict[str, Any]] = []
    times = {"basic": 30.0, "dualpath": 20.0, "instant": 0.0}

    def predict(**arguments: Any) -> Any:
        calls.append(arguments)
        jct_s = times[arguments.get("system", "dualpath")]
        answer = {"jct_s": jct_s, "ttft_s": None, "limited_by": "slots", "stable": True}
        return SimpleNamespace(to_dict=lambda: answer)

    monkeypatch.setitem(sys.modules, "dpplan.planner.predict", SimpleNamespace(predict=predict))
    return calls


def test_a_prediction_is_held(run: Run, predictions: list[dict[str, Any]]) -> None:
    Path("s.yaml").write_text(
        "- name: jct\n"
        "  predict: {hw: h800, workload: agentic, model: ds-27b, prefill_nodes: 2, decode_nodes: 4,\n"
        "    system: basic, agents: 64, set: {slo.tpot: 40 ms}}\n"
        "  metrics: [jct_s, ttft_s, limited_by, stable]\n"
        "- name: rate\n"
        "  predict: {hw: h800, agents_per_s: 0.5}\n"
        "  metrics: [jct_s]\n"
        "- name: most\n"
        "  predict: {hw: h800, capacity: true}\n"
        "  metrics: [jct_s]\n"
    )
    assert run("s.yaml", "--update")[0] == 0
    assert predictions == [
        {
            "hardware": "h800",
            "workload": "agentic",
            "model": "ds-27b",
            "prefill_nodes": 2,
            "decode_nodes": 4,
            "system": "basic",
            "agents": 64,
            "settings": {"slo.tpot": "40 ms"},
        },
        {"hardware": "h800", "agents_per_s": 0.5},
        {"hardware": "h800", "capacity": True},
    ]
    metrics = ("jct_s", "ttft_s", "limited_by", "stable")
    found = [value_of(Path("s.json"), "jct", metric) for metric in metrics]
    assert found == [30.0, None, "slots", True]
    assert run("s.yaml")[0] == 0


def test_a_ratio_of_two_systems_is_held(run: Run, predictions: list[dict[str, Any]]) -> None:
    text = (
        "- name: gain\n"
        "  predict: {hw: h800, agents: 64}\n"
        "  metrics: [jct_s]\n"
        "  compare: {jct_s: [basic, dualpath], ttft_s: [basic, dualpath]}\n"
        "  tolerances: {'jct_s[basic/dualpath]': 2%}\n"
    )
    Path("s.yaml").write_text(text)
    assert run("s.yaml", "--update")[0] == 0
    name = "jct_s[basic/dualpath]"
    assert value_of(Path("s.json"), "gain", name) == 1.5
    assert value_of(Path("s.json"), "gain", "ttft_s[basic/dualpath]") is None
    assert [call.get("system") for call in predictions] == [None, "basic", "dualpath"]
    put(Path("s.json"), "gain", name, 1.5 / 1.019)
    assert run("s.yaml")[0] == 0
    put(Path("s.json"), "gain", name, 1.5 / 1.021)
    code, out, _ = run("s.yaml")
    assert code == 4
    assert re.search(r"^  jct_s\[basic/dualpath\] +1.46915 +1.5 +\+2.1 % +2 %$", out, re.M)


def test_a_ratio_over_nothing_is_none(run: Run, predictions: list[dict[str, Any]]) -> None:
    Path("s.yaml").write_text(
        "- name: gain\n  predict: {hw: h800}\n  compare: {jct_s: [basic, instant]}\n"
    )
    assert run("s.yaml", "--update")[0] == 0
    assert value_of(Path("s.json"), "gain", "jct_s[basic/instant]") is None


@pytest.mark.parametrize("metric", ["limited_by", "stable", "jct"])
def test_only_numbers_have_ratios(metric: str, run: Run, predictions: list[dict[str, Any]]) -> None:
    Path("s.yaml").write_text(
        f"- name: gain\n  predict: {{hw: h800}}\n  compare: {{{metric}: [basic, dualpath]}}\n"
    )
    code, _, err = run("s.yaml", "--update")
    assert code == 2
    assert re.match(
        rf"dpplan: s.yaml:3: compare.{metric}: a (metric that is a number|value of)", err
    )
    assert len(err.splitlines()) == 1


# ---------------------------------------------------------------------------------------- output


def test_markdown_is_for_pull_requests(run: Run, held: Path) -> None:
    put(held, "two", "speedup", 4.0)
    code, out, _ = run("s.yaml", "--format", "markdown")
    assert code == 4
    assert out.startswith("**s.yaml not as in s.json: 5 values held and 1 drifted**\n")
    assert "| **two** |" in out
    assert "| speedup | 4 | 3 | -25 % | 1 % |" in out
    assert "dpplan check s.yaml --update" in out


@pytest.mark.parametrize("columns", ["60", "80", "100", "400"])
def test_the_table_fits(
    columns: str, run: Run, held: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = SCENARIOS.replace("name: two", f"name: {'long-' * 15}name")
    Path("s.yaml").write_text(
        long.replace(
            "[speedup,", "[speedup, strategies.prefill-only.utilisation.prefill.compute_nic_read,"
        )
    )
    put(held, "paper", "speedup", 123456.789012345)
    put(held, "paper", "bottleneck_free.holds", "a text of some length " * 20)
    monkeypatch.setenv("COLUMNS", columns)
    for options in ((), ("--update",), ()):
        _, out, _ = run("s.yaml", *options)
        assert out
        assert max(map(len, out.splitlines())) <= min(int(columns), 100)


def test_numbers_show_the_digits_that_differ(run: Run, held: Path) -> None:
    Path("s.yaml").write_text(SCENARIOS.replace("speedup: 0.1%", "speedup: 0%"))
    put(held, "paper", "speedup", 3.0000003)
    code, out, _ = run("s.yaml")
    assert code == 4
    assert re.search(r"^  speedup +3.0000003 +3 +-1e-05 % +0 %$", out, re.M), out


def test_hostile_names_of_files_stay_text(run: Run) -> None:
    Path("s\x1b[31m.yaml").write_text(SCENARIOS)
    for options in (("--update",), ()):
        code, out, err = run("s\x1b[31m.yaml", *options)
        assert code == 0
        assert "\x1b" not in out + err


def test_help_and_readme_name_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "4 a check found drift" in " ".join(capsys.readouterr().out.split())
    assert main(["check", "--help"]) == 0
    assert "--update" in capsys.readouterr().out
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "4 a check found drift" in readme
    assert "(docs/ci.md)" in readme


def test_the_result_in_python(held: Path) -> None:
    result = check("s.yaml")
    assert result.passed
    assert result.drift == ()
    assert [row.metric for row in result.rows][:2] == ["speedup", RATE]
    put(held, "two", "speedup", 4.0)
    result = check(Path("s.yaml"), Path("s.json"))
    assert not result.passed
    (row,) = result.drift
    assert (row.scenario, row.old, row.new, row.change_fraction) == ("two", 4.0, 3.0, -0.25)
    assert "DRIFT" in render(check_document(result), Screen())
    json.dumps(result.to_dict(), allow_nan=False)
    assert check("s.yaml", update=True).passed
    with pytest.raises(BadInput):
        check("nowhere.yaml")


def test_the_schemas_are_documented() -> None:
    text = (DOCS / "ci.md").read_text(encoding="utf-8")
    for key in Scenario.model_fields:
        assert f"`{key}`" in text, key
    for call in ("optimize", "predict"):
        (row,) = re.findall(rf"^\| `{call}` \|.*$", text, re.M)
        inner: Any = Scenario.model_fields[call].annotation
        for key in inner.__args__[0].model_fields:
            assert f"`{key}" in row, key
    assert set(Baseline.model_json_schema()["properties"]) == set(BASELINE_SCHEMA["properties"])


# ------------------------------------------------------------------------------- other repositories


def blocks(kind: str) -> list[str]:
    text = (DOCS / "ci.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.M | re.S)


def test_the_scenarios_shown_are_scenarios() -> None:
    shown = blocks("yaml")
    assert shown[0] == (DOCS / "ci" / "predictions.yaml").read_text(encoding="utf-8")
    assert len(shown) > 1
    for index, text in enumerate(shown):
        Path(f"{index}.yaml").write_text(text, encoding="utf-8")
        assert read_scenarios(Path(f"{index}.yaml"), "docs")


def test_the_workflow_is_one_to_copy(run: Run, held: Path) -> None:
    text = (DOCS / "ci" / "github-workflow.yml").read_text(encoding="utf-8")
    flow = yaml.safe_load(text)
    assert {"push", "pull_request", "schedule"} <= set(flow[True])  # YAML 1.1 reads `on` as true
    assert flow["permissions"] == {"contents": "read"}
    (job,) = flow["jobs"].values()
    assert job["runs-on"]
    assert job["timeout-minutes"] <= 15
    for step in job["steps"]:
        assert ("uses" in step) != ("run" in step)
        if "uses" in step:
            assert re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"])
    commands = [step["run"] for step in job["steps"] if "run" in step]
    (checking,) = [command for command in commands if "dpplan check" in command]
    assert "set +e" not in checking
    assert "|| true" not in checking
    (step,) = [step for step in job["steps"] if step.get("run") == checking]
    assert step["shell"] == "bash"  # GitHub's `bash` has pipefail: the pipe must not hide exit 4
    Path("predictions.yaml").write_text(SCENARIOS)
    assert run("predictions.yaml", "--update")[0] == 0
    words = shlex.split(checking.partition("|")[0])
    assert words[:2] == ["dpplan", "check"]
    code, out, _ = run(*words[2:])
    assert code == 0
    assert out.startswith("**predictions.yaml as in predictions.json")
    for path in re.findall(r"\.dpplan/(\S+)", " ".join(commands)):
        assert (ROOT / path).exists()


def test_pytest_finds_the_plugin() -> None:
    found = importlib.metadata.distribution("dpplan").entry_points.select(group="pytest11")
    assert [(point.name, point.value) for point in found] == [("dpplan", "dpplan.pytest_plugin")], (
        "install the checkout anew: its entry points have changed"
    )


@pytest.fixture
def repository(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., pytest.RunResult]:
    """Another repository with the files that docs/ci.md shows; runs its tests."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(baseline_module.__file__).parents[2]))
    (ini,) = blocks("ini")
    (test,) = blocks("python")
    pytester.path.joinpath("pytest.ini").write_text(ini, encoding="utf-8")
    pytester.path.joinpath("predictions.yaml").write_text(SCENARIOS, encoding="utf-8")
    pytester.makepyfile(test_docs=test)

    def call(*arguments: str) -> pytest.RunResult:
        return pytester.runpytest_subprocess(
            "-p", "dpplan.pytest_plugin", "-p", "no:cacheprovider", "-W", "error", *arguments
        )

    return call


def test_the_fixture_holds_predictions(repository: Callable[..., pytest.RunResult]) -> None:
    missing = repository()
    missing.assert_outcomes(failed=1)
    missing.stdout.fnmatch_lines(["*predictions.json: a baseline is needed, got no such file*"])
    missing.stdout.no_fnmatch_line("*Traceback*")
    repository("--dpplan-update").assert_outcomes(passed=1)
    repository().assert_outcomes(passed=1)
    put(Path("predictions.json"), "two", "speedup", 4.0)
    drifted = repository()
    drifted.assert_outcomes(failed=1)
    drifted.stdout.re_match_lines([r"two", r"  speedup +4 +3 +-25 % +1 %"])
    drifted.stdout.fnmatch_lines(
        ["dpplan check predictions.yaml --baseline predictions.json --update"]
    )
    repository("--dpplan-update").assert_outcomes(passed=1)
    assert value_of(Path("predictions.json"), "two", "speedup") == 3.0


def test_the_fixture_works_from_a_folder_and_with_files_of_its_own(
    repository: Callable[..., pytest.RunResult], pytester: pytest.Pytester
) -> None:
    root = pytester.path
    repository("--dpplan-update").assert_outcomes(passed=1)
    (root / "deep").mkdir()
    (root / "deep" / "test_own.py").write_text(
        "import pathlib\n"
        "def test_own(dpplan_check, tmp_path):\n"
        "    (tmp_path / 's.yaml').write_text(pathlib.Path('../predictions.yaml').read_text())\n"
        "    import pytest\n"
        "    with pytest.raises(pytest.fail.Exception, match='a baseline is needed'):\n"
        "        dpplan_check(tmp_path / 's.yaml')\n"
        "    result = dpplan_check('predictions.yaml', baseline='predictions.json')\n"
        "    assert result.passed and len(result.rows) == 6\n"
        "    assert dpplan_check().rows == result.rows\n"
    )
    os.chdir(root / "deep")
    repository(
        "test_own.py", "--rootdir", str(root), "-c", str(root / "pytest.ini")
    ).assert_outcomes(passed=1)
    os.chdir(root)
    (root / "other.yaml").write_text(SCENARIOS.replace("name: two", "name: four"))
    other = repository("test_docs.py", "--dpplan-scenarios", "other.yaml")
    other.assert_outcomes(failed=1)
    other.stdout.fnmatch_lines(["- four is not in the baseline yet."])
    options = ("--dpplan-scenarios", "other.yaml", "--dpplan-baseline", "other.json")
    repository("test_docs.py", *options, "--dpplan-update").assert_outcomes(passed=1)
    repository("test_docs.py", *options).assert_outcomes(passed=1)


def test_a_session_that_does_not_ask_loads_nothing(
    repository: Callable[..., pytest.RunResult], pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(
        test_docs="""
        import sys

        def test_light():
            heavy = {"numpy", "pandas", "pulp", "pydantic", "yaml", "typer"}
            assert not heavy & set(sys.modules)
            assert not {"dpplan.validation.check", "dpplan.planner.optimize"} & set(sys.modules)
        """
    )
    repository().assert_outcomes(passed=1)
