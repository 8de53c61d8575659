"""Q-sessions: how sessions of one workload differ in length, from the workload's means alone.

Means over trajectories say more than they seem to: where turns x (append + output) exceeds what
the context grows by, long sessions must have shorter turns. If every session grows by the same
G = S - c0 and takes T turns of G/T tokens, mean(T) * mean(G/T) = G * mean(T) * mean(1/T), so the
excess over G is mean(T) * mean(1/T): the dispersion, with no constant to fit. A gamma distribution
of shape k has mean(T) * mean(1/T) = k / (k - 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dpplan.profiles.workload import TurnClass

__all__ = [
    "Sessions",
    "dispersion",
    "first_prompt_tokens",
    "gamma_classes",
    "scaled",
    "sessions_of",
]

Array = npt.NDArray[np.float64]

_SURVIVAL: Final = np.array(
    [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.14, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01, 0.005]
)
"""Edges of session classes by the share of sessions that last longer: fine in the tail, which
decides when a job ends."""

_LEAST_DISPERSION = 1.0 + 1e-6
"""Below it sessions are alike: the gamma's shape would exceed 1e6."""

_LARGEST_DISPERSION = 50.0
"""Above it the means contradict each other rather than tell a distribution."""


@dataclass(frozen=True)
class Sessions:
    """Classes of sessions of one workload, each of shape (classes,)."""

    fraction: Array
    """Share of all sessions."""
    turns: Array
    append_tokens: Array
    """Appended per turn after the first."""
    output_tokens: Array
    """Generated per turn."""
    first_prompt_tokens: float
    """c0: what the first turn prefills with nothing cached."""
    session_tokens: float
    dispersion: float
    """mean(T) * mean(1/T)."""


def first_prompt_tokens(turns: TurnClass) -> float:
    """c0 [tokens], the context after the first prompt: 2 * mean context - session tokens.

    The context grows linearly from c0 to the session's length, so its mean is half their sum.

    >>> w = TurnClass(name="x", model="m", turns_per_session=10, context_tokens=60,
    ...     append_tokens=5, output_tokens=3, session_tokens=100)
    >>> first_prompt_tokens(w)
    20.0
    """
    return min(max(2.0 * turns.context_tokens - turns.session_tokens, 0.0), turns.session_tokens)


def dispersion(turns: TurnClass) -> float:
    """mean(T) * mean(1/T) of a workload's sessions (Q-sessions), at least 1 = all alike.

    >>> w = TurnClass(name="x", model="m", turns_per_session=20, context_tokens=60,
    ...     append_tokens=5, output_tokens=3, session_tokens=100)
    >>> dispersion(w)  # 20 * 8 tokens stated, 80 grown
    2.0
    """
    growth = turns.session_tokens - first_prompt_tokens(turns)
    stated = turns.turns_per_session * (turns.append_tokens + turns.output_tokens)
    return min(max(stated / growth, 1.0), _LARGEST_DISPERSION) if growth > 0 else 1.0


def gamma_classes(dispersion: float, sessions: float) -> tuple[Array, Array]:
    """Mean and share of classes of a gamma distribution with mean 1 (Q-sessions).

    The classes are cut where given shares last longer; the last holds the one longest of
    `sessions` independent ones.

    Parameters
    ----------
    dispersion : float
        mean(T) * mean(1/T) = k / (k - 1), at least 1.
    sessions : float
        Distinct sessions, at least 1.

    Returns
    -------
    (ndarray, ndarray)
        Turns over the mean turns, and share of sessions, of every class; share-weighted mean 1.

    Examples
    --------
    >>> turns, share = gamma_classes(2.0, 500)
    >>> round(float((turns * share).sum()), 9), round(float(share.sum()), 9)
    (1.0, 1.0)
    >>> gamma_classes(1.0, 500)
    (array([1.]), array([1.]))
    """
    if dispersion < _LEAST_DISPERSION or sessions < 1.5:  # fewer than two: one kind
        return np.ones(1), np.ones(1)
    inner = _SURVIVAL[1:][_SURVIVAL[1:] * sessions > 1.5]
    edges = np.concatenate([_SURVIVAL[:1], inner, [1.0 / sessions, 0.0]])
    survival, mean_beyond = _gamma_tails(dispersion / (dispersion - 1.0))
    beyond = np.interp(edges, survival[::-1], mean_beyond[::-1])
    share = edges[:-1] - edges[1:]
    return np.asarray((beyond[:-1] - beyond[1:]) / share), share


def _gamma_tails(shape: float) -> tuple[Array, Array]:
    """Share and mean of what lies beyond points of a gamma distribution with mean 1, both falling.

    With x = exp(t) the density is w = exp(k*t - x) / gamma(k): smooth, so that the trapezoidal sum
    with its first correction is exact to 1e-9; the mean follows from Q(k+1, x) = Q(k, x) + w/k.
    (scipy.special has both, but takes longer to import than a prediction to make.)
    """
    centre, width = math.log(shape), 1.0 / math.sqrt(shape)
    t = np.linspace(
        centre - 12.0 * width - 40.0 / shape,
        math.log(shape + 12.0 * math.sqrt(shape) + 50.0),
        _POINTS,
    )
    step, x = t[1] - t[0], np.exp(t)
    w = np.exp(shape * t - x - math.lgamma(shape))
    slope = w * (shape - x)
    below = np.concatenate([[0.0], np.cumsum((w[1:] + w[:-1]) / 2)]) * step
    below -= step**2 / 12 * (slope - slope[0])
    survival = np.clip(1.0 - below, 0.0, 1.0)
    mean_beyond = np.clip(survival + w / shape, 0.0, 1.0)
    survival[-1] = mean_beyond[-1] = 0.0
    return np.minimum.accumulate(survival), np.minimum.accumulate(mean_beyond)


_POINTS = 8001


def sessions_of(turns: TurnClass, agents: float = math.inf) -> Sessions:
    """Classes of a workload's sessions (Q-sessions).

    Parameters
    ----------
    turns : TurnClass
        The workload's means; `distinct_sessions` bounds how many different ones there are.
    agents : float
        Sessions drawn; the longest of fewer is shorter. inf = as many as are distinct.

    Returns
    -------
    Sessions
    """
    spread = dispersion(turns)
    relative, share = gamma_classes(spread, min(agents, turns.distinct_sessions or _MANY))
    return Sessions(
        fraction=share,
        turns=turns.turns_per_session * relative,
        append_tokens=turns.append_tokens / (spread * relative),
        output_tokens=turns.output_tokens / (spread * relative),
        first_prompt_tokens=first_prompt_tokens(turns),
        session_tokens=turns.session_tokens,
        dispersion=spread,
    )


def scaled(turns: TurnClass, append_scale: float = 1.0, output_scale: float = 1.0) -> TurnClass:
    """The workload with turns that append and generate more or less.

    Sessions still end at the same length, so longer turns mean fewer of them; shorter turns leave
    their number, and sessions end shorter.

    Examples
    --------
    >>> w = TurnClass(name="x", model="m", turns_per_session=20, context_tokens=60,
    ...     append_tokens=5, output_tokens=3, session_tokens=100)
    >>> longer = scaled(w, append_scale=2.0, output_scale=2.0)
    >>> longer.turns_per_session, longer.append_tokens, longer.session_tokens
    (10.0, 10.0, 100.0)
    """
    if append_scale == 1.0 and output_scale == 1.0:
        return turns
    append, output = turns.append_tokens * append_scale, turns.output_tokens * output_scale
    grown = (append + output) / (turns.append_tokens + turns.output_tokens)
    first, shorter = first_prompt_tokens(turns), min(grown, 1.0)
    return turns.model_copy(
        update={
            "turns_per_session": turns.turns_per_session / max(grown, 1.0),
            "append_tokens": append,
            "output_tokens": output,
            "context_tokens": first + (turns.context_tokens - first) * shorter,
            "session_tokens": first + (turns.session_tokens - first) * shorter,
        }
    )


_MANY = 10_000.0
"""Distinct sessions where the workload doesn't say: the longest of them counts."""
