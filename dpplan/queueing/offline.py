"""Q-offline: n agents start together; a fluid balance follows their classes to the last one's end.

At every moment each class of sessions turns over at the rate that its members' cycle of waiting,
prefill, hand-off, decode and tool gap allows, and the common wait is what keeps every station
within its capacity. Short sessions end first; the longest decide the job completion time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpplan.arrays import Array, Flags
from dpplan.queueing.stations import AtContext, Stations, queue_wait_s

__all__ = ["Offline", "run_offline"]


_STEP = 0.06
"""Largest step of time, as a share of what the slowest class still needs."""
_LEAST_STEP = 0.02
"""Least step, as a share of the time gone by."""
_OVERSHOOT = 1.2
"""A class that ends within so many steps ends with this one."""
_WARM_UP = 5
"""Rounds in which the first decode batch and the first wait find each other."""
_ROUNDS = 2
"""The same within a step, whose change they follow: one is late by a step."""
_HALVINGS = 24
_SERVERS = [0, 2, 3]
"""Of the loads: prefill GPUs, storage and decode HBM do no more than they can."""
_DONE = 1e-6


@dataclass(frozen=True)
class Offline:
    """Outcome of jobs of n agents each; times in seconds, shape (R,) unless said."""

    jct_s: Array
    """Until the last agent is done."""
    mean_agent_s: Array
    """Mean agent's completion time."""
    class_end_s: Array
    """Completion time of every class, (R, K)."""
    ttft_s: Array
    ttst_s: Array
    tpot_s: Array
    """Means over the turns of the whole job."""
    working_set_bytes: Array
    """KV alive, mean over the job."""
    agents_in_system: Array
    """Agents not yet done, mean over the job."""
    busy_prefill_fraction: Array
    busy_storage_fraction: Array
    busy_decode_memory_fraction: Array
    """Utilisation, mean over the job."""
    bound_holds: Flags
    """The planner's bound, not the stations, set the time."""


def run_offline(stations: Stations) -> Offline:
    """Follow jobs of n agents to their end (Q-offline).

    Parameters
    ----------
    stations : Stations
        R scenarios; their `agents` are finite.

    Returns
    -------
    Offline
        jct_s is at least agents / bound_agents_per_s: no prediction beats the planner's bound.
    """
    t = stations.tables
    turns, output = t.turns, t.output_tokens
    number = t.agents[:, None] * t.fraction
    progress, active = np.zeros_like(turns), number > 0
    # First prompts find nothing cached: all of them are computed before reads begin.
    first_load = (number * stations.first_load_s).sum(axis=1)
    first_s = np.maximum(first_load, np.where(active, stations.first_gpu_s, 0.0).max(axis=1))
    time = first_s.copy()
    step_s = stations.step_s(np.ones(len(t)), t.decode_read_s[:, 0, 0], t.decode_compute_s[:, 0, 0])
    sums = {name: np.zeros(len(t)) for name in ("turn", "ttft", "ttst", "token", "tpot")}
    over = {name: np.zeros(len(t)) for name in ("kv", "agents", "prefill", "storage", "memory")}
    over["agents"] += first_s * t.agents
    over["prefill"] += first_load
    ends = np.zeros_like(turns)
    cycle = np.ones_like(turns)
    for _ in range(_WARM_UP):
        cycle, _, wait, step_s = _turn_over(stations, stations.at(progress), number, step_s)
    while active.any():
        # Costs are taken where the step's middle will be, as far as the last step tells.
        left = np.where(active, (1.0 - progress) * turns * cycle, 0.0)
        longest = left.max(axis=1)
        step = np.maximum(_STEP * longest, _LEAST_STEP * time)
        step = np.minimum(np.where(active, left, np.inf).min(axis=1), step)
        step = np.where(longest > 0, step, 0.0)
        middle = np.minimum(progress + 0.5 * step[:, None] / (turns * cycle), 1.0)
        cost = stations.at(middle)
        present = np.where(active, number, 0.0)
        for _ in range(_ROUNDS):
            cycle, rate, wait, step_s = _turn_over(stations, cost, present, step_s)
        left = np.where(active, (1.0 - progress) * turns * cycle, np.inf)
        next_end = np.where(longest > 0, left.min(axis=1), 0.0)
        dt = np.where(next_end <= _OVERSHOOT * step, next_end, step)
        done = rate * dt[:, None]
        sums["turn"] += done.sum(axis=1)
        sums["ttft"] += (done * (cost.unloaded_s + wait[:, None])).sum(axis=1)
        sums["ttst"] += (done * (cost.hand_off_s + step_s[:, None])).sum(axis=1)
        sums["token"] += (done * output).sum(axis=1)
        sums["tpot"] += (done * output).sum(axis=1) * step_s
        grown = 0.5 + 0.5 * middle
        over["kv"] += dt * (present * t.session_bytes * grown).sum(axis=1)
        over["agents"] += dt * present.sum(axis=1)
        over["prefill"] += dt * (rate * cost.prefill_load_s).sum(axis=1)
        over["storage"] += dt * (rate * cost.storage_load_s).sum(axis=1)
        held = _memory_use(stations, cost, rate * output * step_s[:, None])
        over["memory"] += dt * np.minimum(held, 1.0)  # the step has grown since the wait was found
        time = time + dt
        progress = np.where(active, progress + dt[:, None] / (turns * cycle), progress)
        ended = active & (progress > 1.0 - _DONE)
        ends = np.where(ended, time[:, None], ends)
        active = active & ~ended
    bound = t.agents / t.bound_agents_per_s
    stretch = np.maximum(bound / time, 1.0)
    per_turn = np.maximum(sums["turn"], 1e-300)
    tokens = np.maximum(sums["token"], 1e-300)
    return Offline(
        jct_s=time * stretch,
        mean_agent_s=(t.fraction * ends).sum(axis=1) * stretch,
        class_end_s=ends * stretch[:, None],
        ttft_s=sums["ttft"] / per_turn,
        ttst_s=sums["ttst"] / per_turn,
        tpot_s=sums["tpot"] / tokens,
        working_set_bytes=over["kv"] / time,
        agents_in_system=over["agents"] / time,
        busy_prefill_fraction=over["prefill"] / (time * stretch),
        busy_storage_fraction=over["storage"] / (time * stretch),
        busy_decode_memory_fraction=over["memory"] / (time * stretch),
        bound_holds=stretch > 1.0,
    )


def _turn_over(
    stations: Stations, cost: AtContext, present: Array, step_s: Array
) -> tuple[Array, Array, Array, Array]:
    """A turn's cycle (R, K), turns/s of the classes (R, K), common wait (R,), next decode step."""
    output = stations.tables.output_tokens
    fixed = cost.unloaded_s + cost.hand_off_s + stations.gap_s
    wait = _common_wait(stations, cost, present, fixed, output * step_s[:, None])
    rate = present / (fixed + wait[:, None] + output * step_s[:, None])
    step_s = _next_step(stations, cost, rate * output, step_s)
    cycle = fixed + wait[:, None] + output * step_s[:, None]
    return cycle, present / cycle, wait, step_s


def _memory_use(stations: Stations, cost: AtContext, sequences: Array) -> Array:
    """Share of decode HBM that decoding sequences (R, K) hold."""
    room = stations.tables.decode_room_bytes
    return np.asarray((sequences * cost.resident_bytes).sum(axis=1) / room)


def _next_step(stations: Stations, cost: AtContext, tokens_per_s: Array, step_s: Array) -> Array:
    """Step time of the batch that these token rates (R, K) make at the present step time."""
    total = tokens_per_s.sum(axis=1)
    weight = np.maximum(total, 1e-300)
    read = (tokens_per_s * cost.decode_read_s).sum(axis=1) / weight
    compute = (tokens_per_s * cost.decode_compute_s).sum(axis=1) / weight
    return stations.step_s(total * step_s / stations.tables.decode_gpus, read, compute)


def _common_wait(
    stations: Stations, cost: AtContext, present: Array, fixed: Array, decode_s: Array
) -> Array:
    """Wait of every turn at which the stations' queues are as long as the wait makes them, (R,).

    More wait means fewer turns per second and shorter queues, so the two sides cross once. A turn
    finds what the other agents make of the queues (the arrival theorem of closed networks).
    """
    total = np.maximum(present.sum(axis=1), 1e-300)
    gpu_s = (present * cost.prefill_gpu_s).sum(axis=1) / total
    load_s = (present * cost.storage_load_s).sum(axis=1) / total
    held = (present * cost.resident_bytes).sum(axis=1) / total
    room = stations.tables.decode_room_bytes
    slots = np.maximum(room / np.maximum(held, 1.0), 1.0)
    decoding = (present * decode_s).sum(axis=1) / total
    cycle = fixed + decode_s
    resident = decode_s * cost.resident_bytes / room[:, None]
    low = np.zeros(len(present))
    high = (present * (cost.together_s + cost.prefill_load_s)).sum(axis=1)
    high = high + (present * resident).sum(axis=1) + stations.constants["batching_delay"] * gpu_s
    loads = np.stack([cost.prefill_load_s, cost.together_s, cost.storage_load_s, resident])
    loads *= present
    # Of n agents, n - 1 are in a turn's way: a last one doesn't wait for itself.
    others = np.maximum(1.0 - 1.0 / total, 0.0)
    for _ in range(_HALVINGS):
        wait = 0.5 * (low + high)
        use = np.einsum("jrk,rk->jr", loads, np.reciprocal(cycle + wait[:, None]))
        prefill, both, storage, memory = others * use
        needed = (
            stations.prefill_wait_s(prefill, both, gpu_s)
            + stations.read_wait_s(storage, load_s)
            + queue_wait_s(memory, slots, decoding)
        )
        more = (needed > wait) | (use[_SERVERS] > 1.0).any(axis=0)
        low, high = np.where(more, wait, low), np.where(more, high, wait)
    return np.asarray(high)
