"""Axes that figures of traces share: counts, times and cumulative shares on a logarithmic scale."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from dpplan.traces.statistics.distributions import Distribution

__all__ = ["clock", "counts", "cumulative", "plain", "unit_of"]

_TIMES: Final = (
    (1e-3, "1 ms"), (1e-2, "10 ms"), (0.1, "0.1 s"), (1.0, "1 s"), (10.0, "10 s"), (60.0, "1 min"),
    (600.0, "10 min"), (3600.0, "1 h"), (36000.0, "10 h"), (864000.0, "10 days"),
)  # fmt: skip
_SPANS: Final = (("days", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0))
_POINTS: Final = 400


def cumulative(panel: Any, kept: Distribution, least: float, label: str, colour: str) -> None:
    """Share of numbers up to each value, from `least` on, on a logarithmic axis."""
    shares = 100 * np.cumsum(kept.counts) / kept.count
    values = kept.values
    if len(values) > _POINTS:  # a point in each step of the axis, and no more
        marks = np.geomspace(least, max(float(values[-1]), 2 * least), _POINTS)
        at = np.searchsorted(values, marks, "right") - 1
        values, shares = marks, np.where(at >= 0, shares[np.maximum(at, 0)], 0.0)
    start = float(np.interp(least, values, shares)) if values[0] <= least else 0.0
    right = values > least
    panel.step(
        np.concatenate([[least], values[right]]),
        np.concatenate([[start], shares[right]]),
        where="post",
        color=colour,
        lw=1.8,
        label=label,
    )


def counts(axis: Any) -> None:
    """Powers of ten as 1, 1k, 1M."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(numticks=9))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axis.set_minor_formatter(NullFormatter())


def _short(value: float) -> str:
    """A round count in few characters.

    >>> _short(1000.0), _short(5e6), _short(0.1)
    ('1k', '5M', '0.1')
    """
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor * (1 - 1e-9):
            return f"{value / factor:g}{prefix}"
    return f"{value:g}"


def clock(panel: Any, least: float, most: float) -> None:
    """A logarithmic axis of times, between two of them [s], with ticks as people say them."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    shown = {time: text for time, text in _TIMES if least <= time <= most}
    panel.xaxis.set_major_locator(FixedLocator(list(shown)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: shown.get(value, "")))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xlim(least, most)


def unit_of(span_s: float) -> tuple[str, float]:
    """The unit that suits a span of time, and its seconds.

    >>> unit_of(3600.0), unit_of(7200.0)
    (('min', 60.0), ('h', 3600.0))
    """
    return next(((name, size) for name, size in _SPANS if span_s >= 2 * size), _SPANS[-1])


def plain(text: str) -> str:
    """Names as they are: a dollar sign would start a formula."""
    return text.replace("$", r"\$")
