"""What a node delivers: peak x efficiency x (1 - headroom), per resource (tag C)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["NodeCapacity", "effective", "flop_rate", "node_capacity"]

PRECISIONS = {"fp4": ("fp4", "fp8", "bf16"), "fp8": ("fp8", "bf16"), "bf16": ("bf16",)}
"""A precision and the wider ones that stand in where a chip lacks it."""


@dataclass(frozen=True)
class NodeCapacity:
    """Usable rates and sizes of one node."""

    storage_nic_read: float
    """Storage NICs, storage -> node, all together [bytes/s]."""
    storage_nic_write: float
    """Storage NICs, node -> storage [bytes/s]."""
    compute_nic_read: float
    """Compute NICs reading host or GPU memory [bytes/s]."""
    compute_nic_write: float
    """Compute NICs writing it [bytes/s]."""
    dram: float
    """Host memory, reads and writes added [bytes/s]."""
    kv_buffer: float
    """Host memory set aside for KV in flight [bytes]."""


def effective(peak: float, efficiency: float = 1.0, headroom: float = 0.0) -> float:
    """Usable share of a peak (C): peak * efficiency * (1 - headroom), in the unit of `peak`.

    >>> effective(50e9, 0.86, 0.0)
    43000000000.0
    """
    return peak * efficiency * (1.0 - headroom)


def node_capacity(
    *,
    storage_nics: int,
    storage_nic_bytes_per_s: float,
    compute_nics: int,
    compute_nic_bytes_per_s: float,
    dram_bytes_per_s: float,
    kv_buffer_bytes: float,
    efficiency: Mapping[str, float] | None = None,
    headroom: Mapping[str, float] | None = None,
) -> NodeCapacity:
    """Usable rates of one node (C).

    Parameters
    ----------
    storage_nics, compute_nics : int
        NICs of the node.
    storage_nic_bytes_per_s, compute_nic_bytes_per_s : float
        Line rate of each, each direction [bytes/s].
    dram_bytes_per_s : float
        Peak, half duplex [bytes/s].
    kv_buffer_bytes : float
        Buffer for KV in flight [bytes].
    efficiency, headroom : mapping, optional
        Shares by resource (storage_nic, compute_nic, dram; headroom also kv_buffer); absent: the
        peaks themselves, as the `paper` counting takes them.

    Returns
    -------
    NodeCapacity

    Examples
    --------
    >>> node_capacity(storage_nics=1, storage_nic_bytes_per_s=50e9, compute_nics=8,
    ...     compute_nic_bytes_per_s=50e9, dram_bytes_per_s=500e9,
    ...     kv_buffer_bytes=80e9).compute_nic_read
    400000000000.0
    """
    share, free = dict(efficiency or {}), dict(headroom or {})

    def usable(peak: float, name: str) -> float:
        return effective(peak, share.get(name, 1.0), free.get(name, 0.0))

    storage = usable(storage_nics * storage_nic_bytes_per_s, "storage_nic")
    compute = usable(compute_nics * compute_nic_bytes_per_s, "compute_nic")
    return NodeCapacity(
        storage_nic_read=storage,
        storage_nic_write=storage,
        compute_nic_read=compute,
        compute_nic_write=compute,
        dram=usable(dram_bytes_per_s, "dram"),
        kv_buffer=usable(kv_buffer_bytes, "kv_buffer"),
    )


def flop_rate(rates: Mapping[str, float | None], precision: str) -> tuple[float, str]:
    """Peak FLOP/s at a precision, or at the next wider one that the chip has (C).

    Parameters
    ----------
    rates : mapping
        bf16, fp8, fp4 -> FLOP/s, None where the chip has none.
    precision : str
        The wanted one.

    Returns
    -------
    (float, str)
        FLOP/s, and the precision it is of.

    Examples
    --------
    >>> flop_rate({"bf16": 312e12, "fp8": None}, "fp8")
    (312000000000000.0, 'bf16')
    """
    for candidate in PRECISIONS[precision]:
        rate = rates.get(candidate)
        if rate is not None:
            return rate, candidate
    raise KeyError(precision)
