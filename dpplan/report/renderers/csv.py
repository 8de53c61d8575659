"""Answers as one tidy CSV table each.

A plan's columns, which don't change within `dpplan.optimize/1`:

section
    inputs, result, demand, engine, strategy, utilisation, shadow_price, next_limit,
    bottleneck_free, nodes, advice, assumption or warning.
strategy
    prefill-only, dual-path, oracle, or empty where the row is of the whole plan.
item
    What the quantity is of: a resource ("decode.gpu"), a side ("prefill"), a P:D ("2P4D"), or
    empty.
quantity
    The key of the JSON document, so with its unit at the end.
value
    A number in base units to full precision, or text; empty = none (unbounded, unlimited).
unit
    Base unit: bytes, bytes/s, tokens/s, FLOP, s, fraction, ...; empty for text and counts.

Text that a spreadsheet would run as a formula starts with an apostrophe.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dpplan.report.words import plain
from dpplan.results.optimize import Plan, StrategyResult

if TYPE_CHECKING:
    from dpplan.planner.explain import Term

__all__ = [
    "PLAN_COLUMNS",
    "TERM_COLUMNS",
    "plan_csv",
    "plan_rows",
    "terms_csv",
    "to_csv",
    "unit_of",
]

PLAN_COLUMNS = ("section", "strategy", "item", "quantity", "value", "unit")
TERM_COLUMNS = ("tag", "name", "equation", "numbers", "value", "unit", "source")

_NUMBER = re.compile(r"[+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?").fullmatch

_UNITS = (
    ("bytes_per_s_per_gpu", "bytes/s"),
    ("bytes_per_token", "bytes/token"),
    ("bytes_per_s", "bytes/s"),
    ("tokens_per_s", "tokens/s"),
    ("turns_per_s", "turns/s"),
    ("sessions_per_s", "sessions/s"),
    ("flop_per_s", "FLOP/s"),
    ("gb_per_pflop", "GB/PFLOP"),
    ("usd_per_h", "USD/h"),
    ("bytes_per_gpu", "bytes"),
    ("bytes_per_turn", "bytes"),
    ("flop_per_turn", "FLOP"),
    ("s_per_turn", "s"),
    ("fraction", "fraction"),
    ("fraction_min", "fraction"),
    ("fraction_max", "fraction"),
    ("_bytes", "bytes"),
    ("_tokens", "tokens"),
    ("_w", "W"),
    ("_s", "s"),
    ("p_over_d", "nodes/node"),
    ("p_over_d_min", "nodes/node"),
    ("p_over_d_max", "nodes/node"),
)

_RATES = (
    "turns_per_s",
    "sessions_per_s",
    "hit_kv_bytes_per_s",
    "prompt_tokens_per_s",
    "output_tokens_per_s",
    "decode_read_fraction",
    "decode_read_fraction_min",
    "decode_read_fraction_max",
)
Row = tuple[str, str, str, str, Any, str]


def unit_of(quantity: str) -> str:
    """The unit that a key's ending names.

    >>> unit_of("hit_kv_bytes_per_s"), unit_of("prefill_gpu_s_per_turn"), unit_of("tp")
    ('bytes/s', 's', '')
    """
    return next((unit for ending, unit in _UNITS if quantity.endswith(ending)), "")


def plan_csv(plan: Plan) -> str:
    """A plan as CSV text with a header line."""
    return to_csv(PLAN_COLUMNS, plan_rows(plan))


def terms_csv(terms: Iterable[Term]) -> str:
    """The terms of `explain` as CSV text with a header line."""
    return to_csv(TERM_COLUMNS, (tuple(getattr(t, c) for c in TERM_COLUMNS) for t in terms))


def to_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """CSV text: numbers to full precision, None as nothing, no text that is a formula."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return stream.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    text = plain(value)
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") and not _NUMBER(text) else text


def plan_rows(plan: Plan) -> Iterator[Row]:
    """The rows of `PLAN_COLUMNS`."""
    for key, value in plan.to_dict()["inputs"].items():
        yield "inputs", "", "", key, " ".join(value) if isinstance(value, list) else value, ""
    yield "result", "", "", "speedup", plan.speedup, ""
    yield "result", "", "", "speedup_own_best", plan.speedup_own_best, ""
    yield "result", "", "", "power_w", plan.power_w, "W"
    yield "result", "", "", "cost_usd_per_h", plan.cost_usd_per_h, "USD/h"
    for key, value in vars(plan.demand).items():
        yield "demand", "", "", key, value, unit_of(key)
    for side, engine in (("prefill", plan.prefill_engine), ("decode", plan.decode_engine)):
        for key, value in vars(engine).items():
            yield "engine", "", side, key, value, unit_of(key)
    for result in plan.strategies.values():
        yield from _strategy_rows(result)
    span = plan.bottleneck_free
    for key in ("p_over_d_min", "p_over_d_max", "p_over_d", "holds", "reason"):
        yield "bottleneck_free", "dual-path", "", key, getattr(span, key), unit_of(key)
    for term in span.terms:
        quantity = f"{term['kind'].replace(' ', '_')}_p_over_d"
        yield (
            "bottleneck_free",
            "dual-path",
            term["resource"],
            quantity,
            term["p_over_d"],
            "nodes/node",
        )
    for option in plan.node_options:
        item = f"{option.prefill_nodes}P{option.decode_nodes}D"
        for name, rate in option.turns_per_s.items():
            yield "nodes", name, item, "turns_per_s", rate, "turns/s"
            yield "nodes", name, item, "best", name in option.best_for, ""
        for key in ("prefill_nodes", "decode_nodes", "idle_nodes", "chosen"):
            yield "nodes", "", item, key, getattr(option, key), ""
        share = option.decode_read_fraction
        yield "nodes", "dual-path", item, "decode_read_fraction", share, "fraction"
        yield "nodes", "dual-path", item, "bottlenecks", " ".join(option.bottlenecks), ""
    for index, advice in enumerate(plan.advice, 1):
        yield "advice", "dual-path", str(index), "text", advice.text, ""
        yield "advice", "dual-path", str(index), "option", advice.option, ""
        yield "advice", "dual-path", str(index), "turns_per_s", advice.turns_per_s, "turns/s"
        yield "advice", "dual-path", str(index), "gain_fraction", advice.gain_fraction, "fraction"
    for section, lines in (("assumption", plan.assumptions), ("warning", plan.warnings)):
        for index, line in enumerate(lines, 1):
            yield section, "", str(index), section, line, ""


def _strategy_rows(result: StrategyResult) -> Iterator[Row]:
    for key in _RATES:
        yield "strategy", result.name, "", key, getattr(result, key), unit_of(key)
    yield "strategy", result.name, "", "bottlenecks", " ".join(result.bottlenecks), ""
    for name, share in result.utilisation.items():
        yield "utilisation", result.name, name, "utilisation", share, "fraction"
    for key in ("shadow_prices", "shadow_prices_if_more", "shadow_prices_if_less"):
        for name, price in getattr(result, key).items():
            yield "shadow_price", result.name, name, key, price, "fraction"
    for item in result.next_limits:
        where = ("next_limit", result.name, item.lifted)
        yield (*where, "turns_per_s", item.turns_per_s, "turns/s")
        yield (*where, "gain_fraction", item.gain_fraction, "fraction")
        yield (*where, "enough_factor", item.enough_factor, "")
        yield (*where, "bottlenecks", " ".join(item.bottlenecks), "")
