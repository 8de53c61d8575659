"""A workload out of a trace for a person: its means, how sure each is, where each is from."""

from __future__ import annotations

from typing import Final

from dpplan.report.document import Column, Document, Items, Paragraph, Section, Table
from dpplan.report.words import number, percent, seconds
from dpplan.traces.workload.trace_workload import TraceWorkload
from dpplan.traces.workload.turn_sums import Mean

__all__ = ["workload_document"]

_NAMES: Final = {
    "context_tokens": "context: tokens of a turn that hit",
    "append_tokens": "append: tokens of a turn that miss",
    "output_tokens": "output: tokens that a turn generates",
    "turns_per_session": "turns of a session",
    "session_tokens": "tokens of a session at its end",
    "tool_gap_s": "pause before a turn",
}
_KINDS: Final = {"named": "", "inferred": ", inferred", "assumed": ", assumed"}


def workload_document(found: TraceWorkload, name: str, target: str | None = None) -> Document:
    """The report of a workload profile made from a trace.

    Parameters
    ----------
    found : TraceWorkload
    name : str
        What the trace is called.
    target : str, optional
        File that the profile is written to.
    """
    profile = found.profile
    rows = tuple(
        (
            _NAMES[key] + (_KINDS[found.sessions] if key in _OF_SESSIONS else ""),
            _shown(key, mean.value),
            _span(key, mean),
            f"{mean.units:,}" if mean.units else "-",
        )
        for key, mean in found.means.items()
    )
    columns = (
        Column("mean of"),
        Column("value", align="right"),
        Column("90 % interval"),
        Column("draws", align="right"),
    )
    draws = (
        "A session is one draw: its turns are alike and tell no more than one."
        if found.unit == "sessions"
        else f"Neighbouring requests are alike: {found.unit} count as one draw."
    )
    said = [f"Hits by {found.hits.text}.", draws]
    if found.hits.dram_blocks is not None:
        share = percent(profile.dram_hit_fraction)
        said.append(f"{share} of the hits are in {found.hits.dram_blocks:,} blocks of DRAM.")
    sections = [
        Section("Workload", (Table(columns, rows),)),
        Section("What it rests on", (Items((*said, *found.notes)),)),
    ]
    said_use = (
        f"dpplan optimize --hw HW --workload {target}"
        if target
        else "-o FILE.yaml writes the profile; dpplan optimize --hw HW --trace FILE plans at once."
    )
    use = Paragraph(said_use, is_note=True)
    sections.append(Section("Use", (use,)))
    headline = (
        f"{name}: a turn of {number(profile.context_tokens)} tokens hit and "
        f"{number(profile.append_tokens)} missed ({percent(found.hit_fraction)} hit), "
        f"{number(profile.output_tokens)} generated; {number(profile.turns_per_session)} turns a "
        "session"
    )
    return Document(headline, tuple(sections))


_OF_SESSIONS: Final = ("turns_per_session", "session_tokens")


def _shown(key: str, value: float) -> str:
    return seconds(value) if key.endswith("_s") else number(value)


def _span(key: str, mean: Mean) -> str:
    span = mean.interval
    return "not told" if span is None else f"{_shown(key, span[0])} to {_shown(key, span[1])}"
