"""The survey of models: laws D4, S2 and S3 over many plans, and the page made from it."""

from __future__ import annotations

import importlib.util
import math
import re
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpplan import optimize
from dpplan.bounds.switch_points import switch_points
from dpplan.deployment.routes import FLOWS, RESOURCES, resource_index, traffic_table
from dpplan.errors import BadInput
from dpplan.planner.optimize import prepare
from dpplan.profiles.library import shipped_names
from dpplan.sweeps.survey import (
    CONTEXTS,
    fleet_gain,
    model_survey,
    node_balance_gb_per_pflop,
    survey_case,
    survey_row,
)

DOCS = Path(__file__).resolve().parents[2] / "docs"
REGENERATE = "the numbers have moved: run `python docs/make_figures.py` and look at what changed"
seconds = st.floats(1e-3, 1e3)


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    """`docs/make_figures.py`, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("make_figures", DOCS / "make_figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def surveys(maker: ModuleType) -> tuple[Any, Any]:
    found: tuple[Any, Any] = maker.surveys()
    return found


def test_table_1_as_the_paper_counts() -> None:
    """D4: the paper's Table 1 within 5 %, but for V3, whose row does not follow from its terms."""
    printed = {
        "qwen2.5-32b": (117, 267),
        "gpt-oss-120b": (47, 95),
        "qwen3-235b-a22b": (39, 60),
        "deepseek-v3.2": (13, 36),
    }
    frame = model_survey("h800", [16_384, 65_536], [*printed, "deepseek-v3"], traffic="paper")
    ratio = frame.set_index(["model", "context_tokens"]).cache_compute_ratio_gb_per_pflop
    for model, (low, high) in printed.items():
        assert ratio[model, 16_384] == pytest.approx(low, rel=0.02)
        assert ratio[model, 65_536] == pytest.approx(high, rel=0.05)
    assert ratio["deepseek-v3", 16_384] == pytest.approx(4.8, rel=0.25)
    assert ratio["deepseek-v3", 16_384] < 0.85 * 4.8


def test_a_row_repeats_the_plan() -> None:
    """S2, S3: at the workload's own context the row is what `optimize` says."""
    plan = optimize("h800", "agentic", model="deepseek-v3.2")
    row = survey_row("h800", "deepseek-v3.2", 32_721)
    assert (row.prefill_nodes, row.decode_nodes) == (plan.prefill_nodes, plan.decode_nodes)
    assert row.cache_compute_ratio_gb_per_pflop == plan.demand.cache_compute_ratio_gb_per_pflop
    assert row.speedup is not None
    assert row.speedup == pytest.approx(plan.speedup, rel=1e-9)
    assert row.prefill_only_bottlenecks == ", ".join(plan["prefill-only"].bottlenecks)
    assert row.dual_path_bottlenecks == ", ".join(plan["dual-path"].bottlenecks)


def test_the_storage_side_is_a_plan_with_decode_lifted() -> None:
    """S2: `optimize --unlimited decode.gpu` at 1P:2D."""
    for model in ("kimi-k2", "deepseek-v3.2"):
        plan = optimize(
            "h800",
            "agentic",
            model=model,
            prefill_nodes=48,
            decode_nodes=96,
            unlimited=["decode.gpu", "decode.hbm"],
        )
        row = survey_row("h800", model, 32_721)
        assert row.storage_side_speedup == pytest.approx(plan.speedup, rel=1e-6)


@given(read=seconds, prefill=seconds, decode=seconds)
@settings(deadline=None, derandomize=True)
def test_a_fleet_gains_at_most_twofold(read: float, prefill: float, decode: float) -> None:
    """S3: between 1 and 2, and 1 where reading takes no longer than prefill."""
    gain = fleet_gain(read, prefill, decode)
    assert 1 - 1e-12 <= gain <= 2 + 1e-12
    if read <= prefill:
        assert gain == pytest.approx(1)


@given(read=seconds, prefill=seconds, decode=seconds)
@settings(deadline=None, derandomize=True)
def test_the_fleet_formula_against_a_search(read: float, prefill: float, decode: float) -> None:
    """S3: the formula is the quotient of two maxima over P:D, found by trying shares."""

    def best(shares: list[float], storage_share: float | None) -> float:
        return max(min((storage_share or p) / read, p / prefill, (1 - p) / decode) for p in shares)

    fine = [i / 2000 for i in range(1, 2000)]
    exact_alone = max(read, prefill) / (max(read, prefill) + decode)
    exact_dual = prefill / (prefill + decode)
    found = best([*fine, exact_dual], 1.0) / best([*fine, exact_alone], None)
    assert found == pytest.approx(fleet_gain(read, prefill, decode), rel=1e-6)


def test_the_fleet_of_the_planner_meets_the_formula() -> None:
    """S3: where nothing but storage and GPUs binds, the search over P:D finds the formula."""
    for model in ("deepseek-v3", "gpt-oss-120b", "llama-3.1-70b", "kimi-k2"):
        row = survey_row("h800", model, 65_536)
        assert row.read_node_s is not None
        assert row.prefill_node_s is not None
        assert row.decode_node_s is not None
        due = fleet_gain(row.read_node_s, row.prefill_node_s, row.decode_node_s)
        assert row.fleet_speedup == pytest.approx(due, rel=1e-4), model


def test_storage_binds_above_the_balance(surveys: tuple[Any, Any]) -> None:
    """S3, D4: ratio over balance is read time over prefill time, and decides what binds first."""
    full = surveys[0]
    quotient = full.cache_compute_ratio_gb_per_pflop / full.node_balance_gb_per_pflop
    assert (quotient / (full.read_node_s / full.prefill_node_s)).tolist() == pytest.approx(
        [1.0] * len(full), rel=1e-9
    )
    below = full[quotient < 1 - 1e-9]
    assert len(below)
    assert not below.prefill_only_bottlenecks.str.contains("storage_nic").any()
    assert below.storage_side_speedup.tolist() == pytest.approx([1.0] * len(below))


def test_at_a_switch_point_both_resources_bind() -> None:
    """S4: at the context where storage takes over, what bound before and storage bind alike."""
    case = prepare("h800", "agentic", model="deepseek-v4-pro", prefill_nodes=2, decode_nodes=4)
    point = next(
        point
        for point in switch_points(
            case.deployment,
            case.nodes.prefill_nodes,
            case.nodes.decode_nodes,
            ("prefill-only",),
        )
        if point.quantity == "context_tokens" and "prefill.storage_nic_read" in point.after
    )
    there = optimize(
        "h800",
        "agentic",
        model="deepseek-v4-pro",
        prefill_nodes=2,
        decode_nodes=4,
        settings={"workload.context_tokens": point.value},
    )["prefill-only"]
    assert point.now == 32_721 < point.value
    for resource in (*point.before, "prefill.storage_nic_read"):
        assert there.utilisation[resource] == pytest.approx(1, abs=1e-5)


def test_loading_or_recomputing_takes_as_long() -> None:
    """S4: at the load-or-recompute bandwidth, loading a history takes as long as prefilling it."""
    for model in ("deepseek-v3.2", "llama-3.1-70b"):
        limits = prepare("h800", "agentic", model=model).limits
        rate = limits.load_or_recompute_bytes_per_s
        turn = limits.classes[0]
        assert rate is not None
        fresh = prepare(
            "h800",
            "agentic",
            model=model,
            settings={"workload.context_tokens": 0, "workload.append_tokens": turn.context_tokens},
        ).limits.classes[0]
        assert turn.hit_kv_bytes / rate == pytest.approx(fresh.prefill_gpu_s, rel=1e-12)


def test_the_method_prints_the_traffic_table() -> None:
    """T: the table in docs/method.md is that of `dpplan.routes`."""
    lines = (DOCS / "method.md").read_text(encoding="utf-8").splitlines()
    start = next(
        i for i, line in enumerate(lines) if line.startswith("| resource | `prefill_read`")
    )
    flows = re.findall(r"`(\w+)`", lines[start])
    table, seen = traffic_table(), set()
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        name, *entries = (cell.strip().strip("`") for cell in line.strip("|").split("|"))
        seen.add(name)
        due = [float(table[resource_index(name), FLOWS.index(flow)]) for flow in flows]
        assert [float(entry) for entry in entries] == due, name
    columns = [FLOWS.index(flow) for flow in flows]
    assert seen == {r for r in RESOURCES if any(table[resource_index(r), c] for c in columns)}


def test_the_survey_is_whole(surveys: tuple[Any, Any]) -> None:
    full, paper = surveys
    models = shipped_names("models")
    assert len(full) == 3 * len(models) * len(CONTEXTS)
    assert list(full.model.unique()) == models
    for frame in (full, paper):
        served = frame[frame.infeasible == ""]
        assert (served.cache_compute_ratio_gb_per_pflop > 0).all()
        assert (served.fleet_speedup >= 1 - 1e-9).all()
        assert (served.storage_side_speedup >= 1 - 1e-9).all()
        assert (served.storage_side_speedup <= 3 + 1e-9).all()


def test_no_plan_is_a_row() -> None:
    """No 64 nodes hold the cache of a billion tokens: an answer, not an error."""
    row = survey_row("a100", "llama-3.1-70b", 1e9)
    assert row.infeasible
    assert row.fleet_speedup is None


def test_sessions_are_stretched_to_the_context() -> None:
    turn = survey_case("h800", "deepseek-v3.2", 2 * 32_721).limits.classes[0]
    assert turn.context_tokens == 2 * 32_721
    assert turn.session_tokens == 2 * 55_958
    assert turn.turns_per_session == 2 * 157
    assert turn.append_tokens == 429


def test_a_mix_is_refused() -> None:
    with pytest.raises(BadInput, match="one class of turns"):
        survey_case("h800", "deepseek-v3.2", 32_768, workload="mix")


def test_balance_without_compute_is_nothing() -> None:
    assert node_balance_gb_per_pflop(50e9, math.inf) == 0.0


def test_the_page_shows_what_the_planner_says(maker: ModuleType, surveys: tuple[Any, Any]) -> None:
    page = (DOCS / "does_dualpath_pay.md").read_text(encoding="utf-8")
    assert page == maker.document(*surveys), REGENERATE


def test_the_figure_is_kept_small_and_dateless() -> None:
    drawing = (DOCS / "does_dualpath_pay.svg").read_text(encoding="utf-8")
    assert len(drawing) < 200_000
    assert "<dc:date>" not in drawing


def test_labels_are_spread_in_order(maker: ModuleType) -> None:
    places = maker.spread([0.0, 0.01, 0.02, 5.0], 1.0)
    assert places == sorted(places)
    assert all(b - a >= 1 - 1e-9 for a, b in pairwise(places))
    assert places[3] == 5.0


def test_the_readme_shows_the_same_table() -> None:
    """The README's compact table is the page's, so it cannot go stale on its own."""
    begin, end = "<!-- compact table: begin -->", "<!-- compact table: end -->"

    def table(path: Path) -> str:
        text = path.read_text(encoding="utf-8")
        return text[text.index(begin) : text.index(end)]

    assert table(DOCS.parent / "README.md") == table(DOCS / "does_dualpath_pay.md")
