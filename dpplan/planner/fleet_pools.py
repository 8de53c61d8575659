"""Several pools of unlike nodes on either side, as one linear programme's arrays (L).

A way to serve a turn is a pair of pools and a route; every pool has its own rows of the traffic
table. Limits are those of the two-sided plan, worked out once per pair.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dpplan.arrays import Array
from dpplan.demand import Counting
from dpplan.deployment import Deployment, Limits, Side
from dpplan.deployment.layouts import MAX_ENGINE_NODES
from dpplan.deployment.pool_options import SideOptions
from dpplan.deployment.routes import RESOURCES, ROUTES
from dpplan.errors import BadInput, Fault
from dpplan.profiles.library import Inputs, load_inputs

__all__ = ["PoolSet", "assemble_pools"]


_TIMES = (*range(1, 13), 16, 20, 24, 32)
"""Engine sizes that a fleet may mix, in smallest engines."""


@dataclass(frozen=True)
class PoolSet:
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
    storage_kv_bytes: Array
    """Hit KV of a turn that storage delivers, (classes,)."""
    weights: Array

    @property
    def sessions_per_turn(self) -> float:
        """Sessions a mean turn of the mix stands for."""
        return sum(c.weight_fraction / c.turns.turns_per_session for c in self.inputs.classes)

    def capacity(self, engines: Sequence[int]) -> Array:
        """Capacity of every row with these engine counts."""
        factors = [1.0 if pool is None else float(engines[pool]) for pool in self.pool_of_row]
        return np.asarray(self.per_engine * factors)

    def costs(self) -> tuple[list[float], str]:
        """Cost of one engine of each pool: USD/h where all have a price, else nodes."""
        prices = [side.hardware.cost_usd_per_h for _, side in self.sides]
        known = [price for price in prices if price is not None]
        if len(known) < len(prices):
            return [float(side.group_nodes) for _, side in self.sides], "nodes"
        nodes = [side.group_nodes for _, side in self.sides]
        return [price * count for price, count in zip(known, nodes, strict=True)], "USD/h"


def assemble_pools(
    workload: str,
    prefill: Mapping[str, int | None],
    decode: Mapping[str, int | None],
    model: str | None,
    strategy: str,
    traffic: Counting,
    unlimited: Collection[str],
    settings: Sequence[str] | Mapping[str, object],
) -> PoolSet:
    """The LP of pools; a node type without a count becomes one pool per engine size."""
    if strategy not in ("dual-path", "prefill-only"):
        needed = "dual-path or prefill-only is needed"
        raise BadInput(Fault("strategy", needed, repr(strategy)))
    if not prefill or not decode:
        cure = "give --hw, or --prefill-hw and --decode-hw"
        raise BadInput(Fault("hardware", "at least one node type a side is needed", "none", cure))
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
    return PoolSet(
        inputs=deployments[one_prefill, one_decode].inputs,
        sides=tuple(sides),
        rows=tuple(row.name for row in rows),
        pool_of_row=tuple(row.pool for row in rows),
        use=use,
        per_engine=np.array([row.per_engine for row in rows]),
        ways=ways,
        storage_kv_bytes=np.array([c.storage_kv_bytes for c in first_limits.classes]),
        weights=np.array([c.weight_fraction for c in first_limits.classes]),
    )


def _engines(options: SideOptions, nodes: int | None) -> list[Side]:
    """The side on `nodes` nodes; without a count, its engines of many sizes."""
    if nodes is not None:
        return [options.at(nodes)]
    unit = options.menu.smallest().nodes
    sizes = [unit * times for times in _TIMES if unit * times <= MAX_ENGINE_NODES]
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
