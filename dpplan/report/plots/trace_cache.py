"""A cache plan drawn: hit rate and throughput against size, reads against DRAM and time."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Final

from dpplan.report.documents.trace_cache import time_text
from dpplan.report.words import compact, size
from dpplan.results.trace_cache import CachePlan, CacheSize

__all__ = ["draw_cache_plan"]

_BLUE: Final = "#0072b2"
_ORANGE: Final = "#d55e00"
_GREEN: Final = "#009e73"
_INK: Final = "#222222"
_FAINT: Final = "#6b6b6b"


def draw_cache_plan(plan: CachePlan, kind: str, title: str) -> bytes:
    """A figure of the tiers that have sizes to compare; the same plan gives the same SVG.

    Parameters
    ----------
    plan : CachePlan
    kind : {"png", "svg"}
    title : str
        The line above the panels.

    Returns
    -------
    bytes
        Contents of the file.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    tiers = [
        (tier, rows)
        for tier in ("storage", "dram", "ttl")
        if len(rows := [row for row in plan.of_tier(tier) if _place(row) > 0]) > 1
    ]
    style: dict[Any, Any] = {
        "svg.hashsalt": "dpplan",
        "font.family": "DejaVu Sans",
        "font.size": 9.5,
        "axes.spines.top": False,
        "axes.titlesize": 10.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "legend.frameon": False,
        "legend.fontsize": 8.5,
    }
    with mpl.rc_context(style):
        drawing = Figure(
            figsize=(5.4 * max(len(tiers), 1), 4.1), facecolor="white", layout="constrained"
        )
        drawing.suptitle(
            title.replace("$", r"\$"), x=0.012, ha="left", fontsize=12, weight="bold", color=_INK
        )
        axes = drawing.subplots(1, max(len(tiers), 1), squeeze=False).ravel().tolist()
        for panel, (tier, rows) in zip(axes, tiers, strict=False):
            _draw(panel, tier, rows, plan)
        if not tiers:
            axes[0].set_axis_off()
        stream = io.BytesIO()
        drawing.savefig(
            stream, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None
        )
    return stream.getvalue()


def _place(row: CacheSize) -> float:
    """Where a row stands on its tier's axis."""
    where = {"storage": row.storage_bytes, "dram": row.dram_bytes, "ttl": row.ttl_s}[row.tier]
    return where or 0.0


def _draw(panel: Any, tier: str, rows: Sequence[CacheSize], plan: CachePlan) -> None:
    """Shares on the left axis, throughput on the right one."""
    titles = {
        "storage": "KV kept in storage",
        "dram": "DRAM before the largest storage",
        "ttl": "Idle KV dropped after",
    }
    panel.set_title(titles[tier])
    places = [_place(row) for row in rows]
    lines = []
    share = [100 * (row.dram_hit_fraction if tier == "dram" else row.hit_fraction) for row in rows]
    label = "hits found in DRAM" if tier == "dram" else "input tokens that hit"
    lines += panel.plot(places, share, color=_GREEN, lw=2, marker="o", ms=4, label=label)
    load = [100 * row.storage_nic_load_fraction for row in rows]
    lines += panel.plot(
        places, load, color=_FAINT, lw=1.5, ls=(0, (2, 2)), label="load of storage NICs, dual-path"
    )
    panel.set_ylim(0, 125)
    panel.set_yticks(range(0, 101, 20))
    panel.set_ylabel("%", color=_INK)
    beside = panel.twinx()
    rates = (
        ("dual-path turns/s", _BLUE, "-", [row.turns_per_s for row in rows]),
        ("prefill-only", _ORANGE, (0, (5, 2)), [row.prefill_only_turns_per_s for row in rows]),
    )
    top = 0.0
    for name, colour, dashes, values in rates:
        known = [(x, y) for x, y in zip(places, values, strict=True) if y is not None]
        if known:
            xs, ys = zip(*known, strict=True)
            lines += beside.plot(xs, ys, color=colour, lw=2, ls=dashes, label=name)
            top = max(top, *ys)
    beside.set_ylim(0, 1.45 * top if top else 1.0)
    beside.set_ylabel("turns/s (bound)", color=_BLUE)
    _axis(panel, tier, places)
    _binding(beside, rows)
    chosen = plan.enough(tier)
    if chosen is not None and _place(chosen) > 0:
        panel.axvline(_place(chosen), color=_INK, lw=0.9, ls=(0, (1, 2)))
        panel.annotate(
            "enough",
            (_place(chosen), 0),
            (-3, 3),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right",
            fontsize=8.5,
            color=_INK,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8},
        )
    panel.legend(lines, [str(line.get_label()) for line in lines], loc="upper left", ncols=2)
    panel.grid(True, color="#efefef", lw=0.8)
    panel.set_axisbelow(True)


def _binding(panel: Any, rows: Sequence[CacheSize]) -> None:
    """What binds dual-path, written where it changes: above and below the line by turns."""
    before: tuple[str, ...] | None = None
    above = True
    for row in rows:
        if row.bottlenecks != before and row.turns_per_s is not None:
            at_end = row is rows[-1]
            panel.annotate(
                compact(row.bottlenecks),
                (_place(row), row.turns_per_s),
                (-4 if at_end else 4, 6 if above else -13),
                textcoords="offset points",
                ha="right" if at_end else "left",
                fontsize=8,
                color=_BLUE,
                zorder=5,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8},
            )
            panel.plot([_place(row)], [row.turns_per_s], ls="", marker="o", ms=5, color=_BLUE)
            above = not above
        before = row.bottlenecks


def _axis(panel: Any, tier: str, places: Sequence[float]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

    panel.set_xscale("log")
    if tier == "ttl":
        panel.xaxis.set_major_locator(FixedLocator(list(places)))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: time_text(round(value, 6))))
    else:
        panel.xaxis.set_major_locator(LogLocator(numticks=9))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xlim(min(places) / 1.3, max(places) * 1.3)


def _short(value: float) -> str:
    """A round size in few characters.

    >>> _short(1e12), _short(1e10)
    ('1 TB', '10 GB')
    """
    return size(value).replace(".00 ", " ").replace(".0 ", " ")
