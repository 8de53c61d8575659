"""The calibration profile: constants of the time model, fitted on named measurements."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Final, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from dpplan.profiles.schema import (
    Bytes,
    BytesPerS,
    Count,
    Name,
    Number,
    Seconds,
    Source,
    Strict,
    Text,
)
from dpplan.units import format_quantity

__all__ = [
    "RANGES",
    "CalibratedConstants",
    "Calibration",
    "Data",
    "Fit",
    "ModelErrors",
]

RANGES: Final[dict[str, tuple[float, float]]] = {
    "storage_nic_share": (0.5, 0.98),
    "prefill_efficiency": (0.05, 1.0),
    "block_overhead_s": (1e-8, 1e-4),
    "overlap_exponent": (1.0, 30.0),
    "exposed_compute_share": (0.0, 1.0),
    "batching_delay": (0.0, 50.0),
    "request_read_bytes_per_s": (1e8, 1e12),
    "hand_off_bytes_per_s": (1e8, 1e12),
    "decode_layer_s": (1e-6, 1e-2),
    "decode_sequence_layer_s": (1e-8, 1e-3),
    "imbalance_round_robin": (1.0, 3.0),
    "imbalance_adaptive": (1.0, 3.0),
}
"""Lowest and highest value of every constant, as in `dpplan.queueing.CONSTANTS`."""

_ROUNDING = 1e-9
"""Relative: units and decimal digits may miss the end of a range by the last bit."""


class CalibratedConstants(Strict):
    """Values of the time model's constants; `dpplan.queueing.CONSTANTS` says what each is."""

    storage_nic_share: Number
    prefill_efficiency: Number
    block_overhead_s: Seconds
    overlap_exponent: Number
    exposed_compute_share: Number
    batching_delay: Number
    request_read_bytes_per_s: BytesPerS
    hand_off_bytes_per_s: BytesPerS
    decode_layer_s: Seconds
    decode_sequence_layer_s: Seconds
    imbalance_round_robin: Number
    imbalance_adaptive: Number

    @field_validator("*")
    @classmethod
    def _in_range(cls, value: float, info: ValidationInfo) -> float:
        name = str(info.field_name)
        lowest, highest = RANGES[name]
        if not lowest * (1 - _ROUNDING) <= value <= highest * (1 + _ROUNDING):
            unit = "bytes_per_s" if name.endswith("bytes_per_s") else "s"
            ends = [
                format_quantity(v, unit) if name.endswith("_s") else f"{v:g}" for v in RANGES[name]
            ]
            raise ValueError(f"a value from {ends[0]} to {ends[1]} is needed")
        return min(max(value, lowest), highest)


class Data(Strict):
    """The measurements that a calibration rests on."""

    file: Text
    sha256: Annotated[Text, Field(pattern="^[0-9a-f]{64}$")]
    rows: Count
    reference: Text
    url: Text | None = None


def _finite_rows(value: object) -> object:
    if not isinstance(value, list) or not all(isinstance(row, list) for row in value):
        raise ValueError("rows of numbers are needed")
    return value


class Fit(Strict):
    """How well the constants are known: covariance of their natural logarithms."""

    names: list[Name]
    covariance: Annotated[list[list[float]], BeforeValidator(_finite_rows)]

    @model_validator(mode="after")
    def _is_covariance(self) -> Self:
        known, size = set(CalibratedConstants.model_fields), len(self.names)
        if not set(self.names) <= known or len(set(self.names)) != size:
            wrong = [name for name in self.names if name not in known or self.names.count(name) > 1]
            raise ValueError(f"different names of constants are needed, not {wrong[0][:40]}")
        matrix = self.covariance
        if len(matrix) != size or any(len(row) != size for row in matrix):
            raise ValueError(f"a {size} x {size} matrix is needed, in the order of names")
        for i, row in enumerate(matrix):
            for j, value in enumerate(row):
                if abs(value - matrix[j][i]) > 1e-6 * (abs(value) + 1e-12):
                    raise ValueError("a symmetric matrix is needed in covariance")
        if not _has_no_negative_variance(matrix):
            raise ValueError("a covariance without negative variances is needed")
        return self


def _has_no_negative_variance(matrix: list[list[float]]) -> bool:
    """Positive semidefinite up to rounding: its correlations have a Cholesky factor."""
    size = len(matrix)
    if any(matrix[i][i] < 0 for i in range(size)):
        return False
    scale = [math.sqrt(matrix[i][i]) or 1.0 for i in range(size)]
    factor = [[0.0] * size for _ in range(size)]
    for i in range(size):
        for j in range(i + 1):
            value = matrix[i][j] / scale[i] / scale[j]
            value -= sum(factor[i][k] * factor[j][k] for k in range(j))
            if i == j:
                # Six digits of correlations near one may leave a little less than nothing.
                if value < -1e-4:
                    return False
                factor[i][i] = math.sqrt(max(value, 0.0) + 1e-4)
            else:
                factor[i][j] = value / factor[j][j]
    return True


class ModelErrors(Strict):
    """Absolute relative errors of a model's rows when the fit never saw that model."""

    rows: Count
    median_abs_error: Annotated[float, Field(ge=0)]
    p90_abs_error: Annotated[float, Field(ge=0)]


class Calibration(Strict):
    """Constants of the time model for some node types, and what they were fitted on."""

    name: Name
    description: Text = ""
    hardware: Annotated[list[Name], Field(min_length=1)]
    """Node types it was measured on."""
    data: Data
    constants: CalibratedConstants
    stored_kv_bytes_per_token: dict[Name, Bytes] = Field(default_factory=dict)
    """Model -> bytes a cached token takes in storage, where that differs from its profile."""
    stored_kv_reason: Text = ""
    fit: Fit | None = None
    leave_one_model_out: dict[Name, ModelErrors] = Field(default_factory=dict)
    """Model -> errors of its rows predicted by constants fitted without them."""

    @model_validator(mode="after")
    def _reasoned(self) -> Self:
        if self.stored_kv_bytes_per_token and not self.stored_kv_reason:
            raise ValueError("stored_kv_reason is needed where stored_kv_bytes_per_token is given")
        return self

    @property
    def sources(self) -> Mapping[str, Source]:
        """Where its numbers come from, as other profiles say it."""
        data = self.data
        rows = f"{data.rows} rows of {data.file}: {data.reference}"
        measured = Source(kind="measured", reference=rows, url=data.url)
        found = {"default": Source(kind="derived", reference=f"fitted to {rows}", url=data.url)}
        found["data"] = measured
        fitted = self.fit.names if self.fit else list(CalibratedConstants.model_fields)
        for name in CalibratedConstants.model_fields:
            if name not in fitted:
                reference = "not fitted: `dpplan.queueing.CONSTANTS` says where it is from"
                found[f"constants.{name}"] = Source(kind="assumed", reference=reference)
        if self.stored_kv_bytes_per_token:
            reason = Source(kind="assumed", reference=self.stored_kv_reason)
            found["stored_kv_bytes_per_token"] = reason
        return found
