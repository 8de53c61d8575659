"""Q-online: sessions arrive at random; mean latencies of a system in its steady state."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpplan.arrays import Array, Flags
from dpplan.queueing.costs import CONTEXTS
from dpplan.queueing.stations import Stations, queue_wait_s

__all__ = ["LIMITS", "Online", "largest_rate", "run_online"]


LIMITS = ("prefill.gpu", "storage_nic_read", "decode.gpu", "decode.hbm", "bound")
"""Stations that can be full, in the order of `Online.use`."""

_ROUNDS = 100
_HUGE = 1e9
"""Sequences of a GPU that no batch reaches."""


@dataclass(frozen=True)
class Online:
    """Means in the steady state, shape (R,) unless said; meaningless where not stable."""

    stable: Flags
    """The arrival rate stays below what every station and the planner's bound allow."""
    use: Array
    """Utilisation of the `LIMITS`, (R, 5)."""
    ttft_s: Array
    scheduling_s: Array
    """Part of TTFT: forward batches ahead, and queues of GPUs and storage NICs."""
    read_s: Array
    """Part of TTFT: reading KV, as far as prefill doesn't hide it."""
    prefill_s: Array
    """Part of TTFT."""
    hand_off_s: Array
    """After the first token: KV to its decode GPU, and a place in its HBM."""
    ttst_s: Array
    tpot_s: Array
    session_s: Array
    """Mean JCT of an agent, tool gaps included."""
    class_session_s: Array
    """JCT of every class of sessions, (R, K)."""
    agents_in_system: Array
    working_set_bytes: Array


def run_online(stations: Stations, agents_per_s: Array | None = None) -> Online:
    """Steady state under Poisson arrivals of sessions (Q-online).

    Parameters
    ----------
    stations : Stations
    agents_per_s : ndarray, optional
        Arrival rates (R,) [1/s]; absent = the tables' own.

    Returns
    -------
    Online
    """
    t = stations.tables
    arriving = t.agents_per_s if agents_per_s is None else agents_per_s
    turns = t.fraction * t.turns
    per_session = turns.sum(axis=1)
    nodes = (np.arange(CONTEXTS) + 0.5) / CONTEXTS
    costs = [stations.at(np.full_like(t.turns, u)) for u in nodes]

    def mean(name: str, weight: Array) -> Array:
        """Mean over a session's course and the classes."""
        total = sum((weight * getattr(cost, name)).sum(axis=1) for cost in costs)
        return np.asarray(total / (CONTEXTS * weight.sum(axis=1)))

    turn_rate = arriving * per_session
    gpu_s, load_s = mean("prefill_gpu_s", turns), mean("storage_load_s", turns)
    first_load = (t.fraction * stations.first_load_s).sum(axis=1)
    prefill = turn_rate * mean("prefill_load_s", turns) + arriving * first_load
    storage = turn_rate * load_s
    # Sessions are spread over all their phases, so that layerwise loads and compute overlap.
    exposed = turn_rate * mean("exposed_s", turns)
    full = np.maximum(prefill, storage) + exposed

    generated = turns * t.output_tokens
    tokens = arriving * generated.sum(axis=1)
    weight = np.maximum(generated, 1e-300)
    step_s, decode = _decode_step(
        stations, tokens, mean("decode_read_s", weight), mean("decode_compute_s", weight)
    )
    held = mean("resident_bytes", weight)
    slots = np.maximum(t.decode_room_bytes / np.maximum(held, 1.0), 1.0)
    decoding = generated.sum(axis=1) / per_session * step_s
    memory = tokens * step_s * held / t.decode_room_bytes
    bound = arriving / t.bound_agents_per_s

    scheduling = stations.prefill_wait_s(prefill, full, gpu_s) + stations.read_wait_s(
        storage, load_s
    )
    first_gpu = (t.fraction * stations.first_gpu_s).sum(axis=1) / per_session
    unloaded = mean("unloaded_s", turns)
    hand_off = mean("hand_off_s", turns) + queue_wait_s(memory, slots, decoding)
    ttft = scheduling + unloaded + first_gpu
    per_turn = (ttft + hand_off)[:, None] + t.output_tokens * step_s[:, None] + stations.gap_s
    session = t.turns * per_turn
    mean_session = (t.fraction * session).sum(axis=1)
    agents = arriving * mean_session
    alive = (t.fraction * session * t.session_bytes).sum(axis=1) / 2
    use = np.stack([prefill + exposed, storage + exposed, decode, memory, bound], axis=1)
    return Online(
        stable=np.asarray((use < 1.0).all(axis=1)),
        use=use,
        ttft_s=ttft,
        scheduling_s=scheduling,
        read_s=unloaded - gpu_s,
        prefill_s=gpu_s + first_gpu,
        hand_off_s=hand_off,
        ttst_s=hand_off + step_s,
        tpot_s=step_s,
        session_s=mean_session,
        class_session_s=session,
        agents_in_system=agents,
        working_set_bytes=arriving * alive,
    )


def _decode_step(
    stations: Stations, tokens_per_s: Array, read_s: Array, compute_s: Array
) -> tuple[Array, Array]:
    """Step time whose batch makes these tokens, and tokens over the most that any batch makes.

    The batch is tokens/s * step time, and the step grows with the batch. Below the least solution
    steps make fewer tokens than needed, above it more, so tangents kept between both ends find it.
    Beyond the largest rate there is none.
    """
    gpus = stations.tables.decode_gpus
    huge = np.full(len(gpus), _HUGE)
    most = huge * gpus / stations.step_s(huge, read_s, compute_s)
    rate = np.minimum(tokens_per_s, 0.999 * most) / gpus
    low = batch = rate * stations.step_s(np.zeros(len(gpus)), read_s, compute_s)
    high = huge
    for _ in range(_ROUNDS):
        step = stations.step_s(batch, read_s, compute_s)
        more = rate * step > batch
        low, high = np.where(more, batch, low), np.where(more, high, batch)
        if np.all(np.abs(rate * step - batch) <= 1e-10 * batch):
            break
        nudge = 1e-6 * np.maximum(batch, 1.0)
        slope = (stations.step_s(batch + nudge, read_s, compute_s) - step) / nudge
        tangent = rate * (step - slope * batch) / np.maximum(1.0 - rate * slope, 1e-12)
        inside = (tangent > low) & (tangent < high)
        batch = np.where(inside, tangent, np.sqrt(low * high))
    return step, np.asarray(tokens_per_s / most)


def largest_rate(
    stations: Stations, ttft_limit_s: Array, tpot_limit_s: Array, *, halvings: int = 40
) -> tuple[Array, tuple[str | None, ...]]:
    """Largest stable arrival rate within TTFT and TPOT, and what ends it (Q-capacity).

    Latencies grow with the rate, so bisection between 0 and the planner's bound finds it.

    Parameters
    ----------
    stations : Stations
    ttft_limit_s, tpot_limit_s : ndarray
        Limits on the means, (R,) [s]; inf = none.

    Returns
    -------
    (ndarray, tuple of str or None)
        Sessions/s (R,), 0 where even a lone session misses a limit; and what is missed just
        above: "slo.ttft", "slo.tpot" or one of `LIMITS`.
    """
    t = stations.tables
    low, high = np.zeros(len(t)), t.bound_agents_per_s.copy()
    high = np.where(np.isfinite(high), high, 1e12)
    for _ in range(halvings):
        rate = 0.5 * (low + high)
        seen = run_online(stations, rate)
        good = seen.stable & (seen.ttft_s <= ttft_limit_s) & (seen.tpot_s <= tpot_limit_s)
        low, high = np.where(good, rate, low), np.where(good, high, rate)
    over = run_online(stations, high)
    ended: list[str | None] = []
    for i in range(len(t)):
        worst = int(np.argmax(over.use[i]))
        if not over.stable[i]:
            ended.append(LIMITS[worst])
        elif over.tpot_s[i] > tpot_limit_s[i]:
            ended.append("slo.tpot")
        elif over.ttft_s[i] > ttft_limit_s[i]:
            ended.append("slo.ttft")
        else:
            ended.append("bound")
    return low, tuple(ended)
