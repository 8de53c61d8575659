"""What a prediction is asked for: the load and the system, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dpplan.errors import Fault, did_you_mean
from dpplan.queueing import SYSTEMS, System

__all__ = ["Load", "choose_system", "load_faults"]

_MOST: Final = 1e9


@dataclass(frozen=True)
class Load:
    """A job of agents, arrivals of them, or the question how many may arrive."""

    agents: float | None
    agents_per_s: float | None
    capacity: bool


def choose_system(
    system: str | None,
    strategy: str | None,
    layerwise: bool | None,
    scheduler: str | None,
    faults: list[Fault],
) -> System | None:
    """A system by name or by its parts; None, and faults added, where they make none."""
    before = len(faults)
    if system is not None:
        given = {"strategy": strategy, "layerwise": layerwise, "scheduler": scheduler}
        twice = [f"--{name}" for name, value in given.items() if value is not None]
        if twice:
            needed = "a system, or its parts, is needed"
            faults.append(Fault("--system", needed, f"--system and {', '.join(twice)}"))
        if system not in SYSTEMS:
            cure = did_you_mean(system[:80], SYSTEMS)
            faults.append(Fault("--system", "a known system is needed", repr(system[:40]), cure))
        return SYSTEMS[system] if len(faults) == before else None
    kind = strategy or "dual-path"
    for option, value, known in (
        ("--strategy", kind, ("prefill-only", "dual-path", "oracle")),
        ("--scheduler", scheduler, ("round-robin", "adaptive")),
    ):
        if value is not None and value not in known:
            needed = f"one of {', '.join(known)} is needed"
            faults.append(Fault(option, needed, repr(value[:40]), did_you_mean(value[:80], known)))
    if scheduler is not None and kind in ("prefill-only", "oracle"):
        needed = "dual-path is needed: with one path there is no side to choose"
        faults.append(Fault("--scheduler", needed, f"{scheduler} with {kind}"))
    if layerwise is False and kind == "oracle":
        needed = "prefill-only or dual-path is needed: the oracle loads nothing"
        faults.append(Fault("--no-layerwise", needed, kind))
    if len(faults) > before:
        return None
    layered = True if layerwise is None else layerwise
    if kind == "prefill-only":
        return System("prefill-only", layered, None)
    if kind == "oracle":
        return SYSTEMS["oracle"]
    return System("dual-path", layered, "round-robin" if scheduler == "round-robin" else "adaptive")


def load_faults(load: Load, ttft_limit_s: float | None, tpot_limit_s: float | None) -> list[Fault]:
    """What is wrong with a load and its limits."""
    faults = []
    if load.agents is None and load.agents_per_s is None and not load.capacity:
        needed = "--agents N, --agents-per-s X or --capacity is needed"
        faults.append(Fault("load", needed, "none"))
    if load.agents is not None and (load.agents_per_s is not None or load.capacity):
        needed = "a job (--agents) or arrivals (--agents-per-s, --capacity) are needed"
        faults.append(Fault("--agents", needed, "both"))
    for option, value in (("--agents", load.agents), ("--agents-per-s", load.agents_per_s)):
        if value is not None and not 0 < value <= _MOST:
            needed = f"a number above 0, at most {_MOST:g}, is needed"
            faults.append(Fault(option, needed, repr(value)))
    if load.agents is not None and 0 < load.agents < 1:
        faults.append(Fault("--agents", "at least one agent is needed", repr(load.agents)))
    for option, value in (("ttft", ttft_limit_s), ("tpot", tpot_limit_s)):
        if value is not None and not value > 0:
            faults.append(Fault(f"--slo {option}", "a time above zero is needed", repr(value)))
    return faults
