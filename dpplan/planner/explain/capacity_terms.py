"""Terms of capacity (C): what the nodes of a plan deliver."""

from __future__ import annotations

import math
from collections.abc import Iterator

from dpplan.deployment import Limits, Side
from dpplan.deployment.routes import resource_index
from dpplan.planner.assumptions import source_of
from dpplan.planner.explain.term import Term, short
from dpplan.planner.optimize import Case
from dpplan.units import format_quantity

__all__ = ["backend_terms", "capacity_terms"]


def capacity_terms(side: Side, name: str, nodes: int, limits: Limits) -> Iterator[Term]:
    """Every resource of one side: peak, efficiency, headroom, nodes."""
    hardware, full = side.hardware, limits.counting == "full"
    share, free = hardware.efficiency, hardware.headroom
    total = limits.capacity(nodes if name == "prefill" else 1, nodes if name == "decode" else 1)
    storage = hardware.storage_nic.count * hardware.storage_nic.bytes_per_s
    compute = hardware.compute_nic.count * hardware.compute_nic.bytes_per_s
    peaks: dict[str, tuple[float, float, float, str]] = {
        "storage_nic_read": (storage, share.storage_nic, free.storage_nic, "storage_nic"),
        "storage_nic_write": (storage, share.storage_nic, free.storage_nic, "storage_nic"),
        "compute_nic_read": (compute, share.compute_nic, free.compute_nic, "compute_nic"),
        "compute_nic_write": (compute, share.compute_nic, free.compute_nic, "compute_nic"),
        "dram": (hardware.dram.bytes_per_s, share.dram, free.dram, "dram"),
        "kv_buffer": (hardware.dram.kv_buffer_bytes, 1.0, free.kv_buffer, "kv_buffer"),
        "gpu": (float(hardware.gpus), 1.0, free.gpu, "gpu"),
    }
    for resource, (peak, efficiency, headroom, key) in peaks.items():
        full_name = f"{name}.{resource}"
        value = float(total[resource_index(full_name)])
        efficiency, headroom = (efficiency, headroom) if full else (1.0, 0.0)
        source = source_of(f"efficiency.{key}", hardware.sources) if full else None
        kind = f", efficiency {source.kind}" if source and efficiency != 1 else ""
        unit = {"gpu": "GPU*s/s", "kv_buffer": "bytes"}.get(resource, "bytes/s")
        lifted = full_name in limits.unlimited
        yield Term(
            "C",
            full_name,
            "nodes * peak * efficiency * (1 - headroom)",
            "treated as unlimited"
            if lifted
            else f"{nodes} * {short(peak)} * {efficiency:g} * (1 - {headroom:g})",
            "unlimited" if math.isinf(value) else value,
            unit,
            f"hardware {hardware.name}{kind}",
        )
    left = side.engine.hbm_left_bytes_per_gpu
    yield Term(
        "C",
        f"{name}.hbm",
        "nodes * GPUs * (HBM * (1 - headroom) - weights)",
        f"{nodes} * {hardware.gpus} * ({format_quantity(side.rates.hbm_bytes, 'bytes')} - "
        f"{format_quantity(side.engine.weight_bytes_per_gpu, 'bytes')})",
        "unlimited" if math.isinf(left) else nodes * hardware.gpus * left,
        "bytes",
        f"hardware {hardware.name}; TP {side.engine.tp}, DP {side.engine.dp}, EP {side.engine.ep}",
    )


def backend_terms(case: Case) -> Iterator[Term]:
    """Aggregate limits of the storage backend, where there are any."""
    for direction in ("read", "write"):
        name = f"storage_backend_{direction}"
        value = float(case.limits.per_cluster[resource_index(name)])
        if math.isfinite(value):
            yield Term(
                "C",
                name,
                "aggregate limit * (1 - headroom)",
                format_quantity(value, "bytes_per_s"),
                value,
                "bytes/s",
                "storage_backend of the hardware profile",
            )
