"""Q-online, Q-decode, Q-capacity, Q-working-set: the steady state, and the most it sustains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from queueing_cases import (
    BARE,
    RATES,
    SAMPLE,
    Case,
    by_hand,
    cases,
    constants,
    measured_cases,
    written,
)

from dpplan.demand import sequence_bytes
from dpplan.deployment.limits import Limits
from dpplan.queueing import SYSTEMS, Constants, Tables, largest_rate, run_online, stations
from dpplan.queueing.costs import unit_limits
from dpplan.queueing.online import LIMITS

Array = npt.NDArray[np.float64]

NAMES = tuple(SYSTEMS)
LOADS = st.floats(0.01, 1.5)
LAYERED = np.array([system.layerwise for system in SYSTEMS.values()])
MEANS = ("ttft_s", "hand_off_s", "ttst_s", "tpot_s", "session_s", "agents_in_system")


def rates_of(tables: Tables, load: float) -> Array:
    """Arrivals at a share of the planner's bound, or of one a second where nothing binds."""
    bound = tables.bound_agents_per_s
    return np.asarray(load * np.where(np.isfinite(bound), bound, 1.0))


def limits_of(
    tables: Tables, ttft_s: float = np.inf, tpot_s: float = np.inf
) -> tuple[Array, Array]:
    return np.full(len(tables), ttft_s), np.full(len(tables), tpot_s)


def capacity(tables: Tables, k: Constants, **slo: float) -> Array:
    return largest_rate(stations(tables, k), *limits_of(tables, **slo))[0]


# ------------------------------------------------------------------------------- what must hold


@given(cases(), constants(), LOADS)
@settings(SAMPLE, max_examples=60)
def test_latencies_add_up_and_nothing_is_negative(case: Case, k: Constants, load: float) -> None:
    """Q-online: finite, >= 0; TTFT is its parts; Little's law; a full station says unstable."""
    tables = case.tables(agents_per_s=0.0)
    if tables is None:
        return
    rate = rates_of(tables, load)
    found = run_online(stations(tables, k), rate)
    for name, values in vars(found).items():
        assert np.isfinite(values).all(), name
        assert (values >= 0).all(), name
    parts = found.scheduling_s + found.read_s + found.prefill_s
    assert found.ttft_s == pytest.approx(parts, rel=1e-9)
    assert found.ttst_s == pytest.approx(found.hand_off_s + found.tpot_s, rel=1e-9)
    assert found.agents_in_system == pytest.approx(rate * found.session_s, rel=1e-9)
    by_class = (tables.fraction * found.class_session_s).sum(axis=1)
    assert found.session_s == pytest.approx(by_class, rel=1e-9)
    assert found.use.shape == (len(tables), len(LIMITS))
    assert (found.stable == (found.use < 1).all(axis=1)).all()
    if load >= 1:
        bounded = np.isfinite(tables.bound_agents_per_s)
        assert not found.stable[bounded].any()


@given(cases(), constants(), st.floats(0.01, 0.9))
@settings(SAMPLE, max_examples=40)
def test_a_step_takes_no_less_than_unloaded(case: Case, k: Constants, load: float) -> None:
    """Q-decode: TPOT >= the planner's lone step (D6), and the batch = tokens/s * step.

    A top-k that a history only grows into reads less in its mean than at the mean history: 3 %.
    """
    context = case.changes.get("context_tokens")
    if isinstance(context, float):  # a history no longer than the session
        case = case.but(
            context_tokens=min(context, 0.9 * float(str(case.changes["session_tokens"])))
        )
    tables = case.tables(agents_per_s=0.0)
    if tables is None:
        return
    rate = rates_of(tables, load)
    online = stations(tables, k)
    found = run_online(online, rate)
    limits: Limits = unit_limits(case.deployment(), case.prefill_nodes, case.decode_nodes)
    lone = [c.decode.unloaded_step_s for c in limits.classes if c.output_tokens]
    if lone:
        assert (found.tpot_s >= min(lone) * (1 - 0.03)).all()
    # The fixed point, on a second road: mean costs by hand, the step at the batch it makes.
    weight = np.maximum(tables.fraction * tables.turns * tables.output_tokens, 1e-300)
    read, compute = (
        np.mean([(weight * _at(table, i)).sum(axis=1) for i in range(9)], axis=0)
        / weight.sum(axis=1)
        for table in (tables.decode_read_s, tables.decode_compute_s)
    )
    tokens = rate * (tables.fraction * tables.turns * tables.output_tokens).sum(axis=1)
    batch = tokens * found.tpot_s / tables.decode_gpus
    below = found.use[:, LIMITS.index("decode.gpu")] < 0.99
    again = online.step_s(batch, read, compute)
    assert again[below] == pytest.approx(found.tpot_s[below], rel=1e-6)


def test_the_step_grows_with_arrivals() -> None:
    """Q-decode: up to the last percent of what decode can do, against a search of all batches."""
    batches = np.concatenate([[0.0], np.geomspace(1e-4, 1e7, 400_001)])
    table = by_hand(
        agents_per_s=0.0,
        turns=1.0,
        output_tokens=1.0,
        layers=60.0,
        decode_shared_s=4e-3,
        decode_expert_s=5e-2,
        decode_expert_share=1 / 32,
        decode_read_s=2e-5,
        decode_compute_s=1e-4,
        decode_engine_gpus=16.0,
        decode_gpus=16.0,
    )
    k = replace(BARE, decode_layer_s=1.4e-4, decode_sequence_layer_s=7e-6)
    found = stations(table, k)
    steps = np.concatenate(
        [
            stations(table.rows([0] * 1000), k).step_s(
                part, np.full(1000, 2e-5), np.full(1000, 1e-4)
            )
            for part in np.split(batches[:400_000], 400)
        ]
    )
    most = 16 * batches[399_999] / steps[-1]
    before = 0.0
    for load in (0.0, 1e-6, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99, 0.995):
        tpot = float(run_online(found, np.array([load * most])).tpot_s[0])
        enough = batches[:400_000] * 16 >= load * most * steps
        assert tpot == pytest.approx(steps[np.argmax(enough)], rel=1e-3)
        assert tpot >= before
        before = tpot


def _at(table: Array, i: int) -> Array:
    """A table's values at the middle of a ninth of the session, (R, K)."""
    place = (i + 0.5) / 9 * 8
    low = min(int(place), 7)
    return np.asarray(table[..., low] + (place - low) * (table[..., low + 1] - table[..., low]))


@given(cases(), constants(), LOADS, st.sampled_from(sorted(RATES)), st.floats(1.05, 3))
@settings(SAMPLE, max_examples=40)
def test_faster_parts_and_fewer_arrivals_wait_less(
    case: Case, k: Constants, load: float, path: str, factor: float
) -> None:
    """Q-online, Q-capacity: latencies fall with every rate and grow with arrivals; capacity too.

    Without layerwise prefill the exposed share of the shorter of compute and reads bends: there
    faster compute may cost the capacity 3 %.
    """
    slower = case.but(**{path: written(path, 0.5)}).tables(agents_per_s=0.0)
    faster = case.but(**{path: written(path, 0.5 * factor)}).tables(agents_per_s=0.0)
    if slower is None:
        return
    assert faster is not None
    rate = rates_of(slower, load)
    before, after = run_online(stations(slower, k), rate), run_online(stations(faster, k), rate)
    calm = run_online(stations(slower, k), rate * 0.8)
    steady = before.stable & LAYERED
    assert after.stable[steady].all()
    assert calm.stable[before.stable].all()
    for name in MEANS:
        base = getattr(before, name)
        assert (getattr(after, name) <= base * (1 + 1e-6) + 1e-12)[steady].all(), name
        assert (getattr(calm, name) <= base * (1 + 1e-6) + 1e-12)[before.stable].all(), name
    slo = {"ttft_s": 4.0, "tpot_s": 0.05}
    low, high = capacity(slower, k, **slo), capacity(faster, k, **slo)
    assert (high >= low * np.where(LAYERED, 1 - 1e-6, 0.97) - 1e-9).all()


# ----------------------------------------------------------------------------------- Q-capacity


@given(measured_cases(), constants(), st.floats(0.05, 20), st.floats(0.005, 0.2))
@settings(SAMPLE, max_examples=20)
def test_capacity_of_measured_sessions_is_within_the_bound(
    case: Case, k: Constants, ttft: float, tpot: float
) -> None:
    """Q-capacity, Q-sessions: <= the planner's bound; all of a steady state finite just below."""
    tables = case.tables(agents_per_s=0.0)
    if tables is None:
        return
    found = stations(tables, k)
    most, _ = largest_rate(found, *limits_of(tables, ttft, tpot))
    assert (most <= tables.bound_agents_per_s * (1 + 1e-9)).all()
    below = run_online(found, most * 0.999)
    for name, values in vars(below).items():
        assert np.isfinite(values).all(), name
        assert (np.asarray(values) >= 0).all(), name


@given(cases(), constants(), st.floats(0.05, 20), st.floats(0.005, 0.2))
@settings(SAMPLE, max_examples=40)
def test_capacity_is_where_a_limit_is_met(
    case: Case, k: Constants, ttft: float, tpot: float
) -> None:
    """Q-capacity: <= the planner's bound; met just below, missed just above; oracle the most."""
    tables = case.tables(agents_per_s=0.0)
    if tables is None:
        return
    found = stations(tables, k)
    limits = limits_of(tables, ttft, tpot)
    most, ended = largest_rate(found, *limits)
    assert (most <= tables.bound_agents_per_s * (1 + 1e-9)).all()
    below, above = run_online(found, most * 0.999), run_online(found, most * 1.001 + 1e-9)
    for i, name in enumerate(NAMES):
        if most[i] > 1e-6:
            assert below.stable[i]
            assert below.ttft_s[i] <= ttft
            assert below.tpot_s[i] <= tpot
        if np.isfinite(tables.bound_agents_per_s[i]):
            missed = not above.stable[i] or above.ttft_s[i] > ttft or above.tpot_s[i] > tpot
            assert missed, (name, ended[i])
        assert ended[i] in (*LIMITS, "slo.ttft", "slo.tpot")
    by_name = dict(zip(NAMES, most, strict=True))
    assert by_name["oracle"] >= max(most) * (1 - 1e-6)
    even = replace(k, imbalance_adaptive=1.0, imbalance_round_robin=1.0)
    spread = dict(zip(NAMES, largest_rate(stations(tables, even), *limits)[0], strict=True))
    assert spread["dualpath"] >= spread["basic+layerwise"] * (1 - 1e-6)
    assert spread["dualpath"] == pytest.approx(spread["basic+layerwise+dualpath"], rel=1e-6)
    # Looser limits admit no less.
    assert (largest_rate(found, *limits_of(tables, 2 * ttft, 2 * tpot))[0] >= most - 1e-9).all()


def test_capacity_names_what_ends_it() -> None:
    """Q-capacity: each limit by a table that has no other."""
    busy = {"kernel_gpu_s": 1.0, "bound_agents_per_s": 1e3}
    decode = {
        "output_tokens": 10.0,
        "decode_read_s": 1e-3,
        "decode_shared_s": 0.01,
        "bound_agents_per_s": 1e3,
    }
    cases_by_limit = {
        "prefill.gpu": (busy, np.inf, np.inf, 0.1),
        "storage_nic_read": (
            {
                "storage_ways": 1.0,
                "hit_bytes": 0.98e9,
                "storage_s_per_byte": 1e-9,
                "bound_agents_per_s": 1e3,
            },
            np.inf,
            np.inf,
            0.1,
        ),
        "decode.gpu": (decode, np.inf, np.inf, 1 / (100 * (1e-3 + 1e-8))),
        "decode.hbm": (
            decode | {"decode_room_bytes": 1e9, "resident_bytes": 1e9},
            np.inf,
            np.inf,
            1 / (100 * (0.011 + 1e-6 + 1e-8)),
        ),
        "bound": ({"bound_agents_per_s": 0.25}, np.inf, np.inf, 0.25),
        # M/M/1: 2 s in all at half the capacity.
        "slo.ttft": (busy, 2.0, np.inf, 0.05),
        # A batch of 10 steps in 20 ms.
        "slo.tpot": (decode, np.inf, 0.02, 10 / 0.02 / 100),
    }
    for name, (columns, ttft, tpot, due) in cases_by_limit.items():
        table = by_hand(agents_per_s=0.0, **columns)
        rate, ended = largest_rate(stations(table, BARE), np.array([ttft]), np.array([tpot]))
        assert ended == (name,)
        assert rate[0] == pytest.approx(due, rel=2e-3), name


def test_a_lone_session_that_misses_a_limit_has_no_capacity() -> None:
    """Q-capacity: 0 where an empty system is too slow already."""
    table = by_hand(agents_per_s=0.0, kernel_gpu_s=5.0, bound_agents_per_s=1.0)
    rate, ended = largest_rate(stations(table, BARE), np.array([4.0]), np.array([0.05]))
    assert rate[0] == pytest.approx(0, abs=1e-9)
    assert ended == ("slo.ttft",)


# ------------------------------------------------------------------------------- by other roads


def test_one_gpu_is_m_m_1() -> None:
    """Q-online: sojourn service/(1 - rho) and Little's law, for a session of one kind of turn."""
    table = by_hand(agents_per_s=0.0, kernel_gpu_s=2.0, turns=5.0)
    for rho in (0.1, 0.5, 0.9):
        found = run_online(stations(table, BARE), np.array([rho / 10]))
        assert found.ttft_s[0] == pytest.approx(2 / (1 - rho), rel=1e-3)
        assert found.agents_in_system[0] == pytest.approx(rho / (1 - rho), rel=2e-3)


def test_one_gpu_is_what_arrivals_make_of_it() -> None:
    """Q-online: turns drawn at random on one GPU (M/M/1), Lindley's recursion: within 5 %."""
    draws = np.random.default_rng(3)
    count, service, rho = 400_000, 2.0, 0.7
    gaps, works = draws.exponential(service / rho, count), draws.exponential(service, count)
    steps = np.concatenate([[0.0], works[:-1] - gaps[1:]])
    walk = np.cumsum(steps)
    waits = walk - np.minimum.accumulate(walk)
    table = by_hand(agents_per_s=0.0, kernel_gpu_s=service, turns=1.0)
    found = run_online(stations(table, BARE), np.array([rho / service]))
    assert found.scheduling_s[0] == pytest.approx(waits.mean(), rel=0.05)


def test_without_load_a_turn_waits_for_nothing() -> None:
    """Q-online: as arrivals vanish, TTFT is the unloaded turn and TPOT the lone step."""
    tables = Case("h800", "ds-27b", "agentic", 1, 1).tables(agents_per_s=0.0)
    assert tables is not None
    found = run_online(stations(tables, Constants()), np.full(len(tables), 1e-9))
    assert found.scheduling_s == pytest.approx(np.zeros(len(tables)), abs=1e-6)
    assert found.ttft_s == pytest.approx(found.read_s + found.prefill_s, rel=1e-6)
    assert found.agents_in_system == pytest.approx(np.zeros(len(tables)), abs=1e-5)


def test_unstable_is_flagged() -> None:
    """Q-online: at and beyond each station's capacity, `stable` is False."""
    tables = Case("h800", "ds-27b", "agentic", 1, 1).tables(agents_per_s=0.0)
    assert tables is not None
    found = stations(tables, Constants())
    most = capacity(tables, Constants())
    assert run_online(found, most * 0.99).stable.all()
    for factor in (1.001, 2.0, 1e6):
        over = run_online(found, most * factor)
        assert not over.stable.any()
        assert np.isfinite(over.ttft_s).all()


# --------------------------------------------------------------------------------- Q-working-set


def test_working_set_is_half_of_all_sessions_alive() -> None:
    """Q-working-set: lambda * mean JCT * bytes of session_tokens / 2 (DualPath, section 8.2)."""
    case = Case("h800", "deepseek-v3.2", "agentic", 2, 4)
    tables = case.tables(agents_per_s=0.0)
    assert tables is not None
    rate = np.full(len(tables), 0.1)
    found = run_online(stations(tables, Constants()), rate)
    layout = case.deployment().smallest().layout
    session_bytes = float(sequence_bytes(layout, 55958))
    assert found.working_set_bytes == pytest.approx(rate * found.session_s * session_bytes / 2)


def test_gaps_stretch_sessions_and_not_the_rate() -> None:
    """Q-working-set: gaps that stretch JCT r-fold hold r times the agents and KV, at one rate.

    And what storage sustains stays as it is: r^2 assumes that arrivals are raised, too.
    """
    case = Case("h800", "ds-27b", "agentic", 1, 1)
    plain = case.tables(agents_per_s=0.0)
    assert plain is not None
    rate = 0.5 * plain.bound_agents_per_s.min() * np.ones(len(plain))
    base = run_online(stations(plain, Constants()), rate)
    i = NAMES.index("basic+layerwise")
    gap = float(base.session_s[i]) / 156  # between 157 turns
    gapped = case.but(tool_gap_s=f"{gap:.17g} s").tables(agents_per_s=0.0)
    assert gapped is not None
    found = run_online(stations(gapped, Constants()), rate)
    for name, tolerance in (
        ("session_s", 2e-2),
        ("agents_in_system", 2e-2),
        ("working_set_bytes", 2e-2),
    ):
        ratio = getattr(found, name)[i] / getattr(base, name)[i]
        assert ratio == pytest.approx(2.0, rel=tolerance), name
    for name in ("ttft_s", "tpot_s", "ttst_s", "use"):
        assert getattr(found, name) == pytest.approx(getattr(base, name), rel=1e-12)
    assert capacity(gapped, Constants()) == pytest.approx(capacity(plain, Constants()), rel=1e-9)
    slo = {"ttft_s": 4.0, "tpot_s": 0.05}
    before, after = (capacity(t, Constants(), **slo) for t in (plain, gapped))
    assert after == pytest.approx(before, rel=1e-9)


def test_a_class_of_less_than_one_turn_has_no_gap() -> None:
    """Q-online: no gap follows the last turn, however short the session."""
    table = by_hand(
        agents_per_s=0.0, fraction=[0.5, 0.5], turns=[0.4, 3.0], gap_s=10.0, kernel_gpu_s=1.0
    )
    found = run_online(stations(table, BARE), np.array([1e-6]))
    assert found.class_session_s[0] == pytest.approx([0.4, 3 * 1.0 + 2 * 10.0], rel=1e-4)
