"""The workload profile: one class of turns, or a mix of classes."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from dpplan.profiles.schema import (
    Name,
    Number,
    PositiveNumber,
    Seconds,
    SecondsOrUnlimited,
    Sources,
    Strict,
    Text,
)

__all__ = ["Mix", "MixPart", "Slo", "TurnClass"]


class Slo(Strict):
    """Latency limits; `unlimited` lifts one."""

    ttft: SecondsOrUnlimited = 4.0
    tpot: SecondsOrUnlimited = 0.05


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
    sources: Sources = Field(default_factory=dict)


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
