"""The chain, readable in one screen: profiles -> limits -> nodes -> strategies -> plan."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from dpplan.advice import advise, own_best_speedup
from dpplan.assumptions import assumptions, warnings
from dpplan.bottleneck_free import BottleneckFreeRange, bottleneck_free_range
from dpplan.demand import Counting
from dpplan.deployment import Deployment, Limits, Side
from dpplan.errors import BadInput, Fault, did_you_mean
from dpplan.nodes import NodeChoice, choose_nodes, node_options
from dpplan.profiles.library import Inputs, load_inputs
from dpplan.result import (
    STRATEGIES,
    BottleneckFree,
    Demand,
    EngineSummary,
    NodeOption,
    Plan,
    StrategyResult,
)
from dpplan.routes import RESOURCES
from dpplan.strategies import solve_strategy

__all__ = ["Case", "optimize", "plan_case", "prepare"]


_MOST_NODES = 100_000


@dataclass(frozen=True)
class Case:
    """A plan's inputs worked out, before anything is solved for strategies."""

    deployment: Deployment
    limits: Limits
    nodes: NodeChoice
    range: BottleneckFreeRange

    @property
    def inputs(self) -> Inputs:
        """The profiles, read and checked."""
        return self.deployment.inputs


def optimize(
    hardware: str | None = None,
    workload: str = "agentic",
    *,
    model: str | None = None,
    prefill_hardware: str | None = None,
    decode_hardware: str | None = None,
    nodes: int | None = None,
    prefill_nodes: int | None = None,
    decode_nodes: int | None = None,
    traffic: Counting = "full",
    unlimited: Collection[str] = (),
    settings: Sequence[str] | Mapping[str, object] = (),
) -> Plan:
    """Optimal split, throughput bound, what binds and what to change.

    Parameters
    ----------
    hardware, workload, model : str
        Profile names or paths; the model defaults to the workload's.
    prefill_hardware, decode_hardware : str, optional
        Node type of one side, where the two differ.
    nodes, prefill_nodes, decode_nodes : int, optional
        Node counts; without P and D the best P:D of `nodes` (or of the profile's default).
    traffic : {"full", "paper"}
        All traffic with efficiencies, or the paper's: hit KV only, at peaks.
    unlimited : collection of str
        Resources treated as infinite, e.g. "prefill.gpu".
    settings : mapping or sequence of "key=value"
        Profile values to put in place of the profiles' own, as `--set`.

    Returns
    -------
    Plan
        Frozen; `to_dict()` is the JSON of the command line.

    Raises
    ------
    BadInput
        If a profile or an argument is wrong; carries all faults.
    Infeasible
        If nothing holds the model or meets TPOT; names the clashing limits.

    Examples
    --------
    Storage alone, as the paper counts: two decode nodes triple one prefill node's bandwidth.

    >>> from dpplan import optimize
    >>> lifted = [f"{s}.{r}" for s in ("prefill", "decode") for r in ("gpu", "hbm", "kv_buffer")]
    >>> plan = optimize("h800", "agentic", prefill_nodes=1, decode_nodes=2, traffic="paper",
    ...     unlimited=lifted)
    >>> round(plan.speedup, 9)
    3.0
    """
    return plan_case(
        prepare(
            hardware,
            workload,
            model=model,
            prefill_hardware=prefill_hardware,
            decode_hardware=decode_hardware,
            nodes=nodes,
            prefill_nodes=prefill_nodes,
            decode_nodes=decode_nodes,
            traffic=traffic,
            unlimited=unlimited,
            settings=settings,
        )
    )


def prepare(
    hardware: str | None,
    workload: str,
    *,
    model: str | None = None,
    prefill_hardware: str | None = None,
    decode_hardware: str | None = None,
    nodes: int | None = None,
    prefill_nodes: int | None = None,
    decode_nodes: int | None = None,
    traffic: Counting = "full",
    unlimited: Collection[str] = (),
    settings: Sequence[str] | Mapping[str, object] = (),
) -> Case:
    """Read profiles, work out limits and choose nodes; arguments and errors as `optimize`."""
    faults = _argument_faults(nodes, prefill_nodes, decode_nodes, traffic, unlimited)
    try:
        inputs = load_inputs(
            hardware=hardware,
            workload=workload,
            model=model,
            prefill_hardware=prefill_hardware,
            decode_hardware=decode_hardware,
            settings=settings,
        )
    except BadInput as error:
        raise BadInput([*faults, *error.faults]) from None
    if faults:
        raise BadInput(faults)
    deployment = Deployment(inputs, traffic, unlimited)
    choice = choose_nodes(
        deployment,
        nodes=nodes,
        prefill_nodes=prefill_nodes,
        decode_nodes=decode_nodes,
        default_nodes=inputs.prefill_hardware.default_nodes,
    )
    limits = deployment.at(choice.prefill_nodes, choice.decode_nodes)
    span = bottleneck_free_range(limits.prefill.node, limits.decode.node, table=limits.table)
    return Case(deployment, limits, choice, span)


def plan_case(case: Case) -> Plan:
    """Solve every strategy of a prepared case."""
    inputs, limits, nodes = case.inputs, case.limits, case.nodes
    p, d = nodes.prefill_nodes, nodes.decode_nodes
    strategies = {name: solve_strategy(limits, name, p, d) for name in STRATEGIES}
    options = nodes.options or node_options(case.deployment, p + d)
    prefill, decode = inputs.prefill_hardware, inputs.decode_hardware
    same = prefill.name == decode.name
    return Plan(
        hardware=prefill.name if same else f"{prefill.name}+{decode.name}",
        prefill_hardware=prefill.name,
        decode_hardware=decode.name,
        model=inputs.model.name,
        workload=inputs.workload.name,
        prefill_nodes=p,
        decode_nodes=d,
        counting=limits.counting,
        unlimited=tuple(sorted(limits.unlimited)),
        settings=inputs.overrides,
        demand=_demand(limits),
        prefill_engine=_engine(limits.prefill, p),
        decode_engine=_engine(limits.decode, d, limits),
        strategies=strategies,
        speedup=_speedup(strategies),
        speedup_own_best=own_best_speedup(options),
        bottleneck_free=_bottleneck_free(case),
        node_options=options,
        assumptions=assumptions(inputs, limits),
        advice=advise(strategies["dual-path"], options),
        warnings=(*warnings(inputs, limits), *_sampled(options, p + d)),
        cost_usd_per_h=_total(p, prefill.cost_usd_per_h, d, decode.cost_usd_per_h),
        power_w=_total(p, prefill.power_w, d, decode.power_w),
    )


def _argument_faults(
    nodes: int | None,
    prefill_nodes: int | None,
    decode_nodes: int | None,
    traffic: str,
    unlimited: Collection[str],
) -> list[Fault]:
    faults = []
    for option, count, least in (
        ("--nodes", nodes, 2),
        ("--prefill-nodes", prefill_nodes, 1),
        ("--decode-nodes", decode_nodes, 1),
    ):
        if count is not None and not least <= count <= _MOST_NODES:
            needed = f"a node count from {least} to {_MOST_NODES} is needed"
            faults.append(Fault(option, needed, str(count)))
    if traffic not in ("full", "paper"):
        faults.append(Fault("--traffic", "full or paper is needed", repr(traffic)))
    for name in unlimited:
        if name not in RESOURCES:
            cure = did_you_mean(name, RESOURCES)
            faults.append(Fault("--unlimited", "a resource is needed", repr(name), cure))
    return faults


def _speedup(strategies: Mapping[str, StrategyResult]) -> float | None:
    dual, single = strategies["dual-path"].turns_per_s, strategies["prefill-only"].turns_per_s
    return None if dual is None or single is None else dual / single


def _demand(limits: Limits) -> Demand:
    """The mean turn of the mix: sums of bytes and FLOP over classes, ratios of the sums."""
    classes = limits.classes

    def mean(field: str) -> float:
        return sum(c.weight_fraction * float(getattr(c, field)) for c in classes)

    hit, flop = mean("hit_kv_bytes"), mean("prefill_flop")
    context, append = mean("context_tokens"), mean("append_tokens")
    return Demand(
        kv_bytes_per_token=limits.layout.bytes_per_token,
        hit_kv_bytes_per_turn=hit,
        prefill_flop_per_turn=flop,
        hit_rate_fraction=context / (context + append),
        cache_compute_ratio_gb_per_pflop=hit / 1e9 / (flop / 1e15),
        fresh_kv_bytes_per_turn=mean("fresh_kv_bytes"),
        generated_kv_bytes_per_turn=mean("generated_kv_bytes"),
        write_back_bytes_per_turn=mean("write_back_bytes"),
        prefill_gpu_s_per_turn=mean("prefill_gpu_s"),
        decode_gpu_s_per_turn=mean("decode_gpu_s"),
        load_or_recompute_bytes_per_s_per_gpu=limits.load_or_recompute_bytes_per_s,
    )


def _engine(side: Side, nodes: int, limits: Limits | None = None) -> EngineSummary:
    engine = side.engine
    idle = nodes % engine.nodes
    rate = limits.classes[0].decode if limits is not None and len(limits.classes) == 1 else None
    finite = rate is not None and math.isfinite(rate.batch)
    return EngineSummary(
        hardware=side.hardware.name,
        nodes_per_engine=engine.nodes,
        gpus_per_engine=engine.gpus,
        tp=engine.tp,
        dp=engine.dp,
        ep=engine.ep,
        weight_bytes_per_gpu=engine.weight_bytes_per_gpu,
        hbm_left_bytes_per_gpu=_finite(engine.hbm_left_bytes_per_gpu),
        engines=(nodes - idle) * side.hardware.gpus / engine.gpus,
        idle_nodes=idle,
        batch_per_engine=rate.batch if rate and finite else None,
        batch_limit=("hbm" if rate.batch_by_hbm <= rate.batch_by_tpot else "tpot")
        if rate and finite
        else None,
        step_limit=("compute" if rate.compute_bound else "memory") if rate and finite else None,
        step_s=rate.step_s if rate and finite else None,
        tokens_per_s=_finite(rate.tokens_per_s) if rate else None,
    )


def _sampled(options: Sequence[NodeOption], total: int) -> tuple[str, ...]:
    # The table starts at one prefill group and goes on group by group, unless some were left out.
    steps = [b.prefill_nodes - a.prefill_nodes for a, b in pairwise(options)]
    if not steps or max(steps) <= options[0].prefill_nodes:
        return ()
    return (
        f"{len(options)} P:D of {total} nodes were looked at, evenly spread and around the best; "
        "one between them may be slightly better",
    )


def _total(
    prefill_nodes: int, prefill_each: float | None, decode_nodes: int, decode_each: float | None
) -> float | None:
    if prefill_each is None or decode_each is None:
        return None
    return prefill_nodes * prefill_each + decode_nodes * decode_each


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _bottleneck_free(case: Case) -> BottleneckFree:
    ratio = case.nodes.prefill_nodes / case.nodes.decode_nodes
    holds, reason = case.range.verdict(ratio)
    backend = case.limits.capacity(case.nodes.prefill_nodes, case.nodes.decode_nodes)[
        RESOURCES.index("storage_backend_read")
    ]
    reads = (
        case.nodes.prefill_nodes * case.limits.prefill.node.storage_nic_read
        + case.nodes.decode_nodes * case.limits.decode.node.storage_nic_read
    )
    if holds and backend < reads:
        holds, reason = False, "the storage backend delivers less than all storage NICs take"
    if holds and case.limits.counting == "full":
        reason += " by hit KV alone; other traffic comes on top"
    return BottleneckFree(
        p_over_d_min=case.range.p_over_d_min,
        p_over_d_max=case.range.p_over_d_max,
        p_over_d=ratio,
        holds=holds,
        reason=reason,
        terms=tuple(vars(term) for term in case.range.terms),
    )
