"""H-synthesis: how sessions are drawn where a workload's distributions were measured.

Turns per session and tokens and gaps of each turn are drawn from their quantiles, independently of
one another; quantiles are scaled to the workload's means. What the growth leaves of the mean
session is the first prompt, which is larger or smaller in long sessions as the mean context asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from dpplan.arrays import Array
from dpplan.demand.quantiles import Quantiles, relative_quantiles
from dpplan.demand.sessions import append_after_first_tokens, measured_lengths
from dpplan.profiles.workload import TurnClass
from dpplan.traces.synthesis.session_law import (
    Law,
    SessionLaw,
    WholeTurns,
    crossing,
    gamma_turns,
    session_law,
)

__all__ = ["MeasuredLaw", "gap_quantiles", "law_of"]


_STEEPEST: Final = 1.0
"""Largest exponent: beyond it a few sessions would have all of the first prompts' tokens."""


@dataclass(frozen=True, eq=False, kw_only=True)
class MeasuredLaw(Law):
    """Sessions of T turns that start with first_prompt_tokens * T**exponent / mean(T**exponent).

    What turns append and generate are means over turns, appends with first prompts where sessions
    are measured, as in the profile.
    """

    append: Quantiles
    output: Quantiles
    """Of a turn, over their means."""
    later_append_tokens: float
    """Mean over turns without first prompts."""

    @property
    def output_over_turns_tokens(self) -> float:
        """Mean over turns of what one generates."""
        return self.output_tokens

    def tokens_of(self, turns: int, draw: np.random.Generator) -> tuple[Array, Array]:
        """What each turn of a session of so many brings and generates, shape (turns,)."""
        places = draw.random((2, turns))
        brought = self.later_append_tokens * self.append.at(places[0])
        brought[0] += self.first_prompt_tokens * float(turns) ** self.exponent / self.power_mean
        return brought, self.output_tokens * self.output.at(places[1])


def law_of(workload: TurnClass) -> SessionLaw | MeasuredLaw:
    """The law that a workload's sessions are drawn from, measured as far as its profile is.

    Parameters
    ----------
    workload : TurnClass

    Returns
    -------
    SessionLaw or MeasuredLaw
        Its own means say what sessions drawn from it will have.

    Raises
    ------
    BadInput
        If there is more of something than can be written.

    Examples
    --------
    >>> w = TurnClass(name="x", model="m", turns_per_session=2, context_tokens=125,
    ...     append_tokens=30, output_tokens=20, session_tokens=200,
    ...     distributions={"quantile_fractions": [0, 1], "per_turn": {"append_tokens": [20, 40]}})
    >>> law = law_of(w)
    >>> round(law.first_prompt_tokens, 6), round(law.context_tokens, 6)
    (100.0, 125.0)
    """
    from_means, told = session_law(workload), workload.distributions
    lengths = measured_lengths(workload)
    if told is None or (
        lengths is None
        and told.per_turn.append_tokens is None
        and told.per_turn.output_tokens is None
    ):
        return from_means
    relative = gamma_turns(from_means.shape) if lengths is None else lengths[0].at
    whole = WholeTurns(relative, workload.turns_per_session)
    append = append_after_first_tokens(workload)
    added = append + workload.output_tokens
    first = max(workload.session_tokens - whole.mean_turns * added, 0.0)
    grown = added * whole.moment(0.0, lambda t: t * (t - 1.0)) / (2.0 * whole.mean_turns)
    exponent = _exponent(whole, (workload.context_tokens - grown) / first if first else 1.0)
    middle = whole.moment(exponent)
    seen = first * whole.moment(exponent, lambda t: t) / (middle * whole.mean_turns)
    fractions = told.quantile_fractions
    return MeasuredLaw(
        turns=whole,
        append=relative_quantiles(fractions, told.per_turn.append_tokens),
        output=relative_quantiles(fractions, told.per_turn.output_tokens),
        exponent=exponent,
        power_mean=middle,
        first_prompt_tokens=first,
        turns_per_session=whole.mean_turns,
        append_tokens=append if lengths is None else append + first / whole.mean_turns,
        later_append_tokens=append,
        output_tokens=workload.output_tokens,
        session_tokens=first + whole.mean_turns * added,
        context_tokens=seen + grown,
    )


def _exponent(whole: WholeTurns, wanted: float) -> float:
    """The e at which mean(T**(1+e)) / (mean(T) * mean(T**e)), which rises with e, is `wanted`."""

    def seen(exponent: float) -> float:
        return whole.moment(exponent, lambda t: t) / (whole.moment(exponent) * whole.mean_turns)

    if abs(seen(_STEEPEST) - seen(-_STEEPEST)) < 1e-9:  # sessions are alike
        return 0.0
    return crossing(lambda exponent: seen(exponent) - wanted, -_STEEPEST, _STEEPEST)


def gap_quantiles(workload: TurnClass) -> tuple[Quantiles | None, float]:
    """Measured tool gaps over their mean, if any, and the mean [s]: the profile's, or theirs."""
    told = workload.distributions
    values = None if told is None else told.per_turn.tool_gap_s
    mean_s = workload.tool_gap_s
    if told is None or values is None:
        return None, mean_s or 0.0
    if mean_s is None:
        mean_s = Quantiles(np.array(told.quantile_fractions), np.array(values)).mean()
    return relative_quantiles(told.quantile_fractions, values), mean_s
