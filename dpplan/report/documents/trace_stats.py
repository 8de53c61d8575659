"""What the statistics of a trace say to a person: size, tokens, sessions, hits, arrivals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from dpplan.report.document import Bar, Block, Cell, Column, Document, Items, Section, Table
from dpplan.report.words import number, percent, scaled, seconds, size
from dpplan.traces.statistics.distributions import Distribution
from dpplan.traces.statistics.trace_summary import CurvePoint, TraceStats

__all__ = ["duration", "trace_document"]

_MOST_CURVE_ROWS: Final = 12
_MOST_FILES: Final = 8
_TURNS_SHOWN: Final = (1, 2, 3, 5, 10, 20, 50, 100, 200)
_SHOWN: Final = (0.1, 0.5, 0.9, 0.99, 1.0)
_NAMES: Final = {
    "input_tokens": "input",
    "output_tokens": "output",
    "append_tokens": "append",
    "context_tokens": "context before it",
    "turns_per_session_by_turn": "turns of its session",
    "gap_tool_s": "gap, tool",
    "gap_human_s": "gap, human",
    "gap_unknown_s": "gap, of no known kind",
    "turns_per_session": "turns",
    "first_prompt_tokens": "first prompt",
    "session_tokens": "tokens at its end",
    "session_duration_s": "duration",
    "pause_s": "pause, answer included",
}
_MEANS: Final = frozenset({"input_tokens", "output_tokens", "append_tokens", "context_tokens"})
_DAY_S: Final = 86400.0


def trace_document(found: TraceStats, name: str) -> Document:
    """The report of a trace.

    Parameters
    ----------
    found : TraceStats
    name : str
        What the trace is called.

    Returns
    -------
    Document
        Headline, size, distributions, hit rates, arrivals, growth, files, notes.
    """
    sections = [Section("Trace", (_facts(found),))]
    by_turn = _spread(found.distributions, is_mean=False)
    sections.append(Section("Each turn" if found.turns else "Each request", (by_turn,)))
    if found.turns is not None:
        table = _spread(found.session_distributions, is_mean=True)
        sections.append(Section("Each session", (table,)))
    sections += _inferred(found)
    sections += _hits(found)
    sections += _working_set(found)
    if found.arrivals.clock == "common":
        sections.append(Section("Arrivals", (_arrivals(found),)))
    if found.growth:
        basis = "" if found.turns is not None else " (inferred sessions)"
        sections.append(Section(f"Prompt by turn{basis}", (_growth(found),)))
    sections.append(Section("Files", (_files(found),)))
    if found.facts.faults:
        sections.append(Section("Lines left out", (Items(found.facts.faults[:10]),)))
    if found.notes:
        sections.append(Section("Notes", (Items(found.notes),)))
    return Document(_headline(found, name), tuple(sections))


def duration(value_s: float | None) -> str:
    """A time that may be long.

    >>> duration(0.25), duration(90.0), duration(5400.0), duration(200000.0)
    ('250 ms', '90.0 s', '1.50 h', '2.31 days')
    """
    if value_s is None or value_s < 600:
        return seconds(value_s)
    if value_s < 3600:
        return f"{number(value_s / 60)} min"
    if value_s < _DAY_S:
        return f"{number(value_s / 3600)} h"
    return f"{number(value_s / _DAY_S)} days"


def _span(value_s: float) -> str:
    """A round time.

    >>> _span(90.0), _span(600.0), _span(7200.0)
    ('90 s', '10 min', '2 h')
    """
    for unit, size_s in (("h", 3600.0), ("min", 60.0)):
        if value_s % size_s == 0:
            return f"{value_s / size_s:,.0f} {unit}"
    return f"{value_s:g} s"


def _headline(found: TraceStats, name: str) -> str:
    said = f"{name}: {_count(found.requests, 'request')}"
    if found.sessions is not None:
        said += f" in {_count(found.sessions, 'session')}"
    said += (
        f", {_tokens(found.input_tokens_mean)} tokens in, {_tokens(found.output_tokens_mean)} out"
    )
    ideal = found.cache.ideal_block_hit_fraction
    if ideal is None:
        return f"{said}; no block ids, so no hit rates"
    tokens = found.cache.ideal_token_hit_fraction
    return f"{said}; at best {percent(ideal)} of blocks hit, {percent(tokens)} of tokens"


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _tokens(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _facts(found: TraceStats) -> Table:
    facts, arrivals = found.facts, found.arrivals
    blocks = (
        "no block ids" if facts.block_tokens is None else f"{facts.block_tokens} tokens a block"
    )
    source = {
        "given": "counted in the trace",
        "tokenizer": "counted by the tokenizer given",
        "estimate": "ESTIMATED from the length of texts",
    }[facts.token_source]
    rows: list[tuple[Cell, ...]] = [
        ("format", f"{facts.format}, {blocks}"),
        ("tokens", source),
        ("requests", f"{found.requests:,}"),
    ]
    if found.sessions is None:
        rows.append(("sessions", "not told by the trace"))
    else:
        rows.append(("sessions", f"{found.sessions:,}"))
        rows.append(("turns per session, mean", number(found.turns_per_session_mean)))
    if found.turns is not None and found.turns.subagents:
        subagents = found.turns.subagents
        turns = f"{subagents:,} with {_count(found.turns.subagent_turns, 'turn')}"
        rows.append(("sub-agents", turns))
    if found.turns is not None and found.turns.appends:
        negative = found.turns.negative_appends
        share = f" ({percent(negative / found.turns.appends)}), as after compaction"
        rows.append(("negative appends", f"{negative:,}{share if negative else ''}"))
    if found.growth_tokens_per_turn is not None:
        basis = "" if found.turns is not None else " (inferred sessions)"
        rows.append(
            (f"prompt grows per turn{basis}", f"{found.growth_tokens_per_turn:,.0f} tokens")
        )
    longest = "longest conversation" if arrivals.clock == "per scope" else "duration"
    rows.append((longest, duration(arrivals.duration_s)))
    if arrivals.requests_per_s is not None:
        rows.append(("arrivals", f"{number(arrivals.requests_per_s)} requests/s"))
    if arrivals.sessions_per_s is not None:
        rows.append(("new sessions", f"{number(arrivals.sessions_per_s)} sessions/s"))
    if arrivals.requests_per_s_per_scope is not None:
        rate = f"{number(arrivals.requests_per_s_per_scope)} requests/s while it lasts"
        rows.append(("arrivals of a conversation", rate))
    return Table((Column(""), Column("", may_wrap=True)), tuple(rows))


def _spread(kept: dict[str, Distribution], *, is_mean: bool) -> Table:
    """Distributions, one a row; a session's number of a turn's quantity is its mean."""
    columns = ("count", "mean", "p10", "p50", "p90", "p99", "most")
    rows = []
    for name, one in kept.items():
        if not one.count:
            continue
        label = f"mean {_NAMES[name]}" if is_mean and name in _MEANS else _NAMES[name]
        shown = [one.mean, *(one.quantile(share) for share in _SHOWN)]
        rows.append((label, f"{one.count:,}", *(_value(name, value) for value in shown)))
    return Table((Column(""), *(Column(c, "right") for c in columns)), tuple(rows))


def _value(name: str, value: float | None) -> str:
    if name.endswith("_s"):
        return duration(value)
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 or float(value).is_integer() else f"{value:,.1f}"


def _inferred(found: TraceStats) -> Iterator[Section]:
    told = found.inferred
    if told is None or told.sessions == found.requests:
        return
    groups = found.inferred_distributions("session"), found.inferred_distributions("turn")
    table = _spread({**groups[0], **groups[1]}, is_mean=False)
    single = percent(told.single_turns / told.sessions)
    said = (
        f"Inferred from prompts that continue one another, not told by the trace: "
        f"{told.sessions:,} sessions, {single} of them of one turn.",
        f"{_count(told.without_room, 'request')} share a prefix but are too short to continue it; "
        f"{_count(told.forks, 'request')} continue one that another continues, too.",
    )
    yield Section("Inferred sessions", (table, Items(said)))


def _hits(found: TraceStats) -> Iterator[Section]:
    cache = found.cache
    if cache.ideal_block_hit_fraction is None:
        return
    shares = _bar(cache.ideal_block_hit_fraction), _bar(cache.ideal_token_hit_fraction)
    rows: list[tuple[Cell, ...]] = [
        ("blocks", f"{cache.blocks:,}", f"{cache.unique_blocks:,}", shares[0]),
        ("tokens", f"{cache.tokens:,}", f"{cache.unique_tokens:,}", shares[1]),
    ]
    heads = (Column("requested", "right"), Column("distinct", "right"), Column("hit", "right"))
    blocks: list[Block] = [Table((Column(""), *heads), tuple(rows))]
    if cache.sampled_fraction < 1:
        share = percent(cache.sampled_fraction)
        blocks.append(Items((f"Hit rates are estimates from {share} of the blocks (SHARDS).",)))
    yield Section("Cache of any size", tuple(blocks))
    shown = {p.capacity_blocks: p for p in (*_thinned(found.curve), *found.asked)}
    if shown:
        asked = {point.capacity_blocks for point in found.asked}
        points = [shown[capacity] for capacity in sorted(shown)]
        yield Section("LRU cache", (_curve(points, asked, cache.sampled_fraction < 1),))
    if found.ttl_block_hit_fraction:
        yield Section(
            "Cache that forgets",
            (
                Table(
                    (Column(""), Column("blocks hit", "right"), Column("tokens hit", "right")),
                    tuple(
                        (
                            f"after {_span(float(ttl))} unused",
                            _bar(share),
                            percent(found.ttl_token_hit_fraction[ttl]),
                        )
                        for ttl, share in found.ttl_block_hit_fraction.items()
                    ),
                ),
            ),
        )


def _working_set(found: TraceStats) -> Iterator[Section]:
    held = found.working_set
    if held is None or not any(held.mean_tokens):
        return
    rows: list[tuple[Cell, ...]] = [
        (f"touched in the last {_span(window_s)}", scaled(mean, "tok"), scaled(peak, "tok"))
        for window_s, mean, peak in zip(
            held.windows_s, held.mean_tokens, held.peak_tokens, strict=True
        )
    ]
    of_one = " of a conversation" if held.scopes > 1 else ""
    heads = (Column("mean", "right"), Column("peak", "right"))
    yield Section(f"Working set{of_one}", (Table((Column(""), *heads), tuple(rows)),))


def _thinned(points: Sequence[CurvePoint]) -> list[CurvePoint]:
    """A dozen of them at most: from a fiftieth of the best hit rate on, the last one among them."""
    best = max((p.lru_block_hit_fraction or 0.0 for p in points), default=0.0)
    telling = [p for p in points if (p.lru_block_hit_fraction or 0.0) >= best / 50]
    step = -(-len(telling) // _MOST_CURVE_ROWS) or 1
    return telling[::-1][::step][::-1]


def _curve(points: list[CurvePoint], asked: set[int], has_error: bool) -> Table:
    heads = ["tokens", "blocks hit", "tokens hit", "per-block rule"]
    rows = []
    for point in points:
        capacity = point.capacity_tokens
        cells: tuple[Cell, ...] = (
            _count(point.capacity_blocks, "block"),
            "-" if capacity is None else scaled(capacity, "tok"),
            _bar(point.lru_block_hit_fraction),
            percent(point.lru_token_hit_fraction),
            percent(point.per_block_lru_hit_fraction),
        )
        error = f"+-{point.lru_standard_error * 100:.2g} %"
        rows.append((*cells, error) if has_error else cells)
    if has_error:
        heads.append("error")
    strong = frozenset(n for n, point in enumerate(points) if point.capacity_blocks in asked)
    return Table((Column(""), *(Column(h, "right") for h in heads)), tuple(rows), strong)


def _bar(share: float | None) -> Cell:
    return "-" if share is None else Bar(share, percent(share))


def _arrivals(found: TraceStats) -> Table:
    told = found.arrivals
    rows: list[tuple[Cell, ...]] = []
    if told.interarrival_cv2 is not None:
        rows.append(("squared variation of times between", number(told.interarrival_cv2)))
    for window_s, index in told.dispersion:
        if index is not None:
            rows.append((f"dispersion of counts in {window_s} s", number(index)))
    return Table((Column(""), Column("1 = Poisson", "right")), tuple(rows))


def _growth(found: TraceStats) -> Table:
    shown = [point for point in found.growth if point.turn in _TURNS_SHOWN]
    return Table(
        (Column(""), Column("requests", "right"), Column("mean input", "right")),
        tuple((f"turn {p.turn}", f"{p.requests:,}", f"{p.input_tokens_mean:,.0f}") for p in shown),
    )


def _files(found: TraceStats) -> Table:
    files = found.facts.files
    rows: list[tuple[Cell, ...]] = [
        (f.name, size(f.bytes), f"{f.lines:,}", f"{f.bad_lines:,}", f.sha256[:12])
        for f in files[:_MOST_FILES]
    ]
    if more := files[_MOST_FILES:]:
        sums = size(sum(f.bytes for f in more)), sum(f.lines for f in more)
        bad = sum(f.bad_lines for f in more)
        rows.append((f"and {len(more)} more", sums[0], f"{sums[1]:,}", f"{bad:,}", ""))
    heads = (Column("stored", "right"), Column("records", "right"), Column("bad", "right"))
    return Table((Column("", may_wrap=True), *heads, Column("SHA-256")), tuple(rows))
