"""The one traffic table: what each flow puts on each resource (tag T).

A *route* is a way for the hit KV cache to reach the prefill GPU, a column here. The flows that
every turn has whatever its route (fresh KV, write-back, collectives, compute, memory held) are
columns too. Closed form, LP and every later solver read this table and nothing else: a new route
is one column, a new resource one row.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from dpplan.arrays import Array

__all__ = [
    "FLOWS",
    "POOL",
    "RESOURCES",
    "ROUTES",
    "SIZE_RESOURCES",
    "explain_entry",
    "resource_index",
    "traffic_table",
]

_NODE_RESOURCES: Final = (
    "storage_nic_read",
    "storage_nic_write",
    "compute_nic_read",
    "compute_nic_write",
    "dram",
    "gpu",
    "hbm",
    "kv_buffer",
)

RESOURCES: Final[tuple[str, ...]] = (
    *(f"prefill.{name}" for name in _NODE_RESOURCES),
    *(f"decode.{name}" for name in _NODE_RESOURCES),
    "storage_backend_read",
    "storage_backend_write",
)
"""Rows. NIC directions are seen on the PCIe side: "read" = the compute NIC reads host or GPU
memory, "write" = it writes it; a storage NIC's "read" = from storage. `gpu` is GPU time, `hbm`
and `kv_buffer` are bytes held (bytes * seconds per turn), all others bytes per second."""

SIZE_RESOURCES: Final = frozenset(
    f"{side}.{name}" for side in ("prefill", "decode") for name in ("hbm", "kv_buffer")
)

ROUTES: Final[tuple[str, ...]] = ("prefill_read", "decode_read")
"""Routes of hit KV: storage -> prefill node, and storage -> decode node -> compute network."""

POOL: Final = "pool_read"
"""Flow of the hit KV that a DRAM pool on the prefill node holds; it takes no route."""

# Labels in comments are those of DualPath's Figure 4; `paper` and `full` counting share the table
# and differ in the amounts that flow.
_TABLE: Final[dict[str, dict[str, float]]] = {
    # Per byte of hit KV.
    "prefill_read": {
        "storage_backend_read": 1,
        "prefill.storage_nic_read": 1,
        "prefill.dram": 2,  # 2 in, 3 out
        "prefill.compute_nic_read": 2,  # 3 host -> GPU, 5 GPU -> decode
        "prefill.compute_nic_write": 1,  # 4 into GPU
        "decode.dram": 2,  # 7 in, 8 out
        "decode.compute_nic_read": 1,  # 8
        "decode.compute_nic_write": 2,  # 7 into host, 9 into GPU
    },
    "decode_read": {
        "storage_backend_read": 1,
        "decode.storage_nic_read": 1,
        "prefill.compute_nic_write": 1,  # 5 into GPU
        "decode.dram": 3,  # 2 in, 3 out to prefill, 6 out to own GPU
        "decode.compute_nic_read": 2,  # 3, 6
        "decode.compute_nic_write": 1,  # 7 into GPU
    },
    # Per byte of hit KV found in the prefill node's DRAM: `prefill_read` without its way in.
    "pool_read": {
        "prefill.dram": 1,  # 3 out
        "prefill.compute_nic_read": 2,  # 3 host -> GPU, 5 GPU -> decode
        "prefill.compute_nic_write": 1,  # 4 into GPU
        "decode.dram": 2,  # 7 in, 8 out
        "decode.compute_nic_read": 1,  # 8
        "decode.compute_nic_write": 2,  # 7 into host, 9 into GPU
    },
    # Per byte of KV of appended tokens: prefill GPU -> decode buffer -> decode GPU.
    "fresh_handoff": {
        "prefill.compute_nic_read": 1,
        "decode.compute_nic_write": 2,
        "decode.compute_nic_read": 1,
        "decode.dram": 2,
    },
    # Per byte of KV of generated tokens: decode GPU -> decode buffer.
    "generated_offload": {
        "decode.compute_nic_read": 1,
        "decode.compute_nic_write": 1,
        "decode.dram": 1,
    },
    # Per byte persisted: decode buffer -> storage.
    "write_back": {
        "decode.dram": 1,
        "decode.storage_nic_write": 1,
        "storage_backend_write": 1,
    },
    # Per byte that model-execution collectives send between nodes.
    "prefill_collective": {"prefill.compute_nic_read": 1, "prefill.compute_nic_write": 1},
    "decode_collective": {"decode.compute_nic_read": 1, "decode.compute_nic_write": 1},
    # GPU time of a turn, and memory it holds times how long.
    "prefill_gpu_time": {"prefill.gpu": 1},
    "decode_gpu_time": {"decode.gpu": 1},
    "prefill_hbm_held": {"prefill.hbm": 1},
    "decode_hbm_held": {"decode.hbm": 1},
    "prefill_buffer_held": {"prefill.kv_buffer": 1},
    "decode_buffer_held": {"decode.kv_buffer": 1},
}

FLOWS: Final[tuple[str, ...]] = tuple(_TABLE)
"""Columns."""

_INDEX: Final = {name: i for i, name in enumerate(RESOURCES)}


def resource_index(name: str) -> int:
    """Row of a resource.

    Raises
    ------
    KeyError
        If there is no such resource.
    """
    return _INDEX[name]


def traffic_table(*, prefill_shared: bool = False, decode_shared: bool = False) -> Array:
    """Units of each resource per unit of each flow (T).

    Parameters
    ----------
    prefill_shared, decode_shared : bool
        The side's storage traffic crosses its compute NICs as well (one fabric): a storage read
        is one more NIC write into host memory, a storage write one more NIC read of it.

    Returns
    -------
    ndarray
        Shape (resources, flows), dimensionless.

    Examples
    --------
    The prefill DRAM of the paper's Figure 4 is crossed twice by a prefill read:

    >>> t = traffic_table()
    >>> float(t[resource_index("prefill.dram"), FLOWS.index("prefill_read")])
    2.0
    """
    table = np.zeros((len(RESOURCES), len(FLOWS)))
    for column, flow in enumerate(FLOWS):
        for resource, amount in _TABLE[flow].items():
            table[_INDEX[resource], column] = amount
    for side, shared in (("prefill", prefill_shared), ("decode", decode_shared)):
        if shared:
            table[_INDEX[f"{side}.compute_nic_write"]] += table[_INDEX[f"{side}.storage_nic_read"]]
            table[_INDEX[f"{side}.compute_nic_read"]] += table[_INDEX[f"{side}.storage_nic_write"]]
    return table


def explain_entry(resource: str) -> str:
    """The row of a resource in words: "2*prefill_read + 3*decode_read".

    >>> explain_entry("prefill.storage_nic_read")
    'prefill_read'
    """
    parts = []
    for flow, entries in _TABLE.items():
        if amount := entries.get(resource):
            parts.append(flow if amount == 1 else f"{amount:g}*{flow}")
    return " + ".join(parts)
