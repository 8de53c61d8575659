"""How well predictions agree with measured results, row by row and in groups."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from dpplan.errors import BadInput, Fault
from dpplan.profiles.calibration import Calibration
from dpplan.profiles.library import read_profile
from dpplan.queueing import CONSTANTS, Constants
from dpplan.queueing.calibrations import choose_calibration
from dpplan.validation.comparison import prepare_rows
from dpplan.validation.measurements import METRICS, SYSTEM_NAMES, Measurement

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ADDED", "GROUPS", "Errors", "ValidatedRow", "Validation", "Yardstick", "validate"]

ADDED: Final = ("predicted", "relative_error", "reason", "calibration")
"""What a row gets besides the columns of its file."""

GROUPS: Final = ("figure", "model", "system", "metric")
"""Columns whose values the rows are summed up by."""

_COUNTS: Final = ("prefill_nodes", "decode_nodes")
_NUMBERS: Final = (
    *_COUNTS,
    "agents",
    "agents_per_s",
    "append_scale",
    "output_scale",
    "value",
)
_DEVIATIONS: Final = 1.6449
"""Standard deviations of a 90 % interval."""


@dataclass(frozen=True)
class Yardstick:
    """Constants that some rows were predicted with; rows without a prediction have none."""

    constants: Constants
    calibration: Calibration | None
    """None: the assumed constants."""
    hardware: tuple[str, ...]
    """Node types of its rows, as their file names them."""
    rows: int
    lines: tuple[int, ...]
    """Where its rows stand in their file."""
    fitted_on_these: bool
    """It was fitted on this very file: errors are those of a fit."""

    @property
    def name(self) -> str | None:
        """Name of the calibration; None for the assumed constants."""
        return None if self.calibration is None else self.calibration.name

    @property
    def free_numbers(self) -> int | None:
        """Numbers chosen to agree with measurements; None where nothing was fitted."""
        if self.calibration is None or self.calibration.fit is None:
            return None
        overrides = len(self.calibration.stored_kv_bytes_per_token)
        return len(self.calibration.fit.names) + overrides

    def interval(self, name: str) -> tuple[float, float] | None:
        """90 % interval of a fitted constant, within the range that makes sense."""
        fit = None if self.calibration is None else self.calibration.fit
        if fit is None or name not in fit.names:
            return None
        at = fit.names.index(name)
        spread = math.exp(min(_DEVIATIONS * math.sqrt(fit.covariance[at][at]), 700.0))
        value, limits = float(getattr(self.constants, name)), CONSTANTS[name]
        return max(value / spread, limits.lowest), min(value * spread, limits.highest)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        found = self.calibration
        return {
            "name": self.name,
            "hardware": list(self.hardware),
            "rows": self.rows,
            "fitted_on_these": self.fitted_on_these,
            "free_numbers": self.free_numbers,
            "constants": {name: float(getattr(self.constants, name)) for name in CONSTANTS},
            "intervals": {
                name: list(pair) for name in CONSTANTS if (pair := self.interval(name)) is not None
            },
            "stored_kv_bytes_per_token": dict(found.stored_kv_bytes_per_token) if found else {},
            "leave_one_model_out": {
                model: errors.model_dump()
                for model, errors in (found.leave_one_model_out if found else {}).items()
            },
        }


@dataclass(frozen=True)
class ValidatedRow:
    """A measured number and what was predicted for it."""

    measurement: Measurement
    predicted: float | None
    relative_error: float | None
    """predicted / measured - 1."""
    reason: str | None
    """Why there is no prediction."""
    calibration: str | None
    """Whose constants; None = assumed ones."""

    def to_dict(self) -> dict[str, Any]:
        """The columns of the file, numbers as numbers, and those of `ADDED`."""
        cells = {name: _cell(name, text) for name, text in self.measurement.cells.items()}
        return cells | self.added

    @property
    def added(self) -> dict[str, Any]:
        """The columns of `ADDED`."""
        return {name: getattr(self, name) for name in ADDED}


@dataclass(frozen=True)
class Errors:
    """Absolute relative errors of some rows; None where none of them could be predicted."""

    n: int
    """Rows, those without a prediction included."""
    median_abs_error: float | None
    p90_abs_error: float | None
    """Nine of ten errors are smaller (linear between the two around it)."""
    worst_abs_error: float | None
    """These three are of the rows predicted."""
    coverage_fraction: float
    """Rows predicted over all rows."""


@dataclass(frozen=True)
class Validation:
    """Predictions beside measured results."""

    rows: tuple[ValidatedRow, ...]
    """In the order of the file."""
    overall: Errors
    groups: Mapping[str, Mapping[str, Errors]]
    """Column of `GROUPS` -> its value -> errors."""
    yardsticks: tuple[Yardstick, ...]

    @property
    def uncovered(self) -> tuple[ValidatedRow, ...]:
        """Rows without a prediction."""
        return tuple(row for row in self.rows if row.relative_error is None)

    @property
    def assumed(self) -> tuple[int, ...]:
        """Lines of the file whose rows rest on assumed constants."""
        return tuple(line for y in self.yardsticks if y.calibration is None for line in y.lines)

    def passes(self, most_fraction: float) -> bool:
        """Every row is predicted and the median error is no larger than this."""
        median = self.overall.median_abs_error
        return not self.uncovered and median is not None and median <= most_fraction

    def to_dict(self) -> dict[str, Any]:
        """JSON of the command line, schema `dpplan.validate/1`."""
        used = [yardstick.to_dict() for yardstick in self.yardsticks]
        return {
            "schema": "dpplan.validate/1",
            "rows": [row.to_dict() for row in self.rows],
            "summary": {
                **vars(self.overall),
                **{
                    f"by_{column}": {name: vars(errors) for name, errors in groups.items()}
                    for column, groups in self.groups.items()
                },
            },
            "calibration": {
                "name": used[0]["name"] if len(used) == 1 else None,
                "used": used,
                "assumed_lines": list(self.assumed),
            },
        }

    def to_frame(self) -> pd.DataFrame:
        """The rows with the columns of their file and those of `ADDED`."""
        import pandas as pd

        columns = list(dict.fromkeys([*self.rows[0].measurement.cells, *ADDED]))
        return pd.DataFrame([row.to_dict() for row in self.rows], columns=columns)


def validate(
    measurements: Sequence[Measurement],
    calibration: str | None = None,
    *,
    data_sha256: str | None = None,
) -> Validation:
    """Predict every measured row and compare.

    Parameters
    ----------
    measurements : sequence of Measurement
        At least one.
    calibration : str, optional
        "auto" (also None): for every row the calibration that lists its node type, else assumed
        constants; "none"; or a name or path.
    data_sha256 : str, optional
        Of the file they stand in: tells whether a calibration was fitted on them.

    Returns
    -------
    Validation
        Rows that cannot be predicted (no such profile, infeasible, unstable) keep their reason.

    Raises
    ------
    BadInput
        If there are no rows, or a calibration is not there or is faulty.

    Examples
    --------
    >>> from dpplan.profiles.library import shipped_root
    >>> from dpplan.validation.measurements import read_measurements
    >>> done = validate(read_measurements(shipped_root() / "measurements" / "dualpath.csv"))
    >>> done.overall.coverage_fraction, done.overall.median_abs_error < 0.05
    (1.0, True)
    """
    if not measurements:
        raise BadInput(Fault("measurements", "at least one row is needed", "none"))
    chosen: dict[str, _Chosen] = {}
    places: dict[tuple[str, ...], list[int]] = {}
    for i, m in enumerate(measurements):
        if m.hardware not in chosen:
            chosen[m.hardware] = choose_calibration(_name(m.hardware), calibration or "auto")
        profile = chosen[m.hardware][2]
        same = () if profile is None else (profile.name, *profile.hardware)
        places.setdefault(same, []).append(i)
    rows: dict[int, ValidatedRow] = {}
    yardsticks = []
    for index in places.values():
        own = [measurements[i] for i in index]
        constants, stored, profile = chosen[own[0].hardware]
        name = None if profile is None else profile.name
        predictions = _predictions(own, constants, stored)
        for i, (predicted, reason) in zip(index, predictions, strict=True):
            rows[i] = _row(measurements[i], predicted, reason, name)
        resting = [measurements[i] for i in index if rows[i].predicted is not None]
        if resting:
            yardsticks.append(_yardstick(constants, profile, resting, data_sha256))
    ordered = tuple(rows[i] for i in range(len(measurements)))
    return Validation(
        rows=ordered,
        overall=_errors(ordered),
        groups={column: _grouped(ordered, column) for column in GROUPS},
        yardsticks=tuple(sorted(yardsticks, key=lambda y: (y.name is None, y.name or ""))),
    )


def _yardstick(
    constants: Constants,
    profile: Calibration | None,
    rows: Sequence[Measurement],
    data_sha256: str | None,
) -> Yardstick:
    return Yardstick(
        constants=constants,
        calibration=profile,
        hardware=tuple(sorted({m.hardware for m in rows})),
        rows=len(rows),
        lines=tuple(sorted(m.line for m in rows)),
        fitted_on_these=profile is not None and profile.data.sha256 == data_sha256,
    )


_Chosen = tuple[Constants, Mapping[str, float], Calibration | None]


def _name(hardware: str) -> str:
    """Name of a node type that may be given by its path; a faulty profile is told with its rows."""
    try:
        return str(getattr(read_profile("hardware", hardware), "name", hardware))
    except BadInput:
        return hardware


def _predictions(
    measurements: Sequence[Measurement], constants: Constants, stored: Mapping[str, float]
) -> list[tuple[float | None, str | None]]:
    """Predicted value of every row, or the reason why there is none."""
    # Loads far beyond any cluster overflow: what comes out infinite is told as a reason.
    with np.errstate(all="ignore"):
        ready = prepare_rows(measurements, stored)
        values, unstable = ready.predict(constants)
    found = dict(zip(ready.index, values.tolist(), strict=True))
    reasons = {**ready.reasons, **unstable}
    return [
        (None, reasons.get(i, "no finite value comes out"))
        if i in reasons or not math.isfinite(found[i])
        else (found[i], None)
        for i in range(len(measurements))
    ]


def _row(
    measurement: Measurement, predicted: float | None, reason: str | None, name: str | None
) -> ValidatedRow:
    if predicted is None:
        return ValidatedRow(measurement, None, None, reason, name)
    error = predicted / measurement.value - 1.0
    if not math.isfinite(error):
        reason = f"{measurement.value:g} is too small to compare with"
        return ValidatedRow(measurement, predicted, None, reason, name)
    return ValidatedRow(measurement, predicted, error, None, name)


def _errors(rows: Iterable[ValidatedRow]) -> Errors:
    found = list(rows)
    errors = [abs(row.relative_error) for row in found if row.relative_error is not None]
    if not errors:
        return Errors(len(found), None, None, None, 0.0)
    return Errors(
        n=len(found),
        median_abs_error=float(np.median(errors)),
        p90_abs_error=float(np.quantile(errors, 0.9)),
        worst_abs_error=max(errors),
        coverage_fraction=len(errors) / len(found),
    )


def _grouped(rows: Sequence[ValidatedRow], column: str) -> dict[str, Errors]:
    """Errors by a column's values, in an order that the file's has no part in."""
    groups: dict[str, list[ValidatedRow]] = {}
    for row in rows:
        groups.setdefault(getattr(row.measurement, column), []).append(row)
    if set(groups) == {""}:
        return {}  # the file has no such column
    return {name: _errors(groups[name]) for name in sorted(groups, key=_ORDERS[column])}


def _natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """Numbers in a text by their value: figure 7 before figure 10."""
    parts = re.findall(r"[0-9]{1,15}|[^0-9]+|[0-9]+", text)
    return tuple((0, int(p), "") if p.isdigit() and len(p) < 16 else (1, 0, p) for p in parts)


_ORDERS: Final[dict[str, Callable[[str], Any]]] = {
    "figure": _natural,
    "model": _natural,
    "system": SYSTEM_NAMES.index,
    "metric": METRICS.index,
}


def _cell(column: str, text: str) -> Any:
    """A cell as the file has it: a column of numbers holds numbers, or None where it is empty."""
    if column not in _NUMBERS:
        return text
    if not text:
        return None
    return int(text) if re.fullmatch(r"[0-9]{1,15}", text) else float(text)
