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

from dpplan.arrays import Array

__all__ = ["Ends", "Split", "best_split", "elasticity_range", "ends_of", "loads"]


_CHUNK = 1 << 13
_FLAT = 1e-13
"""Two loads closer than this, relative, are the same load."""
_KEPT = 1e-12
"""Limits that fall short of all turns by no more than this leave one split."""
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


@dataclass(frozen=True)
class Ends:
    """Two ways whose shares are limited, as two ways without limits."""

    first: Array
    """Use per turn at the least share of the second way, shape (..., resources)."""
    second: Array
    """Use per turn at its largest share, same shape."""
    lowest: Array
    """Least share of turns on the second way, shape (...)."""
    highest: Array
    """Largest share of turns on the second way, shape (...)."""

    def second_share(self, x: npt.ArrayLike) -> Array:
        """Share of turns on the second way at a split x of the ends; broadcast with (...)."""
        share = np.asarray(x, dtype=float)
        return np.asarray(self.lowest * (1 - share) + self.highest * share)


def loads(use: npt.ArrayLike, capacity: npt.ArrayLike) -> Array:
    """Load of each resource per turn/s: use/capacity [s]; 0 where capacity is unlimited.

    Examples
    --------
    >>> loads([1.0, 2.0], [10.0, float("inf")])
    array([0.1, 0. ])
    """
    return np.asarray(np.asarray(use, dtype=float) / np.asarray(capacity, dtype=float))


def ends_of(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    at_most_first: npt.ArrayLike = 1.0,
    at_most_second: npt.ArrayLike = 1.0,
) -> Ends:
    """Columns for `best_split` where no more than a share of turns may take either way.

    The second way's share lies in [max(0, 1 - at_most_first), min(1, at_most_second)]; use is
    affine in it, so the ends of the interval stand for the two ways.

    Parameters
    ----------
    first, second : array_like
        Use per turn by either way, shape (..., resources); leading axes are classes or scenarios.
    at_most_first, at_most_second : array_like
        Largest share of turns by way, >= 0, 1 and more = no limit, broadcast to (...).

    Raises
    ------
    ValueError
        If the limits leave turns without a way.

    Examples
    --------
    >>> ends = ends_of([1.0, 0.0], [0.0, 1.0], at_most_second=0.25)
    >>> ends.first, ends.second, float(ends.second_share(0.5))
    (array([1., 0.]), array([0.75, 0.25]), 0.125)
    """
    one, other = np.broadcast_arrays(
        np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    )
    lowest, highest = np.broadcast_arrays(
        np.maximum(1.0 - np.asarray(at_most_first, dtype=float), 0.0),
        np.minimum(np.asarray(at_most_second, dtype=float), 1.0),
        np.empty(one.shape[:-1]),
    )[:2]
    if not ((lowest <= highest + _KEPT) & (lowest <= 1) & (highest >= 0)).all():
        raise ValueError("limits on two ways leave turns without a way")
    highest = np.maximum(highest, lowest)
    low, high = lowest[..., None], highest[..., None]
    return Ends(one * (1 - low) + other * low, one * (1 - high) + other * high, lowest, highest)


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
    first, second, limit = np.broadcast_arrays(
        *(np.asarray(a, dtype=float) for a in (first_route_use, second_route_use, capacity))
    )
    shape, rows = first.shape[:-1], first.shape[-1]
    # Resources outermost: every step below then runs along long rows of scenarios.
    first, second, limit = (a.reshape(-1, rows).T for a in (first, second, limit))
    count = first.shape[1]
    out = np.empty((4, count))
    for at in range(0, count, _CHUNK):
        part = slice(at, min(at + _CHUNK, count))
        out[:, part] = _solve(first[:, part], second[:, part], limit[:, part])
    x, bound, low, high = out.reshape(4, *shape)
    return Split(x, bound, low, high)


def _solve(first: Array, second: Array, limit: Array) -> tuple[Array, Array, Array, Array]:
    """x, bound, lowest and highest x of a chunk; arguments of shape (resources, scenarios)."""
    # What the route doesn't touch is flat in every scenario, and most resources are: out of the
    # search they only set a level.
    same = (first == second).all(axis=1)
    level = (first[same] / limit[same]).max(axis=0, initial=0.0)
    first, second, limit = first[~same], second[~same], limit[~same]
    start, end = first / limit, second / limit
    largest = np.maximum(start, end)
    flat = np.abs(end - start) <= _FLAT * largest
    if flat.any():
        level = np.maximum(level, np.where(flat, largest, 0.0).max(axis=0, initial=0.0))
        start, end = np.where(flat, 0.0, start), np.where(flat, 0.0, end)

    # The sloped lines' own lowest crossing; a flat line above it makes an interval of best x.
    x, crossing = _lowest(start, end)
    peak = np.maximum(level, crossing)
    low, high = x.copy(), x.copy()
    wide = np.flatnonzero((level > crossing * (1 + _FLAT)) | (peak == 0))
    if wide.size:
        rise = (end - start)[:, wide]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            reach = (peak[wide] - start[:, wide]) / rise
        upper = np.where(rise > 0, reach, 1.0).min(axis=0, initial=1.0)
        lower = np.where(rise < 0, reach, 0.0).max(axis=0, initial=0.0)
        low[wide], high[wide] = np.minimum(lower, x[wide]), np.maximum(upper, x[wide])
    with np.errstate(divide="ignore"):
        bound = np.where(peak > 0, 1.0 / peak, np.inf)
    return x, bound, low, high


def _lowest(start: Array, end: Array) -> tuple[Array, Array]:
    """Argmin and min over x in [0, 1] of max_r start*(1-x) + end*x, exactly, one problem a column.

    The falling line highest at the left end and the rising line highest at the right end cross at
    a lower estimate of the minimum; whichever line stands above there replaces its fellow. Every
    round replaces a line by a different one, so it ends after at most as many rounds as lines.
    Heights are weighed sums of the ends, never start + slope*x, which would cancel near x = 1.
    """
    lines, count = start.shape
    x, value = np.zeros(count), np.zeros(count)
    if not lines:
        return x, value
    # Of lines equal at an end, the one that stays highest inside decides.
    left = _highest(start, end)
    right = _highest(end, start)[::-1]
    rises_at_left = left[1] >= left[0]
    falls_at_right = right[1] <= right[0]
    np.copyto(x, 1.0, where=falls_at_right & ~rises_at_left)
    np.copyto(value, np.where(rises_at_left, left[0], right[1]))
    active = np.flatnonzero(~rises_at_left & ~falls_at_right)
    for _ in range(lines + 1):
        if not active.size:
            break
        if active.size < start.shape[1]:
            start, end = start[:, active], end[:, active]
            left, right = left[:, active], right[:, active]
        above_left, above_right = left[0] - right[0], right[1] - left[1]
        first = above_right / (above_left + above_right)
        second = above_left / (above_left + above_right)
        estimate = left[0] * first + left[1] * second
        height, top = _top(start, end, first, second)
        x[active], value[active] = second, height
        improved = height > estimate * (1 + _FLAT)
        falls = top[1] < top[0]
        np.copyto(left, top, where=improved & falls)
        np.copyto(right, top, where=improved & ~falls)
        keep = np.flatnonzero(improved)
        # What is left of this chunk's columns, and where they stand in the whole.
        start, end, left, right = start[:, keep], end[:, keep], left[:, keep], right[:, keep]
        active = active[keep]
    return x, value


def _top(start: Array, end: Array, first: Array, second: Array) -> tuple[Array, Array]:
    """Height of the highest line at weights (first, second), and its two ends, (2, scenarios)."""
    height = np.full(first.shape, -np.inf)
    top = np.zeros((2, *first.shape))
    here, other = np.empty_like(first), np.empty_like(first)
    for line_start, line_end in zip(start, end, strict=True):
        np.multiply(line_start, first, out=here)
        np.multiply(line_end, second, out=other)
        here += other
        above = here > height
        np.copyto(height, here, where=above)
        np.copyto(top[0], line_start, where=above)
        np.copyto(top[1], line_end, where=above)
    return height, top


def _highest(here: Array, there: Array) -> Array:
    """Ends (here, there) of the highest line at one end; of equals, the highest at the other."""
    best = np.array([here[0], there[0]])
    for line_here, line_there in zip(here[1:], there[1:], strict=True):
        above = line_here > best[0]
        tied = line_here == best[0]
        tied &= line_there > best[1]
        above |= tied
        np.copyto(best[0], line_here, where=above)
        np.copyto(best[1], line_there, where=above)
    return best


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
