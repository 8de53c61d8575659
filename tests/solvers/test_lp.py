"""Law L: the linear programme against the closed form, scipy, and its own certificate."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpplan.errors import UncertifiedAnswer
from dpplan.solvers.certificate import certify
from dpplan.solvers.closed_form import best_split, elasticity_range, loads
from dpplan.solvers.lp import LpAnswer, maximise_turns

Array = npt.NDArray[np.float64]
INF = math.inf

SMALL_USE = st.sampled_from([0.0, 0.0, 1.0, 1.0, 2.0, 3.0, 5.0])
SMALL_CAPACITY = st.sampled_from([1.0, 2.0, 4.0, 8.0, INF])
WIDE_USE = st.one_of(st.just(0.0), st.floats(1e-3, 1e12))
WIDE_CAPACITY = st.one_of(st.floats(1.0, 1e12), st.just(INF))


@st.composite
def problems(draw: st.DrawFn, classes: int = 1, ways: int = 2) -> tuple[Array, Array]:
    """Use of shape (classes, ways, resources) and capacities."""
    rows = draw(st.integers(1, 7))
    wide = draw(st.booleans())
    amount = WIDE_USE if wide else SMALL_USE
    size = classes * ways * rows
    use = draw(st.lists(amount, min_size=size, max_size=size))
    limits = st.lists(WIDE_CAPACITY if wide else SMALL_CAPACITY, min_size=rows, max_size=rows)
    return np.reshape(use, (classes, ways, rows)), np.array(draw(limits))


def agree_with_closed_form(use: Array, capacity: Array) -> None:
    answer = maximise_turns(use, capacity)
    closed = float(best_split(use[0, 0], use[0, -1], capacity).turns_per_s)
    if math.isinf(closed):
        assert answer.turns_per_s == INF
        assert answer.certificate is None
        assert not answer.elasticity.any()
        return
    assert answer.turns_per_s == pytest.approx(closed, rel=1e-9)
    assert answer.certificate is not None
    assert answer.certificate.worst <= 1e-9
    assert answer.load.max() == pytest.approx(1.0, abs=1e-9)
    assert answer.elasticity.sum() == pytest.approx(1.0, abs=1e-12)


# ------------------------------------------------------------------------- L: two roads, one class


@given(problems())
@settings(deadline=None, derandomize=True, max_examples=2000)
def test_closed_form_and_lp_agree(problem: tuple[Array, Array]) -> None:
    """L, S2: one class, two routes, the same bound to 1e-9 in 2000 cases, ties and zeros in."""
    agree_with_closed_form(*problem)


@given(problems())
@settings(deadline=None, max_examples=100)
def test_closed_form_and_lp_agree_on_fresh_cases(problem: tuple[Array, Array]) -> None:
    """L, S2: other cases each time the tests run."""
    agree_with_closed_form(*problem)


def test_closed_form_and_lp_agree_over_random_scales() -> None:
    """L, S2: loads over twelve decades, drawn evenly, and the flow's split within the interval."""
    rng = np.random.default_rng(20)
    for _ in range(1500):
        rows = rng.integers(1, 12)
        kept = rng.random((1, 2, rows)) < 0.7
        use = 10.0 ** rng.uniform(-3, 3, (1, 2, rows)) * kept
        capacity = 10.0 ** rng.uniform(-3, 3, rows)
        answer = maximise_turns(use, capacity)
        split = best_split(use[0, 0], use[0, 1], capacity)
        closed = float(split.turns_per_s)
        if math.isinf(closed):
            assert answer.turns_per_s == INF
            continue
        assert answer.turns_per_s == pytest.approx(closed, rel=1e-9)
        x = answer.flow_turns_per_s[0, 1] / answer.turns_per_s
        assert split.lowest_fraction - 1e-6 <= x <= split.highest_fraction + 1e-6


@pytest.mark.filterwarnings("ignore:PULP_CBC_CMD:DeprecationWarning")
def test_cbc_agrees_on_a_sample() -> None:
    """L: a second solver, to the eight digits that it prints."""
    rng = np.random.default_rng(3)
    for _ in range(60):
        rows = rng.integers(2, 8)
        use = rng.uniform(0.1, 5, (1, 2, rows)) * (rng.random((1, 2, rows)) < 0.7)
        use[..., 0] = 1.0
        capacity = rng.uniform(0.5, 5, rows)
        other = maximise_turns(use, capacity, solver="cbc", tolerance=1e-6)
        closed = float(best_split(use[0, 0], use[0, 1], capacity).turns_per_s)
        assert other.turns_per_s == pytest.approx(closed, rel=1e-6)


@given(problems())
@settings(deadline=None, derandomize=True, max_examples=300)
def test_duals_lie_between_the_one_sided_elasticities(problem: tuple[Array, Array]) -> None:
    """L, S2: the certified dual is one of the gradients that the kink allows."""
    use, capacity = problem
    load = loads(use, capacity)
    answer = maximise_turns(use, capacity)
    if math.isinf(answer.turns_per_s) or load[load > 0].min() < 1e-9 * load.max():
        return  # at such ratios "binding" is a matter of the last digits
    more, less = elasticity_range(use[0, 0], use[0, 1], capacity)
    assert (answer.elasticity >= more - 1e-6).all()
    assert (answer.elasticity <= less + 1e-6).all()


# ------------------------------------------------------------------ L: several classes and routes


def with_scipy(use: Array, capacity: Array, weights: Array) -> float:
    """The same programme written down again, dense, for scipy's simplex."""
    from scipy.optimize import linprog

    classes, ways, rows = use.shape
    load = use / capacity
    scale = 1 / float(load.max(axis=2).min(axis=1).max())
    variables = classes * ways + 1
    cost = np.zeros(variables)
    cost[-1] = -1
    upper = np.zeros((rows, variables))
    equal = np.zeros((classes, variables))
    for k in range(classes):
        for w in range(ways):
            upper[:, k * ways + w] = load[k, w] * scale
            equal[k, k * ways + w] = 1
        equal[k, -1] = -weights[k]
    found = linprog(
        cost,
        A_ub=upper,
        b_ub=np.ones(rows),
        A_eq=equal,
        b_eq=np.zeros(classes),
        method="highs-ds",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    assert found.status == 0
    optimum: float = -found.fun  # type: ignore[operator]
    return optimum * scale


@pytest.mark.parametrize("ways", [1, 2, 3, 6])
def test_mixes_agree_with_scipy(ways: int) -> None:
    """L: several classes, one to six ways of serving each."""
    rng = np.random.default_rng(ways)
    for _ in range(60):
        classes, rows = rng.integers(2, 5), rng.integers(2, 9)
        use = rng.uniform(0.1, 5, (classes, ways, rows)) * (rng.random((classes, ways, rows)) < 0.6)
        use[..., 0] = rng.uniform(0.1, 5, (classes, ways))
        capacity = 10.0 ** rng.uniform(-2, 2, rows)
        weights = rng.dirichlet(np.ones(classes))
        answer = maximise_turns(use, capacity, weights)
        assert answer.turns_per_s == pytest.approx(with_scipy(use, capacity, weights), rel=1e-8)
        served = answer.flow_turns_per_s.sum(axis=1)
        assert served == pytest.approx(weights * answer.turns_per_s, rel=1e-8)


@given(problems(ways=3))
@settings(deadline=None, derandomize=True, max_examples=300)
def test_a_third_route_never_hurts(problem: tuple[Array, Array]) -> None:
    """L, T: a further route is one more column; the bound is no smaller, and proved."""
    use, capacity = problem
    three, two = maximise_turns(use, capacity), maximise_turns(use[:, :2], capacity)
    assert three.turns_per_s >= two.turns_per_s * (1 - 1e-9)
    if math.isfinite(three.turns_per_s):
        assert three.certificate is not None
        grid = np.linspace(0, 1, 9)
        for x in grid:
            for y in grid[grid <= 1 - x + 1e-12]:
                mixed = x * use[0, 0] + y * use[0, 1] + (1 - x - y) * use[0, 2]
                heaviest = loads(mixed, capacity).max()
                assert heaviest * three.turns_per_s >= 1 - 1e-9


def random_mix(rng: np.random.Generator) -> tuple[Array, Array, Array]:
    classes, rows = rng.integers(2, 5), rng.integers(3, 9)
    use = 10.0 ** rng.uniform(-2, 2, (classes, 2, rows)) * (rng.random((classes, 2, rows)) < 0.6)
    use[..., 0] = 0.3
    return use, 10.0 ** rng.uniform(-2, 2, rows), rng.dirichlet(np.ones(classes))


def test_identical_classes_are_one_class() -> None:
    """L: a mix of the same turn under several names, whatever the weights, is the turn."""
    rng = np.random.default_rng(5)
    for _ in range(100):
        use, capacity, weights = random_mix(rng)
        same = np.repeat(use[:1], len(weights), axis=0)
        assert maximise_turns(same, capacity, weights).turns_per_s == pytest.approx(
            maximise_turns(use[:1], capacity).turns_per_s, rel=1e-9
        )


def test_weights_and_use_trade_places() -> None:
    """L: a class of twice the use and half the weight asks for the same."""
    rng = np.random.default_rng(6)
    for _ in range(100):
        use, capacity, weights = random_mix(rng)
        factors = 10.0 ** rng.uniform(-1, 1, len(weights))
        scaled = maximise_turns(use * factors[:, None, None], capacity, weights / factors)
        assert scaled.turns_per_s == pytest.approx(
            maximise_turns(use, capacity, weights).turns_per_s, rel=1e-9
        )


def test_all_weights_scaled_scale_the_mix_inversely() -> None:
    """L: weights that sum to t count t turns a unit, so the bound is 1/t of it."""
    rng = np.random.default_rng(7)
    for _ in range(100):
        use, capacity, weights = random_mix(rng)
        assert maximise_turns(use, capacity, 4 * weights).turns_per_s == pytest.approx(
            maximise_turns(use, capacity, weights).turns_per_s / 4, rel=1e-9
        )


def test_a_class_of_no_weight_changes_nothing() -> None:
    """L: weight 0 = not in the mix."""
    use = [[[1.0, 0.0], [0.0, 1.0]], [[50.0, 1.0], [1.0, 50.0]]]
    assert maximise_turns(use, [2, 3], [1.0, 0.0]).turns_per_s == pytest.approx(5.0, rel=1e-9)


def test_separate_splits_beat_one_split_for_all() -> None:
    """L: in a mix every class has a split of its own; the mean turn's one split is no better."""
    rng = np.random.default_rng(8)
    better = 0
    for _ in range(100):
        use, capacity, weights = random_mix(rng)
        mean = np.tensordot(weights, use, axes=1)
        together = float(best_split(mean[0], mean[1], capacity).turns_per_s)
        apart = maximise_turns(use, capacity, weights).turns_per_s
        assert apart >= together * (1 - 1e-9)
        better += apart > together * (1 + 1e-6)
    assert better > 10


def test_balance_keeps_the_optimum_and_lowers_the_rest() -> None:
    """L: evening out keeps throughput and certificate, and never raises the highest free load."""
    rng = np.random.default_rng(9)
    lower = 0
    for _ in range(300):
        use, capacity, weights = random_mix(rng)
        plain = maximise_turns(use, capacity, weights)
        even = maximise_turns(use, capacity, weights, balance=True)
        assert even.turns_per_s == plain.turns_per_s
        assert even.elasticity.tolist() == plain.elasticity.tolist()
        assert even.certificate is not None
        assert even.certificate.worst <= 1e-9
        free = plain.elasticity <= 1e-9 * plain.elasticity.max()
        before, after = plain.load[free].max(initial=0), even.load[free].max(initial=0)
        assert after <= before + 1e-8
        lower += after < before - 1e-6
    assert lower > 10


def test_balance_finds_the_closed_forms_split() -> None:
    """L, S2: with compute binding, the storage NICs are loaded alike."""
    use = [[[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]]
    answer = maximise_turns(use, [10.0, 30.0, 1.0], balance=True)
    assert answer.turns_per_s == pytest.approx(1.0, rel=1e-9)
    assert answer.flow_turns_per_s[0] == pytest.approx([0.25, 0.75], abs=1e-8)


def test_balance_never_costs_the_answer() -> None:
    """L: where evening out spoils the digits, the optimum found stays; both are certified."""
    rng = np.random.default_rng(1)
    for _ in range(800):
        classes, ways, rows = rng.integers(1, 4), rng.integers(2, 4), rng.integers(1, 10)
        shape = (classes, ways, rows)
        use = 10.0 ** rng.uniform(-3.5, 3.5, shape) * (rng.random(shape) < 0.6)
        capacity = 10.0 ** rng.uniform(-3.5, 3.5, rows)
        weights = rng.dirichlet(np.ones(classes))
        answer = maximise_turns(use, capacity, weights, balance=True)
        assert answer.certificate is None or answer.certificate.worst <= 1e-9


def test_nothing_binds() -> None:
    """L: no use of anything limited is an unbounded answer, not an error."""
    answer = maximise_turns([[[0.0, 1.0], [0.0, 2.0]]], [1.0, INF])
    assert answer.turns_per_s == INF
    assert answer.load.tolist() == [0.0, 0.0]
    half = maximise_turns([[[0.0], [1.0]], [[2.0], [3.0]]], [1.0], [0.5, 0.5])
    assert half.turns_per_s == pytest.approx(1.0, rel=1e-9)


# --------------------------------------------------------------------------- L: the certificate


def proved() -> tuple[Array, Array, LpAnswer]:
    """A mix on the limits of 2P4D: storage NICs fill, compute NICs and GPUs do not."""
    use = np.array(
        [
            [[1.0, 0.0, 2.0, 0.3, 1.0], [0.0, 1.0, 1.0, 0.3, 1.0]],
            [[0.2, 0.0, 0.4, 0.9, 5.0], [0.0, 0.2, 0.2, 0.9, 5.0]],
        ]
    )
    capacity = np.array([2.0, 4.0, 20.0, 9.0, 90.0])
    weights = np.array([0.7, 0.3])
    return use / capacity, weights, maximise_turns(use, capacity, weights)


def test_certificate_accepts_the_truth_at_any_price_scale() -> None:
    """L: prices prove the same bound at any positive scale."""
    load, weights, answer = proved()
    for scale in (1e-12, 1.0, 1e12):
        proof = certify(
            load, weights, answer.turns_per_s, answer.flow_turns_per_s, answer.elasticity * scale
        )
        assert proof.worst <= 1e-9


def tampered(what: str, size: float) -> dict[str, Any]:
    load, weights, answer = proved()
    parts: dict[str, Any] = {
        "turns_per_s": answer.turns_per_s,
        "flow": answer.flow_turns_per_s.copy(),
        "price": answer.elasticity.copy(),
    }
    binding = int(parts["price"].argmax())
    slack = int(answer.load.argmin())
    busiest = np.unravel_index(parts["flow"].argmax(), parts["flow"].shape)
    match what:
        case "more value":
            parts["turns_per_s"] *= 1 + size
        case "less value":
            parts["turns_per_s"] *= 1 - size
        case "more of all":
            parts["turns_per_s"] *= 1 + size
            parts["flow"] *= 1 + size
        case "less of all":
            parts["turns_per_s"] *= 1 - size
            parts["flow"] *= 1 - size
        case "more flow":
            parts["flow"][busiest] *= 1 + size
        case "other route":
            parts["flow"][busiest] -= size
            parts["flow"][busiest[0], 1 - busiest[1]] += size
        case "negative flow":
            parts["flow"][0] += [size + parts["flow"][0, 1], -size - parts["flow"][0, 1]]
        case "price of a slack resource":
            parts["price"][slack] += size
        case "price moved":
            parts["price"][binding] -= size
        case "negative price":
            parts["price"][slack] -= size
        case "no price":
            parts["price"][:] = 0
        case "price not a number":
            parts["price"][binding] = math.nan
        case "infinite price":
            parts["price"][binding] = INF
        case "flow not a number":
            parts["flow"][busiest] = math.nan
        case "value not a number":
            parts["turns_per_s"] = math.nan
        case "infinite value":
            parts["turns_per_s"] = INF
        case "zero value":
            parts["turns_per_s"] = 0.0
    return {"load": load, "weights": weights, **parts}


@pytest.mark.parametrize("size", [1e-7, 1e-3, 0.5])
@pytest.mark.parametrize(
    "what",
    [
        "more value",
        "less value",
        "more of all",
        "less of all",
        "more flow",
        "other route",
        "negative flow",
        "price of a slack resource",
        "price moved",
        "negative price",
        "no price",
        "price not a number",
        "infinite price",
        "flow not a number",
        "value not a number",
        "infinite value",
        "zero value",
    ],
)
@pytest.mark.filterwarnings("ignore:(invalid value|overflow):RuntimeWarning")
def test_certificate_rejects_a_tampered_answer(what: str, size: float) -> None:
    """L: primal, dual, complementarity or gap: every change of the answer shows."""
    with pytest.raises(UncertifiedAnswer):
        certify(**tampered(what, size))


def test_certificate_names_what_is_wrong() -> None:
    """L: an overload is primal, a price below zero dual, an idle price complementarity."""
    loose: dict[str, Any] = {"tolerance": 10.0}
    over = certify(**tampered("more of all", 0.01), **loose)
    assert over.primal_infeasibility == pytest.approx(0.01, rel=1e-6)
    assert over.gap == pytest.approx(1 / 1.01 - 1, rel=1e-6)
    under = certify(**tampered("less of all", 0.01), **loose)
    assert under.primal_infeasibility <= 1e-12
    assert under.gap == pytest.approx(1 / 0.99 - 1, rel=1e-6)
    negative = certify(**tampered("negative price", 0.01), **loose)
    assert negative.dual_infeasibility == pytest.approx(0.01 / 0.99, rel=1e-6)
    idle = certify(**tampered("price of a slack resource", 0.01), **loose)
    assert idle.complementarity > 1e-3


def test_any_prices_prove_an_upper_bound() -> None:
    """L: weak duality: whatever the prices, the gap they prove is never negative."""
    load, weights, answer = proved()
    rng = np.random.default_rng(2)
    for _ in range(200):
        price = np.asarray(rng.exponential(size=load.shape[2]))
        turns, flow = answer.turns_per_s, answer.flow_turns_per_s
        assert certify(load, weights, turns, flow, price, tolerance=INF).gap >= -1e-12
