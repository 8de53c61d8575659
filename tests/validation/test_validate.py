"""`dpplan validate`: predictions held against measured results."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from dpplan.cli import main
from dpplan.errors import BadInput
from dpplan.profiles.library import shipped_root
from dpplan.queueing import CONSTANTS, Constants
from dpplan.queueing.calibrations import choose_calibration
from dpplan.report.documents.validate import validation_document
from dpplan.report.renderers.terminal import Screen, render
from dpplan.validation.comparison import prepare_rows
from dpplan.validation.measurements import fingerprint, read_measurements
from dpplan.validation.validate import ADDED, GROUPS, Validation, validate

ROOT = Path(__file__).resolve().parents[2]
PAPER = shipped_root() / "measurements" / "dualpath.csv"
PAGE = ROOT / "docs" / "validation.md"
UPDATE = os.environ.get("DPPLAN_UPDATE_DOCS") == "1"
HEADER = (
    "figure,hardware,model,prefill_nodes,decode_nodes,workload,agents,agents_per_s,system,"
    "append_scale,output_scale,metric,value"
)
JOB = "7,h800,ds-27b,1,1,agentic,512,,dualpath,,,jct_s,1298.0"
SHIPPED = next(path.stem for path in (shipped_root() / "calibrations").glob("*.yaml"))
"""The calibration for h800 nodes."""
REDUCTIONS = {
    "basic+layerwise": 0.1721,
    "basic+layerwise+dualpath": 0.3819,
    "dualpath": 0.4562,
}
"""Section 7 of the paper: JCT saved against Basic, mean of 1024 and 2048 agents."""

NUMBER = {"type": ["number", "null"]}
ERRORS = {
    "n": {"type": "integer", "minimum": 1},
    "median_abs_error": {"type": ["number", "null"], "minimum": 0},
    "p90_abs_error": {"type": ["number", "null"], "minimum": 0},
    "worst_abs_error": {"type": ["number", "null"], "minimum": 0},
    "coverage_fraction": {"type": "number", "minimum": 0, "maximum": 1},
}
GROUP = {
    "type": "object",
    "additionalProperties": {
        "type": "object",
        "additionalProperties": False,
        "required": list(ERRORS),
        "properties": ERRORS,
    },
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["schema", "rows", "summary", "calibration"],
    "properties": {
        "schema": {"const": "dpplan.validate/1"},
        "rows": {
            "type": "array",
            "items": {
                "type": "object",
                "required": [*HEADER.split(","), *ADDED],
                "properties": {
                    "predicted": NUMBER,
                    "relative_error": NUMBER,
                    "reason": {"type": ["string", "null"]},
                    "calibration": {"type": ["string", "null"]},
                    "value": {"type": "number"},
                    "agents": NUMBER,
                    "prefill_nodes": {"type": "integer"},
                    "figure": {"type": "string"},
                },
            },
        },
        "summary": {
            "type": "object",
            "additionalProperties": False,
            "required": [*ERRORS, *(f"by_{column}" for column in GROUPS)],
            "properties": {**ERRORS, **{f"by_{column}": GROUP for column in GROUPS}},
        },
        "calibration": {
            "type": "object",
            "required": ["name", "used", "assumed_lines"],
            "properties": {
                "name": {"type": ["string", "null"]},
                "assumed_lines": {"type": "array", "items": {"type": "integer"}},
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
    """`dpplan validate` in this process: exit code, stdout, stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = main(["validate", *arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        assert "internal error" not in captured.err, captured.err
        return code, captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def paper() -> Validation:
    return validate(read_measurements(PAPER), data_sha256=fingerprint(PAPER))


def write(*rows: str, header: str = HEADER, name: str = "m.csv") -> str:
    Path(name).write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return name


def document(out: str) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    value: dict[str, Any] = json.loads(out, parse_constant=refuse)
    jsonschema.validate(value, SCHEMA)
    return value


# What the paper measured


def test_every_row_is_covered(paper: Validation) -> None:
    assert paper.uncovered == ()
    assert paper.overall.coverage_fraction == 1.0
    assert paper.overall.n == len(read_measurements(PAPER))


@pytest.mark.parametrize(
    ("metric", "median", "p90"),
    [
        ("jct_s", 0.05, 0.12),
        ("ttft_s", 0.15, 0.2),
        ("ttst_s", 0.2, 0.2),
        ("tpot_s", 0.06, 0.06),
        ("working_set_bytes", 0.2, 0.2),
    ],
)
def test_errors_stay_within_their_targets(
    paper: Validation, metric: str, median: float, p90: float
) -> None:
    errors = paper.groups["metric"][metric]
    assert errors.median_abs_error is not None
    assert errors.p90_abs_error is not None
    assert errors.median_abs_error <= median
    assert errors.p90_abs_error <= p90


def jct(found: Validation, system: str, agents: float) -> tuple[float, float]:
    """Measured and predicted JCT of the ablation."""
    rows = [
        row
        for row in found.rows
        if row.measurement.figure == "12"
        and row.measurement.system == system
        and row.measurement.agents == agents
    ]
    assert len(rows) == 1
    assert rows[0].predicted is not None
    return rows[0].measurement.value, rows[0].predicted


def reductions(found: Validation) -> dict[str, tuple[float, float]]:
    """System -> JCT saved against Basic, measured and predicted, mean of both loads."""
    saved = {}
    for system in REDUCTIONS:
        pairs = [(jct(found, system, n), jct(found, "basic", n)) for n in (1024, 2048)]
        measured, predicted = (np.mean([1 - a[i] / b[i] for a, b in pairs]) for i in (0, 1))
        saved[system] = (float(measured), float(predicted))
    return saved


def test_each_part_of_dualpath_saves_what_it_saved(paper: Validation) -> None:
    found = reductions(paper)
    for system, published in REDUCTIONS.items():
        measured, predicted = found[system]
        assert abs(measured - published) < 0.005  # the rows are those of the paper's figure
        assert abs(predicted - published) < 0.05, system


def test_large_clusters_do_what_as_many_small_ones_do(paper: Validation) -> None:
    def one(metric: str, nodes: int) -> float:
        found = [
            row.predicted
            for row in paper.rows
            if row.measurement.figure == "table-3"
            and row.measurement.metric == metric
            and row.measurement.prefill_nodes == nodes
        ]
        assert len(found) == 1
        assert found[0] is not None
        return found[0]

    assert one("jct_s", 48) / one("jct_s", 2) == pytest.approx(1.0, abs=0.02)


def test_dualpath_is_never_worse_than_basic_nor_better_than_oracle(paper: Validation) -> None:
    times: dict[tuple[object, ...], dict[str, float]] = {}
    for row in paper.rows:
        m = row.measurement
        if m.metric == "jct_s" and m.figure == "7":
            assert row.predicted is not None
            times.setdefault((m.model, m.agents), {})[m.system] = row.predicted
    assert len(times) == 11
    for systems in times.values():
        assert systems["oracle"] < systems["dualpath"] < systems["basic"]


# The numbers, found on a second road


def test_errors_are_what_the_rows_say_by_hand(paper: Validation) -> None:
    measurements = read_measurements(PAPER)
    constants, stored, _ = choose_calibration("h800")
    ready = prepare_rows(measurements, stored)
    values, _ = ready.predict(constants)
    by_hand = [abs(float(v) - m.value) / m.value for v, m in zip(values, measurements, strict=True)]
    for row, value, m in zip(paper.rows, values, measurements, strict=True):
        assert row.predicted == pytest.approx(float(value), rel=1e-12)
        assert row.relative_error == pytest.approx(float(value) / m.value - 1, rel=1e-9, abs=1e-12)
    ordered = sorted(by_hand)
    n = len(ordered)
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    at = 0.9 * (n - 1)
    low = math.floor(at)
    p90 = ordered[low] + (at - low) * (ordered[low + 1] - ordered[low])
    assert paper.overall.median_abs_error == pytest.approx(middle, rel=1e-9)
    assert paper.overall.p90_abs_error == pytest.approx(p90, rel=1e-9)
    assert paper.overall.worst_abs_error == pytest.approx(ordered[-1], rel=1e-9)


def test_each_group_is_the_validation_of_its_rows_alone(paper: Validation) -> None:
    for column in GROUPS:
        assert sum(errors.n for errors in paper.groups[column].values()) == paper.overall.n
        for name, errors in paper.groups[column].items():
            own = [m for m in read_measurements(PAPER) if getattr(m, column) == name]
            alone = validate(own).overall
            assert alone.n == errors.n
            assert alone.median_abs_error == pytest.approx(errors.median_abs_error, rel=1e-6)
            assert alone.worst_abs_error == pytest.approx(errors.worst_abs_error, rel=1e-6)


def test_the_order_of_rows_and_columns_does_not_matter(run: Run) -> None:
    with open(PAPER, encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    columns = list(rows[0])
    rng = np.random.default_rng(3)
    shuffled = [columns[i] for i in rng.permutation(len(columns))]
    order = rng.permutation(len(rows))
    with open("other.csv", "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, shuffled)
        writer.writeheader()
        writer.writerows(rows[i] for i in order)
    first, second = (
        document(run(str(path), "--format", "json")[1]) for path in (PAPER, "other.csv")
    )
    assert list(second["rows"][0])[: len(columns)] == shuffled
    assert list(first["summary"]["by_figure"]) == list(second["summary"]["by_figure"])
    for place, i in enumerate(order):
        one, other = first["rows"][i], second["rows"][place]
        assert one["predicted"] == pytest.approx(other["predicted"], rel=1e-9)
        ours = [*columns, "reason", "calibration"]
        assert {c: one[c] for c in ours} == {c: other[c] for c in ours}
    for key in ERRORS:
        assert first["summary"][key] == pytest.approx(second["summary"][key], rel=1e-6)


def test_metrics_of_jobs_arrivals_and_capacity(run: Run) -> None:
    run_of = "h800,deepseek-v3.2,2,4,agentic"
    rows = [
        f"x,{run_of},512,,dualpath,,,{metric},1"
        for metric in ("jct_s", "ttft_s", "ttst_s", "tpot_s", "working_set_bytes")
    ]
    rows += [
        f"x,{run_of},,0.2,dualpath,,,{metric},1"
        for metric in ("jct_s", "ttft_s", "ttst_s", "tpot_s", "agents_in_system")
    ]
    rows += [f"x,{run_of},,,{system},,,capacity_agents_per_s,1" for system in ("basic", "dualpath")]
    found = document(run(write(*rows), "--format", "json")[1])["rows"]
    values = [row["predicted"] for row in found]
    assert all(value > 0 for value in values)
    assert 1.3 < values[-1] / values[-2] < 3  # the paper: 2.25
    scaled = f"x,{run_of},512,,dualpath,2,2,jct_s,1"
    assert document(run(write(scaled), "--format", "json")[1])["rows"][0]["predicted"] < values[0]


# What a file may be like


def test_columns_stay_as_they_are_and_others_are_kept(run: Run) -> None:
    header = f"note,{HEADER},offset"
    path = write(f'"a, b",{JOB},-5', f"=1+1,{JOB},x", header=header)
    row = document(run(path, "--format", "json")[1])["rows"][0]
    assert list(row) == [*header.split(","), *ADDED]
    assert row["note"] == "a, b"
    assert row["offset"] == "-5"
    assert row["figure"] == "7"
    assert row["agents"] == 512
    assert row["agents_per_s"] is None
    assert row["value"] == 1298.0
    code, out, _ = run(path, "--format", "csv")
    assert code == 0
    back = list(csv.DictReader(io.StringIO(out)))
    assert list(back[0]) == [*header.split(","), *ADDED]
    assert back[0]["offset"] == "-5"
    assert back[0]["value"] == "1298.0"
    assert back[1]["note"] == "'=1+1"  # no formula for a spreadsheet
    assert float(back[0]["predicted"]) == row["predicted"]


def test_its_own_answer_can_be_validated_again(run: Run) -> None:
    Path("again.csv").write_text(run(write(JOB), "--format", "csv")[1], encoding="utf-8")
    first = run("m.csv", "--format", "json")[1]
    assert run("again.csv", "--format", "json")[1] == first


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "m.csv:1: a header with the columns hardware"),
        ("a,b\n1,2\n", "m.csv:1: a header with the columns"),
        (f"{HEADER}\n", "m.csv: at least one row"),
        (f"{HEADER},value\n{JOB},1\n", "m.csv:1: each column once is needed, got value twice"),
        (f"{HEADER.replace('metric', 'metrik')}\n{JOB}\n", "did you mean metric?"),
        (f"{HEADER}\n{JOB},9\n", "m.csv:2: 13 columns are needed, as in the header, got 14"),
        (f"{HEADER}\n{JOB.replace('1298.0', 'nan')}\n", "m.csv:2: value: a number above zero"),
        (f"{HEADER}\n{JOB.replace('1298.0', 'inf')}\n", "m.csv:2: value: a number above zero"),
        (f"{HEADER}\n{JOB.replace('1298.0', '-1')}\n", "m.csv:2: value: a number above zero"),
        (f"{HEADER}\n{JOB.replace('1298.0', '0')}\n", "m.csv:2: value: a number above zero"),
        (f"{HEADER}\n{JOB.replace('1298.0', '')}\n", "m.csv:2: value: a value is needed"),
        (f"{HEADER}\n{JOB.replace(',1,1,', ',1.5,1,')}\n", "m.csv:2: prefill_nodes: a whole"),
        (f"{HEADER}\n{JOB.replace('dualpath', 'dualpth')}\n", "did you mean dualpath?"),
        (f"{HEADER}\n{JOB.replace('jct_s', 'jct')}\n", "m.csv:2: metric: a known metric"),
        (f"{HEADER}\n{JOB.replace('512,', '512,0.1')}\n", "m.csv:2: agents: agents (a job)"),
        (f"{HEADER}\n{JOB.replace('512,', ',')}\n", "m.csv:2: agents: agents (a job)"),
        (f"{HEADER}\n{JOB.replace('jct_s', 'capacity_agents_per_s')}\n", "the value is the rate"),
        (f"{HEADER}\n{JOB}\n{JOB.replace('h800', '')}\n", "m.csv:3: hardware: the name of a"),
        (f'{HEADER}\n"{JOB}\n', "m.csv:2"),
        (f"\ufeff{HEADER}\n{JOB}\n", "m.csv:1: UTF-8 without a byte-order mark"),
        (f"{HEADER}\n{JOB}\0\n", "a null character"),
    ],
)
def test_a_faulty_file_says_where(run: Run, content: str, told: str) -> None:
    Path("m.csv").write_text(content, encoding="utf-8")
    code, out, err = run("m.csv")
    assert (code, out) == (2, "")
    assert told in err


def test_all_faults_come_together(run: Run) -> None:
    path = write(JOB.replace("1298.0", "x"), JOB.replace("dualpath", "y"), JOB.replace("jct_s", ""))
    code, _, err = run(path)
    assert code == 2
    assert [line in err for line in ("m.csv:2:", "m.csv:3:", "m.csv:4:")] == [True] * 3


def test_files_that_are_none(run: Run) -> None:
    Path("binary.csv").write_bytes(bytes(range(256)))
    Path("folder.csv").mkdir()
    with open("huge.csv", "wb") as stream:
        stream.truncate(16 * 2**20 + 1)
    for path, told in (
        ("binary.csv", "text in UTF-8 is needed"),
        ("folder.csv", "a directory"),
        ("huge.csv", "at most 16 MiB is read"),
        ("none.csv", "no such file"),
        ("", "the path of a file of measurements is needed"),
    ):
        code, out, err = run(path)
        assert (code, out) == (2, "")
        assert told in err


# Rows that cannot be predicted


UNCOVERED = {
    "no such profile": JOB.replace("ds-27b", "ds-27"),
    "did you mean h800?": JOB.replace("h800", "h801"),
    "infeasible": JOB.replace("ds-27b", "deepseek-v3.2"),
    "unstable at this rate": JOB.replace("512,,", ",1000,"),
    "too small to compare with": JOB.replace("1298.0", "1e-320"),
}


def test_what_cannot_be_predicted_is_told_and_counts_against(run: Run) -> None:
    path = write(JOB, *UNCOVERED.values())
    code, out, err = run(path, "--format", "json")
    assert code == 0
    found = document(out)
    assert found["summary"]["n"] == 6
    assert found["summary"]["coverage_fraction"] == pytest.approx(1 / 6)
    assert found["summary"]["by_model"]["ds-27"]["coverage_fraction"] == 0
    assert found["summary"]["by_model"]["ds-27"]["median_abs_error"] is None
    assert found["rows"][0]["reason"] is None
    for row, told in zip(
        found["rows"][1:],
        ("no such file", "no such file", "infeasible", "unstable", "too small"),
        strict=True,
    ):
        assert told in row["reason"]
        assert row["relative_error"] is None
    assert "line 5" in err
    code, out, err = run(path, "--fail-above", "100%")
    assert code == 4
    assert "NOT PREDICTED" in out
    assert "1 of 6 rows predicted" in out
    assert "1 of 6 rows predicted" in err


def test_nothing_predicted_at_all_is_an_answer(run: Run) -> None:
    path = write(UNCOVERED["no such profile"])
    code, out, _ = run(path, "--format", "json")
    assert code == 0
    summary = document(out)["summary"]
    assert [summary[key] for key in ERRORS] == [1, None, None, None, 0.0]
    assert run(path)[0] == run(path, "--format", "csv")[0] == 0
    assert run(path, "--fail-above", "50%")[0] == 4


def test_absurd_loads_end_in_a_value_or_a_reason(run: Run) -> None:
    rows = [
        f"x,h800,deepseek-v3.2,{nodes},agentic,{load},{system},{scale},{metric},1e30"
        for nodes in ("2,4", "100000,100000")
        for load in ("1e-30,", "1e30,", ",1e-30", ",1e30")
        for system in ("basic", "oracle")
        for scale in (",", "1e-30,1e-30", "1e30,1e30")
        for metric in ("jct_s", "tpot_s", "working_set_bytes")
    ]
    code, out, _ = run(write(*rows), "--format", "json")
    assert code == 0
    for row in document(out)["rows"]:
        assert (row["predicted"] is None) == (row["reason"] is not None)


def test_fail_above_is_about_the_median(run: Run, paper: Validation) -> None:
    median = paper.overall.median_abs_error
    assert median is not None
    assert run(str(PAPER), "--fail-above", f"{median * 100 + 0.01:.3f}%")[0] == 0
    code, out, err = run(str(PAPER), "--fail-above", f"{median * 100 - 0.01:.3f}%")
    assert code == 4
    assert out.startswith(str(PAPER)[:40])
    assert "a median error of at most" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--fail-above", "10"], "--fail-above: a percentage"),
        (["--fail-above", "-1%"], "--fail-above: a percentage"),
        (["--format", "yaml"], "--format: one of table, json, csv, markdown is needed"),
        (["--calibration", SHIPPED[:-1]], f"did you mean {SHIPPED}?"),
        (["--plot", "x.pdf"], "--plot: a file name that ends in .png or .svg is needed"),
        (["--plot", "no/such/x.svg"], "--plot no/such/x.svg: a writable path is needed"),
        (["one.csv", "two.csv"], "unexpected extra argument"),
    ],
)
def test_bad_options(run: Run, arguments: list[str], told: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert told in err


# Which calibration


def test_the_calibration_is_that_of_the_row_s_hardware(run: Run) -> None:
    rows = [JOB, JOB.replace("h800", "h200"), JOB.replace("h800", "a100")]
    found = document(run(write(*rows), "--format", "json")[1])
    assert [row["calibration"] for row in found["rows"]] == [SHIPPED, None, None]
    assert found["calibration"]["name"] is None
    assert found["calibration"]["assumed_lines"] == [3, 4]
    used = {entry["name"]: entry for entry in found["calibration"]["used"]}
    assert set(used) == {SHIPPED, None}
    assert used[SHIPPED]["constants"] == vars(choose_calibration("h800")[0])
    assert used[None]["constants"] == vars(Constants())
    assert set(used[SHIPPED]["constants"]) == set(CONSTANTS)
    out = run("m.csv")[1]
    assert "Assumed constants: 2 rows of a100 and h200 (lines 3-4)" in out
    named = document(run("m.csv", "--format", "json", "--calibration", SHIPPED)[1])
    assert [row["calibration"] for row in named["rows"]] == [SHIPPED] * 3
    assumed = document(run("m.csv", "--format", "json", "--calibration", "none")[1])
    assert assumed["calibration"]["assumed_lines"] == [2, 3, 4]
    for i in (1, 2):
        assert assumed["rows"][i]["predicted"] == found["rows"][i]["predicted"]
    assert assumed["rows"][0]["predicted"] != found["rows"][0]["predicted"]


def test_hardware_given_by_its_path_has_its_calibration(run: Run) -> None:
    Path("mine.yaml").write_bytes((shipped_root() / "hardware" / "h800.yaml").read_bytes())
    path = write(JOB, JOB.replace("h800", "mine.yaml"))
    rows = document(run(path, "--format", "json")[1])["rows"]
    assert rows[1]["calibration"] == SHIPPED
    assert rows[1]["predicted"] == rows[0]["predicted"]


def own_calibration(name: str, hardware: str, share: float) -> None:
    Path("calibrations").mkdir(exist_ok=True)
    text = (shipped_root() / "calibrations" / f"{SHIPPED}.yaml").read_text(encoding="utf-8")
    text = re.sub(r"(?m)^name: .*$", f"name: {name}", text)
    text = re.sub(r"(?m)^hardware: .*$(\n- .*$)*", f"hardware: [{hardware}]", text)
    text = re.sub(r"(?m)^( +storage_nic_share:) .*$", rf"\1 {share}", text)
    Path("calibrations", f"{name}.yaml").write_text(text, encoding="utf-8")


def test_an_own_calibration_goes_before_the_shipped_one() -> None:
    own_calibration("mine", "h800, h20", 0.7)
    for hardware in ("h800", "h20"):
        constants, stored, calibration = choose_calibration(hardware)
        assert calibration is not None
        assert calibration.name == "mine"
        assert constants.storage_nic_share == 0.7
        assert stored == calibration.stored_kv_bytes_per_token
    assert choose_calibration("h200")[2] is None
    own_calibration("h20", "h20", 0.6)
    assert choose_calibration("h20")[0].storage_nic_share == 0.6  # its own name goes first
    own_calibration("other", "h800", 0.8)
    with pytest.raises(BadInput, match=r"mine\.yaml, other\.yaml; name one with --calibration"):
        choose_calibration("h800")
    assert choose_calibration("h800", "other")[0].storage_nic_share == 0.8


def test_a_faulty_calibration_is_told_with_its_file() -> None:
    own_calibration("mine", "h800", 7.0)
    with pytest.raises(BadInput, match="storage_nic_share"):
        choose_calibration("h800")


def test_errors_of_a_fit_are_called_so(run: Run, paper: Validation) -> None:
    assert paper.yardsticks[0].fitted_on_these
    assert "errors of a fit" in run()[1]
    assert "errors of a fit" not in run(write(JOB))[1]
    assert not validate(read_measurements(PAPER)).yardsticks[0].fitted_on_these


# How it is shown


def test_json_has_its_keys_and_no_others(run: Run, paper: Validation) -> None:
    code, out, err = run("--format", "json")
    assert (code, err) == (0, "")
    found = document(out)
    assert found == json.loads(json.dumps(paper.to_dict()))
    assert found["calibration"]["name"] == SHIPPED
    assert list(found["summary"]["by_figure"]) == ["7", "10", "12", "sec-8.2", "table-3"]
    with open(PAPER, encoding="utf-8", newline="") as stream:
        for given, row in zip(csv.DictReader(stream), found["rows"], strict=True):
            for name, text in given.items():
                assert str("" if row[name] is None else row[name]) == text


def test_the_frame_is_the_rows(paper: Validation) -> None:
    frame = paper.to_frame()
    assert list(frame.columns) == [*HEADER.split(","), *ADDED]
    assert len(frame) == paper.overall.n
    assert float(frame.relative_error.abs().median()) == pytest.approx(
        paper.overall.median_abs_error, rel=1e-12
    )


@pytest.mark.parametrize("width", [30, 60, 80, 100])
def test_the_report_fits_the_screen(paper: Validation, width: int) -> None:
    text = render(validation_document(paper, "m.csv"), Screen(width=width))
    assert max(map(len, text.splitlines())) <= width
    assert "62 of 62 rows predicted" in " ".join(text.split())


def test_markdown_says_the_same(run: Run) -> None:
    code, out, _ = run("--format", "markdown")
    assert code == 0
    assert out.startswith("**shipped measurements/dualpath.csv: 62 of 62 rows predicted")
    assert "| 7: 512 agents | oracle | jct\\_s | 1,978 s |" in out.replace("jct_s", "jct\\_s")


# The plot


def test_the_plot_is_written_whole_and_the_same_again(run: Run) -> None:
    pytest.importorskip("matplotlib")
    assert run("--plot", "a.svg")[0] == run("--plot", "b.svg")[0] == 0
    drawn = Path("a.svg").read_bytes()
    assert drawn == Path("b.svg").read_bytes()
    assert drawn.startswith(b"<?xml")
    assert b"<dc:date>" not in drawn
    code, _, err = run("--plot", "a.PNG", "--format", "json")
    assert code == 0
    assert "wrote a.PNG" in err
    assert Path("a.PNG").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in Path().iterdir()) == ["a.PNG", "a.svg", "b.svg"]


def test_odd_rows_can_be_drawn(run: Run) -> None:
    pytest.importorskip("matplotlib")
    assert run(write(UNCOVERED["infeasible"]), "--plot", "none.svg")[0] == 0
    cells = [JOB.replace("1298.0", value) for value in ("1e-9", "1298", "1e25")]
    assert run(write(*cells), "--plot", "wide.svg")[0] == 0
    same = f"x,h800,ds-27b,1,1,agentic,,,{{}},,,capacity_agents_per_s,{0.3}"
    assert run(write(same.format("basic"), same.format("oracle")), "--plot", "c.svg")[0] == 0


def test_without_matplotlib_it_says_what_to_install(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, out, err = run("--plot", "x.svg")
    assert (code, out) == (2, "")
    assert "pip install dpplan[plot]" in err


def test_drawing_is_loaded_only_to_draw() -> None:
    code = (
        "import sys; from dpplan.cli import main; code = main(['validate']); "
        "sys.exit(code or any(m in sys.modules for m in ('matplotlib', 'pandas', 'pulp')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr


# The page


ABLATION = ("<!-- ablation: begin -->\n", "<!-- ablation: end -->")


def ablation_table(found: Validation) -> str:
    lines = ["| system | paper | rows of figure 12 | predicted |", "| --- | ---: | ---: | ---: |"]
    for system, (measured, predicted) in reductions(found).items():
        shares = (REDUCTIONS[system], measured, predicted)
        cells = " | ".join(f"-{share * 100:.1f} %" for share in shares)
        lines.append(f"| {system} | {cells} |")
    return "\n".join(lines) + "\n"


def test_the_page_shows_the_ablation(paper: Validation) -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(ABLATION[0])
    shown, end, after = rest.partition(ABLATION[1])
    assert end
    if UPDATE:
        page = "".join([before, ABLATION[0], ablation_table(paper), end, after])
        PAGE.write_text(page, encoding="utf-8")
        return
    assert shown == ablation_table(paper)


def test_the_page_shows_the_figure() -> None:
    assert "validation.svg" in PAGE.read_text(encoding="utf-8")
    drawn = (PAGE.parent / "validation.svg").read_text(encoding="utf-8")
    assert drawn.startswith("<?xml")
