"""Q-stations: what a turn asks of prefill GPUs, storage and decode, and how long it waits there.

Tables and constants meet here; offline and online runs read the same stations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from dpplan.arrays import Array
from dpplan.demand.decode import step_time_s
from dpplan.queueing.constants import Constants
from dpplan.queueing.costs import Tables

__all__ = ["AtContext", "Stations", "queue_wait_s", "stations"]


_FULLEST = 1.0 - 1e-6
"""Utilisation above which a queue's wait is taken as at this one: finite, but far above any SLO."""


def queue_wait_s(
    utilisation: npt.ArrayLike, servers: npt.ArrayLike, service_s: npt.ArrayLike
) -> Array:
    """Mean wait before one of c like servers, by Sakasegawa's formula (Q-wait) [s].

    service/c * rho^(sqrt(2*(c+1)) - 1) / (1 - rho), the M/M/c approximation.

    Parameters
    ----------
    utilisation : array_like
        rho, 0 to 1; 1 and more are taken as just below 1.
    servers : array_like
        c, at least 1.
    service_s : array_like
        Mean time on one server [s].

    Returns
    -------
    ndarray
        Seconds, broadcast shape.

    References
    ----------
    H. Sakasegawa, An approximation formula L_q = alpha rho^beta / (1 - rho), 1977.

    Examples
    --------
    One server, half used: M/M/1 waits as long as it serves.

    >>> float(queue_wait_s(0.5, 1, 2.0))
    2.0
    """
    rho = np.minimum(np.maximum(np.asarray(utilisation, dtype=float), 0.0), _FULLEST)
    count = np.maximum(np.asarray(servers, dtype=float), 1.0)
    waiting = rho ** (np.sqrt(2.0 * (count + 1.0)) - 1.0) / (1.0 - rho)
    return np.asarray(np.asarray(service_s, dtype=float) / count * waiting)


@dataclass(frozen=True)
class AtContext:
    """A turn at some context: rows of shape (R, K), of the stations' scenarios and classes."""

    prefill_gpu_s: Array
    """GPU time of a prefill, one GPU."""
    prefill_load_s: Array
    """Time it takes all prefill GPUs: their load per turn/s."""
    storage_load_s: Array
    """Load of the busiest I/O resource per turn/s."""
    together_s: Array
    """Load of compute and reads of agents that started together, on one another."""
    exposed_s: Array
    """What reads and compute take beyond the longer of them where agents are spread in time."""
    read_s: Array
    """Time to read its KV while nothing queues."""
    hand_off_s: Array
    decode_read_s: Array
    decode_compute_s: Array
    resident_bytes: Array
    unloaded_s: Array
    """Read and prefill of a lone turn, overlapped where layerwise."""


@dataclass(frozen=True)
class Stations:
    """Costs of every scenario and class at the tabulated contexts, constants applied."""

    tables: Tables
    constants: dict[str, Array]
    """By name, one value a scenario, (R,)."""
    first_load_s: Array
    """Load of a session's first prompt on the prefill GPUs, (R, K)."""
    first_gpu_s: Array
    """GPU-seconds of a session's first prompt, (R, K)."""
    _columns: Array
    """Rows of `AtContext`, (rows, R, K, U)."""

    def at(self, progress: Array) -> AtContext:
        """Costs where sessions have done a share of their turns, (R, K) from 0 to 1."""
        kinds, last = len(self._columns), self._columns.shape[-1] - 1
        place = np.clip(progress, 0.0, 1.0) * last
        low = np.minimum(place.astype(int), last - 1)
        weight = place - low
        index = np.arange(low.size).reshape(low.shape) * (last + 1) + low
        flat = self._columns.reshape(kinds, -1)
        below, above = flat.take(index, axis=1), flat.take(index + 1, axis=1)
        return AtContext(*(below + (above - below) * weight))

    @property
    def gap_s(self) -> Array:
        """Tool gaps of a session over its turns, (R, K) [s]: none follows the last one."""
        t = self.tables
        return np.asarray(t.gap_s * np.maximum(1.0 - 1.0 / t.turns, 0.0))

    def step_s(self, sequences_per_gpu: Array, read_s: Array, compute_s: Array) -> Array:
        """Time of a decode step (Q-decode), (R,) [s].

        The planner's roofline (D6) of a batch, and per layer an overhead of the step and one of
        every sequence of a GPU. A step that runs has at least one sequence on its engine.

        Parameters
        ----------
        sequences_per_gpu : ndarray
            b, (R,).
        read_s, compute_s : ndarray
            Mean seconds per sequence of a GPU, (R,).
        """
        t, k = self.tables, self.constants
        engine = t.decode_engine_gpus
        roofline = step_time_s(
            np.maximum(sequences_per_gpu * engine, 1.0),
            shared_weight_s=t.decode_shared_s,
            expert_weight_s=t.decode_expert_s,
            expert_share_per_token=t.decode_expert_share,
            cache_s_per_sequence=read_s / engine,
            compute_s_per_sequence=compute_s / engine,
        )
        extra = k["decode_layer_s"] + k["decode_sequence_layer_s"] * sequences_per_gpu
        return np.asarray(roofline + t.layers * extra)

    def prefill_wait_s(self, prefill_use: Array, all_use: Array, gpu_s: Array) -> Array:
        """Wait for forward batches ahead and for a GPU (Q-wait), (R,) [s].

        batching_delay * rho * prefill: a turn joins a forward batch whose size, and so whose
        time, grows with the load; and the queue of c GPUs where all of it is nearly full.
        """
        batches = self.constants["batching_delay"] * np.clip(prefill_use, 0.0, 1.0) * gpu_s
        return np.asarray(batches + queue_wait_s(all_use, self.tables.prefill_gpus, gpu_s))

    def read_wait_s(self, storage_use: Array, load_s: Array) -> Array:
        """Wait for storage NICs (Q-wait), (R,) [s]; `load_s` is the mean load per turn."""
        ways = self.tables.storage_ways
        return queue_wait_s(storage_use, ways, load_s * ways)


def stations(tables: Tables, constants: Constants | Sequence[Constants]) -> Stations:
    """Apply constants to tables (Q-stations).

    Per turn on context c: prefill = kernels / efficiency + blocks * overhead + KV / GPU link;
    reads = max(KV from storage * NICs * imbalance / share, KV * other I/O); layerwise (prefill^p +
    reads^p)^(1/p) of both loads, else max(reads + exposed * prefill, prefill).

    Parameters
    ----------
    tables : Tables
        R scenarios.
    constants : Constants or sequence of them
        For all scenarios, or one for each.

    Returns
    -------
    Stations
    """
    each = [constants] * len(tables) if isinstance(constants, Constants) else list(constants)
    t = tables
    k = {f.name: np.array([getattr(c, f.name) for c in each]) for f in fields(Constants)}

    def wide(row: Array) -> Array:
        return np.asarray(row[:, None, None])

    gpu_s = (
        t.kernel_gpu_s / wide(k["prefill_efficiency"])
        + t.layer_blocks * wide(k["block_overhead_s"])
        + t.hit_bytes / wide(t.gpu_link_bytes_per_s)
    )
    load = gpu_s / wide(t.prefill_gpus)
    uneven = np.where(t.adaptive > 0, k["imbalance_adaptive"], 1.0)
    uneven = np.where(t.round_robin > 0, k["imbalance_round_robin"], uneven)
    uneven = np.where(t.storage_ways > 1, uneven, 1.0)
    from_storage = t.hit_bytes * t.storage_fraction[:, :, None]
    storage = np.maximum(
        from_storage * wide(t.storage_s_per_byte * uneven / k["storage_nic_share"]),
        t.hit_bytes * wide(t.other_io_s_per_byte),
    )
    larger = np.maximum(load, storage)
    smaller = np.minimum(load, storage)
    # (a^p + b^p)^(1/p) with the larger one factored out, which neither over- nor underflows.
    ratio = np.divide(smaller, larger, out=np.zeros_like(larger), where=larger > 0)
    overlapped = np.maximum(larger, 1e-300) * (1.0 + ratio ** wide(k["overlap_exponent"])) ** (
        1.0 / wide(k["overlap_exponent"])
    )
    in_turn = np.maximum(storage + wide(k["exposed_compute_share"]) * load, load)
    layered = wide(t.layerwise) > 0
    rate = np.minimum(
        k["request_read_bytes_per_s"], t.node_read_bytes_per_s * k["storage_nic_share"]
    )
    read = np.where(wide(t.storage_ways) > 0, from_storage / wide(rate), 0.0)
    hand_off = t.hit_bytes / np.minimum(
        wide(k["hand_off_bytes_per_s"]), wide(t.gpu_link_bytes_per_s)
    )
    columns = AtContext(
        prefill_gpu_s=gpu_s,
        prefill_load_s=load,
        storage_load_s=storage,
        together_s=np.where(layered, overlapped, in_turn),
        # Agents spread in time don't all read at once: what that alone costs is taken out again.
        exposed_s=np.where(layered, 0.0, np.maximum(in_turn * larger / overlapped - larger, 0.0)),
        read_s=read,
        hand_off_s=hand_off,
        decode_read_s=t.decode_read_s,
        decode_compute_s=t.decode_compute_s,
        resident_bytes=t.resident_bytes,
        unloaded_s=np.where(layered, np.maximum(gpu_s, read), gpu_s + read),
    )
    # A first prompt is long enough to fill its kernels.
    first = t.first_gpu_s
    return Stations(
        tables=t,
        constants=k,
        first_load_s=first / t.prefill_gpus[:, None],
        first_gpu_s=first,
        _columns=np.stack(list(vars(columns).values())),
    )
