"""T-pool, a DRAM pool before storage: its column (T), bounds (S1, S2, L) and time (Q) with it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from queueing_cases import SAMPLE, Case, by_hand, cases, constants

from dpplan import BadInput, optimize, optimize_pools, predict
from dpplan.bounds.bottleneck_free import bottleneck_free_range
from dpplan.bounds.strategies import solve_strategy
from dpplan.deployment import Deployment
from dpplan.deployment.capacity import NodeCapacity
from dpplan.deployment.routes import FLOWS, RESOURCES, resource_index, traffic_table
from dpplan.errors import Infeasible
from dpplan.planner.explain import explain
from dpplan.planner.optimize import plan_case, prepare
from dpplan.queueing import Constants, run_offline, run_online, stations
from dpplan.results.optimize import STRATEGIES, Plan
from dpplan.solvers.closed_form import best_split
from dpplan.solvers.lp import maximise_turns

Array = npt.NDArray[np.float64]
COMPUTE_FREE = [
    f"{side}.{r}" for side in ("prefill", "decode") for r in ("gpu", "hbm", "kv_buffer")
]
NETWORKS = [
    f"{side}.{r}"
    for side in ("prefill", "decode")
    for r in ("compute_nic_read", "compute_nic_write", "dram")
]
STORAGE = ("prefill.storage_nic_read", "decode.storage_nic_read")
FRACTIONS = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0.0, 1.0))


def with_tier(case: Case, fraction: float) -> Case:
    return case.but(dram_hit_fraction=fraction)


def bounds_of(case: Case, fraction: float, lifted: tuple[str, ...] = ()) -> dict[str, float] | None:
    """Turns/s by strategy, inf where nothing binds; None where there is no plan."""
    try:
        plan = plan_of(with_tier(case, fraction), lifted)
    except Infeasible as error:
        assert str(error)
        return None
    rates = {name: plan[name].turns_per_s for name in STRATEGIES}
    return {name: math.inf if rate is None else rate for name, rate in rates.items()}


def plan_of(case: Case, lifted: tuple[str, ...] = (), **more: Any) -> Plan:
    return optimize(
        case.hardware,
        case.workload,
        model=case.model,
        prefill_nodes=case.prefill_nodes,
        decode_nodes=case.decode_nodes,
        settings=case.changes,
        unlimited=lifted,
        **more,
    )


# ------------------------------------------------------------------------------------- the table


def test_the_column_is_the_prefill_route_without_its_way_in() -> None:
    """T: Figure 4's labels 3 to 5 and 7 to 9: one DRAM pass on the prefill node, no storage."""
    table = traffic_table()
    pool = dict(zip(RESOURCES, table[:, FLOWS.index("pool_read")], strict=True))
    assert {name: amount for name, amount in pool.items() if amount} == {
        "prefill.dram": 1,
        "prefill.compute_nic_read": 2,
        "prefill.compute_nic_write": 1,
        "decode.dram": 2,
        "decode.compute_nic_read": 1,
        "decode.compute_nic_write": 2,
    }
    shared = traffic_table(prefill_shared=True, decode_shared=True)
    assert (shared[:, FLOWS.index("pool_read")] == table[:, FLOWS.index("pool_read")]).all()


@given(st.floats(0, 1), st.sampled_from([(1, 1), (2, 1), (1, 2), (1, 8), (3, 5), (8, 1)]))
@settings(deadline=None, derandomize=True, max_examples=30)
def test_paper_counting_with_a_tier_by_hand(f: float, nodes: tuple[int, int]) -> None:
    """T, S2: utilisation of every resource from hit bytes, the split and the tier's share."""
    p, d = nodes
    case = Case("h800", "deepseek-v3.2", "agentic", p, d, {"dram_hit_fraction": f})
    dual = plan_of(case, tuple(COMPUTE_FREE), traffic="paper")["dual-path"]
    x, hit = dual.decode_read_fraction, dual.hit_kv_bytes_per_s
    assert x is not None
    assert hit is not None
    left, right = (1 - f) * (1 - x), (1 - f) * x
    nic, fabric, memory = 50e9, 400e9, 500e9
    expected = {
        "prefill.storage_nic_read": left / (p * nic),
        "decode.storage_nic_read": right / (d * nic),
        "prefill.dram": (2 * left + f) / (p * memory),
        "decode.dram": (2 * left + 3 * right + 2 * f) / (d * memory),
        "prefill.compute_nic_read": 2 * (left + f) / (p * fabric),
        "prefill.compute_nic_write": 1 / (p * fabric),
        "decode.compute_nic_read": (left + 2 * right + f) / (d * fabric),
        "decode.compute_nic_write": (2 * left + right + 2 * f) / (d * fabric),
    }
    for name, load in expected.items():
        assert dual.utilisation[name] == pytest.approx(load * hit, rel=1e-9, abs=1e-12)


@given(cases(), FRACTIONS)
@settings(SAMPLE, max_examples=20)
def test_a_turn_uses_the_tiers_share_of_the_column(case: Case, fraction: float) -> None:
    """T-pool, T: use with a tier is that without plus f * hit * (pool - route), flow by flow."""
    if case.workload == "mix":
        return
    try:
        plain, tier = (
            with_tier(case, f).deployment().at(case.prefill_nodes, case.decode_nodes)
            for f in (0.0, fraction)
        )
    except Infeasible:
        return
    if plain.prefill.engine != tier.prefill.engine or plain.decode.engine != tier.decode.engine:
        return
    hit, table = plain.classes[0].hit_kv_bytes, plain.table
    held = [i for i, r in enumerate(RESOURCES) if r.endswith((".hbm", ".kv_buffer"))]
    for route, name in enumerate(("prefill_read", "decode_read")):
        shift = table[:, FLOWS.index("pool_read")] - table[:, FLOWS.index(name)]
        due = plain.use[0, route] + fraction * hit * shift
        moved = np.delete(tier.use[0, route], held)
        assert moved == pytest.approx(np.delete(due, held), rel=1e-9, abs=1e-9 * hit)
        assert (tier.use[0, route, held] <= plain.use[0, route, held] * (1 + 1e-12)).all()
    assert (tier.compute_use == plain.compute_use).all()


# ------------------------------------------------------------------------------- bounds (S2, L)


@given(cases(), FRACTIONS)
@settings(SAMPLE, max_examples=40)
def test_closed_form_and_lp_agree_with_a_tier(case: Case, fraction: float) -> None:
    """S2, S3, L: every strategy is solved by both and certified; strategies stay in order."""
    try:
        # The mix has no such key of its own: its classes are tried below.
        plan = plan_of(case if case.workload == "mix" else with_tier(case, fraction))
    except Infeasible:
        return
    rates = [plan[name].turns_per_s for name in ("oracle", "dual-path", "prefill-only")]
    numbers = [math.inf if rate is None else rate for rate in rates]
    assert numbers[0] >= numbers[1] * (1 - 1e-9)
    assert numbers[1] >= numbers[2] * (1 - 1e-9)
    for name in STRATEGIES:
        result = plan[name]
        if result.turns_per_s is not None:
            assert max(result.utilisation.values()) == pytest.approx(1.0, abs=1e-8)
            assert sum(result.shadow_prices.values()) == pytest.approx(1.0, abs=1e-8)
            assert result.certificate is not None


@given(cases(("agentic", "chat")))
@settings(SAMPLE, max_examples=30)
def test_a_full_tier_leaves_storage_alone(case: Case) -> None:
    """T, S2: at f = 1 nothing is read from storage, so that it never binds and routes are alike."""
    try:
        plan = plan_of(with_tier(case, 1.0))
    except Infeasible:
        return
    for name in ("prefill-only", "dual-path"):
        assert not set(plan[name].bottlenecks) & {*STORAGE, "storage_backend_read"}
        for resource in STORAGE:
            assert plan[name].utilisation.get(resource, 0.0) == 0.0
    assert plan.speedup is None or plan.speedup == pytest.approx(1.0, rel=1e-9)
    if plan.demand.hit_kv_bytes_per_turn:
        assert not plan.bottleneck_free.holds
        assert "no hit KV is read from storage" in plan.bottleneck_free.reason


@given(cases(("agentic", "chat")), st.floats(0, 1), st.floats(0, 1))
@settings(SAMPLE, max_examples=40)
def test_a_larger_tier_never_hurts(case: Case, first: float, second: float) -> None:
    """T-pool, S2: prefill-only always gains; dual-path where compute NICs and DRAM don't bind."""
    low, high = sorted((first, second))
    before, after = bounds_of(case, low), bounds_of(case, high)
    if before is None or after is None:
        assert before is None
        assert after is None
        return
    assert after["prefill-only"] >= before["prefill-only"] * (1 - 1e-9)
    assert after["oracle"] == before["oracle"]
    lifted = tuple(NETWORKS)
    before, after = bounds_of(case, low, lifted), bounds_of(case, high, lifted)
    assert before is not None
    assert after is not None
    assert after["dual-path"] >= before["dual-path"] * (1 - 1e-9)


def test_a_tier_divides_what_storage_delivers() -> None:
    """S2: storage NICs alone: a tier of one half doubles the bound, one of 0.9 makes it tenfold."""
    lifted = (*COMPUTE_FREE, *NETWORKS)
    case = Case("h800", "deepseek-v3.2", "agentic", 2, 4)
    plain = bounds_of(case, 0.0, lifted)
    assert plain is not None
    for fraction, factor in ((0.5, 2), (0.9, 10)):
        tier = bounds_of(case, fraction, lifted)
        assert tier is not None
        for name in ("prefill-only", "dual-path"):
            assert tier[name] == pytest.approx(factor * plain[name], rel=1e-9)


def test_no_tier_is_no_change() -> None:
    """T: a fraction of zero, given or not, is the same plan to the last digit."""
    given_zero = optimize("h800", "agentic", settings={"dram_hit_fraction": 0}).to_dict()
    plain = optimize("h800", "agentic").to_dict()
    changed = {key for key in plain if plain[key] != given_zero[key]}
    assert changed <= {"settings", "inputs"}
    assert given_zero["strategies"] == plain["strategies"]


def write_workload(folder: Path, name: str, **values: object) -> None:
    lines = {
        "name": name,
        "model": "ds-27b",
        "turns_per_session": 50,
        "context_tokens": 30000,
        "append_tokens": 400,
        "output_tokens": 150,
        "session_tokens": 50000,
    } | values
    text = "".join(f"{key}: {value}\n" for key, value in lines.items())
    (folder / "workloads").mkdir(exist_ok=True)
    (folder / "workloads" / f"{name}.yaml").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("shares", [(0.0, 0.8), (0.3, 0.3), (1.0, 0.2), (1.0, 1.0)])
def test_classes_of_a_mix_have_tiers_of_their_own(
    shares: tuple[float, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T, L: like classes with tiers f1, f2 ask storage for the mean of 1 - f1 and 1 - f2."""
    monkeypatch.chdir(tmp_path)
    for name, share in zip(("one", "two"), shares, strict=True):
        write_workload(tmp_path, name, dram_hit_fraction=share)
    write_workload(tmp_path, "mean", dram_hit_fraction=sum(shares) / 2)
    mix = "name: both\nmix: [{workload: one, weight: 1}, {workload: two, weight: 1}]\n"
    (tmp_path / "workloads" / "both.yaml").write_text(mix, encoding="utf-8")
    both, mean = (
        optimize("h800", name, prefill_nodes=2, decode_nodes=3, unlimited=COMPUTE_FREE)
        for name in ("both", "mean")
    )
    for name in ("prefill-only", "dual-path"):
        assert both[name].turns_per_s == pytest.approx(mean[name].turns_per_s, rel=1e-9)
        assert both[name].bottlenecks
    assert both.demand.dram_hit_fraction == pytest.approx(sum(shares) / 2, rel=1e-12)
    assert both.bottleneck_free.p_over_d_min == pytest.approx(mean.bottleneck_free.p_over_d_min)
    assert both.bottleneck_free.holds is mean.bottleneck_free.holds
    assert both["dual-path"].decode_read_fraction == pytest.approx(
        mean["dual-path"].decode_read_fraction, abs=1e-6
    )


def test_pools_of_nodes_read_the_same_table() -> None:
    """L: a fleet of one pool a side is the two-sided plan, tier or not."""
    settings = {"dram_hit_fraction": 0.4}
    plan = optimize("h800", "agentic", prefill_nodes=2, decode_nodes=4, settings=settings)
    fleet = optimize_pools("agentic", prefill={"h800": 2}, decode={"h800": 4}, settings=settings)
    assert fleet.turns_per_s == pytest.approx(plan["dual-path"].turns_per_s, rel=1e-9)


# ------------------------------------------------------------------------------------- range (S1)


def random_node(rng: np.random.Generator) -> NodeCapacity:
    nic = 10 ** rng.uniform(9.5, 11.5)
    g, s = float(rng.integers(2, 17)), float(rng.choice([0.25, 0.5, 1, 2, 3]))
    dram = nic * s * rng.uniform(1.5, 16)
    return NodeCapacity(s * nic, s * nic, g * nic, g * nic, dram, 80e9)


@pytest.mark.parametrize("seed", range(4))
def test_verdict_is_what_the_bound_does_with_a_tier(seed: int) -> None:
    """T-pool, S1, S2, L: inside the range both storage NICs are full, outside not."""
    rng = np.random.default_rng(seed)
    nics = [resource_index(name) for name in STORAGE]
    seen = {True: 0, False: 0}
    for number in range(400):
        prefill, decode = random_node(rng), random_node(rng)
        shared = rng.random(2) < 0.3
        table = traffic_table(prefill_shared=bool(shared[0]), decode_shared=bool(shared[1]))
        p, d = (int(n) for n in rng.integers(1, 13, 2))
        f = float(rng.choice([0.0, rng.uniform(0, 0.3), rng.uniform(0, 0.99)]))
        found = bottleneck_free_range(
            prefill, decode, table=table, pool_bytes_per_storage_byte=f / (1 - f)
        )
        limits = [t.p_over_d for t in found.terms if t.p_over_d is not None]
        if any(abs(p / d - limit) < 1e-6 * (p / d) for limit in limits):
            continue
        pool, first, second = (
            table[:, FLOWS.index(name)] for name in ("pool_read", "prefill_read", "decode_read")
        )
        use = np.array([f * pool + (1 - f) * first, f * pool + (1 - f) * second])
        capacity = np.full(len(RESOURCES), np.inf)
        for side, one, count in (("prefill", prefill, p), ("decode", decode, d)):
            for name in ("storage_nic_read", "compute_nic_read", "compute_nic_write", "dram"):
                capacity[resource_index(f"{side}.{name}")] = count * getattr(one, name)
        split = best_split(use[0], use[1], capacity)
        x, bound = float(split.second_route_fraction), float(split.turns_per_s)
        load = bound * (use[0] * (1 - x) + use[1] * x) / capacity
        every = (p * prefill.storage_nic_read + d * decode.storage_nic_read) / (1 - f)
        holds, reason = found.verdict(p / d)
        seen[holds] += 1
        if holds:
            assert bound == pytest.approx(every, rel=1e-9)
            assert load[nics] == pytest.approx([1.0, 1.0], rel=1e-9)
        else:
            assert bound < every * (1 - 1e-9)
            full = {RESOURCES[r] for r in np.flatnonzero(load >= 1 - 1e-9)}
            assert full & {t.resource for t in found.terms if t.resource in reason}
        if number % 10 == 0:
            assert maximise_turns(use[None], capacity).turns_per_s == pytest.approx(bound, rel=1e-9)
    assert min(seen.values()) > 20


def test_range_with_a_tier_by_hand() -> None:
    """S1: k = 1 on the paper's node: every entry of the pool's column joins both routes'."""
    node = NodeCapacity(50e9, 50e9, 400e9, 400e9, 500e9, 80e9)
    terms = {
        t.resource: t
        for t in bottleneck_free_range(node, node, pool_bytes_per_storage_byte=1.0).terms
    }
    at = {name: term.p_over_d for name, term in terms.items()}
    assert at == {
        "prefill.compute_nic_read": 2 / (8 - 4),
        "decode.compute_nic_read": (8 - 3) / 2,
        "prefill.compute_nic_write": 2 / (8 - 2),
        "decode.compute_nic_write": (8 - 3) / 4,
        "prefill.dram": 1 / (10 - 3),
        "decode.dram": (10 - 5) / 4,
    }
    assert terms["prefill.dram"].kind == "at least"
    idle = bottleneck_free_range(node, node, pool_bytes_per_storage_byte=math.inf)
    assert (idle.p_over_d_min, idle.p_over_d_max, idle.terms) == (None, None, ())


@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.5, 0.8])
@pytest.mark.parametrize(("p", "d"), [(1, 1), (2, 4), (8, 1), (1, 8), (7, 2)])
def test_the_plans_range_agrees_with_its_bound(p: int, d: int, fraction: float) -> None:
    """S1, S2: of a whole plan in `paper` counting, too."""
    case = Case("h800", "deepseek-v3.2", "agentic", p, d, {"dram_hit_fraction": fraction})
    plan = plan_of(case, tuple(COMPUTE_FREE), traffic="paper")
    both = [plan["dual-path"].utilisation[name] for name in STORAGE]
    assert plan.bottleneck_free.holds is (min(both) > 1 - 1e-9)


# ------------------------------------------------------------------------------------- time (Q)


@given(cases(("agentic", "chat")), constants(), FRACTIONS, st.floats(0.05, 0.95))
@settings(SAMPLE, max_examples=30)
def test_no_prediction_beats_the_bound_with_a_tier(
    case: Case, k: Constants, fraction: float, load: float
) -> None:
    """Q-offline, Q-online: finite, and agents/JCT <= the bound; storage reads shrink by 1 - f."""
    tables, plain = (with_tier(case, f).tables(agents=100.0) for f in (fraction, 0.0))
    if tables is None or plain is None:
        return
    found = stations(tables, k)
    job = run_offline(found)
    assert (100.0 / job.jct_s <= tables.bound_agents_per_s * (1 + 1e-9)).all()
    finite = np.isfinite(tables.bound_agents_per_s)
    rate = load * np.where(finite, tables.bound_agents_per_s, 1.0)
    steady = run_online(found, rate)
    for values in (*vars(job).values(), *vars(steady).values()):
        assert np.isfinite(values).all()
        assert (values >= 0).all()
    middle = np.full_like(tables.turns, 0.5)
    read, all_read = found.at(middle).read_s, stations(plain, k).at(middle).read_s
    assert read == pytest.approx((1 - fraction) * all_read, rel=1e-9, abs=1e-300)


def test_stations_with_a_tier_by_hand() -> None:
    """Q-stations: storage carries 1 - f of the KV, GPUs and hand-off all of it."""
    columns = {
        "storage_ways": 1.0,
        "hit_bytes": 4e9,
        "storage_s_per_byte": 1e-9,
        "node_read_bytes_per_s": 1e9,
        "gpu_link_bytes_per_s": 8e9,
        "kernel_gpu_s": 1.0,
    }
    k = Constants(storage_nic_share=0.5, prefill_efficiency=1.0)
    plain, tier = (
        stations(by_hand(**columns, storage_fraction=share), k).at(np.array([[0.5]]))
        for share in (1.0, 0.25)
    )
    assert plain.read_s[0, 0] == pytest.approx(4e9 / 0.5e9)
    assert tier.read_s[0, 0] == pytest.approx(1e9 / 0.5e9)
    assert tier.storage_load_s[0, 0] == pytest.approx(1e9 * 1e-9 / 0.5)
    assert tier.prefill_gpu_s[0, 0] == plain.prefill_gpu_s[0, 0]
    assert tier.hand_off_s[0, 0] == plain.hand_off_s[0, 0]
    other = by_hand(**columns, storage_fraction=0.0, other_io_s_per_byte=1e-10)
    assert stations(other, k).at(np.array([[0.5]])).storage_load_s[0, 0] == pytest.approx(0.4)


def test_tables_with_a_tier() -> None:
    """Q-scenario: NICs carry the same per byte that storage delivers, the rest is other I/O."""
    case = Case("h800", "deepseek-v3.2", "agentic", 2, 4)
    plain, half, full = (
        with_tier(case, f).tables(["basic+layerwise"], agents=10.0) for f in (0.0, 0.5, 1.0)
    )
    assert plain is not None
    assert half is not None
    assert full is not None
    assert half.storage_s_per_byte == pytest.approx(plain.storage_s_per_byte)
    assert (half.storage_fraction == 0.5).all()
    assert (half.hit_bytes == plain.hit_bytes).all()
    assert full.storage_s_per_byte[0] == 0.0
    assert full.other_io_s_per_byte[0] > 0.0
    assert half.bound_agents_per_s[0] > plain.bound_agents_per_s[0]
    k = Constants()
    times = [run_offline(stations(t, k)).jct_s[0] for t in (plain, half, full)]
    assert times[0] > times[1] > times[2]


def test_predictions_with_a_tier_come_earlier() -> None:
    """Q-online: TTFT of prefill-only near saturation falls with a tier, never below the bound."""
    found = [
        predict(
            "h800",
            "agentic",
            prefill_nodes=2,
            decode_nodes=4,
            system="basic+layerwise",
            agents_per_s=0.15,
            settings={"dram_hit_fraction": f},
        )
        for f in (0.0, 0.5, 1.0)
    ]
    waits = [p.values["ttft_s"] for p in found]
    assert waits[0] > waits[1] >= waits[2]
    assert found[2].utilisation["storage_nic_read"] < found[0].utilisation["storage_nic_read"]
    assert any("lies in DRAM" in line for line in found[1].assumptions)


# ---------------------------------------------------------------------------- words and bad input


def test_explain_shows_the_tier() -> None:
    """T: the pool's bytes are a term, and part of a binding compute NIC's load."""
    case = prepare(
        "h800",
        "agentic",
        prefill_nodes=1,
        decode_nodes=8,
        traffic="paper",
        unlimited=COMPUTE_FREE,
        settings={"dram_hit_fraction": 0.25},
    )
    plan = plan_case(case)
    terms = {term.name: term for term in explain(case, plan)}
    shown = terms["hit KV found in DRAM, agentic"]
    assert shown.value == pytest.approx(0.25 * plan.demand.hit_kv_bytes_per_turn, rel=1e-12)
    load = next(t for name, t in terms.items() if name.startswith("dual-path: load of"))
    assert "pool_read" in load.numbers
    assert any("lies in DRAM of the very node" in line for line in plan.assumptions)
    plain = prepare("h800", "agentic", prefill_nodes=2, decode_nodes=4)
    names = [term.name for term in explain(plain, plan_case(plain))]
    assert not any("DRAM, agentic" in name for name in names)


@pytest.mark.parametrize("value", [-0.1, 1.0001, "x", "40 %", True, "nan"])
def test_a_fraction_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(BadInput, match="dram_hit_fraction"):
        optimize("h800", "agentic", settings={"dram_hit_fraction": value})


def test_a_profile_may_name_its_tier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_workload(tmp_path, "tiered", dram_hit_fraction=0.6)
    plan = optimize("h800", "tiered", prefill_nodes=1, decode_nodes=1)
    assert plan.demand.dram_hit_fraction == 0.6
    assert any("dram_hit_fraction = 0.6 (no source given)" in line for line in plan.assumptions)
    assert plan["dual-path"].turns_per_s is not None


def test_elasticities_are_differences_with_a_tier() -> None:
    """S2: 1 % faster storage NICs are worth what the prices of a tiered plan say."""
    names = ("prefill-only", "dual-path")
    base, faster = (
        optimize(
            "h800",
            "agentic",
            prefill_nodes=1,
            decode_nodes=3,
            model="ds-27b",
            settings={
                "dram_hit_fraction": 0.3,
                "storage_nic.bytes_per_s": f"{50 * factor:.17g} GB/s",
            },
        )
        for factor in (1.0, 1.0 + 1e-6)
    )
    for name in names:
        one, other = base[name], faster[name]
        assert one.turns_per_s is not None
        assert other.turns_per_s is not None
        gain = math.log(other.turns_per_s / one.turns_per_s) / math.log1p(1e-6)
        price = sum(one.shadow_prices.get(resource, 0.0) for resource in STORAGE)
        assert gain == pytest.approx(price, abs=1e-3)


def test_solve_strategy_names_shares_of_storage_reads() -> None:
    """S2: inside the range x is D/(P+D) of what storage delivers, whatever the tier."""
    for fraction in (0.0, 0.2):
        case = Case("h800", "deepseek-v3.2", "agentic", 2, 3, {"dram_hit_fraction": fraction})
        inputs = case.deployment().inputs
        limits = Deployment(inputs, "paper", COMPUTE_FREE).at(2, 3)
        found = solve_strategy(limits, "dual-path", 2, 3)
        assert found.decode_read_fraction == pytest.approx(3 / 5, rel=1e-9)
