"""Which P:D a node count offers, in whole engine groups, and which is best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dpplan.arrays import Array
from dpplan.bounds.strategies import bounds
from dpplan.deployment import Deployment, Limits, Side
from dpplan.deployment.routes import RESOURCES
from dpplan.errors import BadInput, Fault, Infeasible
from dpplan.results.optimize import STRATEGIES, NodeOption
from dpplan.units import format_quantity

__all__ = ["MOST_OPTIONS", "NodeChoice", "choose_nodes", "node_options"]


_TIE = 1e-9

MOST_OPTIONS = 1000
"""P:D of one node count that are looked at: a thousandth of the nodes is fine enough."""


@dataclass(frozen=True)
class NodeChoice:
    """The P:D to plan for, and the table it was chosen from."""

    prefill_nodes: int
    decode_nodes: int
    options: tuple[NodeOption, ...]


def choose_nodes(
    deployment: Deployment,
    *,
    nodes: int | None,
    prefill_nodes: int | None,
    decode_nodes: int | None,
    default_nodes: int | None,
) -> NodeChoice:
    """Take the counts given, or the P:D of `nodes` that is best for dual-path.

    Ties go to the P:D whose sorted loads are lexicographically smallest, then to fewer prefill
    nodes.

    Raises
    ------
    BadInput
        If the counts contradict each other.
    Infeasible
        If a count is no multiple of its engine group, or the nodes hold no pair of engines.
    """
    limits = deployment.smallest()
    group_p, group_d = limits.prefill.group_nodes, limits.decode.group_nodes
    if prefill_nodes is not None and decode_nodes is not None:
        if nodes is not None and prefill_nodes + decode_nodes != nodes:
            cure = "leave one of the three out"
            got = f"{prefill_nodes} + {decode_nodes}"
            needed = f"--prefill-nodes and --decode-nodes that add to --nodes {nodes} are needed"
            raise BadInput(Fault("--nodes", needed, got, cure))
        _whole(limits, prefill_nodes, decode_nodes)
        return NodeChoice(prefill_nodes, decode_nodes, ())
    total = nodes if nodes is not None else default_nodes
    if total is None or (nodes is None and total < group_p + group_d):
        total = group_p + group_d
    if prefill_nodes is not None or decode_nodes is not None:
        given = prefill_nodes if prefill_nodes is not None else decode_nodes
        assert given is not None
        group = group_d if prefill_nodes is not None else group_p
        if nodes is None:
            total = max(total, given + group)
        # The side left out gets what is left, in whole engine groups.
        rest = (total - given) // group * group
        if rest < 1:
            side = "--prefill-nodes" if prefill_nodes is not None else "--decode-nodes"
            needed = f"at most {total - group} of the {total} nodes in all are needed"
            raise BadInput(Fault(side, needed, str(given), "raise --nodes, or give both sides"))
        pair = (given, rest) if prefill_nodes is not None else (rest, given)
        _whole(limits, *pair)
        return NodeChoice(*pair, ())
    options = node_options(deployment, total)
    if not options:
        raise Infeasible(
            f"{total} nodes hold no prefill engine of {group_p} and decode engine of {group_d} "
            f"nodes; at least {group_p + group_d} are needed. {_shortage(limits)}".strip(),
            ["prefill.hbm", "decode.hbm"],
        )
    best = next(option for option in options if option.chosen)
    return NodeChoice(best.prefill_nodes, best.decode_nodes, options)


def node_options(deployment: Deployment, total: int) -> tuple[NodeOption, ...]:
    """Every P:D of a node count in whole engine groups, solved, the best for dual-path chosen.

    Nodes that fill no engine group stay idle. Empty where the count holds no pair of engines; of
    more than `MOST_OPTIONS`, evenly spread ones are looked at, then all around the best.
    """
    limits = deployment.smallest()
    group_p, group_d = limits.prefill.group_nodes, limits.decode.group_nodes
    every = range(group_p, total - group_d + 1, group_p)
    step = max(1, -(-len(every) // MOST_OPTIONS))
    options = _options(deployment, every[::step], total)
    if step > 1:
        best = next(i for i, option in enumerate(options) if option.chosen) * step
        near = range(max(0, best - step), min(len(every), best + step + 1))
        looked_at = sorted({*every[::step], *(every[i] for i in near)})
        options = _options(deployment, looked_at, total)
    return options


def _options(deployment: Deployment, prefill: Sequence[int], total: int) -> tuple[NodeOption, ...]:
    group = deployment.smallest().decode.group_nodes
    pairs = [(p, (total - p) // group * group) for p in prefill]
    return _table(deployment, pairs, total) if pairs else ()


def _whole(limits: Limits, prefill_nodes: int, decode_nodes: int) -> None:
    wrong = []
    clashing = []
    for name, count, side in (
        ("prefill", prefill_nodes, limits.prefill),
        ("decode", decode_nodes, limits.decode),
    ):
        if count % side.group_nodes:
            verb = "s are" if count > 1 else " is"
            wrong.append(
                f"{count} {name} node{verb} no multiple of the engine group of {side.group_nodes} "
                f"nodes ({_missing(limits, side, count)})"
            )
            clashing.append(f"{name}.hbm")
    if wrong:
        raise Infeasible("; ".join(wrong), clashing)


def _missing(limits: Limits, side: Side, count: int) -> str:
    room = count * side.hardware.gpus * side.rates.hbm_bytes
    total = limits.weights.total_bytes
    need = f"the weights take {format_quantity(total, 'bytes')}"
    if total > room:
        return (
            f"{need}, {count} x {side.hardware.gpus} GPUs offer {format_quantity(room, 'bytes')}: "
            f"{format_quantity(total - room, 'bytes')} missing"
        )
    per_engine = side.engine.weight_bytes_per_gpu * side.engine.gpus
    return f"{need}, and one engine holds {format_quantity(per_engine, 'bytes')} with its copies"


def _shortage(limits: Limits) -> str:
    side = max((limits.prefill, limits.decode), key=lambda s: s.group_nodes)
    return "" if side.group_nodes == 1 else f"On one node {_missing(limits, side, 1)}."


def _table(
    deployment: Deployment, pairs: list[tuple[int, int]], total: int
) -> tuple[NodeOption, ...]:
    solved = _solved(deployment, pairs)
    best = {name: rates >= rates.max() * (1 - _TIE) for name, (rates, _, _) in solved.items()}
    _, fractions, loads = solved["dual-path"]
    tied = np.flatnonzero(best["dual-path"])
    # Rounded, so that loads equal but for rounding tie and the order of pairs decides.
    order = [tuple(np.round(np.sort(loads[i])[::-1], 9)) for i in tied]
    chosen = int(tied[min(range(len(tied)), key=lambda n: (order[n], n))])
    return tuple(
        NodeOption(
            prefill_nodes=p,
            decode_nodes=d,
            idle_nodes=total - p - d,
            turns_per_s={
                name: float(solved[name][0][i]) if np.isfinite(solved[name][0][i]) else None
                for name in STRATEGIES
            },
            bottlenecks=tuple(RESOURCES[r] for r in np.flatnonzero(loads[i] >= 1 - _TIE)),
            decode_read_fraction=float(fractions[i]),
            chosen=i == chosen,
            best_for=tuple(name for name in STRATEGIES if best[name][i]),
        )
        for i, (p, d) in enumerate(pairs)
    )


def _solved(
    deployment: Deployment, pairs: list[tuple[int, int]]
) -> dict[str, tuple[Array, Array, Array]]:
    """Bound, split and loads of every pair and strategy; pairs of like engines in one go."""
    alike: dict[int, list[int]] = {}
    limits = [deployment.at(p, d) for p, d in pairs]
    for i, found in enumerate(limits):
        alike.setdefault(id(found), []).append(i)
    solved = {
        name: (np.empty(len(pairs)), np.empty(len(pairs)), np.empty((len(pairs), len(RESOURCES))))
        for name in STRATEGIES
    }
    for members in alike.values():
        shared = limits[members[0]]
        prefill, decode = zip(*(pairs[i] for i in members), strict=True)
        capacity = shared.capacity(prefill, decode)
        for name in STRATEGIES:
            for out, values in zip(solved[name], bounds(shared, name, capacity), strict=True):
                out[members] = values
    return solved
