"""One side of the cluster: its node type running the model, and the rates that leaves."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dpplan.demand import CacheLayout, Counting, DecodeDemand, decode_demand
from dpplan.deployment.capacity import NodeCapacity, effective, flop_rate, node_capacity
from dpplan.deployment.layouts import Engine, GpuRates, Weights
from dpplan.profiles.hardware import Hardware
from dpplan.profiles.model import Model
from dpplan.profiles.workload import Slo, TurnClass

__all__ = [
    "Side",
    "decode_demand_of",
    "decode_tokens",
    "expert_share_per_token",
    "kernel_rates",
    "latency_limits_s",
    "nvlink_domain_gpus",
    "side_rates",
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
    # A tied table is read as the head; an untied one is looked up and never read whole.
    looked_up = 0.0 if counts.tied_embeddings else counts.input_embedding * table
    return Weights(
        shared_bytes=counts.body * body + counts.head_flop_parameters * table,
        expert_bytes=counts.routed_experts * model.expert_element_bytes,
        lookup_bytes=looked_up,
    )


def latency_limits_s(turns: TurnClass, slo: Slo | None) -> tuple[float, float]:
    """TPOT and TTFT limits of a class: the mix's, else its own, else 50 ms and 4 s."""
    chosen = slo or turns.slo or Slo()
    return chosen.tpot, chosen.ttft


def decode_tokens(turns: TurnClass) -> float:
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
        decode_tokens(turns),
        model.kv_element_bytes,
        model.index_element_bytes,
        model.state_element_bytes,
    )


def nvlink_domain_gpus(hardware: Hardware) -> int:
    """GPUs that reach each other without a compute NIC."""
    return hardware.gpu.nvlink_domain_gpus or hardware.gpus


def kernel_rates(
    hardware: Hardware, model: Model, layout: CacheLayout, counting: Counting
) -> tuple[dict[str, float], tuple[tuple[str, str, str], ...]]:
    """FLOP/s of GEMM, attention and indexer kernels, and where a wider precision stands in (C).

    The indexer's scores are matrix products of its own precision: they run at the GEMM share.
    """
    gpu, share = hardware.gpu, hardware.efficiency
    chip = {"bf16": gpu.bf16_flop_per_s, "fp8": gpu.fp8_flop_per_s, "fp4": gpu.fp4_flop_per_s}
    wanted = {"gemm": model.compute_dtype, "attention": model.attention_dtype}
    if layout.index_bytes_per_token:
        # Narrower keys are multiplied in FP8, the narrowest that indexer kernels run in.
        wanted["index"] = "fp8" if model.index_element_bytes <= 1 else "bf16"
    found = {kernel: flop_rate(chip, precision) for kernel, precision in wanted.items()}
    narrower = tuple((k, wanted[k], found[k][1]) for k in wanted if wanted[k] != found[k][1])
    efficiency = {"gemm": share.gemm, "attention": share.attention, "index": share.gemm}
    rates = {k: effective(found[k][0], efficiency[k] if counting == "full" else 1.0) for k in found}
    rates.setdefault("index", rates["gemm"])
    return rates, narrower


def side_rates(
    name: str,
    hardware: Hardware,
    model: Model,
    layout: CacheLayout,
    counting: Counting,
    infinite: frozenset[str],
) -> tuple[GpuRates, NodeCapacity, tuple[tuple[str, str, str], ...]]:
    """Usable rates of one GPU and one node of a side (C); inf for what is unlimited."""
    full = counting == "full"
    share, free, gpu = hardware.efficiency, hardware.headroom, hardware.gpu
    kernels, precisions = kernel_rates(hardware, model, layout, counting)
    bandwidth = effective(gpu.hbm_bytes_per_s, share.hbm if full else 1.0)
    if f"{name}.gpu" in infinite:
        kernels, bandwidth = dict.fromkeys(kernels, math.inf), math.inf
    memory = effective(gpu.hbm_bytes, 1.0, free.hbm if full else 0.0)
    rates = GpuRates(
        gemm_flop_per_s=kernels["gemm"],
        attention_flop_per_s=kernels["attention"],
        index_flop_per_s=kernels["index"],
        hbm_bytes_per_s=bandwidth,
        hbm_bytes=math.inf if f"{name}.hbm" in infinite else memory,
        nvlink_bytes_per_s=gpu.nvlink_bytes_per_s
        if full and f"{name}.gpu" not in infinite
        else math.inf,
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
    return rates, NodeCapacity(**(vars(node) | lifted)), precisions
