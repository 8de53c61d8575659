"""Several pools of unlike nodes on either side: the largest throughput, or the cheapest fleet (L).

A way to serve a turn is a pair of pools and a route; every pool has its own rows of the traffic
table. Limits are those of the two-sided plan, worked out once per pair.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dpplan.demand import Counting
from dpplan.engines import SideOptions
from dpplan.errors import BadInput, Fault, Infeasible
from dpplan.limits import Deployment, Limits, Side
from dpplan.lp import LpAnswer, maximise_turns, minimise_cost
from dpplan.placement import MAX_ENGINE_NODES
from dpplan.profiles.library import Inputs, load_inputs
from dpplan.routes import RESOURCES, ROUTES

__all__ = ["FleetPlan", "PoolCount", "optimize_pools", "size"]

Array = npt.NDArray[np.float64]


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


@dataclass(frozen=True)
class _Pools:
    """The LP's arrays of a set of pools."""

    inputs: Inputs
    sides: tuple[tuple[str, Side], ...]
    """("prefill" or "decode", side) by pool."""
    rows: tuple[str, ...]
    pool_of_row: tuple[int | None, ...]
    use: Array
    """(classes, ways, rows)"""
    per_engine: Array
    """What an engine of the row's pool adds, (rows,)."""
    ways: tuple[tuple[int, int, int], ...]
    """(prefill pool, decode pool, route) by way."""
    hit_kv_bytes: Array
    weights: Array


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
    pools = _assemble(workload, prefill, decode, model, strategy, traffic, unlimited, settings)
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
    answer = maximise_turns(pools.use, _grown(pools, engines), pools.weights, balance=True)
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
    pools = _assemble(
        workload,
        dict.fromkeys(prefill_hardware),
        dict.fromkeys(decode_hardware),
        model,
        strategy,
        traffic,
        unlimited,
        settings,
    )
    demand = given[0] if turns_per_s is not None else given[0] / _sessions_per_turn(pools)
    cost, _ = _costs(pools)
    fleet = minimise_cost(
        pools.use,
        pools.per_engine,
        pools.pool_of_row,
        cost,
        demand,
        pools.weights,
        names=pools.rows,
    )
    return _fleet_plan(
        pools, strategy, traffic, list(fleet.engines), fleet.answer, demand, fleet.lower_bound
    )


def _sessions_per_turn(pools: _Pools) -> float:
    return sum(c.weight_fraction / c.turns.turns_per_session for c in pools.inputs.classes)


def _assemble(
    workload: str,
    prefill: Mapping[str, int | None],
    decode: Mapping[str, int | None],
    model: str | None,
    strategy: str,
    traffic: Counting,
    unlimited: Collection[str],
    settings: Sequence[str] | Mapping[str, object],
) -> _Pools:
    """The LP of pools; a node type without a count becomes one pool per engine size."""
    if strategy not in ("dual-path", "prefill-only"):
        needed = "dual-path or prefill-only is needed"
        raise BadInput(Fault("strategy", needed, repr(strategy)))
    if not prefill or not decode:
        raise BadInput(Fault("pools", "at least one node type a side is needed", "none"))
    deployments = {
        (first, second): Deployment(
            load_inputs(
                hardware=None,
                prefill_hardware=first,
                decode_hardware=second,
                workload=workload,
                model=model,
                settings=settings,
            ),
            traffic,
            unlimited,
        )
        for first in prefill
        for second in decode
    }
    one_prefill, one_decode = next(iter(deployments))
    left = [
        (name, side)
        for name, nodes in prefill.items()
        for side in _engines(deployments[name, one_decode].prefill, nodes)
    ]
    right = [
        (name, side)
        for name, nodes in decode.items()
        for side in _engines(deployments[one_prefill, name].decode, nodes)
    ]
    pairs = {
        (i, j): deployments[first, second].with_sides(side_p, side_d)
        for i, (first, side_p) in enumerate(left)
        for j, (second, side_d) in enumerate(right)
    }
    routes = range(1 if strategy == "prefill-only" else len(ROUTES))
    ways = tuple((i, j, route) for (i, j) in pairs for route in routes)
    sides = [("prefill", side) for _, side in left] + [("decode", side) for _, side in right]
    rows = _rows(sides, pairs, len(left))
    first_limits = pairs[0, 0]
    use = np.zeros((len(first_limits.classes), len(ways), len(rows)))
    for w, (i, j, route) in enumerate(ways):
        for number, row in enumerate(rows):
            if row.pool in (None, i, len(left) + j):
                use[:, w, number] = pairs[i, j].use[:, route, row.resource]
    return _Pools(
        inputs=deployments[one_prefill, one_decode].inputs,
        sides=tuple(sides),
        rows=tuple(row.name for row in rows),
        pool_of_row=tuple(row.pool for row in rows),
        use=use,
        per_engine=np.array([row.per_engine for row in rows]),
        ways=ways,
        hit_kv_bytes=np.array([c.hit_kv_bytes for c in first_limits.classes]),
        weights=np.array([c.weight_fraction for c in first_limits.classes]),
    )


def _engines(options: SideOptions, nodes: int | None) -> list[Side]:
    """The side on `nodes` nodes; without a count, its engines of 1, 2, 4, ... smallest groups."""
    if nodes is not None:
        return [options.at(nodes)]
    unit = options.menu.smallest().nodes
    sizes = [unit * 2**n for n in range(6) if unit * 2**n <= MAX_ENGINE_NODES]
    found = [engine for size in sizes if (engine := options.menu.best_of_size(size)) is not None]
    return [options.with_engine(engine) for engine in found]


@dataclass(frozen=True)
class _Row:
    name: str
    pool: int | None
    resource: int
    per_engine: float


def _rows(
    sides: Sequence[tuple[str, Side]], pairs: Mapping[tuple[int, int], Limits], prefill_pools: int
) -> list[_Row]:
    """Every pool's own rows of the traffic table, and those of the storage backend once."""
    rows = []
    several = {name: sum(side == name for side, _ in sides) > 1 for name in ("prefill", "decode")}
    for pool, (side, built) in enumerate(sides):
        is_prefill = side == "prefill"
        limits = pairs[pool, 0] if is_prefill else pairs[0, pool - prefill_pools]
        node = limits.per_prefill_node if is_prefill else limits.per_decode_node
        label = f"{side}[{built.hardware.name} x{built.group_nodes}]" if several[side] else side
        rows += [
            _Row(name.replace(side, label, 1), pool, r, float(node[r]) * built.group_nodes)
            for r, name in enumerate(RESOURCES)
            if name.startswith(side)
        ]
    cluster = np.min([limits.per_cluster for limits in pairs.values()], axis=0)
    rows += [
        _Row(name, None, r, float(cluster[r]))
        for r, name in enumerate(RESOURCES)
        if name.startswith("storage_backend")
    ]
    return rows


def _grown(pools: _Pools, engines: Sequence[int]) -> Array:
    factors = [1.0 if pool is None else float(engines[pool]) for pool in pools.pool_of_row]
    return np.asarray(pools.per_engine * factors)


def _costs(pools: _Pools) -> tuple[list[float], str]:
    prices = [side.hardware.cost_usd_per_h for _, side in pools.sides]
    if any(price is None for price in prices):
        return [float(side.group_nodes) for _, side in pools.sides], "nodes"
    return [
        float(price or 0.0) * side.group_nodes
        for price, (_, side) in zip(prices, pools.sides, strict=True)
    ], "USD/h"


def _fleet_plan(
    pools: _Pools,
    strategy: str,
    counting: str,
    engines: list[int],
    answer: LpAnswer,
    demand: float | None,
    lower_bound: float | None,
) -> FleetPlan:
    bounded = math.isfinite(answer.turns_per_s)
    flow = answer.flow_turns_per_s if bounded else np.zeros_like(answer.flow_turns_per_s)
    cost, unit = _costs(pools)
    prefill_pools = sum(1 for side, _ in pools.sides if side == "prefill")
    served = np.zeros(len(pools.sides))
    read = np.zeros(len(ROUTES))
    for w, (i, j, route) in enumerate(pools.ways):
        served[[i, prefill_pools + j]] += flow[:, w].sum()
        read[route] += float(pools.hit_kv_bytes @ flow[:, w])
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
        sessions_per_s=answer.turns_per_s * _sessions_per_turn(pools) if bounded else None,
        demanded_turns_per_s=demand,
        cost=float(np.dot(cost, engines)),
        cost_unit=unit,
        cost_lower_bound=lower_bound,
        decode_read_fraction=float(read[1] / read.sum()) if read.sum() > 0 else 0.0,
        bottlenecks=tuple(pools.rows[r] for r in tight),
        utilisation={pools.rows[r]: float(min(answer.load[r], 1.0)) for r in np.flatnonzero(used)},
        shadow_prices={pools.rows[r]: float(answer.elasticity[r]) for r in tight},
    )
