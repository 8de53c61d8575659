"""D2 prefill FLOP and D4 the cache-compute ratio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from dpplan.arrays import Array
from dpplan.profiles.architecture import Architecture, LayerGroup

__all__ = ["Counting", "PrefillFlop", "attended_pairs", "cache_compute_ratio", "prefill_flop"]

Counting = Literal["paper", "full"]


@dataclass(frozen=True)
class PrefillFlop:
    """FLOP of one turn's prefill by the kernel that spends them, each of broadcast shape."""

    gemm: Array
    """Weights: 2 FLOP per active parameter and token."""
    attention: Array
    """Scores, weighted sums, recurrent updates, MLA up-projection of cached latents."""
    index: Array
    """Scoring of the sparse-attention indexer."""

    @property
    def total(self) -> Array:
        """All FLOP of the turn."""
        return np.asarray(self.gemm + self.attention + self.index)


def attended_pairs(
    context_tokens: npt.ArrayLike,
    append_tokens: npt.ArrayLike,
    at_most: float | None = None,
    tokens_per_entry: float = 1.0,
) -> Array:
    """Query-entry pairs of a causal prefill of `a` tokens on `c` cached ones (D2).

    sum over i = 1..a of min(at_most, (c + i) / m); without a limit (a*c + a*(a+1)/2) / m.

    Parameters
    ----------
    context_tokens, append_tokens : array_like
        c and a [tokens], broadcast together.
    at_most : float, optional
        Entries a query may attend to (top-k or window).
    tokens_per_entry : float
        m, tokens one entry stands for.

    Returns
    -------
    ndarray
        Pairs, broadcast shape.

    Examples
    --------
    >>> float(attended_pairs(10, 3))
    36.0
    >>> float(attended_pairs(10, 3, at_most=12))
    35.0
    """
    context = np.asarray(context_tokens, dtype=float)
    append = np.asarray(append_tokens, dtype=float)
    below = append
    if at_most is not None:
        below = np.clip(np.floor(at_most * tokens_per_entry - context), 0.0, append)
    pairs = (below * context + below * (below + 1) / 2) / tokens_per_entry
    return np.asarray(pairs if at_most is None else pairs + (append - below) * at_most)


def prefill_flop(
    architecture: Architecture,
    context_tokens: npt.ArrayLike,
    append_tokens: npt.ArrayLike,
    *,
    counting: Counting = "full",
    active_parameters: float | None = None,
) -> PrefillFlop:
    """FLOP to prefill `a` tokens on a cached context of `c` (D2).

    full: 2*N*a without embedding tables, plus one token's logits; attention over all causal pairs,
    MLA in the cheaper of absorbed and expanded form, windows, recurrent updates and indexer.
    paper: 2*N_active*a + 2*heads*(d_qk+d_v)*layers*a*min(top_k, c), MLA absorbed, only layers
    whose cache grows with the context (Table 1).

    Parameters
    ----------
    architecture : Architecture
    context_tokens, append_tokens : array_like
        c and a [tokens], broadcast together.
    counting : {"full", "paper"}
    active_parameters : float, optional
        The maker's N_active for `paper`; absent = counted from the architecture.

    Returns
    -------
    PrefillFlop
        FLOP per turn, broadcast shape.

    References
    ----------
    DualPath, arXiv 2602.21548, Table 1; DeepSeek-V2 (arXiv 2405.04434) for the two MLA forms.
    """
    context, append = np.broadcast_arrays(
        np.asarray(context_tokens, dtype=float), np.asarray(append_tokens, dtype=float)
    )
    counts = architecture.parameters
    attention = np.zeros_like(context)
    index = np.zeros_like(context)
    if counting == "paper":
        active = counts.active if active_parameters is None else active_parameters
        for group in architecture.layer_groups:
            entries = context / group.tokens_per_entry
            if group.kv_elements_per_entry:
                chosen = (
                    entries
                    if group.top_k_entries is None
                    else np.minimum(entries, group.top_k_entries)
                )
                per_pair = 2.0 * group.heads * (group.qk_dim + group.v_dim)
                attention = attention + group.layers * per_pair * append * chosen
                index = index + group.layers * _index_flop_per_pair(group) * append * entries
        return PrefillFlop(np.asarray(2.0 * active * append), attention, index)
    gemm = (
        2.0 * (counts.body + counts.routed_experts_active) * append
        + 2.0 * counts.head_flop_parameters
    )
    for group in architecture.layer_groups:
        attention = attention + group.layers * _attention_flop(group, context, append)
        scored = attended_pairs(context, append, tokens_per_entry=group.tokens_per_entry)
        index = index + group.layers * _index_flop_per_pair(group) * scored
    return PrefillFlop(np.asarray(gemm), attention, index)


def _index_flop_per_pair(group: LayerGroup) -> float:
    return 2.0 * group.index_heads * group.index_dim


def _attention_flop(group: LayerGroup, context: Array, append: Array) -> Array:
    """FLOP of one layer of a group, `full` counting."""
    flop = group.recurrent_flop_per_token * append
    per_pair = 2.0 * group.heads * (group.qk_dim + group.v_dim)
    if group.window_tokens:
        flop = flop + per_pair * attended_pairs(context, append, at_most=group.window_tokens)
    if group.kv_elements_per_entry:
        pairs = attended_pairs(context, append, group.top_k_entries, group.tokens_per_entry)
        absorbed = per_pair * pairs
        if group.latent_dim:
            # The new tokens' own up-projection is in the weights' 2*N*a already.
            up = 2.0 * group.latent_dim * group.heads * group.expanded_up_dim * context
            expanded = (
                2.0 * group.heads * (group.expanded_qk_dim + group.expanded_v_dim) * pairs + up
            )
            absorbed = np.minimum(absorbed, expanded)
        flop = flop + absorbed
    return np.asarray(flop)


def cache_compute_ratio(hit_kv_bytes: npt.ArrayLike, prefill_flop_per_turn: npt.ArrayLike) -> Array:
    """Hit KV bytes per prefill FLOP (D4) [GB/PFLOP].

    >>> float(cache_compute_ratio(22e9, 1e15))
    22.0
    """
    loaded = np.asarray(hit_kv_bytes, dtype=float) / 1e9
    return np.asarray(loaded / (np.asarray(prefill_flop_per_turn, dtype=float) / 1e15))
