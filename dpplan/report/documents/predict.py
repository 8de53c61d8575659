"""What a prediction says to a person: times, what they are limited by, what they rest on."""

from __future__ import annotations

from dpplan.report.document import Bar, Cell, Column, Document, Items, Section, Table
from dpplan.report.words import number, percent, seconds, size
from dpplan.results.predict import Interval, Prediction

__all__ = ["prediction_document"]

_NAMES = {
    "jct_s": "job completion time",
    "ttft_s": "TTFT, time to first token",
    "ttst_s": "TTST, first to second token",
    "tpot_s": "TPOT, time per output token",
    "working_set_bytes": "KV working set",
    "agents_in_system": "agents in the system",
    "capacity_agents_per_s": "capacity, agents/s",
}
_STATIONS = {
    "prefill.gpu": "prefill GPUs",
    "storage_nic_read": "storage NICs",
    "decode.gpu": "decode GPUs",
    "decode.hbm": "decode HBM",
    "bound": "planner's bound",
}
_LIMITS = {
    "prefill.gpu": "the prefill GPUs",
    "storage_nic_read": "the storage NICs",
    "decode.gpu": "the decode GPUs",
    "decode.hbm": "the decode HBM",
    "bound": "the planner's throughput bound",
    "slo.ttft": "the TTFT limit",
    "slo.tpot": "the TPOT limit",
    "longest session": "the longest sessions, not a full station",
}


def prediction_document(found: Prediction) -> Document:
    """The report of a prediction.

    Parameters
    ----------
    found : Prediction

    Returns
    -------
    Document
        Headline, times, stations, what it rests on.
    """
    sections = []
    if found.values:
        sections.append(Section("Prediction", (_times(found),)))
    if found.ttft_parts_s:
        sections.append(Section("Where a turn's time goes", (_parts(found),)))
    sections.append(Section("How full", (_stations(found), Items(_sentences(found)))))
    rests = [*_constants(found), *found.assumptions]
    sections.append(Section("What this rests on", (Items(tuple(rests)),)))
    if found.warnings:
        sections.append(Section("Warnings", (Items(found.warnings),)))
    return Document(_headline(found), tuple(sections))


def _headline(found: Prediction) -> str:
    where = (
        f"{found.model}, {found.workload}, {found.system} on "
        f"{found.hardware} {found.prefill_nodes}P{found.decode_nodes}D"
    )
    if not found.stable:
        load = "any load" if found.agents_per_s is None else f"{found.agents_per_s:g} agents/s"
        return f"{where}: UNSTABLE at {load}, more than {_limit(found)} sustain"
    speedup = ""
    if found.speedup is not None and found.speedup.ratio is not None:
        speedup = f", {found.speedup.ratio:.2f}x {found.speedup.against}"
    if found.agents is not None:
        return f"{where}: {found.agents:,.0f} agents take {seconds(found.jct_s)}{speedup}"
    if found.agents_per_s is not None:
        return (
            f"{where}: at {found.agents_per_s:g} agents/s TTFT {seconds(found.ttft_s)}, "
            f"TPOT {seconds(found.tpot_s)}{speedup}"
        )
    rate = number(found.capacity_agents_per_s)
    return f"{where}: {rate} agents/s within the limits, ended by {_limit(found)}{speedup}"


def _limit(found: Prediction) -> str:
    return _LIMITS.get(found.limited_by or "", found.limited_by or "nothing")


def _value(name: str, value: float) -> str:
    if name.endswith("_s") and name != "capacity_agents_per_s":
        return seconds(value)
    return size(value) if name.endswith("_bytes") else number(value)


def _range(name: str, interval: Interval | None) -> str:
    if interval is None:
        return "-"
    return f"{_value(name, interval.low)} to {_value(name, interval.high)}"


def _times(found: Prediction) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for name, value in found.values.items():
        title = _NAMES[name]
        if name == "jct_s" and found.agents is None:
            title = "agent's completion time"
        rows.append((title, _value(name, value), _range(name, found.intervals.get(name))))
    for quantile in ("p50", "p90", "p99"):
        if quantile in found.agent_jct_s and found.agent_jct_s["p50"] < found.agent_jct_s["p99"]:
            label = f"agent's completion, {quantile}"
            rows.append((label, seconds(found.agent_jct_s[quantile]), ""))
    if found.agents is not None and "mean" in found.agent_jct_s:
        rows.append(("agent's completion, mean", seconds(found.agent_jct_s["mean"]), ""))
    if found.speedup is not None:
        ratio, span = found.speedup.ratio, found.speedup.interval
        what = f"{_NAMES[found.speedup.metric]} against {found.speedup.against}"
        shown = "-" if ratio is None else f"{ratio:.2f}x"
        wide = "-" if span is None else f"{span.low:.2f}x to {span.high:.2f}x"
        rows.append((what, shown, wide))
    return Table(
        (Column("mean unless said"), Column("predicted", "right"), Column("90 % interval")),
        tuple(rows),
        frozenset({0}),
    )


def _parts(found: Prediction) -> Table:
    names = {
        "scheduling_s": "waiting for batches, GPUs and storage NICs",
        "read_s": "reading KV that prefill does not hide",
        "prefill_s": "prefill",
        "hand_off_s": "hand-off to decode (after the first token)",
    }
    rows = tuple((names[key], seconds(value)) for key, value in found.ttft_parts_s.items())
    return Table((Column("part of TTFT"), Column("mean", "right")), rows)


def _stations(found: Prediction) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (_STATIONS[name], Bar(min(value, 1.0), percent(value), value >= 1.0))
        for name, value in found.utilisation.items()
    ]
    how = "mean over the job" if found.agents is not None else "utilisation"
    return Table((Column("station"), Column(how)), tuple(rows))


def _sentences(found: Prediction) -> tuple[str, ...]:
    said = []
    if found.agents is not None:
        said.append(f"The job waits most for {_limit(found)}.")
    elif not found.stable:
        said.append("No times are given: queues would grow without end.")
    elif found.capacity_agents_per_s is not None:
        said.append(f"Above the capacity it is {_limit(found)} that gives.")
    else:
        said.append(f"Fullest: {_limit(found)}.")
    if found.bound_agents_per_s is not None:
        bound = number(found.bound_agents_per_s)
        said.append(f"The planner's bound for this system is {bound} agents/s.")
    return tuple(said)


def _constants(found: Prediction) -> list[str]:
    if found.calibration is None:
        return []
    rows = f"{found.calibration_rows} measured rows"
    return [
        f"constants of the calibration {found.calibration}, fitted on {rows}; the interval is "
        "that of its constants, the model's own error comes on top (see docs/validation.md)"
    ]
