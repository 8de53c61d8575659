"""The largest throughput of given pools, and the cheapest fleet that sustains a demand (L)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpplan.demand import Counting
from dpplan.deployment.routes import ROUTES
from dpplan.errors import BadInput, Fault, Infeasible
from dpplan.planner.fleet_pools import PoolSet, assemble_pools
from dpplan.solvers.lp import LpAnswer, Names, maximise_turns, minimise_cost

__all__ = ["FleetPlan", "PoolCount", "optimize_pools", "size"]


_MOST_TURNS_PER_S = 1e7


@dataclass(frozen=True)
class PoolCount:
    """Nodes of one pool."""

    side: str
    hardware: str
    nodes: int
    nodes_per_engine: int
    turns_per_s: float
    """Turns this pool takes part in."""
    cost: float


@dataclass(frozen=True)
class FleetPlan:
    """A fleet of pools and what it sustains."""

    workload: str
    model: str
    strategy: str
    counting: str
    pools: tuple[PoolCount, ...]
    turns_per_s: float | None
    """Throughput the fleet allows; None = nothing binds."""
    sessions_per_s: float | None
    demanded_turns_per_s: float | None
    """None where the counts were given."""
    cost: float
    cost_unit: str
    """"USD/h" where every pool's profile has a price, else "nodes"."""
    cost_lower_bound: float | None
    """What fractions of engines would cost: no fleet of whole ones can undercut it."""
    decode_read_fraction: float
    bottlenecks: tuple[str, ...]
    utilisation: dict[str, float]
    shadow_prices: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """The JSON document `dpplan.size/1` as plain values."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain["pools"] = [vars(pool) for pool in self.pools]
        plain["bottlenecks"] = list(self.bottlenecks)
        return {"schema": "dpplan.size/1", **plain}


def optimize_pools(
    workload: str,
    *,
    prefill: Mapping[str, int],
    decode: Mapping[str, int],
    model: str | None = None,
    strategy: str = "dual-path",
    traffic: Counting = "full",
    unlimited: Collection[str] = (),
    settings: Sequence[str] | Mapping[str, object] = (),
) -> FleetPlan:
    """Largest throughput of given pools of unlike nodes (L).

    Parameters
    ----------
    workload, model : str
        Profile names or paths.
    prefill, decode : mapping
        Hardware profile -> nodes, in whole engine groups.
    strategy : {"dual-path", "prefill-only"}
    traffic, unlimited, settings
        As `dpplan.optimize`.

    Returns
    -------
    FleetPlan

    Raises
    ------
    BadInput, Infeasible, UncertifiedAnswer

    Examples
    --------
    One pool a side is the two-sided plan:

    >>> import dpplan
    >>> fleet = optimize_pools("agentic", prefill={"h800": 2}, decode={"h800": 4})
    >>> plan = dpplan.optimize("h800", "agentic", prefill_nodes=2, decode_nodes=4)
    >>> abs(fleet.turns_per_s / plan["dual-path"].turns_per_s - 1) < 1e-9
    True
    """
    pools = assemble_pools(workload, prefill, decode, model, strategy, traffic, unlimited, settings)
    counts = [*prefill.values(), *decode.values()]
    engines = []
    for (side, built), nodes in zip(pools.sides, counts, strict=True):
        if nodes < 1 or nodes % built.group_nodes:
            raise Infeasible(
                f"{nodes} {side} nodes of {built.hardware.name} are no multiple of the engine "
                f"group of {built.group_nodes} nodes",
                [f"{side}.hbm"],
            )
        engines.append(nodes // built.group_nodes)
    answer = maximise_turns(pools.use, pools.capacity(engines), pools.weights, balance=True)
    return _fleet_plan(pools, strategy, traffic, engines, answer, None, None)


def size(
    workload: str,
    *,
    prefill_hardware: Sequence[str],
    decode_hardware: Sequence[str],
    turns_per_s: float | None = None,
    sessions_per_s: float | None = None,
    model: str | None = None,
    strategy: str = "dual-path",
    traffic: Counting = "full",
    unlimited: Collection[str] = (),
    settings: Sequence[str] | Mapping[str, object] = (),
) -> FleetPlan:
    """Cheapest whole engines, of any size and node type given, that sustain a demand (L).

    Parameters
    ----------
    workload, model : str
        Profile names or paths.
    prefill_hardware, decode_hardware : sequence of str
        Node types to choose from on either side.
    turns_per_s, sessions_per_s : float
        The demand; exactly one of them.
    strategy, traffic, unlimited, settings
        As `optimize_pools`.

    Returns
    -------
    FleetPlan
        Cost in USD/h where every node type has a price, else in nodes.

    Raises
    ------
    BadInput, Infeasible, UncertifiedAnswer

    Examples
    --------
    >>> fleet = size("agentic", prefill_hardware=["h800"], decode_hardware=["h800"],
    ...     turns_per_s=100)
    >>> [(pool.side, pool.nodes) for pool in fleet.pools], fleet.cost_unit
    ([('prefill', 2), ('decode', 4)], 'nodes')
    """
    given = [rate for rate in (turns_per_s, sessions_per_s) if rate is not None]
    if len(given) != 1 or not (math.isfinite(given[0]) and given[0] > 0):
        got = "both" if len(given) == 2 else str(given[0]) if given else "neither"
        needed = "one demand above zero is needed: turns_per_s or sessions_per_s"
        raise BadInput(Fault("demand", needed, got))
    pools = assemble_pools(
        workload,
        dict.fromkeys(prefill_hardware),
        dict.fromkeys(decode_hardware),
        model,
        strategy,
        traffic,
        unlimited,
        settings,
    )
    demand = given[0] if turns_per_s is not None else given[0] / pools.sessions_per_turn
    if demand > _MOST_TURNS_PER_S:
        needed = f"at most {_MOST_TURNS_PER_S:,.0f} turns/s can be planned for"
        raise BadInput(Fault("demand", needed, f"{demand:.4g}"))
    cost, _ = pools.costs()
    fleet = minimise_cost(
        pools.use,
        pools.per_engine,
        pools.pool_of_row,
        cost,
        demand,
        pools.weights,
        names=Names(resources=pools.rows),
        at_least_one={
            side: [p for p, (own, _) in enumerate(pools.sides) if own == side]
            for side in ("prefill", "decode")
        },
    )
    return _fleet_plan(
        pools, strategy, traffic, list(fleet.engines), fleet.answer, demand, fleet.lower_bound
    )


def _fleet_plan(
    pools: PoolSet,
    strategy: str,
    counting: str,
    engines: list[int],
    answer: LpAnswer,
    demand: float | None,
    lower_bound: float | None,
) -> FleetPlan:
    bounded = math.isfinite(answer.turns_per_s)
    flow = answer.flow_turns_per_s if bounded else np.zeros_like(answer.flow_turns_per_s)
    cost, unit = pools.costs()
    prefill_pools = sum(1 for side, _ in pools.sides if side == "prefill")
    served = np.zeros(len(pools.sides))
    read = np.zeros(len(ROUTES))
    for w, (i, j, route) in enumerate(pools.ways):
        served[[i, prefill_pools + j]] += flow[:, w].sum()
        read[route] += float(pools.storage_kv_bytes @ flow[:, w])
    tight = np.flatnonzero(answer.load >= 1 - 1e-9)
    used = [pool is None or engines[pool] > 0 for pool in pools.pool_of_row] & np.isfinite(
        pools.per_engine
    )
    return FleetPlan(
        workload=pools.inputs.workload.name,
        model=pools.inputs.model.name,
        strategy=strategy,
        counting=counting,
        pools=tuple(
            PoolCount(
                side,
                built.hardware.name,
                count * built.group_nodes,
                built.group_nodes,
                float(turns),
                count * price,
            )
            for (side, built), count, turns, price in zip(
                pools.sides, engines, served, cost, strict=True
            )
            if count
        ),
        turns_per_s=answer.turns_per_s if bounded else None,
        sessions_per_s=answer.turns_per_s * pools.sessions_per_turn if bounded else None,
        demanded_turns_per_s=demand,
        cost=float(np.dot(cost, engines)),
        cost_unit=unit,
        cost_lower_bound=lower_bound,
        decode_read_fraction=float(read[1] / read.sum()) if read.sum() > 0 else 0.0,
        bottlenecks=tuple(pools.rows[r] for r in tight),
        utilisation={pools.rows[r]: float(min(answer.load[r], 1.0)) for r in np.flatnonzero(used)},
        shadow_prices={pools.rows[r]: float(answer.elasticity[r]) for r in tight},
    )
