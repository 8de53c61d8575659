"""Q-sessions: classes of sessions against scipy's gamma distribution, by quadrature and draws.

Measured ones against sums over sessions, one by one.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from queueing_cases import distributions
from scipy import integrate, stats

from dpplan.demand.quantiles import Quantiles, relative_quantiles
from dpplan.demand.sessions import (
    append_after_first_tokens,
    dispersion,
    first_prompt_tokens,
    gamma_classes,
    measured_lengths,
    scaled,
    sessions_of,
)
from dpplan.profiles.library import read_profile
from dpplan.profiles.workload import TurnClass

MANY = settings(deadline=None, derandomize=True, max_examples=100)


def turns_of(**changes: object) -> TurnClass:
    values: dict[str, object] = {
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


# ------------------------------------------------------------------------------------- measured


@st.composite
def measured_workloads(draw: st.DrawFn) -> TurnClass:
    """Any legal means with any legal quantiles of turns, and often of lengths."""
    return draw(workloads()).model_copy(update={"distributions": draw(distributions())})


def one_by_one(workload: TurnClass, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Turns and lengths of `count` sessions in the middle of equal slices, scaled to the means."""
    found = workload.distributions
    assert found is not None
    place = (np.arange(count) + 0.5) / count
    columns = []
    for values, mean in (
        (found.per_session.turns, workload.turns_per_session),
        (found.per_session.session_tokens or [1.0] * 99, workload.session_tokens),
    ):
        assert values is not None
        at = np.interp(place, found.quantile_fractions, values[: len(found.quantile_fractions)])
        at = np.maximum(at, 1e-6 * values[len(found.quantile_fractions) - 1])
        columns.append(at / at.mean() * mean)
    turns, tokens = columns
    # Lengths follow turns as far as contexts that grow from nothing leave the mean context.
    together = (turns * tokens).mean() / turns.mean() / tokens.mean() - 1
    room = max(2 * workload.context_tokens / workload.session_tokens - 1, 0)
    if together > room:
        tokens = tokens.mean() + room / together * (tokens - tokens.mean())
    return turns, tokens


@MANY
@given(measured_workloads())
def test_measured_sums_are_those_of_sessions_one_by_one(workload: TurnClass) -> None:
    """Q-sessions: dispersion and length by turn against plain sums over 200,000 sessions."""
    turns, tokens = one_by_one(workload, 200_000)
    lengths = measured_lengths(workload)
    assert lengths is not None
    for quantiles, values in zip(lengths, (turns, tokens), strict=True):
        assert quantiles.mean() == pytest.approx(1, rel=1e-9)
        assert quantiles.at(0.5) == pytest.approx(np.median(values) / values.mean(), rel=1e-2)
    weighted = (turns * tokens).sum() / turns.sum() / workload.session_tokens
    assert lengths[0].mean_product(lengths[1]) == pytest.approx(weighted, rel=1e-3)
    if turns.min() > 1e-3 * turns.max():  # else the least sessions decide
        assert dispersion(workload) == pytest.approx(turns.mean() * (1 / turns).mean(), rel=1e-2)


@MANY
@given(measured_workloads(), st.one_of(st.floats(1, 3), st.floats(1, 1e6)))
def test_measured_sessions_keep_all_means(workload: TurnClass, agents: float) -> None:
    """Q-sessions: turns and lengths over sessions; appended, generated and context over turns."""
    found = sessions_of(workload, agents)
    for values in vars(found).values():
        assert np.isfinite(values).all()
        assert (np.asarray(values) >= 0).all()
    assert found.fraction.sum() == pytest.approx(1)
    assert (found.fraction * found.turns).sum() == pytest.approx(workload.turns_per_session)
    assert (found.fraction * found.session_tokens).sum() == pytest.approx(workload.session_tokens)
    weight = found.fraction * found.turns / workload.turns_per_session
    later = append_after_first_tokens(workload)
    for values, mean in (
        (found.append_tokens, later),
        (found.output_tokens, workload.output_tokens),
    ):
        assert (weight * values).sum() == pytest.approx(mean)
        # A session's tokens are in proportion to its length.
        share = found.turns * values * workload.session_tokens
        assert share == pytest.approx(found.session_tokens * mean * workload.turns_per_session)
    missed = (
        found.fraction * (found.first_prompt_tokens + found.turns * found.append_tokens)
    ).sum()
    whole = workload.append_tokens * workload.turns_per_session
    assert missed >= whole * (1 - 1e-9)
    if later > 0.02 * workload.append_tokens:  # else first prompts alone are more than all misses
        assert missed == pytest.approx(whole)
    assert (found.first_prompt_tokens <= found.session_tokens * (1 + 1e-12)).all()
    assert (np.diff(found.turns) >= -1e-9 * found.turns[-1]).all()
    lengths = measured_lengths(workload)
    assert lengths is not None
    longest = workload.session_tokens * lengths[0].mean_product(lengths[1])
    if agents > 1e4 and workload.session_tokens / 2 <= workload.context_tokens <= longest:
        middle = (found.first_prompt_tokens + found.session_tokens) / 2
        assert (weight * middle).sum() == pytest.approx(workload.context_tokens, rel=0.05)


@MANY
@given(measured_workloads(), st.sampled_from([2, 3, 10, 100, 1000]))
def test_measured_classes_are_means_of_sorted_sessions(workload: TurnClass, distinct: int) -> None:
    """Q-sessions: list sessions by length, cut at the shares, take means."""
    found = sessions_of(workload, distinct)
    count = 300_000
    cuts = np.round(np.cumsum(found.fraction)[:-1] * count).astype(int)
    turns, tokens = one_by_one(workload, count)
    for values, name in ((turns, "turns"), (tokens, "session_tokens")):
        means = [part.mean() for part in np.split(values, cuts)]
        assert getattr(found, name) == pytest.approx(means, rel=1e-3, abs=1e-3 * values.mean())
    assert found.fraction[-1] == pytest.approx(1 / distinct)


def test_measured_sessions_by_hand() -> None:
    """Q-sessions: half of the sessions short, half of them long, all numbers by hand."""
    steps = {
        "quantile_fractions": [0, 0.4999999, 0.5000001, 1],
        "per_session": {"turns": [5, 5, 15, 15], "session_tokens": [50, 50, 150, 150]},
    }
    workload = turns_of(
        turns_per_session=10, context_tokens=75, session_tokens=100, distributions=steps
    )
    assert dispersion(workload) == pytest.approx(10 * (1 / 5 + 1 / 15) / 2, rel=1e-5)
    # Turns see sessions of (5 * 50 + 15 * 150) / 20 = 125 tokens; 75 = 125 * (1 + share) / 2.
    assert first_prompt_tokens(workload) == pytest.approx(20, rel=1e-5)
    found = sessions_of(workload, 2)
    assert found.fraction == pytest.approx([0.1, 0.1, 0.3, 0.5])
    assert found.turns == pytest.approx([5] * 3 + [15], rel=1e-4)
    assert found.session_tokens == pytest.approx([50] * 3 + [150], rel=1e-4)
    assert found.first_prompt_tokens == pytest.approx([10] * 3 + [30], rel=1e-4)
    # Of 10 * 5 tokens missed, the mean first prompt is 20; the rest is three for each turn.
    assert found.append_tokens == pytest.approx([3] * 4, rel=1e-4)


def test_one_agent_of_measured_sessions_is_the_mean_one() -> None:
    """Q-sessions: and the longest of more is longer, up to the longest measured."""
    workload = turns_of(
        distributions={"quantile_fractions": [0, 0.9, 1], "per_session": {"turns": [1, 20, 300]}}
    )
    longest = [float(sessions_of(workload, n).turns.max()) for n in (1, 2, 10, 1e3, 1e5)]
    assert longest[0] == 20
    assert longest == sorted(longest)
    lengths = measured_lengths(workload)
    assert lengths is not None
    assert longest[-1] == pytest.approx(20 * lengths[0].values[-1], rel=1e-2)


@MANY
@given(measured_workloads(), st.floats(0.1, 10), st.floats(0.1, 10))
def test_scaled_turns_of_measured_sessions(
    workload: TurnClass, append: float, output: float
) -> None:
    """Q-sessions: the spread stays, and first prompts do."""
    other = scaled(workload, append, output)
    assert dispersion(other) == dispersion(workload)
    lengths = measured_lengths(workload)
    assert lengths is not None
    longest = workload.session_tokens * lengths[0].mean_product(lengths[1])
    if longest / 2 <= workload.context_tokens <= longest:
        assert first_prompt_tokens(other) == pytest.approx(
            first_prompt_tokens(workload), rel=1e-6, abs=1e-6 * other.session_tokens
        )


def test_quantiles_that_are_not_told_are_all_one() -> None:
    """Q-sessions: absent or all zero; a flat piece has a mean, too."""
    assert relative_quantiles([0, 1], None).values.tolist() == [1, 1]
    assert relative_quantiles([0, 1], [0, 0]).values.tolist() == [1, 1]
    flat = Quantiles(np.array([0.0, 0.5, 1.0]), np.array([2.0, 2.0, 4.0]))
    assert flat.mean_inverse() == pytest.approx(0.25 + 0.25 * np.log(2))
    assert flat.slice_means(np.array([0.0, 0.25, 0.75, 1.0])) == pytest.approx([2.0, 2.25, 3.5])


def test_a_workload_of_other_distributions_alone_is_as_its_means() -> None:
    """Q-sessions: without quantiles of turns per session nothing changes."""
    plain, told = (
        sessions_of(turns_of(**changes))
        for changes in (
            {},
            {
                "distributions": {
                    "quantile_fractions": [0, 1],
                    "per_turn": {"append_tokens": [1, 9]},
                }
            },
        )
    )
    for name, values in vars(plain).items():
        assert np.array_equal(values, getattr(told, name))
