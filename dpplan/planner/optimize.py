"""The chain, readable in one screen: profiles -> limits -> nodes -> strategies -> plan."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from dpplan.bounds.bottleneck_free import BottleneckFreeRange, bottleneck_free_range
from dpplan.bounds.node_counts import NodeChoice, choose_nodes, node_options
from dpplan.bounds.strategies import solve_strategy
from dpplan.demand import Counting
from dpplan.deployment import Deployment, Limits
from dpplan.deployment.routes import RESOURCES
from dpplan.errors import BadInput, Fault, did_you_mean
from dpplan.planner.advice import advise, own_best_speedup
from dpplan.planner.assumptions import assumptions, warnings
from dpplan.planner.summaries import (
    mean_demand,
    range_of_plan,
    sampled_note,
    speedup,
    summarise_engine,
    total_of_nodes,
)
from dpplan.profiles.library import Inputs, load_inputs
from dpplan.profiles.workload import TurnClass
from dpplan.results.optimize import (
    STRATEGIES,
    Plan,
)

__all__ = ["Case", "optimize", "plan_case", "prepare", "prepare_inputs"]


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
    workload: str | TurnClass = "agentic",
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
        Profile names or paths; the model defaults to the workload's. A workload may also be a
        `TurnClass`, such as `trace_workload` makes.
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
    workload: str | TurnClass,
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
    return prepare_inputs(
        inputs,
        nodes=nodes,
        prefill_nodes=prefill_nodes,
        decode_nodes=decode_nodes,
        traffic=traffic,
        unlimited=unlimited,
    )


def prepare_inputs(
    inputs: Inputs,
    *,
    nodes: int | None = None,
    prefill_nodes: int | None = None,
    decode_nodes: int | None = None,
    traffic: Counting = "full",
    unlimited: Collection[str] = (),
) -> Case:
    """Work out limits and choose nodes for profiles at hand; arguments and errors as `optimize`."""
    if faults := _argument_faults(nodes, prefill_nodes, decode_nodes, traffic, unlimited):
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
    span = bottleneck_free_range(
        limits.prefill.node,
        limits.decode.node,
        table=limits.table,
        pool_bytes_per_storage_byte=limits.pool_bytes_per_storage_byte,
    )
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
        demand=mean_demand(limits),
        prefill_engine=summarise_engine(limits.prefill, p),
        decode_engine=summarise_engine(limits.decode, d, limits),
        strategies=strategies,
        speedup=speedup(strategies),
        speedup_own_best=own_best_speedup(options),
        bottleneck_free=range_of_plan(case.range, limits, p, d),
        node_options=options,
        assumptions=assumptions(inputs, limits),
        advice=advise(strategies["dual-path"], options),
        warnings=(*warnings(inputs, limits), *sampled_note(options, p + d)),
        cost_usd_per_h=total_of_nodes(p, prefill.cost_usd_per_h, d, decode.cost_usd_per_h),
        power_w=total_of_nodes(p, prefill.power_w, d, decode.power_w),
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
