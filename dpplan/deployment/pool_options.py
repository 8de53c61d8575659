"""Which engine a side runs: every layout that fits, ranked by what the side alone sustains."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dpplan.demand import CacheLayout, Counting, sequence_bytes
from dpplan.deployment.capacity import NodeCapacity
from dpplan.deployment.layouts import Engine, EngineMenu, GpuRates, Weights
from dpplan.deployment.pools import Side, decode_tokens, nvlink_domain_gpus, side_rates
from dpplan.deployment.turns import (
    collective_bytes,
    decode_rate_of,
    gpu_seconds,
    prefill_flop_of,
    prefill_gpu_seconds,
)
from dpplan.profiles.hardware import Hardware
from dpplan.profiles.library import WeightedClass
from dpplan.profiles.model import Model
from dpplan.profiles.workload import Slo

__all__ = ["SideOptions", "side_options"]


@dataclass(frozen=True)
class SideOptions:
    """A side before its node count is known."""

    hardware: Hardware
    rates: GpuRates
    node: NodeCapacity
    precisions: tuple[tuple[str, str, str], ...]
    menu: EngineMenu

    def at(self, nodes: int | None) -> Side:
        """The side on `nodes` nodes with its fastest engine; without a count, its smallest.

        Raises
        ------
        Infeasible
            If no engine holds the model; names the missing bytes.
        """
        engine = self.menu.smallest() if nodes is None else self.menu.candidates(nodes)[0]
        return self.with_engine(engine)

    def candidates(self, nodes: int) -> list[Side]:
        """The fastest engine of every size that divides `nodes`, fastest first."""
        return [self.with_engine(engine) for engine in self.menu.candidates(nodes)]

    def with_engine(self, engine: Engine) -> Side:
        """The side running a given engine."""
        return Side(self.hardware, engine, self.rates, self.node, self.precisions)


def side_options(
    name: str,
    hardware: Hardware,
    model: Model,
    weights: Weights,
    layout: CacheLayout,
    classes: Sequence[WeightedClass],
    slo: Slo | None,
    counting: Counting,
    infinite: frozenset[str],
) -> SideOptions:
    """Usable rates of a side (C) and the menu of its engines."""
    rates, node, precisions = side_rates(name, hardware, model, layout, counting, infinite)
    longest = max(float(sequence_bytes(layout, decode_tokens(c.turns))) for c in classes)
    # Layerwise prefill holds one layer of a sequence at a time; decode holds all of it.
    least = longest / model.architecture.layers if name == "prefill" else longest
    nic = min(node.compute_nic_read, node.compute_nic_write) if counting == "full" else math.inf
    nic_per_gpu = nic / hardware.gpus
    loads_of = (
        _prefill_loads(model, layout, classes, counting, hardware, rates, node)
        if name == "prefill"
        else _decode_loads(model, layout, classes, slo, weights, hardware, rates)
    )

    def speed(engine: Engine) -> float:
        gpu_s, held_byte_s, tokens = loads_of(engine)
        nic_s = tokens * collective_bytes(engine, hardware, model) / nic_per_gpu
        memory_s = held_byte_s / engine.hbm_left_bytes_per_gpu
        slowest = max(gpu_s, nic_s, memory_s)
        return 1.0 / slowest if slowest > 0 else math.inf

    sizes = getattr(hardware.parallelism, name)
    menu = EngineMenu(
        side=name,
        architecture=model.architecture,
        weights=weights,
        rates=rates,
        gpus_per_node=hardware.gpus,
        domain_gpus=max(nvlink_domain_gpus(hardware), hardware.gpus),
        parallelism={"tp": sizes.tp, "dp": sizes.dp, "ep": sizes.ep},
        least_cache_bytes=least,
        speed=speed,
    )
    return SideOptions(hardware, rates, node, precisions, menu)


_Loads = Callable[[Engine], tuple[float, float, float]]
"""Engine -> GPU-seconds, byte-seconds of HBM held and tokens computed, of the mean turn."""


def _prefill_loads(
    model: Model,
    layout: CacheLayout,
    classes: Sequence[WeightedClass],
    counting: Counting,
    hardware: Hardware,
    rates: GpuRates,
    node: NodeCapacity,
) -> _Loads:
    layers = model.architecture.layers
    sizes = []
    for c in classes:
        hit = float(sequence_bytes(layout, c.turns.context_tokens))
        held = float(sequence_bytes(layout, c.turns.context_tokens + c.turns.append_tokens))
        kernel_s = gpu_seconds(prefill_flop_of(c.turns, model, counting), rates)
        sizes.append((kernel_s, hit / node.storage_nic_read, held / layers))

    def loads(engine: Engine) -> tuple[float, float, float]:
        gpu_s = held_byte_s = tokens = 0.0
        for c, (kernel_s, read_s, layer_bytes) in zip(classes, sizes, strict=True):
            append = c.turns.append_tokens
            own = prefill_gpu_seconds(kernel_s, append, model, engine, hardware, rates)
            gpu_s += c.weight_fraction * own
            in_flight_s = max(read_s, own / engine.gpus)
            held_byte_s += c.weight_fraction * layer_bytes * engine.kv_copies * in_flight_s
            tokens += c.weight_fraction * append
        return gpu_s, held_byte_s, tokens

    return loads


def _decode_loads(
    model: Model,
    layout: CacheLayout,
    classes: Sequence[WeightedClass],
    slo: Slo | None,
    weights: Weights,
    hardware: Hardware,
    rates: GpuRates,
) -> _Loads:
    def loads(engine: Engine) -> tuple[float, float, float]:
        gpu_s = held_byte_s = tokens = 0.0
        for c in classes:
            if not c.turns.output_tokens:
                continue
            rate = decode_rate_of(c.turns, model, layout, weights, engine, hardware, rates, slo)
            if rate.batch < 1:
                return math.inf, 0.0, 0.0
            output = c.weight_fraction * c.turns.output_tokens
            gpu_s += output * engine.gpus / rate.tokens_per_s
            resident = float(sequence_bytes(layout, decode_tokens(c.turns))) * engine.kv_copies
            held_byte_s += resident * output * rate.unloaded_step_s
            tokens += output
        return gpu_s, held_byte_s, tokens

    return loads
