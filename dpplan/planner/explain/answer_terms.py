"""Terms of the answer: loads by the traffic table (T), bounds (S2, S3, L), range (S1), S4."""

from __future__ import annotations

from collections.abc import Iterator

from dpplan.bounds.switch_points import switch_points
from dpplan.deployment import Limits
from dpplan.deployment.routes import FLOWS, ROUTES, resource_index
from dpplan.planner.explain.term import PAPER, Term, short
from dpplan.planner.optimize import Case
from dpplan.results.optimize import Plan, StrategyResult

__all__ = ["bound_terms", "break_even_terms", "range_terms", "switch_point_terms"]


def bound_terms(result: StrategyResult, limits: Limits, plan: Plan) -> Iterator[Term]:
    """Load of what binds one strategy, its split, its bound and the proof."""
    if result.turns_per_s is None:
        yield Term(
            "S2", f"{result.name}: bound", "1 / largest load", "nothing binds", None, "turns/s", ""
        )
        return
    weights = [c.weight_fraction for c in limits.classes]
    x = result.decode_read_fraction or 0.0
    capacity = limits.capacity(plan.prefill_nodes, plan.decode_nodes)
    for name in result.bottlenecks:
        row = resource_index(name)
        parts = []
        for flow, amount in zip(FLOWS, limits.table[row], strict=True):
            column = FLOWS.index(flow)
            per_route = [
                sum(w * limits.amounts[k, r, column] for k, w in enumerate(weights))
                for r in range(len(ROUTES))
            ]
            units = per_route[0] * (1 - x) + per_route[1] * x
            if amount and units:
                parts.append(f"{amount:g} * {units:.5g} {flow}")
        yield Term(
            "T",
            f"{result.name}: load of {name}",
            "sum over flows of table entry * amount, / capacity",
            f"({' + '.join(parts)}) / {short(float(capacity[row]))}",
            1.0 / result.turns_per_s,
            "s/turn",
            f"{PAPER}, Figure 4" if "nic" in name or "dram" in name else "traffic table",
        )
    if result.name == "dual-path":
        low, high = result.decode_read_fraction_min, result.decode_read_fraction_max
        unique = low is None or high is None or high - low < 1e-9
        yield Term(
            "S2",
            "dual-path: decode-read fraction",
            "x that minimises the largest load (u + (v - u)*x) / C",
            "unique" if unique else f"any x from {low:.4g} to {high:.4g} gives the bound",
            x,
            "fraction",
            f"{PAPER}, sec. 4.2",
        )
    yield Term(
        "S3" if result.name == "oracle" else "S2",
        f"{result.name}: bound",
        "1 / largest load",
        f"bound by {', '.join(result.bottlenecks)}",
        result.turns_per_s,
        "turns/s",
        "closed form"
        if len(limits.classes) == 1
        else "linear programme over the classes of the mix",
    )
    for name, share in result.shadow_prices.items():
        more, less = result.shadow_prices_if_more[name], result.shadow_prices_if_less[name]
        yield Term(
            "S2",
            f"{result.name}: elasticity in {name}",
            "d ln(turns/s) / d ln(capacity): the dual, scaled to sum 1",
            f"1 % more gives {more:.4g} %, 1 % less costs {less:.4g} %",
            share,
            "relative",
            "linear programme, between the exact one-sided derivatives",
        )
    if result.certificate:
        worst = max(abs(error) for error in result.certificate.values())
        yield Term(
            "L",
            f"{result.name}: certificate of the LP",
            "feasible, complementary, gap <= 1e-9",
            ", ".join(f"{key} {value:.1e}" for key, value in result.certificate.items()),
            worst,
            "relative",
            "primal and dual values checked after the solve",
        )


def range_terms(plan: Plan) -> Iterator[Term]:
    """Every term of the bottleneck-free range (S1)."""
    for term in plan.bottleneck_free.terms:
        limit = term["p_over_d"]
        yield Term(
            "S1",
            f"all storage NICs full: {term['resource']}",
            str(term["equation"]),
            str(term["numbers"]),
            limit if limit is not None else ("holds" if term["satisfiable"] else "fails"),
            "nodes/node",
            f"{PAPER}, eqs. 1-9, by the traffic table",
        )


def break_even_terms(plan: Plan) -> Iterator[Term]:
    """S4 in closed form: speedup, load or recompute, when resources start or cease to bind."""
    if plan.speedup is not None:
        dual, single = plan["dual-path"].turns_per_s, plan["prefill-only"].turns_per_s
        yield Term(
            "S3",
            "speedup",
            "bound(dual-path) / bound(prefill-only)",
            f"{dual:.6g} / {single:.6g}",
            plan.speedup,
            "factor",
            f"{PAPER}, sec. 4.2",
        )
    rate = plan.demand.load_or_recompute_bytes_per_s_per_gpu
    if rate is not None:
        yield Term(
            "S4",
            "load or recompute",
            "hit KV bytes / GPU time to prefill the history from nothing",
            "loading wins above this storage bandwidth per prefill GPU",
            rate,
            "bytes/s/GPU",
            "D1 and D2 at context 0",
        )
    unique = plan["dual-path"]
    if unique.decode_read_fraction_min == unique.decode_read_fraction_max:
        for resource, used in unique.utilisation.items():
            if 0.01 <= used < 1 - 1e-9:
                yield Term(
                    "S4",
                    f"dual-path: {resource} starts to bind",
                    "factor on its capacity at which it binds: its load",
                    f"at {used:.4g} of the present capacity",
                    used,
                    "factor",
                    "closed form, at the only best split",
                )
    for name, result in plan.strategies.items():
        for step in result.next_limits:
            if step.enough_factor is not None and step.turns_per_s is not None:
                yield Term(
                    "S4",
                    f"{name}: {step.lifted} stops binding",
                    "factor on its capacity at which another resource binds",
                    f"then {', '.join(step.bottlenecks)} at {step.turns_per_s:.5g} turns/s",
                    step.enough_factor,
                    "factor",
                    "closed form",
                )


def switch_point_terms(case: Case) -> Iterator[Term]:
    """S4 by bisection: lengths and hit rate at which another resource binds."""
    for point in switch_points(case.deployment, case.nodes.prefill_nodes, case.nodes.decode_nodes):
        beyond = ", ".join(point.after) or "nothing: decode becomes infeasible"
        yield Term(
            "S4",
            f"{point.strategy}: {point.quantity} where another resource binds",
            "the value at which the binding resources change, all else equal",
            f"now {short(point.now)} with {', '.join(point.before) or 'nothing'}; beyond, {beyond}",
            point.value,
            point.unit,
            "bracketed and bisected on the plan's own limits",
        )
