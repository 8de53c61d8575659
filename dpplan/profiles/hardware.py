"""The hardware profile: what one node has, peak, efficiency and headroom kept apart."""

from __future__ import annotations

from pydantic import Field

from dpplan.profiles.schema import (
    Bytes,
    BytesPerS,
    Count,
    FlopPerS,
    Fraction,
    GpuCount,
    Name,
    NodeCount,
    Share,
    Sources,
    Strict,
    Text,
    UsdPerH,
    Watts,
)

__all__ = [
    "ComputeNic",
    "Dram",
    "Efficiency",
    "EngineGroup",
    "Gpu",
    "Hardware",
    "Headroom",
    "Parallelism",
    "StorageBackend",
    "StorageNic",
]


class Gpu(Strict):
    """One GPU: dense datasheet rates."""

    bf16_flop_per_s: FlopPerS
    fp8_flop_per_s: FlopPerS | None = None
    fp4_flop_per_s: FlopPerS | None = None
    hbm_bytes: Bytes
    hbm_bytes_per_s: BytesPerS
    nvlink_bytes_per_s: BytesPerS
    nvlink_domain_gpus: Count | None = None
    """GPUs that reach each other over NVLink; absent = the GPUs of the node."""


class ComputeNic(Strict):
    """The compute NICs of a node; `bytes_per_s` is of each, each direction."""

    count: Count
    bytes_per_s: BytesPerS


class StorageNic(Strict):
    """The storage NICs of a node; `bytes_per_s` is of each, each direction."""

    count: Count
    bytes_per_s: BytesPerS
    shared_with_compute: bool = False
    """Storage traffic also crosses the compute NICs (clouds with one fabric)."""


class Dram(Strict):
    """Host memory of a node; `bytes_per_s` is half duplex: reads and writes add."""

    bytes: Bytes
    bytes_per_s: BytesPerS
    kv_buffer_bytes: Bytes


class Efficiency(Strict):
    """Measured share of peak; absent = 1."""

    gemm: Share = 1.0
    attention: Share = 1.0
    hbm: Share = 1.0
    storage_nic: Share = 1.0
    compute_nic: Share = 1.0
    dram: Share = 1.0


class Headroom(Strict):
    """Share kept free by choice; absent = 0."""

    gpu: Fraction = 0.0
    hbm: Fraction = 0.0
    storage_nic: Fraction = 0.0
    compute_nic: Fraction = 0.0
    dram: Fraction = 0.0
    kv_buffer: Fraction = 0.0
    storage_backend: Fraction = 0.0


class EngineGroup(Strict):
    """How one engine splits the model: TP within, DP across attention ranks, EP of the experts."""

    tp: Count | None = None
    dp: Count | None = None
    ep: Count | None = None


class Parallelism(Strict):
    """Engine groups of the two sides; what is absent is derived from model and memory."""

    prefill: EngineGroup = EngineGroup()
    decode: EngineGroup = EngineGroup()


class StorageBackend(Strict):
    """Aggregate limits of the storage system behind the NICs; absent = unlimited."""

    read_bytes_per_s: BytesPerS | None = None
    write_bytes_per_s: BytesPerS | None = None


class Hardware(Strict):
    """One node type."""

    name: Name
    description: Text = ""
    gpus: GpuCount
    gpu: Gpu
    compute_nic: ComputeNic
    storage_nic: StorageNic
    dram: Dram
    efficiency: Efficiency = Efficiency()
    headroom: Headroom = Headroom()
    parallelism: Parallelism = Parallelism()
    storage_backend: StorageBackend = StorageBackend()
    default_nodes: NodeCount | None = None
    cost_usd_per_h: UsdPerH | None = None
    power_w: Watts | None = None
    sources: Sources = Field(default_factory=dict)
