"""The serving systems that a prediction can be made for, by the names of the DualPath paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["SYSTEMS", "Scheduler", "Strategy", "System"]

Strategy = Literal["prefill-only", "dual-path", "oracle"]
Scheduler = Literal["round-robin", "adaptive"]


@dataclass(frozen=True)
class System:
    """How a system reads hit KV, and whether layers and storage NICs are scheduled."""

    strategy: Strategy
    layerwise: bool
    """KV of one layer at a time in HBM, so that loads overlap compute."""
    scheduler: Scheduler | None
    """Who picks the side that reads; None where there is no choice of side."""

    @property
    def name(self) -> str:
        """The paper's name for it, or its parts."""
        for name, system in SYSTEMS.items():
            if system == self:
                return name
        parts = [self.strategy, "layerwise" if self.layerwise else "not layerwise"]
        return ", ".join([*parts, self.scheduler] if self.scheduler else parts)


SYSTEMS: Final[dict[str, System]] = {
    "basic": System("prefill-only", False, None),
    "basic+layerwise": System("prefill-only", True, None),
    "basic+layerwise+dualpath": System("dual-path", True, "round-robin"),
    "dualpath": System("dual-path", True, "adaptive"),
    "oracle": System("oracle", True, None),
}
"""As in the paper's Figures 7 and 12; `basic` is prefill-only without layerwise prefill."""
