"""Solve one strategy at one P:D by both roads, closed form and LP, and say what binds."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dpplan.arrays import Array
from dpplan.deployment import ClassDemand, Limits
from dpplan.deployment.routes import RESOURCES
from dpplan.errors import UncertifiedAnswer
from dpplan.results.optimize import NextLimit, StrategyResult
from dpplan.solvers.closed_form import best_split, elasticity_range
from dpplan.solvers.lp import LpAnswer, maximise_turns

__all__ = ["bounds", "solve_strategy", "strategy_use"]


_FULL = 1 - 1e-9
"""A resource at least this loaded binds: the certificate's tolerance."""


def strategy_use(limits: Limits, strategy: str) -> Array:
    """Use per turn of the ways a strategy allows, shape (classes, ways, resources).

    prefill-only allows the first route, dual-path both, oracle has no I/O cost at all.
    """
    if strategy == "prefill-only":
        return limits.use[:, :1]
    if strategy == "dual-path":
        return limits.use
    if strategy == "oracle":
        return limits.compute_use[:, None, :]
    raise ValueError(f"unknown strategy {strategy!r}")


def _weights(limits: Limits) -> Array:
    return np.array([c.weight_fraction for c in limits.classes])


def bounds(limits: Limits, strategy: str, capacity: Array) -> tuple[Array, Array, Array]:
    """Bound, decode-read fraction and loads of many P:D at once (S2; L for mixes on two routes).

    Parameters
    ----------
    limits : Limits
    strategy : str
    capacity : ndarray
        Shape (options, resources).

    Returns
    -------
    (ndarray, ndarray, ndarray)
        turns/s and fraction of shape (options,), load at the bound (options, resources).
    """
    use = strategy_use(limits, strategy)
    if use.shape[0] > 1 and use.shape[1] > 1:
        rows = [_mix(limits, use, row) for row in capacity]
        return (
            np.array([answer.turns_per_s for answer in rows]),
            np.array([_fraction(limits, answer) for answer in rows]),
            np.array([answer.load for answer in rows]),
        )
    mean = np.tensordot(_weights(limits), use, axes=1)
    split = best_split(mean[0], mean[-1], capacity)
    x = split.second_route_fraction
    with np.errstate(invalid="ignore"):
        load = (
            split.turns_per_s[:, None]
            * (mean[0] * (1 - x[:, None]) + mean[-1] * x[:, None])
            / capacity
        )
    return split.turns_per_s, x, np.nan_to_num(load, nan=0.0)


def _mix(limits: Limits, use: Array, capacity: Array) -> LpAnswer:
    return maximise_turns(use, capacity, _weights(limits), balance=True)


def _fraction(limits: Limits, answer: LpAnswer) -> float:
    """Share of the hit KV bytes from storage that are read on the decode side."""
    hit = np.array([c.storage_kv_bytes for c in limits.classes])
    if math.isinf(answer.turns_per_s) or answer.flow_turns_per_s.shape[1] == 1:
        return 0.0
    read = hit[:, None] * answer.flow_turns_per_s
    total = float(read.sum())
    return float(read[:, 1].sum()) / total if total else 0.0


def solve_strategy(
    limits: Limits, strategy: str, prefill_nodes: int, decode_nodes: int
) -> StrategyResult:
    """A strategy's bound at P:D with everything there is to say about it (S2, S3, L).

    One class is solved in closed form and by LP, and the two must agree; a mix by LP. Either way
    the certificate has been checked.

    Raises
    ------
    UncertifiedAnswer
        If the LP's answer does not prove itself or differs from the closed form.
    """
    use = strategy_use(limits, strategy)
    capacity = limits.capacity(prefill_nodes, decode_nodes)
    weights = _weights(limits)
    single = use.shape[0] == 1
    answer = maximise_turns(use, capacity, weights) if single else _mix(limits, use, capacity)
    turns_per_s, fraction, low, high = answer.turns_per_s, _fraction(limits, answer), None, None
    load = answer.load
    if single:
        split = best_split(use[0, 0], use[0, -1], capacity)
        closed = float(split.turns_per_s)
        if not (closed == turns_per_s or abs(closed / turns_per_s - 1) <= 1e-9):
            raise UncertifiedAnswer(
                f"{strategy}: closed form {closed:.12g} and LP {turns_per_s:.12g} turns/s differ"
            )
        turns_per_s = closed
        fraction = float(split.second_route_fraction)
        low, high = float(split.lowest_fraction), float(split.highest_fraction)
        mean = use[0, 0] * (1 - fraction) + use[0, -1] * fraction
        load = np.zeros(len(RESOURCES)) if math.isinf(closed) else closed * mean / capacity
    if math.isinf(turns_per_s):
        return _unbounded(strategy)
    tight = np.flatnonzero(load >= _FULL)
    more, less = _one_sided(limits, strategy, capacity, answer, tight)
    rates = [c.weight_fraction * turns_per_s for c in limits.classes]
    sums = list(zip(limits.classes, rates, strict=True))
    is_oracle = strategy == "oracle"
    shown = np.isfinite(capacity) & ((use > 0).any(axis=(0, 1)) if is_oracle else True)
    proof = answer.certificate
    return StrategyResult(
        name=strategy,
        decode_read_fraction=None if is_oracle else (0.0 if use.shape[1] == 1 else fraction),
        decode_read_fraction_min=low if strategy == "dual-path" else None,
        decode_read_fraction_max=high if strategy == "dual-path" else None,
        turns_per_s=turns_per_s,
        sessions_per_s=sum(rate / c.turns_per_session for c, rate in sums),
        hit_kv_bytes_per_s=sum(rate * c.hit_kv_bytes for c, rate in sums),
        prompt_tokens_per_s=sum(rate * (c.context_tokens + c.append_tokens) for c, rate in sums),
        output_tokens_per_s=sum(rate * c.output_tokens for c, rate in sums),
        sessions_between_turns=_between_turns(sums),
        bottlenecks=tuple(RESOURCES[r] for r in tight),
        utilisation={RESOURCES[r]: float(min(load[r], 1.0)) for r in np.flatnonzero(shown)},
        shadow_prices={RESOURCES[r]: float(answer.elasticity[r]) for r in tight},
        shadow_prices_if_more={RESOURCES[r]: float(more[r]) for r in tight},
        shadow_prices_if_less={RESOURCES[r]: float(less[r]) for r in tight},
        next_limits=_next_limits(limits, strategy, capacity, turns_per_s, answer, tight),
        certificate=None
        if proof is None
        else {
            "primal_infeasibility": proof.primal_infeasibility,
            "dual_infeasibility": proof.dual_infeasibility,
            "complementarity": proof.complementarity,
            "gap": proof.gap,
        },
    )


def _between_turns(rates: list[tuple[ClassDemand, float]]) -> float | None:
    """Sessions waiting for a tool: arrivals of gaps times their length, by Little's law."""
    gaps = [rate * c.tool_gap_s for c, rate in rates if c.tool_gap_s is not None]
    return sum(gaps) if gaps else None


def _unbounded(strategy: str) -> StrategyResult:
    return StrategyResult(
        name=strategy,
        decode_read_fraction=0.0 if strategy == "prefill-only" else None,
        decode_read_fraction_min=None,
        decode_read_fraction_max=None,
        turns_per_s=None,
        sessions_per_s=None,
        hit_kv_bytes_per_s=None,
        prompt_tokens_per_s=None,
        output_tokens_per_s=None,
        sessions_between_turns=None,
        bottlenecks=(),
        utilisation={},
        shadow_prices={},
        shadow_prices_if_more={},
        shadow_prices_if_less={},
        next_limits=(),
        certificate=None,
    )


def _one_sided(
    limits: Limits, strategy: str, capacity: Array, answer: LpAnswer, tight: npt.NDArray[np.intp]
) -> tuple[Array, Array]:
    """Elasticities for more and for less of each resource; equal away from kinks."""
    use = strategy_use(limits, strategy)
    if use.shape[0] == 1:
        return elasticity_range(use[0, 0], use[0, -1], capacity, routes=use.shape[1])
    more, less = np.zeros(len(RESOURCES)), np.zeros(len(RESOURCES))
    step = 1e-6
    for r in tight:
        for sign, out in ((1, more), (-1, less)):
            nudged = capacity.copy()
            nudged[r] *= 1 + sign * step
            moved = maximise_turns(use, nudged, _weights(limits)).turns_per_s
            out[r] = np.log(moved / answer.turns_per_s) / np.log1p(sign * step)
    return np.clip(np.minimum(more, answer.elasticity), 0, 1), np.clip(
        np.maximum(less, answer.elasticity), 0, 1
    )


def _next_limits(
    limits: Limits,
    strategy: str,
    capacity: Array,
    turns_per_s: float,
    answer: LpAnswer,
    tight: npt.NDArray[np.intp],
) -> tuple[NextLimit, ...]:
    """Lift each bottleneck whose lifting helps, and all of them together."""
    lifts = [[r] for r in tight if answer.elasticity[r] > 0]
    if len(tight) > 1:
        lifts.append(list(tight))
    found = []
    for rows in lifts:
        lifted = capacity.copy()
        lifted[rows] = math.inf
        rate, _, load = (values[0] for values in bounds(limits, strategy, lifted[None]))
        name = " + ".join(RESOURCES[r] for r in rows)
        if math.isinf(rate):
            found.append(NextLimit(name, None, None, (), None))
            continue
        binding = tuple(RESOURCES[r] for r in np.flatnonzero(load >= _FULL))
        enough = _enough(limits, strategy, lifted, capacity, rows)
        found.append(NextLimit(name, float(rate), float(rate / turns_per_s - 1), binding, enough))
    return tuple(found)


def _enough(
    limits: Limits, strategy: str, lifted: Array, capacity: Array, rows: list[np.intp]
) -> float | None:
    """Least common factor on capacities at which their being unlimited gains no more (S4)."""
    use = strategy_use(limits, strategy)
    if use.shape[0] > 1:
        return None
    split = best_split(use[0, 0], use[0, -1], lifted)
    ends = [
        use[0, 0, rows] * (1 - x) + use[0, -1, rows] * x
        for x in (float(split.lowest_fraction), float(split.highest_fraction))
    ]
    # Of the splits that reach the lifted bound, the one that asks least of the lifted resources.
    least = best_split(ends[0], ends[1], capacity[rows])
    return float(split.turns_per_s / least.turns_per_s)
