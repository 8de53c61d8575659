"""S2, S3: the bound and the split in closed form, over arrays of scenarios.

A share x of the hit KV takes the second route, so a turn uses u + (v - u)*x of each resource, an
affine function; the throughput bound is 1 / max over resources of use/capacity, and the largest
load is convex and piecewise linear in x. Its minimum is found exactly, by cutting with the lines
themselves; no tolerance steers it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Split", "best_split", "elasticity_range", "loads"]

Array = npt.NDArray[np.float64]

_CHUNK = 1 << 14
_FLAT = 1e-13
"""Two loads closer than this, relative, are the same load."""
_KINK = 1e-9
"""Loads closer than this, relative, bind together: the certificate's tolerance."""


@dataclass(frozen=True)
class Split:
    """Bounds of an array of scenarios; all of the scenarios' broadcast shape."""

    second_route_fraction: Array
    """x, share of hit KV on the second route; of several best, the one whose sorted loads are
    lexicographically smallest."""
    turns_per_s: Array
    """Throughput bound; inf where nothing binds."""
    lowest_fraction: Array
    """Smallest x that reaches the bound."""
    highest_fraction: Array
    """Largest x that reaches the bound."""


def loads(use: npt.ArrayLike, capacity: npt.ArrayLike) -> Array:
    """Load of each resource per turn/s: use/capacity [s]; 0 where capacity is unlimited.

    Examples
    --------
    >>> loads([1.0, 2.0], [10.0, float("inf")])
    array([0.1, 0. ])
    """
    return np.asarray(np.asarray(use, dtype=float) / np.asarray(capacity, dtype=float))


def best_split(
    first_route_use: npt.ArrayLike, second_route_use: npt.ArrayLike, capacity: npt.ArrayLike
) -> Split:
    """Best share of the second route and the throughput it bounds (S2, S3).

    minimise over x in [0, 1] the largest of (u_r + (v_r - u_r)*x) / C_r; bound = 1 / minimum.

    Parameters
    ----------
    first_route_use, second_route_use : array_like
        u and v: use of each resource per turn on either route, shape (..., resources).
    capacity : array_like
        C, above zero, inf = unlimited, shape (..., resources).

    Returns
    -------
    Split
        Arrays of the leading broadcast shape.

    References
    ----------
    DualPath, arXiv 2602.21548, sec. 4.2; method S2.

    Examples
    --------
    One storage NIC on either side, 1P1D: half and half doubles the bound.

    >>> s = best_split([1, 0], [0, 1], [50e9, 50e9])
    >>> float(s.second_route_fraction), float(s.turns_per_s)
    (0.5, 100000000000.0)
    """
    start = loads(first_route_use, capacity)
    end = loads(second_route_use, capacity)
    start, end = np.broadcast_arrays(start, end)
    shape, rows = start.shape[:-1], start.shape[-1]
    flat_start = np.ascontiguousarray(start.reshape(-1, rows))
    flat_end = np.ascontiguousarray(end.reshape(-1, rows))
    count = flat_start.shape[0]
    out = [np.empty(count) for _ in range(4)]
    for first in range(0, count, _CHUNK):
        part = slice(first, min(first + _CHUNK, count))
        for target, value in zip(out, _solve(flat_start[part], flat_end[part]), strict=True):
            target[part] = value
    x, bound, low, high = (values.reshape(shape) for values in out)
    return Split(x, bound, low, high)


def _solve(start: Array, end: Array) -> tuple[Array, Array, Array, Array]:
    slope = end - start
    flat = np.abs(slope) <= _FLAT * np.maximum(start, end)
    level = np.where(flat, np.maximum(start, end), 0.0).max(axis=1)

    # The sloped lines' own lowest crossing; a flat line above it makes an interval of best x.
    x_cross, value_cross = _lowest(np.where(flat, -np.inf, start), np.where(flat, -np.inf, end))
    peak = np.maximum(level, value_cross)
    wide = level > value_cross * (1 + _FLAT)
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = (peak[:, None] - start) / slope
    upper = np.where(~flat & (slope > 0), reach, np.inf).min(axis=1)
    lower = np.where(~flat & (slope < 0), reach, -np.inf).max(axis=1)
    low = np.where(wide, np.clip(lower, 0.0, 1.0), x_cross)
    high = np.where(wide, np.clip(upper, 0.0, 1.0), x_cross)
    has_slope = (~flat).any(axis=1)
    low = np.where(has_slope, low, 0.0)
    high = np.where(has_slope, high, 1.0)
    x = np.where(has_slope, np.clip(x_cross, low, high), 0.0)
    with np.errstate(divide="ignore"):
        bound = np.where(peak > 0, 1.0 / peak, np.inf)
    return x, bound, low, high


def _lowest(start: Array, end: Array) -> tuple[Array, Array]:
    """Argmin and min over x in [0, 1] of max_r start*(1-x) + end*x, exactly, one problem a row.

    The falling line highest at the left end and the rising line highest at the right end cross at
    a lower estimate of the minimum; whichever line stands above there replaces its fellow. Every
    round replaces a line by a different one, so it ends after at most as many rounds as lines.
    Heights are weighed sums of the ends, never start + slope*x, which would cancel near x = 1.
    """
    count, lines = start.shape
    rows = np.arange(count)
    # Of lines equal at an end, the one that stays highest inside decides.
    left = _highest(start, end)
    right = _highest(end, start)
    rises_at_left = end[rows, left] >= start[rows, left]
    falls_at_right = end[rows, right] <= start[rows, right]
    x = np.where(rises_at_left, 0.0, 1.0)
    value = np.where(rises_at_left, start[rows, left], end[rows, right])
    active = np.flatnonzero(~rises_at_left & ~falls_at_right)
    for _ in range(lines + 1):
        if not active.size:
            break
        falling, rising = left[active], right[active]
        above_left = start[active, falling] - start[active, rising]
        above_right = end[active, rising] - end[active, falling]
        first = above_right / (above_left + above_right)
        second = above_left / (above_left + above_right)
        with np.errstate(invalid="ignore"):
            heights = start[active] * first[:, None] + end[active] * second[:, None]
        heights[np.isnan(heights)] = -np.inf
        estimate = heights[np.arange(active.size), falling]
        top = heights.argmax(axis=1)
        above = heights[np.arange(active.size), top]
        x[active], value[active] = second, above
        improved = above > estimate * (1 + _FLAT)
        falls = end[active, top] < start[active, top]
        left[active[improved & falls]] = top[improved & falls]
        right[active[improved & ~falls]] = top[improved & ~falls]
        active = active[improved]
    return x, value


def _highest(here: Array, there: Array) -> npt.NDArray[np.intp]:
    """Index of the highest line at one end; of equals, the one highest at the other end."""
    chosen: npt.NDArray[np.intp] = here.argmax(axis=1)
    tie = here == here[np.arange(len(here)), chosen][:, None]
    several = np.flatnonzero(tie.sum(axis=1) > 1)
    if several.size:
        ranked = np.where(tie[several], there[several], -np.inf)
        chosen[several] = ranked.argmax(axis=1)
    return chosen


def elasticity_range(
    first_route_use: Array, second_route_use: Array, capacity: Array, *, routes: int = 2
) -> tuple[Array, Array]:
    """One-sided elasticities of the bound in each capacity (S2): d ln(bound) / d ln(C_r).

    The optimal duals y >= 0 sum to 1, weigh only resources that bind at every best x, and balance
    the slopes: sum y_r * slope_r = 0 where some best x lies inside (0, 1), <= 0 or >= 0 at an
    end. The gain of a little more of r is the least y_r of them, the loss of a little less the
    largest; they differ only at a kink. Extreme points weigh one or two resources, so both are
    found by looking at all pairs.

    Parameters
    ----------
    first_route_use, second_route_use, capacity : ndarray
        One scenario, shape (resources,).
    routes : int
        1 = only the first route is allowed (x = 0).

    Returns
    -------
    (ndarray, ndarray)
        For more and for less of each resource, dimensionless, shape (resources,).
    """
    start = loads(first_route_use, capacity)
    end = start if routes == 1 else loads(second_route_use, capacity)
    split = best_split(start, end, np.ones_like(start))
    if float(split.lowest_fraction) > 0.5:
        # Near x = 1 the digits are in 1 - x: name the routes the other way round.
        start, end = end, start
        split = best_split(start, end, np.ones_like(start))
    x = 0.5 * (float(split.lowest_fraction) + float(split.highest_fraction))
    height = start * (1 - x) + end * x
    peak = 1.0 / float(split.turns_per_s)
    if not peak > 0:
        return np.zeros_like(start), np.zeros_like(start)
    tight = np.flatnonzero(height >= peak * (1 - _KINK))
    scaled = (end - start)[tight] / peak
    scaled[np.abs(scaled) < _KINK] = 0.0
    # Where x could not move further, a line that would push it out needs no counterweight.
    steepest = np.abs(scaled).max(initial=0.0)
    at_zero, at_one = x * steepest <= _KINK, (1 - x) * steepest <= _KINK
    extremes: list[Array] = []
    for i, first in enumerate(scaled):
        allowed = first == 0 or (at_zero and first > 0) or (at_one and first < 0)
        if allowed:
            extremes.append(np.eye(len(scaled))[i])
        for j in range(i + 1, len(scaled)):
            second = scaled[j]
            if first * second < 0:
                weight = second / (second - first)
                extremes.append(
                    np.eye(len(scaled))[i] * weight + np.eye(len(scaled))[j] * (1 - weight)
                )
    least, most = np.zeros_like(start), np.zeros_like(start)
    if extremes:
        stack = np.array(extremes)
        least[tight], most[tight] = stack.min(axis=0), stack.max(axis=0)
    return least, most
