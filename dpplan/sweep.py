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
import numpy.typing as npt

from dpplan.demand import Counting
from dpplan.errors import BadInput, Fault, Infeasible
from dpplan.planner import Case, prepare
from dpplan.profiles.library import read_profile, shipped_names
from dpplan.profiles.workload import TurnClass
from dpplan.routes import RESOURCES, resource_index
from dpplan.strategies import bounds

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

Array = npt.NDArray[np.float64]

CONTEXTS: Final = (16_384, 32_768, 65_536, 131_072, 262_144, 524_288, 1_048_576)
"""Context lengths of a survey [tokens]."""

PAPER_DECODE_PER_PREFILL: Final = 2
"""1P:2D, the proportion of the paper's 2P4D testbed."""

FLEET_GROUPS: Final = 120
"""Engine groups of the fleet on which P:D is as good as continuous."""

_DECODE_LIMITS: Final = ("decode.gpu", "decode.hbm")
_BINDS: Final = 1 - 1e-9
_LARGEST_DEFAULT: Final = 3
"""Engine groups of the small cluster: enough for 1P:2D and 2P:1D."""


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
    """Seconds of one node that a turn's decode takes, at the largest batch."""
    group_nodes: int | None = None
    """Nodes of the larger engine group."""
    prefill_nodes: int | None = None
    decode_nodes: int | None = None
    prefill_only_bottlenecks: str = ""
    dual_path_bottlenecks: str = ""
    speedup: float | None = None
    """Dual-path over prefill-only at the P:D above, the best one for dual-path."""
    storage_side_speedup: float | None = None
    """The same at 1P:2D with decode GPUs and HBM lifted: decode provisioned to match."""
    fleet_speedup: float | None = None
    """Each strategy at its own best P:D of a large fleet."""
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

    The small cluster is the node type's default, or three of the larger engine group where that
    is more; the fleet is 120 groups.
    """
    append = read_profile("workloads", workload)
    tokens = append.append_tokens if isinstance(append, TurnClass) else math.nan
    row = SurveyRow(hardware, model, float(context_tokens), tokens, traffic)

    def case_of(nodes: int | None) -> Case:
        return survey_case(
            hardware, model, context_tokens, workload=workload, traffic=traffic, nodes=nodes
        )

    try:
        case = case_of(None)
        group = max(case.limits.prefill.group_nodes, case.limits.decode.group_nodes)
        default = case.inputs.prefill_hardware.default_nodes or 0
        if _LARGEST_DEFAULT * group > default:
            case = case_of(_LARGEST_DEFAULT * group)
        fleet = case_of(FLEET_GROUPS * group)
    except Infeasible as error:
        return dataclasses.replace(row, infeasible=str(error))
    limits, turn = case.limits, case.limits.classes[0]
    small = (case.nodes.prefill_nodes, case.nodes.decode_nodes)
    matched = (group, PAPER_DECODE_PER_PREFILL * group)
    gpus = (limits.prefill.hardware.gpus, limits.decode.hardware.gpus)
    rate = turn.prefill_flop / turn.prefill_gpu_s * gpus[0] if turn.prefill_gpu_s else math.inf
    return dataclasses.replace(
        row,
        kv_bytes_per_token=limits.layout.bytes_per_token,
        hit_kv_bytes=turn.hit_kv_bytes,
        prefill_flop=turn.prefill_flop,
        cache_compute_ratio_gb_per_pflop=turn.hit_kv_bytes / 1e9 / (turn.prefill_flop / 1e15),
        node_balance_gb_per_pflop=node_balance_gb_per_pflop(
            limits.prefill.node.storage_nic_read, rate
        ),
        read_node_s=turn.read_s[0],
        prefill_node_s=turn.prefill_gpu_s / gpus[0],
        decode_node_s=turn.decode_gpu_s / gpus[1],
        group_nodes=group,
        prefill_nodes=small[0],
        decode_nodes=small[1],
        prefill_only_bottlenecks=_bottlenecks(case, "prefill-only", small),
        dual_path_bottlenecks=_bottlenecks(case, "dual-path", small),
        speedup=_gain(case, small),
        storage_side_speedup=_gain(case, matched, lifted=_DECODE_LIMITS),
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


def _capacity(case: Case, nodes: tuple[int, int], lifted: Sequence[str]) -> Array:
    capacity = case.limits.capacity(*nodes)
    for name in lifted:
        capacity[resource_index(name)] = math.inf
    return capacity


def _bottlenecks(case: Case, strategy: str, nodes: tuple[int, int]) -> str:
    _, _, load = bounds(case.limits, strategy, _capacity(case, nodes, ())[None])
    return ", ".join(RESOURCES[r] for r in np.flatnonzero(load[0] >= _BINDS))


def _gain(case: Case, nodes: tuple[int, int], lifted: Sequence[str] = ()) -> float | None:
    """Dual-path over prefill-only at one P:D, some capacities lifted; None where nothing binds."""
    capacity = _capacity(case, nodes, lifted)[None]
    single, dual = (
        float(bounds(case.limits, name, capacity)[0][0]) for name in ("prefill-only", "dual-path")
    )
    return dual / single if math.isfinite(dual) else None


def _own_best_gain(case: Case) -> float | None:
    best = []
    for name in ("prefill-only", "dual-path"):
        rates = [option.turns_per_s[name] for option in case.nodes.options]
        if any(rate is None for rate in rates):
            return None
        best.append(max(rate for rate in rates if rate is not None))
    return best[1] / best[0]
