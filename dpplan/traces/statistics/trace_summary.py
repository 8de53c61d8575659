"""The frozen answer of `trace stats`: plain values, mappings and DataFrames."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dpplan.frozen import freeze
from dpplan.traces.caches.cache import CacheResult
from dpplan.traces.caches.working_set import WorkingSet
from dpplan.traces.requests import TraceFacts
from dpplan.traces.statistics.arrivals import Arrivals
from dpplan.traces.statistics.distributions import Distribution
from dpplan.traces.statistics.inferred_sessions import InferredSessions
from dpplan.traces.statistics.session_turns import Sessions, TurnMean

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CurvePoint", "TraceStats"]


@dataclass(frozen=True)
class CurvePoint:
    """Hit rates of one size of cache (H-lru, H-per-block)."""

    capacity_blocks: int
    capacity_tokens: int | None
    """In full blocks; None where the trace doesn't tell their size."""
    lru_block_hit_fraction: float | None
    lru_token_hit_fraction: float | None
    lru_standard_error: float
    """Of the block hit fraction; 0 = exact."""
    per_block_lru_hit_fraction: float | None
    per_block_lru_token_hit_fraction: float | None


@dataclass(frozen=True, eq=False)
class TraceStats:
    """What a trace holds, and what caches would hit: everything `dpplan trace stats` says."""

    facts: TraceFacts
    requests: int
    sessions: int | None
    """None where the trace names none."""
    turns_per_session_mean: float | None
    """Requests of sessions, those of sub-agents too, per session."""
    input_tokens_mean: float | None
    output_tokens_mean: float | None
    arrivals: Arrivals
    distributions: dict[str, Distribution]
    """One number a turn."""
    session_distributions: dict[str, Distribution]
    """One number a session."""
    turns: Sessions | None
    inferred: InferredSessions | None
    """Where the trace names no sessions and has blocks."""
    cache: CacheResult
    asked: tuple[CurvePoint, ...]
    """At the capacities asked for."""
    curve: tuple[CurvePoint, ...]
    """At sizes up to where more gains nothing."""
    ttl_block_hit_fraction: dict[str, float]
    """By seconds, as text."""
    ttl_token_hit_fraction: dict[str, float]
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        """Mappings are read, never changed."""
        freeze(
            self,
            "distributions",
            "session_distributions",
            "ttl_block_hit_fraction",
            "ttl_token_hit_fraction",
        )

    @property
    def duration_s(self) -> float | None:
        """From the first arrival to the last; of the longest scope where clocks are apart."""
        return self.arrivals.duration_s

    @property
    def requests_per_s(self) -> float | None:
        """Requests / duration; None without a common clock."""
        return self.arrivals.requests_per_s

    @property
    def ideal_standard_error(self) -> float | None:
        """Of the ideal block hit fraction, an LRU cache without limit; 0 = exact."""
        cache = self.cache
        if cache.sampled_fraction == 1.0:
            return 0.0
        return None if cache.lru is None else float(cache.lru.standard_error(cache.unique_blocks))

    @property
    def working_set(self) -> WorkingSet | None:
        """Tokens in use over time; None where times are unknown or blocks are."""
        return self.cache.working_set

    @property
    def bad_lines(self) -> int:
        """Lines of all files that were left out."""
        return sum(file.bad_lines for file in self.facts.files)

    @property
    def growth(self) -> tuple[TurnMean, ...]:
        """Mean prompt by turn number, of the sessions named or else of those inferred."""
        told = self.turns or self.inferred
        return () if told is None else told.growth

    @property
    def growth_tokens_per_turn(self) -> float | None:
        """Mean gain of the prompt from one turn to the next of an agent."""
        told = self.turns or self.inferred
        return None if told is None else told.growth_tokens_per_turn

    @property
    def growth_basis(self) -> str | None:
        """What growth is told by: "sessions" of the trace or "inferred sessions"."""
        if self.turns is not None:
            return "sessions"
        return None if self.inferred is None else "inferred sessions"

    def to_dict(self) -> dict[str, Any]:
        """JSON of the command line, schema `dpplan.trace_stats/1`."""
        cache = self.cache
        found = {
            "schema": "dpplan.trace_stats/1",
            "requests": self.requests,
            "sessions": self.sessions,
            "duration_s": self.duration_s,
            "requests_per_s": self.requests_per_s,
            "input_tokens_mean": self.input_tokens_mean,
            "output_tokens_mean": self.output_tokens_mean,
            "turns_per_session_mean": self.turns_per_session_mean,
            "ideal_block_hit_fraction": cache.ideal_block_hit_fraction,
            "ideal_token_hit_fraction": cache.ideal_token_hit_fraction,
            "ideal_standard_error": self.ideal_standard_error,
            **{
                name: {str(p.capacity_blocks): getattr(p, name) for p in self.asked}
                for name in (
                    "lru_block_hit_fraction",
                    "lru_token_hit_fraction",
                    "lru_standard_error",
                    "per_block_lru_hit_fraction",
                )
            },
            "ttl_block_hit_fraction": self.ttl_block_hit_fraction,
            "ttl_token_hit_fraction": self.ttl_token_hit_fraction,
            "blocks": cache.blocks,
            "unique_blocks": cache.unique_blocks,
            "unique_tokens": cache.unique_tokens,
            "input_tokens": cache.tokens,
            "sampled_fraction": cache.sampled_fraction,
            "growth_tokens_per_turn": self.growth_tokens_per_turn,
            "growth_basis": self.growth_basis,
            "distributions": _labelled("turn", self.distributions),
            "session_distributions": _labelled("session", self.session_distributions),
            "turns": self._turns(),
            "inferred_sessions": self._inferred(),
            "context_by_turn": self.growth,
            "arrivals": {
                **vars(self.arrivals),
                "dispersion": {str(window): index for window, index in self.arrivals.dispersion},
            },
            "curve": self.curve,
            "working_set": self.working_set,
            "format": self.facts.format,
            "block_tokens": self.facts.block_tokens,
            "token_source": self.facts.token_source,
            "scoped": self.facts.scoped,
            "files": self.facts.files,
            "bad_lines": self.bad_lines,
            "faults": self.facts.faults,
            "notes": self.notes,
        }
        plain: dict[str, Any] = _plain(found)
        return plain

    def _turns(self) -> dict[str, Any] | None:
        if self.turns is None:
            return None
        names = ("subagents", "subagent_turns", "appends", "negative_appends")
        counts = {name: getattr(self.turns, name) for name in names}
        appends, negative = counts["appends"], counts["negative_appends"]
        return {**counts, "negative_append_fraction": negative / appends if appends else None}

    def _inferred(self) -> dict[str, Any] | None:
        found = self.inferred
        if found is None:
            return None
        return {
            "basis": "prefixes of prompts, not what the trace says",
            "sessions": found.sessions,
            "single_turns": found.single_turns,
            "turns_per_session_mean": found.by_session["turns_per_session"].mean,
            "forks": found.forks,
            "without_room": found.without_room,
            "head_blocks": found.head_blocks,
            "distributions": _labelled("turn", found.by_turn),
            "session_distributions": _labelled("session", found.by_session),
        }

    def inferred_distributions(self, weighting: str) -> dict[str, Distribution]:
        """Distributions of inferred sessions, one number a `turn` or one a `session`."""
        found = self.inferred
        if found is None:
            return {}
        return found.by_turn if weighting == "turn" else found.by_session

    def to_frame(self) -> pd.DataFrame:
        """The single numbers, one a row."""
        import pandas as pd

        rows = [
            {"quantity": name, "value": value}
            for name, value in self.to_dict().items()
            if value is None or isinstance(value, (int, float))
        ]
        return pd.DataFrame(rows, columns=["quantity", "value"])

    def distributions_frame(self) -> pd.DataFrame:
        """One row a distribution: how it is weighted, mean, deviation, percentiles."""
        import pandas as pd

        rows = [
            {"quantity": name, "weighting": weighting, **kept.to_dict()}
            for weighting, group in (
                ("turn", self.distributions),
                ("session", self.session_distributions),
            )
            for name, kept in group.items()
        ]
        return pd.DataFrame(rows)

    def curve_frame(self) -> pd.DataFrame:
        """Hit rates against cache size, one size a row."""
        import pandas as pd

        return pd.DataFrame([vars(p) for p in self.curve], columns=list(CurvePoint.__annotations__))

    def growth_frame(self) -> pd.DataFrame:
        """Mean prompt by turn number."""
        import pandas as pd

        return pd.DataFrame([vars(p) for p in self.growth], columns=list(TurnMean.__annotations__))

    def _repr_html_(self) -> str:
        names = html.escape(", ".join(file.name for file in self.facts.files))
        kind = html.escape(self.facts.format)
        table = self.to_frame().to_html(index=False, escape=True, float_format="{:.4g}".format)
        return f"<p><b>{names}</b> ({kind}): {self.requests:,} requests</p>{table}"


def _labelled(weighting: str, group: dict[str, Distribution]) -> dict[str, Any]:
    return {name: {"weighting": weighting, **kept.to_dict()} for name, kept in group.items()}


def _plain(value: Any) -> Any:
    """Values that JSON has: no arrays, no NaN."""
    if hasattr(value, "__dataclass_fields__"):
        return _plain(vars(value))
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(inner) for inner in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
