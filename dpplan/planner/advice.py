"""What to change: a rearrangement of the same nodes that raises the dual-path bound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dpplan.results.optimize import Advice, NodeOption, StrategyResult

__all__ = ["advise", "own_best_speedup"]

_WORTH: Final = 0.01
"""Gains below a hundredth are not worth a change."""


def advise(dual: StrategyResult, options: Sequence[NodeOption]) -> tuple[Advice, ...]:
    """A better P:D of the plan's own nodes, where there is one.

    Parameters
    ----------
    dual : StrategyResult
        Dual-path at the plan's P:D.
    options : sequence of NodeOption
        Every P:D of the same number of nodes.

    Returns
    -------
    tuple of Advice
        Lifting a resource, which costs money, is in `StrategyResult.next_limits`.
    """
    best = next((option for option in options if option.chosen), None)
    rate = best.turns_per_s["dual-path"] if best is not None else None
    if best is None or rate is None or dual.turns_per_s is None:
        return ()
    if rate <= dual.turns_per_s * (1 + _WORTH):
        return ()
    p, d = best.prefill_nodes, best.decode_nodes
    return (
        Advice(
            text=f"The same {p + d + best.idle_nodes} nodes as {p}P{d}D",
            option=f"--prefill-nodes {p} --decode-nodes {d}",
            turns_per_s=rate,
            gain_fraction=rate / dual.turns_per_s - 1,
        ),
    )


def own_best_speedup(options: Sequence[NodeOption]) -> float | None:
    """Dual-path over prefill-only, each at the P:D of the same nodes that is best for itself.

    A fleet that reads on the prefill side alone would buy storage NICs with more prefill nodes:
    this is what the second path gains over that. None where either is unbounded.
    """
    best = {}
    for name in ("dual-path", "prefill-only"):
        rates = [option.turns_per_s[name] for option in options]
        if not rates or None in rates:
            return None
        best[name] = max(rate for rate in rates if rate is not None)
    return best["dual-path"] / best["prefill-only"]
