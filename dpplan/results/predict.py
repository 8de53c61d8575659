"""The frozen answer of a prediction: plain values, mappings and DataFrames."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from dpplan.frozen import Frozen

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["METRICS", "Interval", "Prediction", "Speedup"]

METRICS: Final = (
    "jct_s",
    "ttft_s",
    "ttst_s",
    "tpot_s",
    "working_set_bytes",
    "agents_in_system",
    "capacity_agents_per_s",
)
"""Numbers of a prediction; one that was not asked for, or of an unstable load, is None."""


@dataclass(frozen=True)
class Interval:
    """90 % interval that the calibration's covariance gives; the model's own error comes on top."""

    low: float
    high: float


@dataclass(frozen=True)
class Speedup:
    """How much better the system is than another under the same load."""

    against: str
    metric: str
    """What is compared: times of the other over this, or capacity of this over the other."""
    ratio: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Prediction:
    """What will happen to a job of agents, or to arrivals of them; times are means unless said."""

    hardware: str
    model: str
    workload: str
    prefill_nodes: int
    decode_nodes: int
    system: str
    agents: float | None
    agents_per_s: float | None
    ttft_limit_s: float | None
    tpot_limit_s: float | None
    values: dict[str, float]
    """By name of `METRICS`."""
    intervals: dict[str, Interval]
    stable: bool
    limited_by: str | None
    """What is fullest, or ends the capacity: a station, "slo.ttft", "slo.tpot", "bound" (the
    planner's), or "longest session" where a job waits for no station."""
    utilisation: dict[str, float]
    """Of the stations and, where agents arrive, of the planner's bound."""
    ttft_parts_s: dict[str, float]
    """scheduling, read, prefill: TTFT; hand_off comes after the first token."""
    agent_jct_s: dict[str, float]
    """Completion time of agents: mean, p50, p90, p99 over sessions of different length."""
    speedup: Speedup | None
    bound_agents_per_s: float | None
    """The planner's throughput bound in sessions; None where nothing binds."""
    calibration: str | None
    """None: the assumed constants."""
    calibration_rows: int
    constants: dict[str, float]
    assumptions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    settings: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        """Mappings are read, never changed."""
        names = ("values", "intervals", "utilisation", "ttft_parts_s", "agent_jct_s", "constants")
        for name in names:
            object.__setattr__(self, name, Frozen(getattr(self, name)))

    def __getattr__(self, name: str) -> float | None:
        """`prediction.jct_s` and the other `METRICS`; None where there is no such number."""
        if name in METRICS:
            value: float | None = self.values.get(name)
            return value
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def to_dict(self) -> dict[str, Any]:
        """JSON of the command line, schema `dpplan.predict/1`."""
        speedup = None
        if self.speedup is not None:
            speedup = {
                "against": self.speedup.against,
                "metric": self.speedup.metric,
                "ratio": self.speedup.ratio,
                "interval": _pair(self.speedup.interval),
            }
        return {
            "schema": "dpplan.predict/1",
            "inputs": {
                "hardware": self.hardware,
                "model": self.model,
                "workload": self.workload,
                "prefill_nodes": self.prefill_nodes,
                "decode_nodes": self.decode_nodes,
                "system": self.system,
                "agents": self.agents,
                "agents_per_s": self.agents_per_s,
                "ttft_limit_s": self.ttft_limit_s,
                "tpot_limit_s": self.tpot_limit_s,
                "settings": list(self.settings),
            },
            **{name: self.values.get(name) for name in METRICS},
            "limited_by": self.limited_by,
            "stable": self.stable,
            "intervals": {name: _pair(interval) for name, interval in self.intervals.items()},
            "speedup": speedup,
            "agent_jct_s": dict(self.agent_jct_s),
            "ttft_parts_s": dict(self.ttft_parts_s),
            "utilisation": dict(self.utilisation),
            "bound_agents_per_s": self.bound_agents_per_s,
            "calibration": {
                "name": self.calibration,
                "rows": self.calibration_rows,
                "constants": dict(self.constants),
            },
            "assumptions": list(self.assumptions),
            "warnings": list(self.warnings),
        }

    def to_frame(self) -> pd.DataFrame:
        """Metrics with their intervals, one a row."""
        import pandas as pd

        rows = [
            {
                "metric": name,
                "value": value,
                "low": self.intervals[name].low if name in self.intervals else None,
                "high": self.intervals[name].high if name in self.intervals else None,
            }
            for name, value in self.values.items()
        ]
        return pd.DataFrame(rows, columns=["metric", "value", "low", "high"])

    def _repr_html_(self) -> str:
        title = html.escape(
            f"{self.model} on {self.hardware} {self.prefill_nodes}P{self.decode_nodes}D, "
            f"{self.workload}, {self.system}"
        )
        table = self.to_frame().to_html(index=False, escape=True, float_format="{:.4g}".format)
        state = "" if self.stable else "<p>Unstable: the load exceeds what the system sustains.</p>"
        return f"<p><b>{title}</b></p>{state}{table}"


def _pair(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]
