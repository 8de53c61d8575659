"""L: the same limits as a linear programme; the only importer of pulp.

Variables f[k, w] >= 0: turns/s of class k served in way w (a route through a pair of pools). Rows
are divided by capacity, so all are of order one. One `meet_*` or `limit_*` function per law.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from dpplan.arrays import Array, Flags
from dpplan.errors import DpplanError, Infeasible, UncertifiedAnswer
from dpplan.solvers.certificate import TOLERANCE, Certificate, certify
from dpplan.solvers.closed_form import loads

if TYPE_CHECKING:
    import pulp

__all__ = ["Fleet", "LpAnswer", "SolverName", "maximise_turns", "minimise_cost"]

SolverName = Literal["highs", "cbc"]

_TIGHT = 1e-10
"""HiGHS's feasibility tolerances: the smallest it takes, a tenth of the certificate's."""

_SHUT = 1e-12
"""A way that may carry less than this share of the traffic shows in no digit."""

_NO_ENGINE = 1e-30
"""Stands for a pool without engines: a way through it carries nothing."""


@dataclass(frozen=True)
class LpAnswer:
    """A certified optimum."""

    turns_per_s: float
    """inf where no limit binds."""
    flow_turns_per_s: Array
    """Turns/s by class and way, shape (classes, ways)."""
    load: Array
    """Share of each resource's capacity in use, shape (resources,)."""
    elasticity: Array
    """d ln(turns_per_s) / d ln(capacity): duals scaled to sum 1, shape (resources,)."""
    certificate: Certificate | None
    """None for an unbounded answer."""


@dataclass(frozen=True)
class Fleet:
    """Node counts of least cost that sustain a demand."""

    engines: tuple[int, ...]
    """Engine groups per pool, in the order given."""
    cost: float
    lower_bound: float
    """Cost with fractions of engines: no fleet of whole ones can undercut it."""
    answer: LpAnswer
    """Throughput that these nodes allow, re-solved with the counts fixed."""


def _solve(
    problem: pulp.LpProblem, solver: SolverName, modes: tuple[str, ...] = ("on", "off")
) -> str:
    import pulp

    engines: list[Any] = [pulp.PULP_CBC_CMD(msg=False)] if solver == "cbc" else []
    if solver == "highs":
        # Presolve loses its way on loads that span twenty decades; the simplex alone may not.
        engines = [
            pulp.HiGHS(
                msg=False,
                threads=1,
                presolve=presolve,
                primal_feasibility_tolerance=_TIGHT,
                dual_feasibility_tolerance=_TIGHT,
                small_matrix_value=1e-12,
                mip_rel_gap=1e-9,
                mip_feasibility_tolerance=1e-9,
            )
            for presolve in modes
        ]
    for engine in engines:
        try:
            problem.solve(engine)
        except pulp.PulpError as error:
            raise DpplanError(f"the {solver} solver failed: {error}") from None
        if pulp.LpStatus[problem.status] != "Not Solved":
            break
    return str(pulp.LpStatus[problem.status])


def meet_mix(
    problem: pulp.LpProblem,
    flows: dict[tuple[str, int, int], pulp.LpVariable],
    total: pulp.LpVariable | float,
    weights: Array,
    unit: Array,
) -> None:
    """Every class gets its share: sum_w f[k, w] = w_k * lambda (L), f counted in `unit`."""
    import pulp

    for k, weight in enumerate(weights):
        served = pulp.lpSum(float(u) * flows["flow", k, w] for w, u in enumerate(unit[k]))
        problem.addConstraint(served == float(weight) * total, f"meet_mix_{k}")


def limit_resources(
    problem: pulp.LpProblem,
    flows: dict[tuple[str, int, int], pulp.LpVariable],
    load: Array,
    room: Sequence[Any] | None = None,
) -> dict[tuple[str, int], Any]:
    """No resource beyond its capacity: sum f * use / capacity <= 1 (L), rows that matter only.

    `room` replaces the 1 by an expression per resource (engines of its pool).
    """
    import pulp

    rows: dict[tuple[str, int], Any] = {}
    classes, ways, resources = load.shape
    for r in range(resources):
        terms = [
            (flows["flow", k, w], float(load[k, w, r]))
            for k in range(classes)
            for w in range(ways)
            if load[k, w, r] > 0
        ]
        if terms:
            limit = 1.0 if room is None else room[r]
            row = pulp.LpAffineExpression(terms) <= limit
            problem.addConstraint(row, f"limit_{r}")
            rows["limit", r] = row
    return rows


def _flows(problem: pulp.LpProblem, shut: Flags) -> dict[tuple[str, int, int], Any]:
    return {
        ("flow", k, w): problem.add_variable(f"f_{k}_{w}", 0, 0 if closed else None)
        for (k, w), closed in np.ndenumerate(shut)
    }


def _units(load: Array) -> Array:
    """Turns that fill one way's busiest resource, at most 1: no coefficient exceeds one."""
    return np.asarray(1.0 / np.maximum(load.max(axis=2), 1.0))


def maximise_turns(
    use: npt.ArrayLike,
    capacity: npt.ArrayLike,
    weights: npt.ArrayLike = (1.0,),
    *,
    solver: SolverName = "highs",
    tolerance: float = TOLERANCE,
    balance: bool = False,
) -> LpAnswer:
    """Largest throughput of a mix within all limits (L), certified.

    maximise lambda over f >= 0: sum_w f[k, w] = w_k * lambda;
    sum_{k, w} f[k, w] * use[k, w, r] <= capacity[r].

    Parameters
    ----------
    use : array_like
        Use per turn, shape (classes, ways, resources), in each resource's unit.
    capacity : array_like
        Above zero, inf = unlimited, shape (resources,).
    weights : array_like
        Share of each class in all turns, shape (classes,).
    solver : {"highs", "cbc"}
        CBC prints eight digits: a cross-check only, with a `tolerance` to suit.
    tolerance : float
        What the certificate allows.
    balance : bool
        Of several optima, take the one whose highest load below full is smallest.

    Returns
    -------
    LpAnswer

    Raises
    ------
    UncertifiedAnswer
        If the solver's numbers don't prove themselves.

    Examples
    --------
    Two storage NICs of 50 GB/s, a turn that may read 1 GB through either:

    >>> a = maximise_turns([[[1e9, 0.0], [0.0, 1e9]]], [50e9, 50e9])
    >>> round(a.turns_per_s, 9), a.elasticity
    (100.0, array([0.5, 0.5]))
    """
    import pulp

    load = loads(use, capacity)
    share = np.asarray(weights, dtype=float)
    classes, ways, resources = load.shape
    # Turns/s at which each class's best way alone would fill some resource: the natural unit.
    heaviest = load.max(axis=2).min(axis=1)
    scale = 1.0 / float(share @ heaviest) if (share @ heaviest) > 0 else 0.0
    if not scale:
        free = load.max(axis=2).argmin(axis=1)
        flow = np.zeros((classes, ways))
        flow[np.arange(classes), free] = np.where(share > 0, math.inf, 0.0)
        return LpAnswer(math.inf, flow, np.zeros(resources), np.zeros(resources), None)
    # Shut for the solver's arithmetic; the certificate prices such ways all the same.
    unit = _units(load * scale)
    shut = unit < _SHUT
    problem = pulp.LpProblem("throughput", pulp.LpMaximize)
    flows = _flows(problem, shut)
    total = problem.add_variable("total", 0)
    problem.setObjective(pulp.LpAffineExpression(total))
    meet_mix(problem, flows, total, share, unit)
    rows = limit_resources(problem, flows, load * np.where(shut, 0.0, unit * scale)[:, :, None])

    def optimum(modes: tuple[str, ...]) -> tuple[float, Array, Array]:
        status = _solve(problem, solver, modes)
        if status != "Optimal":
            raise DpplanError(f"the solver found the throughput problem {status.lower()}")
        price = np.zeros(resources)
        for (_, r), row in rows.items():
            price[r] = row.pi
        if price.sum() < 0:  # PuLP reports a maximisation's duals with the minimisation's sign
            price = -price
        price[np.abs(price) <= 1e-15 * np.abs(price).max(initial=0.0)] = 0.0
        _price_shut_ways(price, load, shut)
        return float(total.varValue) * scale, _values(flows, unit * scale), price

    turns_per_s, flow, price = optimum(("on", "off"))
    try:
        proof = certify(load, share, turns_per_s, flow, price, tolerance)
    except UncertifiedAnswer:  # what presolve took apart, the simplex alone may get right
        turns_per_s, flow, price = optimum(("off",))
        proof = certify(load, share, turns_per_s, flow, price, tolerance)
    if balance:
        even = _balanced(load, scale, share, turns_per_s, price, flow, solver)
        # Evening out is a courtesy: flows that fail the check leave the optimum as it was found.
        with contextlib.suppress(UncertifiedAnswer):
            proof = certify(load, share, turns_per_s, even, price, tolerance)
            flow = even
    return LpAnswer(
        turns_per_s=turns_per_s,
        flow_turns_per_s=flow,
        load=np.tensordot(flow, load, axes=([0, 1], [0, 1])),
        elasticity=np.maximum(price, 0.0) / price.sum(),
        certificate=proof,
    )


def _price_shut_ways(price: Array, load: Array, shut: Flags) -> None:
    """Raise the price of the resource that a shut way floods until the way is no bargain."""
    cost = load @ price
    cheapest = np.where(shut, np.inf, cost).min(axis=1)
    for k, w in np.argwhere(shut & (cost < cheapest[:, None])):
        flooded = int(load[k, w].argmax())
        price[flooded] += (cheapest[k] - cost[k, w]) / load[k, w, flooded]


def _values(flows: dict[tuple[str, int, int], Any], unit: Array) -> Array:
    values = np.zeros(unit.shape)
    for (_, k, w), flow in flows.items():
        values[k, w] = flow.varValue or 0.0
    return np.asarray(np.maximum(values, 0.0) * unit)


def _balanced(
    load: Array,
    scale: float,
    share: Array,
    turns_per_s: float,
    price: Array,
    found: Array,
    solver: SolverName,
) -> Array:
    """Same throughput, priced resources full as before, the highest other load as low as can be."""
    import pulp

    free = [r for r in range(len(price)) if price[r] <= 1e-9 * price.max() and load[..., r].any()]
    if not free:
        return found
    problem = pulp.LpProblem("balance", pulp.LpMinimize)
    unit = _units(load * scale)
    shut = unit < _SHUT
    flows = _flows(problem, shut)
    highest = problem.add_variable("highest", 0)
    problem.setObjective(pulp.LpAffineExpression(highest))
    meet_mix(problem, flows, turns_per_s / scale, share, unit)
    room: list[Any] = [1.0] * len(price)
    for r in free:
        room[r] = highest
    limit_resources(problem, flows, load * np.where(shut, 0.0, unit * scale)[:, :, None], room)
    if _solve(problem, solver) != "Optimal":
        return found
    flow = _values(flows, unit * scale)
    # The shares are the classes' to the last digit, or the certificate would see the solver's.
    served = flow.sum(axis=1, keepdims=True)
    return np.asarray(flow * (share[:, None] * turns_per_s / np.where(served > 0, served, 1.0)))


def minimise_cost(
    use: npt.ArrayLike,
    capacity_per_engine: npt.ArrayLike,
    pool_of_resource: Sequence[int | None],
    cost_per_engine: npt.ArrayLike,
    turns_per_s: float,
    weights: npt.ArrayLike = (1.0,),
    *,
    names: Sequence[str] | None = None,
    at_least_one: Sequence[Sequence[int]] = (),
) -> Fleet:
    """Cheapest whole engines that sustain a throughput (L): integer counts, continuous flows.

    minimise sum_p cost[p] * n[p] over integers n >= 0 and f >= 0 with sum_w f[k, w] = w_k * lambda
    and sum f * use[r] <= capacity[r] * n[pool of r].

    Parameters
    ----------
    use : array_like
        Use per turn, shape (classes, ways, resources).
    capacity_per_engine : array_like
        What one engine of the resource's pool adds, or the whole where it has no pool, shape
        (resources,); inf = unlimited.
    pool_of_resource : sequence of int or None
        Pool that each resource grows with; None = it doesn't grow.
    cost_per_engine : array_like
        Above zero, any currency per time, shape (pools,).
    turns_per_s : float
        lambda, the throughput to sustain.
    weights : array_like
        Share of each class in all turns.
    names : sequence of str, optional
        Of the resources, for messages.
    at_least_one : sequence of sequences of int
        Sets of pools that need an engine, whatever the demand.

    Raises
    ------
    Infeasible
        If what doesn't grow cannot carry the demand.

    Examples
    --------
    A turn/s fills a tenth of a prefill engine and a quarter of a decode engine; 15 turns/s:

    >>> fleet = minimise_cost([[[0.1, 0.25]]], [1, 1], [0, 1], [1.0, 1.0], 15)
    >>> fleet.engines, fleet.cost
    ((2, 4), 6.0)
    """
    import pulp

    load = loads(use, capacity_per_engine)
    share = np.asarray(weights, dtype=float)
    cost = np.asarray(cost_per_engine, dtype=float)

    def build(category: str) -> tuple[pulp.LpProblem, list[Any]]:
        problem = pulp.LpProblem("fleet", pulp.LpMinimize)
        counts = [problem.add_variable(f"n_{p}", 0, None, category) for p in range(len(cost))]
        # Flows are in units of the demand, so rows stay of the order of the engine counts.
        flows = _flows(problem, np.zeros(load.shape[:2], dtype=bool))
        problem.setObjective(pulp.lpSum(float(c) * n for c, n in zip(cost, counts, strict=True)))
        meet_mix(problem, flows, 1.0, share, np.ones(load.shape[:2]))
        room = [1.0 if pool is None else counts[pool] for pool in pool_of_resource]
        for number, pools in enumerate(at_least_one):
            problem.addConstraint(pulp.lpSum(counts[p] for p in pools) >= 1, f"one_{number}")
        limit_resources(problem, flows, load * turns_per_s, room)
        return problem, counts

    relaxed, _ = build("Continuous")
    status = _solve(relaxed, "highs")
    if status != "Optimal":
        fixed = [r for r, pool in enumerate(pool_of_resource) if pool is None]
        least = turns_per_s * np.tensordot(share, load.min(axis=1), axes=1)
        clash = [names[r] if names else str(r) for r in fixed if least[r] > 1]
        raise Infeasible(
            f"{turns_per_s:.6g} turns/s exceed what doesn't grow with nodes: {', '.join(clash)}",
            clash,
        )
    bound = float(pulp.value(relaxed.objective))
    whole, counts = build("Integer")
    if _solve(whole, "highs") != "Optimal":
        raise DpplanError("the solver found no whole engine counts where fractions would do")
    engines = tuple(round(float(n.varValue)) for n in counts)
    grown = np.asarray(capacity_per_engine, dtype=float) * [
        1.0 if pool is None else max(engines[pool], _NO_ENGINE) for pool in pool_of_resource
    ]
    answer = maximise_turns(use, grown, share)
    if answer.turns_per_s < turns_per_s * (1 - 1e-9):
        raise UncertifiedAnswer(
            f"{engines} engines sustain {answer.turns_per_s:.9g} turns/s, not {turns_per_s:.9g}"
        )
    return Fleet(engines, float(cost @ np.array(engines)), bound, answer)
