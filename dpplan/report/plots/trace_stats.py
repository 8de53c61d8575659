"""A trace drawn: hit rates against cache size and time, growth, distributions."""

from __future__ import annotations

import dataclasses
import io
import math
import textwrap
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from dpplan.report.plots.axes import clock, counts, cumulative, plain, unit_of
from dpplan.report.words import number, percent
from dpplan.traces.statistics.distributions import Distribution
from dpplan.traces.statistics.session_turns import TurnMean
from dpplan.traces.statistics.trace_summary import TraceStats

__all__ = ["draw_trace"]

_BLUE: Final = "#0072b2"
_ORANGE: Final = "#d55e00"
_GREEN: Final = "#009e73"
_PURPLE: Final = "#cc79a7"
_INK: Final = "#222222"
_FAINT: Final = "#6b6b6b"
_PALE: Final = "#dcdcdc"
_TOKENS: Final = {
    "input_tokens": ("input", _BLUE),
    "output_tokens": ("output", _ORANGE),
    "append_tokens": ("append", _GREEN),
}
_GAPS: Final = {
    "gap_tool_s": ("tool", _BLUE),
    "gap_human_s": ("human", _ORANGE),
    "gap_unknown_s": ("of no known kind", _GREEN),
    "pause_s": ("between requests, inferred", _PURPLE),
}
_PREFIXES: Final = ((1e9, "billion "), (1e6, "million "), (1e3, "thousand "), (1.0, ""))
_FEWEST: Final = 10
"""A mean of fewer sessions is not drawn."""
_TITLE_WIDTH: Final = 36
"""Characters of the title above each panel."""


def draw_trace(found: TraceStats, kind: str, name: str) -> bytes:
    """A figure of what there is to draw; the same trace gives the same SVG.

    Parameters
    ----------
    found : TraceStats
    kind : {"png", "svg"}
    name : str
        What the trace is called.

    Returns
    -------
    bytes
        Contents of the file.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    panels = _panels(found)
    across = min(len(panels), 2 if len(panels) <= 4 else 3 if len(panels) <= 6 else 4)
    down = math.ceil(len(panels) / across)
    style: dict[Any, Any] = {
        "svg.hashsalt": "dpplan",
        "font.family": "DejaVu Sans",
        "font.size": 9.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "legend.frameon": False,
        "legend.fontsize": 8.5,
    }
    with mpl.rc_context(style):
        drawing = Figure(
            figsize=(4.6 * across, 3.5 * down + 0.5), facecolor="white", layout="constrained"
        )
        drawing.get_layout_engine().set(w_pad=0.12, h_pad=0.1)  # type: ignore[union-attr, call-arg]
        title = plain(textwrap.fill(f"{name}: {_sentence(found)}", _TITLE_WIDTH * across))
        drawing.suptitle(title, x=0.012, ha="left", fontsize=12, weight="bold", color=_INK)
        axes = drawing.subplots(down, across, squeeze=False).ravel().tolist()
        for panel, draw in zip(axes, panels, strict=False):
            panel.tick_params(colors=_FAINT, labelcolor=_INK, length=3)
            panel.grid(True, color="#efefef", lw=0.8)
            panel.set_axisbelow(True)
            draw(panel, found)
        for panel in axes[len(panels) :]:
            panel.set_axis_off()
        stream = io.BytesIO()
        drawing.savefig(
            stream, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None
        )
    return stream.getvalue()


def _panels(found: TraceStats) -> list[Callable[[Any, TraceStats], None]]:
    """What to draw, in reading order; token counts are always there."""
    panels: list[Callable[[Any, TraceStats], None]] = []
    if found.curve:
        panels.append(_hits)
    if len(found.ttl_block_hit_fraction) > 1:
        panels.append(_ttl)
    if len(_distinct(found)[0]) > 2:
        panels.append(_distinct_over_time)
    if len(_told(found)) > 2:
        panels.append(_growth)
    panels.append(_tokens)
    if len(found.arrivals.counts) > 2:
        panels.append(_arrivals)
    if any(kept.count for kept in _gaps(found).values()):
        panels.append(_pauses)
    return panels


def _sentence(found: TraceStats) -> str:
    said = f"{found.requests:,} requests"
    if found.sessions is not None:
        said += f", {found.sessions:,} sessions"
    ideal = found.cache.ideal_block_hit_fraction
    return said if ideal is None else f"{said}, {percent(ideal)} of blocks hit at best"


def _hits(panel: Any, found: TraceStats) -> None:
    scoped = " of each conversation" if found.facts.scoped else ""
    panel.set_title(f"Hit rate against cache size{scoped}")
    # More gains nothing: the last point goes on as far as was asked.
    last = dataclasses.replace(found.curve[-1], capacity_blocks=_largest(found))
    curve = [*found.curve, last]
    sizes = [point.capacity_blocks for point in curve]
    ideal = found.cache.ideal_block_hit_fraction
    assert ideal is not None
    panel.axhline(100 * ideal, color=_FAINT, lw=1, ls=(0, (4, 3)))
    panel.annotate(
        f"ideal {percent(ideal)}",
        (0, 100 * ideal),
        (4, -12 if ideal > 0.85 else 3),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        color=_FAINT,
        fontsize=8.5,
    )
    prefix = [_percent(point.lru_block_hit_fraction) for point in curve]
    by_block = [_percent(point.per_block_lru_hit_fraction) for point in curve]
    panel.plot(sizes, prefix, color=_BLUE, lw=2, label="LRU, whole prefixes")
    panel.plot(sizes, by_block, color=_ORANGE, lw=1.5, ls=(0, (5, 2)), label="LRU, block by block")
    error = np.array([100 * point.lru_standard_error for point in curve])
    if error.any():
        low, high = np.array(prefix) - 2 * error, np.array(prefix) + 2 * error
        panel.fill_between(sizes, low, high, color=_BLUE, alpha=0.15, lw=0, label="2 std. errors")
    asked = [point for point in found.asked if point.capacity_blocks > 0]
    panel.plot(
        [point.capacity_blocks for point in asked],
        [_percent(point.lru_block_hit_fraction) for point in asked],
        ls="",
        marker="o",
        ms=5,
        color=_BLUE,
    )
    for point in asked:
        panel.annotate(
            percent(point.lru_block_hit_fraction),
            (point.capacity_blocks, _percent(point.lru_block_hit_fraction)),
            (-6, 5),
            textcoords="offset points",
            ha="right",
            fontsize=8.5,
            color=_INK,
        )
    panel.set_xscale("log")
    panel.set_ylim(0, min(100, max(10, 118 * ideal)))
    panel.set_ylabel("blocks hit, %")
    block = found.facts.block_tokens
    panel.set_xlabel("capacity, blocks" + ("" if block is None else f" of {block} tokens"))
    counts(panel.xaxis)
    if block is not None:
        top = panel.secondary_xaxis("top", functions=(lambda x: x * block, lambda x: x / block))
        top.tick_params(colors=_FAINT, labelcolor=_FAINT, length=3, labelsize=8)
        top.set_xlabel("tokens", color=_FAINT, fontsize=8)
        counts(top.xaxis)
    best = 100 * ideal
    early = [size for size, share in zip(sizes, prefix, strict=True) if share < best / 100]
    panel.set_xlim(left=early[-1] if early else sizes[0])
    panel.legend(loc="best")


def _largest(found: TraceStats) -> int:
    return max(point.capacity_blocks for point in (*found.curve, *found.asked))


def _ttl(panel: Any, found: TraceStats) -> None:
    panel.set_title("Hit rate against time to live")
    times = np.array([float(ttl) for ttl in found.ttl_block_hit_fraction])
    order = np.argsort(times)
    shares = np.array(list(found.ttl_block_hit_fraction.values()))[order]
    tokens = np.array(list(found.ttl_token_hit_fraction.values()))[order]
    ideal = found.cache.ideal_block_hit_fraction or 0.0
    panel.axhline(100 * ideal, color=_FAINT, lw=1, ls=(0, (4, 3)))
    panel.plot(times[order], 100 * shares, color=_BLUE, lw=2, marker="o", ms=4, label="of blocks")
    panel.plot(times[order], 100 * tokens, color=_ORANGE, lw=1.5, ls=(0, (5, 2)), label="of tokens")
    panel.set_xscale("log")
    clock(panel, float(times.min()) / 1.2, float(times.max()) * 1.2)
    panel.set_ylim(0, min(100, max(10, 118 * ideal)))
    panel.set_ylabel("hit, %")
    panel.set_xlabel("a block is dropped when unused for")
    panel.legend(loc="lower right")


def _distinct(found: TraceStats) -> tuple[list[float], list[float]]:
    """Times and the tokens of the distinct blocks seen by then."""
    held = found.working_set
    return ([], []) if held is None else (list(held.time_s), list(held.unique_tokens))


def _distinct_over_time(panel: Any, found: TraceStats) -> None:
    panel.set_title("Distinct tokens over time")
    times, tokens = _distinct(found)
    unit, factor = unit_of(times[-1])
    power, prefix = next(
        (size, name) for size, name in _PREFIXES if tokens[-1] >= size or size == 1
    )
    shown = [count / power for count in tokens]
    panel.fill_between([time / factor for time in times], shown, color=_PALE, lw=0)
    panel.plot([time / factor for time in times], shown, color=_BLUE, lw=2, label="seen so far")
    held = found.working_set
    assert held is not None
    for window_s, peak, dashes in zip(
        held.windows_s, held.peak_tokens, ((1, 2), (4, 2), (8, 2)), strict=False
    ):
        if window_s > times[-1] / 2:
            continue
        label = f"most in {window_s / 60:g} min"
        panel.axhline(peak / power, color=_ORANGE, lw=1.2, ls=(0, dashes), label=label)
    panel.set_xlim(0, times[-1] / factor)
    panel.set_ylim(0, 1.08 * shown[-1])
    panel.set_xlabel(f"time, {unit}")
    panel.set_ylabel(f"{prefix}tokens")
    panel.legend(loc="upper left")


def _told(found: TraceStats) -> list[TurnMean]:
    """Turns that enough sessions come to for a mean."""
    sessions = max((point.requests for point in found.growth), default=0)
    least = min(_FEWEST, sessions)
    return [point for point in found.growth if point.requests >= least]


def _growth(panel: Any, found: TraceStats) -> None:
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    basis = "" if found.turns is not None else ", inferred sessions"
    panel.set_title(f"Prompt by turn{basis}")
    points = _told(found)
    turns = [point.turn for point in points]
    means = [point.input_tokens_mean / 1000 for point in points]
    panel.plot(turns, means, color=_BLUE, lw=2)
    panel.set_ylim(0, 1.12 * max(means))
    panel.set_xlim(1, turns[-1])
    panel.set_ylabel("mean input, thousand tokens", color=_BLUE)
    panel.set_xlabel("turn of the session")
    beside = panel.twinx()
    beside.fill_between(turns, [point.requests for point in points], color=_PALE, lw=0, alpha=0.7)
    beside.set_ylim(0, 1.12 * max(point.requests for point in points))
    beside.set_ylabel("sessions that come so far", color=_FAINT)
    beside.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    beside.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    panel.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    beside.tick_params(colors=_FAINT, labelcolor=_FAINT, length=3)
    beside.spines["right"].set_visible(True)
    beside.spines["right"].set_color(_PALE)
    panel.set_zorder(beside.get_zorder() + 1)
    panel.patch.set_visible(False)


def _tokens(panel: Any, found: TraceStats) -> None:
    panel.set_title("Tokens of a turn" if found.turns else "Tokens of a request")
    kept = {**found.distributions, **found.inferred_distributions("turn")}
    lowest = 1.0
    for name, (label, colour) in _TOKENS.items():
        one = kept.get(name)
        if one is None or not one.count:
            continue
        inferred = name == "append_tokens" and found.turns is None
        label += ", inferred" if inferred else ""
        below = _share_below(one, 0.0)
        if below > 0.005:
            label += f" ({percent(below)} below 0)"
        cumulative(panel, one, lowest, label, colour)
    panel.set_xscale("log")
    panel.set_xlim(left=lowest)
    counts(panel.xaxis)
    panel.set_xlabel("tokens")
    _shares(panel)


def _arrivals(panel: Any, found: TraceStats) -> None:
    told = found.arrivals
    panel.set_title("Arrivals over time")
    span = len(told.counts) * told.counts_window_s
    unit, factor = unit_of(span)
    edges = np.arange(len(told.counts) + 1) * told.counts_window_s / factor
    rates = np.array(told.counts) / told.counts_window_s
    panel.stairs(rates, edges, fill=True, color=_PALE)
    panel.stairs(rates, edges, color=_BLUE, lw=1.2)
    mean = told.requests_per_s or 0.0
    panel.axhline(mean, color=_FAINT, lw=1, ls=(0, (4, 3)), label=f"mean {number(mean)}")
    panel.set_xlim(0, edges[-1])
    panel.set_ylim(0, 1.15 * max(float(rates.max()), mean))
    panel.set_xlabel(f"time, {unit}")
    panel.set_ylabel(f"requests/s in steps of {told.counts_window_s:,} s")
    panel.legend(loc="best")


def _pauses(panel: Any, found: TraceStats) -> None:
    panel.set_title("Gaps before a turn")
    least, most = math.inf, 0.0
    shown = {name: kept for name, kept in _gaps(found).items() if kept.count}
    for kept in shown.values():
        positive = kept.values[kept.values > 0]
        if len(positive):
            least, most = min(least, float(positive[0])), max(most, float(positive[-1]))
    least = min(max(least, 1e-3), 1.0)
    for name, kept in shown.items():
        label, colour = _GAPS[name]
        cumulative(panel, kept, least, f"{label} (mean {number(kept.mean)} s)", colour)
    panel.set_xscale("log")
    clock(panel, least, max(most, 2 * least))
    _shares(panel)


def _gaps(found: TraceStats) -> dict[str, Distribution]:
    kept = {**found.distributions, **found.inferred_distributions("turn")}
    return {name: kept[name] for name in _GAPS if name in kept}


def _share_below(kept: Distribution, value: float) -> float:
    return float(kept.counts[kept.values < value].sum() / kept.count)


def _shares(panel: Any) -> None:
    panel.set_ylim(0, 101)
    panel.set_ylabel("share up to it, %")
    panel.legend(loc="best")


def _percent(share: float | None) -> float:
    return math.nan if share is None else 100 * share
