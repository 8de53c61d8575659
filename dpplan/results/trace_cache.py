"""The frozen answer of `trace cache`: a trace on a cluster, by how much KV is kept."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dpplan.traces.statistics.working_set_law import WorkingSetCheck

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CachePlan", "CacheSize"]


@dataclass(frozen=True)
class CacheSize:
    """One amount of KV kept, and what the cluster does with it."""

    tier: str
    """What varies: "storage", "dram" before the storage given, or "ttl"."""
    storage_bytes: float | None
    """KV kept in storage, of all conversations that share it; None = no limit."""
    dram_bytes: float
    """KV in DRAM of all prefill nodes."""
    ttl_s: float | None
    """Blocks idle for longer are dropped; None = kept until the room is needed."""
    capacity_blocks: int | None
    """Blocks that fit in storage, of each conversation where caches are theirs."""
    hit_fraction: float
    """Of all input tokens, found in storage or DRAM."""
    hit_standard_error: float
    """Where blocks were sampled; 0 = exact."""
    dram_hit_fraction: float
    """Of the hits, found in DRAM."""
    context_tokens: float
    append_tokens: float
    """Hit and missed tokens of the mean turn."""
    prefill_nodes: int
    decode_nodes: int
    turns_per_s: float | None
    """Dual-path bound; None = nothing binds."""
    bottlenecks: tuple[str, ...]
    prefill_only_turns_per_s: float | None
    prefill_only_bottlenecks: tuple[str, ...]
    decode_read_fraction: float | None
    storage_read_bytes_per_turn: float
    storage_nic_load_fraction: float
    """Of the fuller side's storage NICs at the dual-path bound."""
    trace_read_bytes_per_s: float | None
    """From storage at the trace's own arrivals; None without a common clock."""
    is_enough: bool = False
    """The least of its tier beyond which more buys less than 1 % of the dual-path bound."""


@dataclass(frozen=True)
class CachePlan:
    """A trace on a cluster, by how much KV is kept: everything `dpplan trace cache` says."""

    hardware: str
    model: str
    counting: str
    settings: tuple[str, ...]
    format: str
    requests: int
    requests_per_s: float | None
    input_tokens_mean: float
    output_tokens_mean: float
    block_tokens: int
    kv_bytes_per_token: float
    unique_bytes: float
    """KV of all distinct blocks of the trace."""
    scoped: bool
    """Caches are per conversation."""
    conversations: int
    """How many share a size at a time, where caches are per conversation."""
    sizes: tuple[CacheSize, ...]
    working_set: WorkingSetCheck | None
    notes: tuple[str, ...]

    def of_tier(self, tier: str) -> tuple[CacheSize, ...]:
        """Rows in which one thing varies, by its size."""
        return tuple(row for row in self.sizes if row.tier == tier)

    def enough(self, tier: str) -> CacheSize | None:
        """The least size of a tier beyond which more buys less than 1 %."""
        return next((row for row in self.of_tier(tier) if row.is_enough), None)

    def to_dict(self) -> dict[str, Any]:
        """The JSON document `dpplan.trace_cache/1` as plain values."""
        plain: dict[str, Any] = {
            name: getattr(self, name)
            for name in self.__dataclass_fields__
            if name not in ("sizes", "working_set", "settings", "notes")
        }
        law = None if self.working_set is None else vars(self.working_set)
        return {
            "schema": "dpplan.trace_cache/1",
            **plain,
            "set": list(self.settings),
            "working_set": law,
            "enough_storage_bytes": getattr(self.enough("storage"), "storage_bytes", None),
            "enough_dram_bytes": getattr(self.enough("dram"), "dram_bytes", None),
            "enough_ttl_s": getattr(self.enough("ttl"), "ttl_s", None),
            "sizes": [
                {key: list(v) if isinstance(v, tuple) else v for key, v in vars(row).items()}
                for row in self.sizes
            ],
            "notes": list(self.notes),
        }

    def to_frame(self) -> pd.DataFrame:
        """One row a size."""
        import pandas as pd

        rows = [
            {key: ", ".join(v) if isinstance(v, tuple) else v for key, v in vars(row).items()}
            for row in self.sizes
        ]
        return pd.DataFrame(rows, columns=list(CacheSize.__dataclass_fields__))

    def _repr_html_(self) -> str:
        table = self.to_frame().to_html(index=False, escape=True, float_format="{:.4g}".format)
        return f"<p><b>{html.escape(self.model)} on {html.escape(self.hardware)}</b></p>{table}"
