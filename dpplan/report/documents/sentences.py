"""The sentences of a plan's report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpplan.report.words import SINGULAR, join, number, percent, resource, resources, times
from dpplan.results.optimize import NextLimit, Plan, StrategyResult

__all__ = [
    "binding_sentence",
    "cluster",
    "headline",
    "meets",
    "range_sentence",
    "remedies",
    "split_sentence",
]

_WORTH_SAYING = 0.01
"""Ratios closer than this are told once."""
_ALSO_SHOWN = 3
_SLIGHT = 0.005
"""A gain that isn't worth advice on how to get it."""

_CURES = {
    "storage_nic_read": "more storage NICs, or more {side} nodes",
    "storage_nic_write": "more storage NICs, or more {side} nodes",
    "compute_nic_read": "more or faster compute NICs, or more {side} nodes",
    "compute_nic_write": "more or faster compute NICs, or more {side} nodes",
    "dram": "faster DRAM, or more {side} nodes",
    "hbm": "GPUs with more HBM, larger engine groups, or more {side} nodes",
    "kv_buffer": "a larger dram.kv_buffer_bytes, or more {side} nodes",
    "storage_backend_read": "a faster storage backend; more nodes don't help",
    "storage_backend_write": "a faster storage backend; more nodes don't help",
}


def cluster(plan: Plan) -> str:
    """Node counts and types: "2P4D h800"."""
    counts = f"{plan.prefill_nodes}P{plan.decode_nodes}D"
    if plan.prefill_hardware == plan.decode_hardware:
        return f"{counts} {plan.hardware}"
    return f"{counts} ({plan.prefill_hardware} prefill, {plan.decode_hardware} decode)"


def headline(plan: Plan) -> str:
    """The one sentence: what, where, how much, against what, why not more."""
    dual = plan["dual-path"]
    counting = ", paper counting" if plan.counting == "paper" else ""
    subject = f"{plan.model} on {cluster(plan)}, {plan.workload}{counting}"
    if dual.turns_per_s is None:
        return f"{subject}: nothing limits it"
    gain = f", {times(plan.speedup)} prefill-only" if plan.speedup is not None else ""
    own = plan.speedup_own_best
    if own is not None and plan.speedup is not None and abs(own / plan.speedup - 1) > _WORTH_SAYING:
        gain += f" ({times(own)} with each at its own best P:D)"
    binds = f"{resources(dual.bottlenecks)} {_verb(dual.bottlenecks, 'bind', 'binds')}"
    return f"{subject}: {number(dual.turns_per_s)} turns/s{gain}; {binds}"


def binding_sentence(result: StrategyResult) -> str:
    """What is full, and how far the next ones are."""
    if result.turns_per_s is None:
        return f"{result.name}: nothing binds, so there is no bound."
    full = f"{resources(result.bottlenecks)} {_verb(result.bottlenecks, 'are', 'is')} full"
    rest = sorted(
        (
            (use, name)
            for name, use in result.utilisation.items()
            if name not in result.bottlenecks and use >= 0.01
        ),
        reverse=True,
    )
    groups: dict[str, list[str]] = {}
    for use, name in rest:
        groups.setdefault(percent(use), []).append(name)
    shown = [
        f"{resources(names)} at {share}" for share, names in list(groups.items())[:_ALSO_SHOWN]
    ]
    return f"{result.name}: {full}" + (
        f"; {join(shown)}." if shown else "; nothing else is used by 1 %."
    )


def split_sentence(plan: Plan) -> str:
    """Where the hit KV is read, and whether another split would do as well."""
    dual = plan["dual-path"]
    share = dual.decode_read_fraction
    if share is None or dual.turns_per_s is None:
        return "Split: any split will do, nothing binds."
    hit = "hit KV from storage" if plan.demand.dram_hit_fraction else "hit KV"
    said = f"Split: read {_precise(share)} of the {hit} on the decode side"
    low, high = dual.decode_read_fraction_min, dual.decode_read_fraction_max
    if low is None or high is None:
        return f"{said} (of a mix: one of the best splits)."
    if high - low <= 1e-9:
        return f"{said}; no other split reaches this bound."
    span = f"{_precise(low)} to {_precise(high)}"
    reach = f"any share from {span} reaches the same bound"
    return f"{said}; {reach}, this one loads the rest most evenly."


def range_sentence(plan: Plan) -> str:
    """The bottleneck-free range and where the plan stands in it."""
    span = plan.bottleneck_free
    low, high = span.p_over_d_min, span.p_over_d_max
    if low is None:
        said = "There is no range: one term has no limit at all."
    elif high is None:
        said = f"P/D from {number(low)} up."
    elif low > high or high <= 0:
        said = f"The range is empty: P/D at least {number(low)} and at most {number(high)}."
    else:
        said = f"P/D from {number(low)} to {number(high)}."
    short = [term["resource"] for term in span.terms if not meets(term, span.p_over_d)]
    reason = span.reason
    if short:
        reason = f"not all storage NICs can be full, {resources(short)} would be overloaded"
    return f"{said} This plan stands at {number(span.p_over_d)}: {reason}."


def meets(term: Mapping[str, Any], p_over_d: float) -> bool:
    """Whether a P/D meets one term of the bottleneck-free range."""
    limit = term["p_over_d"]
    if limit is None or not term["satisfiable"] or term["kind"] == "always":
        return bool(term["satisfiable"])
    slack = 1e-12 * p_over_d
    if term["kind"] == "at least":
        return bool(p_over_d >= limit - slack)
    return bool(p_over_d <= limit + slack)


def remedies(plan: Plan) -> tuple[str, ...]:
    """For each bottleneck: how much more of it helps, how far, and how to get it."""
    lifts = (_remedy(plan, item) for item in plan["dual-path"].next_limits)
    moves = (
        f"{advice.text} give {number(advice.turns_per_s)} turns/s "
        f"(+{percent(advice.gain_fraction)}): {advice.option}"
        for advice in plan.advice
    )
    return (*lifts, *moves)


def _remedy(plan: Plan, item: NextLimit) -> str:
    lifted = item.lifted.split(" + ")
    what = resources(lifted)
    together = " together" if len(lifted) > 1 else ""
    cures = dict.fromkeys(_cure(plan, name) for name in lifted)
    # More nodes bring more of everything, so they may reach beyond what this resource alone does.
    cure = f" Get it by: {'; '.join(cures)}." if len(lifted) == 1 else ""
    if item.turns_per_s is None or item.gain_fraction is None:
        return f"{what}{together}: without limit there, nothing binds any more.{cure}"
    if item.gain_fraction < _SLIGHT:
        gain = "nothing" if item.gain_fraction < 1e-6 else f"only {percent(item.gain_fraction)}"
        return f"{what}{together}: more gains {gain}, then {_next(item)}."
    alone = "" if len(lifted) > 1 else " alone"
    reach = (
        f"{alone.strip()} gives up to {number(item.turns_per_s)} turns/s "
        f"(+{percent(item.gain_fraction)})"
    ).strip()
    factor = f"{times(item.enough_factor)} as much" if item.enough_factor is not None else "more"
    return f"{what}{together}: {factor} {reach}, then {_next(item)}.{cure}"


def _next(item: NextLimit) -> str:
    if not item.bottlenecks:
        return "nothing binds"
    return f"{resources(item.bottlenecks)} {_verb(item.bottlenecks, 'bind', 'binds')}"


def _cure(plan: Plan, name: str) -> str:
    side, dot, kind = name.partition(".")
    if kind == "gpu" and side == "prefill":
        return "more prefill nodes, faster GPUs, or shorter appends"
    if kind == "gpu":
        decode = plan.decode_engine
        if decode.step_limit == "compute":
            # The step is arithmetic: neither HBM nor a larger batch makes it shorter.
            return "more decode nodes, GPUs with more FLOP/s, or shorter outputs"
        batch = {
            "hbm": ", more HBM for larger batches",
            "tpot": ", a looser TPOT for larger batches",
        }.get(decode.batch_limit or "", "")
        return f"more decode nodes, GPUs with faster HBM{batch}, or shorter outputs"
    return _CURES.get(kind if dot else name, f"more {resource(name)}").format(side=side)


def _verb(names: tuple[str, ...], plural: str, singular: str) -> str:
    kinds = {name.rpartition(".")[2] for name in names}
    return singular if len(kinds) == 1 and kinds <= SINGULAR else plural


def _precise(fraction: float) -> str:
    return f"{fraction * 100:.1f} %" if 0 < fraction < 1 else f"{fraction * 100:.0f} %"
