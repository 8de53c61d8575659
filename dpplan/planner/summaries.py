"""A plan's parts as plain values: demand, engines, range, totals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from dpplan.bounds.bottleneck_free import BottleneckFreeRange
from dpplan.deployment import Limits, Side
from dpplan.deployment.routes import RESOURCES
from dpplan.results.optimize import (
    BottleneckFree,
    Demand,
    EngineSummary,
    NodeOption,
    StrategyResult,
)

__all__ = [
    "mean_demand",
    "range_of_plan",
    "sampled_note",
    "speedup",
    "summarise_engine",
    "total_of_nodes",
]


def speedup(strategies: Mapping[str, StrategyResult]) -> float | None:
    """Dual-path over prefill-only (S3); None where either is unbounded."""
    dual, single = strategies["dual-path"].turns_per_s, strategies["prefill-only"].turns_per_s
    return None if dual is None or single is None else dual / single


def mean_demand(limits: Limits) -> Demand:
    """The mean turn of the mix: sums of bytes and FLOP over classes, ratios of the sums."""
    classes = limits.classes

    def mean(field: str) -> float:
        return sum(c.weight_fraction * float(getattr(c, field)) for c in classes)

    hit, flop = mean("hit_kv_bytes"), mean("prefill_flop")
    context, append = mean("context_tokens"), mean("append_tokens")
    return Demand(
        kv_bytes_per_token=limits.layout.bytes_per_token,
        hit_kv_bytes_per_turn=hit,
        prefill_flop_per_turn=flop,
        hit_rate_fraction=context / (context + append),
        cache_compute_ratio_gb_per_pflop=hit / 1e9 / (flop / 1e15),
        fresh_kv_bytes_per_turn=mean("fresh_kv_bytes"),
        generated_kv_bytes_per_turn=mean("generated_kv_bytes"),
        write_back_bytes_per_turn=mean("write_back_bytes"),
        prefill_gpu_s_per_turn=mean("prefill_gpu_s"),
        decode_gpu_s_per_turn=mean("decode_gpu_s"),
        load_or_recompute_bytes_per_s_per_gpu=limits.load_or_recompute_bytes_per_s,
        dram_hit_fraction=mean("pool_kv_bytes") / hit if hit else 0.0,
    )


def summarise_engine(side: Side, nodes: int, limits: Limits | None = None) -> EngineSummary:
    """How a side runs the model; with limits of one class, its decode batch and step, too."""
    engine = side.engine
    idle = nodes % engine.nodes
    rate = limits.classes[0].decode if limits is not None and len(limits.classes) == 1 else None
    finite = rate is not None and math.isfinite(rate.batch)
    return EngineSummary(
        hardware=side.hardware.name,
        nodes_per_engine=engine.nodes,
        gpus_per_engine=engine.gpus,
        tp=engine.tp,
        dp=engine.dp,
        ep=engine.ep,
        weight_bytes_per_gpu=engine.weight_bytes_per_gpu,
        hbm_left_bytes_per_gpu=_finite(engine.hbm_left_bytes_per_gpu),
        engines=(nodes - idle) * side.hardware.gpus / engine.gpus,
        idle_nodes=idle,
        batch_per_engine=rate.batch if rate and finite else None,
        batch_limit=("hbm" if rate.batch_by_hbm <= rate.batch_by_tpot else "tpot")
        if rate and finite
        else None,
        step_limit=("compute" if rate.compute_bound else "memory") if rate and finite else None,
        step_s=rate.step_s if rate and finite else None,
        tokens_per_s=_finite(rate.tokens_per_s) if rate else None,
    )


def sampled_note(options: Sequence[NodeOption], total: int) -> tuple[str, ...]:
    """A warning where not every P:D of a node count was looked at."""
    # The table starts at one prefill group and goes on group by group, unless some were left out.
    steps = [b.prefill_nodes - a.prefill_nodes for a, b in pairwise(options)]
    if not steps or max(steps) <= options[0].prefill_nodes:
        return ()
    return (
        f"{len(options)} P:D of {total} nodes were looked at, evenly spread and around the best; "
        "one between them may be slightly better",
    )


def total_of_nodes(
    prefill_nodes: int, prefill_each: float | None, decode_nodes: int, decode_each: float | None
) -> float | None:
    """Sum over all nodes of something each has; None where a side's profile lacks it."""
    if prefill_each is None or decode_each is None:
        return None
    return prefill_nodes * prefill_each + decode_nodes * decode_each


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def range_of_plan(
    span: BottleneckFreeRange, limits: Limits, prefill_nodes: int, decode_nodes: int
) -> BottleneckFree:
    """The bottleneck-free range (S1) and where P:D stands in it."""
    ratio = prefill_nodes / decode_nodes
    holds, reason = span.verdict(ratio)
    backend = limits.per_cluster[RESOURCES.index("storage_backend_read")]
    reads = (
        prefill_nodes * limits.prefill.node.storage_nic_read
        + decode_nodes * limits.decode.node.storage_nic_read
    )
    if holds and backend < reads:
        holds, reason = False, "the storage backend delivers less than all storage NICs take"
    if holds and limits.counting == "full":
        reason += " by hit KV alone; other traffic comes on top"
    return BottleneckFree(
        p_over_d_min=span.p_over_d_min,
        p_over_d_max=span.p_over_d_max,
        p_over_d=ratio,
        holds=holds,
        reason=reason,
        terms=tuple(vars(term) for term in span.terms),
    )
