"""Errors a user can act on, and the exit codes they end in.

Every message reads `where: what is needed, got what; what to do`. A `BadInput` carries all the
faults of a file, not the first one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = [
    "BadInput",
    "DpplanError",
    "Drift",
    "Fault",
    "Infeasible",
    "UncertifiedAnswer",
    "did_you_mean",
]


@dataclass(frozen=True)
class Fault:
    """One thing wrong with an input, and its cure."""

    where: str
    """File, line and key, or the command-line option."""
    needed: str
    """What is needed there."""
    got: str = ""
    """What stands there instead."""
    cure: str = ""
    """What to do."""

    def __str__(self) -> str:
        text = f"{self.where}: {self.needed}"
        if self.got:
            text += f", got {self.got}"
        if self.cure:
            text += f"; {self.cure}"
        return text


class DpplanError(Exception):
    """Base of all errors that are messages, not bugs."""

    exit_code = 1


class BadInput(DpplanError):
    """A profile, an option or an argument is wrong (exit code 2)."""

    exit_code = 2

    def __init__(self, faults: Fault | Iterable[Fault]) -> None:
        self.faults: tuple[Fault, ...] = (faults,) if isinstance(faults, Fault) else tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class Infeasible(DpplanError):
    """No plan exists: an answer that names the clashing limits (exit code 3)."""

    exit_code = 3

    def __init__(self, reason: str, limits: Sequence[str] = ()) -> None:
        self.reason = reason
        self.limits = tuple(limits)
        super().__init__(reason)


class Drift(DpplanError):
    """Predictions left their tolerance: the answer of a check (exit code 4)."""

    exit_code = 4


class UncertifiedAnswer(DpplanError):
    """A solver's answer failed its certificate: never shown as a plan."""


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Name the closest candidate, or list what there is.

    >>> did_you_mean("h80", ["h800", "a100"])
    'did you mean h800?'
    >>> did_you_mean("zzz", ["h800", "a100"])
    'choose from a100, h800'
    """
    options = sorted(set(candidates))
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    return f"choose from {', '.join(options)}" if options else ""
