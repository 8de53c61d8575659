"""What will happen, as against what cannot be exceeded: times of jobs and of arrivals (Q)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from dpplan.arrays import Array
from dpplan.errors import BadInput
from dpplan.planner.assumptions import assumptions, time_assumptions, warnings
from dpplan.planner.load import Load, choose_system, load_faults
from dpplan.planner.optimize import Case, prepare
from dpplan.profiles.calibration import Calibration
from dpplan.profiles.workload import Slo, TurnClass
from dpplan.queueing import (
    CONSTANTS,
    Constants,
    Offline,
    Online,
    System,
    Tables,
    largest_rate,
    run_offline,
    run_online,
    scenario,
    stations,
)
from dpplan.queueing.calibrations import choose_calibration
from dpplan.queueing.costs import unit_limits
from dpplan.queueing.online import LIMITS
from dpplan.results.predict import Interval, Prediction, Speedup

__all__ = ["predict"]


_DEVIATIONS: Final = 1.6449
"""Standard deviations of a 90 % interval."""
_QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def predict(
    hardware: str | None = None,
    workload: str | TurnClass = "agentic",
    *,
    model: str | None = None,
    prefill_hardware: str | None = None,
    decode_hardware: str | None = None,
    nodes: int | None = None,
    prefill_nodes: int | None = None,
    decode_nodes: int | None = None,
    agents: float | None = None,
    agents_per_s: float | None = None,
    capacity: bool = False,
    system: str | None = None,
    strategy: str | None = None,
    layerwise: bool | None = None,
    scheduler: str | None = None,
    against: str | None = None,
    ttft_limit_s: float | None = None,
    tpot_limit_s: float | None = None,
    calibration: str = "auto",
    settings: Sequence[str] | Mapping[str, object] = (),
) -> Prediction:
    """Job completion time, latencies or capacity of a system (Q).

    Parameters
    ----------
    hardware, workload, model, prefill_hardware, decode_hardware : str, optional
        Profiles, as `dpplan.optimize`.
    nodes, prefill_nodes, decode_nodes : int, optional
        Nodes, as `dpplan.optimize`.
    agents : float, optional
        Sessions that start together: JCT of the job.
    agents_per_s : float, optional
        Poisson arrival rate of sessions [1/s]: mean latencies.
    capacity : bool
        Largest arrival rate within TTFT and TPOT limits; may go with `agents_per_s`.
    system : str, optional
        basic, basic+layerwise, basic+layerwise+dualpath, dualpath (the default) or oracle.
    strategy, layerwise, scheduler : optional
        Instead of `system`, its parts: prefill-only, dual-path or oracle; round-robin or adaptive.
    against : str, optional
        A second system to compare with.
    ttft_limit_s, tpot_limit_s : float, optional
        Limits on the means [s], inf = none; absent = the workload's (4 s and 50 ms).
    calibration : str
        "auto" = one for this hardware, "none" = assumed constants, or a name or path.
    settings : mapping or sequence of "key=value"
        Profile values to put in place, as `--set`.

    Returns
    -------
    Prediction
        Frozen; `to_dict()` is the JSON of the command line. An unstable load has no times.

    Raises
    ------
    BadInput
        If a profile or an argument is wrong; carries all faults.
    Infeasible
        If nothing holds the model or meets TPOT.

    Examples
    --------
    >>> import dpplan
    >>> job = dpplan.predict("h800", "agentic", prefill_nodes=2, decode_nodes=4, agents=1024,
    ...     against="basic")
    >>> job.stable, job.speedup.ratio > 1.5
    (True, True)
    """
    load = Load(agents, agents_per_s, capacity)
    faults = load_faults(load, ttft_limit_s, tpot_limit_s)
    chosen = choose_system(system, strategy, layerwise, scheduler, faults)
    other = None if against is None else choose_system(against, None, None, None, faults)
    if tpot_limit_s is not None:
        # The planner's bound counts decode batches within the limit, so it must know it.
        limit = "unlimited" if math.isinf(tpot_limit_s) else f"{tpot_limit_s!r} s"
        extra = f"slo.tpot={limit}"
        if isinstance(settings, Mapping):
            settings = [f"{key}={value}" for key, value in settings.items()]
        settings = [*settings, extra]
    try:
        case = prepare(
            hardware,
            workload,
            model=model,
            prefill_hardware=prefill_hardware,
            decode_hardware=decode_hardware,
            nodes=nodes,
            prefill_nodes=prefill_nodes,
            decode_nodes=decode_nodes,
            settings=settings,
        )
        constants, stored, profile = choose_calibration(
            case.inputs.prefill_hardware.name, calibration
        )
    except BadInput as error:
        raise BadInput([*faults, *error.faults]) from None
    if faults or chosen is None:
        raise BadInput(faults)
    slo = case.inputs.workload.slo or Slo()
    limits = (
        slo.ttft if ttft_limit_s is None else ttft_limit_s,
        slo.tpot if tpot_limit_s is None else tpot_limit_s,
    )
    own = _outcome(case, chosen, load, limits, constants, stored, profile)
    compared = None
    if other is not None:
        second = _outcome(case, other, load, limits, constants, stored, profile)
        compared = _speedup(other, own, second)
    return _prediction(case, chosen, load, limits, own, compared, constants, profile)


@dataclass(frozen=True)
class _Outcome:
    """A system's run at the constants, and at those around them (`_spread`; rows 1 and on)."""

    tables: Tables
    job: Offline | None
    steady: Online | None
    rate: Array | None
    """Largest rate, where asked for."""
    ended: str | None


def _outcome(
    case: Case,
    system: System,
    load: Load,
    limits: tuple[float, float],
    constants: Constants,
    stored: Mapping[str, float],
    profile: Calibration | None,
) -> _Outcome:
    one = scenario(
        case.deployment,
        case.nodes.prefill_nodes,
        case.nodes.decode_nodes,
        system,
        agents=load.agents,
        agents_per_s=load.agents_per_s,
        stored_kv_bytes_per_token=stored,
    )
    sets = [constants, *_spread(constants, profile)]
    found = stations(one.rows(np.zeros(len(sets), dtype=int)), sets)
    if load.agents is not None:
        return _Outcome(one, run_offline(found), None, None, None)
    rate, ended = None, None
    if load.capacity:
        wide = np.full(len(sets), limits[0]), np.full(len(sets), limits[1])
        rate, ends = largest_rate(found, *wide)
        ended = ends[0]
    at = None if load.agents_per_s is not None else rate
    return _Outcome(one, None, run_online(found, at), rate, ended)


def _spread(constants: Constants, profile: Calibration | None) -> list[Constants]:
    """Constants a standard deviation up and down along every column of the covariance's root."""
    if profile is None or profile.fit is None:
        return []
    names, covariance = profile.fit.names, np.array(profile.fit.covariance)
    scale, axes = np.linalg.eigh(covariance)
    found = []
    for column in (axes * np.sqrt(np.maximum(scale, 0.0))).T:
        for sign in (1.0, -1.0):
            moved = {}
            for name, shift in zip(names, sign * column, strict=True):
                value = getattr(constants, name) * math.exp(float(shift))
                moved[name] = min(max(value, CONSTANTS[name].lowest), CONSTANTS[name].highest)
            found.append(dataclasses.replace(constants, **moved))
    return found


def _interval(values: Array) -> Interval | None:
    """90 % interval of a number from the constants' covariance.

    values[0] is the number, then come its values a deviation up and down along independent axes:
    half their distance is the deviation each contributes. Whole deviations, so that the numerics
    of a run don't show.
    """
    if len(values) < 3 or not np.isfinite(values).all() or not (values > 0).all():
        return None
    halves = 0.5 * np.log(values[1::2] / values[2::2])
    factor = math.exp(_DEVIATIONS * math.sqrt(float(halves @ halves)))
    return Interval(float(values[0]) / factor, float(values[0]) * factor)


def _speedup(other: System, own: _Outcome, second: _Outcome) -> Speedup | None:
    """Times of the other system over those of this one, or capacities the other way round."""
    if own.job is not None and second.job is not None:
        what, ratios = "jct_s", second.job.jct_s / own.job.jct_s
    elif own.rate is not None and second.rate is not None:
        what = "capacity_agents_per_s"
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = own.rate / second.rate
    else:
        assert own.steady is not None
        assert second.steady is not None
        what, ratios = "ttft_s", second.steady.ttft_s / own.steady.ttft_s
        if not (own.steady.stable[0] and second.steady.stable[0]):
            return Speedup(other.name, what, None, None)
    if not np.isfinite(ratios[0]):
        return Speedup(other.name, what, None, None)
    return Speedup(other.name, what, float(ratios[0]), _interval(ratios))


def _prediction(
    case: Case,
    system: System,
    load: Load,
    limits: tuple[float, float],
    found: _Outcome,
    compared: Speedup | None,
    constants: Constants,
    profile: Calibration | None,
) -> Prediction:
    inputs = case.inputs
    prefill, decode = inputs.prefill_hardware.name, inputs.decode_hardware.name
    numbers: dict[str, Array] = {}
    parts: dict[str, float] = {}
    quantiles: dict[str, float] = {}
    use: dict[str, float] = {}
    stable, ended = True, found.ended
    if found.job is not None:
        job = found.job
        numbers = {
            "jct_s": job.jct_s,
            "ttft_s": job.ttft_s,
            "ttst_s": job.ttst_s,
            "tpot_s": job.tpot_s,
            "working_set_bytes": job.working_set_bytes,
            "agents_in_system": job.agents_in_system,
        }
        quantiles = _quantiles(job.class_end_s[0], found.tables.fraction[0])
        quantiles["mean"] = float(job.mean_agent_s[0])
        use = {
            "prefill.gpu": float(job.busy_prefill_fraction[0]),
            "storage_nic_read": float(job.busy_storage_fraction[0]),
            "decode.hbm": float(job.busy_decode_memory_fraction[0]),
        }
        ended = "bound" if job.bound_holds[0] else _busiest(use)
    elif found.steady is not None:
        steady = found.steady
        # A capacity of zero: even a lone session misses a limit.
        served = found.rate is None or bool(found.rate[0] > 0)
        stable = bool(steady.stable[0]) and (served or load.agents_per_s is not None)
        use = {name: float(steady.use[0, i]) for i, name in enumerate(LIMITS)}
        if stable:
            numbers = {
                "jct_s": steady.session_s,
                "ttft_s": steady.ttft_s,
                "ttst_s": steady.ttst_s,
                "tpot_s": steady.tpot_s,
                "working_set_bytes": steady.working_set_bytes,
                "agents_in_system": steady.agents_in_system,
            }
            parts = {
                name: float(getattr(steady, name)[0])
                for name in ("scheduling_s", "read_s", "prefill_s", "hand_off_s")
            }
            quantiles = _quantiles(steady.class_session_s[0], found.tables.fraction[0])
            quantiles["mean"] = float(steady.session_s[0])
        ended = ended or max(use, key=lambda name: use[name])
    if found.rate is not None:
        numbers["capacity_agents_per_s"] = found.rate
    bound = float(found.tables.bound_agents_per_s[0])
    return Prediction(
        hardware=prefill if prefill == decode else f"{prefill}+{decode}",
        model=inputs.model.name,
        workload=inputs.workload.name,
        prefill_nodes=case.nodes.prefill_nodes,
        decode_nodes=case.nodes.decode_nodes,
        system=system.name,
        agents=load.agents,
        agents_per_s=load.agents_per_s,
        ttft_limit_s=None if math.isinf(limits[0]) else limits[0],
        tpot_limit_s=None if math.isinf(limits[1]) else limits[1],
        values={name: float(value[0]) for name, value in numbers.items()},
        intervals={
            name: interval
            for name, value in numbers.items()
            if (interval := _interval(value)) is not None
        },
        stable=stable,
        limited_by=ended,
        utilisation=use,
        ttft_parts_s=parts,
        agent_jct_s=quantiles,
        speedup=compared,
        bound_agents_per_s=bound if math.isfinite(bound) else None,
        calibration=None if profile is None else profile.name,
        calibration_rows=0 if profile is None else profile.data.rows,
        constants={name: float(getattr(constants, name)) for name in CONSTANTS},
        assumptions=(
            *time_assumptions(inputs, profile, of_job=load.agents is not None),
            *assumptions(
                inputs,
                unit_limits(case.deployment, case.nodes.prefill_nodes, case.nodes.decode_nodes),
                of_bounds=False,
            ),
        ),
        warnings=tuple(warnings(inputs, case.limits)),
        settings=inputs.overrides,
    )


def _quantiles(times: Array, fraction: Array) -> dict[str, float]:
    """Times within which shares of the sessions end."""
    order = np.argsort(times)
    share = np.cumsum(fraction[order]) / fraction.sum()
    return {
        name: float(times[order][min(int(np.searchsorted(share, q - 1e-12)), len(order) - 1)])
        for name, q in _QUANTILES.items()
    }


def _busiest(use: Mapping[str, float]) -> str:
    """What a job waits for most: a station, or just its longest session."""
    name = max(use, key=lambda station: use[station])
    return name if use[name] >= 0.5 else "longest session"
