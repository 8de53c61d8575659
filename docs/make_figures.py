"""Regenerate `does_dualpath_pay.svg` and `does_dualpath_pay.md` from the shipped profiles.

Run it from anywhere, with dpplan and matplotlib installed: `python docs/make_figures.py`. The
numbers come from `dpplan.sweeps.survey.model_survey`; the same profiles give the same files.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpplan.profiles.library import read_profile
from dpplan.profiles.model import Model
from dpplan.sweeps.survey import CONTEXTS, model_survey

if TYPE_CHECKING:
    import pandas as pd

HERE = Path(__file__).resolve().parent
HARDWARE = ("h800", "h200", "b200")
SHOWN_CONTEXT = 32_768
"""Nearest to the mean context of the agentic workload."""
LONG_CONTEXT = 262_144
COMPACT = ("<!-- compact table: begin -->", "<!-- compact table: end -->")
KINDS = {
    "full attention": "#c1440e",
    "latent (MLA), dense": "#1f6f8b",
    "top-k sparse": "#7a3e9d",
    "windows, linear or compressed layers": "#3b7d23",
}
"""How a model attends to its history, and the colour of it."""
LETTERS = {
    "prefill.storage_nic_read": "S",
    "prefill.gpu": "P",
    "decode.gpu": "D",
    "prefill.kv_buffer": "B",
    "decode.kv_buffer": "B",
    "prefill.compute_nic_read": "N",
    "prefill.compute_nic_write": "N",
    "decode.compute_nic_read": "N",
    "decode.compute_nic_write": "N",
}
WORDS = {
    "S": "storage read",
    "P": "prefill GPU",
    "D": "decode GPU",
    "B": "KV buffer",
    "N": "compute NIC",
}

READING = """\
**GB/PFLOP** (law D4): bytes of history to load per FLOP to compute. A node reads longer than it
computes above its balance, storage bytes/s per FLOP/s: the bands in the figure, from its FP8 to its
BF16 rate; H800 and H200 share one. *Read ÷ prefill time* is the same comparison at the model's own
mix of kernels; above 1, storage binds before prefill.

**Gain at 1P:2D**: dual-path over prefill-only at the proportion of the paper's 2P4D, with decode
GPUs and HBM lifted (decode provisioned to match). What the storage side alone can gain: never more
than (P + D)/P = 3.

**Gain at free P:D**: each strategy at its own best P:D, decode included, with the engines of the
paper's largest cluster (48P96D; so in the column before). A prefill-only fleet can buy storage
bandwidth as well, by turning decode nodes into prefill nodes, so this gain is smaller. With
node-seconds per turn to read r, prefill p and decode d it is (max(r, p) + d) / max(r, p + d) where
nothing else binds: 1 if p >= r, at most 2, reached for d = r and no prefill. A value above this
formula's means that something else stops prefill-only earlier: the decode nodes' NICs and DRAM,
which the history crosses twice, or the KV buffers.

The two gains answer two questions: *my nodes stand, what does changing the software buy?* and *I
buy nodes for either design, how many fewer do I need?* A measured speedup at a fixed P:D compares
with the first.

Faster GPUs raise the first gain and can lower the second: once reading outweighs prefill and decode
together, the decode nodes are few, and so are their storage NICs."""

LIMITS = """\
Contexts beyond what a model was trained for are arithmetic, not a claim that it works there.

On a small cluster an engine is only as wide as its side. Where the weights fill it, little HBM is
left for KV cache and batches are small: `D` then goes away as the cluster grows, not with P:D.

No node type has more than one storage NIC here, as in the paper; set `storage_nic.count` for yours.
Everything rests on the assumed numbers that `dpplan optimize` lists.

`B`: histories in flight fill the buffer of 80 GB a node; a larger `dram.kv_buffer_bytes` lifts it.
The row is a mean over time: whether one history fits at all is not asked."""


def attention_kind(model: str) -> str:
    """Which of `KINDS` a model is, from its layers."""
    profile = read_profile("models", model)
    assert isinstance(profile, Model)
    groups = profile.architecture.layer_groups
    if any(g.tokens_per_entry > 1 or not g.kv_elements_per_entry for g in groups):
        return "windows, linear or compressed layers"
    if any(g.top_k_entries for g in groups):
        return "top-k sparse"
    return "latent (MLA), dense" if any(g.latent_dim for g in groups) else "full attention"


def surveys() -> tuple[pd.DataFrame, pd.DataFrame]:
    """The survey in full counting on all node types, and in the paper's on the first."""
    return model_survey(HARDWARE), model_survey(HARDWARE[0], traffic="paper")


def at(frame: pd.DataFrame, hardware: str, context: float) -> pd.DataFrame:
    """Rows of one node type and context, by model."""
    chosen = frame[(frame.hardware == hardware) & (frame.context_tokens == context)]
    return chosen.set_index("model")


def short(tokens: float) -> str:
    """Name a context length.

    >>> short(16384), short(1048576)
    ('16K', '1M')
    """
    thousands = round(tokens / 1024)
    return f"{thousands}K" if thousands < 1024 else f"{thousands // 1024}M"


def number(value: float | None) -> str:
    """Three digits, `none` for none."""
    if value is None or value != value:
        return "none"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def letter(bottlenecks: str) -> str:
    """First binding resource as one letter."""
    first = bottlenecks.split(", ")[0]
    return LETTERS.get(first, first)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, first column left, others right."""
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def by_ratio(frame: pd.DataFrame) -> list[str]:
    """Models from the highest cache-compute ratio down."""
    rows = at(frame, HARDWARE[0], SHOWN_CONTEXT)
    return list(rows.cache_compute_ratio_gb_per_pflop.sort_values(ascending=False).index)


def compact_table(full: pd.DataFrame) -> str:
    """One row a model, for the README."""
    now = {name: at(full, name, SHOWN_CONTEXT) for name in HARDWARE}
    first, late = now[HARDWARE[0]], at(full, HARDWARE[0], LONG_CONTEXT)
    upper = " / ".join(name.upper() for name in HARDWARE)
    header = [
        "model",
        "KV kB/token",
        f"GB/PFLOP at {short(SHOWN_CONTEXT)}",
        f"at {short(LONG_CONTEXT)}",
        "read ÷ prefill time",
        "prefill-only bound by",
        "gain at 1P:2D",
        "gain at free P:D",
    ]
    rows = [
        [
            model,
            number(first.kv_bytes_per_token[model] / 1e3),
            number(first.cache_compute_ratio_gb_per_pflop[model]),
            number(late.cache_compute_ratio_gb_per_pflop[model]),
            " / ".join(
                number(r.read_node_s[model] / r.prefill_node_s[model]) for r in now.values()
            ),
            " / ".join(letter(r.prefill_only_bottlenecks[model]) for r in now.values()),
            " / ".join(f"{r.storage_side_speedup[model]:.1f}" for r in now.values()),
            " / ".join(f"{r.fleet_speedup[model]:.2f}" for r in now.values()),
        ]
        for model in by_ratio(full)
    ]
    legend = ", ".join(f"{key} {words}" for key, words in WORDS.items())
    note = (
        f"{upper}; {short(SHOWN_CONTEXT)} of context where not said. Bound by: {legend}. Gain at "
        "1P:2D: decode provisioned to match; at free P:D: each strategy at its own best."
    )
    return f"{table(header, rows)}\n\n{wrapped(note)}"


def wrapped(text: str, indent: str = "") -> str:
    """Text in lines of at most 110 characters."""
    return textwrap.fill(
        text, 110, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def bullets(*lines: str) -> str:
    """A Markdown list."""
    return "\n".join(wrapped(f"- {line}", "  ") for line in lines)


def grid(
    frame: pd.DataFrame, hardware: str, order: Sequence[str], cell: Callable[[Any], str]
) -> str:
    """Models by contexts, each cell from its row of the survey."""
    columns = [at(frame, hardware, context) for context in CONTEXTS]
    rows = [[model, *(cell(column.loc[model]) for column in columns)] for model in order]
    return table(["model", *map(short, CONTEXTS)], rows)


def ratio_cell(row: Any) -> str:
    """Cache-compute ratio."""
    return number(row.cache_compute_ratio_gb_per_pflop)


def gain_cell(row: Any) -> str:
    """What binds prefill-only, the gain of the storage side, the gain of a fleet."""
    if row.infeasible:
        return "none"
    bound = letter(row.prefill_only_bottlenecks)
    return f"{bound} {row.storage_side_speedup:.1f} {row.fleet_speedup:.2f}"


def findings(full: pd.DataFrame) -> list[str]:
    """The conclusion in sentences, each computed."""
    lines = []
    context = short(SHOWN_CONTEXT)
    counts = []
    for name in HARDWARE:
        rows = at(full, name, SHOWN_CONTEXT)
        over = rows[rows.read_node_s > rows.prefill_node_s]
        under = rows.drop(over.index)
        rest = f" (not {', '.join(under.index)})" if len(under) else ""
        counts.append(f"{len(over)} of {len(rows)} models on {name.upper()}{rest}")
    lines.append(
        f"At {context} of context, one node's storage NIC reads a turn's history for longer than "
        f"its GPUs prefill the turn for {'; '.join(counts)}."
    )
    ratios = at(full, HARDWARE[0], SHOWN_CONTEXT).cache_compute_ratio_gb_per_pflop
    lines.append(
        f"The cache-compute ratio spans a factor of {ratios.max() / ratios.min():.0f} at that "
        f"context: {number(ratios.min())} GB/PFLOP ({ratios.idxmin()}) to {number(ratios.max())} "
        f"({ratios.idxmax()})."
    )
    first, last = (at(full, HARDWARE[0], context) for context in (CONTEXTS[0], CONTEXTS[-1]))
    grown = last.cache_compute_ratio_gb_per_pflop / first.cache_compute_ratio_gb_per_pflop
    lines.append(
        f"From {short(CONTEXTS[0])} to {short(CONTEXTS[-1])} it grows {grown.min():.1f}-fold "
        f"({grown.idxmin()}: FLOP grow with the context, too) to {grown.max():.0f}-fold "
        f"({grown.idxmax()}: attention computes on a selection, all entries are loaded)."
    )
    waits = [
        f"{model} on {name.upper()}"
        for name in HARDWARE
        for model, bound in at(full, name, SHOWN_CONTEXT).prefill_only_bottlenecks.items()
        if letter(bound) == "D"
    ]
    if waits:
        lines.append(
            f"On a cluster of a few engines ({context}, best P:D) decode GPUs bind prefill-only "
            f"already for {', '.join(waits)}: there the second path buys nothing as it stands."
        )
    medians = ", ".join(
        f"{at(full, name, SHOWN_CONTEXT).fleet_speedup.median():.2f} on {name.upper()}"
        for name in HARDWARE
    )
    now = full[full.context_tokens == SHOWN_CONTEXT]
    top = now.sort_values("fleet_speedup", kind="stable").iloc[-1]
    lines.append(
        f"A large fleet that may choose its P:D for either strategy gains, in the median at "
        f"{context}, {medians}; the most is {top.fleet_speedup:.2f} ({top.model} on "
        f"{top.hardware.upper()}). At a fixed 1P:2D the storage side gains up to "
        f"{now.storage_side_speedup.max():.1f}."
    )
    return lines


def document(full: pd.DataFrame, paper: pd.DataFrame) -> str:
    """The Markdown page."""
    order = by_ratio(full)
    legend = ", ".join(f"{key} = {words}" for key, words in WORDS.items())
    append = number(full.append_tokens.iloc[0])
    broken = full[full.infeasible != ""]
    none = [
        f"{row['model']} at {short(row['context_tokens'])} on {str(row['hardware']).upper()}: "
        f"{row['infeasible']}"
        for _, row in broken.iterrows()
    ]
    parts = [
        "# Does the second path pay for today's models?",
        "<!-- Written by docs/make_figures.py: change that, not this. -->",
        "The paper's Table 1, extended to every shipped model, to contexts up to 1M tokens and to "
        "three node types, and carried on to the question behind it: how much throughput does "
        "reading KV cache over the decode nodes as well buy? All numbers are bounds "
        "([method.md](method.md)), computed by `dpplan.sweeps.survey.model_survey` from the "
        f"profiles in the repository: turns of the `agentic` workload ({append} tokens appended), "
        "sessions stretched to each context, nodes with one 400 Gbit/s storage NIC.",
        "## What comes out",
        bullets(*findings(full)),
        "\n".join([COMPACT[0], compact_table(full), COMPACT[1]]),
        "![Cache-compute ratio against context, and what the second path buys]"
        "(does_dualpath_pay.svg)",
        "## How to read it",
        bullets(*READING.split("\n\n")),
        "## Cache-compute ratio [GB/PFLOP]",
        "All FLOP and bytes (`full`): windows and recurrent state are loaded, MLA runs in the "
        "cheaper of its two forms.",
        grid(full, HARDWARE[0], order, ratio_cell),
        "As the paper counts (`paper`): only what grows with the context, MLA absorbed, the "
        "maker's active parameters.",
        grid(paper, HARDWARE[0], order, ratio_cell),
        "## What binds and what the second path buys",
        "Each cell: what binds prefill-only on a small cluster (the node type's default count, or "
        f"three engine groups; {legend}), the gain at 1P:2D with decode matched, the gain at free "
        "P:D.",
        *(f"### {name.upper()}\n\n{grid(full, name, order, gain_cell)}" for name in HARDWARE),
        "## What to keep in mind",
        bullets(*LIMITS.split("\n\n")),
    ]
    if none:
        parts += ["No plan exists (`none`) for:", bullets(*none)]
    plain = ("#", "|", "<", "!", "-")
    pages = [part if part.startswith(plain) else wrapped(part) for part in parts]
    return "\n\n".join(pages) + "\n"


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Positions moved apart to at least `gap`, as little as can be, in the same order."""
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    blocks: list[tuple[float, list[int]]] = []
    for i in order:
        members, centre = [i], positions[i]
        while (
            blocks
            and centre - gap * len(members) / 2 < blocks[-1][0] + gap * len(blocks[-1][1]) / 2
        ):
            members = blocks.pop()[1] + members
            offsets = [positions[m] - gap * n for n, m in enumerate(members)]
            centre = sum(offsets) / len(offsets) + gap * (len(members) - 1) / 2
        blocks.append((centre, members))
    moved = [0.0] * len(positions)
    for centre, members in blocks:
        for n, m in enumerate(members):
            moved[m] = centre + gap * (n - (len(members) - 1) / 2)
    return moved


def figure(full: pd.DataFrame) -> Any:
    """Draw ratio against context with the nodes' balance, and the gains beside it."""
    import matplotlib as mpl
    import numpy as np
    from matplotlib.figure import Figure

    mpl.rcParams.update(
        {
            "svg.hashsalt": "dpplan",
            "font.family": "DejaVu Sans",
            "font.size": 9.5,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )
    drawing = Figure(figsize=(12.6, 6.4), facecolor="white")
    left, right = drawing.subplots(1, 2, width_ratios=[1.5, 1])
    drawing.subplots_adjust(left=0.055, right=0.98, bottom=0.095, top=0.855, wspace=0.66)
    ink, faint = "#222222", "#6b6b6b"
    order = by_ratio(full)

    bands = {"H800, H200": ("h800", "#f0c9a4"), "B200": ("b200", "#cfd8e6")}
    for label, (name, colour) in bands.items():
        low, high = balance_band(name)
        left.axhspan(low, high, color=colour, alpha=0.55, lw=0)
        left.text(
            CONTEXTS[-1] * 0.96,
            (low * high) ** 0.5,
            f"{label}: storage binds above (band: FP8 to BF16 rate)",
            va="center",
            ha="right",
            color=faint,
            fontsize=8.6,
        )
    frame = full[full.hardware == HARDWARE[0]]
    ends = []
    for model in order:
        rows = frame[frame.model == model]
        values = rows.cache_compute_ratio_gb_per_pflop.to_numpy(dtype=float)
        left.plot(CONTEXTS, values, color=KINDS[attention_kind(model)], lw=1.7, zorder=3)
        ends.append(float(np.log10(values[-1])))
    for model, end, place in zip(order, ends, spread(ends, 0.083), strict=True):
        colour = KINDS[attention_kind(model)]
        left.plot(
            [CONTEXTS[-1], CONTEXTS[-1] * 1.13],
            [10**end, 10**place],
            color=colour,
            lw=0.7,
            clip_on=False,
        )
        left.text(CONTEXTS[-1] * 1.16, 10**place, model, color=colour, va="center", fontsize=9)
    left.set_xscale("log", base=2)
    left.set_yscale("log")
    left.set_xlim(CONTEXTS[0], CONTEXTS[-1])
    left.set_ylim(1, 1000)
    left.set_xticks(CONTEXTS, [short(c) for c in CONTEXTS])
    left.set_yticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])
    left.minorticks_off()
    left.grid(axis="y", color="#e4e4e4", lw=0.8, zorder=0)
    left.set_axisbelow(True)
    left.set_xlabel("context: cached history of a turn [tokens]")
    left.set_ylabel("cache-compute ratio [GB/PFLOP]")
    heading(left, "Bytes to load per FLOP to compute", 1.12)
    for n, (kind, colour) in enumerate(KINDS.items()):
        left.text(
            (0.0, 0.215, 0.515, 0.71)[n],
            1.045,
            kind,
            transform=left.transAxes,
            color=colour,
            fontsize=9,
            weight="bold",
        )

    marks = {"h800": ("o", "#222222"), "h200": ("D", "#d98200"), "b200": ("s", "#2f6fd0")}
    places = np.arange(len(order))[::-1]
    for n, (name, (marker, colour)) in enumerate(marks.items()):
        rows = at(full, name, SHOWN_CONTEXT)
        right.scatter(
            [rows.fleet_speedup[m] for m in order],
            places + 0.22 * (1 - n),
            marker=marker,
            s=34,
            color=colour,
            edgecolor="white",
            linewidth=0.6,
            zorder=3,
            clip_on=False,
        )
    for place, model in zip(places, order, strict=True):
        gains = [at(full, name, SHOWN_CONTEXT).fleet_speedup[model] for name in HARDWARE]
        right.plot(
            [min(gains), max(gains)],
            [place, place],
            color="#ececec",
            lw=11,
            zorder=1,
            solid_capstyle="butt",
        )
        right.text(
            0.975,
            place,
            model,
            ha="right",
            va="center",
            fontsize=9,
            color=KINDS[attention_kind(model)],
        )
    right.set_xlim(1, 2)
    right.set_ylim(-0.7, len(order) - 0.3)
    right.set_yticks([])
    right.spines["left"].set_visible(False)
    right.axvline(1, color=ink, lw=0.8)
    right.set_xticks([1, 1.2, 1.4, 1.6, 1.8, 2], ["1", "1.2", "1.4", "1.6", "1.8", "2"])
    right.grid(axis="x", color="#e4e4e4", lw=0.8)
    right.set_axisbelow(True)
    right.set_xlabel(f"dual-path over prefill-only at {short(SHOWN_CONTEXT)}, each at its best P:D")
    heading(right, "What the second path buys a fleet", 1.12)
    for n, (name, (marker, colour)) in enumerate(marks.items()):
        spot = 0.02 + 0.2 * n
        right.scatter(
            [spot],
            [1.058],
            marker=marker,
            s=34,
            color=colour,
            transform=right.transAxes,
            clip_on=False,
        )
        right.text(
            spot + 0.03,
            1.045,
            name.upper(),
            transform=right.transAxes,
            color=colour,
            fontsize=9,
            weight="bold",
        )
    for axes in (left, right):
        axes.tick_params(colors=faint, labelcolor=ink, length=3)
    return drawing


def balance_band(hardware: str) -> tuple[float, float]:
    """Balance of a node at its FP8 and its BF16 rate for matrix products [GB/PFLOP]."""
    from dpplan.deployment.capacity import effective, flop_rate
    from dpplan.profiles.hardware import Hardware
    from dpplan.sweeps.survey import node_balance_gb_per_pflop

    node = read_profile("hardware", hardware)
    assert isinstance(node, Hardware)
    rates = {"bf16": node.gpu.bf16_flop_per_s, "fp8": node.gpu.fp8_flop_per_s, "fp4": None}
    nic, share = node.storage_nic, node.efficiency
    storage = effective(nic.count * nic.bytes_per_s, share.storage_nic, node.headroom.storage_nic)
    low, high = (
        node_balance_gb_per_pflop(
            storage, effective(node.gpus * flop_rate(rates, precision)[0], share.gemm)
        )
        for precision in ("fp8", "bf16")
    )
    return low, high


def heading(axes: Any, text: str, height: float) -> None:
    """Left-aligned title above the legend line."""
    axes.text(
        0, height, text, transform=axes.transAxes, fontsize=12, weight="bold", color="#222222"
    )


def main() -> None:
    """Write both files."""
    full, paper = surveys()
    page = document(full, paper)
    (HERE / "does_dualpath_pay.md").write_text(page, encoding="utf-8", newline="\n")
    figure(full).savefig(HERE / "does_dualpath_pay.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
