"""The workload profile: one class of turns, or a mix of classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from dpplan.profiles.schema import (
    Name,
    Number,
    Part,
    PositiveNumber,
    Seconds,
    SecondsOrUnlimited,
    Sources,
    Strict,
    Text,
    faults_at,
)

__all__ = ["Distributions", "Mix", "MixPart", "PerSession", "PerTurn", "Slo", "TurnClass"]


class Slo(Strict):
    """Latency limits; `unlimited` lifts one."""

    ttft: SecondsOrUnlimited = 4.0
    tpot: SecondsOrUnlimited = 0.05


def _never_falls(values: list[float]) -> list[float]:
    """Quantiles: none below the one before it."""
    wrong = [i for i, (low, high) in enumerate(pairwise(values), 1) if high < low]
    if wrong:
        needed = "quantiles that never fall are needed"
        raise faults_at([((i,), needed, values[i]) for i in wrong])
    return values


def _rises_from_0_to_1(fractions: list[float]) -> list[float]:
    faults: list[tuple[tuple[int], str, object]] = [
        ((i,), "fractions that rise are needed", high)
        for i, (low, high) in enumerate(pairwise(fractions), 1)
        if high <= low
    ]
    if fractions[0] != 0:
        faults.append(((0,), "0 as the first fraction is needed", fractions[0]))
    if fractions[-1] != 1:
        faults.append(((len(fractions) - 1,), "1 as the last fraction is needed", fractions[-1]))
    if faults:
        raise faults_at(faults)
    return fractions


MOST_QUANTILES = 201
_Fractions = Annotated[
    list[Part],
    Field(min_length=2, max_length=MOST_QUANTILES),
    AfterValidator(_rises_from_0_to_1),
]
_Length = Field(min_length=2, max_length=MOST_QUANTILES)
_Quantiles = Annotated[list[Number], _Length, AfterValidator(_never_falls)]
_PositiveQuantiles = Annotated[list[PositiveNumber], _Length, AfterValidator(_never_falls)]


class PerTurn(Strict):
    """Quantiles over turns, a session of many turns weighing more."""

    context_tokens: _Quantiles | None = None
    append_tokens: _Quantiles | None = None
    output_tokens: _Quantiles | None = None
    tool_gap_s: _Quantiles | None = None
    """Seconds, plain numbers."""


class PerSession(Strict):
    """Quantiles over sessions, each weighing the same."""

    turns: _PositiveQuantiles | None = None
    session_tokens: _PositiveQuantiles | None = None
    """Length of a session at its end."""


class Distributions(Strict):
    """How turns and sessions of a workload were measured to differ.

    They tell the shape alone: means are those of the keys of the workload, by which quantiles are
    scaled where they are used.
    """

    quantile_fractions: _Fractions
    """Share of turns or sessions below each quantile, from 0 to 1; straight between them."""
    per_turn: PerTurn = Field(default_factory=PerTurn)
    per_session: PerSession = Field(default_factory=PerSession)

    @field_validator("per_turn", "per_session")
    @classmethod
    def _one_for_each_fraction(cls, part: Strict, info: ValidationInfo) -> Strict:
        fractions: Sequence[float] | None = info.data.get("quantile_fractions")
        if fractions is None:  # told already
            return part
        needed = f"{len(fractions)} entries, as quantile_fractions has, are needed"
        lengths = {
            key: len(values)
            for key in type(part).model_fields
            if (values := getattr(part, key)) is not None
        }
        faults = [((key,), needed, n) for key, n in lengths.items() if n != len(fractions)]
        if faults:
            raise faults_at(faults)
        return part


class TurnClass(Strict):
    """The mean turn of one kind of session."""

    name: Name
    description: Text = ""
    model: Name
    turns_per_session: PositiveNumber
    context_tokens: Number
    """Cached history that a turn hits."""
    append_tokens: PositiveNumber
    """New prompt tokens of a turn: missed, so prefilled."""
    output_tokens: Number
    session_tokens: PositiveNumber
    """Length of a session at its end."""
    slo: Slo | None = None
    tool_gap_s: Seconds | None = None
    """Mean pause between a turn's answer and the next turn."""
    distinct_sessions: PositiveNumber | None = None
    """Sessions that the means were taken over, replayed when more are run."""
    dram_hit_fraction: Part = 0.0
    """Share of the hit tokens found in a DRAM pool on the prefill nodes; the rest is in storage."""
    distributions: Distributions | None = None
    """As measured; absent = only the means are known."""
    sources: Sources = Field(default_factory=dict)

    def to_document(self) -> dict[str, Any]:
        """Plain values as a profile file has them, with units: reading them gives this again."""
        values: dict[str, Any] = self.model_dump(exclude_none=True, exclude_defaults=True)
        if self.tool_gap_s is not None:
            values["tool_gap_s"] = f"{self.tool_gap_s!r} s"
        if self.slo is not None:
            values["slo"] = {
                key: "unlimited" if limit == math.inf else f"{limit!r} s"
                for key, limit in self.slo.model_dump().items()
            }
        return values


class MixPart(Strict):
    """One class of a mix."""

    workload: Name
    weight: PositiveNumber
    """Share of all turns; weights are normalised to sum 1."""


class Mix(Strict):
    """Several classes of turns, each a workload of its own."""

    name: Name
    description: Text = ""
    model: Name | None = None
    """Default model; absent = that of the first class."""
    mix: Annotated[list[MixPart], Field(min_length=1, max_length=64)]
    slo: Slo | None = None
    sources: Sources = Field(default_factory=dict)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [part.workload for part in self.mix]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"each workload once is needed in the mix, {', '.join(twice)} repeats")
        return self
