"""One turn's use and one node's capacity on the traffic table's rows: what every solver is given.

Demand (what a turn asks for) and capacity (what a node delivers) meet here: amounts per flow times
the traffic table give use per route, class and resource. Nothing is solved.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpplan.capacity import NodeCapacity, effective, flop_rate, node_capacity
from dpplan.demand import (
    CacheLayout,
    Counting,
    DecodeDemand,
    PrefillFlop,
    cache_layout,
    collective_bytes_per_token,
    decode_demand,
    persisted_tokens,
    prefill_flop,
    sequence_bytes,
)
from dpplan.errors import Infeasible
from dpplan.placement import DecodeRate, Engine, GpuRates, Weights, choose_engine, decode_rate
from dpplan.profiles.hardware import Hardware
from dpplan.profiles.library import Inputs
from dpplan.profiles.model import Model
from dpplan.profiles.workload import Slo, TurnClass
from dpplan.routes import FLOWS, RESOURCES, ROUTES, resource_index, traffic_table

__all__ = ["ClassDemand", "Limits", "Side", "assemble_limits"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ClassDemand:
    """What one turn of a class asks for, before any hardware is counted in nodes."""

    name: str
    weight_fraction: float
    turns_per_session: float
    context_tokens: float
    append_tokens: float
    output_tokens: float
    session_tokens: float
    tpot_s: float
    ttft_s: float
    hit_kv_bytes: float
    fresh_kv_bytes: float
    generated_kv_bytes: float
    write_back_bytes: float
    gemm_flop: float
    attention_flop: float
    index_flop: float
    prefill_gpu_s: float
    """GPU-seconds of prefill a turn takes."""
    decode_gpu_s: float
    """GPU-seconds of decode a turn takes, at the largest batch."""
    prefill_collective_bytes: float
    decode_collective_bytes: float
    read_s: tuple[float, float]
    """Unloaded time to read the hit KV through one node's storage NICs, prefill and decode side."""
    prefill_s: float
    """Unloaded prefill time on one engine."""
    decode: DecodeRate

    @property
    def prefill_flop(self) -> float:
        """All prefill FLOP of the turn."""
        return self.gemm_flop + self.attention_flop + self.index_flop


@dataclass(frozen=True)
class Side:
    """One side's node type, engine and usable rates."""

    hardware: Hardware
    engine: Engine
    rates: GpuRates
    node: NodeCapacity
    precisions: tuple[tuple[str, str, str], ...]
    """(kernel, precision wanted, precision that the chip has) where they differ."""

    @property
    def group_nodes(self) -> int:
        """Node counts of this side are multiples of it."""
        return self.engine.nodes


@dataclass(frozen=True)
class Limits:
    """Everything a solver needs, as arrays over classes, routes and `RESOURCES`."""

    classes: tuple[ClassDemand, ...]
    prefill: Side
    decode: Side
    weights: Weights
    layout: CacheLayout
    table: Array
    """Traffic table of this hardware, (resources, flows)."""
    amounts: Array
    """Units of every flow per turn, (classes, routes, flows)."""
    use: Array
    """Use per turn, (classes, routes, resources)."""
    compute_use: Array
    """Use per turn with no I/O cost (oracle): GPU time and HBM only, (classes, resources)."""
    per_prefill_node: Array
    """Capacity that one prefill node adds, (resources,); inf = unlimited."""
    per_decode_node: Array
    per_cluster: Array
    """Capacity that doesn't grow with nodes: the storage backend's."""
    unlimited: frozenset[str]
    counting: Counting
    load_or_recompute_bytes_per_s: float | None
    """S4: bandwidth per prefill GPU above which loading the mean history beats recomputing it;
    None where there is no history or the GPUs are unlimited."""

    def capacity(self, prefill_nodes: npt.ArrayLike, decode_nodes: npt.ArrayLike) -> Array:
        """Capacity vector of P prefill and D decode nodes, shape (..., resources)."""
        p = np.asarray(prefill_nodes, dtype=float)[..., None]
        d = np.asarray(decode_nodes, dtype=float)[..., None]
        return np.asarray(p * self.per_prefill_node + d * self.per_decode_node + self.per_cluster)



def assemble_limits(inputs: Inputs, counting: Counting, unlimited: Collection[str] = ()) -> Limits:
    """Work out use and capacity of a plan (D, C, T).

    Parameters
    ----------
    inputs : Inputs
        Profiles, read and checked.
    counting : {"full", "paper"}
        All traffic with efficiencies and headroom, or hit KV only at peaks.
    unlimited : collection of str
        Resources treated as infinite; `X.hbm` also lifts the rule that weights must fit.

    Returns
    -------
    Limits

    Raises
    ------
    Infeasible
        If no engine holds the model, or TPOT cannot be met even by a lone sequence.
    """
    model = inputs.model
    infinite = frozenset(unlimited)
    layout = cache_layout(
        model.architecture,
        model.kv_element_bytes,
        model.index_element_bytes,
        model.state_element_bytes,
    )
    weights = _weights(model)
    slo = inputs.workload.slo
    turns = [item.turns for item in inputs.classes]
    prefill = _side("prefill", inputs.prefill_hardware, model, weights, layout, turns, slo, counting, infinite)
    decode = _side("decode", inputs.decode_hardware, model, weights, layout, turns, slo, counting, infinite)
    classes = tuple(
        _class_demand(item.turns, item.weight_fraction, model, layout, weights, prefill, decode, slo, counting, infinite)
        for item in inputs.classes
    )
    table = traffic_table(
        prefill_shared=inputs.prefill_hardware.storage_nic.shared_with_compute,
        decode_shared=inputs.decode_hardware.storage_nic.shared_with_compute,
    )
    layers = model.architecture.layers
    amounts = np.stack([_amounts(c, prefill, decode, layers, counting, io=True) for c in classes])
    idle = np.stack([_amounts(c, prefill, decode, layers, counting, io=False) for c in classes])
    use = amounts @ table.T
    compute_rows = [resource_index(f"{s}.{r}") for s in ("prefill", "decode") for r in ("gpu", "hbm")]
    compute_use = np.zeros((len(classes), len(RESOURCES)))
    compute_use[:, compute_rows] = (idle[:, 0] @ table.T)[:, compute_rows]
    per_node = [
        _node_vector("prefill", prefill, counting, infinite),
        _node_vector("decode", decode, counting, infinite),
    ]
    return Limits(
        classes=classes,
        prefill=prefill,
        decode=decode,
        weights=weights,
        layout=layout,
        table=table,
        amounts=amounts,
        use=use,
        compute_use=compute_use,
        per_prefill_node=per_node[0],
        per_decode_node=per_node[1],
        per_cluster=_cluster_vector(inputs, counting, infinite),
        unlimited=infinite,
        counting=counting,
        load_or_recompute_bytes_per_s=_load_or_recompute(inputs, classes, prefill, counting),
    )


def _load_or_recompute(
    inputs: Inputs, classes: tuple[ClassDemand, ...], prefill: Side, counting: Counting
) -> float | None:
    """Hit bytes over the GPU time to prefill the same history from nothing (S4) [bytes/s/GPU]."""
    loaded = gpu_s = 0.0
    for c in classes:
        if c.context_tokens:
            flop = prefill_flop(
                inputs.model.architecture,
                0.0,
                c.context_tokens,
                counting=counting,
                active_parameters=inputs.model.active_parameters,
            )
            loaded += c.weight_fraction * c.hit_kv_bytes
            gpu_s += c.weight_fraction * _gpu_seconds(flop, prefill.rates)
    return loaded / gpu_s if gpu_s > 0 else None


def _gpu_seconds(flop: PrefillFlop, rates: GpuRates) -> float:
    return float(
        flop.gemm / rates.gemm_flop_per_s
        + flop.attention / rates.attention_flop_per_s
        + flop.index / rates.index_flop_per_s
    )


def _weights(model: Model) -> Weights:
    counts = model.architecture.parameters
    body, table = model.weight_element_bytes, max(2.0, model.weight_element_bytes)
    # Embedding table and LM head stay in 16 bit in quantised checkpoints.
    shared = counts.body * body + (counts.input_embedding + counts.output_head) * table
    return Weights(shared, counts.routed_experts * model.expert_element_bytes)


def _tpot_s(turns: TurnClass, slo: Slo | None) -> tuple[float, float]:
    chosen = slo or turns.slo or Slo()
    return chosen.tpot, chosen.ttft


def _decode_tokens(turns: TurnClass) -> float:
    """Mean length of a sequence while it decodes."""
    return turns.context_tokens + turns.append_tokens + turns.output_tokens / 2


def _expert_share(model: Model) -> float:
    a = model.architecture
    return a.experts_per_token / a.routed_experts if a.routed_experts else 0.0


def _side(
    name: str,
    hardware: Hardware,
    model: Model,
    weights: Weights,
    layout: CacheLayout,
    turns: list[TurnClass],
    slo: Slo | None,
    counting: Counting,
    infinite: frozenset[str],
) -> Side:
    full = counting == "full"
    share, free, gpu = hardware.efficiency, hardware.headroom, hardware.gpu
    chip = {"bf16": gpu.bf16_flop_per_s, "fp8": gpu.fp8_flop_per_s, "fp4": gpu.fp4_flop_per_s}
    wanted = {
        "gemm": model.compute_dtype,
        "attention": model.attention_dtype,
        "index": "fp8" if model.effective_index_dtype == "fp8" else "bf16",
    }
    found = {kernel: flop_rate(chip, precision) for kernel, precision in wanted.items()}
    used = {"gemm", "attention"} | ({"index"} if layout.index_bytes_per_token else set())
    precisions = tuple(
        (kernel, wanted[kernel], found[kernel][1])
        for kernel in ("gemm", "attention", "index")
        if kernel in used and wanted[kernel] != found[kernel][1]
    )
    efficiency = {"gemm": share.gemm, "attention": share.attention, "index": share.attention}
    rate = {k: effective(found[k][0], efficiency[k] if full else 1.0) for k in found}
    if f"{name}.gpu" in infinite:
        rate = dict.fromkeys(rate, math.inf)
    no_gpu_limit = f"{name}.gpu" in infinite
    hbm = effective(gpu.hbm_bytes, 1.0, free.hbm if full else 0.0)
    rates = GpuRates(
        gemm_flop_per_s=rate["gemm"],
        attention_flop_per_s=rate["attention"],
        index_flop_per_s=rate["index"],
        hbm_bytes_per_s=math.inf if no_gpu_limit else effective(gpu.hbm_bytes_per_s, share.hbm if full else 1.0),
        hbm_bytes=math.inf if f"{name}.hbm" in infinite else hbm,
    )
    longest = max(turns, key=_decode_tokens)
    held = [float(sequence_bytes(layout, _decode_tokens(t))) for t in turns]
    # Layerwise prefill holds one layer of a sequence at a time; decode holds all of it.
    least = max(held) / (model.architecture.layers if name == "prefill" else 1)
    sizes = getattr(hardware.parallelism, name)
    engine = choose_engine(
        name,
        model.architecture,
        weights,
        rates,
        gpus_per_node=hardware.gpus,
        parallelism={"tp": sizes.tp, "dp": sizes.dp, "ep": sizes.ep},
        least_cache_bytes=least,
        rank_by_decode=_decode_demand(longest, model, layout) if name == "decode" else None,
        tpot_s=_tpot_s(longest, slo)[0],
        expert_share_per_token=_expert_share(model),
    )
    node = node_capacity(
        storage_nics=hardware.storage_nic.count,
        storage_nic_bytes_per_s=hardware.storage_nic.bytes_per_s,
        compute_nics=hardware.compute_nic.count,
        compute_nic_bytes_per_s=hardware.compute_nic.bytes_per_s,
        dram_bytes_per_s=hardware.dram.bytes_per_s,
        kv_buffer_bytes=hardware.dram.kv_buffer_bytes,
        efficiency=share.model_dump() if full else None,
        headroom=free.model_dump() if full else None,
    )
    lifted = {r: math.inf for r in vars(node) if f"{name}.{r}" in infinite}
    node = NodeCapacity(**(vars(node) | lifted))
    return Side(hardware, engine, rates, node, precisions)


def _decode_demand(turns: TurnClass, model: Model, layout: CacheLayout) -> DecodeDemand:
    return decode_demand(
        model.architecture,
        layout,
        _decode_tokens(turns),
        model.kv_element_bytes,
        model.index_element_bytes,
        model.state_element_bytes,
    )


def _class_demand(
    turns: TurnClass,
    weight_fraction: float,
    model: Model,
    layout: CacheLayout,
    weights: Weights,
    prefill: Side,
    decode: Side,
    slo: Slo | None,
    counting: Counting,
    infinite: frozenset[str],
) -> ClassDemand:
    architecture = model.architecture
    growing_only = counting == "paper"

    def cached(tokens: float) -> float:
        return float(sequence_bytes(layout, tokens, growing_only=growing_only))

    flop = prefill_flop(
        architecture,
        turns.context_tokens,
        turns.append_tokens,
        counting=counting,
        active_parameters=model.active_parameters,
    )
    prefill_gpu_s = _gpu_seconds(flop, prefill.rates)
    tpot_s, ttft_s = _tpot_s(turns, slo)
    rate = decode_rate(
        decode.engine,
        decode.rates,
        weights,
        _decode_demand(turns, model, layout),
        expert_share_per_token=_expert_share(model),
        tpot_s=tpot_s,
    )
    if rate.batch < 1 and turns.output_tokens > 0 and "decode.gpu" not in infinite:
        _refuse_batch(turns.name, rate, tpot_s)
    hit = cached(turns.context_tokens)
    persisted = persisted_tokens(turns.append_tokens, turns.output_tokens, turns.turns_per_session)
    collectives = [
        tokens
        * collective_bytes_per_token(
            architecture,
            expert_domains=side.engine.domains(side.engine.ep, _domain(side.hardware)),
            tensor_domains=side.engine.domains(side.engine.tp, _domain(side.hardware)),
            dispatch_element_bytes=1.0 if model.compute_dtype in ("fp8", "fp4") else 2.0,
        )
        for tokens, side in ((turns.append_tokens, prefill), (turns.output_tokens, decode))
    ]
    busy = "decode.gpu" not in infinite and turns.output_tokens > 0
    return ClassDemand(
        name=turns.name,
        weight_fraction=weight_fraction,
        turns_per_session=turns.turns_per_session,
        context_tokens=turns.context_tokens,
        append_tokens=turns.append_tokens,
        output_tokens=turns.output_tokens,
        session_tokens=turns.session_tokens,
        tpot_s=tpot_s,
        ttft_s=ttft_s,
        hit_kv_bytes=hit,
        fresh_kv_bytes=cached(turns.append_tokens),
        generated_kv_bytes=cached(turns.output_tokens),
        write_back_bytes=cached(float(persisted)),
        gemm_flop=float(flop.gemm),
        attention_flop=float(flop.attention),
        index_flop=float(flop.index),
        prefill_gpu_s=prefill_gpu_s,
        decode_gpu_s=turns.output_tokens * decode.engine.gpus / rate.tokens_per_s if busy else 0.0,
        prefill_collective_bytes=collectives[0],
        decode_collective_bytes=collectives[1],
        read_s=(hit / prefill.node.storage_nic_read, hit / decode.node.storage_nic_read),
        prefill_s=prefill_gpu_s / prefill.engine.gpus,
        decode=rate,
    )


def _domain(hardware: Hardware) -> int:
    return hardware.gpu.nvlink_domain_gpus or hardware.gpus


def _refuse_batch(name: str, rate: DecodeRate, tpot_s: float) -> None:
    if rate.batch_by_tpot < 1:
        raise Infeasible(
            f"decode of {name} cannot meet TPOT {tpot_s * 1e3:g} ms: a lone sequence's step takes "
            f"{rate.unloaded_step_s * 1e3:.3g} ms on this engine",
            ["decode.gpu", "slo.tpot"],
        )
    raise Infeasible(
        f"HBM left after weights holds {rate.batch_by_hbm:.2g} sequences of {name}: not one fits",
        ["decode.hbm"],
    )


def _amounts(
    c: ClassDemand, prefill: Side, decode: Side, layers: int, counting: Counting, *, io: bool
) -> Array:
    """Units of every flow per turn, (routes, flows); without I/O nothing waits for reads."""
    full = counting == "full"
    held = c.hit_kv_bytes + c.fresh_kv_bytes
    shared = {
        "fresh_handoff": c.fresh_kv_bytes if full else 0.0,
        "generated_offload": c.generated_kv_bytes if full else 0.0,
        "write_back": c.write_back_bytes if full else 0.0,
        "prefill_collective": c.prefill_collective_bytes if full else 0.0,
        "decode_collective": c.decode_collective_bytes if full else 0.0,
        "prefill_gpu_time": c.prefill_gpu_s,
        "decode_gpu_time": c.decode_gpu_s,
        "decode_hbm_held": _decode_held(c, decode),
    }
    amounts = np.zeros((len(ROUTES), len(FLOWS)))
    for number, route in enumerate(ROUTES):
        # Layerwise: reading and computing overlap, so KV in flight is held for the longer of both.
        in_flight_s = max(c.read_s[number] if io else 0.0, c.prefill_s)
        own = shared | {
            route: c.hit_kv_bytes if io else 0.0,
            "prefill_hbm_held": held / layers * in_flight_s,
            "prefill_buffer_held": c.hit_kv_bytes * in_flight_s if route == "prefill_read" else 0.0,
            "decode_buffer_held": held * in_flight_s,
        }
        for flow, amount in own.items():
            amounts[number, FLOWS.index(flow)] = amount
    return amounts


def _decode_held(c: ClassDemand, decode: Side) -> float:
    """Byte-seconds of decode HBM a turn takes at the unloaded step time."""
    d = c.decode
    if math.isinf(d.batch_by_hbm) or c.output_tokens == 0:
        return 0.0
    room = decode.engine.hbm_left_bytes_per_gpu * decode.engine.gpus
    return room / d.batch_by_hbm * c.output_tokens * d.unloaded_step_s


def _node_vector(name: str, side: Side, counting: Counting, infinite: frozenset[str]) -> Array:
    """Capacity one node adds to its own side's rows; the other rows get nothing."""
    gpus = side.hardware.gpus
    free = side.hardware.headroom.gpu if counting == "full" else 0.0
    own = dict(vars(side.node)) | {
        "gpu": effective(float(gpus), 1.0, free),
        "hbm": side.engine.hbm_left_bytes_per_gpu * gpus,
    }
    vector = np.zeros(len(RESOURCES))
    for resource, value in own.items():
        full_name = f"{name}.{resource}"
        vector[resource_index(full_name)] = math.inf if full_name in infinite else value
    return vector


def _cluster_vector(inputs: Inputs, counting: Counting, infinite: frozenset[str]) -> Array:
    """Aggregate limits of the storage backend: the tighter one where two node types name one."""
    vector = np.zeros(len(RESOURCES))
    for direction in ("read", "write"):
        limits = []
        for hardware in (inputs.prefill_hardware, inputs.decode_hardware):
            peak = getattr(hardware.storage_backend, f"{direction}_bytes_per_s")
            free = hardware.headroom.storage_backend if counting == "full" else 0.0
            limits.append(math.inf if peak is None else effective(peak, 1.0, free))
        name = f"storage_backend_{direction}"
        vector[resource_index(name)] = math.inf if name in infinite else min(limits)
    return vector
