"""Which tokens of a prompt a workload counts as hit."""

from __future__ import annotations

from dataclasses import dataclass

from dpplan.demand import cache_layout
from dpplan.errors import BadInput, Fault
from dpplan.profiles.model import Model
from dpplan.traces.requests import TraceFacts
from dpplan.units import format_quantity

__all__ = ["Hits", "hit_basis"]


@dataclass(frozen=True)
class Hits:
    """Which tokens of a prompt count as hit."""

    kind: str
    """`ideal`, `lru`, `history` or `assumed`."""
    text: str
    capacity_blocks: int | None = None
    hit_fraction: float | None = None
    """Where assumed."""


def hit_basis(
    facts: TraceFacts,
    model: Model,
    cache_bytes: float | None,
    cache_blocks: int | None,
    conversations: int,
    hit_fraction: float | None,
) -> Hits:
    """Decide what counts as hit (H-workload); arguments and errors as `trace_workload`."""
    if hit_fraction is not None:
        text = f"assumption: {100 * hit_fraction:.4g} % of every prompt"
        return Hits("assumed", text, hit_fraction=hit_fraction)
    sized = cache_bytes is not None or cache_blocks is not None
    if facts.block_tokens is None:
        if facts.has_sessions and not sized:
            return Hits("history", "what the session had read and written before")
        needed = "a trace with block ids is needed" if sized else "block ids or sessions are needed"
        cure = "give --hit-fraction: the share of each prompt that is expected to hit"
        raise BadInput(Fault("trace", needed, f"{facts.format} without", cure))
    if not sized:
        return Hits("ideal", "block ids, in a cache that keeps everything")
    if conversations > 1 and not facts.scoped:
        needed = "a trace with a cache for each conversation is needed"
        raise BadInput(Fault("--conversations", needed, f"{facts.format}: one cache for all"))
    shared = conversations
    each = f", of each of {shared:,} conversations" if shared > 1 else ""
    if cache_blocks is None:
        assert cache_bytes is not None
        per_token = cache_layout(
            model.architecture,
            model.kv_element_bytes,
            model.index_element_bytes,
            model.state_element_bytes,
        ).bytes_per_token
        if not per_token:
            needed = "a model with KV that grows with the context is needed"
            raise BadInput(Fault("--cache", needed, model.name, "give --cache-blocks"))
        size = cache_bytes / shared / (facts.block_tokens * per_token)
        cache_blocks = int(min(size * (1 + 1e-12), 10**15))
        size_text = format_quantity(cache_bytes, "bytes")
        text = f"block ids, in an LRU cache of {size_text} = {cache_blocks:,} blocks"
        return Hits("lru", text + each, capacity_blocks=cache_blocks)
    blocks = cache_blocks // shared
    return Hits("lru", f"block ids, in an LRU cache of {blocks:,} blocks{each}", blocks)
