"""S4: where the binding resource changes, by append length, context and hit rate.

NIC and FLOP rates have a closed form (`NextLimit.enough_factor`); a workload's lengths enter bytes,
FLOP, memory and batch at once, so their switch points are bracketed by doubling and bisected on
the very limits that a plan uses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from dpplan.bounds.strategies import bounds
from dpplan.deployment import Deployment
from dpplan.deployment.routes import RESOURCES
from dpplan.errors import Infeasible
from dpplan.profiles.library import WeightedClass
from dpplan.profiles.workload import TurnClass

__all__ = ["QUANTITIES", "SwitchPoint", "switch_points"]

_DOUBLINGS: Final = 12
_BISECTIONS: Final = 26


@dataclass(frozen=True)
class SwitchPoint:
    """A length or rate at which another resource starts to bind."""

    strategy: str
    quantity: str
    now: float
    """The plan's own value (weighted mean over the classes of a mix)."""
    value: float
    """Where the binding resources change."""
    unit: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    """What binds beyond it; empty if decode becomes infeasible there."""


def _scaled_append(turns: TurnClass, factor: float) -> TurnClass:
    return turns.model_copy(update={"append_tokens": turns.append_tokens * factor})


def _scaled_context(turns: TurnClass, factor: float) -> TurnClass:
    return turns.model_copy(update={"context_tokens": turns.context_tokens * factor})


def _scaled_miss(turns: TurnClass, factor: float) -> TurnClass:
    """Miss rate times `factor` at the same prompt length."""
    prompt = turns.context_tokens + turns.append_tokens
    append = min(prompt, turns.append_tokens * factor)
    return turns.model_copy(update={"append_tokens": append, "context_tokens": prompt - append})


QUANTITIES: Final[dict[str, tuple[Callable[[TurnClass, float], TurnClass], str]]] = {
    "append_tokens": (_scaled_append, "tokens"),
    "context_tokens": (_scaled_context, "tokens"),
    "hit_rate_fraction": (_scaled_miss, "fraction"),
}


def _measure(quantity: str, classes: tuple[WeightedClass, ...]) -> float:
    context = sum(c.weight_fraction * c.turns.context_tokens for c in classes)
    append = sum(c.weight_fraction * c.turns.append_tokens for c in classes)
    if quantity == "hit_rate_fraction":
        return context / (context + append)
    return append if quantity == "append_tokens" else context


def switch_points(
    deployment: Deployment,
    prefill_nodes: int,
    decode_nodes: int,
    strategies: tuple[str, ...] = ("prefill-only", "dual-path"),
) -> tuple[SwitchPoint, ...]:
    """Nearest switch points of a plan below and above its own append, context and hit rate (S4).

    Parameters
    ----------
    deployment : Deployment
        Of the plan.
    prefill_nodes, decode_nodes : int
        The plan's own; they are kept.
    strategies : tuple of str
        Which strategies to look at.

    Returns
    -------
    tuple of SwitchPoint
        Empty where nothing changes within a factor of 2**12.
    """
    found = []
    at = _Plan(deployment, prefill_nodes, decode_nodes)
    for strategy in strategies:
        for quantity, (scale, unit) in QUANTITIES.items():
            for direction in (2.0, 0.5):
                point = _nearest(at, strategy, quantity, scale, unit, direction)
                if point is not None:
                    found.append(point)
    return tuple(found)


@dataclass(frozen=True)
class _Plan:
    deployment: Deployment
    prefill_nodes: int
    decode_nodes: int

    def binding(self, strategy: str, classes: tuple[WeightedClass, ...]) -> tuple[str, ...]:
        """What binds with other classes at the same P:D; empty where that is infeasible."""
        own, nodes = self.deployment, (self.prefill_nodes, self.decode_nodes)
        inputs = dataclasses.replace(own.inputs, classes=classes)
        try:
            limits = Deployment(inputs, own.counting, own.unlimited).at(*nodes)
        except Infeasible:
            return ()
        _, _, load = bounds(limits, strategy, limits.capacity(*nodes)[None])
        return tuple(RESOURCES[r] for r in np.flatnonzero(load[0] >= 1 - 1e-9))


def _nearest(
    plan: _Plan,
    strategy: str,
    quantity: str,
    scale: Callable[[TurnClass, float], TurnClass],
    unit: str,
    direction: float,
) -> SwitchPoint | None:
    def classes(factor: float) -> tuple[WeightedClass, ...]:
        return tuple(
            WeightedClass(scale(c.turns, factor), c.weight_fraction)
            for c in plan.deployment.inputs.classes
        )

    before = plan.binding(strategy, classes(1.0))
    here = 1.0
    for _ in range(_DOUBLINGS):
        there = here * direction
        if _measure(quantity, classes(there)) == _measure(quantity, classes(here)):
            return None
        if plan.binding(strategy, classes(there)) != before:
            break
        here = there
    else:
        return None
    for _ in range(_BISECTIONS):
        middle = (here * there) ** 0.5
        if plan.binding(strategy, classes(middle)) == before:
            here = middle
        else:
            there = middle
    # At the point itself both bind; a thousandth beyond it, what takes over.
    after = plan.binding(strategy, classes(there * (1.001 if direction > 1 else 0.999)))
    return SwitchPoint(
        strategy=strategy,
        quantity=quantity,
        now=_measure(quantity, plan.deployment.inputs.classes),
        value=_measure(quantity, classes(there)),
        unit=unit,
        before=before,
        after=after,
    )
