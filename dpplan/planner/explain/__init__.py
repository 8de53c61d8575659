"""Every term of an answer: its law, the equation, the numbers put in, the result, the source."""

from __future__ import annotations

from dpplan.planner.explain.answer_terms import (
    bound_terms,
    break_even_terms,
    range_terms,
    switch_point_terms,
)
from dpplan.planner.explain.capacity_terms import backend_terms, capacity_terms
from dpplan.planner.explain.demand_terms import demand_terms
from dpplan.planner.explain.term import Term
from dpplan.planner.optimize import Case
from dpplan.results.optimize import STRATEGIES, Plan

__all__ = ["Term", "explain"]


def explain(case: Case, plan: Plan) -> tuple[Term, ...]:
    """All terms of a plan, in the order the numbers flow: demand, capacity, use, bound.

    Parameters
    ----------
    case : Case
        From `planner.prepare`.
    plan : Plan
        From `planner.plan_case(case)`.

    Returns
    -------
    tuple of Term
    """
    limits = case.limits
    terms: list[Term] = []
    for demand in limits.classes:
        terms += demand_terms(demand, case.inputs.model, limits)
    for side, nodes in ((limits.prefill, plan.prefill_nodes), (limits.decode, plan.decode_nodes)):
        terms += capacity_terms(
            side, "prefill" if side is limits.prefill else "decode", nodes, limits
        )
    terms += backend_terms(case)
    for name in STRATEGIES:
        terms += bound_terms(plan.strategies[name], limits, plan)
    terms += range_terms(plan)
    terms += break_even_terms(plan)
    terms += switch_point_terms(case)
    return tuple(terms)
