"""Predictions of now beside those of the baseline: what held, what moved, by how much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from dpplan.validation.check.runner import Outcome, Value

__all__ = ["RESULT_SCHEMA", "ROUND_OFF", "CheckResult", "HeldValue", "Row", "compare", "is_within"]

RESULT_SCHEMA: Final = "dpplan.check-result/1"
ROUND_OFF: Final = 1e-9
"""Relative above one, absolute below, in the metric's own unit: less than this never counts."""

Status = Literal["held", "drifted", "new", "gone"]


@dataclass(frozen=True)
class HeldValue:
    """A value and the relative tolerance that goes with it."""

    value: Value
    tolerance_fraction: float


@dataclass(frozen=True)
class Row:
    """One value then and now."""

    scenario: str
    metric: str
    status: Status
    old: Value
    new: Value
    change_fraction: float | None
    """(new - old) / |old|; None where either is no number or the old one is zero."""
    tolerance_fraction: float
    note: str = ""
    """Why it has no number, or that the whole scenario is new or gone."""


@dataclass(frozen=True)
class CheckResult:
    """What a check found."""

    scenarios: str
    baseline: str
    accept: str
    """Command that makes these predictions the baseline."""
    rows: tuple[Row, ...]
    versions: dict[str, str]
    baseline_versions: dict[str, str]
    updated: bool = False
    """The baseline holds these predictions now."""

    @property
    def drift(self) -> tuple[Row, ...]:
        """Rows that differ from the baseline by more than their tolerance, are new or gone."""
        return tuple(row for row in self.rows if row.status != "held")

    @property
    def passed(self) -> bool:
        """Did everything hold, or is what moved accepted now?"""
        return self.updated or not self.drift

    def to_dict(self) -> dict[str, Any]:
        """The JSON document `dpplan.check-result/1` as plain values."""
        return {
            "schema": RESULT_SCHEMA,
            "passed": self.passed,
            "updated": self.updated,
            "scenarios": self.scenarios,
            "baseline": self.baseline,
            "accept": self.accept,
            "versions": {"baseline": dict(self.baseline_versions), "now": dict(self.versions)},
            "values": [asdict(row) for row in self.rows],
        }


def is_within(old: Value, new: Value, tolerance_fraction: float) -> bool:
    """Does a value hold?

    Numbers: |new - old| is at most the tolerance of |old|; so a zero must stay zero, to within
    `ROUND_OFF`. Anything else (none, text, a list, true or false) must stay what it is.

    >>> is_within(100.0, 101.0, 0.01), is_within(100.0, 101.1, 0.01), is_within(0.0, 0.001, 0.01)
    (True, False, False)
    """
    if not (_is_number(old) and _is_number(new)):
        return type(old) is type(new) and old == new
    assert isinstance(old, (int, float))
    assert isinstance(new, (int, float))
    allowed = tolerance_fraction * abs(old) + ROUND_OFF * max(1.0, abs(old))
    return abs(new - old) <= allowed


def _is_number(value: Value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _change(old: Value, new: Value) -> float | None:
    if not (_is_number(old) and _is_number(new)):
        return None
    assert isinstance(old, (int, float))
    assert isinstance(new, (int, float))
    return (new - old) / abs(old) if old else (0.0 if not new else None)


def compare(
    before: Mapping[str, Mapping[str, HeldValue]],
    outcomes: Mapping[str, Outcome],
    tolerances: Mapping[str, Mapping[str, float]],
) -> tuple[Row, ...]:
    """One row a value: those of the scenarios in their order, then what only the baseline has.

    Parameters
    ----------
    before : mapping of scenario to mapping of metric to HeldValue
        The baseline.
    outcomes : mapping of scenario to Outcome
        Predictions of now.
    tolerances : mapping of scenario to mapping of metric to float
        Relative tolerances of now, which count; the baseline's only go with what is gone.
    """
    rows: list[Row] = []
    for scenario, outcome in outcomes.items():
        known = before.get(scenario)
        for metric, new in outcome.values.items():
            tolerance = tolerances[scenario][metric]
            note = f"infeasible: {outcome.infeasible}" if outcome.infeasible and new is None else ""
            if known is None or metric not in known:
                note = note or ("new scenario" if known is None else "new metric")
                rows.append(Row(scenario, metric, "new", None, new, None, tolerance, note))
                continue
            old = known[metric].value
            status: Status = "held" if is_within(old, new, tolerance) else "drifted"
            change = _change(old, new)
            rows.append(Row(scenario, metric, status, old, new, change, tolerance, note))
        rows += _gone(scenario, known or {}, outcome.values, "gone metric")
    for scenario, known in before.items():
        if scenario not in outcomes:
            rows += _gone(scenario, known, {}, "gone scenario")
    return tuple(rows)


def _gone(
    scenario: str, known: Mapping[str, HeldValue], now: Mapping[str, Value], note: str
) -> list[Row]:
    return [
        Row(scenario, metric, "gone", held.value, None, None, held.tolerance_fraction, note)
        for metric, held in known.items()
        if metric not in now
    ]
