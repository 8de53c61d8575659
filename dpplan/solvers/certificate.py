"""Proof that an LP answer is optimal, from its numbers alone.

The solver is not believed: the flows must respect every limit, the prices must bound what any
flows could reach, and the two values must meet. numpy only; nothing of the solver is imported here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpplan.arrays import Array
from dpplan.errors import UncertifiedAnswer

__all__ = [
    "FULL",
    "TOLERANCE",
    "Certificate",
    "CheapestMix",
    "certify",
    "cheapest_mix",
    "price_ways",
]


TOLERANCE = 1e-9
"""Largest relative gap, infeasibility and complementarity error of an answer that is shown."""

FULL = 1e-12
"""Limits on the ways of a class that sum to 1 within this leave no choice."""


@dataclass(frozen=True)
class CheapestMix:
    """The cheapest shares of a class's ways, and what one more turn of it would cost."""

    share: Array
    """Of each class's turns, by way, shape (classes, ways)."""
    lowest: Array
    """Cost of the dearest way in use, shape (classes,)."""
    highest: Array
    """Cost of the way that would take a little more; above `lowest` only where the limits of the
    ways in use are used up exactly; inf where there is no such way."""


def cheapest_mix(cost: Array, at_most: Array) -> CheapestMix:
    """Minimise sum_w x_w * cost_w, sum x = 1, 0 <= x <= at_most: fill the cheapest way first.

    Parameters
    ----------
    cost : ndarray
        Of a turn by class and way, shape (classes, ways); inf = never.
    at_most : ndarray
        Largest share of a class's turns by way, same shape; 1 and more = no limit.

    Examples
    --------
    >>> import numpy as np
    >>> mix = cheapest_mix(np.array([[1.0, 5.0, 3.0]]), np.array([[0.25, 1.0, 0.5]]))
    >>> mix.share, mix.lowest
    (array([[0.25, 0.25, 0.5 ]]), array([5.]))
    """
    order = np.argsort(cost, axis=1, kind="stable")
    # Without a limit a way takes all there is, and no way after it ever sets the price.
    room = np.take_along_axis(np.where(at_most < 1, at_most, np.inf), order, axis=1)
    filled = np.cumsum(room, axis=1)
    before = np.concatenate([np.zeros((len(cost), 1)), filled[:, :-1]], axis=1)
    last = (filled >= 1 - FULL).argmax(axis=1)[:, None]
    place = np.arange(cost.shape[1])[None, :]
    share = np.where(place < last, room, np.where(place == last, 1.0 - before, 0.0))
    ranked = np.take_along_axis(cost, order, axis=1)
    further = filled > 1 + FULL
    following = np.take_along_axis(ranked, further.argmax(axis=1)[:, None], axis=1)[:, 0]
    return CheapestMix(
        share=np.take_along_axis(share, np.argsort(order, axis=1), axis=1),
        lowest=np.take_along_axis(ranked, last, axis=1)[:, 0],
        highest=np.where(further.any(axis=1), following, np.inf),
    )


def price_ways(
    load: Array, weights: Array, price: Array, at_most: Array, turn_price: Array | None = None
) -> tuple[Array, float]:
    """What prices of resources say of ways, and of the mean turn (L).

    Parameters
    ----------
    load, weights, at_most, turn_price
        As for `certify`.
    price : ndarray
        Of each resource, >= 0, shape (resources,).

    Returns
    -------
    (ndarray, float)
        Cost of a way above the price of its class's turn, shape (classes, ways): below zero, the
        price of the way's limit. Least cost of the mean turn.
    """
    cost = load @ price
    mix = cheapest_mix(cost, at_most)
    wanted = mix.lowest if turn_price is None else turn_price
    marginal = np.clip(wanted, mix.lowest, mix.highest)
    return cost - marginal[:, None], float(weights @ (mix.share * cost).sum(axis=1))


@dataclass(frozen=True)
class Certificate:
    """What was checked, each relative to the optimum."""

    primal_infeasibility: float
    """Largest overload of a resource, error in a class's share, or excess over `at_most`."""
    dual_infeasibility: float
    """Largest negative price."""
    complementarity: float
    """Largest price of a slack resource or limit, or flow on a way dearer than a turn's price."""
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
    *,
    at_most: Array | None = None,
    turn_price: Array | None = None,
) -> Certificate:
    """Check an answer of `maximise_turns` (L): feasible, complementary, no gap.

    Any prices y >= 0 prove turns_per_s <= sum(y) / sum_k w_k * v_k, where v_k is the cost y . load
    of the cheapest mix of ways that class k may take: no turn costs less, and all resources
    together are worth sum(y). A limit on a way is worth what the way saves against the price of
    a turn, so it needs no price of its own.

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
    at_most : ndarray, optional
        Largest share of a class's turns by way, shape (classes, ways); 1 and more = no limit.
    turn_price : ndarray, optional
        What a turn of each class costs at `price`, shape (classes,); counts only where limits that
        are used up exactly leave it open.

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
    limit = np.ones_like(flow) if at_most is None else np.asarray(at_most)
    limited = limit < 1
    # Turns/s below each way's limit; 0 without one.
    below = np.where(limited, limit * weights[:, None] * turns_per_s - flow, 0.0)
    used = np.tensordot(flow, load, axes=([0, 1], [0, 1]))
    shares = np.abs(flow.sum(axis=1) - weights * turns_per_s).max(initial=0.0) / scale
    primal = max(
        float(used.max(initial=0.0)) - 1.0,
        float(shares),
        -float(flow.min(initial=0.0)) / scale,
        -float(below.min(initial=0.0)) / scale,
        0.0,
    )
    total = float(price.sum())
    if not np.isfinite(total) or total <= 0 or not np.isfinite(turns_per_s):
        raise UncertifiedAnswer(f"the solver's prices sum to {total:g}: no bound follows from them")
    shadow = price / total
    dual = abs(min(float(shadow.min(initial=0.0)), 0.0))
    positive = np.maximum(shadow, 0.0)
    scaled = None if turn_price is None else turn_price / total
    above, worth = price_ways(load, weights, positive, limit, scaled)
    bound = float(positive.sum()) / worth if worth > 0 else np.inf
    gap = bound / turns_per_s - 1.0 if turns_per_s > 0 else np.inf
    idle = float((positive * np.maximum(1.0 - used, 0.0)).max(initial=0.0))
    dear = float((flow * np.maximum(above, 0.0)).max(initial=0.0))
    unused = float((np.maximum(-above, 0.0) * np.maximum(below, 0.0)).max(initial=0.0))
    proof = Certificate(primal, dual, max(idle, dear, unused), gap)
    if not proof.worst <= tolerance:
        raise UncertifiedAnswer(
            f"the solver's answer failed its check (infeasible by {primal:.1e}, prices by "
            f"{dual:.1e}, complementarity {proof.complementarity:.1e}, gap {gap:.1e}, allowed "
            f"{tolerance:.0e}): nothing is shown rather than a wrong plan"
        )
    return proof
