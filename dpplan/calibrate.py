"""Fit the time model's constants to measurements, and say how well they are known (Q-calibrate)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dpplan.comparison import Comparison, compare, prepare_rows
from dpplan.errors import BadInput, Fault
from dpplan.profiles.measurements import Measurement
from dpplan.queueing import CONSTANTS, Constants

__all__ = ["FITTED", "Calibrated", "LeftOut", "calibrate", "fit_constants"]

Array = npt.NDArray[np.float64]

FITTED: Final = tuple(name for name, constant in CONSTANTS.items() if constant.fitted)
"""Constants that a calibration fits; the others have sources of their own."""

_READING_ERROR = 0.05
"""Relative error of a measured number above which it counts less than by its square: bars read
off figures are good to 1 to 5 % (soft_l1 loss)."""

_PRIOR_SHARE = 0.1
"""Reading errors that a constant e times its assumed value costs: an assumed value is taken to be
good to a factor exp(0.05 / 0.1) = 1.65, so that constants which the data don't tell stay put."""

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
class Calibrated:
    """Fitted constants and how well they are known."""

    constants: Constants
    covariance: Array
    """Of the natural logarithms of the constants in `FITTED`, (constants, constants)."""
    comparison: Comparison
    errors: Array
    """Relative errors of the rows in `comparison.index`."""
    left_out: tuple[LeftOut, ...]
    stored_kv_bytes_per_token: Mapping[str, float]

    def interval(self, name: str, deviations: float = 1.6449) -> tuple[float, float]:
        """Confidence interval of a fitted constant, 90 % unless said."""
        at = FITTED.index(name)
        spread = float(np.exp(deviations * np.sqrt(self.covariance[at, at])))
        value = float(getattr(self.constants, name))
        limits = CONSTANTS[name]
        return max(value / spread, limits.lowest), min(value * spread, limits.highest)


def calibrate(
    measurements: Sequence[Measurement],
    stored_kv_bytes_per_token: Mapping[str, float] | None = None,
    *,
    leave_one_model_out: bool = True,
) -> Calibrated:
    """Fit the constants to measured rows (Q-calibrate).

    Parameters
    ----------
    measurements : sequence of Measurement
    stored_kv_bytes_per_token : mapping, optional
        Model -> bytes a cached token takes in storage, where it differs from the profile.
    leave_one_model_out : bool
        Fit once more without each model, and predict its rows.

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
    constants, covariance = fit_constants(comparison)
    predicted, _ = comparison.predict(constants)
    left_out = []
    models = sorted({m.model for m in measurements})
    if leave_one_model_out and len(models) > 1:
        for model in models:
            others = prepare_rows([m for m in measurements if m.model != model], stored)
            own = prepare_rows([m for m in measurements if m.model == model], stored)
            if len(others.index) <= len(FITTED) or not own.index:
                continue
            without, _ = fit_constants(others)
            errors = compare(own.predict(without)[0], own.measured())
            left_out.append(LeftOut(model, len(own.index), errors))
    return Calibrated(
        constants=constants,
        covariance=covariance,
        comparison=comparison,
        errors=compare(predicted, comparison.measured()),
        left_out=tuple(left_out),
        stored_kv_bytes_per_token=stored,
    )


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
    errors = residuals(found.x)[: len(measured)]
    spread = 1.4826 * float(np.median(np.abs(errors - np.median(errors))))
    jacobian = np.asarray(found.jac, dtype=float)  # weighted by the loss at the solution
    covariance = np.linalg.pinv(jacobian.T @ jacobian) * spread**2
    return constants_at(found.x), np.asarray((covariance + covariance.T) / 2)
