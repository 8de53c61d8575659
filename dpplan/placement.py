"""Engine groups: how the model is laid over GPUs, and what memory and time that leaves.

Model and hardware meet here for the first time. An engine holds the weights once (experts over EP
ranks, the rest over TP ranks, copied for every DP rank); it spans as many nodes as that needs, and
node counts come in multiples of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dpplan.demand.decode import DecodeDemand, largest_batch, step_time_s
from dpplan.errors import Infeasible
from dpplan.profiles.architecture import Architecture
from dpplan.units import format_quantity

__all__ = ["DecodeRate", "Engine", "GpuRates", "Weights", "choose_engine", "decode_rate"]

MAX_ENGINE_NODES = 64


@dataclass(frozen=True)
class GpuRates:
    """Usable rates of one GPU at the precisions the model runs in."""

    gemm_flop_per_s: float
    attention_flop_per_s: float
    index_flop_per_s: float
    hbm_bytes_per_s: float
    hbm_bytes: float


@dataclass(frozen=True)
class Weights:
    """Bytes of the weights by how they are split."""

    shared_bytes: float
    """Split over TP, copied per DP rank."""
    expert_bytes: float
    """Routed experts, split over EP."""

    @property
    def total_bytes(self) -> float:
        """One copy of the model."""
        return self.shared_bytes + self.expert_bytes


@dataclass(frozen=True)
class Engine:
    """One engine group and what it leaves free."""

    gpus: int
    nodes: int
    """Whole nodes it spans; 1 also where several engines share a node."""
    tp: int
    dp: int
    ep: int
    weight_bytes_per_gpu: float
    hbm_left_bytes_per_gpu: float
    """For KV cache; inf where HBM is unlimited."""
    kv_copies: float
    """Copies of a sequence's KV that TP ranks hold (MLA: every rank all of it)."""

    def engines_per_node(self, gpus_per_node: int) -> float:
        """Engines per node, below one where an engine spans several."""
        return gpus_per_node / self.gpus

    def domains(self, ranks: int, domain_gpus: int) -> int:
        """NVLink domains that a group of consecutive ranks spans."""
        return math.ceil(ranks / domain_gpus)


@dataclass(frozen=True)
class DecodeRate:
    """Decode at the largest batch that memory and TPOT allow."""

    batch: float
    """Sequences per engine; inf where nothing limits it."""
    batch_by_hbm: float
    batch_by_tpot: float
    step_s: float
    """Step time at that batch."""
    unloaded_step_s: float
    """Step time of a lone sequence: the least any token takes."""
    tokens_per_s: float
    """Tokens per second and engine."""


def engine_layout(
    gpus: int,
    tp: int,
    ep: int,
    *,
    kv_heads: int,
    weights: Weights,
    hbm_bytes: float,
    gpus_per_node: int,
) -> Engine:
    """Memory of one layout: weights per GPU, what is left, copies of KV."""
    dp = gpus // tp
    held = weights.shared_bytes / tp + weights.expert_bytes / max(ep, tp)
    return Engine(
        gpus=gpus,
        nodes=max(1, math.ceil(gpus / gpus_per_node)),
        tp=tp,
        dp=dp,
        ep=ep,
        weight_bytes_per_gpu=held,
        hbm_left_bytes_per_gpu=hbm_bytes - held,
        kv_copies=tp / min(tp, kv_heads),
    )


def _decode_terms(
    engine: Engine, rates: GpuRates, weights: Weights, demand: DecodeDemand, expert_share: float
) -> dict[str, float]:
    bandwidth = rates.hbm_bytes_per_s
    compute = (
        demand.gemm_flop / rates.gemm_flop_per_s
        + demand.attention_flop / rates.attention_flop_per_s
        + demand.index_flop / rates.index_flop_per_s
    )
    return {
        "shared_weight_s": weights.shared_bytes / engine.tp / bandwidth,
        "expert_weight_s": weights.expert_bytes / max(engine.ep, engine.tp) / bandwidth,
        "expert_share_per_token": expert_share,
        "cache_s_per_sequence": demand.read_bytes * engine.kv_copies / engine.gpus / bandwidth,
        "compute_s_per_sequence": compute / engine.gpus,
    }


def decode_rate(
    engine: Engine,
    rates: GpuRates,
    weights: Weights,
    demand: DecodeDemand,
    *,
    expert_share_per_token: float,
    tpot_s: float,
) -> DecodeRate:
    """Tokens per second of one engine at its largest batch (D6, C).

    The step time per sequence falls with the batch, so the largest batch is the fastest; memory
    allows hbm_left * gpus / (resident * copies) sequences, TPOT the root of the step time.
    """
    terms = _decode_terms(engine, rates, weights, demand, expert_share_per_token)
    room = engine.hbm_left_bytes_per_gpu * engine.gpus
    held = demand.resident_bytes * engine.kv_copies
    by_hbm = math.inf if held == 0 or math.isinf(room) else max(0.0, room / held)
    by_tpot = largest_batch(tpot_s, **terms)
    batch = min(by_hbm, by_tpot)
    alone = float(step_time_s(1.0, **terms))
    if math.isinf(batch):
        slope = max(terms["cache_s_per_sequence"], terms["compute_s_per_sequence"])
        step, tokens = math.inf, (1.0 / slope if slope else math.inf)
    else:
        step = float(step_time_s(batch, **terms))
        tokens = batch / step if step else (math.inf if batch else 0.0)
    return DecodeRate(batch, by_hbm, by_tpot, step, alone, tokens)


def _layouts(
    wanted: Mapping[str, int | None],
    nodes: int,
    gpus_per_node: int,
    *,
    moe: bool,
) -> Iterator[tuple[int, int, int]]:
    """(gpus, tp, ep) of the engines that span exactly `nodes` nodes and match what is given."""
    tp, dp, ep = wanted.get("tp"), wanted.get("dp"), wanted.get("ep")
    if nodes == 1:
        sizes = [n for n in range(1, gpus_per_node + 1) if gpus_per_node % n == 0]
    else:
        sizes = [nodes * gpus_per_node]
    for gpus in sizes:
        for width in range(1, gpus + 1):
            if gpus % width or (tp is not None and width != tp):
                continue
            if dp is not None and gpus // width != dp:
                continue
            experts = (ep if ep is not None else gpus) if moe else 1
            if experts > gpus or gpus % experts:
                continue
            if ep is not None and tp is None and dp is None and experts != gpus:
                continue  # EP alone names the engine's size
            yield gpus, width, experts


def choose_engine(
    side: str,
    architecture: Architecture,
    weights: Weights,
    rates: GpuRates,
    *,
    gpus_per_node: int,
    parallelism: Mapping[str, int | None],
    least_cache_bytes: float,
    rank_by_decode: DecodeDemand | None = None,
    tpot_s: float = math.inf,
    expert_share_per_token: float = 0.0,
) -> Engine:
    """The smallest engine that holds the weights and one sequence's cache.

    Of several layouts on as few nodes, prefill takes the one with least TP (no collective, most
    memory for the same experts), decode the one with most tokens per second and GPU; sizes given
    in the profile are taken as they are.

    Parameters
    ----------
    side : str
        "prefill" or "decode", for messages.
    architecture, weights, rates
        Model and GPU; `rates.hbm_bytes` is inf where HBM is unlimited.
    gpus_per_node : int
    parallelism : mapping
        tp, dp, ep given by the hardware profile, None where free.
    least_cache_bytes : float
        Cache of one sequence that must fit beside the weights [bytes].
    rank_by_decode : DecodeDemand, optional
        Decode side: what a sequence costs, to rank layouts.

    Returns
    -------
    Engine

    Raises
    ------
    Infeasible
        With the missing bytes, if no engine of up to 64 nodes (or of the sizes given) holds them.
    """
    kv_heads = min(
        (
            g.kv_heads
            for g in architecture.layer_groups
            if g.kv_elements_per_entry or g.window_tokens
        ),
        default=1,
    )
    moe = architecture.moe_layers > 0
    closest: Engine | None = None
    for nodes in range(1, MAX_ENGINE_NODES + 1):
        fitting: list[Engine] = []
        for gpus, tp, ep in _layouts(parallelism, nodes, gpus_per_node, moe=moe):
            engine = engine_layout(
                gpus,
                tp,
                ep,
                kv_heads=kv_heads,
                weights=weights,
                hbm_bytes=rates.hbm_bytes,
                gpus_per_node=gpus_per_node,
            )
            room = engine.hbm_left_bytes_per_gpu * engine.gpus / engine.kv_copies
            if engine.hbm_left_bytes_per_gpu > 0 and room >= least_cache_bytes:
                fitting.append(engine)
            elif closest is None or engine.hbm_left_bytes_per_gpu > closest.hbm_left_bytes_per_gpu:
                closest = engine
        if fitting and rank_by_decode is None:
            return min(fitting, key=lambda e: (-e.gpus, e.tp))
        if fitting and rank_by_decode is not None:
            ranked = []
            for number, engine in enumerate(fitting):
                rate = decode_rate(
                    engine,
                    rates,
                    weights,
                    rank_by_decode,
                    expert_share_per_token=expert_share_per_token,
                    tpot_s=tpot_s,
                )
                per_gpu = rate.tokens_per_s / engine.gpus if rate.batch >= 1 else 0.0
                # Rounded, so that equal layouts tie and the plainer one wins.
                ranked.append((float(f"{per_gpu:.9g}"), -engine.tp, engine.gpus, number))
            return fitting[max(ranked)[-1]]
    given = {name: size for name, size in parallelism.items() if size is not None}
    raise Infeasible(
        _too_small(side, weights, rates, least_cache_bytes, closest, given), [f"{side}.hbm"]
    )


def _too_small(
    side: str,
    weights: Weights,
    rates: GpuRates,
    cache: float,
    closest: Engine | None,
    given: Mapping[str, int],
) -> str:
    sizes = ", ".join(f"{name.upper()} {size}" for name, size in given.items())
    if closest is None:
        return (
            f"no {side} engine has the sizes asked for ({sizes}): tp*dp must be a whole number of "
            "nodes or divide one, and ep divide tp*dp"
        )
    missing = -closest.hbm_left_bytes_per_gpu + cache * closest.kv_copies / closest.gpus
    return (
        f"the {side} engine cannot hold the model{f' with {sizes}' if sizes else ''}: "
        f"{format_quantity(closest.weight_bytes_per_gpu, 'bytes')} of weights and "
        f"{format_quantity(cache * closest.kv_copies / closest.gpus, 'bytes')} of KV cache a GPU "
        f"against {format_quantity(rates.hbm_bytes, 'bytes')} usable, "
        f"{format_quantity(missing * closest.gpus, 'bytes')} missing on {closest.gpus} GPUs"
    )
