"""Proof that an LP answer is optimal, from its numbers alone.

The solver is not believed: the flows must respect every limit, the duals must price every way of
serving a turn at no less than a turn is worth, and the two values must meet. numpy only; nothing
of the solver is imported here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpplan.arrays import Array
from dpplan.errors import UncertifiedAnswer

__all__ = ["TOLERANCE", "Certificate", "certify"]


TOLERANCE = 1e-9
"""Largest relative gap, infeasibility and complementarity error of an answer that is shown."""


@dataclass(frozen=True)
class Certificate:
    """What was checked, each relative to the optimum."""

    primal_infeasibility: float
    """Largest overload of a resource, or error in a class's share."""
    dual_infeasibility: float
    """Largest negative price."""
    complementarity: float
    """Largest price of a slack resource, or flow on a way that costs more than the best."""
    gap: float
    """(upper bound proved by the prices) / (throughput of the flows) - 1."""

    @property
    def worst(self) -> float:
        """The largest of the four."""
        return max(
            self.primal_infeasibility, self.dual_infeasibility, self.complementarity, abs(self.gap)
        )


def certify(
    load: Array,
    weights: Array,
    turns_per_s: float,
    flow: Array,
    price: Array,
    tolerance: float = TOLERANCE,
) -> Certificate:
    """Check an answer of `maximise_turns` (L): feasible, complementary, no gap.

    Any prices y >= 0 prove turns_per_s <= sum(y) / sum_k w_k * min_way(y . load_k): each turn of
    class k costs at least the cheapest way's price, and all resources together are worth sum(y).

    Parameters
    ----------
    load : ndarray
        Load of each resource per turn/s, use/capacity, shape (classes, ways, resources) [s].
    weights : ndarray
        Share of each class in all turns, shape (classes,).
    turns_per_s : float
        The answer's throughput.
    flow : ndarray
        Turns/s of each class and way, shape (classes, ways).
    price : ndarray
        Dual of each resource's limit, shape (resources,); any positive scale.
    tolerance : float
        Largest error accepted, relative.

    Returns
    -------
    Certificate

    Raises
    ------
    UncertifiedAnswer
        If any check fails: such an answer is never shown as a plan.

    Examples
    --------
    >>> import numpy as np
    >>> c = certify(np.array([[[2.0]]]), np.ones(1), 0.5, np.array([[0.5]]), np.ones(1))
    >>> c.worst
    0.0
    """
    scale = max(turns_per_s, np.finfo(float).tiny)
    used = np.tensordot(flow, load, axes=([0, 1], [0, 1]))
    shares = np.abs(flow.sum(axis=1) - weights * turns_per_s).max(initial=0.0) / scale
    primal = max(
        float(used.max(initial=0.0)) - 1.0,
        float(shares),
        -float(flow.min(initial=0.0)) / scale,
        0.0,
    )
    total = float(price.sum())
    if not np.isfinite(total) or total <= 0 or not np.isfinite(turns_per_s):
        raise UncertifiedAnswer(f"the solver's prices sum to {total:g}: no bound follows from them")
    shadow = price / total
    dual = abs(min(float(shadow.min(initial=0.0)), 0.0))
    positive = np.maximum(shadow, 0.0)
    cost = load @ positive
    cheapest = cost.min(axis=1)
    worth = float(weights @ cheapest)
    bound = float(positive.sum()) / worth if worth > 0 else np.inf
    gap = bound / turns_per_s - 1.0 if turns_per_s > 0 else np.inf
    idle = float((positive * np.maximum(1.0 - used, 0.0)).max(initial=0.0))
    dear = float((flow * (cost - cheapest[:, None])).max(initial=0.0))
    proof = Certificate(primal, dual, max(idle, dear), gap)
    if not proof.worst <= tolerance:
        raise UncertifiedAnswer(
            f"the solver's answer failed its check (infeasible by {primal:.1e}, prices by "
            f"{dual:.1e}, complementarity {proof.complementarity:.1e}, gap {gap:.1e}, allowed "
            f"{tolerance:.0e}): nothing is shown rather than a wrong plan"
        )
    return proof
