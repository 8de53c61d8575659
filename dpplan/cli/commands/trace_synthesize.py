"""`dpplan trace synthesize`."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dpplan.cli import output
from dpplan.cli.files import write_file
from dpplan.errors import BadInput, Fault

if TYPE_CHECKING:
    from dpplan.profiles.workload import TurnClass
    from dpplan.traces.synthesis.measured_law import MeasuredLaw
    from dpplan.traces.synthesis.session_law import SessionLaw

__all__ = ["run_synthesize"]

_GZIP: Final = 31
"""zlib's name for the gzip format, whose header then holds no name and no time."""
_OFF: Final = 0.01


def run_synthesize(
    workload: str, sessions: int, seed: int, agents_per_s: float, target: str | None, force: bool
) -> None:
    """Draw sessions and write them."""
    if target is None or target in ("", "-") or "\0" in target:
        got = "none" if target is None else repr(target[:60])
        raise BadInput(Fault("--output", "a file to write is needed", got, "-o FILE.jsonl[.gz]"))
    path = Path(target)
    if not force and path.exists():
        needed = "a file that does not exist is needed"
        raise BadInput(Fault(f"--output {path}", needed, "an existing one", "add --force"))
    with output.quick_start():
        from dpplan.profiles.library import read_profile
        from dpplan.profiles.workload import TurnClass
        from dpplan.traces.synthesis.trace_synthesize import trace_lines
    profile = read_profile("workloads", workload)
    if not isinstance(profile, TurnClass):
        needed, cure = "a workload of one class of turns is needed", "synthesize its classes"
        raise BadInput(Fault("--workload", needed, f"the mix {workload}", cure))
    warnings = _warnings(profile)
    lines: Iterable[bytes] = trace_lines(profile, sessions, seed, agents_per_s)
    if path.suffix.lower() == ".gz":
        lines = _compressed(lines)
    elif path.suffix.lower() in (".zst", ".zstd"):
        lines = _zstd(lines)
    write_file(path, lines, "--output", overwrite=force)
    for warning in warnings:
        output.message(f"warning: {warning}")
    output.message(f"wrote {path}: {sessions:,} session{'s' if sessions > 1 else ''}")


def _warnings(profile: TurnClass) -> list[str]:
    """Means of the profile that contradict its others, and what the trace has instead."""
    from dpplan.traces.synthesis.measured_law import law_of

    law, found = law_of(profile), []
    for name in (
        "turns_per_session",
        "context_tokens",
        "append_tokens",
        "output_tokens",
        "session_tokens",
    ):
        wanted, due = getattr(profile, name), getattr(law, name)
        if abs(due - wanted) > _OFF * max(wanted, 1.0):
            found.append(
                f"workload {profile.name}: contexts that only grow cannot have all its means; "
                f"{name} of the trace has a mean of {due:,.4g}, not {wanted:,.10g}"
            )
    return found + _over_turns(law, profile)


def _over_turns(law: SessionLaw | MeasuredLaw, profile: TurnClass) -> list[str]:
    """What `trace workload` will find of the trace, where that is not what the profile says."""
    head = law.first_prompt_tokens / law.turns_per_session
    found = []
    for name, due, wanted, reason in (
        (
            "hits",
            law.context_tokens - head,
            profile.context_tokens,
            "first prompts of made-up sessions hit nothing",
        ),
        (
            "outputs",
            law.output_over_turns_tokens,
            profile.output_tokens,
            "long sessions have shorter turns, and more of them",
        ),
    ):
        if abs(due - wanted) > 3 * _OFF * max(wanted, 1.0):
            found.append(
                f"over turns, {name} of the trace have a mean of {due:,.4g}, not {wanted:,.4g}: "
                f"{reason}"
            )
    return found


def _zstd(parts: Iterable[bytes]) -> Iterator[bytes]:
    import zstandard

    packer = zstandard.ZstdCompressor().compressobj()
    for part in parts:
        yield packer.compress(part)
    yield packer.flush()


def _compressed(parts: Iterable[bytes]) -> Iterator[bytes]:
    """A gzip file of the parts; the same parts give the same file."""
    packer = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
    for part in parts:
        yield packer.compress(part)
    yield packer.flush()
