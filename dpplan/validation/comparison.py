"""From measured rows to the numbers predicted for them: what `calibrate` and `validate` share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dpplan.arrays import Array
from dpplan.bounds.node_counts import choose_nodes
from dpplan.demand.sessions import scaled
from dpplan.deployment import Deployment
from dpplan.errors import BadInput, Infeasible
from dpplan.profiles.library import Inputs, WeightedClass, load_inputs
from dpplan.profiles.workload import Slo, TurnClass
from dpplan.queueing import (
    SYSTEMS,
    Constants,
    Scenario,
    Tables,
    largest_rate,
    run_offline,
    run_online,
    scenario,
    stack,
    stations,
)
from dpplan.queueing.online import LIMITS
from dpplan.validation.measurements import Measurement

__all__ = ["Comparison", "compare", "prepare_rows", "scaled_inputs"]


_SESSION_METRICS = {"jct_s": "session_s"}
"""Metrics of arrivals that `Online` has under another name."""


@dataclass(frozen=True)
class Comparison:
    """Measured rows made ready: tables of those that can be predicted, reasons for the others."""

    measurements: tuple[Measurement, ...]
    tables: Tables | None
    """Scenarios of the rows in `index`, stacked; None where no row can be predicted."""
    index: tuple[int, ...]
    """Rows that the tables' scenarios belong to."""
    reasons: Mapping[int, str]
    """Row -> why nothing can be predicted for it."""
    ttft_limit_s: Array
    tpot_limit_s: Array
    """Limits of the rows in `index`, for capacities."""

    def measured(self) -> Array:
        """Values of the rows in `index`."""
        return np.array([self.measurements[i].value for i in self.index])

    def predict(self, constants: Constants | Sequence[Constants]) -> tuple[Array, dict[int, str]]:
        """Predicted values of the rows in `index`; nan and a reason where a load is unstable.

        Parameters
        ----------
        constants : Constants or sequence of them
            For all rows; or several, for which the rows are predicted one set after the other.

        Returns
        -------
        (ndarray, dict)
            Values, (rows,) or (sets, rows); reasons by row of the file, of the first set.
        """
        sets = [constants] if isinstance(constants, Constants) else list(constants)
        if self.tables is None:
            return np.empty((len(sets), 0))[0 if len(sets) == 1 else slice(None)], {}
        rows = len(self.index)
        each = np.tile(np.arange(rows), len(sets))
        wide = self.tables.rows(each)
        per_row = [c for c in sets for _ in range(rows)]
        values = np.full(rows * len(sets), np.nan)
        reasons: dict[int, str] = {}
        metrics = np.array([self.measurements[i].metric for i in self.index])[each]
        job = np.isfinite(wide.agents)
        capacity = metrics == "capacity_agents_per_s"
        for chosen, kind in (
            (np.flatnonzero(job), "job"),
            (np.flatnonzero(~job & ~capacity), "arrivals"),
            (np.flatnonzero(capacity), "capacity"),
        ):
            if not chosen.size:
                continue
            found = stations(wide.rows(chosen), [per_row[i] for i in chosen])
            if kind == "capacity":
                limits = self.ttft_limit_s[each[chosen]], self.tpot_limit_s[each[chosen]]
                values[chosen] = largest_rate(found, *limits)[0]
                continue
            if kind == "job":
                done = run_offline(found)
                for place, at in enumerate(chosen):
                    values[at] = getattr(done, metrics[at])[place]
                continue
            steady = run_online(found)
            for place, at in enumerate(chosen):
                row = self.index[int(each[at])]
                if steady.stable[place]:
                    name = _SESSION_METRICS.get(metrics[at], metrics[at])
                    values[at] = getattr(steady, name)[place]
                else:
                    full = LIMITS[int(np.argmax(steady.use[place]))]
                    reasons.setdefault(row, f"unstable at this rate: {full} is full")
        shaped = values.reshape(len(sets), rows)
        return (shaped[0] if isinstance(constants, Constants) else shaped), reasons


def scaled_inputs(inputs: Inputs, append_scale: float, output_scale: float) -> Inputs:
    """The same inputs with turns that append and generate more or less."""
    if append_scale == 1.0 and output_scale == 1.0:
        return inputs
    classes = tuple(
        WeightedClass(scaled(c.turns, append_scale, output_scale), c.weight_fraction)
        for c in inputs.classes
    )
    workload = classes[0].turns if isinstance(inputs.workload, TurnClass) else inputs.workload
    return dataclasses.replace(inputs, classes=classes, workload=workload)


def prepare_rows(
    measurements: Sequence[Measurement],
    stored_kv_bytes_per_token: Mapping[str, float] | None = None,
) -> Comparison:
    """Work out the scenarios of measured rows; what cannot be is left with its reason.

    Parameters
    ----------
    measurements : sequence of Measurement
    stored_kv_bytes_per_token : mapping, optional
        As in a calibration.
    """
    deployments: dict[tuple[object, ...], Deployment | str] = {}
    known: dict[tuple[object, ...], Scenario | str] = {}
    scenarios: list[Scenario] = []
    index: list[int] = []
    reasons: dict[int, str] = {}
    limits: list[tuple[float, float]] = []
    for i, m in enumerate(measurements):
        key = (m.hardware, m.workload, m.model, m.append_scale, m.output_scale)
        if key not in deployments:
            deployments[key] = _deployment(m)
        deployment = deployments[key]
        if isinstance(deployment, str):
            reasons[i] = deployment
            continue
        run = (*key, m.prefill_nodes, m.decode_nodes, m.system, m.agents, m.agents_per_s)
        if run not in known:
            try:
                choose_nodes(
                    deployment,
                    nodes=None,
                    prefill_nodes=m.prefill_nodes,
                    decode_nodes=m.decode_nodes,
                    default_nodes=None,
                )
                known[run] = scenario(
                    deployment,
                    m.prefill_nodes,
                    m.decode_nodes,
                    SYSTEMS[m.system],
                    agents=m.agents,
                    agents_per_s=m.agents_per_s,
                    stored_kv_bytes_per_token=stored_kv_bytes_per_token,
                )
            except Infeasible as error:
                known[run] = f"infeasible: {error.reason}"
        found = known[run]
        if isinstance(found, str):
            reasons[i] = found
            continue
        scenarios.append(found)
        index.append(i)
        slo = deployment.inputs.workload.slo or Slo()
        limits.append((slo.ttft, slo.tpot))
    return Comparison(
        measurements=tuple(measurements),
        tables=stack(scenarios) if scenarios else None,
        index=tuple(index),
        reasons=reasons,
        ttft_limit_s=np.array([limit for limit, _ in limits]),
        tpot_limit_s=np.array([limit for _, limit in limits]),
    )


def _deployment(m: Measurement) -> Deployment | str:
    try:
        inputs = load_inputs(hardware=m.hardware, workload=m.workload, model=m.model)
        return Deployment(scaled_inputs(inputs, m.append_scale, m.output_scale))
    except BadInput as error:
        return str(error.faults[0])
    except Infeasible as error:
        return f"infeasible: {error.reason}"


def compare(predicted: Array, measured: Array) -> Array:
    """Relative errors predicted/measured - 1; nan where nothing was predicted.

    >>> compare(np.array([1.1]), np.array([1.0])).round(3)
    array([0.1])
    """
    return np.asarray(predicted / measured - 1.0)
