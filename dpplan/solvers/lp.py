"""L: the same limits as a linear programme; the only importer of pulp.

Variables f[k, w] >= 0: turns/s of class k served in way w (a route through a pair of pools). Rows
are divided by capacity, so all are of order one. One `meet_*` or `limit_*` function per law; rows
and columns carry the law's name and the class's, way's or resource's, as in `limit(storage)`.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dpplan.arrays import Array, Flags
from dpplan.errors import DpplanError, Infeasible, UncertifiedAnswer
from dpplan.solvers.certificate import (
    FULL,
    TOLERANCE,
    Certificate,
    certify,
    cheapest_mix,
    price_ways,
)
from dpplan.solvers.closed_form import loads

__all__ = [
    "NUMBERS",
    "Fleet",
    "LpAnswer",
    "Mix",
    "Names",
    "Programme",
    "SolverName",
    "fleet_problem",
    "maximise_turns",
    "minimise_cost",
    "throughput_problem",
    "tie_break_problem",
]

SolverName = Literal["highs", "cbc"]

_TIGHT = 1e-10
"""HiGHS's feasibility tolerances: the smallest it takes, a tenth of the certificate's."""

_SHUT = 1e-12
"""A way that may carry less than this share of the traffic shows in no digit."""

_NO_ENGINE = 1e-30
"""Stands for a pool without engines: a way through it carries nothing."""

_AT_LIMIT = 1e-6
"""A flow this close to its limit, relative, stands at it."""

_NOT_A_LABEL = re.compile(r"[^A-Za-z0-9!#$%&.;?@_{}~]")
"""What an .lp file or PuLP would not take in a name, and what sets its parts apart."""


@dataclass(frozen=True)
class Names:
    """What rows and columns are called after; whatever is left out is numbered from 0."""

    resources: Sequence[str] = ()
    ways: Sequence[str] = ()
    classes: Sequence[str] = ()
    pools: Sequence[str] = ()

    def of(self, mix: Mix, pools: int = 0) -> Names:
        """A label for everything: of letters an .lp file takes, no two of a kind alike.

        Raises
        ------
        ValueError
            If there are fewer or more names than things.
        """
        classes, ways, resources = mix.load.shape
        return Names(
            _labels("resources", self.resources, resources),
            _labels("ways", self.ways, ways),
            _labels("classes", self.classes, classes),
            _labels("pools", self.pools, pools) if pools else (),
        )


NUMBERS = Names()
"""Everything by its number."""


def _labels(kind: str, names: Sequence[str], count: int) -> list[str]:
    if names and len(names) != count:
        raise ValueError(f"{len(names)} names of {kind} for {count}")
    labels = [_NOT_A_LABEL.sub("_", str(name)) for name in names or range(count)]
    if len(set(labels)) < len(labels):
        labels = [f"{label}.{number}" for number, label in enumerate(labels)]
    return labels


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
    at_most_elasticity: Array
    """d ln(turns_per_s) / d ln(at_most), shape (classes, ways); 0 where slack or absent. Sums
    over classes are the elasticities of limits that all classes share."""
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


@dataclass(frozen=True)
class Mix:
    """What the laws are written from; classes, ways and resources are the arrays' axes."""

    load: Array
    """Share of each resource that one unit of a flow fills, shape (classes, ways, resources)."""
    weights: Array
    """Share of each class in all turns, shape (classes,)."""
    at_most: Array
    """Largest share of a class's turns by way, shape (classes, ways); 1 and more = no limit."""
    unit: Array
    """Turns/s in one unit of a flow, in units of the total, shape (classes, ways)."""
    closed: Flags
    """Ways that carry nothing, shape (classes, ways)."""
    names: Names = NUMBERS


class Programme:
    """A problem with its rows and columns by key, as in `rows["limit", 3]`.

    Columns stay in the order of their making, so no name steers the solver among equals.
    """

    def __init__(self, name: str, names: Names, *, maximise: bool = False) -> None:
        import pulp

        self.names = names
        self.columns: dict[tuple[str | int, ...], Any] = {}
        self.rows: dict[tuple[str | int, ...], Any] = {}
        self.problem = pulp.LpProblem(name, pulp.LpMaximize if maximise else pulp.LpMinimize)
        self.problem.variables = lambda: list(self.columns.values())

    def column(
        self,
        key: tuple[str | int, ...],
        *labels: str,
        high: float | None = None,
        category: str = "Continuous",
    ) -> Any:
        """Add a variable >= 0; key[0] and the labels are its name."""
        self.columns[key] = self.problem.add_variable(_name(key, labels), 0, high, category)
        return self.columns[key]

    def row(self, key: tuple[str | int, ...], constraint: Any, *labels: str) -> None:
        """Add a constraint; key[0] and the labels are its name."""
        self.problem.addConstraint(constraint, _name(key, labels))
        self.rows[key] = constraint

    def set_objective(self, objective: Any) -> None:
        """Set the objective, a variable or an expression."""
        import pulp

        self.problem.setObjective(pulp.LpAffineExpression(objective))

    def solve(self, solver: SolverName = "highs", modes: tuple[str, ...] = ("on", "off")) -> str:
        """Solve it, with presolve as in `modes` until one answers; the status in PuLP's words."""
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
                self.problem.solve(engine)
            except pulp.PulpError as error:
                raise DpplanError(f"the {solver} solver failed: {error}") from None
            if pulp.LpStatus[self.problem.status] != "Not Solved":
                break
        return str(pulp.LpStatus[self.problem.status])

    def flows(self, unit: Array) -> Array:
        """Solved flows times `unit`, shape (classes, ways)."""
        flows = np.zeros(unit.shape)
        for k, w in np.ndindex(unit.shape):
            flows[k, w] = self.columns["flow", k, w].varValue or 0.0
        return np.asarray(np.maximum(flows, 0.0) * unit)

    def prices(self, law: str, count: int) -> Array:
        """Duals of a law's rows, 0 where it has none, shape (count,)."""
        rows = [self.rows.get((law, number)) for number in range(count)]
        return np.array([0.0 if row is None else row.pi for row in rows])


def _name(key: tuple[str | int, ...], labels: tuple[str, ...]) -> str:
    return f"{key[0]}({','.join(labels)})" if labels else str(key[0])


# ------------------------------------------------------------------------------------------ laws


def meet_mix(lp: Programme, mix: Mix, total: Any) -> None:
    """Every class gets its share: sum_w f[k, w] = w_k * lambda (L)."""
    import pulp

    for k, weight in enumerate(mix.weights):
        served = pulp.lpSum(
            float(unit) * lp.columns["flow", k, w] for w, unit in enumerate(mix.unit[k])
        )
        lp.row(("meet_mix", k), served == float(weight) * total, lp.names.classes[k])


def limit_resources(lp: Programme, mix: Mix, room: Sequence[Any] | None = None) -> None:
    """No resource beyond its capacity: sum f * use / capacity <= 1 (L), rows that matter only.

    `room` replaces the 1 by an expression per resource (engines of its pool).
    """
    import pulp

    classes, ways, resources = mix.load.shape
    for r in range(resources):
        terms = [
            (lp.columns["flow", k, w], float(mix.load[k, w, r]))
            for k in range(classes)
            for w in range(ways)
            if mix.load[k, w, r] > 0
        ]
        if terms:
            used = pulp.LpAffineExpression(terms)
            lp.row(("limit", r), used <= (1.0 if room is None else room[r]), lp.names.resources[r])


def limit_shares(lp: Programme, mix: Mix, total: Any) -> None:
    """No way beyond its share: f[k, w] <= at_most[k, w] * w_k * lambda (L), where it can bind."""
    for k, w in np.argwhere((mix.at_most < 1) & ~mix.closed & (mix.weights[:, None] > 0)).tolist():
        flow = float(mix.unit[k, w]) * lp.columns["flow", k, w]
        most = float(mix.at_most[k, w] * mix.weights[k]) * total
        lp.row(("at_most", k, w), flow <= most, lp.names.classes[k], lp.names.ways[w])


def meet_roles(lp: Programme, roles: Mapping[str, Sequence[int]]) -> None:
    """Every role has an engine, whatever the demand: sum n[p] >= 1 over its pools (L)."""
    import pulp

    labels = _labels("roles", list(roles), len(roles))
    for number, (role, label) in enumerate(zip(roles, labels, strict=True)):
        engines = pulp.lpSum(lp.columns["engines", p] for p in roles[role])
        lp.row(("meet_roles", number), engines >= 1, label)


# -------------------------------------------------------------------------------------- problems


def _flows(lp: Programme, mix: Mix) -> None:
    for (k, w), closed in np.ndenumerate(mix.closed):
        labels = lp.names.classes[k], lp.names.ways[w]
        lp.column(("flow", k, w), *labels, high=0 if closed else None)


def throughput_problem(mix: Mix) -> Programme:
    """Largest total of a mix within all limits (L)."""
    lp = Programme("throughput", mix.names.of(mix), maximise=True)
    _flows(lp, mix)
    total = lp.column(("turns_per_s",))
    lp.set_objective(total)
    meet_mix(lp, mix, total)
    limit_resources(lp, mix)
    limit_shares(lp, mix, total)
    return lp


def tie_break_problem(mix: Mix, total: float, free: Sequence[int]) -> Programme:
    """Of all flows that reach `total`, those whose highest load of `free` resources is lowest."""
    lp = Programme("tie_break", mix.names.of(mix))
    _flows(lp, mix)
    highest = lp.column(("highest_load",))
    lp.set_objective(highest)
    meet_mix(lp, mix, total)
    limit_resources(lp, mix, [highest if r in free else 1.0 for r in range(mix.load.shape[2])])
    limit_shares(lp, mix, total)
    return lp


def fleet_problem(
    mix: Mix,
    pool_of_resource: Sequence[int | None],
    cost: Array,
    roles: Mapping[str, Sequence[int]],
    *,
    whole: bool,
) -> Programme:
    """Cheapest engines that serve one unit of the mix (L), whole ones or fractions."""
    import pulp

    lp = Programme("fleet", mix.names.of(mix, len(cost)))
    _flows(lp, mix)
    category = "Integer" if whole else "Continuous"
    engines = [
        lp.column(("engines", p), lp.names.pools[p], category=category) for p in range(len(cost))
    ]
    lp.set_objective(
        pulp.lpSum(float(price) * count for price, count in zip(cost, engines, strict=True))
    )
    meet_mix(lp, mix, 1.0)
    meet_roles(lp, roles)
    limit_resources(lp, mix, [1.0 if pool is None else engines[pool] for pool in pool_of_resource])
    limit_shares(lp, mix, 1.0)
    return lp


# --------------------------------------------------------------------------------------- answers


def maximise_turns(
    use: npt.ArrayLike,
    capacity: npt.ArrayLike,
    weights: npt.ArrayLike = (1.0,),
    *,
    at_most: npt.ArrayLike | None = None,
    names: Names = NUMBERS,
    solver: SolverName = "highs",
    tolerance: float = TOLERANCE,
    balance: bool = False,
) -> LpAnswer:
    """Largest throughput of a mix within all limits (L), certified.

    maximise lambda over f >= 0: sum_w f[k, w] = w_k * lambda;
    sum_{k, w} f[k, w] * use[k, w, r] <= capacity[r]; f[k, w] <= at_most[k, w] * w_k * lambda.

    Parameters
    ----------
    use : array_like
        Use per turn, shape (classes, ways, resources), in each resource's unit.
    capacity : array_like
        Above zero, inf = unlimited, shape (resources,).
    weights : array_like
        Share of each class in all turns, shape (classes,).
    at_most : array_like, optional
        Largest share of a class's turns that may take a way, >= 0, broadcast to (classes, ways);
        1 and more = no limit.
    names : Names
        What rows and columns are called after; they change no number.
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
    ValueError
        If `at_most` leaves turns of a class without a way.

    Examples
    --------
    Two storage NICs of 50 GB/s, a turn that may read 1 GB through either:

    >>> a = maximise_turns([[[1e9, 0.0], [0.0, 1e9]]], [50e9, 50e9])
    >>> round(a.turns_per_s, 9), a.elasticity
    (100.0, array([0.5, 0.5]))

    The second read takes no more than a tenth of the turns:

    >>> a = maximise_turns([[[1e9, 0.0], [0.0, 1e9]]], [50e9, 50e9], at_most=[1.0, 0.1])
    >>> round(a.turns_per_s, 9), a.at_most_elasticity.round(9)
    (55.555555556, array([[0.        , 0.11111111]]))
    """
    load = loads(use, capacity)
    share = np.asarray(weights, dtype=float)
    limit = _share_limits(at_most, share, load.shape[1], names)
    # Turns/s at which the lightest ways of each class would fill some resource: the natural unit.
    lightest = cheapest_mix(load.max(axis=2), limit).share
    heaviest = (lightest * load.max(axis=2)).sum(axis=1)
    if not share @ heaviest > 0:
        flow = np.where((lightest > 0) & (share[:, None] > 0), math.inf, 0.0)
        idle = np.zeros(load.shape[2])
        return LpAnswer(math.inf, flow, idle, idle, np.zeros_like(limit), None)
    scale = 1.0 / float(share @ heaviest)
    # Turns that fill a way's busiest resource, at most 1: no coefficient exceeds one.
    unit = 1.0 / np.maximum((load * scale).max(axis=2), 1.0)
    # Shut for the solver's arithmetic; the certificate prices such ways all the same.
    shut = (unit < _SHUT) & (lightest == 0)
    rate = np.where(shut, 0.0, unit * scale)
    mix = Mix(load * rate[:, :, None], share, limit, unit, shut | (limit == 0), names)
    lp = throughput_problem(mix)

    def optimum(modes: tuple[str, ...]) -> tuple[float, Array, Array, Array]:
        status = lp.solve(solver, modes)
        if status != "Optimal":
            raise DpplanError(f"the solver found the throughput problem {status.lower()}")
        price = lp.prices("limit", load.shape[2])
        if price.sum() < 0:  # PuLP reports a maximisation's duals with the minimisation's sign
            price = -price
        price[np.abs(price) <= 1e-15 * np.abs(price).max(initial=0.0)] = 0.0
        turn_price = np.abs(lp.prices("meet_mix", len(share))) / scale
        _price_shut_ways(price, load, limit, shut)
        total = float(lp.columns["turns_per_s",].varValue)
        return total * scale, lp.flows(rate), price, turn_price

    def prove(flow: Array) -> Certificate:
        return certify(
            load, share, turns_per_s, flow, price, tolerance, at_most=limit, turn_price=turn_price
        )

    turns_per_s, flow, price, turn_price = optimum(("on", "off"))
    try:
        proof = prove(flow)
    except UncertifiedAnswer:  # what presolve took apart, the simplex alone may get right
        turns_per_s, flow, price, turn_price = optimum(("off",))
        proof = prove(flow)
    if balance:
        even = _even_out(mix, turns_per_s, scale, price, flow, solver)
        # Only a tie-break: flows that fail the check leave the optimum as it was.
        with contextlib.suppress(UncertifiedAnswer):
            proof = prove(even)
            flow = even
    shadow = np.maximum(price, 0.0) / price.sum()
    above, worth = price_ways(load, share, shadow, limit, turn_price / price.sum())
    saved = np.where(limit < 1, limit * share[:, None] * np.maximum(-above, 0.0) / worth, 0.0)
    full = flow >= limit * share[:, None] * turns_per_s * (1 - _AT_LIMIT)
    return LpAnswer(
        turns_per_s=turns_per_s,
        flow_turns_per_s=flow,
        load=np.tensordot(flow, load, axes=([0, 1], [0, 1])),
        elasticity=shadow,
        at_most_elasticity=np.where(full & (saved > TOLERANCE), saved, 0.0),
        certificate=proof,
    )


def _share_limits(at_most: npt.ArrayLike | None, weights: Array, ways: int, names: Names) -> Array:
    """`at_most` in full, nothing above 1."""
    given = np.asarray(1.0 if at_most is None else at_most, dtype=float)
    limit: Array = np.minimum(np.broadcast_to(given, (len(weights), ways)), 1.0)
    if not (limit >= 0).all():
        raise ValueError(f"at_most needs shares of zero or more, got {given.min():g}")
    served: Array = limit.sum(axis=1)
    for k in np.flatnonzero((weights > 0) & (served < 1 - FULL)).tolist():
        label = names.classes[k] if names.classes else k
        left = 1 - served[k]
        raise ValueError(f"at_most leaves {left:.3g} of class {label}'s turns without a way")
    return limit


def _price_shut_ways(price: Array, load: Array, at_most: Array, shut: Flags) -> None:
    """Raise the price of the resource that a shut way floods until the way is no bargain."""
    cost = load @ price
    dearest = cheapest_mix(np.where(shut, np.inf, cost), at_most).lowest
    for k, w in np.argwhere(shut & (at_most > 0) & (cost < dearest[:, None])):
        flooded = int(load[k, w].argmax())
        price[flooded] += (dearest[k] - cost[k, w]) / load[k, w, flooded]


def _even_out(
    mix: Mix, turns_per_s: float, scale: float, price: Array, flow: Array, solver: SolverName
) -> Array:
    """Same throughput, priced resources full as before, the highest other load as low as can be."""
    unpriced = price <= 1e-9 * price.max()
    free = np.flatnonzero(unpriced & mix.load.any(axis=(0, 1))).tolist()
    lp = tie_break_problem(mix, turns_per_s / scale, free)
    if not free or lp.solve(solver) != "Optimal":
        return flow
    even = lp.flows(mix.unit * scale)
    # The shares are the classes' to the last digit, or the certificate would see the solver's.
    served = even.sum(axis=1, keepdims=True)
    due = mix.weights[:, None] * turns_per_s
    return np.asarray(even * (due / np.where(served > 0, served, 1.0)))


def minimise_cost(
    use: npt.ArrayLike,
    capacity_per_engine: npt.ArrayLike,
    pool_of_resource: Sequence[int | None],
    cost_per_engine: npt.ArrayLike,
    turns_per_s: float,
    weights: npt.ArrayLike = (1.0,),
    *,
    at_most: npt.ArrayLike | None = None,
    names: Names = NUMBERS,
    at_least_one: Mapping[str, Sequence[int]] | None = None,
) -> Fleet:
    """Cheapest whole engines that sustain a throughput (L): integer counts, continuous flows.

    minimise sum_p cost[p] * n[p] over integers n >= 0 and f >= 0 with sum_w f[k, w] = w_k * lambda,
    sum f * use[r] <= capacity[r] * n[pool of r] and f[k, w] <= at_most[k, w] * w_k * lambda.

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
    at_most : array_like, optional
        Largest share of a class's turns that may take a way, as for `maximise_turns`.
    names : Names
        For messages, rows and columns.
    at_least_one : mapping of str to sequence of int, optional
        By role, the pools of which one needs an engine, whatever the demand.

    Raises
    ------
    Infeasible
        If what doesn't grow cannot carry the demand.
    ValueError
        If `at_most` leaves turns of a class without a way.

    Examples
    --------
    A turn/s fills a tenth of a prefill engine and a quarter of a decode engine; 15 turns/s:

    >>> fleet = minimise_cost([[[0.1, 0.25]]], [1, 1], [0, 1], [1.0, 1.0], 15)
    >>> fleet.engines, fleet.cost
    ((2, 4), 6.0)
    """
    load = loads(use, capacity_per_engine)
    share = np.asarray(weights, dtype=float)
    cost = np.asarray(cost_per_engine, dtype=float)
    limit = _share_limits(at_most, share, load.shape[1], names)
    # Flows are in units of the demand, so rows stay of the order of the engine counts.
    mix = Mix(load * turns_per_s, share, limit, np.ones_like(limit), limit == 0, names)
    roles = at_least_one or {}
    relaxed = fleet_problem(mix, pool_of_resource, cost, roles, whole=False)
    if relaxed.solve() != "Optimal":
        clash = [
            names.resources[r] if names.resources else str(r)
            for r, pool in enumerate(pool_of_resource)
            if pool is None and _least_load(mix, r) > 1
        ]
        raise Infeasible(
            f"{turns_per_s:.6g} turns/s exceed what doesn't grow with nodes: {', '.join(clash)}",
            clash,
        )
    bound = float(relaxed.problem.objective.value())
    whole = fleet_problem(mix, pool_of_resource, cost, roles, whole=True)
    if whole.solve() != "Optimal":
        raise DpplanError("the solver found no whole engine counts where fractions would do")
    engines = tuple(round(float(whole.columns["engines", p].varValue)) for p in range(len(cost)))
    grown = np.asarray(capacity_per_engine, dtype=float) * [
        1.0 if pool is None else max(engines[pool], _NO_ENGINE) for pool in pool_of_resource
    ]
    answer = maximise_turns(use, grown, share, at_most=limit, names=names)
    if answer.turns_per_s < turns_per_s * (1 - 1e-9):
        raise UncertifiedAnswer(
            f"{engines} engines sustain {answer.turns_per_s:.9g} turns/s, not {turns_per_s:.9g}"
        )
    return Fleet(engines, float(cost @ np.array(engines)), bound, answer)


def _least_load(mix: Mix, resource: int) -> float:
    """Of a resource, were every class to take the ways that spare it most."""
    load = mix.load[:, :, resource]
    return float(mix.weights @ (cheapest_mix(load, mix.at_most).share * load).sum(axis=1))
