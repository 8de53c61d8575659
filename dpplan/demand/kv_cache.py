"""D1 bytes of KV cache, D3 hit rate, D5 what a turn writes back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpplan.arrays import Array
from dpplan.profiles.architecture import Architecture

__all__ = [
    "BLOCK_TOKENS",
    "CacheLayout",
    "cache_layout",
    "hit_rate",
    "persisted_tokens",
    "sequence_bytes",
]


BLOCK_TOKENS = 64
"""Tokens of a storage block (DualPath, sec. 6): KV is persisted in full blocks only."""

_CONV_STATE_BYTES = 2.0
"""A short convolution's state is kept in the activation dtype, 16 bit."""


@dataclass(frozen=True)
class CacheLayout:
    """What one sequence's cache occupies, all layers together."""

    bytes_per_token: float
    """Grows with every token of context (D1) [bytes/token]."""
    windows: tuple[tuple[float, float], ...] = ()
    """Sliding windows: (tokens, bytes per token up to that many tokens)."""
    state_bytes: float = 0.0
    """Recurrent state, constant per sequence [bytes]."""
    index_bytes_per_token: float = 0.0
    """The part of `bytes_per_token` that is indexer keys [bytes/token]."""


def cache_layout(
    architecture: Architecture,
    kv_element_bytes: float,
    index_element_bytes: float | None = None,
    state_element_bytes: float = 4.0,
) -> CacheLayout:
    """Bytes that a sequence keeps per token, per window and at all (D1).

    kv_bytes_per_token = sum over layers of entry elements * dtype bytes / tokens per entry, where
    an entry is a K and V pair of all KV heads (2*kv_heads*head_dim), or an MLA latent
    (rank + rope), or a compressed block, plus the indexer's key where a layer keeps one.

    Parameters
    ----------
    architecture : Architecture
    kv_element_bytes, index_element_bytes, state_element_bytes : float
        Bytes per element of KV cache, indexer key (absent = as KV) and recurrent state.

    Returns
    -------
    CacheLayout

    References
    ----------
    DualPath, arXiv 2602.21548, sec. 2; DeepSeek-V3.2 report for the indexer.

    Examples
    --------
    MLA of DeepSeek-V3, one layer, FP8:

    >>> from dpplan.profiles.architecture import Architecture, LayerGroup, ParameterCounts
    >>> mla = LayerGroup("MLA", 1, kv_elements_per_entry=512 + 64)
    >>> a = Architecture((mla,), 7168, 129280, ParameterCounts(0, 0, 0, 0, 0))
    >>> cache_layout(a, 1.0).bytes_per_token
    576.0
    """
    index_bytes = kv_element_bytes if index_element_bytes is None else index_element_bytes
    per_token = index_per_token = state = 0.0
    windows: dict[float, float] = {}
    for group in architecture.layer_groups:
        per_token += (
            group.layers * group.kv_elements_per_entry * kv_element_bytes / group.tokens_per_entry
        )
        index_per_token += (
            group.layers * group.index_elements_per_entry * index_bytes / group.tokens_per_entry
        )
        if group.window_tokens:
            size = group.layers * group.window_kv_elements_per_token * kv_element_bytes
            windows[group.window_tokens] = windows.get(group.window_tokens, 0.0) + size
        state += group.layers * (
            group.state_elements * state_element_bytes
            + group.conv_state_elements * _CONV_STATE_BYTES
        )
    return CacheLayout(
        bytes_per_token=per_token + index_per_token,
        windows=tuple(sorted(windows.items())),
        state_bytes=state,
        index_bytes_per_token=index_per_token,
    )


def sequence_bytes(
    layout: CacheLayout, tokens: npt.ArrayLike, *, growing_only: bool = False
) -> Array:
    """Bytes of cache for `tokens` tokens of one sequence (D1).

    Parameters
    ----------
    layout : CacheLayout
    tokens : array_like
        Tokens, any shape.
    growing_only : bool
        `paper` counting: only what grows with every token, no windows and no state.

    Returns
    -------
    ndarray
        Bytes, shape of `tokens`.

    Examples
    --------
    >>> float(sequence_bytes(CacheLayout(10.0, windows=((128, 2.0),), state_bytes=5.0), 1000))
    10261.0
    """
    count = np.asarray(tokens, dtype=float)
    total = layout.bytes_per_token * count
    if growing_only:
        return total
    for window_tokens, bytes_per_token in layout.windows:
        total = total + bytes_per_token * np.minimum(count, window_tokens)
    return np.asarray(total + np.where(count > 0, layout.state_bytes, 0.0))


def hit_rate(context_tokens: npt.ArrayLike, append_tokens: npt.ArrayLike) -> Array:
    """Share of a prompt that is cached history (D3): c / (c + a).

    >>> float(hit_rate(95, 5))
    0.95
    """
    context = np.asarray(context_tokens, dtype=float)
    return np.asarray(context / (context + np.asarray(append_tokens, dtype=float)))


def persisted_tokens(
    append_tokens: npt.ArrayLike,
    output_tokens: npt.ArrayLike,
    turns_per_session: npt.ArrayLike,
    block_tokens: int = BLOCK_TOKENS,
) -> Array:
    """Mean tokens a turn persists, in full blocks (D5).

    Blocks fill across turns, so only the last partial block of a session is never written:
    block * floor(T*(a + g) / block) / T.

    Returns
    -------
    ndarray
        Tokens per turn, broadcast shape.

    Examples
    --------
    Three turns of 50 tokens fill two blocks of 64:

    >>> float(persisted_tokens(40, 10, 3)) == 128 / 3
    True
    """
    turns = np.asarray(turns_per_session, dtype=float)
    fresh = np.asarray(append_tokens, dtype=float) + np.asarray(output_tokens, dtype=float)
    # Rounding in T*(a+g) must not lose a block that is exactly full.
    blocks = np.floor(turns * fresh / block_tokens * (1 + 1e-12))
    return np.asarray(block_tokens * blocks / turns)
