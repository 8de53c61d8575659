"""`dpplan predict`: jobs, arrivals and capacity, on the command line and from Python."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import dpplan
from dpplan.errors import BadInput, Fault
from dpplan.planner.load import choose_system
from dpplan.queueing import CONSTANTS, SYSTEMS, Constants
from dpplan.queueing.calibrations import choose_calibration
from dpplan.results.predict import METRICS

CASE: dict[str, Any] = {"prefill_nodes": 2, "decode_nodes": 4}
KEYS = (*METRICS, "limited_by", "stable")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dpplan", "predict", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_json_has_the_promised_keys_and_is_the_python_answer() -> None:
    done = run("--hw=h800.yaml", "--workload=agentic.yaml", "--agents=512", "--format=json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["schema"] == "dpplan.predict/1"
    assert set(KEYS) <= shown.keys()
    assert shown == json.loads(json.dumps(dpplan.predict("h800", "agentic", agents=512).to_dict()))
    assert shown["jct_s"] > 0
    assert shown["capacity_agents_per_s"] is None
    assert "NaN" not in done.stdout
    assert "Infinity" not in done.stdout


@pytest.mark.parametrize("form", ["table", "csv", "markdown"])
@pytest.mark.parametrize("load", [("--agents", "64"), ("--agents-per-s", "0.1"), ("--capacity",)])
def test_every_format_shows_every_load(form: str, load: tuple[str, ...]) -> None:
    done = run("--hw", "h800", *load, "--format", form, "--against", "basic")
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert form == "csv" or "basic" in done.stdout
    if form == "table":
        assert max(len(line) for line in done.stdout.splitlines()) <= 100


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_is_its_parts(name: str) -> None:
    system = SYSTEMS[name]
    by_parts = dpplan.predict(
        "h800",
        **CASE,
        agents=100,
        strategy=system.strategy,
        layerwise=None if name == "oracle" else system.layerwise,
        scheduler=system.scheduler,
    )
    assert by_parts.system == name
    assert by_parts.jct_s == dpplan.predict("h800", **CASE, agents=100, system=name).jct_s


def test_parts_that_make_no_system_are_refused_together() -> None:
    faults: list[Fault] = []
    assert choose_system(None, "prefil-only", None, "fair", faults) is None
    assert [fault.where for fault in faults] == ["--strategy", "--scheduler"]
    for parts in (
        {"system": "dualpath", "layerwise": True},
        {"strategy": "prefill-only", "scheduler": "adaptive"},
        {"strategy": "oracle", "layerwise": False},
        {"system": "dual"},
    ):
        with pytest.raises(BadInput):
            dpplan.predict("h800", agents=10, **parts)


def test_the_scheduler_and_layers_matter() -> None:
    jct = [
        dpplan.predict("h800", **CASE, agents=2048, **parts).jct_s
        for parts in (
            {"strategy": "dual-path"},
            {"strategy": "dual-path", "scheduler": "round-robin"},
            {"strategy": "dual-path", "scheduler": "round-robin", "layerwise": False},
            {"strategy": "prefill-only", "layerwise": False},
        )
    ]
    assert all(a is not None and b is not None and a < b for a, b in itertools.pairwise(jct))


def test_an_unstable_load_has_no_times() -> None:
    found = dpplan.predict("h800", **CASE, agents_per_s=0.3, system="basic")
    assert not found.stable
    assert found.limited_by == "storage_nic_read"
    shown = found.to_dict()
    assert [shown[name] for name in METRICS] == [None] * len(METRICS)
    assert shown["intervals"] == {}
    assert "UNSTABLE" in run("--hw", "h800", "--agents-per-s", "5").stdout


def test_the_capacity_is_where_a_limit_is_met() -> None:
    found = dpplan.predict("h800", **CASE, capacity=True)
    rate = found.capacity_agents_per_s
    assert rate is not None
    below = dpplan.predict("h800", **CASE, agents_per_s=rate * 0.999)
    above = dpplan.predict("h800", **CASE, agents_per_s=rate * 1.001)
    assert below.ttft_s is not None
    assert below.ttft_s <= 4.0
    assert found.limited_by == "slo.ttft"
    assert not above.stable or (above.ttft_s is not None and above.ttft_s > 4.0)


@pytest.mark.parametrize(
    ("slo", "limit"),
    [("ttft=600ms", "slo.ttft"), ("tpot=30ms", "slo.tpot"), ("ttft=unlimited", "prefill.gpu")],
)
def test_slo_on_the_command_line(slo: str, limit: str) -> None:
    done = run("--hw", "h800", "--capacity", "--slo", slo, "--format", "json")
    shown = json.loads(done.stdout)
    assert shown["limited_by"] == limit
    assert shown["capacity_agents_per_s"] > 0


def test_limits_that_a_lone_session_misses_leave_no_capacity() -> None:
    found = dpplan.predict("h800", **CASE, capacity=True, ttft_limit_s=1e-3)
    assert found.capacity_agents_per_s == 0
    assert not found.stable
    assert found.ttft_s is None


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--agents", "0"),
        ("--agents", "nan"),
        ("--agents", "5", "--capacity"),
        ("--agents", "5", "--agents-per-s", "1"),
        ("--agents-per-s", "-1"),
        ("--capacity", "--slo", "ttft=4"),
        ("--capacity", "--slo", "ttft=-4s"),
        ("--capacity", "--slo", "tpot=50ms,tpot=40ms"),
        ("--capacity", "--slo", "tppt=50ms"),
        ("--agents", "5", "--system", "dulpath"),
        ("--agents", "5", "--against", "dulpath"),
        ("--agents", "5", "--calibration", "nowhere"),
        ("--agents", "5", "--strategy", "oracle", "--scheduler", "adaptive"),
    ],
)
def test_bad_arguments_are_one_message(arguments: tuple[str, ...]) -> None:
    done = run("--hw", "h800", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("dpplan: ")
    assert "Traceback" not in done.stderr


def test_infeasible_is_an_answer() -> None:
    nodes = ("--prefill-nodes=1", "--decode-nodes=1")
    done = run("--hw=h800", *nodes, "--agents=5", "--format=json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["infeasible"]["limits"]


@pytest.mark.parametrize(
    ("model", "prefill_nodes", "decode_nodes", "agents", "measured"),
    [("deepseek-v3.2", 2, 4, 2048, 10082 / 5407), ("ds-27b", 1, 1, 1024, 4139 / 2403)],
)
def test_headline_speedups_carry_an_interval(
    model: str, prefill_nodes: int, decode_nodes: int, agents: float, measured: float
) -> None:
    found = dpplan.predict(
        "h800",
        model=model,
        prefill_nodes=prefill_nodes,
        decode_nodes=decode_nodes,
        agents=agents,
        against="basic",
    ).speedup
    assert found is not None
    assert found.ratio is not None
    assert found.interval is not None
    assert found.ratio == pytest.approx(measured, rel=0.06)
    assert found.interval.low < found.ratio < found.interval.high
    assert 1.01 < found.interval.high / found.interval.low < 1.5


def test_the_interval_is_what_drawing_constants_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    constants, stored, profile = choose_calibration("h800")
    assert profile is not None
    assert profile.fit is not None
    found = dpplan.predict("h800", **CASE, agents=1024).intervals["jct_s"]
    random = np.random.default_rng(7)
    names = profile.fit.names
    draws = random.multivariate_normal(np.zeros(len(names)), profile.fit.covariance, size=100)
    times = []
    for draw in draws:
        values = {
            name: float(
                np.clip(
                    getattr(constants, name) * math.exp(moved),
                    CONSTANTS[name].lowest,
                    CONSTANTS[name].highest,
                )
            )
            for name, moved in zip(names, draw, strict=True)
        }
        drawn = dataclasses.replace(constants, **values)
        monkeypatch.setattr(
            "dpplan.planner.predict.choose_calibration",
            lambda *_, drawn=drawn: (drawn, stored, None),
        )
        times.append(dpplan.predict("h800", **CASE, agents=1024).jct_s)
    low, high = np.quantile(np.array(times, dtype=float), [0.05, 0.95])
    assert math.log(found.high / found.low) == pytest.approx(math.log(high / low), rel=0.35)


def test_without_a_calibration_constants_are_assumed_and_said_so() -> None:
    found = dpplan.predict("h800", **CASE, agents=64, calibration="none")
    assert found.calibration is None
    assert found.intervals == {}
    assert dict(found.constants) == {n: getattr(Constants(), n) for n in CONSTANTS}
    assert any("all constants are assumed" in line for line in found.assumptions)
    elsewhere = dpplan.predict("h200", agents=64)
    assert elsewhere.calibration is None
    named = dpplan.predict("h200", agents=64, calibration=_shipped())
    assert any("assumed to hold here" in line for line in named.assumptions)


def _shipped() -> str:
    _, _, profile = choose_calibration("h800")
    assert profile is not None
    return profile.name


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("agents", [1, 300, 20000])
def test_never_better_than_the_planner(system: str, agents: float) -> None:
    plan = dpplan.optimize("h800", "agentic", **CASE)
    bound = plan.strategies[SYSTEMS[system].strategy].sessions_per_s
    found = dpplan.predict("h800", **CASE, agents=agents, system=system)
    assert bound is not None
    assert found.jct_s is not None
    assert agents / found.jct_s <= bound * (1 + 1e-9)
    assert found.bound_agents_per_s == pytest.approx(bound, rel=1e-9)


def test_a_prediction_is_frozen_and_shows_itself() -> None:
    found = dpplan.predict("h800", **CASE, agents=64)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.stable = False  # type: ignore[misc]
    with pytest.raises(TypeError):
        found.values["jct_s"] = 0.0
    with pytest.raises(AttributeError):
        _ = found.throughput
    assert "jct_s" in found._repr_html_()
    assert list(found.to_frame()["metric"]) == list(found.values)


def test_a_mix_and_gaps_are_predicted() -> None:
    mixed = dpplan.predict("h800", "mix", agents_per_s=0.05)
    assert mixed.stable
    waiting = dpplan.predict("h800", **CASE, agents_per_s=0.1, settings={"tool_gap_s": "10 s"})
    busy = dpplan.predict("h800", **CASE, agents_per_s=0.1)
    assert waiting.jct_s is not None
    assert busy.jct_s is not None
    assert waiting.jct_s == pytest.approx(busy.jct_s + 156 * 10, rel=0.01)
    assert waiting.agents_in_system == pytest.approx(0.1 * waiting.jct_s, rel=1e-6)
