"""Predicted against measured, drawn: one panel a metric, both axes logarithmic."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any, Final

from dpplan.validation.measurements import METRICS, SYSTEM_NAMES
from dpplan.validation.validate import ValidatedRow, Validation

__all__ = ["draw_validation"]

_COLOURS: Final = dict(
    zip(SYSTEM_NAMES, ("#d55e00", "#e69f00", "#56b4e9", "#0072b2", "#222222"), strict=True)
)
"""Okabe and Ito's colours: told apart by colour-blind readers too."""
_MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "*")
_TITLES: Final = dict(
    zip(
        METRICS,
        (
            ("job completion time", "s", 1.0),
            ("TTFT", "s", 1.0),
            ("TTST", "ms", 1e-3),
            ("TPOT", "ms", 1e-3),
            ("KV working set", "GB", 1e9),
            ("agents in the system", "", 1.0),
            ("capacity", "agents/s", 1.0),
        ),
        strict=True,
    )
)
_HEADINGS: Final = ("SYSTEM", "MODEL")
_BAND: Final = 0.1
_INK: Final = "#222222"
_FAINT: Final = "#6b6b6b"


def draw_validation(found: Validation, kind: str, title: str) -> bytes:
    """A figure of the rows that were predicted; the same rows give the same SVG.

    Parameters
    ----------
    found : Validation
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
    from matplotlib.lines import Line2D

    shown = [row for row in found.rows if row.predicted and row.relative_error is not None]
    metrics = [name for name in METRICS if any(r.measurement.metric == name for r in shown)]
    models = sorted({row.measurement.model for row in shown})
    marker = {model: _MARKERS[i % len(_MARKERS)] for i, model in enumerate(models)}
    systems = [name for name in SYSTEM_NAMES if any(r.measurement.system == name for r in shown)]
    cells = len(metrics) + 1  # the last one is the legend's
    across = min(3, cells)
    down = math.ceil(cells / across)
    style: dict[Any, Any] = {
        "svg.hashsalt": "dpplan",
        "font.family": "DejaVu Sans",
        "font.size": 9.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with mpl.rc_context(style):
        drawing = Figure(
            figsize=(3.7 * across, 3.65 * down + 0.6), facecolor="white", layout="constrained"
        )
        drawing.suptitle(_plain(title), x=0.012, ha="left", fontsize=12, weight="bold", color=_INK)
        axes = drawing.subplots(down, across, squeeze=False).ravel().tolist()
        for name, panel in zip(metrics, axes, strict=False):
            own = [row for row in shown if row.measurement.metric == name]
            _panel(panel, name, own, marker)
        for panel in axes[len(metrics) :]:
            panel.set_axis_off()
        handles: list[Any] = [Line2D([], [], ls="", label=_HEADINGS[0])]
        handles += [
            Line2D([], [], ls="", marker="o", ms=7, color=_COLOURS[name], label=name)
            for name in systems
        ]
        handles.append(Line2D([], [], ls="", label=_HEADINGS[1]))
        handles += [
            Line2D([], [], ls="", marker=marker[model], ms=7, color=_FAINT, label=_plain(model))
            for model in models
        ]
        handles.append(Line2D([], [], color=_INK, lw=0.9, label="predicted = measured"))
        handles.append(
            Line2D([], [], color="#dcdcdc", lw=8, label=f"within {_BAND:.0%} of measured")
        )
        legend = axes[-1].legend(handles=handles, loc="upper left", frameon=False, borderaxespad=0)
        for text in legend.get_texts():
            text.set_weight("bold" if text.get_text() in _HEADINGS else "normal")
        stream = io.BytesIO()
        drawing.savefig(
            stream, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None
        )
    return stream.getvalue()


def _panel(panel: Any, metric: str, rows: Sequence[ValidatedRow], marker: dict[str, str]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    title, unit, base = _TITLES[metric]
    values = [v / base for row in rows for v in (row.measurement.value, row.predicted) if v]
    low, high = min(values) / 1.18, max(values) * 1.18
    panel.set_xscale("log")
    panel.set_yscale("log")
    ends = [low, high]
    panel.fill_between(
        ends,
        [v * (1 - _BAND) for v in ends],
        [v * (1 + _BAND) for v in ends],
        color="#dcdcdc",
        lw=0,
    )
    panel.plot(ends, ends, color=_INK, lw=0.9)
    for row in rows:
        m = row.measurement
        assert row.predicted is not None
        panel.plot(
            [m.value / base],
            [row.predicted / base],
            ls="",
            marker=marker[m.model],
            ms=6.5,
            color=_COLOURS[m.system],
            markeredgecolor="white",
            markeredgewidth=0.6,
            alpha=0.9,
        )
    panel.set_xlim(low, high)
    panel.set_ylim(low, high)
    panel.set_aspect("equal")
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(FixedLocator(_ticks(low, high)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    of = f" [{unit}]" if unit else ""
    panel.set_title(f"{title}{of}", loc="left", fontsize=10.5, weight="bold", color=_INK)
    panel.set_xlabel("measured")
    panel.set_ylabel("predicted")
    panel.tick_params(colors=_FAINT, labelcolor=_INK, length=3)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers on a logarithmic axis, three to seven of them where that can be.

    >>> _ticks(0.8, 120.0), _ticks(28.0, 46.0)
    ([1.0, 10.0, 100.0], [30.0, 35.0, 40.0, 45.0])
    """
    found: list[float] = []
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 6, 8)):
        found = [
            float(f"{digit * 10.0**power:.6g}")
            for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            for digit in digits
            if low <= digit * 10.0**power <= high
        ]
        if len(found) >= 3:
            return found[:: math.ceil(len(found) / 7)]
    step = 10.0 ** math.floor(math.log10(high - low))
    for size in (step, step / 2, step / 5):
        found = [
            float(f"{n * size:.6g}") for n in range(math.ceil(low / size), int(high / size) + 1)
        ]
        if len(found) >= 3:
            break
    return found


def _plain(text: str) -> str:
    """Names as they are: a dollar sign would start a formula."""
    return text.replace("$", r"\$")
