"""What a plan says to a person, in the order they need it."""

from __future__ import annotations

from dpplan.report.document import (
    Bar,
    Block,
    Cell,
    Column,
    Document,
    Items,
    Paragraph,
    Section,
    Table,
)
from dpplan.report.documents.node_table import node_section
from dpplan.report.documents.sentences import (
    binding_sentence,
    headline,
    meets,
    range_sentence,
    remedies,
    split_sentence,
)
from dpplan.report.words import number, percent, resource, scaled, seconds, size, times
from dpplan.results.optimize import EngineSummary, Plan, StrategyResult

__all__ = ["plan_document"]

_QUIET = 0.01
"""Resources less used than this by every strategy share one line."""


def plan_document(plan: Plan) -> Document:
    """The whole report of a plan.

    Parameters
    ----------
    plan : Plan

    Returns
    -------
    Document
        Headline, what binds, what to change, the tables, what it rests on.
    """
    sections = [
        Section("Warnings", (Items(plan.warnings),)) if plan.warnings else None,
        Section("Strategies", (_strategies(plan),)),
        Section(
            "What binds",
            (Items((*map(binding_sentence, plan.strategies.values()), split_sentence(plan))),),
        ),
        _remedy_section(plan),
        _utilisation(plan),
        _worth(plan),
        _range(plan),
        node_section(plan),
        Section("One turn and the cluster", (_turn(plan),)),
        Section("Engines", (_engines(plan),)),
        Section("Assumptions", (Items(plan.assumptions, is_numbered=True),))
        if plan.assumptions
        else None,
    ]
    return Document(headline(plan), tuple(section for section in sections if section is not None))


def _strategies(plan: Plan) -> Table:
    results = list(plan.strategies.values())
    base = plan.strategies["prefill-only"].turns_per_s

    def gain(result: StrategyResult) -> str:
        return times(result.turns_per_s / base) if result.turns_per_s and base else "-"

    def rate(value: float | None) -> str:
        return "unbounded" if value is None else number(value)

    rows: list[tuple[Cell, ...]] = [
        ("turns/s", *(rate(r.turns_per_s) for r in results)),
        ("against prefill-only", *map(gain, results)),
        ("sessions/s", *(number(r.sessions_per_s) for r in results)),
        ("hit KV read", *(scaled(r.hit_kv_bytes_per_s, "B/s") for r in results)),
        ("prompt tokens", *(scaled(r.prompt_tokens_per_s, "tok/s") for r in results)),
        ("output tokens", *(scaled(r.output_tokens_per_s, "tok/s") for r in results)),
        ("read on decode side", *(percent(r.decode_read_fraction) for r in results)),
    ]
    if any(r.sessions_between_turns is not None for r in results):
        waiting = (number(r.sessions_between_turns) for r in results)
        rows.append(("sessions in tool gaps", *waiting))
    longest = max((len(r.bottlenecks) for r in results), default=0)
    for n in range(max(1, longest)):
        names = [resource(r.bottlenecks[n]) if n < len(r.bottlenecks) else "" for r in results]
        if not n:
            names = [name or "nothing" for name in names]
        rows.append(("bound by" if not n else "", *names))
    columns = (Column(""), *(Column(r.name, "right", may_wrap=True) for r in results))
    return Table(columns, tuple(rows), strong=frozenset({0}))


def _remedy_section(plan: Plan) -> Section | None:
    lines = remedies(plan)
    return Section("To raise the dual-path bound", (Items(lines),)) if lines else None


def _utilisation(plan: Plan) -> Section | None:
    results = [r for r in plan.strategies.values() if r.utilisation]
    if not results:
        return None
    names = list(dict.fromkeys(name for r in results for name in r.utilisation))
    loud = [n for n in names if max(r.utilisation.get(n, 0.0) for r in results) >= _QUIET]
    quiet = [n for n in names if n not in loud]
    rows = tuple((resource(name), *(_bar(result, name) for result in results)) for name in loud)
    columns = (Column(""), *(Column(r.name, "right") for r in results))
    blocks: list[Block] = [Table(columns, rows)]
    if quiet:
        said = ", ".join(resource(name) for name in quiet)
        blocks.append(Paragraph(f"below {_QUIET * 100:.0f} % everywhere: {said}", is_note=True))
    return Section("Utilisation", tuple(blocks))


def _bar(result: StrategyResult, name: str) -> Cell:
    share = result.utilisation.get(name)
    if share is None:
        return "-"
    return Bar(share, percent(share), name in result.bottlenecks)


def _worth(plan: Plan) -> Section | None:
    rows: list[tuple[Cell, ...]] = []
    is_kink = False
    for result in plan.strategies.values():
        for name, price in result.shadow_prices.items():
            more = result.shadow_prices_if_more.get(name, price)
            less = result.shadow_prices_if_less.get(name, price)
            is_kink = is_kink or abs(more - less) > 1e-6
            rows.append(
                (
                    resource(name),
                    result.name,
                    f"{price:.2f}",
                    _change(more, "+"),
                    _change(less, "-"),
                )
            )
    if not rows:
        return None
    columns = (
        Column(""),
        Column("strategy"),
        Column("share", "right"),
        Column("1 % more gives", "right"),
        Column("1 % less costs", "right"),
    )
    said = (
        "share: relative throughput per relative capacity of the resource; "
        "the shares of a strategy sum to 1."
    )
    if is_kink:
        said += " Where more and less differ, several limits meet: one of them alone gains less."
    return Section(
        "What capacity is worth", (Table(columns, tuple(rows)), Paragraph(said, is_note=True))
    )


def _change(elasticity: float, sign: str) -> str:
    return f"{sign}{elasticity:.2f} %" if elasticity >= 0.005 else "0 %"


def _range(plan: Plan) -> Section:
    rows: list[tuple[Cell, ...]] = []
    here = plan.bottleneck_free.p_over_d
    for term in plan.bottleneck_free.terms:
        limit, kind = term["p_over_d"], term["kind"]
        if kind == "always" or limit is None or not term["satisfiable"]:
            said = "whatever P/D" if term["satisfiable"] else "no P/D meets it"
        else:
            said = f"{kind} {number(limit)}"
        holds = meets(term, here)
        rows.append(
            (resource(term["resource"]), term["equation"], said, "met" if holds else "BROKEN")
        )
    columns = (Column(""), Column("condition"), Column("P/D", "right"), Column("here"))
    broken = frozenset(i for i, row in enumerate(rows) if row[3] == "BROKEN")
    blocks: list[Block] = [Paragraph(range_sentence(plan))]
    if rows:
        blocks.append(Table(columns, tuple(rows), strong=broken))
        note = "C: what one node of that side delivers; S_p, S_d: its storage NICs, by side."
        blocks.append(Paragraph(note, is_note=True))
    return Section("Bottleneck-free P/D", tuple(blocks))


def _turn(plan: Plan) -> Table:
    d = plan.demand
    ratio = d.cache_compute_ratio_gb_per_pflop
    pairs = [
        ("hit rate", f"{d.hit_rate_fraction * 100:.1f} %"),
        ("KV cache per token", size(d.kv_bytes_per_token)),
        ("hit KV", size(d.hit_kv_bytes_per_turn)),
        ("new KV, prompt", size(d.fresh_kv_bytes_per_turn)),
        ("new KV, output", size(d.generated_kv_bytes_per_turn)),
        ("written back", size(d.write_back_bytes_per_turn)),
        ("prefill", scaled(d.prefill_flop_per_turn, "FLOP")),
        ("hit KV per prefill FLOP", "-" if ratio is None else f"{number(ratio)} GB/PFLOP"),
        ("prefill GPU time", seconds(d.prefill_gpu_s_per_turn)),
        ("decode GPU time", seconds(d.decode_gpu_s_per_turn)),
    ]
    if d.dram_hit_fraction:
        pairs.append(("of it found in DRAM", f"{d.dram_hit_fraction * 100:.1f} %"))
    if d.load_or_recompute_bytes_per_s_per_gpu is not None:
        rate = scaled(d.load_or_recompute_bytes_per_s_per_gpu, "B/s")
        pairs.append(("loading beats recompute", f"above {rate} a GPU"))
    if plan.power_w is not None:
        pairs.append(("cluster, at most", scaled(plan.power_w, "W")))
    if plan.cost_usd_per_h is not None:
        pairs.append(("cluster", f"{number(plan.cost_usd_per_h)} USD/h"))
    half = (len(pairs) + 1) // 2
    rows = tuple(
        (*pairs[i], *(pairs[i + half] if i + half < len(pairs) else ("", ""))) for i in range(half)
    )
    columns = (Column(""), Column("", "right"), Column("  "), Column("", "right"))
    return Table(columns, rows)


def _engines(plan: Plan) -> Table:
    sides = {"prefill": plan.prefill_engine, "decode": plan.decode_engine}
    rows: list[tuple[Cell, ...]] = [
        ("hardware", *(engine.hardware for engine in sides.values())),
        ("engines", *map(_spread, sides.values())),
        ("parallelism", *(f"TP {e.tp}, DP {e.dp}, EP {e.ep}" for e in sides.values())),
        ("weights per GPU", *(size(e.weight_bytes_per_gpu) for e in sides.values())),
        ("HBM left per GPU", *(size(e.hbm_left_bytes_per_gpu) for e in sides.values())),
    ]
    decode = plan.decode_engine
    if decode.batch_per_engine is not None:
        limit = {"hbm": "HBM", "tpot": "TPOT"}.get(decode.batch_limit or "", "")
        batch = number(decode.batch_per_engine) + (f" (limited by {limit})" if limit else "")
        rows.append(("largest batch", "", batch))
        rows.append(("step", "", seconds(decode.step_s)))
        rows.append(("output per engine", "", scaled(decode.tokens_per_s, "tok/s")))
    return Table((Column(""), *(Column(side, "right") for side in sides)), tuple(rows))


def _spread(engine: EngineSummary) -> str:
    nodes = f"{engine.nodes_per_engine} node{'s' if engine.nodes_per_engine > 1 else ''}"
    idle = f", {engine.idle_nodes} idle" if engine.idle_nodes else ""
    gpus = f"{engine.gpus_per_engine} GPU{'s' if engine.gpus_per_engine > 1 else ''}"
    return f"{engine.engines:g} x {gpus} on {nodes}{idle}"
