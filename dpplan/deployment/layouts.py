"""Engine groups: how the model is laid over GPUs, and what memory and time that leaves.

Model and hardware meet here for the first time. An engine holds the weights once (experts over EP
ranks, the rest over TP ranks, copied for every DP rank). The smallest engine that holds them sets
the unit in which nodes are counted; a given number of nodes runs the fastest that divides it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from dpplan.demand.decode import DecodeDemand, largest_batch, step_time_s
from dpplan.errors import Infeasible
from dpplan.profiles.architecture import Architecture
from dpplan.units import format_quantity

__all__ = ["DecodeRate", "Engine", "EngineMenu", "GpuRates", "Weights", "decode_rate"]

MAX_ENGINE_NODES = 64

_IDLING = {"prefill": 0, "decode": 2}
"""Engine sizes that leave nodes idle among a side's candidates: prefill speed hardly depends on the
size, decode speed does."""


@dataclass(frozen=True)
class GpuRates:
    """Usable rates of one GPU at the precisions the model runs in."""

    gemm_flop_per_s: float
    attention_flop_per_s: float
    index_flop_per_s: float
    hbm_bytes_per_s: float
    hbm_bytes: float
    nvlink_bytes_per_s: float = math.inf
    """One direction; inf where collectives are not counted."""


@dataclass(frozen=True)
class Weights:
    """Bytes of the weights by how they are split."""

    shared_bytes: float
    """Read at every step; split over TP, copied per DP rank."""
    expert_bytes: float
    """Routed experts, split over EP."""
    lookup_bytes: float = 0.0
    """Embedding table: held like the shared weights, but only looked up."""

    @property
    def total_bytes(self) -> float:
        """One copy of the model."""
        return self.shared_bytes + self.lookup_bytes + self.expert_bytes


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
    compute_bound: bool
    """The step waits for arithmetic (or NVLink), not for HBM: a larger batch brings nothing."""


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
    shared = weights.shared_bytes + weights.lookup_bytes
    held = shared / tp + weights.expert_bytes / max(ep, tp)
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
    engine: Engine,
    rates: GpuRates,
    weights: Weights,
    demand: DecodeDemand,
    expert_share: float,
    nvlink_bytes_per_token: float,
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
        # Collectives on NVLink overlap the kernels of another half of the batch at best.
        "compute_s_per_sequence": max(compute, nvlink_bytes_per_token / rates.nvlink_bytes_per_s)
        / engine.gpus,
    }


def decode_rate(
    engine: Engine,
    rates: GpuRates,
    weights: Weights,
    demand: DecodeDemand,
    *,
    expert_share_per_token: float,
    tpot_s: float,
    nvlink_bytes_per_token: float = 0.0,
) -> DecodeRate:
    """Tokens per second of one engine at its largest batch (D6, C).

    The step time per sequence falls with the batch, so the largest batch is the fastest; memory
    allows hbm_left * gpus / (resident * copies) sequences, TPOT the root of the step time.
    """
    terms = _decode_terms(
        engine, rates, weights, demand, expert_share_per_token, nvlink_bytes_per_token
    )
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
    finite = batch if math.isfinite(batch) else 1e15
    computing = finite * terms["compute_s_per_sequence"] >= float(step_time_s(finite, **terms))
    return DecodeRate(batch, by_hbm, by_tpot, step, alone, tokens, computing)


@dataclass(frozen=True)
class EngineMenu:
    """The engines that a side may run, by nodes, and which of them is fastest.

    All engines that divide a node count are candidates, so more memory or more nodes only add
    candidates: a side's speed never falls as anything grows.
    """

    side: str
    """"prefill" or "decode", for messages."""
    architecture: Architecture
    weights: Weights
    rates: GpuRates
    """`hbm_bytes` is inf where HBM is unlimited."""
    gpus_per_node: int
    domain_gpus: int
    """GPUs of an NVLink domain: tensor parallelism stays within, but for dense models."""
    parallelism: Mapping[str, int | None]
    """tp, dp, ep given by the hardware profile, None where free."""
    least_cache_bytes: float
    """Cache of one sequence that must fit beside the weights [bytes]."""
    speed: Callable[[Engine], float]
    """Turns/s per GPU that the side alone could sustain."""
    _best: dict[int, Engine | None] = field(default_factory=dict, compare=False, repr=False)

    def best_of_size(self, nodes: int) -> Engine | None:
        """Fastest engine of exactly `nodes` nodes (or of one node's share); None if none fits."""
        if nodes not in self._best:
            fitting = [engine for engine in self._engines(nodes) if self._fits(engine)]
            self._best[nodes] = max(fitting, key=self._rank, default=None)
        return self._best[nodes]

    def smallest(self) -> Engine:
        """The engine of fewest nodes that holds weights and one sequence.

        Raises
        ------
        Infeasible
            With the missing bytes, if none of up to 64 nodes (or of the sizes given) holds them.
        """
        for nodes in range(1, MAX_ENGINE_NODES + 1):
            engine = self.best_of_size(nodes)
            if engine is not None:
                return engine
        raise Infeasible(self._too_small(), [f"{self.side}.hbm"])

    def candidates(self, nodes: int) -> list[Engine]:
        """Engines that `nodes` nodes may run, fastest first; the smallest one if none fits.

        The best of every size that divides the nodes, and the few of the others that are fastest
        although nodes are left idle: one node more never leaves only slower engines.
        """
        sizes = range(1, min(nodes, MAX_ENGINE_NODES) + 1)
        found = [engine for n in sizes if (engine := self.best_of_size(n)) is not None]
        whole = [engine for engine in found if nodes % engine.nodes == 0]
        rest = [engine for engine in found if nodes % engine.nodes]
        rest.sort(key=lambda e: self.speed(e) * (nodes // e.nodes * e.nodes), reverse=True)
        return sorted(whole + rest[: _IDLING[self.side]], key=self._rank, reverse=True) or [
            self.smallest()
        ]

    def _rank(self, engine: Engine) -> tuple[float, int, int, int]:
        # Rounded, so that equal engines tie and the plainest of them wins.
        return (float(f"{self.speed(engine):.9g}"), -engine.nodes, -engine.tp, engine.gpus)

    def _fits(self, engine: Engine) -> bool:
        room = engine.hbm_left_bytes_per_gpu * engine.gpus / engine.kv_copies
        return engine.hbm_left_bytes_per_gpu > 0 and room >= self.least_cache_bytes

    def _engines(self, nodes: int) -> Iterator[Engine]:
        kv_heads = min(
            (
                group.kv_heads
                for group in self.architecture.layer_groups
                if group.kv_elements_per_entry or group.window_tokens
            ),
            default=1,
        )
        for gpus, tp, ep in self._layouts(nodes):
            yield engine_layout(
                gpus,
                tp,
                ep,
                kv_heads=kv_heads,
                weights=self.weights,
                hbm_bytes=self.rates.hbm_bytes,
                gpus_per_node=self.gpus_per_node,
            )

    def _layouts(self, nodes: int) -> Iterator[tuple[int, int, int]]:
        """(gpus, tp, ep) of the engines of `nodes` nodes that match what is given."""
        tp, dp, ep = (self.parallelism.get(name) for name in ("tp", "dp", "ep"))
        moe = self.architecture.moe_layers > 0
        heads = max(group.heads for group in self.architecture.layer_groups)
        shares = [n for n in range(1, self.gpus_per_node + 1) if self.gpus_per_node % n == 0]
        for gpus in shares if nodes == 1 else [nodes * self.gpus_per_node]:
            widest = self.domain_gpus if moe else gpus
            widths = [tp] if tp else list(range(1, min(gpus, widest, heads or 1) + 1))
            for width in widths:
                if gpus % width or (dp and gpus // width != dp):
                    continue
                if not moe and not dp and width != gpus:
                    continue  # replicas of a dense model are engines of their own
                experts = (ep or gpus) if moe else 1
                if experts > gpus or gpus % experts or experts > max(1, self._experts(moe)):
                    continue
                if ep and not tp and not dp and experts != gpus:
                    continue  # EP alone names the engine's size
                yield gpus, width, experts

    def _experts(self, moe: bool) -> int:
        return self.architecture.routed_experts if moe else 1

    def _too_small(self) -> str:
        given = {name: size for name, size in self.parallelism.items() if size}
        sizes = ", ".join(f"{name.upper()} {size}" for name, size in given.items())
        tried = [e for n in range(1, MAX_ENGINE_NODES + 1) for e in self._engines(n)]
        if not tried:
            return (
                f"no {self.side} engine has the sizes asked for ({sizes}): tp*dp must be a whole "
                "number of nodes or divide one, and ep divide tp*dp"
            )
        closest = max(tried, key=lambda engine: engine.hbm_left_bytes_per_gpu)
        cache = self.least_cache_bytes * closest.kv_copies / closest.gpus
        missing = (cache - closest.hbm_left_bytes_per_gpu) * closest.gpus
        return (
            f"the {self.side} engine cannot hold the model{f' with {sizes}' if sizes else ''}: "
            f"{format_quantity(closest.weight_bytes_per_gpu, 'bytes')} of weights and "
            f"{format_quantity(cache, 'bytes')} of KV cache a GPU against "
            f"{format_quantity(self.rates.hbm_bytes, 'bytes')} usable, "
            f"{format_quantity(missing, 'bytes')} missing on {closest.gpus} GPUs"
        )
