"""What to change: rearrangements of the same nodes that raise the dual-path bound."""

from __future__ import annotations

from typing import Final

from dpplan.errors import BadInput, Infeasible
from dpplan.limits import Deployment
from dpplan.nodes import choose_nodes
from dpplan.result import Advice, StrategyResult

__all__ = ["advise"]

_WORTH: Final = 0.01
"""Gains below a hundredth are not worth a change."""


def advise(
    deployment: Deployment, prefill_nodes: int, decode_nodes: int, dual: StrategyResult
) -> tuple[Advice, ...]:
    """A better P:D of the plan's own nodes, where there is one.

    Worked out by the same limits and bound as the plan itself. Lifting a resource, which costs
    money, is in `StrategyResult.next_limits`.
    """
    if dual.turns_per_s is None:
        return ()
    total = prefill_nodes + decode_nodes
    try:
        choice = choose_nodes(
            deployment, nodes=total, prefill_nodes=None, decode_nodes=None, default_nodes=None
        )
    except (BadInput, Infeasible):
        return ()
    rate = next(o.turns_per_s["dual-path"] for o in choice.options if o.chosen)
    if rate is None or rate <= dual.turns_per_s * (1 + _WORTH):
        return ()
    p, d = choice.prefill_nodes, choice.decode_nodes
    return (
        Advice(
            text=f"the same {total} nodes as {p}P{d}D",
            option=f"--prefill-nodes {p} --decode-nodes {d}",
            turns_per_s=rate,
            gain_fraction=rate / dual.turns_per_s - 1,
        ),
    )
