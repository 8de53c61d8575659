"""One side of the cluster: its node type running the model, and the rates that leaves."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dpplan.capacity import NodeCapacity, effective, flop_rate, node_capacity
from dpplan.demand import CacheLayout, Counting, DecodeDemand, decode_demand, sequence_bytes
from dpplan.placement import Engine, GpuRates, Weights, choose_engine
from dpplan.profiles.hardware import Hardware
from dpplan.profiles.model import Model
from dpplan.profiles.workload import Slo, TurnClass

__all__ = [
    "Side",
    "build_side",
    "decode_demand_of",
    "expert_share_per_token",
    "latency_limits_s",
    "nvlink_domain_gpus",
    "weights_of",
]


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


def weights_of(model: Model) -> Weights:
    """Bytes of one copy of the weights, by how they are split."""
    counts = model.architecture.parameters
    body, table = model.weight_element_bytes, max(2.0, model.weight_element_bytes)
    # Embedding table and LM head stay in 16 bit in quantised checkpoints.
    shared = counts.body * body + (counts.input_embedding + counts.output_head) * table
    return Weights(shared, counts.routed_experts * model.expert_element_bytes)


def latency_limits_s(turns: TurnClass, slo: Slo | None) -> tuple[float, float]:
    """TPOT and TTFT limits of a class: the mix's, else its own, else 50 ms and 4 s."""
    chosen = slo or turns.slo or Slo()
    return chosen.tpot, chosen.ttft


def _decode_tokens(turns: TurnClass) -> float:
    """Mean length of a sequence while it decodes."""
    return turns.context_tokens + turns.append_tokens + turns.output_tokens / 2


def expert_share_per_token(model: Model) -> float:
    """k/E, chance that a token chooses a given expert; 0 for dense models."""
    a = model.architecture
    return a.experts_per_token / a.routed_experts if a.routed_experts else 0.0


def decode_demand_of(turns: TurnClass, model: Model, layout: CacheLayout) -> DecodeDemand:
    """What one sequence of a class costs per decode step, at its mean length."""
    return decode_demand(
        model.architecture,
        layout,
        _decode_tokens(turns),
        model.kv_element_bytes,
        model.index_element_bytes,
        model.state_element_bytes,
    )


def nvlink_domain_gpus(hardware: Hardware) -> int:
    """GPUs that reach each other without a compute NIC."""
    return hardware.gpu.nvlink_domain_gpus or hardware.gpus


def build_side(
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
    """Choose the side's engine and work out its usable rates (C).

    Raises
    ------
    Infeasible
        If no engine holds the model; names the missing bytes.
    """
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
        hbm_bytes_per_s=math.inf
        if no_gpu_limit
        else effective(gpu.hbm_bytes_per_s, share.hbm if full else 1.0),
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
        rank_by_decode=decode_demand_of(longest, model, layout) if name == "decode" else None,
        tpot_s=latency_limits_s(longest, slo)[0],
        expert_share_per_token=expert_share_per_token(model),
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
