"""Families whose layers keep keys and values alike: Llama, Mistral, Qwen, gpt-oss, MiniMax-M2.

One function per family, named after the `model_type`: it reads the fields its modelling code
reads, and says in a comment where a field means other than its name.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from dpplan.profiles.architecture import Architecture
from dpplan.profiles.huggingface.attention_kinds import (
    FeedForward,
    Mixer,
    assemble,
    grouped_query,
    windowed,
)
from dpplan.profiles.huggingface.config_reader import ConfigReader
from dpplan.profiles.huggingface.parameter_counts import feed_forward_weights, grouped_query_weights

__all__ = [
    "FULL",
    "SLIDING",
    "full_attention",
    "gpt_oss",
    "llama",
    "minimax_m2",
    "mixtral",
    "norm_weights",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "read_experts_per_token",
    "read_heads",
    "read_stem",
    "with_window",
]

SLIDING: Final = "sliding_attention"
FULL: Final = "full_attention"


def read_heads(reader: ConfigReader, hidden: int, *, kv_default: bool = False) -> tuple[int, ...]:
    """Query heads, KV heads and head dimension (absent: hidden_size / heads)."""
    heads = reader.count("num_attention_heads")
    kv_heads = (
        reader.count("num_key_value_heads", heads)
        if kv_default
        else reader.count("num_key_value_heads")
    )
    if heads % kv_heads:
        reader.contradiction(
            "num_key_value_heads", f"a divisor of num_attention_heads {heads} is needed", kv_heads
        )
    if not reader.has("head_dim") and hidden % heads:
        needed = f"a whole number is needed: hidden_size {hidden} is no multiple of {heads} heads"
        reader.contradiction("head_dim", needed, "nothing")
    return heads, kv_heads, reader.count("head_dim", max(1, hidden // heads))


def read_experts_per_token(reader: ConfigReader, name: str, experts: int) -> int:
    """Experts a token is sent to: no more than there are."""
    chosen = reader.count(name)
    if chosen > experts:
        reader.contradiction(name, f"at most the {experts} experts there are is needed", chosen)
    return chosen


def read_stem(reader: ConfigReader, tied: bool = False) -> tuple[int, int, bool, int]:
    """hidden_size, vocab_size, tied embeddings (default: the family's), layers."""
    hidden, vocab = reader.count("hidden_size"), reader.count("vocab_size")
    return hidden, vocab, reader.flag("tie_word_embeddings", tied), reader.layers()


def norm_weights(hidden: int, layers: int, per_layer: int = 2) -> int:
    """Weights of the norms of the residual stream: per layer, and the last."""
    return hidden * (per_layer * layers + 1)


def full_attention(
    hidden: int, heads: int, kv_heads: int, head_dim: int, *, bias: bool, qk_norm: int = 0
) -> Mixer:
    """GQA over the whole context, with biases everywhere or nowhere; `qk_norm` more weights."""
    weights = grouped_query_weights(
        hidden, heads, kv_heads, head_dim, head_dim, qkv_bias=bias, output_bias=bias
    )
    group = grouped_query("full attention", heads, kv_heads, head_dim, head_dim)
    return Mixer(group, weights + qk_norm)


def with_window(mixer: Mixer, window: int) -> Mixer:
    """The same mixer over the `window` most recent tokens alone."""
    return replace(mixer, group=windowed(mixer.group, window, f"sliding window {window}"))


def llama(reader: ConfigReader) -> Architecture:
    """Llama 2 and 3, Mistral: dense, grouped queries."""
    hidden, vocab, tied, layers = read_stem(reader)
    heads, kv_heads, head_dim = read_heads(reader, hidden, kv_default=True)
    bias = reader.flag("attention_bias", False)
    mixer = full_attention(hidden, heads, kv_heads, head_dim, bias=bias)
    if reader.has("sliding_window"):
        mixer = with_window(mixer, reader.count("sliding_window"))
    mlp = FeedForward(
        feed_forward_weights(
            hidden, reader.count("intermediate_size"), bias=reader.flag("mlp_bias", False)
        )
    )
    return assemble(
        hidden,
        vocab,
        tied,
        [mixer] * layers,
        [mlp] * layers,
        other_weights=norm_weights(hidden, layers),
    )


def mixtral(reader: ConfigReader) -> Architecture:
    """Mixtral: every MLP is a mixture of experts of `intermediate_size`."""
    hidden, vocab, tied, layers = read_stem(reader)
    heads, kv_heads, head_dim = read_heads(reader, hidden)
    mixer = full_attention(hidden, heads, kv_heads, head_dim, bias=False)
    if reader.has("sliding_window"):
        mixer = with_window(mixer, reader.count("sliding_window"))
    experts = reader.count("num_local_experts")
    moe = FeedForward(
        weights=hidden * experts,
        expert_weights=feed_forward_weights(hidden, reader.count("intermediate_size")),
        experts=experts,
        experts_per_token=read_experts_per_token(reader, "num_experts_per_tok", experts),
    )
    return assemble(
        hidden,
        vocab,
        tied,
        [mixer] * layers,
        [moe] * layers,
        other_weights=norm_weights(hidden, layers),
    )


def _qwen_mixers(reader: ConfigReader, mixer: Mixer, layers: int) -> list[Mixer]:
    """Qwen2 and 3: with `use_sliding_window`, layers from `max_window_layers` on have a window."""
    if not reader.flag("use_sliding_window", False):
        types = reader.per_layer("layer_types", layers, (FULL,))
        reader.read.pop("layer_types", None) if types else None
        return [mixer] * layers
    sliding = with_window(mixer, reader.count("sliding_window"))
    types = reader.per_layer("layer_types", layers, (FULL, SLIDING))
    if types is not None:
        return [sliding if kind == SLIDING else mixer for kind in types]
    first = reader.count("max_window_layers", minimum=0)
    return [sliding if layer >= first else mixer for layer in range(layers)]


def _qwen_dense(reader: ConfigReader, *, qk_norm: bool) -> Architecture:
    hidden, vocab, tied, layers = read_stem(reader)
    heads, kv_heads, head_dim = read_heads(reader, hidden)
    if qk_norm:
        bias = reader.flag("attention_bias", False)
        mixer = full_attention(hidden, heads, kv_heads, head_dim, bias=bias, qk_norm=2 * head_dim)
    else:  # q, k and v always have biases, the output projection never has
        weights = grouped_query_weights(hidden, heads, kv_heads, head_dim, head_dim, qkv_bias=True)
        mixer = Mixer(grouped_query("full attention", heads, kv_heads, head_dim, head_dim), weights)
    mlp = FeedForward(feed_forward_weights(hidden, reader.count("intermediate_size")))
    return assemble(
        hidden,
        vocab,
        tied,
        _qwen_mixers(reader, mixer, layers),
        [mlp] * layers,
        other_weights=norm_weights(hidden, layers),
    )


def qwen2(reader: ConfigReader) -> Architecture:
    """Qwen2 and Qwen2.5: dense, biases on q, k and v."""
    return _qwen_dense(reader, qk_norm=False)


def qwen3(reader: ConfigReader) -> Architecture:
    """Qwen3: dense, norms on queries and keys."""
    return _qwen_dense(reader, qk_norm=True)


def qwen3_moe(reader: ConfigReader) -> Architecture:
    """Qwen3-MoE, Qwen3-Coder and the language model of Qwen3-VL-MoE."""
    hidden, vocab, tied, layers = read_stem(reader)
    heads, kv_heads, head_dim = read_heads(reader, hidden)
    bias = reader.flag("attention_bias", False)
    reader.must_be("qkv_bias", False)
    reader.must_be("shared_expert_intermediate_size", 0)
    mixer = full_attention(hidden, heads, kv_heads, head_dim, bias=bias, qk_norm=2 * head_dim)
    experts = reader.count("num_experts")
    moe = FeedForward(
        weights=hidden * experts,
        expert_weights=feed_forward_weights(hidden, reader.count("moe_intermediate_size")),
        experts=experts,
        experts_per_token=read_experts_per_token(reader, "num_experts_per_tok", experts),
    )
    step = reader.count("decoder_sparse_step", 1)
    dense_only = reader.layer_indices("mlp_only_layers", layers)
    sparse = [(i + 1) % step == 0 and i not in dense_only for i in range(layers)]
    if all(sparse):  # then the width of a dense MLP is never used
        reader.unused("intermediate_size")
        dense = moe
    else:
        dense = FeedForward(feed_forward_weights(hidden, reader.count("intermediate_size")))
    return assemble(
        hidden,
        vocab,
        tied,
        _qwen_mixers(reader, mixer, layers),
        [moe if is_sparse else dense for is_sparse in sparse],
        other_weights=norm_weights(hidden, layers),
    )


def gpt_oss(reader: ConfigReader) -> Architecture:
    """gpt-oss: alternating windows, attention sinks, experts with biases."""
    hidden, vocab, tied, layers = read_stem(reader)
    heads, kv_heads, head_dim = read_heads(reader, hidden)
    bias = reader.flag("attention_bias")
    full = full_attention(hidden, heads, kv_heads, head_dim, bias=bias, qk_norm=heads)  # sinks
    sliding = with_window(full, reader.count("sliding_window"))
    types = reader.required_per_layer("layer_types", layers, (FULL, SLIDING))
    experts = reader.count("num_local_experts")
    chosen = read_experts_per_token(reader, "num_experts_per_tok", experts)
    reader.agree("experts_per_token", chosen)
    moe = FeedForward(
        weights=(hidden + 1) * experts,
        expert_weights=feed_forward_weights(hidden, reader.count("intermediate_size"), bias=True),
        experts=experts,
        experts_per_token=chosen,
    )
    return assemble(
        hidden,
        vocab,
        tied,
        [sliding if kind == SLIDING else full for kind in types],
        [moe] * layers,
        other_weights=norm_weights(hidden, layers),
    )


def minimax_m2(reader: ConfigReader) -> Architecture:
    """MiniMax-M2 and M2.5: full attention everywhere, all MLPs are experts."""
    hidden, vocab, tied, layers = read_stem(reader)
    heads, kv_heads, head_dim = read_heads(reader, hidden)
    reader.must_be("shared_intermediate_size", 0)
    if reader.has("attn_type_list"):  # 1 = softmax attention; 0 was linear attention in M1
        reader.per_layer("attn_type_list", layers, (1,))
        reader.read.pop("attn_type_list")
    norms = (heads + kv_heads) * head_dim * reader.flag("use_qk_norm", True)
    mixer = full_attention(hidden, heads, kv_heads, head_dim, bias=False, qk_norm=norms)
    experts = reader.count("num_local_experts")
    moe = FeedForward(
        weights=hidden * experts + experts,
        expert_weights=feed_forward_weights(hidden, reader.count("intermediate_size")),
        experts=experts,
        experts_per_token=read_experts_per_token(reader, "num_experts_per_tok", experts),
    )
    return assemble(
        hidden,
        vocab,
        tied,
        [mixer] * layers,
        [moe] * layers,
        other_weights=norm_weights(hidden, layers),
    )
