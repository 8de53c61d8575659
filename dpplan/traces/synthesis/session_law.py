"""H-synthesis: how sessions are drawn from the means of a workload.

The means don't tell how sessions differ, so they differ as in Q-sessions: a gamma law of turns,
longer sessions with shorter turns. What rounding to whole turns would shift is solved for, so that
the means of the sessions drawn are the profile's but for the luck of the draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from dpplan.arrays import Array, Ints
from dpplan.demand.sessions import dispersion
from dpplan.errors import BadInput, Fault
from dpplan.profiles.workload import TurnClass

__all__ = ["Law", "SessionLaw", "WholeTurns", "crossing", "gamma_turns", "session_law"]


_POINTS: Final = 4096
_ALIKE: Final = 1.0 + 1e-6
_ROUNDS: Final = 30
_STEEPEST: Final = 3.0
"""Largest exponent looked for: means that ask for more contradict each other."""
_MOST_TURNS: Final = 1e6
_MOST_TOKENS: Final = 1e9


class WholeTurns:
    """A law of turns, rounded up or down at random to whole ones, one at least.

    Parameters
    ----------
    relative : callable
        Its quantiles at places in [0, 1], over their mean.
    turns : float
        The mean wanted.
    """

    def __init__(self, relative: Callable[[Array], Array], turns: float) -> None:
        self._relative = relative
        # Slices that narrow towards the long sessions, which weigh most in the means.
        s = (np.arange(_POINTS) + 0.5) / _POINTS
        self._weight = 3.0 * (1.0 - s) ** 2
        self._weight /= self._weight.sum()
        found = relative(1.0 - (1.0 - s) ** 3)
        # The mean of at least one turn each is to be the one wanted.
        self.scale_turns = crossing(
            lambda scale: float((self._weight * np.maximum(found * scale, 1.0)).sum()) - turns,
            0.0,
            turns,
        )
        exact = np.maximum(found * self.scale_turns, 1.0)
        self._low = np.floor(exact)
        self._above = exact - self._low
        self.mean_turns = self.moment(0.0, lambda t: t)

    def at(self, place: Array, rounding: Array) -> Ints:
        """Turns at places of the law, both numbers uniform in [0, 1); shape (n,)."""
        exact = np.maximum(self.scale_turns * self._relative(place), 1.0)
        return np.floor(exact + rounding).astype(np.int64)

    def moment(self, exponent: float, of: Callable[[Array], Array] | None = None) -> float:
        """Mean of T**exponent, times a function of T where one is given."""
        turns = np.stack([self._low, self._low + 1.0])
        values = turns**exponent * (1.0 if of is None else of(turns))
        return float((self._weight * np.stack([1.0 - self._above, self._above]) * values).sum())

    def exponent(self, per_turn: float) -> float:
        """The e at which mean(T**(e-1)) / mean(T**e), which falls with e, is `per_turn`."""
        if (self._low == self._low[0]).all() and not self._above.any():
            return 0.0
        return crossing(
            lambda e: per_turn - self.moment(e, lambda t: 1.0 / t) / self.moment(e),
            -_STEEPEST,
            _STEEPEST,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Law:
    """How sessions are drawn, and the means that follow, free of sampling error."""

    turns: WholeTurns
    exponent: float
    """Of the power of a session's turns T that its tokens go by."""
    power_mean: float
    """Mean of T**exponent."""
    first_prompt_tokens: float
    """Mean over sessions."""
    turns_per_session: float
    append_tokens: float
    output_tokens: float
    session_tokens: float
    context_tokens: float
    """Mean over turns of what the session held before it."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SessionLaw(Law):
    """Sessions of T turns that are alike where they have as many.

    Each starts with `first_prompt_tokens` and grows by growth * T**exponent / mean(T**exponent),
    evenly but for `tilt`; a share `append_fraction` of each turn's growth is appended, the rest
    generated. With an exponent of 0 every session grows alike, with 1 every turn does. The means of
    what turns append and generate are those over sessions of a session's mean turn.
    """

    shape: float
    """Of the gamma law of turns; inf = all alike."""
    growth_tokens: float
    tilt: float
    """0: turns of a session are alike; 1: the first one adds nothing, the last one twice."""
    append_fraction: float

    @property
    def output_over_turns_tokens(self) -> float:
        """Mean over turns of what one generates: long sessions count more."""
        return self.growth_tokens * (1.0 - self.append_fraction) / self.turns_per_session

    def growth_of(self, turns: int) -> Array:
        """Tokens that each turn of a session of so many adds, shape (turns,)."""
        total = self.growth_tokens * turns**self.exponent / self.power_mean
        place = np.linspace(-1.0, 1.0, turns) if turns > 1 else np.zeros(1)
        return np.asarray(total / turns * (1.0 + self.tilt * place))

    def tokens_of(self, turns: int, draw: np.random.Generator) -> tuple[Array, Array]:
        """What each turn of a session of so many brings and generates, shape (turns,)."""
        del draw  # sessions of as many turns are alike
        growth = self.growth_of(turns)
        brought = growth * self.append_fraction
        brought[0] += self.first_prompt_tokens
        return brought, growth * (1.0 - self.append_fraction)


def session_law(workload: TurnClass) -> SessionLaw:
    """The law whose means are a workload's, as far as they don't contradict each other.

    Parameters
    ----------
    workload : TurnClass

    Returns
    -------
    SessionLaw
        Its own means say what sessions drawn from it will have.

    Raises
    ------
    BadInput
        If there is more of something than can be written.

    Examples
    --------
    Two turns of 30 + 20 tokens after 100: contexts of 100 and 150.

    >>> w = TurnClass(name="x", model="m", turns_per_session=2, context_tokens=125,
    ...     append_tokens=30, output_tokens=20, session_tokens=200)
    >>> law = session_law(w)
    >>> round(law.first_prompt_tokens, 6), round(law.append_tokens, 6), round(law.tilt, 6)
    (100.0, 30.0, 0.0)
    """
    _check(workload)
    spread = dispersion(workload)
    shape = spread / (spread - 1.0) if spread > _ALIKE else math.inf
    whole = WholeTurns(gamma_turns(shape), workload.turns_per_session)
    turns, added = whole.mean_turns, workload.append_tokens + workload.output_tokens
    exponent = growth = 0.0
    for _ in range(_ROUNDS):
        # Contexts of even growth average first + growth * mean((T - 1) * T**e) / (2 T mean(T**e)).
        part = whole.moment(exponent, lambda t: t - 1.0) / (2.0 * turns * whole.moment(exponent))
        growth = (workload.session_tokens - workload.context_tokens) / (1.0 - part)
        growth = min(max(growth, 0.0), workload.session_tokens)
        before, exponent = exponent, whole.exponent(added / growth if growth else math.inf)
        if abs(exponent - before) < 1e-10:
            break
    middle = whole.moment(exponent)
    first = workload.session_tokens - growth
    even = growth * whole.moment(exponent, lambda t: t - 1.0) / (2.0 * turns * middle)
    # A lone turn cannot be tilted.
    reach = growth * whole.moment(exponent, lambda t: np.where(t > 1.0, t + 1.0, 0.0))
    reach /= 6.0 * turns * middle
    high = first + even - workload.context_tokens
    tilt = min(max(high / reach, -1.0), 1.0) if reach > 1e-9 * workload.session_tokens else 0.0
    tilt = 0.0 if abs(tilt) < 1e-9 else tilt
    share = workload.append_tokens / added
    per_turn = growth * whole.moment(exponent, lambda t: 1.0 / t) / middle
    return SessionLaw(
        turns=whole,
        shape=shape,
        exponent=exponent,
        power_mean=middle,
        growth_tokens=growth,
        first_prompt_tokens=first,
        tilt=tilt,
        append_fraction=share,
        turns_per_session=turns,
        append_tokens=per_turn * share,
        output_tokens=per_turn * (1.0 - share),
        session_tokens=first + growth,
        context_tokens=first + even - tilt * reach,
    )


def crossing(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function crosses zero; the end of the range next to it where it doesn't."""
    from scipy.optimize import brentq

    if rising(low) >= 0.0:
        return low
    return high if rising(high) <= 0.0 else float(brentq(rising, low, high, xtol=1e-14))


def gamma_turns(shape: float) -> Callable[[Array], Array]:
    """Quantiles of a gamma law of mean 1, at places in [0, 1]; shape inf = always 1."""
    if math.isinf(shape):
        return np.ones_like
    from scipy.special import gammaincinv

    return lambda place: np.asarray(gammaincinv(shape, place) / shape)


def _check(workload: TurnClass) -> None:
    faults = []
    for name, most in (
        ("turns_per_session", _MOST_TURNS),
        ("session_tokens", _MOST_TOKENS),
        ("append_tokens", _MOST_TOKENS),
        ("output_tokens", _MOST_TOKENS),
    ):
        value, where = getattr(workload, name), f"workload {workload.name}: {name}"
        if value > most:
            faults.append(Fault(where, f"at most {most:,.0f} is needed for a trace", f"{value:g}"))
    turns = workload.turns_per_session
    if turns < 1:
        where = f"workload {workload.name}: turns_per_session"
        faults.append(Fault(where, "one turn at least is needed", f"{turns:g}"))
    if faults:
        raise BadInput(faults)
