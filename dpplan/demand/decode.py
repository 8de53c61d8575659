"""D6 decode: what a step reads and computes, and the largest batch that memory and TPOT allow."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpplan.arrays import Array
from dpplan.demand.kv_cache import CacheLayout, sequence_bytes
from dpplan.profiles.architecture import Architecture

__all__ = ["DecodeDemand", "decode_demand", "largest_batch", "step_time_s"]


@dataclass(frozen=True)
class DecodeDemand:
    """One sequence's share of a decode step, and what the batch shares."""

    gemm_flop: float
    """FLOP of the weights per token."""
    attention_flop: float
    """FLOP of attention and recurrent updates per token."""
    index_flop: float
    """FLOP of the indexer per token."""
    read_bytes: float
    """KV entries (or the top-k of them), indexer keys, windows and state read per step."""
    resident_bytes: float
    """Cache a sequence occupies in HBM."""


def decode_demand(
    architecture: Architecture,
    layout: CacheLayout,
    context_tokens: float,
    kv_element_bytes: float,
    index_element_bytes: float,
    state_element_bytes: float,
) -> DecodeDemand:
    """What one sequence of `context_tokens` costs per decode step (D6).

    Per layer and step: attention over min(top_k, n/m) entries and the window, in the absorbed form
    for MLA; the indexer scores all n/m entries; a recurrent state is read and written once.

    Parameters
    ----------
    architecture, layout
        The model and its cache layout at these dtypes.
    context_tokens : float
        n, tokens of the sequence while it decodes.
    kv_element_bytes, index_element_bytes, state_element_bytes : float
        Bytes per element.

    Returns
    -------
    DecodeDemand
        FLOP and bytes per sequence and step.

    References
    ----------
    method D6; roofline per step: weights once per batch, cache once per sequence.
    """
    counts = architecture.parameters
    attention = index = read = 0.0
    for group in architecture.layer_groups:
        entries = context_tokens / group.tokens_per_entry
        chosen = (
            entries if group.top_k_entries is None else min(entries, float(group.top_k_entries))
        )
        if not group.kv_elements_per_entry:
            chosen = 0.0
        windowed = min(float(group.window_tokens), context_tokens)
        per_pair = 2.0 * group.heads * (group.qk_dim + group.v_dim)
        attention += group.layers * (
            per_pair * (chosen + windowed) + group.recurrent_flop_per_token
        )
        index += group.layers * 2.0 * group.index_heads * group.index_dim * entries
        read += group.layers * (
            chosen * group.kv_elements_per_entry * kv_element_bytes
            + entries * group.index_elements_per_entry * index_element_bytes
            + windowed * group.window_kv_elements_per_token * kv_element_bytes
            + 2.0 * group.state_elements * state_element_bytes
        )
    gemm = 2.0 * (counts.body + counts.routed_experts_active + counts.head_flop_parameters)
    return DecodeDemand(
        gemm_flop=gemm,
        attention_flop=attention,
        index_flop=index,
        read_bytes=read,
        resident_bytes=float(sequence_bytes(layout, context_tokens)),
    )


def step_time_s(
    batch: npt.ArrayLike,
    *,
    shared_weight_s: npt.ArrayLike,
    expert_weight_s: npt.ArrayLike,
    expert_share_per_token: npt.ArrayLike,
    cache_s_per_sequence: npt.ArrayLike,
    compute_s_per_sequence: npt.ArrayLike,
) -> Array:
    """Time of one decode step of a batch on one engine (D6), a roofline.

    max( shared + experts*(1 - (1 - k/E)**b) + b*cache, b*compute ): the weights of attention and
    shared layers are read once per step, routed experts only if some token of the batch chose
    them, the cache once per sequence.

    Parameters
    ----------
    batch : array_like
        b, sequences of the engine, any shape.
    shared_weight_s, expert_weight_s : array_like
        Seconds to read the weights that every token uses, and all routed experts.
    expert_share_per_token : array_like
        k/E, chance that a token chooses a given expert.
    cache_s_per_sequence, compute_s_per_sequence : array_like
        Seconds per sequence to read its cache and to compute its token, engine-wide.

    Returns
    -------
    ndarray
        Seconds, broadcast shape. A lower bound: launch overheads and collectives come on top.

    Examples
    --------
    >>> kw = dict(expert_weight_s=0.0, expert_share_per_token=0.0)
    >>> float(step_time_s(10, shared_weight_s=0.01, cache_s_per_sequence=0.001,
    ...       compute_s_per_sequence=0.0001, **kw))
    0.02
    """
    size, shared, experts, cache, compute = (
        np.asarray(value, dtype=float)
        for value in (
            batch,
            shared_weight_s,
            expert_weight_s,
            cache_s_per_sequence,
            compute_s_per_sequence,
        )
    )
    # log1p keeps k/E = 1 (every expert always) and tiny shares exact.
    with np.errstate(divide="ignore", invalid="ignore"):
        missed = np.exp(size * np.log1p(-np.asarray(expert_share_per_token, dtype=float)))
    touched = np.where(size > 0, 1.0 - missed, 0.0)
    memory = shared + experts * touched + size * cache
    return np.asarray(np.maximum(memory, size * compute))


def largest_batch(
    tpot_s: float,
    *,
    shared_weight_s: float,
    expert_weight_s: float,
    expert_share_per_token: float,
    cache_s_per_sequence: float,
    compute_s_per_sequence: float,
) -> float:
    """Largest batch whose step takes at most `tpot_s` (D6); 0 if none, inf if unlimited.

    The compute side is linear in the batch. The memory side is increasing and concave, so Newton's
    tangents from a batch known to fit reach the limit before the curve does: the iteration climbs
    to the root from below and never passes it.

    Parameters
    ----------
    tpot_s : float
        Limit on the step time [s].
    shared_weight_s, expert_weight_s, expert_share_per_token : float
        As `step_time_s`.
    cache_s_per_sequence, compute_s_per_sequence : float
        As `step_time_s`.

    Returns
    -------
    float
        Sequences per engine.

    Examples
    --------
    >>> largest_batch(0.02, shared_weight_s=0.01, expert_weight_s=0.0, expert_share_per_token=0.0,
    ...     cache_s_per_sequence=0.001, compute_s_per_sequence=0.0001)
    10.0
    """
    if math.isinf(tpot_s):
        return math.inf
    if expert_share_per_token == 0.0:
        expert_weight_s = 0.0  # experts that no token chooses are never read
    by_compute = tpot_s / compute_s_per_sequence if compute_s_per_sequence else math.inf
    room = tpot_s - shared_weight_s
    if room < 0:
        return 0.0
    if expert_share_per_token >= 1.0 or expert_weight_s == 0.0:
        left = room - expert_weight_s
        by_memory = left / cache_s_per_sequence if cache_s_per_sequence else math.inf
        return 0.0 if left < 0 else min(by_memory, by_compute)
    if cache_s_per_sequence == 0.0 and room >= expert_weight_s:
        return by_compute
    decay = -math.log1p(-expert_share_per_token)
    batch = 0.0
    if cache_s_per_sequence:
        batch = max(0.0, (room - expert_weight_s) / cache_s_per_sequence)
    for _ in range(100):
        missed = math.exp(-batch * decay)
        taken = expert_weight_s * (1.0 - missed) + batch * cache_s_per_sequence
        slope = expert_weight_s * decay * missed + cache_s_per_sequence
        if slope == 0.0:
            break
        step = (room - taken) / slope
        if batch + step <= batch:
            break
        batch += step
        if batch >= by_compute:
            return by_compute
    return min(batch, by_compute)
