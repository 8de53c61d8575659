"""Statistics of a trace as one tidy CSV table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from dpplan.report.renderers.csv import unit_of
from dpplan.traces.statistics.trace_summary import TraceStats

__all__ = ["STATS_COLUMNS", "stats_rows"]

STATS_COLUMNS: Final = ("section", "item", "weighting", "quantity", "value", "unit")


def stats_rows(found: TraceStats) -> Iterator[tuple[Any, ...]]:
    """The rows of `STATS_COLUMNS`: the numbers of the JSON document, but for its series over time.

    Parameters
    ----------
    found : TraceStats

    Yields
    ------
    tuple
        Section, what it is of, weighting of a distribution, key, value, unit.
    """
    told = found.to_dict()
    for key, value in told.items():
        if value is None or isinstance(value, (str, int, float)):
            yield "trace", "", "", key, value, _unit(key)
    for section in ("distributions", "session_distributions"):
        yield from _distribution_rows(section, told[section])
    for section in ("turns", "inferred_sessions", "arrivals"):
        for key, value in (told[section] or {}).items():
            if value is None or isinstance(value, (str, int, float)):
                yield section, "", "", key, value, _unit(key)
    for section in ("distributions", "session_distributions"):
        inferred = (told["inferred_sessions"] or {}).get(section, {})
        yield from _distribution_rows(f"inferred_{section}", inferred)
    for window, index in told["arrivals"]["dispersion"].items():
        yield "arrivals", f"{window} s", "", "dispersion", index, ""
    for key in (
        "lru_block_hit_fraction",
        "lru_token_hit_fraction",
        "lru_standard_error",
        "per_block_lru_hit_fraction",
    ):
        for capacity, value in told[key].items():
            yield "capacity", f"{capacity} blocks", "", key, value, "fraction"
    for key in ("ttl_block_hit_fraction", "ttl_token_hit_fraction"):
        for ttl, value in told[key].items():
            yield "ttl", f"{ttl} s", "", key, value, "fraction"
    for point in told["curve"]:
        item = f"{point['capacity_blocks']} blocks"
        for key, value in point.items():
            yield "curve", item, "", key, value, _unit(key)
    for point in told["context_by_turn"]:
        for key in ("requests", "input_tokens_mean"):
            yield "context_by_turn", f"turn {point['turn']}", "", key, point[key], _unit(key)
    if (held := told["working_set"]) is not None:
        for n, window_s in enumerate(held["windows_s"]):
            item = f"last {window_s:g} s"
            yield "working_set", item, "", "mean_tokens", held["mean_tokens"][n], "tokens"
            yield "working_set", item, "", "peak_tokens", held["peak_tokens"][n], "tokens"
    for file in told["files"]:
        for key, value in file.items():
            yield "files", file["name"], "", key, value, _unit(key)
    for section in ("faults", "notes"):
        for index, line in enumerate(told[section], 1):
            yield section, str(index), "", section[:-1], line, ""


def _distribution_rows(section: str, group: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    for name, kept in group.items():
        weighting = kept["weighting"]
        for key, value in kept.items():
            if key != "weighting":
                unit = "" if key == "count" else "fraction" if "error" in key else _unit(name)
                yield section, name, weighting, key, value, unit


def _unit(key: str) -> str:
    if key.endswith(("_tokens_mean", "_tokens_per_turn")):
        return "tokens"
    if key == "bytes":
        return "bytes"
    if key.endswith(("requests_per_s", "per_s_per_scope")):
        return "requests/s"
    return unit_of(key)
