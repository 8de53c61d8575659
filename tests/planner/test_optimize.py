"""Whole plans: the paper's P:D study, shadow prices, and what no override may break."""

from __future__ import annotations

import itertools
import json
import math
import pickle
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dpplan
from dpplan import Infeasible, Plan, optimize
from dpplan.deployment.routes import RESOURCES
from dpplan.planner.optimize import prepare
from dpplan.profiles.library import load_inputs, shipped_names
from dpplan.results.optimize import STRATEGIES
from dpplan.solvers.closed_form import best_split

Array = npt.NDArray[np.float64]
INF = math.inf

COMPUTE_FREE = [
    f"{side}.{r}" for side in ("prefill", "decode") for r in ("gpu", "hbm", "kv_buffer")
]
STORAGE = ("prefill.storage_nic_read", "decode.storage_nic_read")
HARDWARE = shipped_names("hardware")
MODELS = shipped_names("models")
WORKLOADS = shipped_names("workloads")
SAMPLE = settings(
    deadline=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)


def paper_plan(prefill_nodes: int, decode_nodes: int, **more: Any) -> Plan:
    return optimize(
        "h800",
        "agentic",
        prefill_nodes=prefill_nodes,
        decode_nodes=decode_nodes,
        traffic="paper",
        unlimited=COMPUTE_FREE,
        **more,
    )


def rates(plan: Plan) -> dict[str, float]:
    """Turns/s by strategy, inf where nothing binds."""
    found = {name: plan[name].turns_per_s for name in STRATEGIES}
    return {name: INF if rate is None else rate for name, rate in found.items()}


# ------------------------------------------------------------- S1-S3: the paper's P:D on its node


@pytest.mark.parametrize(
    ("p", "d", "speedup", "fraction", "bottlenecks"),
    [
        (1, 1, 2.0, 1 / 2, STORAGE),
        (2, 1, 1.5, 1 / 3, STORAGE),
        (1, 2, 3.0, 2 / 3, STORAGE),
        (2, 4, 3.0, 2 / 3, STORAGE),
        (
            8,
            1,
            1.125,
            2 / 9,
            ("decode.storage_nic_read", "decode.compute_nic_write", "decode.dram"),
        ),
        (1, 8, 8.0, 8 / 9, ("prefill.compute_nic_write",)),
    ],
)
def test_speedups_of_the_paper(
    p: int, d: int, speedup: float, fraction: float, bottlenecks: tuple[str, ...]
) -> None:
    """S1, S2, S3: speedup, split and what binds at the paper's six P:D."""
    plan = paper_plan(p, d)
    dual = plan["dual-path"]
    assert plan.speedup == pytest.approx(speedup, rel=1e-12)
    assert dual.decode_read_fraction == pytest.approx(fraction, rel=1e-12)
    assert dual.bottlenecks == bottlenecks
    assert plan.bottleneck_free.holds is (1 / 7 <= p / d <= 7 / 2)
    assert (plan.bottleneck_free.p_over_d_min, plan.bottleneck_free.p_over_d_max) == (1 / 7, 3.5)
    single = plan["prefill-only"]
    assert single.hit_kv_bytes_per_s == pytest.approx(min(p * 50e9, d * 200e9), rel=1e-12)
    assert plan["oracle"].turns_per_s is None
    assert plan["oracle"].bottlenecks == ()
    assert plan["oracle"].shadow_prices == {}


def test_one_to_eight_has_an_interval_of_splits() -> None:
    """S2: any split in [7/8, 1] reads 400 GB/s; the one that loads storage alike is named."""
    dual = paper_plan(1, 8)["dual-path"]
    assert dual.decode_read_fraction_min == pytest.approx(7 / 8, rel=1e-12)
    assert dual.decode_read_fraction_max == pytest.approx(1.0, rel=1e-12)
    used = [dual.utilisation[name] for name in STORAGE]
    assert used == pytest.approx([8 / 9, 8 / 9], rel=1e-12)


@pytest.mark.parametrize(("p", "d"), [(1, 1), (2, 1), (1, 2), (1, 8), (3, 5)])
def test_paper_counting_is_the_table_by_hand(p: int, d: int) -> None:
    """T, S2: utilisation of every resource follows from hit bytes and the traffic table."""
    dual = paper_plan(p, d)["dual-path"]
    x, read = dual.decode_read_fraction, dual.hit_kv_bytes_per_s
    assert x is not None
    assert read is not None
    nic, fabric, memory = 50e9, 400e9, 500e9
    expected = {
        "prefill.storage_nic_read": (1 - x) / (p * nic),
        "decode.storage_nic_read": x / (d * nic),
        "prefill.dram": 2 * (1 - x) / (p * memory),
        "decode.dram": (2 * (1 - x) + 3 * x) / (d * memory),
        "prefill.compute_nic_read": 2 * (1 - x) / (p * fabric),
        "prefill.compute_nic_write": 1 / (p * fabric),
        "decode.compute_nic_read": ((1 - x) + 2 * x) / (d * fabric),
        "decode.compute_nic_write": (2 * (1 - x) + x) / (d * fabric),
    }
    for name, load in expected.items():
        assert dual.utilisation[name] == pytest.approx(load * read, rel=1e-9, abs=1e-12)


# ----------------------------------------------------------------------------- S2, L: shadow prices


def one_sided(use: Array, capacity: Array, row: int, step: float = 1e-6) -> tuple[float, float]:
    """d ln(bound)/d ln(capacity) by differences of the closed form, for more and for less."""

    def bound(factor: float) -> float:
        moved = capacity.copy()
        moved[row] *= factor
        return float(best_split(use[0], use[-1], moved).turns_per_s)

    base = bound(1.0)
    return (
        math.log(bound(1 + step) / base) / math.log1p(step),
        math.log(bound(1 - step) / base) / math.log1p(-step),
    )


@pytest.mark.parametrize("traffic", ["paper", "full"])
@pytest.mark.parametrize("strategy", ["prefill-only", "dual-path"])
@pytest.mark.parametrize(("p", "d"), [(1, 1), (2, 4), (8, 1), (1, 8), (7, 1), (4, 2)])
def test_shadow_prices_are_differences(traffic: str, strategy: str, p: int, d: int) -> None:
    """S2, L: prices sum to 1 and equal finite differences, or lie between the two at a kink."""
    arguments: dict[str, Any] = {
        "model": "ds-27b",
        "prefill_nodes": p,
        "decode_nodes": d,
        "traffic": traffic,
        "unlimited": COMPUTE_FREE if traffic == "paper" else (),
    }
    result = optimize("h800", "agentic", **arguments)[strategy]
    limits = prepare("h800", "agentic", **arguments).limits
    use = limits.use[0, : 1 if strategy == "prefill-only" else 2]
    capacity = limits.capacity(p, d)
    assert sum(result.shadow_prices.values()) == pytest.approx(1.0, abs=1e-9)
    assert set(result.shadow_prices) == set(result.bottlenecks)
    for name in RESOURCES:
        row = RESOURCES.index(name)
        if not math.isfinite(capacity[row]) or not use[:, row].any():
            continue
        more, less = one_sided(use, capacity, row)
        price = result.shadow_prices.get(name, 0.0)
        assert more - 1e-5 <= price <= less + 1e-5
        if name in result.bottlenecks:
            assert result.shadow_prices_if_more[name] == pytest.approx(more, abs=1e-5)
            assert result.shadow_prices_if_less[name] == pytest.approx(less, abs=1e-5)


def test_shadow_prices_at_the_kink_of_eight_to_one() -> None:
    """S2, L: three resources meet at 8P1D; one certified dual, and both its sides."""
    dual = paper_plan(8, 1)["dual-path"]
    names = ("decode.storage_nic_read", "decode.compute_nic_write", "decode.dram")
    more = [dual.shadow_prices_if_more[name] for name in names]
    less = [dual.shadow_prices_if_less[name] for name in names]
    assert more == pytest.approx([0, 4 / 9, 0], abs=1e-9)
    assert less == pytest.approx([1 / 9, 8 / 9, 5 / 9], abs=1e-9)
    for low, name, high in zip(more, names, less, strict=True):
        assert low - 1e-9 <= dual.shadow_prices[name] <= high + 1e-9


def test_shadow_price_of_a_nic_predicts_the_next_plan() -> None:
    """S2: 1 % faster storage NICs of 2P4D are worth 1 % together, as the prices say."""
    base, faster = (
        rates(paper_plan(2, 4, settings={"storage_nic.bytes_per_s": f"{50 * f:.17g} GB/s"}))
        for f in (1.0, 1.01)
    )
    for strategy in ("prefill-only", "dual-path"):
        assert faster[strategy] / base[strategy] == pytest.approx(1.01, rel=1e-12)


def test_mix_prices_are_differences() -> None:
    """L: of a mix too, prices sum to 1 and lie between their sides."""
    for p, d in ((2, 4), (4, 2), (6, 2)):
        plan = optimize("h800", "mix", model="ds-27b", prefill_nodes=p, decode_nodes=d)
        for strategy in STRATEGIES:
            result = plan[strategy]
            assert sum(result.shadow_prices.values()) == pytest.approx(1.0, abs=1e-8)
            for name, price in result.shadow_prices.items():
                assert result.shadow_prices_if_more[name] - 1e-3 <= price
                assert price <= result.shadow_prices_if_less[name] + 1e-3


# ---------------------------------------------------------------------- random plans, fixed engines

# Engine sizes are given, so that a plan before and after an override runs the same engines.
ENGINES = {
    "ds-27b": {"tp": 1, "dp": 8, "ep": 8},
    "qwen2.5-32b": {"tp": 4, "dp": 2},
    "gpt-oss-120b": {"tp": 2, "dp": 4, "ep": 8},
    "qwen3-235b-a22b": {"tp": 4, "dp": 4, "ep": 16},
    "deepseek-v3.2": {"tp": 1, "dp": 16, "ep": 16},
    "minimax-m3": {"tp": 4, "dp": 8, "ep": 32},
}
CAPACITIES = {
    "gpu.bf16_flop_per_s": ("TFLOP/s", 989.0),
    "gpu.fp8_flop_per_s": ("TFLOP/s", 1979.0),
    "gpu.hbm_bytes": ("GB", 80.0),
    "gpu.hbm_bytes_per_s": ("TB/s", 3.35),
    "gpu.nvlink_bytes_per_s": ("GB/s", 200.0),
    "compute_nic.bytes_per_s": ("GB/s", 50.0),
    "storage_nic.bytes_per_s": ("GB/s", 50.0),
    "dram.bytes_per_s": ("GB/s", 500.0),
    "dram.kv_buffer_bytes": ("GB", 80.0),
    "storage_backend.read_bytes_per_s": ("GB/s", 300.0),
    "storage_backend.write_bytes_per_s": ("GB/s", 30.0),
}
COUNTS = ("storage_nic.count", "compute_nic.count")
SHARES = tuple(
    f"efficiency.{name}"
    for name in ("gemm", "attention", "hbm", "storage_nic", "compute_nic", "dram")
)
RESERVES = tuple(
    f"headroom.{name}"
    for name in ("gpu", "hbm", "storage_nic", "compute_nic", "dram", "kv_buffer", "storage_backend")
)


def written(path: str, factor: float) -> object:
    """A capacity of the paper's node times a factor, as `--set` takes it."""
    if path in COUNTS:
        return max(1, round(factor * (8 if path.startswith("compute") else 1)))
    unit, value = CAPACITIES[path]
    return f"{value * factor:.17g} {unit}"


@st.composite
def cases(
    draw: st.DrawFn, workloads: tuple[str, ...] = ("agentic", "agentic-32k", "chat")
) -> dict[str, Any]:
    """Arguments of `optimize`: a shipped node with overrides, a model with its engine, P:D."""
    model = draw(st.sampled_from(sorted(ENGINES)))
    chosen: dict[str, object] = {
        f"parallelism.{side}.{name}": size
        for side in ("prefill", "decode")
        for name, size in ENGINES[model].items()
    }
    for path in draw(st.sets(st.sampled_from([*CAPACITIES, *COUNTS]), max_size=4)):
        low = 1.0 if path == "gpu.hbm_bytes" else 0.05
        chosen[path] = written(path, draw(st.floats(low, 4.0)))
    for path in draw(st.sets(st.sampled_from(SHARES), max_size=2)):
        chosen[path] = draw(st.floats(0.2, 0.9))
    for path in draw(st.sets(st.sampled_from(RESERVES), max_size=2)):
        chosen[path] = draw(st.floats(0.0, 0.1))
    chosen["storage_nic.shared_with_compute"] = draw(st.booleans())
    workload = draw(st.sampled_from(workloads))
    if workload != "mix":
        chosen["append_tokens"] = draw(st.floats(1, 5000))
        chosen["context_tokens"] = draw(st.one_of(st.just(0.0), st.floats(1, 50_000)))
        chosen["slo.tpot"] = draw(st.sampled_from(["50 ms", "200 ms", "unlimited"]))
    return {
        "hardware": draw(st.sampled_from(["h800", "h200", "b200", "mi300x"])),
        "workload": workload,
        "model": model,
        "prefill_nodes": 4 * draw(st.integers(1, 5)),
        "decode_nodes": 4 * draw(st.integers(1, 5)),
        "traffic": draw(st.sampled_from(["full", "paper"])),
        "settings": chosen,
    }


def solved(case: Mapping[str, Any], **changes: Any) -> Plan | None:
    """The plan, or None where there is none."""
    try:
        return optimize(**{**case, **changes})
    except Infeasible as error:
        assert str(error)
        assert error.limits
        return None


def overridden(case: Mapping[str, Any], **changes: object) -> dict[str, Any]:
    own = {path.replace("__", "."): value for path, value in changes.items()}
    return {**case, "settings": {**case["settings"], **own}}


def engines(plan: Plan) -> tuple[tuple[int, ...], ...]:
    sides = (plan.prefill_engine, plan.decode_engine)
    return tuple((e.nodes_per_engine, e.gpus_per_engine, e.tp, e.dp, e.ep) for e in sides)


@given(cases(("agentic", "chat", "mix")))
@SAMPLE
def test_strategies_are_ordered_and_proved(case: dict[str, Any]) -> None:
    """S3, L: oracle >= dual-path >= prefill-only; no resource beyond capacity; prices add to 1."""
    plan = solved(case)
    if plan is None:
        return
    found = rates(plan)
    assert found["oracle"] >= found["dual-path"] * (1 - 1e-9)
    assert found["dual-path"] >= found["prefill-only"] * (1 - 1e-9)
    assert plan.speedup is None or plan.speedup >= 1 - 1e-9
    for name in STRATEGIES:
        result = plan[name]
        if result.turns_per_s is None:
            assert result.bottlenecks == ()
            continue
        assert result.bottlenecks
        assert max(result.utilisation.values()) == pytest.approx(1.0, abs=1e-8)
        assert sum(result.shadow_prices.values()) == pytest.approx(1.0, abs=1e-8)
        assert all(0 <= price <= 1 + 1e-9 for price in result.shadow_prices.values())
        assert result.certificate is not None
        assert max(abs(error) for error in result.certificate.values()) <= 1e-9


@given(cases(), st.sampled_from([*CAPACITIES, *COUNTS]), st.floats(1.0, 8.0), st.floats(1.0, 8.0))
@settings(SAMPLE, max_examples=100)
def test_more_of_any_capacity_never_hurts(
    case: dict[str, Any], path: str, factor: float, more: float
) -> None:
    """C, S2: whole plans are monotone in every peak, with the engines given."""
    before = solved(overridden(case, **{path: written(path, factor)}))
    after = solved(overridden(case, **{path: written(path, factor * more)}))
    if before is None:
        return
    assert after is not None, "more capacity made a plan infeasible"
    assert engines(after) == engines(before)
    for name, rate in rates(before).items():
        assert rates(after)[name] >= rate * (1 - 1e-9)


@given(cases(), st.sampled_from([*SHARES, *RESERVES]), st.floats(0.1, 0.9), st.floats(0.1, 0.9))
@settings(SAMPLE, max_examples=60)
def test_more_efficiency_or_less_headroom_never_hurts(
    case: dict[str, Any], path: str, first: float, second: float
) -> None:
    """C: monotone in efficiencies and headrooms; `paper` counting knows neither."""
    low, high = sorted((first, second))
    worse, better = (low, high) if path in SHARES else (high, low)
    before, after = (solved(overridden(case, **{path: value})) for value in (worse, better))
    if before is None:
        return
    assert after is not None
    for name, rate in rates(before).items():
        assert rates(after)[name] >= rate * (1 - 1e-9)
        if case["traffic"] == "paper":
            assert rates(after)[name] == rate


HUGE = {
    "storage_nic_read": ("storage_nic.bytes_per_s", "1e9 GB/s"),
    "dram": ("dram.bytes_per_s", "1e12 GB/s"),
    "kv_buffer": ("dram.kv_buffer_bytes", "1e12 GB"),
    "hbm": ("gpu.hbm_bytes", "1e9 GB"),
}


@given(cases(), st.sampled_from([*HUGE, "compute_nic"]))
@SAMPLE
def test_unlimited_is_the_limit_of_huge(case: dict[str, Any], resource: str) -> None:
    """C, S2: treating a resource as infinite = giving it more than anything can use."""
    sides = ("prefill", "decode")
    if resource == "compute_nic":
        names, path, value = ("read", "write"), "compute_nic.bytes_per_s", "1e9 GB/s"
        lifted = [f"{side}.compute_nic_{name}" for side in sides for name in names]
    else:
        path, value = HUGE[resource]
        lifted = [f"{side}.{resource}" for side in sides]
        if resource == "storage_nic_read":
            lifted += [f"{side}.storage_nic_write" for side in sides]
    infinite, huge = solved(case, unlimited=lifted), solved(overridden(case, **{path: value}))
    assert (infinite is None) == (huge is None)
    if infinite is None or huge is None:
        return
    for name, rate in rates(infinite).items():
        other = rates(huge)[name]
        assert (
            other > 1e4 * min(rates(huge).values())
            if math.isinf(rate)
            else (other == pytest.approx(rate, rel=1e-5))
        )
    for name in lifted:
        assert name not in infinite["dual-path"].bottlenecks


@given(cases(), st.integers(2, 5))
@SAMPLE
def test_doubling_all_nodes_doubles_the_throughput(case: dict[str, Any], factor: int) -> None:
    """C, S2: n times the nodes (and the storage backend) carry n times the turns."""
    backend = ("storage_backend.read_bytes_per_s", "storage_backend.write_bytes_per_s")
    local = {**case, "settings": {k: v for k, v in case["settings"].items() if k not in backend}}
    base = solved(local)
    if base is None:
        return
    many = solved(
        local,
        prefill_nodes=factor * case["prefill_nodes"],
        decode_nodes=factor * case["decode_nodes"],
    )
    assert many is not None
    for name, rate in rates(base).items():
        assert rates(many)[name] == pytest.approx(factor * rate, rel=1e-9)
    assert many.speedup == pytest.approx(base.speedup, rel=1e-9)


@given(cases())
@SAMPLE
def test_doubling_every_rate_doubles_the_throughput(case: dict[str, Any]) -> None:
    """C, D6, S2: time has no other yardstick once TPOT is lifted."""
    own = {**case["settings"], "slo.tpot": "unlimited"}
    for path, (unit, value) in CAPACITIES.items():
        if not path.endswith("_bytes") and not path.startswith("storage_backend"):
            own.setdefault(path, f"{value:.17g} {unit}")
    doubled = dict(own)
    for path in own:
        if path in CAPACITIES and not path.endswith("_bytes"):
            number, unit = str(own[path]).split(" ")
            doubled[path] = f"{2 * float(number):.17g} {unit}"
    base, fast = solved({**case, "settings": own}), solved({**case, "settings": doubled})
    assert (base is None) == (fast is None)
    if base is None or fast is None:
        return
    for name, rate in rates(base).items():
        assert rates(fast)[name] == pytest.approx(2 * rate, rel=1e-9)


@given(cases(("agentic", "chat")), st.floats(1.0, 3.0), st.sampled_from(["context", "output"]))
@SAMPLE
def test_longer_turns_never_raise_turns_per_s(
    case: dict[str, Any], factor: float, what: str
) -> None:
    """D, S2: a longer history or answer costs more of everything or the same."""
    base = overridden(case, context_tokens=8000, output_tokens=150, session_tokens=200_000)
    longer = overridden(
        base, **{f"{what}_tokens": factor * float(base["settings"][f"{what}_tokens"])}
    )
    before, after = solved(base), solved(longer)
    if before is None or after is None:
        assert after is None
        return
    for name, rate in rates(before).items():
        assert rates(after)[name] <= rate * (1 + 1e-9)


# ------------------------------------------------------------------------------ engines, P:D, mixes


def test_v3_does_not_fit_one_node_of_80_gb() -> None:
    """C: 660B in FP8 on 8 x 80 GB: refused, with the bytes that are missing and the group."""
    for p, d in ((1, 2), (3, 4)):
        with pytest.raises(Infeasible, match=r"multiple of the engine group of 2") as error:
            optimize("h800", "agentic", prefill_nodes=p, decode_nodes=d)
        assert "prefill.hbm" in error.value.limits
    with pytest.raises(Infeasible, match=r"[0-9.]+ GB missing"):
        optimize("h800", "agentic", prefill_nodes=1, decode_nodes=1)
    with pytest.raises(Infeasible, match="missing"):
        optimize("h800", "agentic", nodes=3)
    lifted = optimize(
        "h800", "agentic", prefill_nodes=1, decode_nodes=1, unlimited=["prefill.hbm", "decode.hbm"]
    )
    assert lifted["dual-path"].turns_per_s is not None


def test_six_nodes_offer_whole_groups() -> None:
    """C: six nodes of 80 GB offer 660B 2P4D and 4P2D, nothing between."""
    plan = optimize("h800", "agentic", nodes=6)
    offered = [(o.prefill_nodes, o.decode_nodes, o.idle_nodes) for o in plan.node_options]
    assert offered == [(2, 4, 0), (4, 2, 0)]
    assert [o.chosen for o in plan.node_options].count(True) == 1
    odd = optimize("h800", "agentic", nodes=7)
    assert {o.prefill_nodes + o.decode_nodes + o.idle_nodes for o in odd.node_options} == {7}
    assert all(o.prefill_nodes % 2 == o.decode_nodes % 2 == 0 for o in odd.node_options)


def test_the_table_of_counts_agrees_with_single_plans() -> None:
    """S2, L: every P:D of the table is what a plan of that P:D says, and the best is chosen."""
    for workload in ("agentic", "mix"):
        plan = optimize("h800", workload, model="ds-27b", nodes=6)
        best = max(o.turns_per_s["dual-path"] or INF for o in plan.node_options)
        for option in plan.node_options:
            single = optimize(
                "h800",
                workload,
                model="ds-27b",
                prefill_nodes=option.prefill_nodes,
                decode_nodes=option.decode_nodes,
            )
            for name in STRATEGIES:
                assert option.turns_per_s[name] == pytest.approx(single[name].turns_per_s, rel=1e-9)
            if option.chosen:
                assert option.turns_per_s["dual-path"] == pytest.approx(best, rel=1e-9)
                assert (plan.prefill_nodes, plan.decode_nodes) == (
                    option.prefill_nodes,
                    option.decode_nodes,
                )


@pytest.mark.parametrize("model", ["deepseek-v3.2", "deepseek-v3", "kimi-k2", "glm-5.3"])
@pytest.mark.parametrize("workload", ["agentic", "chat"])
def test_more_memory_never_hurts_whatever_engine_it_allows(model: str, workload: str) -> None:
    """C, D6: memory that lets a smaller engine hold the model must not force it."""
    before: dict[str, float] = dict.fromkeys(STRATEGIES, 0.0)
    for gigabytes in (72, 80, 88, 96, 128, 141, 192, 256, 384):
        plan = optimize(
            "h800",
            workload,
            model=model,
            prefill_nodes=12,
            decode_nodes=12,
            settings={"gpu.hbm_bytes": f"{gigabytes} GB"},
        )
        after = rates(plan)
        for name in STRATEGIES:
            assert after[name] >= before[name] * (1 - 1e-9)
        before = after


def test_a_mix_lies_between_its_classes() -> None:
    """L: time per turn of a mix is at most the weighted sum, at least what its parts need alone."""
    common: dict[str, Any] = {
        "model": "ds-27b",
        "prefill_nodes": 2,
        "decode_nodes": 2,
        "settings": {
            f"parallelism.{side}.{name}": size
            for side in ("prefill", "decode")
            for name, size in ENGINES["ds-27b"].items()
        },
    }
    mixed = rates(optimize("h800", "mix", **common))
    first, second = (rates(optimize("h800", name, **common)) for name in ("agentic", "chat"))
    for name in STRATEGIES:
        parts = (0.7 / first[name], 0.3 / second[name])
        assert max(parts) * (1 - 1e-9) <= 1 / mixed[name] <= sum(parts) * (1 + 1e-9)


def test_a_mix_of_one_class_under_two_names_is_the_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L: identical classes, any weights."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "workloads"
    folder.mkdir()
    twin = "name: {}\nmodel: ds-27b\nturns_per_session: 10\ncontext_tokens: 9000\n"
    twin += "append_tokens: 300\noutput_tokens: 100\nsession_tokens: 12000\n"
    for name in ("one", "two"):
        (folder / f"{name}.yaml").write_text(twin.format(name), encoding="utf-8")
    parts = "[{workload: one, weight: 3}, {workload: two, weight: 5}]"
    (folder / "both.yaml").write_text(f"name: both\nmix: {parts}\n", encoding="utf-8")
    alone, both = (optimize("h800", w, prefill_nodes=1, decode_nodes=1) for w in ("one", "both"))
    for name in STRATEGIES:
        assert both[name].turns_per_s == pytest.approx(alone[name].turns_per_s, rel=1e-8)


def test_each_side_may_run_other_hardware() -> None:
    """T, C: unlike node types: the like case is the special case, a better decode side no worse."""
    common: dict[str, Any] = {"model": "ds-27b", "prefill_nodes": 2, "decode_nodes": 2}
    like = rates(optimize("h800", "agentic", **common))
    spelled = optimize("h800", "agentic", prefill_hardware="h800", decode_hardware="h800", **common)
    assert rates(spelled) == like
    better = optimize("h800", "agentic", decode_hardware="h200", **common)
    assert (better.prefill_hardware, better.decode_hardware) == ("h800", "h200")
    for name, rate in rates(better).items():
        assert rate >= like[name] * (1 - 1e-9)
    one_side = optimize(
        None,
        "agentic",
        prefill_hardware="h800",
        decode_hardware="h800",
        settings={"decode_hardware.storage_nic.count": 2},
        traffic="paper",
        unlimited=COMPUTE_FREE,
        **common,
    )
    assert one_side["dual-path"].hit_kv_bytes_per_s == pytest.approx((2 + 2 * 2) * 50e9, rel=1e-9)
    assert one_side["dual-path"].decode_read_fraction == pytest.approx(4 / 6, rel=1e-9)


def test_storage_backend_caps_every_strategy() -> None:
    """C, T: an aggregate read limit holds whatever the routes; the oracle reads nothing."""
    limits = {"storage_backend.read_bytes_per_s": "120 GB/s"}
    plan = paper_plan(2, 4, settings=limits)
    assert plan["dual-path"].hit_kv_bytes_per_s == pytest.approx(120e9, rel=1e-9)
    assert plan["dual-path"].bottlenecks == ("storage_backend_read",)
    assert plan["prefill-only"].hit_kv_bytes_per_s == pytest.approx(100e9, rel=1e-9)
    assert plan.speedup == pytest.approx(1.2, rel=1e-9)
    assert not plan.bottleneck_free.holds
    assert "backend" in plan.bottleneck_free.reason
    writes = optimize(
        "h800",
        "agentic",
        model="ds-27b",
        prefill_nodes=2,
        decode_nodes=2,
        settings={"storage_backend.write_bytes_per_s": "10 MB/s"},
    )
    per_turn = writes.demand.write_back_bytes_per_turn
    assert writes["dual-path"].bottlenecks == ("storage_backend_write",)
    assert writes["dual-path"].turns_per_s == pytest.approx(10e6 / per_turn, rel=1e-9)


def test_a_shared_fabric_carries_storage_reads_too() -> None:
    """T: with one fabric a read crosses the compute NICs once more, on the side that reads."""
    apart = paper_plan(1, 8)["dual-path"]
    shared = paper_plan(1, 8, settings={"storage_nic.shared_with_compute": True})["dual-path"]
    assert apart.hit_kv_bytes_per_s == pytest.approx(400e9, rel=1e-9)
    # Prefill NIC writes 2(1-x) + x of every byte: 2 - x <= 400/rate, and 8 decode storage NICs.
    x = shared.decode_read_fraction
    assert x is not None
    assert shared.hit_kv_bytes_per_s == pytest.approx(min(400e9 / (2 - x), 400e9 / x), rel=1e-9)
    assert shared.hit_kv_bytes_per_s == pytest.approx(400e9, rel=1e-9)
    assert x == pytest.approx(1.0, abs=1e-9)


# ------------------------------------------------------------------------------ everything shipped


@pytest.mark.parametrize("hardware", HARDWARE)
def test_everything_shipped_plans_or_says_why_not(hardware: str) -> None:
    """D, C, T, S, L: all models and workloads on a node type; JSON without NaN or Infinity."""
    planned = 0
    for model, workload in itertools.product(MODELS, WORKLOADS):
        try:
            plan = optimize(hardware, workload, model=model)
        except Infeasible as error:
            assert error.limits
            assert "nodes" in str(error) or "cannot" in str(error) or "fits" in str(error)
            continue
        planned += 1
        document = json.loads(json.dumps(plan.to_dict(), allow_nan=False))
        assert document["schema"] == "dpplan.optimize/1"
        assert document["inputs"]["model"] == model
        found = rates(plan)
        assert found["oracle"] >= found["dual-path"] * (1 - 1e-9)
        assert found["dual-path"] >= found["prefill-only"] * (1 - 1e-9)
        for name in STRATEGIES:
            result = plan[name]
            assert result.turns_per_s is None or 0 < result.turns_per_s < INF
            assert sum(result.shadow_prices.values()) == pytest.approx(1.0, abs=1e-8)
    assert planned >= len(MODELS)


def test_demand_of_the_agentic_turn_by_hand() -> None:
    """D1-D5: what `optimize` reports of the mean turn of V3.2, in one line of arithmetic each."""
    demand = optimize("h800", "agentic", prefill_nodes=2, decode_nodes=4, traffic="paper").demand
    assert demand.kv_bytes_per_token == 61 * 704
    assert demand.hit_kv_bytes_per_turn == 61 * 704 * 32721
    assert demand.hit_rate_fraction == pytest.approx(32721 / (32721 + 429), rel=1e-15)
    flop = 429 * (2 * 37e9 + 61 * (2 * 128 * 1088 * 2048 + 2 * 64 * 128 * 32721))
    assert demand.prefill_flop_per_turn == pytest.approx(flop, rel=1e-12)
    assert demand.write_back_bytes_per_turn == pytest.approx(61 * 704 * 1484 * 64 / 157, rel=1e-12)
    assert demand.cache_compute_ratio_gb_per_pflop == pytest.approx(
        demand.hit_kv_bytes_per_turn / 1e9 / (flop / 1e15), rel=1e-12
    )


def test_full_counting_uses_by_hand() -> None:
    """D, T: the DRAM and compute-NIC use of a turn in full counting, term by term."""
    case = prepare(
        "h800",
        "agentic",
        model="ds-27b",
        prefill_nodes=1,
        decode_nodes=1,
        settings={
            f"parallelism.{side}.{name}": size
            for side in ("prefill", "decode")
            for name, size in ENGINES["ds-27b"].items()
        },
    )
    use = case.limits.use[0]
    per_token = load_inputs(hardware="h800", workload="agentic", model="ds-27b").model
    token = 30 * (576 + 64) * per_token.kv_element_bytes
    hit, fresh, made = 32721 * token, 429 * token, 176 * token
    kept = token * 64 * math.floor(157 * 605 / 64) / 157
    expected = {
        "prefill.storage_nic_read": (hit, 0),
        "decode.storage_nic_read": (0, hit),
        "decode.storage_nic_write": (kept, kept),
        "prefill.dram": (2 * hit, 0),
        "decode.dram": (2 * hit + 2 * fresh + made + kept, 3 * hit + 2 * fresh + made + kept),
        "prefill.compute_nic_read": (2 * hit + fresh, fresh),
        "prefill.compute_nic_write": (hit, hit),
        "decode.compute_nic_read": (hit + fresh + made, 2 * hit + fresh + made),
        "decode.compute_nic_write": (2 * hit + 2 * fresh + made, hit + 2 * fresh + made),
        "storage_backend_read": (hit, hit),
        "storage_backend_write": (kept, kept),
    }
    for name, (first, second) in expected.items():
        found = use[:, RESOURCES.index(name)]
        assert found == pytest.approx([first, second], rel=1e-12), name


def test_the_package_names_its_parts() -> None:
    assert dpplan.optimize is optimize
    assert set(dpplan.__all__) <= set(dir(dpplan))


# ------------------------------------------------------------------------------ optional keys count


def test_power_is_that_of_all_nodes() -> None:
    """C: P and D nodes at their own maximum; None where a profile names none."""
    plan = dpplan.optimize(
        prefill_hardware="h800", decode_hardware="h20", prefill_nodes=2, decode_nodes=4
    )
    h800 = dpplan.optimize("h800", prefill_nodes=2, decode_nodes=4).power_w
    assert h800 == pytest.approx(6 * 10_200)
    assert plan.power_w != h800


def test_tool_gaps_hold_sessions_by_littles_law() -> None:
    """Sessions in a gap = turns/s * gap, and gaps alone don't change the bound."""
    plain = dpplan.optimize("h800", prefill_nodes=2, decode_nodes=4)["dual-path"]
    gapped = dpplan.optimize(
        "h800", prefill_nodes=2, decode_nodes=4, settings={"tool_gap_s": "5 s"}
    )["dual-path"]
    assert plain.sessions_between_turns is None
    assert gapped.turns_per_s == plain.turns_per_s
    assert gapped.turns_per_s is not None
    assert gapped.sessions_between_turns == pytest.approx(5 * gapped.turns_per_s)


def test_a_ttft_limit_below_the_unloaded_time_warns() -> None:
    def warned(limit: str) -> bool:
        plan = dpplan.optimize(
            "h800", prefill_nodes=2, decode_nodes=4, settings={"slo.ttft": limit}
        )
        return any("TTFT" in warning for warning in plan.warnings)

    assert warned("20 ms")
    assert not warned("4 s")
    assert not warned("unlimited")


def test_the_model_can_be_set() -> None:
    """A workload's model, set, is the model planned, by either path."""
    for key in ("workload.model", "model"):
        plan = optimize(
            "h800", "agentic", prefill_nodes=2, decode_nodes=4, settings={key: "ds-27b"}
        )
        assert plan.model == "ds-27b"
    with pytest.raises(dpplan.BadInput, match="nosuchmodel"):
        dpplan.optimize("h800", "agentic", settings={"workload.model": "nosuchmodel"})


def test_more_decode_nodes_never_hurt() -> None:
    """C, S2: 74 = 2*37 nodes run the engines of 72 and leave two idle rather than shrink them."""
    found = [
        optimize("h800", "agentic", prefill_nodes=40, decode_nodes=d)["dual-path"].turns_per_s
        for d in (68, 70, 72, 74, 76, 82, 84, 86)
    ]
    assert all(b >= a * (1 - 1e-9) for a, b in pairwise(f for f in found if f is not None))


def test_a_side_given_alone_leaves_the_rest_idle() -> None:
    plan = optimize("h800", "agentic", nodes=7, prefill_nodes=2)
    assert (plan.prefill_nodes, plan.decode_nodes) == (2, 4)


@pytest.mark.parametrize("rate", ["1e-300 B/s", "1e300 B/s", "1e-10 B/s"])
def test_rates_no_machine_has_are_refused(rate: str) -> None:
    with pytest.raises(dpplan.BadInput, match="a machine could have"):
        optimize("h800", "agentic", settings={"storage_nic.bytes_per_s": rate})


@pytest.mark.parametrize("rate", ["1e-9 B/s", "1e27 B/s"])
def test_the_extremes_still_give_finite_numbers(rate: str) -> None:
    plan = optimize(
        "h800", "agentic", prefill_nodes=2, decode_nodes=4, settings={"dram.bytes_per_s": rate}
    )
    json.dumps(plan.to_dict(), allow_nan=False)


def test_an_answer_is_frozen_through_and_through() -> None:
    plan = optimize("h800", "agentic", prefill_nodes=2, decode_nodes=4)
    with pytest.raises(TypeError, match="doesn't change"):
        plan.strategies["dual-path"] = plan.strategies["oracle"]
    with pytest.raises(TypeError, match="doesn't change"):
        plan["dual-path"].utilisation.clear()
    assert pickle.loads(pickle.dumps(plan)) == plan


def test_large_node_counts_are_sampled_and_say_so() -> None:
    plan = optimize("h800", "agentic", nodes=5000)
    assert any("were looked at" in warning for warning in plan.warnings)
    assert not any("looked at" in w for w in optimize("h800", "agentic", nodes=60).warnings)
