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

from dpplan.arrays import Array
from dpplan.demand import CacheLayout, Counting, cache_layout, prefill_flop
from dpplan.deployment.capacity import effective
from dpplan.deployment.layouts import Engine, Weights
from dpplan.deployment.pool_options import side_options
from dpplan.deployment.pools import Side, weights_of
from dpplan.deployment.routes import FLOWS, POOL, RESOURCES, ROUTES, resource_index, traffic_table
from dpplan.deployment.turns import ClassDemand, class_demand, gpu_seconds
from dpplan.profiles.library import Inputs
from dpplan.solvers.closed_form import best_split

__all__ = ["ClassDemand", "Deployment", "Limits", "Side", "assemble_limits"]


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

    @property
    def pool_bytes_per_storage_byte(self) -> float:
        """Hit KV in DRAM per byte of it that storage delivers (T-pool); inf where none is read."""
        pool = sum(c.weight_fraction * c.pool_kv_bytes for c in self.classes)
        read = sum(c.weight_fraction * c.storage_kv_bytes for c in self.classes)
        return pool / read if read else (math.inf if pool else 0.0)

    @property
    def mean_use(self) -> Array:
        """Use of the mean turn of the mix, (routes, resources)."""
        weights = [c.weight_fraction for c in self.classes]
        return np.asarray(np.tensordot(weights, self.use, axes=1))

    def capacity(
        self,
        prefill_nodes: npt.ArrayLike,
        decode_nodes: npt.ArrayLike,
        *,
        whole_engines: bool = True,
    ) -> Array:
        """Capacity vector of P prefill and D decode nodes, shape (..., resources).

        Nodes that fill no engine stay idle and add nothing; without `whole_engines` they add their
        share, as in a fleet so large that the rest doesn't matter.
        """
        p = np.asarray(prefill_nodes, dtype=float)[..., None]
        d = np.asarray(decode_nodes, dtype=float)[..., None]
        if whole_engines:
            p = p // self.prefill.engine.nodes * self.prefill.engine.nodes
            d = d // self.decode.engine.nodes * self.decode.engine.nodes
        return np.asarray(p * self.per_prefill_node + d * self.per_decode_node + self.per_cluster)


class Deployment:
    """A model on node types, before node counts: limits for any P:D, worked out once each.

    Parameters
    ----------
    inputs : Inputs
        Profiles, read and checked.
    counting : {"full", "paper"}
        All traffic with efficiencies and headroom, or hit KV only at peaks.
    unlimited : collection of str
        Resources treated as infinite; `X.hbm` also lifts the rule that weights must fit.
    """

    def __init__(
        self, inputs: Inputs, counting: Counting = "full", unlimited: Collection[str] = ()
    ) -> None:
        model, slo = inputs.model, inputs.workload.slo
        self.inputs = inputs
        self.counting = counting
        self.unlimited = frozenset(unlimited)
        self.weights = weights_of(model)
        self.layout = cache_layout(
            model.architecture,
            model.kv_element_bytes,
            model.index_element_bytes,
            model.state_element_bytes,
        )
        common = (model, self.weights, self.layout, inputs.classes, slo, counting, self.unlimited)
        self.prefill = side_options("prefill", inputs.prefill_hardware, *common)
        self.decode = side_options("decode", inputs.decode_hardware, *common)
        self._found: dict[tuple[Engine, Engine], Limits] = {}
        self._chosen: dict[tuple[int, int], Limits] = {}

    def smallest(self) -> Limits:
        """Limits with the smallest engines: what sets the unit in which nodes are counted.

        Raises
        ------
        Infeasible
            If no engine holds the model, or TPOT cannot be met even by a lone sequence.
        """
        return self.with_sides(self.prefill.at(None), self.decode.at(None))

    def at(self, prefill_nodes: int, decode_nodes: int) -> Limits:
        """Limits with the engines that give these nodes the largest dual-path bound.

        Each side offers its fastest engines (`EngineMenu.candidates`); pairs are tried in the
        order of what the sides alone sustain, and the first of equals wins. Raises as `smallest`.
        """
        key = (prefill_nodes, decode_nodes)
        if key not in self._chosen:
            tried = [
                self.with_sides(prefill, decode)
                for prefill in self.prefill.candidates(prefill_nodes)
                for decode in self.decode.candidates(decode_nodes)
            ]
            capacity = [limits.capacity(*key) for limits in tried]
            use = [limits.mean_use for limits in tried]
            rates = best_split([u[0] for u in use], [u[1] for u in use], capacity).turns_per_s
            # Equal but for rounding is equal.
            self._chosen[key] = tried[int(np.argmax(rates >= rates.max() * (1 - 1e-9)))]
        return self._chosen[key]

    def with_sides(self, prefill: Side, decode: Side) -> Limits:
        """Limits of two given sides; raises as `smallest`."""
        key = (prefill.engine, decode.engine)
        if key not in self._found:
            self._found[key] = _limits(self, prefill, decode)
        return self._found[key]


def assemble_limits(
    inputs: Inputs,
    counting: Counting = "full",
    unlimited: Collection[str] = (),
    prefill_nodes: int | None = None,
    decode_nodes: int | None = None,
) -> Limits:
    """Limits of one P:D, or of the smallest engines where a count is left out; see `Deployment`."""
    deployment = Deployment(inputs, counting, unlimited)
    return deployment.with_sides(
        deployment.prefill.at(prefill_nodes), deployment.decode.at(decode_nodes)
    )


def _limits(deployment: Deployment, prefill: Side, decode: Side) -> Limits:
    """Use and capacity (D, C, T) of two sides."""
    inputs, counting = deployment.inputs, deployment.counting
    model, weights, layout = inputs.model, deployment.weights, deployment.layout
    infinite, slo = deployment.unlimited, inputs.workload.slo
    classes = tuple(
        class_demand(
            item.turns,
            item.weight_fraction,
            model,
            layout,
            weights,
            prefill,
            decode,
            slo,
            counting,
            infinite,
        )
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
    compute_rows = [
        resource_index(f"{s}.{r}") for s in ("prefill", "decode") for r in ("gpu", "hbm")
    ]
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
        load_or_recompute_bytes_per_s=_load_or_recompute(inputs, classes, prefill),
    )


def _load_or_recompute(
    inputs: Inputs, classes: tuple[ClassDemand, ...], prefill: Side
) -> float | None:
    """Hit bytes over the GPU time to prefill the same history from nothing (S4) [bytes/s/GPU]."""
    loaded = gpu_s = 0.0
    for c in classes:
        if c.context_tokens:
            flop = prefill_flop(
                inputs.model.architecture,
                0.0,
                c.context_tokens,
                # The paper's pairs are new tokens times cached ones: none without a history.
                counting="full",
            )
            loaded += c.weight_fraction * c.hit_kv_bytes
            gpu_s += c.weight_fraction * gpu_seconds(flop, prefill.rates)
    return loaded / gpu_s if gpu_s > 0 else None


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
            route: c.storage_kv_bytes if io else 0.0,
            POOL: c.pool_kv_bytes if io else 0.0,
            "prefill_hbm_held": held * prefill.engine.kv_copies / layers * in_flight_s,
            # What the pool holds is there before and after: not in flight.
            "prefill_buffer_held": c.storage_kv_bytes * in_flight_s
            if route == "prefill_read"
            else 0.0,
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
