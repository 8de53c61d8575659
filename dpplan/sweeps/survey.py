"""Surveys: one question asked of many models and contexts, each row a plan's own limits.

`model_survey` answers "does the second storage path pay?": the cache-compute ratio against the
balance of the node, what binds, and three gains that must not be mixed up (see there).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from dpplan.arrays import Array
from dpplan.bounds.strategies import bounds
from dpplan.demand import Counting
from dpplan.deployment import Limits
from dpplan.deployment.routes import RESOURCES, resource_index
from dpplan.errors import BadInput, Fault, Infeasible
from dpplan.planner.optimize import Case, prepare
from dpplan.profiles.library import read_profile, shipped_names
from dpplan.profiles.workload import TurnClass

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "CONTEXTS",
    "SurveyRow",
    "fleet_gain",
    "model_survey",
    "node_balance_gb_per_pflop",
    "survey_case",
    "survey_row",
]


CONTEXTS: Final = (16_384, 32_768, 65_536, 131_072, 262_144, 524_288, 1_048_576)
"""Context lengths of a survey [tokens]."""

FLEET_NODES: Final = (48, 96)
"""Prefill and decode nodes of the paper's largest cluster: what engines a fleet can run."""

_PAPER_PROPORTION: Final = (48, 96)
"""1P:2D, as the paper's 2P4D testbed."""
_DECODE_LIMITS: Final = ("decode.gpu", "decode.hbm")
_GRID: Final = 201
_BINDS: Final = 1 - 1e-9
_SMALL_GROUPS: Final = 3
"""Engine groups of the small cluster at least: enough for 1P:2D and 2P:1D."""


@dataclass(frozen=True)
class SurveyRow:
    """One model at one context on one node type; None where no plan exists."""

    hardware: str
    model: str
    context_tokens: float
    append_tokens: float
    traffic: str
    kv_bytes_per_token: float | None = None
    hit_kv_bytes: float | None = None
    prefill_flop: float | None = None
    cache_compute_ratio_gb_per_pflop: float | None = None
    node_balance_gb_per_pflop: float | None = None
    """Ratio above which one node's storage NICs need longer than its GPUs, at this turn's mix of
    kernels."""
    read_node_s: float | None = None
    """Seconds one node's storage NICs take to read a turn's hit KV."""
    prefill_node_s: float | None = None
    """Seconds one node's GPUs take to prefill a turn."""
    decode_node_s: float | None = None
    """Seconds of one node that a turn's decode takes, at the largest batch of a fleet's engine."""
    prefill_nodes: int | None = None
    decode_nodes: int | None = None
    prefill_only_bottlenecks: str = ""
    dual_path_bottlenecks: str = ""
    speedup: float | None = None
    """Dual-path over prefill-only at the P:D above, the best one for dual-path."""
    storage_side_speedup: float | None = None
    """Of a fleet at 1P:2D with decode GPUs and HBM lifted: decode provisioned to match."""
    fleet_speedup: float | None = None
    """Of a fleet, each strategy at its own best P:D."""
    infeasible: str = ""
    """Why no plan exists; empty where one does."""


def model_survey(
    hardware: str | Sequence[str] = "h800",
    contexts: Sequence[float] = CONTEXTS,
    models: Sequence[str] | None = None,
    *,
    workload: str = "agentic",
    traffic: Counting = "full",
) -> pd.DataFrame:
    """What binds and what the second path buys, by model, context and node type (D4, S2, S3).

    Sessions are stretched to each context: turns per session and session length grow in
    proportion, append and output stay the workload's. A combination that no plan serves is a row
    with `infeasible` filled, not an error.

    Parameters
    ----------
    hardware : str or sequence of str
        Node types.
    contexts : sequence of float
        Mean cached history of a turn [tokens].
    models : sequence of str, optional
        Absent = every shipped model.
    workload : str
        A workload of one class of turns.
    traffic : {"full", "paper"}

    Returns
    -------
    DataFrame
        One row per node type, model and context, in this order; columns as `SurveyRow`.

    Raises
    ------
    BadInput
        If a profile is wrong or the workload is a mix.

    Examples
    --------
    >>> frame = model_survey("h800", [32_768], ["deepseek-v3", "qwen2.5-32b"])
    >>> frame.set_index("model").prefill_only_bottlenecks.to_dict()
    {'deepseek-v3': 'prefill.gpu', 'qwen2.5-32b': 'prefill.storage_nic_read'}
    """
    import pandas as pd

    kinds = [hardware] if isinstance(hardware, str) else list(hardware)
    names = shipped_names("models") if models is None else list(models)
    rows = [
        survey_row(kind, name, context, workload=workload, traffic=traffic)
        for kind in kinds
        for name in names
        for context in contexts
    ]
    return pd.DataFrame(rows, columns=[field.name for field in dataclasses.fields(SurveyRow)])


def survey_case(
    hardware: str,
    model: str,
    context_tokens: float,
    *,
    workload: str = "agentic",
    traffic: Counting = "full",
    nodes: int | None = None,
) -> Case:
    """A plan's inputs with the workload's sessions stretched to a context; errors as `prepare`."""
    profile = read_profile("workloads", workload)
    if not isinstance(profile, TurnClass):
        needed = "a workload of one class of turns is needed"
        raise BadInput(Fault("workload", needed, f"the mix {workload}", "survey its classes"))
    if not profile.context_tokens:
        needed = "a workload with a cached history is needed"
        raise BadInput(Fault("workload", needed, f"{workload} with none", "choose another"))
    stretch = context_tokens / profile.context_tokens
    settings = {
        "workload.context_tokens": float(context_tokens),
        "workload.turns_per_session": profile.turns_per_session * stretch,
        "workload.session_tokens": profile.session_tokens * stretch,
    }
    return prepare(hardware, workload, model=model, traffic=traffic, nodes=nodes, settings=settings)


def survey_row(
    hardware: str,
    model: str,
    context_tokens: float,
    *,
    workload: str = "agentic",
    traffic: Counting = "full",
) -> SurveyRow:
    """One row of `model_survey`.

    The small cluster has the node type's default count, or three of the larger engine group where
    that is more; a fleet runs the engines of the paper's 48P96D, at any P:D.
    """
    profile = read_profile("workloads", workload)
    tokens = profile.append_tokens if isinstance(profile, TurnClass) else math.nan
    row = SurveyRow(hardware, model, float(context_tokens), tokens, traffic)

    def case_of(nodes: int | None) -> Case:
        return survey_case(
            hardware, model, context_tokens, workload=workload, traffic=traffic, nodes=nodes
        )

    try:
        case = case_of(None)
        smallest = case.deployment.smallest()
        groups = _SMALL_GROUPS * max(smallest.prefill.group_nodes, smallest.decode.group_nodes)
        if groups > (case.inputs.prefill_hardware.default_nodes or 0):
            case = case_of(groups)
        fleet = case.deployment.at(*FLEET_NODES)
    except Infeasible as error:
        return dataclasses.replace(row, infeasible=str(error))
    turn = fleet.classes[0]
    small = (case.nodes.prefill_nodes, case.nodes.decode_nodes)
    gpus = (fleet.prefill.hardware.gpus, fleet.decode.hardware.gpus)
    rate = turn.prefill_flop / turn.prefill_gpu_s * gpus[0] if turn.prefill_gpu_s else math.inf
    return dataclasses.replace(
        row,
        kv_bytes_per_token=fleet.layout.bytes_per_token,
        hit_kv_bytes=turn.hit_kv_bytes,
        prefill_flop=turn.prefill_flop,
        cache_compute_ratio_gb_per_pflop=turn.hit_kv_bytes / 1e9 / (turn.prefill_flop / 1e15),
        node_balance_gb_per_pflop=node_balance_gb_per_pflop(
            fleet.prefill.node.storage_nic_read, rate
        ),
        read_node_s=turn.read_s[0],
        prefill_node_s=turn.prefill_gpu_s / gpus[0],
        decode_node_s=turn.decode_gpu_s / gpus[1],
        prefill_nodes=small[0],
        decode_nodes=small[1],
        prefill_only_bottlenecks=_bottlenecks(case.limits, "prefill-only", small),
        dual_path_bottlenecks=_bottlenecks(case.limits, "dual-path", small),
        speedup=_gain(case.limits, small),
        storage_side_speedup=_gain(fleet, _PAPER_PROPORTION, lifted=_DECODE_LIMITS),
        fleet_speedup=_own_best_gain(fleet),
    )


def node_balance_gb_per_pflop(storage_bytes_per_s: float, flop_per_s: float) -> float:
    """Cache-compute ratio at which a node reads as long as it computes (S3, S4) [GB/PFLOP].

    Above it the storage NICs of a prefill node bind before its GPUs; with the second path, a
    cluster's balance is (P + D)/P times as high.

    Examples
    --------
    A 50 GB/s storage NIC beside 10 PFLOP/s:

    >>> node_balance_gb_per_pflop(50e9, 10e15)
    5.0
    """
    return storage_bytes_per_s / 1e9 / (flop_per_s / 1e15)


def fleet_gain(read_node_s: float, prefill_node_s: float, decode_node_s: float) -> float:
    """Dual-path over prefill-only, each at its own best P:D of a fleet without end (S2, S3).

    A turn takes node-seconds: read r, prefill p, decode d. Where nothing else binds, prefill-only
    needs max(r, p) of prefill nodes and d of decode nodes; dual-path reads on all nodes and needs
    max(r, p + d) in all. The quotient (max(r, p) + d) / max(r, p + d) lies between 1 (reading is
    no longer than prefill) and 2 (no prefill, and d = r): a fleet that may choose its P:D can buy
    storage NICs as prefill nodes, too.

    Parameters
    ----------
    read_node_s, prefill_node_s, decode_node_s : float
        Node-seconds a turn takes [s].

    Returns
    -------
    float
        Dimensionless, from 1 to 2.

    Examples
    --------
    >>> fleet_gain(1.0, 0.0, 1.0), fleet_gain(1.0, 2.0, 5.0), fleet_gain(4.0, 1.0, 1.0)
    (2.0, 1.0, 1.25)
    """
    alone = max(read_node_s, prefill_node_s) + decode_node_s
    return alone / max(read_node_s, prefill_node_s + decode_node_s)


def _capacity(limits: Limits, nodes: tuple[int, int], lifted: Sequence[str]) -> Array:
    capacity = limits.capacity(*nodes, whole_engines=False)
    for name in lifted:
        capacity[resource_index(name)] = math.inf
    return capacity


def _bottlenecks(limits: Limits, strategy: str, nodes: tuple[int, int]) -> str:
    _, _, load = bounds(limits, strategy, _capacity(limits, nodes, ())[None])
    return ", ".join(RESOURCES[r] for r in np.flatnonzero(load[0] >= _BINDS))


def _gain(limits: Limits, nodes: tuple[int, int], lifted: Sequence[str] = ()) -> float | None:
    """Dual-path over prefill-only at one P:D, some capacities lifted; None where nothing binds."""
    capacity = _capacity(limits, nodes, lifted)[None]
    single, dual = (
        float(bounds(limits, name, capacity)[0][0]) for name in ("prefill-only", "dual-path")
    )
    return dual / single if math.isfinite(dual) else None


def _own_best_gain(limits: Limits) -> float | None:
    """Dual-path over prefill-only, each at its own best P:D of `FLEET_NODES` in all."""
    best = [_best_rate(limits, name) for name in ("prefill-only", "dual-path")]
    return best[1] / best[0] if math.isfinite(best[1]) else None


def _best_rate(limits: Limits, strategy: str) -> float:
    """Largest bound over P:D: a grid over ln(P/D), then a finer one around its best point."""
    low, high, best = -8.0, 8.0, 0.0
    for _ in range(3):
        grid = np.linspace(low, high, _GRID)
        prefill = sum(FLEET_NODES) / (1.0 + np.exp(-grid))
        capacity = limits.capacity(prefill, sum(FLEET_NODES) - prefill, whole_engines=False)
        rates, _, _ = bounds(limits, strategy, capacity)
        at, step = int(rates.argmax()), (high - low) / (_GRID - 1)
        best = max(best, float(rates[at]))
        low, high = grid[at] - step, grid[at] + step
    return best
