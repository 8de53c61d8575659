"""Laws S2 and S3: the bound and the split against exact rational arithmetic."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpplan.solvers.closed_form import best_split, elasticity_range, loads

Array = npt.NDArray[np.float64]
Case = tuple[list[float], list[float], list[float]]
INF = math.inf

SLOW = settings(deadline=None, derandomize=True, max_examples=150)
QUICK = settings(deadline=None, derandomize=True, max_examples=400)

# Small whole numbers make ties and flat lines likely; wide floats make ratios of 1e24.
SMALL_USE = st.sampled_from([0.0, 0.0, 1.0, 1.0, 2.0, 3.0, 5.0])
SMALL_CAPACITY = st.sampled_from([1.0, 2.0, 4.0, 8.0, INF])
WIDE_USE = st.one_of(st.just(0.0), st.floats(1e-9, 1e15))
WIDE_CAPACITY = st.one_of(st.floats(1e-3, 1e15), st.just(INF))


@st.composite
def cases(draw: st.DrawFn, wide: bool | None = None, finite: bool = False) -> Case:
    rows = draw(st.integers(1, 6))
    is_wide = draw(st.booleans()) if wide is None else wide
    use, capacity = (WIDE_USE, WIDE_CAPACITY) if is_wide else (SMALL_USE, SMALL_CAPACITY)
    if finite:
        capacity = capacity.filter(math.isfinite)
    column = st.lists(use, min_size=rows, max_size=rows)
    return draw(column), draw(column), draw(st.lists(capacity, min_size=rows, max_size=rows))


# ---------------------------------------------------------------- the second road: exact rationals


@dataclass(frozen=True)
class Exact:
    """What brute force over all crossings finds, without a rounding error."""

    x: Fraction
    """Of all best candidates the one with the smallest sorted loads."""
    peak: Fraction
    low: Fraction
    high: Fraction


def exact_lines(case: Case) -> list[tuple[Fraction, Fraction]]:
    return [
        (Fraction(0), Fraction(0))
        if c == INF
        else (Fraction(u) / Fraction(c), Fraction(v) / Fraction(c))
        for u, v, c in zip(*case, strict=True)
    ]


def height(line: tuple[Fraction, Fraction], x: Fraction) -> Fraction:
    return line[0] + (line[1] - line[0]) * x


def candidates(lines: list[tuple[Fraction, Fraction]]) -> list[Fraction]:
    """Both ends and every crossing of two lines inside (0, 1)."""
    found = {Fraction(0), Fraction(1)}
    for (a, b), (c, d) in itertools.combinations(lines, 2):
        slope = (b - a) - (d - c)
        if slope:
            x = (c - a) / slope
            if 0 < x < 1:
                found.add(x)
    return sorted(found)


def solve_exactly(lines: list[tuple[Fraction, Fraction]]) -> Exact:
    ranked = {
        x: sorted((height(line, x) for line in lines), reverse=True) for x in candidates(lines)
    }
    peak = min(loads_[0] for loads_ in ranked.values())
    best = [x for x, loads_ in ranked.items() if loads_[0] == peak]
    chosen = min(best, key=lambda x: (ranked[x], x))
    return Exact(chosen, peak, min(best), max(best))


def exact_bound(lines: list[tuple[Fraction, Fraction]]) -> Fraction | None:
    peak = solve_exactly(lines).peak
    return 1 / peak if peak else None


def best_loads_at(case: Case, x: float) -> Fraction:
    return max(height(line, Fraction(x)) for line in exact_lines(case))


# ----------------------------------------------------------------------------------- S2: the bound


@given(cases())
@QUICK
def test_bound_is_the_exact_optimum(case: Case) -> None:
    """S2: the bound equals the optimum over all crossings, in rational arithmetic."""
    truth = solve_exactly(exact_lines(case))
    split = best_split(*case)
    if truth.peak == 0:
        assert float(split.turns_per_s) == INF
    else:
        assert float(split.turns_per_s) == pytest.approx(float(1 / truth.peak), rel=1e-12)
        # The split really reaches it: its own largest load, exactly computed, is the optimum's.
        reached = best_loads_at(case, float(split.second_route_fraction))
        scale = max(max(line) for line in exact_lines(case))
        assert float(reached - truth.peak) <= 1e-12 * float(truth.peak) + 1e-15 * float(scale)


@given(cases(wide=False))
@QUICK
def test_split_is_the_lexicographically_smallest(case: Case) -> None:
    """S2: of several best splits, the one whose sorted loads are lexicographically smallest."""
    lines = exact_lines(case)
    truth = solve_exactly(lines)
    split = best_split(*case)
    if all(a == b for a, b in lines):
        assert float(split.second_route_fraction) == 0.0
    else:
        assert float(split.second_route_fraction) == pytest.approx(float(truth.x), abs=1e-12)


@given(cases(wide=False))
@QUICK
def test_interval_ends_are_exact(case: Case) -> None:
    """S2: the smallest and largest split that reach the bound."""
    truth = solve_exactly(exact_lines(case))
    split = best_split(*case)
    assert float(split.lowest_fraction) == pytest.approx(float(truth.low), abs=1e-12)
    assert float(split.highest_fraction) == pytest.approx(float(truth.high), abs=1e-12)
    assert split.lowest_fraction <= split.second_route_fraction <= split.highest_fraction


@given(cases(wide=True))
@QUICK
def test_every_split_of_the_interval_reaches_the_bound(case: Case) -> None:
    """S2: at ratios of 1e24 too, both ends of the interval are as good as the split."""
    split = best_split(*case)
    assert 0 <= split.lowest_fraction <= split.second_route_fraction <= split.highest_fraction <= 1
    truth = solve_exactly(exact_lines(case))
    scale = float(max(max(line) for line in exact_lines(case)))
    for x in (split.lowest_fraction, split.highest_fraction):
        over = float(best_loads_at(case, float(x)) - truth.peak)
        # One rounding of x moves a line by at most its height times 2**-53.
        assert over <= 1e-11 * float(truth.peak) + 1e-15 * scale


def test_ties_zeros_and_infinities_by_hand() -> None:
    """S2: corner cases a person can check."""
    nothing = best_split([0, 0], [0, 0], [1, 1])
    assert (float(nothing.turns_per_s), float(nothing.second_route_fraction)) == (INF, 0.0)
    unlimited = best_split([1, 5], [3, 2], [INF, INF])
    assert (float(unlimited.lowest_fraction), float(unlimited.highest_fraction)) == (0.0, 1.0)
    flat = best_split([4, 1, 0], [4, 0, 1], [1, 1, 1])
    assert float(flat.turns_per_s) == 0.25
    assert float(flat.second_route_fraction) == 0.5
    assert (float(flat.lowest_fraction), float(flat.highest_fraction)) == (0.0, 1.0)
    rising = best_split([1], [2], [1])
    assert (float(rising.second_route_fraction), float(rising.turns_per_s)) == (0.0, 1.0)
    free = best_split([1, 0], [0, 0], [1, 1])
    assert (float(free.second_route_fraction), float(free.turns_per_s)) == (1.0, INF)
    extreme = best_split([1e300, 0], [0, 1e-300], [1, 1])
    assert float(extreme.second_route_fraction) == 1.0
    assert float(extreme.turns_per_s) == pytest.approx(1e300, rel=1e-12)


def test_load_of_an_unlimited_resource_is_zero() -> None:
    """S2: use over capacity, 0 where the capacity is infinite."""
    assert loads([3.0, 0.0, 7.0], [2.0, 5.0, INF]).tolist() == [1.5, 0.0, 0.0]


# ------------------------------------------------------------------------------ S2: what must hold


@given(st.lists(cases(), min_size=1, max_size=6))
@SLOW
def test_an_array_is_solved_as_its_members(batch: list[Case]) -> None:
    """S2: scenarios of an array equal the same scenarios one by one, to the last bit."""
    rows = max(len(case[0]) for case in batch)
    padded = [
        [
            column + [fill] * (rows - len(column))
            for column, fill in zip(case, (0.0, 0.0, 1.0), strict=True)
        ]
        for case in batch
    ]
    u, v, c = (np.array([case[i] for case in padded]) for i in range(3))
    together = best_split(u, v, c)
    for i in range(len(batch)):
        alone = best_split(u[i], v[i], c[i])
        for field in vars(alone):
            assert getattr(together, field)[i] == getattr(alone, field)
    shaped = best_split(u[:, None], v[:, None], c[:, None])
    assert shaped.turns_per_s.shape == (len(batch), 1)
    assert np.array_equal(shaped.turns_per_s[:, 0], together.turns_per_s)


def test_a_large_array_crosses_chunks_unharmed() -> None:
    """S2: thousands of capacities broadcast against one demand."""
    rng = np.random.default_rng(1)
    capacity = rng.uniform(1, 9, (40_000, 3))
    u, v = [1.0, 0.0, 2.0], [0.0, 1.0, 1.0]
    all_at_once = best_split(u, v, capacity)
    for i in (*range(4095, 40_000, 4096), *range(4096, 40_000, 4096), 0, 39_999):
        assert float(best_split(u, v, capacity[i]).turns_per_s) == all_at_once.turns_per_s[i]


@given(cases(), st.integers(0, 5), st.floats(1.0, 1e6))
@QUICK
def test_more_of_any_capacity_never_hurts(case: Case, index: int, factor: float) -> None:
    """S2: the bound is monotone in every capacity."""
    u, v, c = case
    more = list(c)
    more[index % len(c)] *= factor
    assert best_split(u, v, more).turns_per_s >= best_split(u, v, c).turns_per_s * (1 - 1e-12)


@given(cases(), st.floats(1e-6, 1e6))
@QUICK
def test_bound_is_homogeneous(case: Case, factor: float) -> None:
    """S2: all capacities times t make t times the bound; all uses times t, 1/t of it."""
    u, v, c = case
    base = float(best_split(u, v, c).turns_per_s)
    bigger = float(best_split(u, v, [x * factor for x in c]).turns_per_s)
    heavier = float(best_split([x * factor for x in u], [x * factor for x in v], c).turns_per_s)
    if base == INF:
        assert bigger == heavier == INF
    else:
        assert bigger == pytest.approx(base * factor, rel=1e-11)
        assert heavier == pytest.approx(base / factor, rel=1e-11)


@given(cases(), st.integers(0, 5))
@QUICK
def test_an_unlimited_resource_is_a_row_left_out(case: Case, index: int) -> None:
    """S2: infinite capacity = no such row."""
    u, v, c = (list(column) for column in case)
    row = index % len(c)
    c[row] = INF
    first, second = (column[:row] + column[row + 1 :] or [0.0] for column in (u, v))
    capacity = c[:row] + c[row + 1 :] or [1.0]
    lifted, removed = best_split(u, v, c), best_split(first, second, capacity)
    for field in vars(lifted):
        assert getattr(lifted, field) == getattr(removed, field)


@given(cases(wide=False))
@QUICK
def test_routes_may_swap_names(case: Case) -> None:
    """S2: exchanging the routes mirrors the split."""
    u, v, c = case
    there, back = best_split(u, v, c), best_split(v, u, c)
    assert float(there.turns_per_s) == pytest.approx(float(back.turns_per_s), rel=1e-12)
    assert float(there.lowest_fraction) == pytest.approx(
        1 - float(back.highest_fraction), abs=1e-12
    )


@given(cases(), st.floats(0.01, 100.0))
@QUICK
def test_compute_is_a_line_that_no_split_moves(case: Case, flat: float) -> None:
    """S3: compute caps the bound and leaves the route loads' own best split alone."""
    u, v, c = case
    base = best_split(u, v, c)
    capped = best_split([*u, flat], [*v, flat], [*c, 1.0])
    assert float(capped.turns_per_s) == pytest.approx(
        min(float(base.turns_per_s), 1 / flat), rel=1e-11
    )


def test_speedup_of_one_over_the_other_strategy() -> None:
    """S3: storage-bound 2P4D, three times the storage NICs; compute-bound, no gain."""
    u, v = [1.0, 0.0, 0.2], [0.0, 1.0, 0.2]
    dual = (
        best_split(u, v, [2.0, 4.0, INF]).turns_per_s
        / best_split(u, u, [2.0, 4.0, INF]).turns_per_s
    )
    assert float(dual) == pytest.approx(3.0, rel=1e-15)
    bound = (
        best_split(u, v, [2.0, 4.0, 0.3]).turns_per_s
        / best_split(u, u, [2.0, 4.0, 0.3]).turns_per_s
    )
    assert float(bound) == 1.0


# --------------------------------------------------------------------------------- S2: elasticities


def exact_one_sided(case: Case, row: int) -> tuple[float, float]:
    """d ln(bound) / d ln(capacity) for a little more and a little less, from exact differences.

    The bound is piecewise rational in a capacity; at a step of 1e-12 the difference quotient of
    exact rationals is the one-sided derivative to about 1e-11.
    """
    lines = exact_lines(case)
    base = exact_bound(lines)
    assert base is not None
    step = Fraction(1, 10**12)
    sides = []
    for sign in (1, -1):
        factor = 1 + sign * step
        moved = list(lines)
        moved[row] = (lines[row][0] / factor, lines[row][1] / factor)
        bound = exact_bound(moved)
        sides.append(1.0 if bound is None else float((bound / base - 1) / (sign * step)))
    return sides[0], sides[1]


@given(cases(wide=False))
@QUICK
def test_elasticities_are_the_exact_one_sided_derivatives(case: Case) -> None:
    """S2: for more and for less of every capacity, kinks included."""
    u, v, c = (np.array(column) for column in case)
    if solve_exactly(exact_lines(case)).peak == 0:
        return
    more, less = elasticity_range(u, v, c)
    for row in range(len(c)):
        exact_more, exact_less = exact_one_sided(case, row)
        assert more[row] == pytest.approx(exact_more, abs=1e-9)
        assert less[row] == pytest.approx(exact_less, abs=1e-9)


@given(cases(wide=False))
@QUICK
def test_elasticities_sum_to_one_between_their_sides(case: Case) -> None:
    """S2: gains sum to at most 1, losses to at least 1, both to 1 where there is no kink."""
    u, v, c = (np.array(column) for column in case)
    more, less = elasticity_range(u, v, c)
    if solve_exactly(exact_lines(case)).peak == 0:
        assert not more.any()
        assert not less.any()
        return
    assert (more >= 0).all()
    assert (more <= less + 1e-12).all()
    assert (less <= 1).all()
    assert more.sum() <= 1 + 1e-12
    assert less.sum() >= 1 - 1e-12
    if np.allclose(more, less, atol=1e-12):
        assert more.sum() == pytest.approx(1.0, abs=1e-12)


@given(cases(wide=False))
@SLOW
def test_one_route_alone_is_priced_without_the_other(case: Case) -> None:
    """S2: with routes=1 the bound is min(C/u) and only the scarcest resource has a price."""
    u, v, c = (np.array(column) for column in case)
    more, less = elasticity_range(u, v, c, routes=1)
    own = loads(u, c)
    if own.max() == 0:
        assert not less.any()
        return
    binding = own == own.max()
    assert (less == binding).all()
    assert (more == (binding if binding.sum() == 1 else 0.0)).all()


def test_elasticities_at_the_kink_of_eight_to_one() -> None:
    """S2: 8P1D of the paper's node, where storage NIC, compute NIC and DRAM meet in one point."""
    # Rows: decode storage NIC read, decode compute NIC write, decode DRAM, in GB/s.
    case: Case = ([0.0, 2.0, 2.0], [1.0, 1.0, 3.0], [50.0, 400.0, 500.0])
    split = best_split(*case)
    assert float(split.turns_per_s) == pytest.approx(225.0, rel=1e-14)
    assert float(split.second_route_fraction) == pytest.approx(2 / 9, rel=1e-14)
    more, less = elasticity_range(*(np.array(column) for column in case))
    for row in range(3):
        assert (more[row], less[row]) == pytest.approx(exact_one_sided(case, row), abs=1e-9)
    assert more == pytest.approx([0, 4 / 9, 0], abs=1e-12)
    assert less == pytest.approx([1 / 9, 8 / 9, 5 / 9], abs=1e-12)


def test_elasticities_near_the_right_end_keep_their_digits() -> None:
    """S2: a split a billionth short of 1 is no kink."""
    case: Case = ([1e9, 0.0], [0.0, 1.0], [1.0, 1.0])
    more, less = elasticity_range(*(np.array(column) for column in case))
    for row in range(2):
        assert (more[row], less[row]) == pytest.approx(exact_one_sided(case, row), abs=1e-9)
