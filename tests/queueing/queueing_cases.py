"""Random hardware, models, workloads and constants, and hand-made tables, for the tests of time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from dpplan.deployment import Deployment
from dpplan.errors import Infeasible
from dpplan.profiles.calibration import Calibration
from dpplan.profiles.library import load_inputs, read_profile, shipped_names
from dpplan.profiles.workload import Distributions
from dpplan.queueing import CONSTANTS, SYSTEMS, Constants, Tables, scenario, stack
from dpplan.queueing.costs import CONTEXTS

Array = npt.NDArray[np.float64]

SAMPLE = settings(
    deadline=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)

# Engine sizes are given, so that a change of one rate leaves the engines as they are.
ENGINES = {
    "ds-27b": {"tp": 1, "dp": 8, "ep": 8},
    "qwen2.5-32b": {"tp": 4, "dp": 2},
    "gpt-oss-120b": {"tp": 2, "dp": 4, "ep": 8},
    "qwen3-235b-a22b": {"tp": 4, "dp": 4, "ep": 16},
    "deepseek-v3.2": {"tp": 1, "dp": 16, "ep": 16},
    "minimax-m3": {"tp": 4, "dp": 8, "ep": 32},
}
RATES = {
    "gpu.bf16_flop_per_s": ("TFLOP/s", 989.0),
    "gpu.fp8_flop_per_s": ("TFLOP/s", 1979.0),
    "gpu.hbm_bytes_per_s": ("TB/s", 3.35),
    "gpu.nvlink_bytes_per_s": ("GB/s", 200.0),
    "compute_nic.bytes_per_s": ("GB/s", 50.0),
    "storage_nic.bytes_per_s": ("GB/s", 50.0),
    "dram.bytes_per_s": ("GB/s", 500.0),
}
BACKEND = {
    "storage_backend.read_bytes_per_s": ("GB/s", 300.0),
    "storage_backend.write_bytes_per_s": ("GB/s", 100.0),
}
SIZES = {"gpu.hbm_bytes": ("GB", 80.0)}
ALL = RATES | BACKEND | SIZES


def written(path: str, factor: float) -> str:
    """A capacity of the paper's node times a factor, as `--set` takes it."""
    unit, value = ALL[path]
    return f"{value * factor:.17g} {unit}"


@dataclass(frozen=True)
class Case:
    """A deployment and the nodes it runs on."""

    hardware: str
    model: str
    workload: str
    prefill_nodes: int
    decode_nodes: int
    changes: Mapping[str, object] = field(default_factory=dict)

    def but(self, **changes: object) -> Case:
        """The same with other values of profiles, `a__b` standing for `a.b`."""
        own = {path.replace("__", "."): value for path, value in changes.items()}
        return replace(self, changes={**self.changes, **own})

    def deployment(self) -> Deployment:
        inputs = load_inputs(
            hardware=self.hardware,
            model=self.model,
            workload=self.workload,
            settings=self.changes,
        )
        return Deployment(inputs)

    def tables(self, systems: Sequence[str] = tuple(SYSTEMS), **load: Any) -> Tables | None:
        """Systems side by side; None where the planner finds no plan."""
        try:
            deployment = self.deployment()
            nodes = self.prefill_nodes, self.decode_nodes
            return stack([scenario(deployment, *nodes, SYSTEMS[s], **load) for s in systems])
        except Infeasible as error:
            assert str(error)
            return None


@st.composite
def cases(draw: st.DrawFn, workloads: Sequence[str] = ("agentic", "chat", "mix")) -> Case:
    """A shipped node with overrides, a model with its engine, a workload, P:D."""
    model = draw(st.sampled_from(sorted(ENGINES)))
    chosen: dict[str, object] = {
        f"parallelism.{side}.{name}": size
        for side in ("prefill", "decode")
        for name, size in ENGINES[model].items()
    }
    for path in draw(st.sets(st.sampled_from([*RATES, *BACKEND]), max_size=4)):
        chosen[path] = written(path, draw(st.floats(0.1, 4.0)))
    chosen["storage_nic.count"] = draw(st.sampled_from([1, 2, 8]))
    chosen["storage_nic.shared_with_compute"] = draw(st.booleans())
    workload = draw(st.sampled_from(workloads))
    if workload != "mix":
        session = draw(st.floats(100, 60_000))
        chosen["session_tokens"] = session
        chosen["context_tokens"] = session * draw(st.one_of(st.just(0.0), st.floats(0.01, 1.2)))
        chosen["append_tokens"] = draw(st.floats(1, 5000))
        chosen["output_tokens"] = draw(st.one_of(st.just(0.0), st.floats(1, 2000)))
        chosen["turns_per_session"] = draw(st.floats(1, 300))
        gap = draw(st.sampled_from([None, "1 s", "30 s"]))
        chosen |= {"tool_gap_s": gap} if gap else {}
        chosen["slo.tpot"] = draw(st.sampled_from(["50 ms", "200 ms", "unlimited"]))
    return Case(
        draw(st.sampled_from(["h800", "h200", "b200", "mi300x"])),
        model,
        workload,
        4 * draw(st.integers(1, 4)),
        4 * draw(st.integers(1, 4)),
        chosen,
    )


@st.composite
def distributions(draw: st.DrawFn) -> Distributions:
    """Measured quantiles of turns per session, often of session lengths, flat or steep."""
    size = draw(st.integers(2, 8))
    steps = draw(st.lists(st.floats(0.01, 1), min_size=size - 1, max_size=size - 1))
    below = np.concatenate([[0.0], np.cumsum(steps) / np.sum(steps)])
    below[-1] = 1.0

    def values() -> list[float]:
        exponents = st.lists(st.floats(0, 3), min_size=size, max_size=size)
        return sorted(10.0**e for e in draw(exponents))

    sessions = {"turns": values()}
    if draw(st.booleans()):
        sessions["session_tokens"] = values()
    return Distributions.model_validate(
        {"quantile_fractions": below.tolist(), "per_session": sessions}
    )


@st.composite
def measured_cases(draw: st.DrawFn) -> Case:
    """A case whose sessions were measured."""
    found = draw(distributions())
    told = found.per_session
    changes: dict[str, object] = {
        "distributions.quantile_fractions": found.quantile_fractions,
        "distributions.per_session.turns": told.turns,
    }
    if told.session_tokens is not None:
        changes["distributions.per_session.session_tokens"] = told.session_tokens
    case = draw(cases(("agentic", "chat")))
    return replace(case, changes={**case.changes, **changes})


@st.composite
def constants(draw: st.DrawFn) -> Constants:
    """Assumed ones, those calibrated, or anything in their ranges (on a logarithmic scale)."""
    kind = draw(st.sampled_from(["assumed", "calibrated", "any", "any"]))
    if kind == "assumed":
        return Constants()
    if kind == "calibrated":
        return calibrated()
    values = {}
    for name, limits in CONSTANTS.items():
        low = max(limits.lowest, 1e-3 * limits.highest if limits.lowest == 0 else 0.0)
        share = draw(st.floats(0, 1))
        value = math.exp(math.log(low) * (1 - share) + math.log(limits.highest) * share)
        values[name] = min(max(value, limits.lowest), limits.highest)
    return Constants(**values)


@cache
def calibrated() -> Constants:
    """Of the shipped calibration."""
    found = read_profile("calibrations", shipped_names("calibrations")[0])
    assert isinstance(found, Calibration)
    return Constants.of(found)


# ----------------------------------------------------------------------------- tables made by hand

# Nothing takes time but what a test gives: efficient, no overhead, no batching, instant links.
BARE = Constants(
    storage_nic_share=0.98,
    prefill_efficiency=1.0,
    block_overhead_s=1e-8,
    overlap_exponent=30.0,
    exposed_compute_share=1.0,
    batching_delay=0.0,
    request_read_bytes_per_s=1e12,
    hand_off_bytes_per_s=1e12,
    decode_layer_s=1e-6,
    decode_sequence_layer_s=1e-8,
    imbalance_round_robin=1.0,
    imbalance_adaptive=1.0,
)


def by_hand(**columns: Any) -> Tables:
    """One scenario of one kind of session with little to do; `columns` as they are in `Tables`.

    A scalar fills all classes and contexts; a list of scalars is one value a class.
    """
    values: dict[str, Any] = {
        "agents": 1.0,
        "agents_per_s": math.nan,
        "bound_agents_per_s": math.inf,
        "prefill_gpus": 1.0,
        "decode_gpus": 1.0,
        "layerwise": 1.0,
        "adaptive": 0.0,
        "round_robin": 0.0,
        "storage_ways": 0.0,
        "storage_s_per_byte": 0.0,
        "other_io_s_per_byte": 0.0,
        "node_read_bytes_per_s": math.inf,
        "gpu_link_bytes_per_s": math.inf,
        "layers": 1.0,
        "decode_shared_s": 0.0,
        "decode_expert_s": 0.0,
        "decode_expert_share": 1.0,
        "decode_engine_gpus": 1.0,
        "decode_room_bytes": math.inf,
        "fraction": 1.0,
        "turns": 10.0,
        "output_tokens": 0.0,
        "gap_s": 0.0,
        "storage_fraction": 1.0,
        "first_gpu_s": 0.0,
        "session_bytes": 0.0,
        "kernel_gpu_s": 0.0,
        "layer_blocks": 0.0,
        "hit_bytes": 0.0,
        "decode_read_s": 0.0,
        "decode_compute_s": 0.0,
        "resident_bytes": 0.0,
    }
    assert set(values) == {f.name for f in fields(Tables)}
    assert set(columns) <= set(values)
    values |= columns
    classes = max(np.size(value) for value in values.values())
    shaped = {}
    for name, value in values.items():
        row = np.asarray(value, dtype=float)
        if name in PER_SCENARIO:
            shaped[name] = row.reshape(1)
        elif name in PER_CLASS:
            shaped[name] = np.broadcast_to(row, (1, classes)).copy()
        else:
            shaped[name] = np.broadcast_to(row[..., None], (1, classes, CONTEXTS)).copy()
    return Tables(**shaped)


PER_CLASS = (
    "fraction",
    "turns",
    "output_tokens",
    "gap_s",
    "storage_fraction",
    "first_gpu_s",
    "session_bytes",
)
PER_CONTEXT = (
    "kernel_gpu_s",
    "layer_blocks",
    "hit_bytes",
    "decode_read_s",
    "decode_compute_s",
    "resident_bytes",
)
PER_SCENARIO = tuple(f.name for f in fields(Tables) if f.name not in PER_CLASS + PER_CONTEXT)
