"""One turn of a class: what it asks of this deployment, in bytes, FLOP, GPU-seconds and seconds."""

from __future__ import annotations

from dataclasses import dataclass

from dpplan.demand import (
    CacheLayout,
    Counting,
    PrefillFlop,
    collective_bytes_per_token,
    nvlink_bytes_per_token,
    persisted_tokens,
    prefill_flop,
    sequence_bytes,
)
from dpplan.deployment.layouts import DecodeRate, Engine, GpuRates, Weights, decode_rate
from dpplan.deployment.pools import (
    Side,
    decode_demand_of,
    expert_share_per_token,
    latency_limits_s,
    nvlink_domain_gpus,
)
from dpplan.errors import Infeasible
from dpplan.profiles.hardware import Hardware
from dpplan.profiles.model import Model
from dpplan.profiles.workload import Slo, TurnClass

__all__ = [
    "ClassDemand",
    "class_demand",
    "collective_bytes",
    "decode_rate_of",
    "gpu_seconds",
    "nvlink_bytes",
    "prefill_flop_of",
    "prefill_gpu_seconds",
]


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
    tool_gap_s: float | None
    dram_hit_fraction: float
    """Share of the hit KV that a DRAM pool on the prefill node holds."""
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
    """Unloaded time to read hit KV from storage through one node's NICs: prefill, decode side."""
    prefill_s: float
    """Unloaded prefill time on one engine."""
    decode: DecodeRate

    @property
    def pool_kv_bytes(self) -> float:
        """Hit KV of a turn that is found in DRAM [bytes]."""
        return self.hit_kv_bytes * self.dram_hit_fraction

    @property
    def storage_kv_bytes(self) -> float:
        """Hit KV of a turn that is read from storage [bytes]."""
        return self.hit_kv_bytes * (1.0 - self.dram_hit_fraction)

    @property
    def prefill_flop(self) -> float:
        """All prefill FLOP of the turn."""
        return self.gemm_flop + self.attention_flop + self.index_flop


def gpu_seconds(flop: PrefillFlop, rates: GpuRates) -> float:
    """GPU-seconds of a prefill: FLOP of each kernel over its usable rate (D2, C)."""
    return float(
        flop.gemm / rates.gemm_flop_per_s
        + flop.attention / rates.attention_flop_per_s
        + flop.index / rates.index_flop_per_s
    )


def prefill_flop_of(turns: TurnClass, model: Model, counting: Counting) -> PrefillFlop:
    """FLOP of a class's mean prefill (D2)."""
    return prefill_flop(
        model.architecture,
        turns.context_tokens,
        turns.append_tokens,
        counting=counting,
        active_parameters=model.active_parameters,
    )


def prefill_gpu_seconds(
    kernel_s: float,
    append_tokens: float,
    model: Model,
    engine: Engine,
    hardware: Hardware,
    rates: GpuRates,
) -> float:
    """GPU-seconds of a prefill: its kernels' (`gpu_seconds`), or its collectives' on NVLink."""
    sent = append_tokens * nvlink_bytes(engine, hardware, model)
    return max(kernel_s, sent / rates.nvlink_bytes_per_s)


def _dispatch_element_bytes(model: Model) -> float:
    return 1.0 if model.compute_dtype in ("fp8", "fp4") else 2.0


def nvlink_bytes(engine: Engine, hardware: Hardware, model: Model) -> float:
    """Bytes that one computed token puts on the NVLinks of its engine (D7)."""
    return nvlink_bytes_per_token(
        model.architecture,
        tp=engine.tp,
        ep=engine.ep,
        domain_gpus=nvlink_domain_gpus(hardware),
        dispatch_element_bytes=_dispatch_element_bytes(model),
    )


def collective_bytes(engine: Engine, hardware: Hardware, model: Model) -> float:
    """Bytes that one computed token puts on the compute NICs of its engine (D7)."""
    domain = nvlink_domain_gpus(hardware)
    return collective_bytes_per_token(
        model.architecture,
        expert_domains=engine.domains(engine.ep, domain),
        tensor_domains=engine.domains(engine.tp, domain),
        dispatch_element_bytes=_dispatch_element_bytes(model),
    )


def decode_rate_of(
    turns: TurnClass,
    model: Model,
    layout: CacheLayout,
    weights: Weights,
    engine: Engine,
    hardware: Hardware,
    rates: GpuRates,
    slo: Slo | None,
) -> DecodeRate:
    """Decode of a class alone on an engine, at its largest batch (D6).

    A mix decodes as time shares of such batches: feasible, as engines can be dedicated to classes.
    """
    return decode_rate(
        engine,
        rates,
        weights,
        decode_demand_of(turns, model, layout),
        expert_share_per_token=expert_share_per_token(model),
        tpot_s=latency_limits_s(turns, slo)[0],
        nvlink_bytes_per_token=nvlink_bytes(engine, hardware, model),
    )


def class_demand(
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
    """Amounts of one turn on this deployment (D1-D7).

    Raises
    ------
    Infeasible
        If not one sequence fits in decode HBM, or a lone one misses its TPOT limit.
    """
    growing_only = counting == "paper"

    def cached(tokens: float) -> float:
        return float(sequence_bytes(layout, tokens, growing_only=growing_only))

    flop = prefill_flop_of(turns, model, counting)
    prefill_gpu_s = prefill_gpu_seconds(
        gpu_seconds(flop, prefill.rates),
        turns.append_tokens,
        model,
        prefill.engine,
        prefill.hardware,
        prefill.rates,
    )
    tpot_s, ttft_s = latency_limits_s(turns, slo)
    rate = decode_rate_of(
        turns, model, layout, weights, decode.engine, decode.hardware, decode.rates, slo
    )
    if rate.batch < 1 and turns.output_tokens > 0 and "decode.gpu" not in infinite:
        _refuse_batch(turns.name, rate, tpot_s)
    hit = cached(turns.context_tokens)
    read = hit * (1.0 - turns.dram_hit_fraction)
    persisted = persisted_tokens(turns.append_tokens, turns.output_tokens, turns.turns_per_session)
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
        tool_gap_s=turns.tool_gap_s,
        dram_hit_fraction=turns.dram_hit_fraction,
        hit_kv_bytes=hit,
        # What the prompt adds to the cache: a state or a full window is replaced, and its hand-off
        # counted with the hit it replaces.
        fresh_kv_bytes=cached(turns.context_tokens + turns.append_tokens) - hit,
        generated_kv_bytes=cached(turns.output_tokens),
        write_back_bytes=cached(float(persisted)),
        gemm_flop=float(flop.gemm),
        attention_flop=float(flop.attention),
        index_flop=float(flop.index),
        prefill_gpu_s=prefill_gpu_s,
        decode_gpu_s=turns.output_tokens * decode.engine.gpus / rate.tokens_per_s if busy else 0.0,
        prefill_collective_bytes=turns.append_tokens
        * collective_bytes(prefill.engine, prefill.hardware, model),
        decode_collective_bytes=turns.output_tokens
        * collective_bytes(decode.engine, decode.hardware, model),
        read_s=(read / prefill.node.storage_nic_read, read / decode.node.storage_nic_read),
        prefill_s=prefill_gpu_s / prefill.engine.gpus,
        decode=rate,
    )


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
