"""The table of all P:D of a node count, shortened around the best where it is long."""

from __future__ import annotations

from collections.abc import Sequence

from dpplan.report.document import Block, Cell, Column, Paragraph, Section, Table
from dpplan.report.words import compact, number, percent
from dpplan.results.optimize import STRATEGIES, NodeOption, Plan

__all__ = ["node_section"]

_MOST_ROWS = 12
_AROUND = 3


def node_section(plan: Plan) -> Section | None:
    """All P:D, each strategy's own best marked; None where there is no table."""
    options = plan.node_options
    if not options:
        return None
    shown = _shown(options, plan)
    has_idle = any(option.idle_nodes for option in options)
    planned = (plan.prefill_nodes, plan.decode_nodes)
    rows = tuple(_row(options[i], has_idle, planned) for i in shown)
    columns = (
        Column(""),
        *(Column(name, "right") for name in STRATEGIES),
        Column("per node", "right"),
        Column("decode reads", "right"),
        *([Column("idle", "right")] if has_idle else []),
        Column("dual-path bound by", may_wrap=True),
    )
    strong = frozenset(n for n, i in enumerate(shown) if _pair(options[i]) == planned)
    total = options[0].prefill_nodes + options[0].decode_nodes + options[0].idle_nodes
    note = "turns/s; per node: dual-path; * the strategy's own best; > planned here."
    if len(shown) < len(options):
        note += f" {len(shown)} of {len(options)} P:D shown; --format csv or json has all."
    blocks: list[Block] = [Table(columns, rows, strong), Paragraph(note, is_note=True)]
    return Section(f"P:D of {total} nodes", tuple(blocks))


def _shown(options: Sequence[NodeOption], plan: Plan) -> list[int]:
    """All, or the ends, every strategy's best and what is around the planned one."""
    count = len(options)
    if count <= _MOST_ROWS:
        return list(range(count))
    here = plan.prefill_nodes, plan.decode_nodes
    planned = next((i for i, option in enumerate(options) if _pair(option) == here), 0)
    wanted = [planned, 0, count - 1]
    for name in STRATEGIES:
        wanted += [i for i, option in enumerate(options) if name in option.best_for][:1]
    wanted += [
        i
        for n in range(1, count)
        for i in (planned - n, planned + n)
        if 0 <= i < count and n <= _AROUND
    ]
    step = max(1, count // _MOST_ROWS)
    wanted += range(0, count, step)
    return sorted(list(dict.fromkeys(wanted))[:_MOST_ROWS])


def _pair(option: NodeOption) -> tuple[int, int]:
    return option.prefill_nodes, option.decode_nodes


def _row(option: NodeOption, has_idle: bool, planned: tuple[int, int]) -> tuple[Cell, ...]:
    nodes = option.prefill_nodes + option.decode_nodes + option.idle_nodes
    dual = option.turns_per_s["dual-path"]
    rates = [
        ("unbounded" if option.turns_per_s[name] is None else number(option.turns_per_s[name]))
        + ("*" if name in option.best_for else " ")
        for name in STRATEGIES
    ]
    mark = "> " if _pair(option) == planned else "  "
    return (
        f"{mark}{option.prefill_nodes}P{option.decode_nodes}D",
        *rates,
        "-" if dual is None else number(dual / nodes),
        percent(option.decode_read_fraction),
        *([str(option.idle_nodes)] if has_idle else []),
        compact(option.bottlenecks) or "nothing",
    )
