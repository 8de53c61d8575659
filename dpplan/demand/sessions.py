"""Q-sessions: how sessions of one workload differ in length, as measured or from means alone.

Means over trajectories say more than they seem to: where turns x (append + output) exceeds what
the context grows by, long sessions must have shorter turns. If every session grows by the same
G = S - c0 and takes T turns of G/T tokens, mean(T) * mean(G/T) = G * mean(T) * mean(1/T), so the
excess over G is mean(T) * mean(1/T): the dispersion, with no constant to fit. A gamma distribution
of shape k has mean(T) * mean(1/T) = k / (k - 1).

Where the workload has measured quantiles of turns per session, classes are slices of these. Its
append, output and context are then means over turns, as a trace's are, and stay that: a class
appends and generates in proportion to how long its sessions get, and c0 is the same share of that
length in all of them. Sessions of one place in the order of turns take the same place in the order
of lengths, as far as the mean context allows. (One length for all would put the contexts of short
sessions far above what they hold, and c0 = 2 * mean context - session tokens beyond the session, as
turns of long ones weigh more.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from dpplan.arrays import Array
from dpplan.demand.quantiles import Quantiles, relative_quantiles
from dpplan.profiles.workload import TurnClass

__all__ = [
    "Sessions",
    "append_after_first_tokens",
    "dispersion",
    "first_prompt_tokens",
    "gamma_classes",
    "measured_classes",
    "measured_lengths",
    "scaled",
    "sessions_of",
]


_SURVIVAL: Final = np.array(
    [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.14, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01, 0.005]
)
"""Edges of session classes by the share of sessions that last longer: fine in the tail, which
decides when a job ends."""

_LEAST_DISPERSION = 1.0 + 1e-6
"""Below it sessions are alike: the gamma's shape would exceed 1e6."""

_LEAST_APPEND: Final = 0.01
"""Of the mean append, however large first prompts are: a turn brings something."""

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
    first_prompt_tokens: Array
    """c0: what the first turn prefills with nothing cached; (1,) where classes are alike in it."""
    session_tokens: Array
    """(1,) where classes are alike in it."""
    dispersion: float
    """mean(T) * mean(1/T)."""


def first_prompt_tokens(turns: TurnClass) -> float:
    """c0 [tokens], the context after the first prompt: 2 * mean context - session tokens.

    The context grows linearly from c0 to the session's length, so its mean is half their sum.
    Where lengths are measured, the mean over turns, of which long sessions have more.

    >>> w = TurnClass(name="x", model="m", turns_per_session=10, context_tokens=60,
    ...     append_tokens=5, output_tokens=3, session_tokens=100)
    >>> first_prompt_tokens(w)
    20.0
    """
    # Multiplied by 1 where lengths aren't measured: nothing is rounded.
    weighted = turns.session_tokens * _length_by_turn(turns)
    first = min(max(2.0 * turns.context_tokens - weighted, 0.0), weighted)
    return first / weighted * turns.session_tokens if weighted != turns.session_tokens else first


def append_after_first_tokens(turns: TurnClass) -> float:
    """Mean append without the first prompts that it counts where sessions are measured [tokens]."""
    if turns.distributions is None or turns.distributions.per_session.turns is None:
        return turns.append_tokens
    first = first_prompt_tokens(turns) / turns.turns_per_session
    return max(turns.append_tokens - first, _LEAST_APPEND * turns.append_tokens)


def measured_lengths(turns: TurnClass) -> tuple[Quantiles, Quantiles] | None:
    """Quantiles of turns and tokens of a session, each over its mean; None = not measured.

    Tokens are those expected at a place in the order of turns. Were both orders the same, contexts
    that grow from nothing might average more than the mean context (sessions that are compacted
    grow no longer); lengths then follow turns only as far as that mean allows.
    """
    found = turns.distributions
    if found is None or found.per_session.turns is None:
        return None
    fractions, told = found.quantile_fractions, found.per_session
    number = relative_quantiles(fractions, told.turns, positive=True)
    tokens = relative_quantiles(fractions, told.session_tokens, positive=True)
    together = number.mean_product(tokens) - 1.0
    room = max(2.0 * turns.context_tokens / turns.session_tokens - 1.0, 0.0)
    if together > room:
        kept = 1.0 + room / together * (tokens.values - 1.0)
        tokens = Quantiles(tokens.fractions, kept)
    return number, tokens


def _length_by_turn(turns: TurnClass) -> float:
    """Mean length of the session that a turn is in, over the mean session's; at least 1."""
    measured = measured_lengths(turns)
    return 1.0 if measured is None else max(measured[0].mean_product(measured[1]), 1.0)


def dispersion(turns: TurnClass) -> float:
    """mean(T) * mean(1/T) of a workload's sessions (Q-sessions), at least 1 = all alike.

    Of the quantiles where turns are measured, else as the means tell it.

    >>> w = TurnClass(name="x", model="m", turns_per_session=20, context_tokens=60,
    ...     append_tokens=5, output_tokens=3, session_tokens=100)
    >>> dispersion(w)  # 20 * 8 tokens stated, 80 grown
    2.0
    """
    measured = measured_lengths(turns)
    if measured is not None:
        return max(measured[0].mean_inverse(), 1.0)
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
    edges = _edges(sessions)
    survival, mean_beyond = _gamma_tails(dispersion / (dispersion - 1.0))
    beyond = np.interp(edges, survival[::-1], mean_beyond[::-1])
    share = edges[:-1] - edges[1:]
    return np.asarray((beyond[:-1] - beyond[1:]) / share), share


def _edges(sessions: float) -> Array:
    """Shares of sessions that last longer, falling from 1 to 0; the last but one leaves one."""
    inner = _SURVIVAL[1:][_SURVIVAL[1:] * sessions > 1.5]
    return np.concatenate([_SURVIVAL[:1], inner, [1.0 / sessions, 0.0]])


def measured_classes(
    turns: Quantiles, tokens: Quantiles, sessions: float
) -> tuple[Array, Array, Array]:
    """Classes of measured sessions (Q-sessions), cut as those of `gamma_classes`.

    Parameters
    ----------
    turns, tokens : Quantiles
        Of turns per session and of session lengths, each of mean 1.
    sessions : float
        Distinct sessions, at least 1.

    Returns
    -------
    (ndarray, ndarray, ndarray)
        Turns over the mean turns, length over the mean length, and share of sessions, of every
        class; the share-weighted means are 1.

    Examples
    --------
    >>> even = Quantiles(np.array([0.0, 1.0]), np.array([0.5, 1.5]))
    >>> relative, length, share = measured_classes(even, even, 2.0)
    >>> relative.round(2).tolist(), share.round(2).tolist()
    ([0.55, 0.65, 0.85, 1.25], [0.1, 0.1, 0.3, 0.5])
    """
    if sessions < 1.5:  # fewer than two: one kind
        return np.ones(1), np.ones(1), np.ones(1)
    edges = _edges(sessions)
    places = 1.0 - edges
    return turns.slice_means(places), tokens.slice_means(places), edges[:-1] - edges[1:]


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
    spread, first = dispersion(turns), first_prompt_tokens(turns)
    distinct = min(agents, turns.distinct_sessions or _MANY)
    measured = measured_lengths(turns)
    if measured is not None:
        relative, length, share = measured_classes(*measured, distinct)
        # In proportion to the length, and turn-weighted means are the workload's. The mean append
        # of a trace counts first prompts too.
        each = length / relative
        later = append_after_first_tokens(turns)
        return Sessions(
            fraction=share,
            turns=turns.turns_per_session * relative,
            append_tokens=later * each,
            output_tokens=turns.output_tokens * each,
            first_prompt_tokens=first * length,
            session_tokens=turns.session_tokens * length,
            dispersion=spread,
        )
    relative, share = gamma_classes(spread, distinct)
    return Sessions(
        fraction=share,
        turns=turns.turns_per_session * relative,
        append_tokens=turns.append_tokens / (spread * relative),
        output_tokens=turns.output_tokens / (spread * relative),
        first_prompt_tokens=np.array([first]),
        session_tokens=np.array([turns.session_tokens]),
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
    first_by_turn = first * _length_by_turn(turns)
    return turns.model_copy(
        update={
            "turns_per_session": turns.turns_per_session / max(grown, 1.0),
            "append_tokens": append,
            "output_tokens": output,
            "context_tokens": first_by_turn + (turns.context_tokens - first_by_turn) * shorter,
            "session_tokens": first + (turns.session_tokens - first) * shorter,
        }
    )


_MANY = 10_000.0
"""Distinct sessions where the workload doesn't say: the longest of them counts."""
