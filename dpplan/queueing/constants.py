"""The few constants of the time model: physical, shared by all models and workloads."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from dpplan.profiles.calibration import Calibration

__all__ = ["CONSTANTS", "Constant", "Constants"]


@dataclass(frozen=True)
class Constant:
    """What a constant is, and what values make sense."""

    meaning: str
    unit: str
    lowest: float
    highest: float
    source: str = ""
    """Where a constant that is not fitted comes from; empty = fitted by `dpplan calibrate`."""

    @property
    def fitted(self) -> bool:
        """A calibration fits it."""
        return not self.source


CONSTANTS: Final[dict[str, Constant]] = {
    "storage_nic_share": Constant(
        "share of a storage NIC's line rate that reads reach while they queue", "1", 0.5, 0.98
    ),
    "prefill_efficiency": Constant(
        "speed of prefill kernels on small batches, as a share of the kernel law's (Q-prefill)",
        "1",
        0.05,
        1.0,
    ),
    "block_overhead_s": Constant(
        "GPU time to place one block of 64 cached tokens of one layer", "s", 1e-8, 1e-4
    ),
    "overlap_exponent": Constant(
        "p in (compute^p + load^p)^(1/p): how well layerwise loads overlap compute when agents "
        "start together",
        "1",
        1.0,
        30.0,
    ),
    "exposed_compute_share": Constant(
        "share of compute that waits for loads without layerwise prefill", "1", 0.0, 1.0
    ),
    "batching_delay": Constant(
        "wait for forward batches ahead, in prefills of one turn, at full load", "1", 0.0, 50.0
    ),
    "request_read_bytes_per_s": Constant(
        "rate at which one request's KV is read while nothing queues", "bytes/s", 1e8, 1e12
    ),
    "hand_off_bytes_per_s": Constant(
        "rate at which one request's KV is handed to its decode GPU", "bytes/s", 1e8, 1e12
    ),
    "decode_layer_s": Constant(
        "time of a decode step beyond the roofline, per layer", "s", 1e-6, 1e-2
    ),
    "decode_sequence_layer_s": Constant(
        "time of a decode step beyond the roofline, per layer and sequence of a GPU",
        "s",
        1e-8,
        1e-3,
    ),
    "imbalance_round_robin": Constant(
        "busiest over mean storage NIC when sides are picked in turn",
        "1",
        1.0,
        3.0,
        source="DualPath (arXiv 2602.21548), section 7: max/mean load 1.53, measured",
    ),
    "imbalance_adaptive": Constant(
        "busiest over mean storage NIC when the shorter read queue is picked",
        "1",
        1.0,
        3.0,
        source="DualPath (arXiv 2602.21548), section 7: max/mean load 1.18, measured",
    ),
}
"""Every field of `Constants`: unit, range and meaning."""


@dataclass(frozen=True)
class Constants:
    """Values of the time model's constants; each is described in `CONSTANTS`.

    The defaults are assumed: orders of magnitude that hold before anything is measured. A
    calibration starts from them, and they stand wherever none is given.
    """

    storage_nic_share: float = 0.86
    """3FS reads 40 GiB/s through one 400 Gbit/s NIC."""
    prefill_efficiency: float = 0.4
    """A day of DeepSeek's production prefill ran at 0.6 of the law (32 k computed tokens/s a node);
    a few hundred tokens fill about two thirds of what long batches do."""
    block_overhead_s: float = 1e-6
    """Posting an RDMA write takes about a microsecond (DualPath, section 5)."""
    overlap_exponent: float = 3.0
    exposed_compute_share: float = 0.5
    batching_delay: float = 6.0
    """Four turns a forward batch: half a batch before it, and the batch."""
    request_read_bytes_per_s: float = 10e9
    hand_off_bytes_per_s: float = 10e9
    decode_layer_s: float = 3e-4
    """Launches and two collectives a layer."""
    decode_sequence_layer_s: float = 1e-5
    imbalance_round_robin: float = 1.53
    imbalance_adaptive: float = 1.18

    @classmethod
    def of(cls, calibration: Calibration) -> Constants:
        """The constants of a calibration profile."""
        return cls(**calibration.constants.model_dump())

    def __post_init__(self) -> None:
        """Values lie in their ranges."""
        for field in fields(self):
            limits, value = CONSTANTS[field.name], getattr(self, field.name)
            if not limits.lowest <= value <= limits.highest:
                needed = f"{limits.lowest:g} to {limits.highest:g} {limits.unit}"
                raise ValueError(f"{field.name}: {needed} is needed, got {value!r}")
