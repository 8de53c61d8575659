"""A cache plan for a person: sizes, hit rates, throughput, what binds, and how much is enough."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dpplan.report.document import Cell, Column, Document, Items, Paragraph, Section, Table
from dpplan.report.words import compact, number, percent, scaled, size
from dpplan.results.trace_cache import CachePlan, CacheSize
from dpplan.traces.statistics.working_set_law import WorkingSetCheck

__all__ = ["cache_plan_document", "enough_sentences", "time_text"]

_RIGHT: Final = "right"
_LEGEND = (
    "* marks these sizes. missed: tokens that a mean turn prefills. turns/s: the dual-path bound, "
    "NICs: load of the fuller side's storage NICs there. per turn: read from storage."
)


def cache_plan_document(plan: CachePlan, name: str) -> Document:
    """The report of a cache plan.

    Parameters
    ----------
    plan : CachePlan
    name : str
        What the trace is called.

    Returns
    -------
    Document
        Headline, storage sizes, DRAM tiers, times to live, working-set law, notes.
    """
    sections = [Section("KV kept in storage", (_storage(plan),))]
    if len(plan.of_tier("dram")) > 1:
        sections.append(Section("DRAM before it", (_dram(plan),)))
    if plan.of_tier("ttl"):
        sections.append(Section("Dropped when idle", (_ttl(plan),)))
    legend = Paragraph(_LEGEND, is_note=True)
    sections.append(Section("How much is enough", (Items(enough_sentences(plan)), legend)))
    if plan.working_set is not None:
        sections.append(Section("Working set", (_law(plan.working_set),)))
    if plan.notes:
        sections.append(Section("Notes", (Items(plan.notes),)))
    return Document(_headline(plan, name), tuple(sections))


def _headline(plan: CachePlan, name: str) -> str:
    best = plan.of_tier("storage")[-1]
    nodes = best.prefill_nodes + best.decode_nodes
    said = f"{plan.model} on {nodes} {plan.hardware} nodes, {name}: "
    share = f"where all is kept {percent(best.hit_fraction)} of the input hits"
    if best.turns_per_s is None:
        return f"{said}{share}, and nothing binds"
    return f"{said}{share}, {number(best.turns_per_s)} turns/s; {_bound(best)} bind"


def _bound(row: CacheSize) -> str:
    return compact(row.bottlenecks) or "nothing"


def _nodes(row: CacheSize) -> str:
    return f"{row.prefill_nodes}P{row.decode_nodes}D"


def _rates(row: CacheSize) -> tuple[Cell, ...]:
    return (
        _nodes(row),
        number(row.turns_per_s) if row.turns_per_s is not None else "unlimited",
        _bound(row),
        number(row.prefill_only_turns_per_s)
        if row.prefill_only_turns_per_s is not None
        else "unlimited",
        compact(row.prefill_only_bottlenecks) or "nothing",
    )


_RATES = (
    Column("P:D"),
    Column("turns/s", _RIGHT),
    Column("bound by", may_wrap=True),
    Column("prefill-only", _RIGHT),
    Column("bound by", may_wrap=True),
)


def _strong(rows: tuple[CacheSize, ...]) -> frozenset[int]:
    return frozenset(i for i, row in enumerate(rows) if row.is_enough)


def _mark(row: CacheSize, text: str) -> str:
    return f"{text} *" if row.is_enough else text


def _storage(plan: CachePlan) -> Table:
    rows = plan.of_tier("storage")
    cells = []
    for row in rows:
        kept = "nothing" if not row.storage_bytes else size(row.storage_bytes)
        cells.append(
            (
                _mark(row, kept),
                percent(row.hit_fraction),
                f"{row.append_tokens:,.0f}",
                percent(row.storage_nic_load_fraction),
                *_rates(row),
            )
        )
    columns = (
        Column(""),
        Column("hit", _RIGHT),
        Column("missed", _RIGHT),
        Column("NICs", _RIGHT),
        *_RATES,
    )
    return Table(columns, tuple(cells), _strong(rows))


def _dram(plan: CachePlan) -> Table:
    rows = plan.of_tier("dram")
    cells = [
        (
            _mark(row, size(row.dram_bytes) if row.dram_bytes else "none"),
            percent(row.dram_hit_fraction),
            size(row.storage_read_bytes_per_turn),
            percent(row.storage_nic_load_fraction),
            *_rates(row),
        )
        for row in rows
    ]
    columns = (
        Column(""),
        Column("of hits", _RIGHT),
        Column("per turn", _RIGHT),
        Column("NICs", _RIGHT),
        *_RATES,
    )
    return Table(columns, tuple(cells), _strong(rows))


def _ttl(plan: CachePlan) -> Table:
    rows = plan.of_tier("ttl")
    cells = []
    for row in rows:
        assert row.ttl_s is not None
        own = row.trace_read_bytes_per_s
        cells.append(
            (
                _mark(row, f"after {time_text(row.ttl_s)}"),
                percent(row.hit_fraction),
                size(row.storage_read_bytes_per_turn),
                "-" if own is None else scaled(own, "B/s"),
                percent(row.storage_nic_load_fraction),
                *_rates(row)[:3],
            )
        )
    columns = (
        Column(""),
        Column("hit", _RIGHT),
        Column("per turn", _RIGHT),
        Column("as it came", _RIGHT),
        Column("NICs", _RIGHT),
        *_RATES[:3],
    )
    return Table(columns, tuple(cells), _strong(rows))


def time_text(seconds: float) -> str:
    """A time to live as a person writes it.

    >>> time_text(90.0), time_text(1800.0), time_text(7200.0)
    ('90 s', '30 min', '2 h')
    """
    for unit, factor in (("h", 3600.0), ("min", 60.0)):
        if seconds >= factor and (seconds / factor).is_integer():
            return f"{seconds / factor:g} {unit}"
    return f"{seconds:g} s"


def enough_sentences(plan: CachePlan) -> tuple[str, ...]:
    """What each tier's least sufficient size is, in a sentence each."""
    return tuple(_sentences(plan))


def _sentences(plan: CachePlan) -> Iterator[str]:
    shared = f" ({plan.conversations:,} conversations at a time)" if plan.scoped else ""
    kept = plan.enough("storage")
    if kept is not None and kept.storage_bytes is not None:
        last = plan.of_tier("storage")[-1]
        if kept is last:
            most = f"{size(kept.storage_bytes)}{shared}"
            yield f"Storage: more pays up to {most}, all that is ever hit."
        elif not kept.storage_bytes:
            yield "Storage: none is enough; keeping KV buys less than 1 % of the dual-path bound."
        else:
            least = f"{size(kept.storage_bytes)}{shared}"
            yield f"Storage: {least} is enough; more buys less than 1 % of the dual-path bound."
    before, larger = _falls(plan.of_tier("storage"))
    if before is not None and larger is not None:
        yield (
            f"Prefill-only falls by {percent(1 - larger / before)} where more is kept: reading "
            "takes its storage NICs longer than recomputing takes its GPUs."
        )
    tier = plan.enough("dram")
    if tier is not None:
        gains = _gains_prefill_only(plan)
        if tier.dram_bytes:
            yield f"DRAM: {size(tier.dram_bytes)} is enough for the dual-path bound."
        elif gains is None:
            yield "DRAM: no tier buys 1 % of either bound: storage NICs are not what binds."
        else:
            from_size = size(gains.dram_bytes)
            yield f"DRAM: the dual-path bound needs none; prefill-only gains from {from_size} on."
    idle = plan.enough("ttl")
    if idle is not None and idle.ttl_s is not None and len(plan.of_tier("ttl")) > 1:
        yield f"Time to live: after {time_text(idle.ttl_s)}, keeping idle KV buys less than 1 %."


def _falls(rows: tuple[CacheSize, ...]) -> tuple[float | None, float | None]:
    """The best prefill-only bound of the last P:D and the last one, where reading costs 1 %."""
    last = rows[-1]
    alike = [row.prefill_only_turns_per_s for row in rows if _nodes(row) == _nodes(last)]
    best = max((rate for rate in alike if rate is not None), default=0.0)
    now = last.prefill_only_turns_per_s
    reads = "prefill.storage_nic_read" in last.prefill_only_bottlenecks
    return (best, now) if reads and now is not None and best > 1.01 * now else (None, None)


def _gains_prefill_only(plan: CachePlan) -> CacheSize | None:
    """The least DRAM tier that raises the prefill-only bound by 1 %."""
    rows = plan.of_tier("dram")
    before = rows[0].prefill_only_turns_per_s or 0.0
    for row in rows:
        now = row.prefill_only_turns_per_s
        if before and now is not None and now > before * 1.01:
            return row
    return None


def _law(law: WorkingSetCheck) -> Table:
    rows: tuple[tuple[Cell, ...], ...] = (
        ("sessions, mean life J", f"{law.sessions:,}, {number(law.life_s_mean)} s"),
        ("mean tokens at the end S", f"{law.session_tokens_mean:,.0f}"),
        ("mean first prompt", f"{law.first_prompt_tokens_mean:,.0f}"),
        ("tokens a living session holds", f"{law.held_tokens_mean:,.0f}"),
        ("over the law, J x S/2 each", f"{number(law.held_over_law)}x"),
        ("over mean J x mean S/2", f"{number(law.held_over_law_of_means)}x"),
        ("over J x (first prompt + S)/2", f"{number(law.held_over_law_with_start)}x"),
    )
    return Table((Column(""), Column("measured", _RIGHT)), rows)
