"""Law L with limits on a way's share: against scipy, finite differences and the closed form."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpplan.errors import Infeasible, UncertifiedAnswer
from dpplan.solvers.certificate import certify, cheapest_mix
from dpplan.solvers.closed_form import best_split, ends_of, loads
from dpplan.solvers.lp import maximise_turns, minimise_cost

Array = npt.NDArray[np.float64]
INF = math.inf


def with_scipy(use: Array, capacity: Array, weights: Array, at_most: Array) -> float:
    """The programme written down again, dense, in turns/s and shares, for scipy's simplex.

    Variables: every class's shares of its ways, then the highest load h of one turn/s; minimise h.
    """
    from scipy.optimize import linprog

    classes, ways, rows = use.shape
    shares = classes * ways
    per_turn = (weights[:, None, None] * use / capacity).reshape(shares, rows).T
    size = per_turn.max()
    one_turn = np.kron(np.eye(classes), np.ones(ways))
    optimum = linprog(
        c=np.append(np.zeros(shares), 1.0),
        A_ub=np.column_stack([per_turn / size, -np.ones(rows)]),
        b_ub=np.zeros(rows),
        A_eq=np.column_stack([one_turn, np.zeros(classes)]),
        b_eq=np.ones(classes),
        bounds=[(0.0, float(most)) for most in at_most.ravel()] + [(0.0, None)],
        method="highs-ds",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    assert optimum.status == 0
    highest: float = optimum.fun * size
    return 1.0 / highest if highest > 1e-13 * size else INF


@st.composite
def instances(draw: st.DrawFn) -> tuple[Array, Array, Array, Array]:
    """Use, capacity, weights and limits: small whole numbers make ties, floats make scales."""
    classes, ways, rows = draw(st.integers(1, 4)), draw(st.integers(2, 5)), draw(st.integers(2, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (classes, ways, rows)
    if draw(st.booleans()):
        use = rng.integers(0, 4, shape).astype(float)
        capacity = 2.0 ** rng.integers(0, 4, rows)
        at_most = rng.integers(0, 5, (classes, ways)) / 4
    else:
        use = 10.0 ** rng.uniform(-2, 2, shape) * (rng.random(shape) < 0.7)
        capacity = 10.0 ** rng.uniform(-1, 1, rows)
        at_most = rng.uniform(0.02, 1.0, (classes, ways))
    at_most[np.arange(classes), rng.integers(0, ways, classes)] = 1.0
    if draw(st.booleans()):  # nothing to choose: the limits of some class sum to 1
        at_most[0] = rng.integers(1, 4, ways)
        at_most[0] /= at_most[0].sum()
    return np.asarray(use), np.asarray(capacity), rng.dirichlet(np.ones(classes)), at_most


@given(instances(), st.booleans())
@settings(deadline=None, derandomize=True, max_examples=800)
def test_limited_ways_agree_with_scipy(
    instance: tuple[Array, Array, Array, Array], balance: bool
) -> None:
    """L: 800 cases with limits, ties and no choice at all in, to 1e-7, each certified."""
    use, capacity, weights, at_most = instance
    answer = maximise_turns(use, capacity, weights, at_most=at_most, balance=balance)
    expected = with_scipy(use, capacity, weights, at_most)
    assert answer.turns_per_s == pytest.approx(expected, rel=1e-7)
    if math.isinf(expected):
        return
    assert answer.certificate is not None
    assert answer.certificate.worst <= 1e-9
    due = weights[:, None] * answer.turns_per_s
    assert (answer.flow_turns_per_s <= at_most * due + 1e-9 * answer.turns_per_s).all()
    assert answer.elasticity.sum() == pytest.approx(1.0, abs=1e-12)
    assert (answer.at_most_elasticity >= 0).all()
    assert not answer.at_most_elasticity[at_most >= 1].any()


@given(instances())
@settings(deadline=None, derandomize=True, max_examples=300)
def test_without_limits_they_agree_too(instance: tuple[Array, Array, Array, Array]) -> None:
    """L: the same cases without limits."""
    use, capacity, weights, at_most = instance
    answer = maximise_turns(use, capacity, weights)
    expected = with_scipy(use, capacity, weights, np.ones_like(at_most))
    assert answer.turns_per_s == pytest.approx(expected, rel=1e-7)


@given(instances())
@settings(deadline=None, derandomize=True, max_examples=150)
def test_limits_of_one_and_more_change_nothing(
    instance: tuple[Array, Array, Array, Array],
) -> None:
    """L: at_most >= 1 is no limit, to the last bit."""
    use, capacity, weights, _ = instance
    plain = maximise_turns(use, capacity, weights, balance=True)
    for most in (1.0, 7.0, INF):
        same = maximise_turns(use, capacity, weights, at_most=most, balance=True)
        assert same.turns_per_s == plain.turns_per_s
        assert same.flow_turns_per_s.tolist() == plain.flow_turns_per_s.tolist()
        assert same.elasticity.tolist() == plain.elasticity.tolist()
        assert not same.at_most_elasticity.any()


@given(instances(), st.floats(0.0, 1.0))
@settings(deadline=None, derandomize=True, max_examples=200)
def test_wider_limits_never_hurt(instance: tuple[Array, Array, Array, Array], wider: float) -> None:
    """L: throughput rises, or stays, with every limit."""
    use, capacity, weights, at_most = instance
    narrow = maximise_turns(use, capacity, weights, at_most=at_most)
    more = maximise_turns(use, capacity, weights, at_most=at_most + wider * (1 - at_most))
    free = maximise_turns(use, capacity, weights)
    assert more.turns_per_s >= narrow.turns_per_s * (1 - 1e-9)
    assert free.turns_per_s >= more.turns_per_s * (1 - 1e-9)


def random_limited(rng: np.random.Generator) -> tuple[Array, Array, Array, Array]:
    classes, ways, rows = rng.integers(1, 4), rng.integers(2, 5), rng.integers(2, 7)
    use = rng.uniform(0.1, 5.0, (classes, ways, rows))
    at_most = rng.uniform(0.1, 0.9, (classes, ways))
    at_most[:, -1] = 1.0
    return use, rng.uniform(0.5, 5.0, rows), rng.dirichlet(np.ones(classes)), at_most


def one_sided(instance: tuple[Array, ...], part: int, at: Any) -> tuple[float, float]:
    """d ln(turns/s) / d ln(value) above and below; value = instance[part][at], all at once."""

    def log_rate(factor: float) -> float:
        use, capacity, weights, at_most = (array.copy() for array in instance)
        (use, capacity, weights, at_most)[part][at] *= factor
        return math.log(maximise_turns(use, capacity, weights, at_most=at_most).turns_per_s)

    step, middle = 1e-5, log_rate(1.0)
    above = (log_rate(1 + step) - middle) / math.log1p(step)
    below = (log_rate(1 - step) - middle) / math.log1p(-step)
    return above, below


def test_elasticities_are_derivatives() -> None:
    """L: of capacities and of limits, against finite differences, away from kinks."""
    rng = np.random.default_rng(11)
    compared, limits_that_bind = 0, 0
    for _ in range(60):
        instance = random_limited(rng)
        use, capacity, weights, at_most = instance
        answer = maximise_turns(use, capacity, weights, at_most=at_most)
        pairs = [(answer.elasticity[r], one_sided(instance, 1, r)) for r in range(len(capacity))]
        pairs += [
            (answer.at_most_elasticity[k, w], one_sided(instance, 3, (k, w)))
            for k, w in np.argwhere(at_most < 1)
        ]
        for elasticity, (above, below) in pairs:
            assert above - 1e-4 <= elasticity <= below + 1e-4
            if abs(above - below) < 1e-4:
                assert elasticity == pytest.approx(above, abs=1e-4)
                compared += 1
        limits_that_bind += int((answer.at_most_elasticity > 1e-3).sum())
    assert compared > 400
    assert limits_that_bind > 30


def test_a_limit_common_to_all_classes_has_the_sum_of_elasticities() -> None:
    """L: one hit rate that caps a way of every class."""
    rng = np.random.default_rng(12)
    seen = 0
    for _ in range(40):
        use, capacity, weights, at_most = random_limited(rng)
        at_most[:] = 1.0
        at_most[:, 0] = 0.3
        answer = maximise_turns(use, capacity, weights, at_most=at_most[0])
        common = (slice(None), 0)
        above, below = one_sided((use, capacity, weights, at_most), 3, common)
        if abs(above - below) < 1e-4:
            total = answer.at_most_elasticity[:, 0].sum()
            assert total == pytest.approx(above, abs=1e-4)
            seen += total > 1e-3
    assert seen > 5


def test_limits_used_up_exactly_are_worth_what_more_or_less_would_change() -> None:
    """L: where limits sum to 1, the elasticity lies within the one-sided ones."""
    use = np.array([[[1.0], [2.0], [6.0]]])
    answer = maximise_turns(use, [1.0], at_most=[0.5, 0.5, 1.0])
    assert answer.turns_per_s == pytest.approx(1 / 1.5, rel=1e-9)
    # A little more of the first way saves 1, a little less costs 5; of the second, 0 and 4.
    assert 1 / 3 - 1e-9 <= answer.at_most_elasticity[0, 0] <= 5 / 3 + 1e-9
    assert -1e-9 <= answer.at_most_elasticity[0, 1] <= 4 / 3 + 1e-9
    difference = answer.at_most_elasticity[0, 0] - answer.at_most_elasticity[0, 1]
    assert difference == pytest.approx(1 / 3, abs=1e-9)


@given(
    st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, 5.0]), min_size=10, max_size=10),
    st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.8, 1.0, INF]),
    st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9, 1.0, INF]),
)
@settings(deadline=None, derandomize=True, max_examples=500)
def test_two_limited_ways_are_a_split_on_an_interval(
    use: list[float], first_most: float, second_most: float
) -> None:
    """L, S2: the closed form between the interval's ends meets the LP with limits."""
    first, second = np.reshape(use, (2, 5))
    capacity = np.array([1.0, 2.0, 4.0, 8.0, 3.0])
    if first_most + second_most < 1:
        with pytest.raises(ValueError, match="without a way"):
            maximise_turns([[first, second]], capacity, at_most=[first_most, second_most])
        with pytest.raises(ValueError, match="without a way"):
            ends_of(first, second, first_most, second_most)
        return
    answer = maximise_turns([[first, second]], capacity, at_most=[first_most, second_most])
    ends = ends_of(first, second, first_most, second_most)
    split = best_split(ends.first, ends.second, capacity)
    assert answer.turns_per_s == pytest.approx(float(split.turns_per_s), rel=1e-9)
    if math.isfinite(answer.turns_per_s):
        share = answer.flow_turns_per_s[0, 1] / answer.turns_per_s
        assert float(ends.second_share(split.lowest_fraction)) - 1e-7 <= share
        assert share <= float(ends.second_share(split.highest_fraction)) + 1e-7


def test_ends_of_many_classes_are_those_of_each() -> None:
    """S2: limits broadcast over classes; without limits the ends are the ways themselves."""
    rng = np.random.default_rng(15)
    first, second = rng.uniform(0, 5, (2, 6, 4))
    most_first, most_second = rng.uniform(0.5, 1.5, (2, 6))
    ends = ends_of(first, second, most_first, most_second)
    assert ends.lowest.shape == ends.highest.shape == (6,)
    for k in range(6):
        alone = ends_of(first[k], second[k], most_first[k], most_second[k])
        assert ends.first[k].tolist() == alone.first.tolist()
        assert ends.second[k].tolist() == alone.second.tolist()
        share = float(ends.second_share(0.3)[k])
        assert share == pytest.approx(float(alone.second_share(0.3)))
        mixed = first[k] * (1 - share) + second[k] * share
        assert ends.first[k] * 0.7 + ends.second[k] * 0.3 == pytest.approx(mixed, rel=1e-12)
    free = ends_of(first, second)
    assert free.first.tolist() == first.tolist()
    assert free.second.tolist() == second.tolist()


@pytest.mark.filterwarnings("ignore:PULP_CBC_CMD:DeprecationWarning")
def test_cbc_agrees_on_limited_ways() -> None:
    """L: a second solver, to the eight digits that it prints, its prices in the certificate."""
    rng = np.random.default_rng(16)
    for _ in range(30):
        use, capacity, weights, at_most = random_limited(rng)
        mine = maximise_turns(use, capacity, weights, at_most=at_most)
        other = maximise_turns(
            use, capacity, weights, at_most=at_most, solver="cbc", tolerance=1e-6
        )
        assert other.turns_per_s == pytest.approx(mine.turns_per_s, rel=1e-6)


def test_what_a_limit_shuts_stays_shut() -> None:
    """L: 0 = never, however cheap; a way that floods all may still be needed."""
    answer = maximise_turns([[[0.0], [2.0]]], [1.0], at_most=[0.0, 1.0])
    assert answer.turns_per_s == pytest.approx(0.5, rel=1e-9)
    assert answer.flow_turns_per_s[0, 0] == 0
    assert not answer.at_most_elasticity.any()
    flooded = maximise_turns([[[1.0], [1e20]]], [1.0], at_most=[0.5, 1.0])
    assert flooded.turns_per_s == pytest.approx(2e-20, rel=1e-9)
    assert flooded.at_most_elasticity[0, 0] == pytest.approx(1.0, rel=1e-9)


def test_unbounded_needs_free_ways_for_all_turns() -> None:
    """L: a free way that may take half of the turns bounds by the other half."""
    half = maximise_turns([[[0.0], [1.0]]], [1.0], at_most=[0.5, 1.0])
    assert half.turns_per_s == pytest.approx(2.0, rel=1e-9)
    assert half.at_most_elasticity[0, 0] == pytest.approx(1.0, rel=1e-9)
    tenths = np.full(10, 0.1)  # their sum is a digit short of 1
    free = maximise_turns([[*[[0.0]] * 10, [1.0]]], [1.0], at_most=[*tenths, 1.0])
    assert free.turns_per_s == INF
    assert np.isinf(free.flow_turns_per_s[0]).tolist() == [True] * 10 + [False]


def test_limits_that_leave_turns_over_are_refused() -> None:
    """L: a class in the mix needs ways for all its turns; one of weight 0 needs none."""
    use = [[[1.0], [2.0]], [[1.0], [2.0]]]
    with pytest.raises(ValueError, match=r"0\.1 of class 1's turns without a way"):
        maximise_turns(use, [1.0], [0.5, 0.5], at_most=[[1.0, 1.0], [0.4, 0.5]])
    answer = maximise_turns(use, [1.0], [1.0, 0.0], at_most=[[1.0, 1.0], [0.4, 0.5]])
    assert answer.turns_per_s == pytest.approx(1.0, rel=1e-9)
    for wrong in (-0.1, math.nan):
        with pytest.raises(ValueError, match="zero or more"):
            maximise_turns(use, [1.0], [0.5, 0.5], at_most=[wrong, 1.0])


# ------------------------------------------------------------------------------- the certificate


def limited() -> dict[str, Any]:
    """One class, three ways of 1, 2 and 6 s on one resource, half of the turns each at most."""
    load = np.array([[[1.0], [2.0], [6.0]]])
    rate = 1 / 1.5
    return {
        "load": load,
        "weights": np.ones(1),
        "turns_per_s": rate,
        "flow": np.array([[0.5, 0.5, 0.0]]) * rate,
        "price": np.ones(1),
        "at_most": np.full((1, 3), 0.5),
    }


def test_certificate_accepts_limited_flows_at_any_price_of_a_turn() -> None:
    """L: within what the limits leave open, all prices of a turn prove the same."""
    for turn_price in (None, np.array([0.1]), np.array([3.0]), np.array([50.0])):
        assert certify(**limited(), turn_price=turn_price).worst <= 1e-12


def test_certificate_names_what_limits_break() -> None:
    """L: flow above a limit is primal, a cheap way left unused is complementarity and gap."""
    over = limited() | {"flow": np.array([[0.6, 0.4, 0.0]]) / 1.5, "tolerance": 10.0}
    assert certify(**over).primal_infeasibility == pytest.approx(0.1, rel=1e-9)
    rate = 1 / (0.4 + 1.0 + 0.6)
    unused = limited() | {"turns_per_s": rate, "flow": np.array([[0.4, 0.5, 0.1]]) * rate}
    assert certify(**unused, tolerance=10.0).complementarity > 0.01
    assert certify(**unused, tolerance=10.0).gap == pytest.approx(2.0 / 1.5 - 1, rel=1e-9)
    for wrong in (over | {"tolerance": 1e-9}, unused):
        with pytest.raises(UncertifiedAnswer):
            certify(**wrong)


def test_any_prices_prove_an_upper_bound_with_limits() -> None:
    """L: weak duality holds for the cheapest mix within the limits."""
    rng = np.random.default_rng(13)
    for _ in range(200):
        use, capacity, weights, at_most = random_limited(rng)
        load = loads(use, capacity)
        answer = maximise_turns(use, capacity, weights, at_most=at_most)
        price = rng.exponential(size=len(capacity))
        proof = certify(
            load,
            weights,
            answer.turns_per_s,
            answer.flow_turns_per_s,
            price,
            tolerance=INF,
            at_most=at_most,
        )
        assert proof.gap >= -1e-12


def test_the_cheapest_mix_is_the_knapsack_by_hand() -> None:
    """L: cheapest way first; the next way's cost shows where limits are used up exactly."""
    cost = np.array([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    at_most = np.array([[1.0, 0.25, 0.5], [1.0, 0.5, 0.5], [0.0, 1.0, 0.5]])
    mix = cheapest_mix(cost, at_most)
    assert mix.share.tolist() == [[0.25, 0.25, 0.5], [0.0, 0.5, 0.5], [0.0, 1.0, 0.0]]
    assert mix.lowest.tolist() == [3.0, 2.0, 1.0]
    assert mix.highest.tolist() == [3.0, 3.0, 1.0]


# ------------------------------------------------------------------------------------- fleets


def test_fleets_respect_limits() -> None:
    """L: the cheap way takes a quarter, so most turns need the dear pool; checked by hand."""
    use = [[[0.5, 0.0], [0.0, 0.25]]]
    free = minimise_cost(use, [1, 1], [0, 1], [1.0, 3.0], 10.0)
    assert (free.engines, free.cost) == ((5, 0), 5.0)
    fleet = minimise_cost(use, [1, 1], [0, 1], [1.0, 3.0], 10.0, at_most=[0.25, 1.0])
    assert (fleet.engines, fleet.cost) == ((1, 2), 7.0)
    assert fleet.lower_bound == pytest.approx(10 * (0.25 * 0.5 + 0.75 * 0.25 * 3), rel=1e-9)
    assert fleet.answer.turns_per_s >= 10.0 * (1 - 1e-9)
    share = fleet.answer.flow_turns_per_s[0] / fleet.answer.turns_per_s
    assert share[0] <= 0.25 + 1e-9


def test_a_limit_may_make_what_does_not_grow_too_small() -> None:
    """L: the message names the resource that the limit sends turns to."""
    use = [[[0.1, 0.0], [0.0, 0.1]]]
    minimise_cost(use, [1, 1], [0, None], [1.0], 15.0)
    with pytest.raises(Infeasible, match=r"doesn't grow with nodes: 1$"):
        minimise_cost(use, [1, 1], [0, None], [1.0], 15.0, at_most=[0.2, 1.0])
