"""What a fleet says to a person: nodes to buy, what they sustain, what binds them."""

from __future__ import annotations

from dpplan.planner.size import FleetPlan
from dpplan.report.document import Cell, Column, Document, Items, Section, Table
from dpplan.report.words import join, number, percent, resource

__all__ = ["fleet_document"]


def fleet_document(fleet: FleetPlan) -> Document:
    """The report of a fleet.

    Parameters
    ----------
    fleet : FleetPlan

    Returns
    -------
    Document
        Headline, pools, what binds.
    """
    sections = (
        Section("Fleet", (_pools(fleet),)),
        Section("What binds", (Items(_sentences(fleet)),)),
    )
    return Document(_headline(fleet), sections)


def _cost(value: float, unit: str) -> str:
    return f"{number(value)} {unit}"


def _headline(fleet: FleetPlan) -> str:
    sums: dict[str, int] = {}
    for pool in fleet.pools:
        kind = f"{pool.side} {pool.hardware}"
        sums[kind] = sums.get(kind, 0) + pool.nodes
    nodes = " + ".join(f"{count} {kind}" for kind, count in sums.items())
    price = "" if fleet.cost_unit == "nodes" else f" for {_cost(fleet.cost, fleet.cost_unit)}"
    sustained = f"{number(fleet.turns_per_s)} turns/s, {number(fleet.sessions_per_s)} sessions/s"
    return f"{fleet.model}, {fleet.workload}: {nodes} nodes{price} sustain {sustained}"


def _pools(fleet: FleetPlan) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            pool.side,
            pool.hardware,
            str(pool.nodes),
            f"{pool.nodes // pool.nodes_per_engine} x {pool.nodes_per_engine}",
            number(pool.turns_per_s),
            number(pool.cost),
        )
        for pool in fleet.pools
    ]
    rows.append(
        ("all", "", str(sum(pool.nodes for pool in fleet.pools)), "", "", number(fleet.cost))
    )
    return Table(
        (
            Column("side"),
            Column("hardware"),
            Column("nodes", "right"),
            Column("engines x nodes", "right"),
            Column("turns/s", "right"),
            Column(fleet.cost_unit if fleet.cost_unit != "nodes" else "cost in nodes", "right"),
        ),
        tuple(rows),
        frozenset({len(rows) - 1}),
    )


def _sentences(fleet: FleetPlan) -> tuple[str, ...]:
    found = []
    full = join([resource(name) for name in fleet.bottlenecks])
    found.append(f"{full} are full." if full else "Nothing binds.")
    if fleet.demanded_turns_per_s is not None and fleet.turns_per_s is not None:
        spare = fleet.turns_per_s / fleet.demanded_turns_per_s - 1
        found.append(
            f"Demanded: {number(fleet.demanded_turns_per_s)} turns/s; whole engines leave "
            f"{percent(spare)} to spare."
        )
    if fleet.cost_lower_bound is not None:
        least = _cost(fleet.cost_lower_bound, fleet.cost_unit)
        found.append(f"Fractions of these engines would cost {least}: whole ones can't cost less.")
    share = percent(fleet.decode_read_fraction)
    found.append(f"{share} of the KV from storage is read on the decode side.")
    found.append("Bounds, not predictions: latency under this load is not part of them.")
    return tuple(found)
