"""What each kind of attention keeps and computes: one function per kind fills a `LayerGroup`.

Every function returns the group of a single layer (`layers=1`); `assemble` adds equal ones up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dpplan.profiles.architecture import Architecture, LayerGroup, ParameterCounts

__all__ = [
    "FeedForward",
    "Mixer",
    "assemble",
    "compressed",
    "delta_rule",
    "grouped_query",
    "latent",
    "mamba2",
    "windowed",
]


@dataclass(frozen=True)
class Mixer:
    """The attention or recurrent block of one layer."""

    group: LayerGroup
    weights: float


@dataclass(frozen=True)
class FeedForward:
    """The MLP or mixture of experts of one layer."""

    weights: float
    """What every token passes: dense MLP, shared experts, router, latent projections."""
    expert_weights: float = 0.0
    """One routed expert."""
    experts: int = 0
    experts_per_token: int = 0


def grouped_query(name: str, heads: int, kv_heads: int, qk_dim: int, v_dim: int) -> LayerGroup:
    """MHA, GQA or MQA over the whole context: an entry is kv_heads keys and values.

    >>> grouped_query("GQA", 32, 8, 128, 128).kv_elements_per_entry
    2048.0
    """
    return LayerGroup(
        name=name,
        layers=1,
        kv_elements_per_entry=float(kv_heads * (qk_dim + v_dim)),
        heads=heads,
        qk_dim=qk_dim,
        v_dim=v_dim,
        kv_heads=kv_heads,
    )


def windowed(group: LayerGroup, window: int, name: str) -> LayerGroup:
    """The same attention over the `window` most recent tokens alone.

    >>> windowed(grouped_query("GQA", 32, 8, 128, 128), 128, "window").window_tokens
    128
    """
    return replace(
        group,
        name=name,
        kv_elements_per_entry=0.0,
        window_tokens=window,
        window_kv_elements_per_token=group.kv_elements_per_entry,
    )


def latent(
    heads: int, kv_rank: int, nope_dim: int, rope_dim: int, v_dim: int, name: str = "MLA"
) -> LayerGroup:
    """Multi-head latent attention: an entry is one latent and one rotary key for all heads.

    >>> latent(128, 512, 128, 64, 128).kv_elements_per_entry
    576.0
    """
    return LayerGroup(
        name=name,
        layers=1,
        kv_elements_per_entry=float(kv_rank + rope_dim),
        heads=heads,
        qk_dim=kv_rank + rope_dim,
        v_dim=kv_rank,
        kv_heads=1,
        latent_dim=kv_rank,
        expanded_qk_dim=nope_dim + rope_dim,
        expanded_up_dim=nope_dim + v_dim,
        expanded_v_dim=v_dim,
    )


def compressed(heads: int, head_dim: int, ratio: int, window: int) -> LayerGroup:
    """DeepSeek-V4: one entry (key = value) per `ratio` tokens, and a raw window.

    A block not yet full is kept raw until it closes; such tails (and the overlap of one block at
    ratio 4) are a few entries per sequence and are left out, as they are when blocks are stored.

    >>> group = compressed(128, 512, 128, 128)
    >>> group.kv_elements_per_entry / group.tokens_per_entry
    4.0
    """
    name = f"compressed 1:{ratio} + window {window}" if ratio else f"sliding window {window}"
    return LayerGroup(
        name=name,
        layers=1,
        kv_elements_per_entry=float(head_dim) if ratio else 0.0,
        tokens_per_entry=ratio or 1,
        window_tokens=window,
        window_kv_elements_per_token=float(head_dim),
        heads=heads,
        qk_dim=head_dim,
        v_dim=head_dim,
        kv_heads=1,
    )


def delta_rule(
    name: str, key_heads: int, key_dim: int, value_heads: int, value_dim: int, kernel: int
) -> LayerGroup:
    """Gated delta net or Kimi delta attention: one key_dim x value_dim matrix per value head.

    The state S of a head is decayed, corrected and read: k'S, S + k d', q'S. Each is one
    multiply-add per element: 6 * value_heads * key_dim * value_dim FLOP a token (the element-wise
    decay is not counted, as nowhere else). The convolution keeps its last kernel-1 inputs.

    >>> delta_rule("GDN", 16, 128, 64, 128, 4).state_elements
    1048576.0
    """
    state = value_heads * key_dim * value_dim
    mixed = 2 * key_heads * key_dim + value_heads * value_dim
    return LayerGroup(
        name=name,
        layers=1,
        state_elements=float(state),
        conv_state_elements=float((kernel - 1) * mixed),
        recurrent_flop_per_token=6.0 * state,
    )


def mamba2(heads: int, head_dim: int, groups: int, state_size: int, kernel: int) -> LayerGroup:
    """Mamba-2: one head_dim x state_size matrix per head.

    The state h is updated by x B' and read by C: one multiply-add per element each, so
    4 * heads * head_dim * state_size FLOP a token (decay not counted, as nowhere else).

    >>> mamba2(64, 64, 8, 128, 4).recurrent_flop_per_token
    2097152.0
    """
    state = heads * head_dim * state_size
    mixed = heads * head_dim + 2 * groups * state_size
    return LayerGroup(
        name="Mamba-2",
        layers=1,
        state_elements=float(state),
        conv_state_elements=float((kernel - 1) * mixed),
        recurrent_flop_per_token=4.0 * state,
    )


def assemble(
    hidden_size: int,
    vocab_size: int,
    tied: bool,
    mixers: Sequence[Mixer],
    feed_forwards: Sequence[FeedForward],
    *,
    other_weights: float = 0.0,
    dispatch_size: int | None = None,
    expert_groups: int = 1,
    expert_groups_per_token: int = 1,
) -> Architecture:
    """Add layers up: equal mixers become one group, in order of first appearance.

    Parameters
    ----------
    hidden_size, vocab_size : int
        Width of the residual stream, tokens of the embedding.
    tied : bool
        The LM head shares the input embedding.
    mixers, feed_forwards : sequence
        One entry a layer that has such a block.
    other_weights : float
        Weights outside the blocks, the norms of the layers included.
    dispatch_size : int, optional
        Width of the vector sent to an expert; `hidden_size` if not given.
    expert_groups, expert_groups_per_token : int
        Groups of experts, and how many of them a token may reach.

    Returns
    -------
    Architecture

    Examples
    --------
    >>> mixer = Mixer(grouped_query("GQA", 2, 1, 4, 4), weights=100)
    >>> assemble(8, 10, True, [mixer] * 3, [FeedForward(50)] * 3).parameters.total
    530.0
    """
    counts: dict[LayerGroup, int] = {}
    for mixer in mixers:
        counts[mixer.group] = counts.get(mixer.group, 0) + 1
    sparse = [block for block in feed_forwards if block.experts]
    embedding = float(vocab_size * hidden_size)
    parameters = ParameterCounts(
        input_embedding=embedding,
        output_head=0.0 if tied else embedding,
        routed_experts=sum(block.experts * block.expert_weights for block in sparse) + 0.0,
        routed_experts_active=sum(
            block.experts_per_token * block.expert_weights for block in sparse
        )
        + 0.0,
        body=float(
            sum(mixer.weights for mixer in mixers)
            + sum(block.weights for block in feed_forwards)
            + other_weights
        ),
        tied_embeddings=tied,
    )
    return Architecture(
        layer_groups=tuple(replace(group, layers=n) for group, n in counts.items()),
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        parameters=parameters,
        moe_layers=len(sparse),
        routed_experts=sparse[0].experts if sparse else 0,
        experts_per_token=sparse[0].experts_per_token if sparse else 0,
        dispatch_size=(dispatch_size or hidden_size) if sparse else 0,
        expert_groups=expert_groups,
        expert_groups_per_token=expert_groups_per_token,
    )
