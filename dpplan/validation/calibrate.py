"""Fit the time model's constants to measurements, and say how well they are known (Q-calibrate)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dpplan.arrays import Array
from dpplan.errors import BadInput, Fault
from dpplan.profiles.library import Kind, read_profile
from dpplan.queueing import CONSTANTS, Constants
from dpplan.units import format_quantity
from dpplan.validation.comparison import Comparison, compare, prepare_rows
from dpplan.validation.measurements import Measurement

__all__ = [
    "FITTED",
    "Calibrated",
    "Errors",
    "LeftOut",
    "calibrate",
    "errors_of",
    "fit_constants",
    "own_name",
]


FITTED: Final = tuple(name for name, constant in CONSTANTS.items() if constant.fitted)
"""Constants that a calibration fits; the others have sources of their own."""

_READING_ERROR = 0.05
"""Relative error of a measured number above which it counts less than by its square: bars read
off figures are good to 1 to 5 % (soft_l1 loss)."""

_PRIOR_SHARE = 0.2
"""Reading errors that a constant e times its assumed value costs: an assumed value is taken to be
good to a factor exp(0.05 / 0.2) = 1.28, one standard deviation, so that constants which the data
don't tell stay put. A fit to all shipped rows hardly feels it; one without a model does."""

_LEAST_SPREAD = 0.01
"""Least relative error that measured numbers are taken to have."""

_UNTOLD_SHARE = 0.8
"""Share of an assumed value's uncertainty above which the data have hardly told a constant."""

_NEAR_BOUND = 0.005
"""Relative distance from an end of its range within which a constant is said to be there."""

_STEP = 1e-3
_STARTS: Final[tuple[dict[str, float], ...]] = ({}, {"storage_nic_share": 0.97})
"""Where searches start, but for the assumed values: a low share hides what overlap and exposed
compute do, a high one may start from loads that are unstable. The better end is taken."""


@dataclass(frozen=True)
class LeftOut:
    """Errors of a model's rows, predicted with constants fitted without them."""

    model: str
    rows: int
    errors: Array
    """Relative errors, nan where nothing was predicted."""


@dataclass(frozen=True)
class Errors:
    """Relative errors of some rows; None where none of them is predicted."""

    rows: int
    unpredicted: int
    """Rows whose load the model takes to be unstable."""
    median_error: float | None
    """With its sign: below zero, too little is predicted."""
    median_abs_error: float | None
    p90_abs_error: float | None


def errors_of(errors: Array) -> Errors:
    """Median and P90 of relative errors.

    >>> errors_of(np.array([0.1, -0.2, 0.3, np.nan])).median_abs_error
    0.2
    """
    known = errors[np.isfinite(errors)]
    if not known.size:
        return Errors(len(errors), len(errors), None, None, None)
    return Errors(
        rows=len(errors),
        unpredicted=len(errors) - known.size,
        median_error=float(np.median(known)),
        median_abs_error=float(np.median(np.abs(known))),
        p90_abs_error=float(np.quantile(np.abs(known), 0.9)),
    )


@dataclass(frozen=True)
class Calibrated:
    """Fitted constants and how well they are known."""

    measurements: tuple[Measurement, ...]
    constants: Constants
    covariance: Array
    """Of the natural logarithms of the constants in `FITTED`, (constants, constants)."""
    comparison: Comparison
    errors: Array
    """Relative errors of the rows in `comparison.index`."""
    left_out: tuple[LeftOut, ...]
    stored_kv_bytes_per_token: Mapping[str, float]

    @property
    def free_numbers(self) -> int:
        """Numbers that were free to meet the data: fitted constants and stored-KV sizes."""
        return len(FITTED) + len(self.stored_kv_bytes_per_token)

    def deviation(self, name: str) -> float:
        """Standard deviation of a fitted constant's logarithm."""
        at = FITTED.index(name)
        return float(np.sqrt(self.covariance[at, at]))

    def is_told(self, name: str) -> bool:
        """The data say more about a fitted constant than was assumed of it."""
        return self.deviation(name) < _UNTOLD_SHARE * _READING_ERROR / _PRIOR_SHARE

    def bound(self, name: str) -> str:
        """The end of its range, lowest or highest, that a fitted constant sits at; else empty."""
        value, limits = float(getattr(self.constants, name)), CONSTANTS[name]
        if value >= limits.highest * (1 - _NEAR_BOUND):
            return "highest"
        return "lowest" if value <= max(limits.lowest * (1 + _NEAR_BOUND), 1e-9) else ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the data are too little for."""
        found = []
        metrics = sorted({m.metric for m in self.measurements})
        if len(metrics) == 1:
            found.append(
                f"all rows are {metrics[0]}: what only other metrics tell is not known from them"
            )
        used = [self.measurements[i] for i in self.comparison.index]
        for what in ("model", "hardware", "system"):
            names = sorted({str(getattr(m, what)) for m in used})
            if len(names) == 1 and what != "hardware":
                found.append(f"all rows are of {what} {names[0]}: others may differ")
            elif len(names) > 1 and what == "hardware":
                found.append(f"one set of constants for several node types: {', '.join(names)}")
        untold = [name for name in FITTED if not self.is_told(name)]
        if untold:
            listed = ", ".join(untold)
            found.append(f"the data hardly tell {listed}: little more is known than was assumed")
        for name in FITTED:
            if where := self.bound(name):
                found.append(f"{name} is at the {where} value of its range")
        lost = sum(1 for error in self.errors if not np.isfinite(error))
        if lost:
            found.append(f"{lost} rows that ran are predicted to be unstable at their rate")
        return tuple(found)

    def error_groups(self) -> dict[str, Errors]:
        """Errors by metric, and of all rows."""
        metrics = [self.measurements[i].metric for i in self.comparison.index]
        groups = {
            metric: errors_of(self.errors[[m == metric for m in metrics]])
            for metric in dict.fromkeys(metrics)
        }
        return groups | {"all": errors_of(self.errors)}

    def left_out_groups(self) -> dict[str, Errors]:
        """Errors of each model's rows by constants fitted without them, and of all such rows."""
        groups = {part.model: errors_of(part.errors) for part in self.left_out}
        if groups:
            groups["all"] = errors_of(np.concatenate([part.errors for part in self.left_out]))
        return groups

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, in base units."""
        constants: dict[str, dict[str, Any]] = {}
        for name, what in CONSTANTS.items():
            low, high = self.interval(name) if what.fitted else (None, None)
            constants[name] = {
                "value": float(getattr(self.constants, name)),
                "unit": what.unit,
                "low": low,
                "high": high,
                "range_lowest": what.lowest,
                "range_highest": what.highest,
                "fitted": what.fitted,
                "told": self.is_told(name) if what.fitted else None,
                "at_bound": (self.bound(name) or None) if what.fitted else None,
                "meaning": what.meaning,
                "source": what.source or None,
            }
        return {
            "free_numbers": self.free_numbers,
            "rows": len(self.measurements),
            "rows_fitted": len(self.comparison.index),
            "rows_left_out": [
                {"line": self.measurements[i].line, "reason": reason}
                for i, reason in self.comparison.reasons.items()
            ],
            "constants": constants,
            "stored_kv_bytes_per_token": dict(self.stored_kv_bytes_per_token),
            "errors": {key: vars(value) for key, value in self.error_groups().items()},
            "leave_one_model_out": {
                key: vars(value) for key, value in self.left_out_groups().items()
            },
            "covariance": {"names": list(FITTED), "values": self.covariance.tolist()},
            "warnings": list(self.warnings),
        }

    def to_profile(self, stored_kv_reason: str = "") -> dict[str, Any]:
        """Constants, covariance and errors as keys of a calibration profile."""
        constants: dict[str, float | str] = {}
        for name, what in CONSTANTS.items():
            value = float(getattr(self.constants, name))
            dimension = {"s": "s", "bytes/s": "bytes_per_s"}.get(what.unit)
            constants[name] = (
                format_quantity(value, dimension, digits=6) if dimension else float(f"{value:.6g}")
            )
        stored = {model: f"{size:.6g} B" for model, size in self.stored_kv_bytes_per_token.items()}
        without = {
            part.model: {
                "rows": part.rows,
                "median_abs_error": float(f"{errors.median_abs_error:.4g}"),
                "p90_abs_error": float(f"{errors.p90_abs_error:.4g}"),
            }
            for part in self.left_out
            for errors in [errors_of(part.errors)]
            if errors.median_abs_error is not None and errors.p90_abs_error is not None
        }
        covariance = [[float(f"{value:.6g}") for value in row] for row in self.covariance]
        return (
            {"constants": constants}
            | ({"stored_kv_bytes_per_token": stored} if stored else {})
            | ({"stored_kv_reason": stored_kv_reason} if stored else {})
            | {"fit": {"names": list(FITTED), "covariance": covariance}}
            | ({"leave_one_model_out": without} if without else {})
        )

    def interval(self, name: str, deviations: float = 1.6449) -> tuple[float, float]:
        """Confidence interval of a fitted constant, 90 % unless said."""
        spread = float(np.exp(min(deviations * self.deviation(name), 700.0)))
        value = float(getattr(self.constants, name))
        limits = CONSTANTS[name]
        return max(value / spread, limits.lowest), min(value * spread, limits.highest)


def calibrate(
    measurements: Sequence[Measurement],
    stored_kv_bytes_per_token: Mapping[str, float] | None = None,
    *,
    leave_one_model_out: bool = True,
    tell: Callable[[str], None] = lambda _: None,
) -> Calibrated:
    """Fit the constants to measured rows (Q-calibrate).

    Parameters
    ----------
    measurements : sequence of Measurement
    stored_kv_bytes_per_token : mapping, optional
        Model -> bytes a cached token takes in storage, where it differs from the profile.
    leave_one_model_out : bool
        Fit once more without each model, and predict its rows.
    tell : callable
        Called with what is about to be done, for those who wait.

    Returns
    -------
    Calibrated

    Raises
    ------
    BadInput
        If fewer rows than constants can be predicted.
    """
    stored = dict(stored_kv_bytes_per_token or {})
    comparison = prepare_rows(measurements, stored)
    if len(comparison.index) <= len(FITTED):
        needed = f"more than {len(FITTED)} rows that can be predicted are needed"
        reasons = "; ".join(sorted(set(comparison.reasons.values())))[:300]
        raise BadInput(Fault("measurements", needed, str(len(comparison.index)), reasons))
    tell(f"fitting {len(FITTED)} constants to {len(comparison.index)} rows")
    constants, covariance = fit_constants(comparison)
    predicted, _ = comparison.predict(constants)
    left_out = []
    models = sorted({m.model for m in measurements})
    if leave_one_model_out and len(models) > 1:
        for model in models:
            tell(f"fitting without {model}, to predict it")
            others = prepare_rows([m for m in measurements if m.model != model], stored)
            own = prepare_rows([m for m in measurements if m.model == model], stored)
            if len(others.index) <= len(FITTED) or not own.index:
                continue
            without, _ = fit_constants(others)
            errors = compare(own.predict(without)[0], own.measured())
            left_out.append(LeftOut(own_name("models", model), len(own.index), errors))
    return Calibrated(
        measurements=tuple(measurements),
        constants=constants,
        covariance=covariance,
        comparison=comparison,
        errors=compare(predicted, comparison.measured()),
        left_out=tuple(left_out),
        stored_kv_bytes_per_token=stored,
    )


def own_name(kind: Kind, given: str) -> str:
    """What a profile calls itself, however the data name it; as given where there is none."""
    try:
        return str(getattr(read_profile(kind, given), "name", given))
    except BadInput:
        return given


def fit_constants(comparison: Comparison, most_rounds: int = 60) -> tuple[Constants, Array]:
    """Least squares of log errors, with the assumed values as weak prior (Q-calibrate).

    Parameters
    ----------
    comparison : Comparison
    most_rounds : int
        Evaluations of the fit at most.

    Returns
    -------
    (Constants, ndarray)
        The constants, and the covariance of their natural logarithms in the order of `FITTED`.
    """
    from scipy.optimize import least_squares

    assumed = Constants()
    prior = np.log([getattr(assumed, name) for name in FITTED])
    lowest = np.log([max(CONSTANTS[name].lowest, 1e-12) for name in FITTED]) - prior
    highest = np.log([CONSTANTS[name].highest for name in FITTED]) - prior
    measured = np.log(comparison.measured())

    def constants_at(moved: Array) -> Constants:
        values = np.exp(prior + np.clip(moved, lowest, highest))
        clipped = {
            name: min(max(float(value), CONSTANTS[name].lowest), CONSTANTS[name].highest)
            for name, value in zip(FITTED, values, strict=True)
        }
        return dataclasses.replace(assumed, **clipped)

    def residuals_of(moved: Sequence[Array]) -> Array:
        predicted, _ = comparison.predict([constants_at(x) for x in moved])
        with np.errstate(invalid="ignore", divide="ignore"):
            errors = np.log(predicted) - measured
        # A load that is stable in truth but not in the model: as wrong as a factor e.
        errors = np.where(np.isfinite(errors), errors, 1.0)
        return np.concatenate([errors, _PRIOR_SHARE * np.array(moved)], axis=1)

    def residuals(moved: Array) -> Array:
        return np.asarray(residuals_of([moved])[0])

    def slopes(moved: Array) -> Array:
        # Steps point inwards, so that none leaves the range.
        steps = np.where(moved + _STEP > highest, -_STEP, _STEP)
        nudged = [moved + steps * (np.arange(len(moved)) == i) for i in range(len(moved))]
        values = residuals_of([moved, *nudged])
        return np.asarray(((values[1:] - values[0]) / steps[:, None]).T)

    ends = []
    for changed in _STARTS:
        values = [changed.get(name, getattr(assumed, name)) for name in FITTED]
        end = least_squares(
            residuals,
            np.clip(np.log(values) - prior, lowest + 1e-9, highest - 1e-9),
            jac=slopes,
            bounds=(lowest, highest),
            method="dogbox",
            loss="soft_l1",
            f_scale=_READING_ERROR,
            max_nfev=most_rounds,
            ftol=1e-6,
            xtol=1e-6,
        )
        ends.append(end)
    found = min(ends, key=lambda end: float(end.cost))
    jacobian = np.asarray(found.jac, dtype=float)  # weighted by the loss at the solution
    return constants_at(found.x), _covariance(jacobian, residuals(found.x)[: len(measured)])


def _covariance(jacobian: Array, errors: Array) -> Array:
    """Covariance of the logarithms: what the data tell at their spread, and what is assumed."""
    spread = 1.4826 * float(np.median(np.abs(errors - np.median(errors))))
    told, assumed = jacobian[: len(errors)], jacobian[len(errors) :]
    precision = told.T @ told / max(spread, _LEAST_SPREAD) ** 2
    precision += assumed.T @ assumed / _READING_ERROR**2
    covariance = np.linalg.inv(precision)
    return np.asarray((covariance + covariance.T) / 2)
