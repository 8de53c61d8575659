"""Q-scenario, Q-stations, Q-wait, Q-decode: a turn's costs and waits, each on a second road."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from queueing_cases import BARE, ENGINES, SAMPLE, Case, by_hand, cases, constants

from dpplan.bounds.strategies import bounds
from dpplan.demand import sequence_bytes
from dpplan.demand.decode import step_time_s
from dpplan.deployment import Deployment
from dpplan.errors import Infeasible
from dpplan.profiles.library import load_inputs, shipped_names
from dpplan.queueing import (
    CONSTANTS,
    SYSTEMS,
    Constants,
    System,
    run_offline,
    run_online,
    scenario,
    stack,
    stations,
)
from dpplan.queueing.costs import CONTEXTS, Tables
from dpplan.queueing.stations import AtContext, queue_wait_s

MANY = settings(SAMPLE, max_examples=100)


def paper_case(model: str = "ds-27b", **changes: object) -> Case:
    return Case("h800", model, "agentic", 1, 1).but(**changes)


# -------------------------------------------------------------------------------------- Q-wait


def erlang_c_wait_s(servers: int, utilisation: float, service_s: float) -> float:
    """Mean wait of M/M/c, by the recursion of Erlang's loss formula."""
    load, lost = servers * utilisation, 1.0
    for k in range(1, servers + 1):
        lost = load * lost / (k + load * lost)
    waits = lost / (1 - utilisation * (1 - lost))
    return waits * service_s / (servers * (1 - utilisation))


@MANY
@given(st.integers(1, 600), st.floats(0.0, 0.995), st.floats(1e-3, 1e3))
def test_the_wait_is_that_of_m_m_c(servers: int, utilisation: float, service_s: float) -> None:
    """Q-wait: Sakasegawa's formula against Erlang C: within 3.5 % of a service time.

    Relative errors are large only where next to nothing waits: long queues are 3 % right.
    """
    found = float(queue_wait_s(utilisation, servers, service_s))
    exact = erlang_c_wait_s(servers, utilisation, service_s)
    assert found == pytest.approx(exact, abs=0.035 * service_s)
    if servers == 1:
        assert found == pytest.approx(exact, rel=1e-9)
    if exact > service_s:
        assert found == pytest.approx(exact, rel=0.03)


@MANY
@given(st.floats(0, 5), st.floats(0, 5), st.floats(1, 1e4))
def test_waits_grow_with_utilisation(first: float, second: float, servers: float) -> None:
    """Q-wait: never falls as utilisation grows, finite even beyond 1, 0 where nothing comes."""
    low, high = sorted((first, second))
    waits = queue_wait_s([0.0, low, high], servers, 1.0)
    assert np.isfinite(waits).all()
    assert waits[0] == 0
    assert waits[1] <= waits[2]
    assert queue_wait_s(0.5, servers, 1.0) >= queue_wait_s(0.5, servers * 2, 1.0)


# ---------------------------------------------------------------------------------- Q-stations


@pytest.mark.parametrize("name", SYSTEMS)
def test_costs_of_a_turn_by_hand(name: str) -> None:
    """Q-stations: every column of the stations for round numbers, system by system."""
    system = SYSTEMS[name]
    reads, dual = name != "oracle", "dualpath" in name
    table = by_hand(
        agents=8,
        prefill_gpus=8,
        layerwise=float(system.layerwise),
        adaptive=float(system.scheduler == "adaptive"),
        round_robin=float(system.scheduler == "round-robin"),
        storage_ways=(2.0 if dual else 1.0) if reads else 0.0,
        storage_s_per_byte=1e-9 / (2.0 if dual else 1.0) if reads else 0.0,
        other_io_s_per_byte=1e-10 if reads else 0.0,
        node_read_bytes_per_s=1e9 if reads else math.inf,
        gpu_link_bytes_per_s=4e9,
        kernel_gpu_s=2.0,
        layer_blocks=1e6,
        hit_bytes=4e9,
        first_gpu_s=16.0,
    )
    k = Constants(storage_nic_share=0.8, prefill_efficiency=0.5, overlap_exponent=2.0)
    found = stations(table, k)
    at = found.at(np.array([[0.3]]))
    gpu_s = 2.0 / 0.5 + 1e6 * 1e-6 + 4e9 / 4e9
    uneven = {"basic+layerwise+dualpath": 1.53, "dualpath": 1.18}.get(name, 1.0)
    storage = 4.0 * uneven / 0.8 / (2 if dual else 1) if reads else 0.0
    load = gpu_s / 8
    read = 4e9 / 0.8e9 if reads else 0.0
    if system.layerwise:
        together, unloaded, exposed = math.hypot(load, storage), max(gpu_s, read), 0.0
    else:
        together, unloaded = max(storage + 0.5 * load, load), gpu_s + read
        exposed = max(together * storage / math.hypot(load, storage) - storage, 0.0)
    due = {
        "prefill_gpu_s": gpu_s,
        "prefill_load_s": load,
        "storage_load_s": storage,
        "together_s": together,
        "exposed_s": exposed,
        "read_s": read,
        "hand_off_s": 4e9 / 4e9,
        "unloaded_s": unloaded,
    }
    for column, value in due.items():
        assert getattr(at, column)[0, 0] == pytest.approx(value, rel=1e-12), column
    assert found.first_gpu_s[0, 0] == 16.0
    assert found.first_load_s[0, 0] == 2.0


@pytest.mark.parametrize("gain", ["storage_s_per_byte", "other_io_s_per_byte"])
def test_the_slower_of_storage_and_other_io_sets_the_load(gain: str) -> None:
    """Q-stations: reads load the busiest resource alone."""
    slow = by_hand(**{"storage_ways": 1.0, "hit_bytes": 2.0, gain: 3.0})
    found = stations(slow, BARE).at(np.zeros((1, 1))).storage_load_s[0, 0]
    assert found == pytest.approx(6.0 / (0.98 if gain.startswith("storage") else 1.0))


@MANY
@given(st.lists(st.floats(0, 1e3), min_size=CONTEXTS, max_size=CONTEXTS), st.floats(0, 1))
def test_costs_between_contexts_are_linear(values: list[float], progress: float) -> None:
    """Q-scenario: `Stations.at` against numpy's interpolation, beyond the end as at it."""
    table = by_hand().replace(decode_read_s=np.array([[values]]))
    found = stations(table, BARE)
    for at in (progress, progress + 1.0):
        due = np.interp(at, np.linspace(0, 1, CONTEXTS), values)
        assert found.at(np.array([[at]])).decode_read_s[0, 0] == pytest.approx(due, abs=1e-9)


def test_nine_contexts_are_enough() -> None:
    """Q-scenario: costs between the tabulated contexts are right within 2 %, for every model."""
    for model in shipped_names("models"):
        deployment = Deployment(load_inputs(hardware="h200", workload="agentic", model=model))
        smallest = deployment.smallest()
        nodes = smallest.prefill.group_nodes, smallest.decode.group_nodes
        found = stations(scenario(deployment, *nodes, SYSTEMS["dualpath"], agents=1), Constants())
        c0, end = 2 * 32721 - 55958, 55958
        for progress in (0.06, 0.19, 0.44, 0.94):
            context = c0 + (end - c0) * progress
            due = float(sequence_bytes(smallest.layout, context))
            hit = found.at(np.array([[progress]])).hand_off_s[0, 0]
            assert hit * found.constants["hand_off_bytes_per_s"][0] == pytest.approx(due, rel=0.02)


# --------------------------------------------------------------------------------- Q-scenario


@given(cases(), constants())
@settings(SAMPLE, max_examples=15)
def test_side_by_side_is_each_alone(case: Case, k: Constants) -> None:
    """Q-scenario: stack, rows, replace: every scenario as it is alone, offline and online."""
    both = case.tables(agents=24.0)
    if both is None:
        return
    rate = np.full(len(both), 0.3) * np.minimum(both.bound_agents_per_s, 1e6)
    other = by_hand(agents=3.0, prefill_gpus=2.0, kernel_gpu_s=1.0, agents_per_s=0.01)
    wide = stack([both, other])
    job, steady = run_offline(stations(wide, k)), run_online(stations(both, k), rate)
    for i in range(len(both)):
        alone = both.rows([i])
        assert len(alone) == 1
        one, calm = run_offline(stations(alone, k)), run_online(stations(alone, k), rate[[i]])
        assert job.jct_s[i] == pytest.approx(one.jct_s[0], rel=1e-6)
        assert job.ttft_s[i] == pytest.approx(one.ttft_s[0], rel=1e-6)
        assert steady.session_s[i] == pytest.approx(calm.session_s[0], rel=1e-6)
    lone = run_offline(stations(other, k))
    assert job.jct_s[-1] == pytest.approx(lone.jct_s[0], rel=1e-6)
    many = stations(wide.rows([0, 0]), [k, Constants()])
    first, second = run_offline(many).jct_s
    assert first == pytest.approx(job.jct_s[0], rel=1e-6)
    assert second == pytest.approx(run_offline(stations(wide.rows([0]), Constants())).jct_s[0])
    more = wide.replace(agents=wide.agents * 2)
    assert (more.agents == 2 * wide.agents).all()
    assert (more.turns == wide.turns).all()


@given(cases())
@settings(SAMPLE, max_examples=25)
def test_tables_are_the_planners_numbers(case: Case) -> None:
    """Q-scenario: bound, GPUs, shares, hit bytes and split are those of the planner's limits."""
    tables = case.tables(agents_per_s=0.1)
    if tables is None:
        return
    deployment = case.deployment()
    p, d = case.prefill_nodes, case.decode_nodes
    limits = deployment.at(p, d)
    per_session = sum(c.weight_fraction / c.turns_per_session for c in limits.classes)
    for i, system in enumerate(SYSTEMS.values()):
        rate, _, _ = bounds(limits, system.strategy, limits.capacity(p, d)[None])
        assert tables.bound_agents_per_s[i] == pytest.approx(rate[0] * per_session)
    assert tables.fraction.sum(axis=1) == pytest.approx(np.ones(len(tables)))
    turns = (tables.fraction * tables.turns).sum(axis=1)
    assert turns == pytest.approx(np.full(len(tables), 1 / per_session), rel=1e-4)
    gpus = deployment.inputs.prefill_hardware.gpus
    assert (tables.prefill_gpus <= p * gpus).all()
    assert (tables.decode_gpus <= d * gpus).all()
    for f in fields(Tables):
        values = getattr(tables, f.name)
        if f.name in ("agents", "bound_agents_per_s", "node_read_bytes_per_s"):
            continue
        assert np.isfinite(values).all(), f.name
        assert (values >= 0).all(), f.name


@pytest.mark.parametrize(("p", "d"), [(3, 5), (5, 7), (7, 2), (9, 4), (74, 74)])
def test_idle_nodes_and_coprime_counts(p: int, d: int) -> None:
    """Q-scenario: GPUs that work come in whole engines; a multiple of a unit runs the unit's."""
    deployment = paper_case("deepseek-v3.2", gpu__hbm_bytes="200 GB").deployment()
    found = scenario(deployment, p, d, SYSTEMS["dualpath"], agents=50)
    group = deployment.at(p, d)
    for count, gpus, side in (
        (p, found.prefill_gpus[0], group.prefill),
        (d, found.decode_gpus[0], group.decode),
    ):
        assert 0 < gpus <= 8 * count
        assert side.hardware.gpus == 8
    twice = scenario(deployment, 2 * p, 2 * d, SYSTEMS["dualpath"], agents=50)
    if math.gcd(p, d) == 1:
        assert twice.decode_engine_gpus[0] == found.decode_engine_gpus[0]
        assert twice.prefill_gpus[0] == 2 * found.prefill_gpus[0]
    for tables in (found, twice):
        done = run_offline(stations(tables, Constants()))
        assert math.isfinite(done.jct_s[0])


def test_stored_bytes_replace_the_profiles() -> None:
    """Q-scenario: a measured size of a cached token scales what is read, not what is held."""
    deployment = paper_case().deployment()
    plain = scenario(deployment, 1, 1, SYSTEMS["basic"], agents=5)
    stored = {"ds-27b": 50_000.0, "other": 1.0}
    other = scenario(deployment, 1, 1, SYSTEMS["basic"], agents=5, stored_kv_bytes_per_token=stored)
    contexts = np.linspace(2 * 32721 - 55958, 55958, CONTEXTS)
    assert other.hit_bytes[0, 0] == pytest.approx(50_000.0 * contexts)
    assert (other.resident_bytes == plain.resident_bytes).all()


def test_a_shared_fabric_and_a_backend_load_other_io() -> None:
    """Q-scenario: `shared_with_compute` and backend limits count where they bind."""
    own = paper_case().tables(["dualpath"], agents=5)
    shared = paper_case(
        storage_nic__shared_with_compute=True, compute_nic__bytes_per_s="10 GB/s"
    ).tables(["dualpath"], agents=5)
    capped = paper_case(storage_backend__read_bytes_per_s="20 GB/s").tables(["dualpath"], agents=5)
    assert own is not None
    assert shared is not None
    assert capped is not None
    assert shared.other_io_s_per_byte[0] > own.other_io_s_per_byte[0]
    assert capped.other_io_s_per_byte[0] == pytest.approx(1 / 20e9)
    assert own.storage_s_per_byte[0] == pytest.approx(1 / 100e9)
    found = [run_offline(stations(t, Constants())).jct_s[0] for t in (own, shared, capped)]
    assert found[0] < min(found[1:])


def test_systems_have_names() -> None:
    """Q-scenario: the paper's names, or the parts of a system of one's own."""
    assert [system.name for system in SYSTEMS.values()] == list(SYSTEMS)
    assert System("dual-path", False, "adaptive").name == "dual-path, not layerwise, adaptive"


# ------------------------------------------------------------------------------------- Q-decode


@MANY
@given(st.floats(0, 500), st.floats(0, 0.01), st.floats(0, 0.01), st.floats(0.01, 1))
def test_step_is_the_roofline_and_overheads(
    sequences: float, read: float, compute: float, share: float
) -> None:
    """Q-decode: D6's roofline of the engine's batch, and overheads per layer."""
    table = by_hand(
        layers=30.0,
        decode_shared_s=0.004,
        decode_expert_s=0.01,
        decode_expert_share=share,
        decode_engine_gpus=8.0,
    )
    k = dataclasses.replace(BARE, decode_layer_s=1e-4, decode_sequence_layer_s=2e-5)
    found = stations(table, k).step_s(np.array([sequences]), np.array([read]), np.array([compute]))
    batch = max(8 * sequences, 1.0)
    due = max(0.004 + 0.01 * (1 - (1 - share) ** batch) + batch * read / 8, batch * compute / 8)
    due += 30 * (1e-4 + 2e-5 * sequences)
    assert found[0] == pytest.approx(due, rel=1e-9)
    roofline = step_time_s(
        batch,
        shared_weight_s=0.004,
        expert_weight_s=0.01,
        expert_share_per_token=share,
        cache_s_per_sequence=read / 8,
        compute_s_per_sequence=compute / 8,
    )
    assert found[0] >= float(roofline)


# ------------------------------------------------------------------------------------ constants


def test_constants_lie_in_their_ranges() -> None:
    """Q-calibrate: every constant has a meaning, a unit, a range; outside it is refused."""
    assert {f.name for f in fields(Constants)} == set(CONSTANTS)
    for name, limits in CONSTANTS.items():
        assert limits.lowest <= getattr(Constants(), name) <= limits.highest
        assert limits.meaning
        for wrong in (limits.highest * 1.01, limits.lowest - 0.01, math.nan):
            with pytest.raises(ValueError, match=name):
                Constants(**{name: wrong})


# -------------------------------------------------------------------------------- all that ships


@pytest.mark.parametrize("hardware", shipped_names("hardware"))
def test_everything_shipped_runs(hardware: str) -> None:
    """Q: all models and workloads on a node type, 8 agents and 0.01 a second: finite numbers."""
    found = []
    for model in shipped_names("models"):
        for workload in shipped_names("workloads"):
            deployment = Deployment(load_inputs(hardware=hardware, workload=workload, model=model))
            try:
                smallest = deployment.smallest()
                nodes = smallest.prefill.group_nodes, smallest.decode.group_nodes
                found += [
                    scenario(deployment, *nodes, system, agents=8, agents_per_s=0.01)
                    for system in SYSTEMS.values()
                ]
            except Infeasible as error:
                assert error.limits
    both = stations(stack(found), Constants())
    assert len(both.tables) > 100
    for outcome in (run_offline(both), run_online(both)):
        for name, values in vars(outcome).items():
            assert np.isfinite(values).all(), name
            assert (values >= 0).all(), name


def test_at_context_names_every_row() -> None:
    """Q-stations: the rows stacked are those of `AtContext`, in its order."""
    found = stations(by_hand(decode_compute_s=0.25, resident_bytes=7.0), BARE)
    at = found.at(np.zeros((1, 1)))
    assert len(fields(AtContext)) == len(found._columns)
    assert (at.decode_compute_s[0, 0], at.resident_bytes[0, 0]) == (0.25, 7.0)
    assert set(ENGINES) <= set(shipped_names("models"))
