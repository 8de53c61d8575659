"""Law S1: the range of P:D that saturates every storage NIC, against eq. 9 and the bound itself."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dpplan.bounds.bottleneck_free import bottleneck_free_range, paper_range
from dpplan.deployment.capacity import NodeCapacity
from dpplan.deployment.routes import FLOWS, RESOURCES, traffic_table
from dpplan.solvers.closed_form import best_split
from dpplan.solvers.lp import maximise_turns

Array = npt.NDArray[np.float64]
INF = math.inf


def node(g: float = 8, s: float = 1, nic: float = 50e9, dram: float = 500e9) -> NodeCapacity:
    """g compute NICs of B bytes/s, storage NICs of s*B, DRAM of M bytes/s."""
    return NodeCapacity(s * nic, s * nic, g * nic, g * nic, dram, 80e9)


PAPER_NODE = node()


def capacity_of(prefill: NodeCapacity, decode: NodeCapacity, p: float, d: float) -> Array:
    """Capacities of P and D nodes on the table's rows; what S1 does not speak of is unlimited."""
    vector = np.full(len(RESOURCES), INF)
    for side, one, count in (("prefill", prefill, p), ("decode", decode, d)):
        for name in ("storage_nic_read", "compute_nic_read", "compute_nic_write", "dram"):
            vector[RESOURCES.index(f"{side}.{name}")] = count * getattr(one, name)
    return vector


def hit_only_use(table: Array) -> Array:
    """Use of a turn of one byte of hit KV on either route, shape (1, 2, resources)."""
    columns = [FLOWS.index("prefill_read"), FLOWS.index("decode_read")]
    return table[:, columns].T[None]


def test_paper_node_has_the_papers_range() -> None:
    """S1: g=8, s=1, B=50 GB/s, M=500 GB/s: exactly 1/7 and 7/2."""
    found = bottleneck_free_range(PAPER_NODE, PAPER_NODE)
    assert found.p_over_d_min == 1 / 7
    assert found.p_over_d_max == 7 / 2
    assert paper_range(8, 1, 50e9, 500e9) == (found.p_over_d_min, found.p_over_d_max)


def test_terms_are_the_papers_equations() -> None:
    """S1: each term of eq. 9 by resource, for the paper's node."""
    terms = {t.resource: t for t in bottleneck_free_range(PAPER_NODE, PAPER_NODE).terms}
    assert {name: term.kind for name, term in terms.items()} == {
        "prefill.compute_nic_read": "always",
        "prefill.compute_nic_write": "at least",
        "prefill.dram": "always",
        "decode.compute_nic_read": "at most",
        "decode.compute_nic_write": "at most",
        "decode.dram": "at most",
    }
    assert terms["prefill.compute_nic_write"].p_over_d == 1 / 7
    assert terms["decode.compute_nic_read"].p_over_d == 6.0  # (g - 2s)/s
    assert terms["decode.compute_nic_write"].p_over_d == 3.5  # (g - s)/(2s)
    assert terms["decode.dram"].p_over_d == 3.5  # (M/(B*s) - 3)/2


def test_conditions_whatever_the_ratio() -> None:
    """S1: 2s <= g (not the s <= g printed under eq. 1) and 2*B*s <= M."""
    assert bottleneck_free_range(node(g=4, s=2, dram=1e13), node()).terms[0].satisfiable
    tight = bottleneck_free_range(node(g=3, s=2, dram=1e13), node(dram=1e13))
    assert not next(t for t in tight.terms if t.resource == "prefill.compute_nic_read").satisfiable
    holds, reason = tight.verdict(1.0)
    assert not holds
    assert "prefill.compute_nic_read" in reason
    starved = bottleneck_free_range(node(dram=99e9), node())
    assert "prefill.dram" in starved.verdict(1.0)[1]
    assert bottleneck_free_range(node(dram=100e9), node()).verdict(1.0)[0]


@given(
    g=st.integers(1, 32),
    s=st.floats(0.05, 16),
    nic=st.floats(1e9, 1e12),
    dram=st.floats(1e9, 1e13),
)
@settings(deadline=None, derandomize=True, max_examples=500)
def test_traffic_table_gives_equation_nine(g: int, s: float, nic: float, dram: float) -> None:
    """S1, T: for like nodes the range derived from the table is the paper's, raw where empty."""
    assume(abs(g - s) > 1e-6)
    found = bottleneck_free_range(node(g, s, nic, dram), node(g, s, nic, dram))
    low, high = paper_range(g, s, nic, dram)
    assert found.p_over_d_min == pytest.approx(low, rel=1e-6)
    assert found.p_over_d_max == pytest.approx(high, rel=1e-6, abs=1e-9)
    ratio = 1.0
    inside = low * (1 + 1e-9) <= ratio <= high * (1 - 1e-9)
    possible = 2 * s <= g and 2 * nic * s <= dram
    holds, reason = found.verdict(ratio)
    if min(abs(ratio - low), abs(ratio - high), abs(2 * s - g), abs(2 * nic * s / dram - 1)) > 1e-6:
        assert holds == (inside and possible and low > 0)
    assert bool(reason)
    assert holds == (reason == "every storage NIC can be saturated")


def test_storage_as_wide_as_compute_has_no_range() -> None:
    """S1: s = g leaves the lower limit undefined: None, and a reason."""
    found = bottleneck_free_range(node(g=2, s=2), node(g=2, s=2))
    assert found.p_over_d_min is None
    assert found.p_over_d_max is not None
    holds, reason = found.verdict(1.0)
    assert not holds
    assert "prefill.compute_nic_write" in reason


def test_empty_and_negative_ranges_stay_raw() -> None:
    """S1: what the equations give, even where no P:D is between them; the verdict says why."""
    empty = bottleneck_free_range(node(g=2, s=1, dram=1e13), node(g=2, s=1, dram=1e13))
    assert (empty.p_over_d_min, empty.p_over_d_max) == (1.0, 0.0)
    assert not empty.verdict(0.5)[0]
    negative = bottleneck_free_range(node(g=2, s=4, dram=1e13), node(g=2, s=4, dram=1e13))
    assert negative.p_over_d_min == -2.0
    assert negative.p_over_d_max == -1.5
    holds, reason = negative.verdict(1.0)
    assert not holds
    assert "decode.compute_nic_read" in reason


def test_the_range_includes_its_ends() -> None:
    """S1: 1P7D and 7P2D of the paper's node saturate; 1P8D and 8P2D don't."""
    found = bottleneck_free_range(PAPER_NODE, PAPER_NODE)
    for p, d, expected in ((1, 7, True), (7, 2, True), (1, 8, False), (8, 2, False), (8, 1, False)):
        assert found.verdict(p / d)[0] is expected


def test_unlimited_resources_bind_nothing() -> None:
    """S1: an infinite resource has no term; infinite storage NICs cannot be saturated."""
    free = NodeCapacity(50e9, 50e9, INF, INF, INF, INF)
    found = bottleneck_free_range(free, free)
    assert found.terms == ()
    assert (found.p_over_d_min, found.p_over_d_max) == (0.0, None)
    assert found.verdict(1e6)[0]
    endless = replace(PAPER_NODE, storage_nic_read=INF)
    assert not bottleneck_free_range(endless, endless).verdict(1.0)[0]


def random_nodes(rng: np.random.Generator) -> tuple[NodeCapacity, NodeCapacity]:
    def one() -> NodeCapacity:
        nic = 10 ** rng.uniform(9.5, 11.5)
        g, s = float(rng.integers(1, 17)), float(rng.choice([0.25, 0.5, 1, 2, 3, 4]))
        return node(g, s, nic, nic * s * rng.uniform(1.5, 16))

    first = one()
    return (first, first) if rng.random() < 0.4 else (first, one())


def storage_sum(prefill: NodeCapacity, decode: NodeCapacity, p: float, d: float) -> float:
    return p * prefill.storage_nic_read + d * decode.storage_nic_read


@pytest.mark.parametrize("seed", range(4))
def test_verdict_is_what_the_bound_does(seed: int) -> None:
    """S1, S2: inside the range the bound is P*S_p + D*S_d with both storage NICs full; outside not.

    2000 random pairs of node types, like and unlike, one fabric or two, on either side.
    """
    rng = np.random.default_rng(seed)
    storage = [RESOURCES.index(f"{side}.storage_nic_read") for side in ("prefill", "decode")]
    seen = {True: 0, False: 0}
    for _ in range(500):
        prefill, decode = random_nodes(rng)
        shared = rng.random(2) < 0.3
        table = traffic_table(prefill_shared=bool(shared[0]), decode_shared=bool(shared[1]))
        p, d = (int(n) for n in rng.integers(1, 13, 2))
        found = bottleneck_free_range(prefill, decode, table=table)
        limits = [t.p_over_d for t in found.terms if t.p_over_d is not None]
        if any(abs(p / d - limit) < 1e-6 * (p / d) for limit in limits):
            continue
        holds, reason = found.verdict(p / d)
        seen[holds] += 1
        use, capacity = hit_only_use(table), capacity_of(prefill, decode, p, d)
        split = best_split(use[0, 0], use[0, 1], capacity)
        bound, x = float(split.turns_per_s), float(split.second_route_fraction)
        load = bound * (use[0, 0] * (1 - x) + use[0, 1] * x) / capacity
        every = storage_sum(prefill, decode, p, d)
        if holds:
            assert bound == pytest.approx(every, rel=1e-9)
            assert load[storage] == pytest.approx([1.0, 1.0], rel=1e-9)
            assert x == pytest.approx(d * decode.storage_nic_read / every, rel=1e-9)
        else:
            assert bound < every * (1 - 1e-9)
            assert load[storage].min() < 1 - 1e-9
            full = {RESOURCES[r] for r in np.flatnonzero(load >= 1 - 1e-9)}
            broken = {t.resource for t in found.terms if t.resource in reason}
            assert full & broken, "a resource that binds must be among those named"
    assert min(seen.values()) > 50


def test_verdict_is_what_the_lp_does() -> None:
    """S1, L: the same by the linear programme, with its certificate."""
    rng = np.random.default_rng(11)
    for _ in range(200):
        prefill, decode = random_nodes(rng)
        p, d = (int(n) for n in rng.integers(1, 13, 2))
        found = bottleneck_free_range(prefill, decode)
        limits = [t.p_over_d for t in found.terms if t.p_over_d is not None]
        if any(abs(p / d - limit) < 1e-6 * (p / d) for limit in limits):
            continue
        answer = maximise_turns(hit_only_use(traffic_table()), capacity_of(prefill, decode, p, d))
        saturated = answer.turns_per_s >= storage_sum(prefill, decode, p, d) * (1 - 1e-9)
        assert saturated == found.verdict(p / d)[0]


@given(p=st.integers(1, 64), d=st.integers(1, 64))
@settings(deadline=None, derandomize=True, max_examples=200)
def test_speedup_inside_the_range(p: int, d: int) -> None:
    """S2, S3: inside, x* = D/(P+D), bound (P+D)*s*B, speedup (P+D)/P."""
    if not bottleneck_free_range(PAPER_NODE, PAPER_NODE).verdict(p / d)[0]:
        return
    use, capacity = hit_only_use(traffic_table()), capacity_of(PAPER_NODE, PAPER_NODE, p, d)
    dual = best_split(use[0, 0], use[0, 1], capacity)
    single = best_split(use[0, 0], use[0, 0], capacity)
    assert float(dual.second_route_fraction) == pytest.approx(d / (p + d), rel=1e-12)
    assert float(dual.turns_per_s) == pytest.approx((p + d) * 50e9, rel=1e-12)
    assert float(dual.turns_per_s / single.turns_per_s) == pytest.approx((p + d) / p, rel=1e-12)


def test_outside_the_range_by_hand() -> None:
    """S2: 8P1D reads 225 GB/s against 200 GB/s; 1P8D any split in [7/8, 1] at 400 GB/s."""
    use = hit_only_use(traffic_table())
    eight = capacity_of(PAPER_NODE, PAPER_NODE, 8, 1)
    assert float(best_split(use[0, 0], use[0, 1], eight).turns_per_s) == pytest.approx(225e9)
    assert float(best_split(use[0, 0], use[0, 0], eight).turns_per_s) == pytest.approx(200e9)
    wide = best_split(use[0, 0], use[0, 1], capacity_of(PAPER_NODE, PAPER_NODE, 1, 8))
    assert float(wide.turns_per_s) == pytest.approx(400e9)
    assert float(wide.lowest_fraction) == pytest.approx(7 / 8)
    assert float(wide.highest_fraction) == pytest.approx(1.0)
    assert float(wide.second_route_fraction) == pytest.approx(8 / 9)
