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
    dram_blocks: int | None = None
    """Of a DRAM tier before storage, an LRU cache too."""
    hit_fraction: float | None = None
    """Where assumed."""


def hit_basis(
    facts: TraceFacts,
    model: Model,
    cache_bytes: float | None,
    cache_blocks: int | None,
    dram_bytes: float | None,
    conversations: int,
    hit_fraction: float | None,
) -> Hits:
    """Decide what counts as hit (H-workload); arguments and errors as `trace_workload`."""
    sized = cache_bytes is not None or cache_blocks is not None or dram_bytes is not None
    if conversations > 1 and not (facts.scoped and sized):
        needed = "a size of caches that conversations have of their own is needed"
        got = "no size" if facts.scoped else f"{facts.format}: one cache for all"
        raise BadInput(Fault("--conversations", needed, got, "leave it out"))
    if hit_fraction is not None:
        text = f"assumption: {100 * hit_fraction:.4g} % of every prompt"
        return Hits("assumed", text, hit_fraction=hit_fraction)
    if facts.block_tokens is None:
        if facts.has_sessions and not sized:
            return Hits("history", "what the session had read and written before")
        needed = "a trace with block ids is needed" if sized else "block ids or sessions are needed"
        cure = "give --hit-fraction: the share of each prompt that is expected to hit"
        raise BadInput(Fault("trace", needed, f"{facts.format} without", cure))
    shared_tokens = facts.block_tokens * conversations
    each = f", of each of {conversations:,} conversations" if conversations > 1 else ""
    blocks, text = None, "block ids, in a cache that keeps everything"
    if cache_bytes is not None:
        blocks = _blocks(model, cache_bytes, shared_tokens)
        size = format_quantity(cache_bytes, "bytes")
        text = f"block ids, in an LRU cache of {size} = {blocks:,} blocks{each}"
    elif cache_blocks is not None:
        blocks = cache_blocks // conversations
        text = f"block ids, in an LRU cache of {blocks:,} blocks{each}"
    dram = None if dram_bytes is None else _blocks(model, dram_bytes, shared_tokens)
    if dram is not None and blocks is not None:
        dram = min(dram, blocks)
    return Hits("ideal" if blocks is None else "lru", text, blocks, dram)


def _blocks(model: Model, size_bytes: float, block_tokens: int) -> int:
    """Blocks that a size holds, by the model's KV bytes a token (D1)."""
    per_token = cache_layout(
        model.architecture,
        model.kv_element_bytes,
        model.index_element_bytes,
        model.state_element_bytes,
    ).bytes_per_token
    if not per_token:
        needed = "a model with KV that grows with the context is needed"
        raise BadInput(Fault("--cache", needed, model.name, "give --cache-blocks"))
    return int(min(size_bytes / (block_tokens * per_token) * (1 + 1e-12), 10**15))
