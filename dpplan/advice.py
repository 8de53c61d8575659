"""What to change: rearrangements of the same nodes that raise the dual-path bound."""

from __future__ import annotations

import dataclasses
import math
from typing import Final

from dpplan.errors import BadInput, Infeasible
from dpplan.limits import Limits, assemble_limits
from dpplan.nodes import choose_nodes
from dpplan.profiles.library import Inputs
from dpplan.result import Advice, StrategyResult
from dpplan.strategies import bounds

__all__ = ["advise"]

_WORTH: Final = 0.01
"""Gains below a hundredth are not worth a change."""


def advise(
    inputs: Inputs, limits: Limits, prefill_nodes: int, decode_nodes: int, dual: StrategyResult
) -> tuple[Advice, ...]:
    """Better uses of the plan's own nodes: wider decode engines, another P:D.

    Each is worked out by the same limits and bound as the plan itself. Lifting a resource, which
    costs money, is in `StrategyResult.next_limits`.
    """
    if dual.turns_per_s is None:
        return ()
    found = []
    if {"decode.gpu", "decode.hbm"} & set(dual.bottlenecks):
        found += _wider_decode(inputs, limits, prefill_nodes, decode_nodes, dual.turns_per_s)
    found += _other_ratio(limits, prefill_nodes, decode_nodes, dual.turns_per_s)
    return tuple(advice for advice in found if advice.gain_fraction > _WORTH)


def _wider_decode(
    inputs: Inputs, limits: Limits, prefill_nodes: int, decode_nodes: int, now: float
) -> list[Advice]:
    """The best decode engine of several groups: weights are read less often per token."""
    engine = limits.decode.engine
    group = engine.nodes
    hardware = inputs.decode_hardware
    if any(size is not None for size in vars(hardware.parallelism.decode).values()):
        return []  # the user's own sizes
    best: Advice | None = None
    moe = inputs.model.architecture.moe_layers > 0
    for times in range(2, decode_nodes // group + 1):
        if decode_nodes % (group * times) or times > 16:
            continue
        gpus = group * times * hardware.gpus
        key, sizes = ("ep", {"ep": gpus}) if moe else ("tp", {"tp": gpus, "dp": 1})
        sizes_given = hardware.parallelism.decode.model_copy(update=sizes)
        parallelism = hardware.parallelism.model_copy(update={"decode": sizes_given})
        wide = hardware.model_copy(update={"parallelism": parallelism})
        try:
            other = assemble_limits(
                dataclasses.replace(inputs, decode_hardware=wide), limits.counting, limits.unlimited
            )
        except Infeasible:
            continue
        rate = float(
            bounds(other, "dual-path", other.capacity(prefill_nodes, decode_nodes)[None])[0][0]
        )
        if math.isfinite(rate) and (best is None or rate > best.turns_per_s * (1 + _WORTH)):
            text = f"decode engines of {gpus} GPUs ({key.upper()} {gpus}) instead of {engine.gpus}"
            path = f"decode_hardware.parallelism.decode.{key}={gpus}"
            best = Advice(text, f"--set {path}", rate, rate / now - 1)
    return [best] if best else []


def _other_ratio(limits: Limits, prefill_nodes: int, decode_nodes: int, now: float) -> list[Advice]:
    """Another P:D of the same nodes, where the counts were given."""
    total = prefill_nodes + decode_nodes
    try:
        choice = choose_nodes(
            limits, nodes=total, prefill_nodes=None, decode_nodes=None, default_nodes=None
        )
    except (BadInput, Infeasible):
        return []
    option = next(o for o in choice.options if o.chosen)
    rate = option.turns_per_s["dual-path"]
    if rate is None:
        return []
    p, d = choice.prefill_nodes, choice.decode_nodes
    text = f"the same {total} nodes as {p}P{d}D"
    return [Advice(text, f"--prefill-nodes {p} --decode-nodes {d}", rate, rate / now - 1)]
