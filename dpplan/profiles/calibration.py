"""The calibration profile: constants of the time model, fitted on named measurements."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from dpplan.profiles.schema import (
    Bytes,
    BytesPerS,
    Count,
    Name,
    PositiveNumber,
    Seconds,
    Share,
    Strict,
    Text,
)

__all__ = ["CalibratedConstants", "Calibration", "Data", "Fit", "ModelErrors"]

_AtLeastOne = Annotated[float, Field(ge=1, le=30)]


class CalibratedConstants(Strict):
    """Values of the time model's constants; `dpplan.queueing.CONSTANTS` says what each is."""

    storage_nic_share: Share
    prefill_efficiency: Share
    block_overhead_s: Seconds
    overlap_exponent: _AtLeastOne
    exposed_compute_share: Share
    batching_delay: PositiveNumber
    request_read_bytes_per_s: BytesPerS
    hand_off_bytes_per_s: BytesPerS
    decode_layer_s: Seconds
    decode_sequence_layer_s: Seconds
    imbalance_round_robin: _AtLeastOne
    imbalance_adaptive: _AtLeastOne


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
    def _square(self) -> Self:
        known, size = set(CalibratedConstants.model_fields), len(self.names)
        if not set(self.names) <= known or len(set(self.names)) != size:
            raise ValueError("different names of constants are needed in names")
        matrix = self.covariance
        if len(matrix) != size or any(len(row) != size for row in matrix):
            raise ValueError(f"a {size} x {size} matrix is needed, in the order of names")
        for i, row in enumerate(matrix):
            for j, value in enumerate(row):
                if abs(value - matrix[j][i]) > 1e-6 * (abs(value) + 1e-12) or row[i] < 0:
                    raise ValueError("a symmetric matrix with variances of zero or more is needed")
        return self


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
