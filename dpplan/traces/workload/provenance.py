"""Where a trace's workload is from: name, description and a source for each number."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from dpplan.profiles.schema import Source
from dpplan.traces.requests import TraceFacts
from dpplan.traces.statistics.trace_summary import TraceStats
from dpplan.traces.workload.hit_basis import Hits

__all__ = ["description_of", "profile_name", "sources_of"]

_FILES_NAMED: Final = 4


def profile_name(facts: TraceFacts) -> str:
    """A profile's name out of that of the first file, and how many more there are."""
    stem = Path(facts.files[0].name).name.split(".")[0] if facts.files else "trace"
    clean = re.sub(r"[^A-Za-z0-9_.+-]+", "-", stem).strip("-._+")[:60] or "trace"
    return f"{clean}+{len(facts.files) - 1}" if len(facts.files) > 1 else clean


def description_of(stats: TraceStats) -> str:
    """One line: how many requests, of what."""
    files = stats.facts.files
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    first = Path(files[0].name).name[:200] if files else "a trace"
    return f"{stats.requests:,} requests of {first}{more} ({stats.facts.format})"


def _reference(facts: TraceFacts) -> str:
    named = [f"{Path(file.name).name[:120]} (sha256 {file.sha256})" for file in facts.files]
    text, rest = "trace " + ", ".join(named[:_FILES_NAMED]), facts.files[_FILES_NAMED:]
    if rest:
        together = hashlib.sha256("".join(file.sha256 for file in rest).encode()).hexdigest()
        text += f" and {len(rest)} more (sha256 of their sha256 in order {together})"
    return text


def sources_of(
    stats: TraceStats, hits: Hits, basis: str, model: str | None, values: Mapping[str, float]
) -> tuple[dict[str, Source], list[str]]:
    """Where each number is from, and what a reader must know."""
    facts = stats.facts
    estimated = facts.token_source == "estimate"
    counted = "assumed" if estimated else "measured"
    short = f"trace {Path(facts.files[0].name).name[:120]}" if facts.files else "trace"
    if len(facts.files) > 1:
        short += f" and {len(facts.files) - 1} more"
    notes = list(stats.notes)

    def source(kind: str, what: str) -> Source:
        return Source.model_validate({"kind": kind, "reference": f"{short}: {what}"})

    # That everything is kept is no measurement.
    hit_kind = {"lru": counted, "history": "derived"}.get(hits.kind, "assumed")
    how = "; tokens estimated from text" if estimated else ""
    found = {
        "default": Source(kind="measured", reference=_reference(facts)),
        "context_tokens": source(hit_kind, f"hits of a turn, by {hits.text}{how}"),
        "append_tokens": source(hit_kind, f"misses of a turn, by {hits.text}{how}"),
        "output_tokens": source(counted, f"mean of a turn{how}"),
    }
    if hits.dram_blocks is not None:
        what = f"share of the hits that an LRU cache of {hits.dram_blocks:,} blocks has"
        found["dram_hit_fraction"] = source(counted, what)
    if hits.kind in ("ideal", "lru"):
        notes.append(
            "a block hits from its second prompt on, so what a turn generated counts as missed in "
            "the next prompt"
            if facts.outputs_have_ids
            else "in this workload outputs hit, too, where all blocks of the prompt before them do"
        )
    session_kind = {"named": "measured", "inferred": "derived"}.get(basis, "assumed")
    told = {
        "named": "of the trace's sessions",
        "inferred": "of sessions inferred from prompts that continue one another",
    }.get(basis, "assumed, not told by the trace")
    for key in ("turns_per_session", "session_tokens"):
        found[key] = source(session_kind, told)
    if "tool_gap_s" in values:
        found["tool_gap_s"] = (
            source("derived", "from request to request of inferred sessions, answer included")
            if basis == "inferred"
            else source("measured", "mean pause before a turn, of tools and people")
        )
    if model is None:
        found["model"] = Source(kind="assumed", reference="a trace names no model; --model does")
    if hits.kind == "lru":
        notes.append(
            "a calibration may store more KV a token than the model's profile says: the same bytes "
            "then hold fewer blocks"
        )
    if basis != "named":
        notes.append(f"turns and length of sessions: {told}")
    return found, notes
