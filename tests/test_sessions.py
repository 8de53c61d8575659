"""Q-sessions: classes of sessions against scipy's gamma distribution, by quadrature and draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from dpplan.profiles.library import read_profile
from dpplan.profiles.workload import TurnClass
from dpplan.queueing.sessions import (
    dispersion,
    first_prompt_tokens,
    gamma_classes,
    scaled,
    sessions_of,
)

MANY = settings(deadline=None, derandomize=True, max_examples=100)


def turns_of(**changes: float) -> TurnClass:
    values: dict[str, float] = {
        "turns_per_session": 20,
        "context_tokens": 60,
        "append_tokens": 5,
        "output_tokens": 3,
        "session_tokens": 100,
    }
    return TurnClass.model_validate({"name": "x", "model": "m"} | values | changes)


@st.composite
def workloads(draw: st.DrawFn) -> TurnClass:
    """Any legal means, those that contradict each other too."""
    return turns_of(
        turns_per_session=draw(st.floats(0.5, 1e3)),
        context_tokens=draw(st.one_of(st.just(0.0), st.floats(1, 1e6))),
        append_tokens=draw(st.floats(1e-3, 1e5)),
        output_tokens=draw(st.one_of(st.just(0.0), st.floats(1e-3, 1e4))),
        session_tokens=draw(st.floats(1, 1e6)),
    )


@pytest.mark.parametrize("spread", [1.05, 1.3, 1.7, 2.5, 5.0, 20.0])
@pytest.mark.parametrize("sessions", [2, 10, 500, 10_000])
def test_classes_are_slices_of_the_gamma_distribution(spread: float, sessions: int) -> None:
    """Q-sessions: mean of every class by quadrature between scipy's quantiles."""
    relative, share = gamma_classes(spread, sessions)
    shape = spread / (spread - 1)
    gamma = stats.gamma(shape, scale=1 / shape)
    beyond = np.concatenate([[1.0], 1.0 - np.cumsum(share)])
    edges = gamma.isf(np.clip(beyond, 1e-300, 1))
    for low, high, size, mean in zip(edges[:-1], edges[1:], share, relative, strict=True):
        top = min(high, gamma.isf(1e-14))
        area, _ = integrate.quad(lambda x: x * gamma.pdf(x), low, top, epsabs=1e-12, limit=200)
        assert mean * size == pytest.approx(area, rel=1e-4, abs=1e-7)
    assert share[-1] == pytest.approx(1 / sessions)
    assert (np.diff(relative) > 0).all()


def test_classes_are_means_of_sorted_draws() -> None:
    """Q-sessions: draw, sort, cut at the shares, take means."""
    relative, share = gamma_classes(1.7, 500)
    shape = 1.7 / 0.7
    drawn = np.sort(np.random.default_rng(7).gamma(shape, 1 / shape, 2_000_000))
    cuts = np.round(np.cumsum(share)[:-1] * len(drawn)).astype(int)
    means = [part.mean() for part in np.split(drawn, cuts)]
    assert relative == pytest.approx(means, rel=0.01)
    # The dispersion that the shape was chosen for.
    assert drawn.mean() * (1 / drawn).mean() == pytest.approx(1.7, rel=0.01)


@MANY
@given(st.floats(1.0, 50.0), st.one_of(st.floats(1.0, 2.0), st.floats(1.0, 1e6)))
def test_classes_keep_mean_and_sum(spread: float, sessions: float) -> None:
    """Q-sessions: shares sum to 1, the mean is 1, the longest class holds one session."""
    relative, share = gamma_classes(spread, sessions)
    assert share.sum() == pytest.approx(1, rel=1e-9)
    assert (relative * share).sum() == pytest.approx(1, rel=1e-5)
    assert (share > 0).all()
    assert (relative > 0).all()
    assert np.isfinite(relative).all()
    assert (len(share) > 1) == (spread >= 1 + 1e-6 and sessions >= 1.5)
    if len(share) > 1:
        assert share[-1] == pytest.approx(1 / sessions)
    # Harmonic and arithmetic mean of the classes: at most the dispersion, which slices average.
    assert 1 - 1e-5 <= (share / relative).sum() <= spread * 1.001


@pytest.mark.parametrize("spread", [1.2, 1.65, 2.0])
def test_classes_tell_most_of_the_dispersion(spread: float) -> None:
    """Q-sessions: mean(T) * mean(1/T) of the classes is that of the distribution within 13 %."""
    relative, share = gamma_classes(spread, 10_000)
    assert (share / relative).sum() == pytest.approx(spread, rel=0.13)


def test_dispersion_of_the_published_data_sets() -> None:
    """Q-sessions: turns x (append + output) over the growth, three data sets of the paper."""
    for name, first, due in (
        ("agentic", 9484, 2.0438),
        ("agentic-48k", 7633, 1.9577),
        ("agentic-32k", 5727, 1.9797),
    ):
        workload = read_profile("workloads", name)
        assert isinstance(workload, TurnClass)
        assert first_prompt_tokens(workload) == first
        assert dispersion(workload) == pytest.approx(due, rel=1e-3)


@MANY
@given(workloads(), st.floats(1, 1e6))
def test_sessions_of_any_means(workload: TurnClass, agents: float) -> None:
    """Q-sessions: finite, positive; the mean turns are kept; c0 lies within the session."""
    found = sessions_of(workload, agents)
    for name in ("fraction", "turns", "append_tokens", "output_tokens"):
        values = getattr(found, name)
        assert np.isfinite(values).all()
        assert (values >= 0).all()
    assert (found.fraction * found.turns).sum() == pytest.approx(
        workload.turns_per_session, rel=1e-5
    )
    assert 0 <= found.first_prompt_tokens <= workload.session_tokens
    assert found.dispersion >= 1
    # Every session ends where it should: turns times tokens a turn is the growth, unless clipped.
    grown = found.turns * (found.append_tokens + found.output_tokens)
    if 1 < found.dispersion < 50:
        due = workload.session_tokens - found.first_prompt_tokens
        assert grown == pytest.approx(np.full(len(grown), due), rel=1e-6)


def test_a_context_longer_than_the_session_is_clamped() -> None:
    """Q-sessions: session_tokens < context: all of the session is its first prompt."""
    workload = turns_of(context_tokens=500)
    assert first_prompt_tokens(workload) == 100
    assert dispersion(workload) == 1.0
    assert len(sessions_of(workload).turns) == 1


def test_fewer_agents_draw_shorter_longest_sessions() -> None:
    """Q-sessions: one agent is the mean one; of more, the longest is longer."""
    workload = turns_of()
    longest = [float(sessions_of(workload, n).turns.max()) for n in (1, 2, 10, 100, 1e4, 1e6)]
    assert longest[0] == 20
    assert longest == sorted(longest)
    distinct = workload.model_copy(update={"distinct_sessions": 100})
    assert sessions_of(distinct, 1e6).turns.max() == pytest.approx(longest[3])
    assert longest[4] == longest[5]  # more than 10,000 are repeats where the workload doesn't say


@MANY
@given(workloads(), st.floats(0.1, 10), st.floats(0.1, 10))
def test_scaled_turns(workload: TurnClass, append: float, output: float) -> None:
    """Q-sessions: longer turns are fewer to the same end; shorter ones end sooner; same spread."""
    other = scaled(workload, append, output)
    assert other.append_tokens == pytest.approx(workload.append_tokens * append)
    assert other.output_tokens == pytest.approx(workload.output_tokens * output)
    grown = (other.append_tokens + other.output_tokens) / (
        workload.append_tokens + workload.output_tokens
    )
    first = first_prompt_tokens(workload)
    if grown >= 1:
        assert other.session_tokens == pytest.approx(workload.session_tokens)
        assert other.turns_per_session == pytest.approx(workload.turns_per_session / grown)
    else:
        assert other.turns_per_session == pytest.approx(workload.turns_per_session)
        due = first + (workload.session_tokens - first) * grown
        assert other.session_tokens == pytest.approx(due)
    if 2 * workload.context_tokens >= workload.session_tokens > workload.context_tokens:
        assert first_prompt_tokens(other) == pytest.approx(first, abs=1e-6 * other.session_tokens)
        growth = (workload.session_tokens - first) / workload.session_tokens
        if growth * min(grown, 1) > 1e-3:  # else a difference of like numbers
            assert dispersion(other) == pytest.approx(dispersion(workload), rel=1e-6)


def test_not_scaled_is_the_same() -> None:
    """Q-sessions: factors of 1 leave the workload itself."""
    workload = turns_of()
    assert scaled(workload) is workload
    assert scaled(workload, 1.0, 1.0 + 1e-12).turns_per_session == pytest.approx(20)
