"""Pools of unlike nodes and least-cost fleets (L), against the two-sided plan and brute force."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dpplan
from dpplan.solvers.lp import maximise_turns, minimise_cost


@pytest.mark.parametrize("workload", ["agentic", "mix"])
@pytest.mark.parametrize("strategy", ["dual-path", "prefill-only"])
def test_one_pool_a_side_is_the_two_sided_plan(workload: str, strategy: str) -> None:
    """L: the pooled programme with one pool a side is `optimize`."""
    plan = dpplan.optimize("h800", workload, prefill_nodes=2, decode_nodes=4)
    fleet = dpplan.optimize_pools(
        workload, prefill={"h800": 2}, decode={"h800": 4}, strategy=strategy
    )
    assert fleet.turns_per_s == pytest.approx(plan[strategy].turns_per_s, rel=1e-9)
    assert fleet.bottlenecks == plan[strategy].bottlenecks
    assert fleet.sessions_per_s == pytest.approx(plan[strategy].sessions_per_s, rel=1e-9)


def test_a_second_pool_only_adds() -> None:
    """L: more pools never hurt, and shadow prices over all rows sum to 1."""
    small = dpplan.optimize_pools("agentic", prefill={"h800": 2}, decode={"h800": 4})
    large = dpplan.optimize_pools(
        "agentic", prefill={"h800": 2, "h20": 2}, decode={"h800": 4, "h20": 2}
    )
    assert small.turns_per_s is not None
    assert large.turns_per_s is not None
    assert large.turns_per_s > small.turns_per_s
    assert math.fsum(large.shadow_prices.values()) == pytest.approx(1)
    assert {pool.hardware for pool in large.pools} == {"h800", "h20"}


def test_size_sustains_the_demand_and_one_engine_less_does_not() -> None:
    """L: the fleet carries the demand; every fleet with fewer nodes of the same kinds does not."""
    fleet = dpplan.size(
        "agentic", prefill_hardware=["h800"], decode_hardware=["h800"], sessions_per_s=2
    )
    assert fleet.sessions_per_s is not None
    assert fleet.sessions_per_s >= 2 * (1 - 1e-9)
    assert fleet.cost_unit == "nodes"
    assert fleet.cost == sum(pool.nodes for pool in fleet.pools)
    assert fleet.cost_lower_bound is not None
    assert fleet.cost_lower_bound <= fleet.cost + 1e-9
    best_of_fewer = dpplan.optimize("h800", "agentic", nodes=round(fleet.cost) - 2)
    rate = best_of_fewer["dual-path"].sessions_per_s
    assert rate is not None
    assert rate < 2


def test_prices_decide_where_every_profile_has_one() -> None:
    fleet = dpplan.size(
        "agentic",
        prefill_hardware=["h800", "h20"],
        decode_hardware=["h800", "h20"],
        turns_per_s=200,
        settings={"hardware.cost_usd_per_h": "20 USD/h"},
    )
    assert fleet.cost_unit == "USD/h"
    assert fleet.cost == pytest.approx(20 * sum(pool.nodes for pool in fleet.pools))


def test_a_fixed_backend_that_is_too_small_is_named() -> None:
    with pytest.raises(dpplan.Infeasible, match="storage_backend_read") as caught:
        dpplan.size(
            "agentic",
            prefill_hardware=["h800"],
            decode_hardware=["h800"],
            turns_per_s=100,
            settings={"storage_backend.read_bytes_per_s": "10 GB/s"},
        )
    assert caught.value.limits == ("storage_backend_read",)


@pytest.mark.parametrize(
    ("turns_per_s", "sessions_per_s"), [(None, None), (1.0, 1.0), (0.0, None), (math.nan, None)]
)
def test_demand_must_be_one_positive_number(
    turns_per_s: float | None, sessions_per_s: float | None
) -> None:
    with pytest.raises(dpplan.BadInput, match="one demand above zero"):
        dpplan.size(
            "agentic",
            prefill_hardware=["h800"],
            decode_hardware=["h800"],
            turns_per_s=turns_per_s,
            sessions_per_s=sessions_per_s,
        )


def test_counts_must_be_whole_engines() -> None:
    with pytest.raises(dpplan.Infeasible, match="engine group of 2 nodes"):
        dpplan.optimize_pools("agentic", prefill={"h800": 1}, decode={"h800": 4})


_load = st.floats(0.01, 1.0)


@settings(max_examples=40, deadline=None)
@given(
    first=st.tuples(_load, _load),
    second=st.tuples(_load, _load),
    cost=st.tuples(st.floats(0.5, 3.0), st.floats(0.5, 3.0)),
    demand=st.floats(0.5, 8.0),
)
def test_least_cost_is_that_of_brute_force(
    first: tuple[float, float],
    second: tuple[float, float],
    cost: tuple[float, float],
    demand: float,
) -> None:
    """L: integer counts of two pools, two ways, against every pair of counts."""
    use = [[list(first), list(second)]]
    fleet = minimise_cost(use, [1.0, 1.0], [0, 1], cost, demand)
    most = math.ceil(demand) + 1
    best = min(
        a * cost[0] + b * cost[1]
        for a, b in itertools.product(range(1, most + 1), repeat=2)
        if maximise_turns(use, [a, b]).turns_per_s >= demand * (1 - 1e-9)
    )
    assert fleet.cost == pytest.approx(best, rel=1e-6)
    assert fleet.lower_bound <= fleet.cost * (1 + 1e-9)


@pytest.mark.parametrize(
    ("hardware", "model", "nodes"),
    [("h800", "kimi-k3", 12), ("a100", "deepseek-v3.2", 12), ("h800", "deepseek-v3.2", 10)],
)
def test_size_needs_no_more_nodes_than_a_plan_of_the_same_rate(
    hardware: str, model: str, nodes: int
) -> None:
    """L: what `optimize` reaches on n nodes, `size` reaches on n or fewer."""
    rate = dpplan.optimize(hardware, "agentic", model=model, nodes=nodes)["dual-path"].turns_per_s
    assert rate is not None
    fleet = dpplan.size(
        "agentic",
        model=model,
        prefill_hardware=[hardware],
        decode_hardware=[hardware],
        turns_per_s=rate * (1 - 1e-6),
    )
    assert fleet.cost <= nodes


@pytest.mark.parametrize("rate", [1e-9, 1e-3])
def test_a_fleet_has_both_sides_however_small_the_demand(rate: float) -> None:
    fleet = dpplan.size(
        "agentic", prefill_hardware=["h800"], decode_hardware=["h800"], turns_per_s=rate
    )
    assert {pool.side for pool in fleet.pools} == {"prefill", "decode"}


def test_an_absurd_demand_is_refused() -> None:
    with pytest.raises(dpplan.BadInput, match="at most 10,000,000 turns/s"):
        dpplan.size(
            "agentic", prefill_hardware=["h800"], decode_hardware=["h800"], turns_per_s=1e12
        )
