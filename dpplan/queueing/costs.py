"""Q-scenario: what a prediction starts from, as plain arrays that many scenarios are stacked in.

Profiles, engines and the traffic table end here. Everything that depends on how far a session has
come is tabulated at a few contexts between its first prompt and its end; the tables know nothing
of the calibrated constants, so a calibration works them out once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from dpplan.arrays import Array
from dpplan.bounds.strategies import bounds, strategy_use
from dpplan.demand import BLOCK_TOKENS, decode_demand, sequence_bytes
from dpplan.demand.sessions import sessions_of
from dpplan.deployment import Deployment, Limits
from dpplan.deployment.pools import expert_share_per_token
from dpplan.deployment.prefill_time import prefill_engine
from dpplan.deployment.routes import RESOURCES
from dpplan.deployment.turns import nvlink_bytes
from dpplan.queueing.systems import System
from dpplan.solvers.closed_form import best_split

__all__ = ["CONTEXTS", "Scenario", "Tables", "scenario", "stack", "unit_limits"]


CONTEXTS = 9
"""Contexts at which a session's costs are tabulated; between them they are taken as linear."""

_NOT_IO = [i for i, r in enumerate(RESOURCES) if r.endswith((".gpu", ".hbm", ".kv_buffer"))]
_STORAGE_NIC = {
    side: [i for i, r in enumerate(RESOURCES) if r.startswith(f"{side}.storage_nic")]
    for side in ("prefill", "decode")
}


@dataclass(frozen=True)
class Tables:
    """Scenarios side by side: R scenarios, K classes of sessions, U contexts."""

    agents: Array
    """Sessions started together, (R,); nan where they arrive."""
    agents_per_s: Array
    """Arrival rate of sessions, (R,); nan where they start together."""
    bound_agents_per_s: Array
    """The planner's throughput bound [sessions/s], (R,)."""
    prefill_gpus: Array
    decode_gpus: Array
    """GPUs that work, (R,)."""
    layerwise: Array
    """1 or 0, (R,)."""
    adaptive: Array
    """Adaptive scheduler of sides, 1 or 0, (R,)."""
    round_robin: Array
    storage_ways: Array
    """Nodes whose storage NICs serve reads, (R,); 0 = no I/O cost."""
    storage_s_per_byte: Array
    """Load on the busiest storage NICs at line rate per byte that storage delivers, (R,)."""
    other_io_s_per_byte: Array
    """Load on the busiest other I/O resource per byte of hit KV [s/byte], (R,)."""
    node_read_bytes_per_s: Array
    """Line rate of one node's storage NICs, (R,)."""
    gpu_link_bytes_per_s: Array
    """Compute-NIC rate per GPU: what KV enters a prefill GPU at, (R,)."""
    layers: Array
    """All layers, (R,)."""
    decode_shared_s: Array
    decode_expert_s: Array
    """Seconds of a step to read shared weights and all routed experts, (R,)."""
    decode_expert_share: Array
    decode_engine_gpus: Array
    decode_room_bytes: Array
    """HBM of all decode engines left for KV, (R,)."""
    fraction: Array
    """Share of all sessions, (R, K); 0 fills up."""
    turns: Array
    """Turns per session, (R, K)."""
    output_tokens: Array
    """Tokens generated per turn, (R, K)."""
    gap_s: Array
    """Tool gap between turns, (R, K)."""
    storage_fraction: Array
    """Share of the hit KV that storage delivers, the rest lies in DRAM, (R, K)."""
    first_gpu_s: Array
    """GPU-seconds of the first prompt by the kernel law, (R, K)."""
    session_bytes: Array
    """KV of a finished session in the profile's precision [bytes], (R, K)."""
    kernel_gpu_s: Array
    """GPU-seconds of a turn's prefill by the kernel law, (R, K, U)."""
    layer_blocks: Array
    """Blocks of cached tokens times layers that keep them, (R, K, U)."""
    hit_bytes: Array
    """KV that a turn loads, from wherever [bytes], (R, K, U)."""
    decode_read_s: Array
    decode_compute_s: Array
    """Seconds of a step per sequence of a GPU, to read its cache and to compute, (R, K, U)."""
    resident_bytes: Array
    """HBM that a decoding sequence holds, (R, K, U)."""

    def __len__(self) -> int:
        return len(self.agents)

    def rows(self, chosen: npt.ArrayLike) -> Tables:
        """Some of the scenarios."""
        index = np.asarray(chosen)
        return Tables(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def replace(self, **columns: Array) -> Tables:
        """The same scenarios with some columns others."""
        return Tables(**({f.name: getattr(self, f.name) for f in fields(self)} | columns))


Scenario = Tables
"""Tables of one scenario."""


def stack(scenarios: Sequence[Scenario]) -> Tables:
    """Scenarios side by side; fewer classes are filled up with empty ones."""
    most = max(s.turns.shape[1] for s in scenarios)

    def joined(name: str) -> Array:
        parts = [getattr(s, name) for s in scenarios]
        if parts[0].ndim > 1:
            empty = 0.0 if name == "fraction" else None
            parts = [_filled(part, most, empty) for part in parts]
        return np.concatenate(parts)

    return Tables(**{f.name: joined(f.name) for f in fields(Tables)})


def _filled(part: Array, count: int, value: float | None) -> Array:
    missing = count - part.shape[1]
    if not missing:
        return part
    last = part[:, -1:] if value is None else np.full_like(part[:, -1:], value)
    return np.concatenate([part, np.repeat(last, missing, axis=1)], axis=1)


def scenario(
    deployment: Deployment,
    prefill_nodes: int,
    decode_nodes: int,
    system: System,
    *,
    agents: float | None = None,
    agents_per_s: float | None = None,
    stored_kv_bytes_per_token: Mapping[str, float] | None = None,
) -> Scenario:
    """Tables of one scenario (Q-scenario).

    Parameters
    ----------
    deployment : Deployment
        Model and workload on node types, `full` counting.
    prefill_nodes, decode_nodes : int
        Whole engine groups.
    system : System
    agents, agents_per_s : float, optional
        Sessions started together, or their arrival rate [1/s].
    stored_kv_bytes_per_token : mapping, optional
        Model name -> bytes a cached token takes in storage and HBM, where that is known to differ
        from the profile's precision.

    Returns
    -------
    Scenario
        Tables of length 1.
    """
    inputs, limits = deployment.inputs, unit_limits(deployment, prefill_nodes, decode_nodes)
    capacity = limits.capacity(prefill_nodes, decode_nodes)
    planned = deployment.at(prefill_nodes, decode_nodes)
    most = planned.capacity(prefill_nodes, decode_nodes)
    rate, _, _ = bounds(planned, system.strategy, most[None])
    per_session = sum(c.weight_fraction / c.turns_per_session for c in limits.classes)
    stored = (stored_kv_bytes_per_token or {}).get(inputs.model.name)
    columns = (
        _engine_columns(limits, prefill_nodes, decode_nodes)
        | _io_columns(limits, capacity, system, prefill_nodes, decode_nodes, stored)
        | {
            "decode_expert_share": expert_share_per_token(inputs.model),
            "layers": float(inputs.model.architecture.layers),
            "agents": math.nan if agents is None else float(agents),
            "agents_per_s": math.nan if agents_per_s is None else float(agents_per_s),
            "bound_agents_per_s": float(rate[0]) * per_session,
            "layerwise": float(system.layerwise),
            "adaptive": float(system.scheduler == "adaptive"),
            "round_robin": float(system.scheduler == "round-robin"),
        }
    )
    one = {name: np.array([value]) for name, value in columns.items()}
    sessions = _session_columns(limits, deployment, agents, stored, per_session)
    return Tables(**one, **{name: value[None] for name, value in sessions.items()})


def unit_limits(deployment: Deployment, prefill_nodes: int, decode_nodes: int) -> Limits:
    """Limits with the engines of the smallest cluster of the same P:D.

    A large cluster runs as many of these units: the planner's bound may assume engines that span
    all of it, a prediction of what will happen does not.
    """
    smallest = deployment.smallest()
    common = math.gcd(prefill_nodes, decode_nodes)
    p, d = prefill_nodes // common, decode_nodes // common
    for times in range(1, common + 1):
        whole = not (
            p * times % smallest.prefill.group_nodes or d * times % smallest.decode.group_nodes
        )
        if whole and common % times == 0:
            return deployment.at(p * times, d * times)
    return deployment.at(prefill_nodes, decode_nodes)


def _engine_columns(limits: Limits, prefill_nodes: int, decode_nodes: int) -> dict[str, float]:
    prefill, decode = limits.prefill, limits.decode
    working = {
        side: count // engine.nodes * engine.nodes * gpus
        for side, count, engine, gpus in (
            ("prefill", prefill_nodes, prefill.engine, prefill.hardware.gpus),
            ("decode", decode_nodes, decode.engine, decode.hardware.gpus),
        )
    }
    weights, rates, engine = limits.weights, decode.rates, decode.engine
    link = min(prefill.node.compute_nic_read, prefill.node.compute_nic_write)
    return {
        "prefill_gpus": float(working["prefill"]),
        "decode_gpus": float(working["decode"]),
        "gpu_link_bytes_per_s": link / prefill.hardware.gpus,
        "decode_shared_s": weights.shared_bytes / engine.tp / rates.hbm_bytes_per_s,
        "decode_expert_s": weights.expert_bytes / max(engine.ep, engine.tp) / rates.hbm_bytes_per_s,
        "decode_engine_gpus": float(engine.gpus),
        "decode_room_bytes": engine.hbm_left_bytes_per_gpu * working["decode"],
    }


def _io_columns(
    limits: Limits,
    capacity: Array,
    system: System,
    prefill_nodes: int,
    decode_nodes: int,
    stored: float | None,
) -> dict[str, float]:
    """Loads per byte of hit KV at the planner's best split, storage NICs at line rate."""
    hit = sum(c.weight_fraction * c.hit_kv_bytes for c in limits.classes)
    read = sum(c.weight_fraction * c.storage_kv_bytes for c in limits.classes)
    none = {
        "storage_ways": 0.0,
        "storage_s_per_byte": 0.0,
        "other_io_s_per_byte": 0.0,
        "node_read_bytes_per_s": math.inf,
    }
    if system.strategy == "oracle" or not hit:
        return none
    use = np.tensordot(
        [c.weight_fraction for c in limits.classes],
        strategy_use(limits, system.strategy),
        axes=1,
    )
    usable, line = capacity.copy(), capacity.copy()
    usable[_NOT_IO] = math.inf
    for name, rows in _STORAGE_NIC.items():
        side = getattr(limits, name)
        line[rows] /= side.hardware.efficiency.storage_nic
    split = best_split(use[0], use[-1], usable)
    share = float(split.second_route_fraction)
    taken = use[0] * (1 - share) + use[-1] * share
    nics = [row for rows in _STORAGE_NIC.values() for row in rows]
    # Where DRAM serves all, what is written loads storage NICs as any other I/O.
    others = [r for r in range(len(RESOURCES)) if not (read and r in nics) and r not in _NOT_IO]
    prefill, decode = limits.prefill, limits.decode
    per_node = min(
        side.node.storage_nic_read / side.hardware.efficiency.storage_nic
        for side in ((prefill,) if use.shape[0] == 1 else (prefill, decode))
    )
    return {
        "storage_ways": float(prefill_nodes + (decode_nodes if use.shape[0] > 1 else 0)),
        "storage_s_per_byte": float(np.max(taken[nics] / line[nics])) / read if read else 0.0,
        "other_io_s_per_byte": float(np.max(taken[others] / usable[others])) / hit,
        "node_read_bytes_per_s": per_node,
    }


def _session_columns(
    limits: Limits,
    deployment: Deployment,
    agents: float | None,
    stored: float | None,
    per_session: float,
) -> dict[str, Array]:
    inputs, model = deployment.inputs, deployment.inputs.model
    architecture, layout = model.architecture, limits.layout
    prefill, decode = limits.prefill, limits.decode
    kernels = prefill_engine(prefill.hardware, model, prefill.engine, prefill.rates)
    keeping = sum(g.layers for g in architecture.layer_groups if g.kv_elements_per_entry)
    sent = nvlink_bytes(decode.engine, decode.hardware, model) / decode.rates.nvlink_bytes_per_s
    parts: list[dict[str, Array]] = []
    for weighted in inputs.classes:
        turns = weighted.turns
        share = weighted.weight_fraction / turns.turns_per_session / per_session
        drawn = math.inf if agents is None else max(agents * share, 1.0)
        found = sessions_of(turns, drawn)
        # One row where classes are alike in length, else one a class.
        at = np.linspace(found.first_prompt_tokens, found.session_tokens, CONTEXTS, axis=-1)
        alive = at + (found.append_tokens + found.output_tokens / 2)[:, None]
        size, wide = np.ones(len(found.turns)), np.ones((len(found.turns), CONTEXTS))
        cached = sequence_bytes(layout, at) if stored is None else stored * at
        decoding = [
            decode_demand(
                architecture,
                layout,
                float(tokens),
                model.kv_element_bytes,
                model.index_element_bytes,
                model.state_element_bytes,
            )
            for tokens in np.ravel(at + turns.append_tokens)
        ]
        rates = decode.rates
        compute = np.array(
            [
                max(
                    d.gemm_flop / rates.gemm_flop_per_s
                    + d.attention_flop / rates.attention_flop_per_s
                    + d.index_flop / rates.index_flop_per_s,
                    sent,
                )
                for d in decoding
            ]
        ).reshape(at.shape)
        read = np.array([d.read_bytes for d in decoding]).reshape(at.shape) / rates.hbm_bytes_per_s
        held = sequence_bytes(layout, alive)
        first = kernels.time(0.0, found.first_prompt_tokens).total_s
        parts.append(
            {
                "fraction": found.fraction * share,
                "turns": found.turns,
                "output_tokens": found.output_tokens,
                "gap_s": size * (turns.tool_gap_s or 0.0),
                "storage_fraction": size * (1.0 - turns.dram_hit_fraction),
                "first_gpu_s": size * first,
                "session_bytes": size * sequence_bytes(layout, found.session_tokens),
                "kernel_gpu_s": kernels.time(at, found.append_tokens[:, None]).total_s,
                "layer_blocks": wide * (keeping * at / BLOCK_TOKENS),
                "hit_bytes": wide * cached,
                "decode_read_s": wide * (read * decode.engine.kv_copies),
                "decode_compute_s": wide * compute,
                "resident_bytes": held * decode.engine.kv_copies,
            }
        )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
