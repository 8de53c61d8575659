"""`dpplan trace workload`, and workloads of traces for other commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dpplan.cli import output
from dpplan.cli.arguments import check_choice
from dpplan.cli.commands.optimize import write_document
from dpplan.cli.commands.trace_reading import Source, memory_bytes, opened
from dpplan.cli.files import write_file
from dpplan.errors import BadInput, Fault

if TYPE_CHECKING:
    from dpplan.profiles.workload import TurnClass
    from dpplan.traces.workload.trace_workload import TraceWorkload

__all__ = ["WorkloadQuestion", "run_workload", "workload_option"]


@dataclass(frozen=True)
class WorkloadQuestion:
    """What the options ask for."""

    name: str | None = None
    model: str | None = None
    cache: str | None = None
    cache_blocks: int | None = None
    dram: str | None = None
    conversations: int = 1
    hit_fraction: float | None = None
    turns: float | None = None
    memory: str | None = None


def run_workload(
    source: Source, question: WorkloadQuestion, target: str | None, force: bool, format: str
) -> None:
    """Read, put a profile together, write it and say how sure it is."""
    faults = check_choice("--format", format, ("table", "json", "markdown")) + source.faults()
    path = None if target is None else Path(target)
    if target is not None and (not target or "\0" in target):
        faults.append(Fault("--output", "a file to write is needed", repr(target[:60])))
    elif path is not None and not force and path.exists():
        needed, where = "a file that does not exist is needed", f"--output {path}"
        faults.append(Fault(where, needed, "an existing one", "add --force"))
    found = _read(source, question, faults)
    if path is not None:
        from dpplan.profiles.yaml_writer import profile_text

        text = profile_text(found.profile.to_document(), _comments(found))
        write_file(path, text.encode(), "--output", overwrite=force)
    if format == "json":
        output.json_document(found.to_dict())
        for note in found.notes:
            output.message(f"note: {note}")
    else:
        from dpplan.report.documents.trace_workload import workload_document

        write_document(workload_document(found, source.name, target), format)
    if path is not None:
        output.message(f"wrote {path}")


def workload_option(
    workload: str,
    is_given: bool,
    traces: Sequence[str] | None,
    cache: str | None,
    hit_fraction: float | None,
    model: str | None,
) -> str | TurnClass:
    """`--workload`, or in its place the workload of `--trace`.

    Raises
    ------
    BadInput
        If both are given, an option asks for a trace that isn't, or the trace is wrong.
    """
    if not traces:
        wrong = [
            Fault(option, "--trace FILE is needed with it", "none")
            for option, value in (("--cache", cache), ("--hit-fraction", hit_fraction))
            if value is not None
        ]
        if wrong:
            raise BadInput(wrong)
        return workload
    faults = []
    if is_given:
        needed = "either a workload or a trace is needed"
        faults.append(Fault("--trace", needed, f"--workload {workload[:60]} too", "keep one"))
    asked = WorkloadQuestion(model=model, cache=cache, hit_fraction=hit_fraction)
    found = _read(Source(tuple(traces)), asked, faults)
    for note in found.notes:
        output.message(f"note: {note}")
    return found.profile


def _read(source: Source, question: WorkloadQuestion, faults: list[Fault]) -> TraceWorkload:
    cache = _size("--cache", question.cache, faults)
    dram = _size("--dram", question.dram, faults)
    most_bytes = memory_bytes(question.memory, faults)
    if faults:
        raise BadInput(faults)
    with output.quick_start():
        from dpplan.traces.workload.trace_workload import trace_workload
    with opened(source) as trace:
        return trace_workload(
            trace,
            name=question.name,
            model=question.model,
            cache_bytes=cache,
            cache_blocks=question.cache_blocks,
            dram_bytes=dram,
            conversations=question.conversations,
            hit_fraction=question.hit_fraction,
            turns_per_session=question.turns,
            memory_bytes=most_bytes,
        )


def _size(option: str, text: str | None, faults: list[Fault]) -> float | None:
    from dpplan.units import parse_quantity

    if text is None:
        return None
    try:
        return parse_quantity(text, "bytes")
    except ValueError as error:
        faults.append(Fault(option, str(error), repr(text[:40])))
        return None


def _comments(found: TraceWorkload) -> list[str]:
    """What the profile's keys can't hold: errors of its means, and what to know."""
    from dpplan import __version__
    from dpplan.report.words import plain

    lines = [
        f"Made by dpplan {__version__}, trace workload. 90 % intervals of the means, of "
        f"{found.unit} as independent draws:"
    ]
    for key, mean in found.means.items():
        span = mean.interval
        told = "not told" if span is None else f"{span[0]:.6g} to {span[1]:.6g}"
        lines.append(f"  {key}: {told}")
    return [plain(line) for line in (*lines, *(f"Note: {note}" for note in found.notes))]
