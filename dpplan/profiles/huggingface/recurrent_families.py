"""Families in which most layers are recurrent: gated delta nets and Mamba-2, some attention."""

from __future__ import annotations

from typing import Any

from dpplan.profiles.architecture import Architecture
from dpplan.profiles.huggingface.attention_kinds import (
    FeedForward,
    Mixer,
    assemble,
    delta_rule,
    grouped_query,
    mamba2,
)
from dpplan.profiles.huggingface.config_reader import ConfigReader
from dpplan.profiles.huggingface.grouped_query_families import read_heads
from dpplan.profiles.huggingface.parameter_counts import (
    delta_rule_weights,
    feed_forward_weights,
    grouped_query_weights,
    mamba2_weights,
)

__all__ = ["nemotron_h", "qwen3_5", "qwen3_5_moe"]


def _qwen_mixers(reader: ConfigReader, hidden: int, layers: int) -> list[Mixer]:
    heads, kv_heads, dim = read_heads(reader, hidden)
    gate, bias = reader.flag("attn_output_gate", True), reader.flag("attention_bias", False)
    attention = Mixer(
        grouped_query("full attention", heads, kv_heads, dim, dim),
        grouped_query_weights(
            hidden, heads, kv_heads, dim, dim, qkv_bias=bias, output_bias=bias, output_gate=gate
        )
        + 2 * dim,
    )
    key_heads, key_dim = reader.count("linear_num_key_heads"), reader.count("linear_key_head_dim")
    value_heads = reader.count("linear_num_value_heads")
    value_dim = reader.count("linear_value_head_dim")
    kernel = reader.count("linear_conv_kernel_dim", minimum=2)
    delta = Mixer(
        delta_rule("gated delta net", key_heads, key_dim, value_heads, value_dim, kernel),
        delta_rule_weights(
            hidden,
            key_heads,
            key_dim,
            value_heads,
            value_dim,
            kernel,
            decay=hidden * value_heads + 2 * value_heads,
            gate=hidden * value_heads * value_dim,
        ),
    )
    kinds = ("linear_attention", "full_attention")
    types = reader.per_layer("layer_types", layers, kinds)
    if types is None:
        interval = reader.count("full_attention_interval")
        types = tuple(kinds[(layer + 1) % interval == 0] for layer in range(layers))
    else:
        reader.unused("full_attention_interval")
    return [attention if kind == "full_attention" else delta for kind in types]


def _qwen(reader: ConfigReader, block: FeedForward, hidden: int, layers: int) -> Architecture:
    return assemble(
        hidden,
        reader.count("vocab_size"),
        reader.flag("tie_word_embeddings", False),
        _qwen_mixers(reader, hidden, layers),
        [block] * layers,
        other_weights=hidden * (2 * layers + 1),
    )


def qwen3_5(reader: ConfigReader) -> Architecture:
    """Qwen3.5, dense: three gated delta nets, then one gated full attention."""
    hidden, layers = reader.count("hidden_size"), reader.layers()
    reader.must_be("mlp_only_layers", [])
    mlp = FeedForward(feed_forward_weights(hidden, reader.count("intermediate_size")))
    return _qwen(reader, mlp, hidden, layers)


def qwen3_5_moe(reader: ConfigReader) -> Architecture:
    """Qwen3.5-MoE and Qwen3-Next: as Qwen3.5 with experts and a gated shared expert."""
    hidden, layers = reader.count("hidden_size"), reader.layers()
    reader.must_be("mlp_only_layers", [])
    reader.must_be("decoder_sparse_step", 1)
    reader.unused("intermediate_size")  # width of dense MLPs, of which there are none
    experts = reader.count("num_experts")
    chosen = reader.count("num_experts_per_tok")
    if chosen > experts:
        reader.contradiction("num_experts_per_tok", f"at most {experts} is needed", chosen)
    shared = feed_forward_weights(hidden, reader.count("shared_expert_intermediate_size"))
    moe = FeedForward(
        weights=hidden * experts + shared + hidden,
        expert_weights=feed_forward_weights(hidden, reader.count("moe_intermediate_size")),
        experts=experts,
        experts_per_token=chosen,
    )
    return _qwen(reader, moe, hidden, layers)


_BLOCKS = {"M": "mamba", "*": "attention", "E": "moe", "-": "mlp"}


def _block_types(reader: ConfigReader) -> tuple[Any, ...]:
    """The kinds of blocks, in order, from either of the two fields that name them."""
    if reader.has("layers_block_type"):
        count = (
            len(reader.read["layers_block_type"])
            if isinstance(reader.read["layers_block_type"], (list, tuple))
            else 0
        )
        blocks = reader.required_per_layer(
            "layers_block_type", min(count, 10_000), tuple(_BLOCKS.values())
        )
    else:
        pattern = reader.text("hybrid_override_pattern", longest=10_000)
        strange = sorted(set(pattern) - set(_BLOCKS))
        if strange:
            reader.fault("hybrid_override_pattern", "letters out of M * E - are needed", strange[0])
        blocks = tuple(_BLOCKS.get(letter, "mlp") for letter in pattern)
    reader.agree("num_hidden_layers", len(blocks))
    return blocks


def nemotron_h(reader: ConfigReader) -> Architecture:
    """Nemotron-H and Nemotron-3: Mamba-2, attention and MLP or experts, each a layer of its own.

    MLPs and experts have two matrices (squared ReLU, no gate). With `moe_latent_size` routed
    experts work in a latent space; router and shared expert see the full width.
    """
    hidden, blocks = reader.count("hidden_size"), _block_types(reader)
    heads, kv_heads, dim = read_heads(reader, hidden)
    bias, mlp_bias = reader.flag("attention_bias", False), reader.flag("mlp_bias", False)
    reader.must_be("sliding_window")
    attention = Mixer(
        grouped_query("full attention", heads, kv_heads, dim, dim),
        grouped_query_weights(hidden, heads, kv_heads, dim, dim, qkv_bias=bias, output_bias=bias),
    )
    state_heads, state_dim = reader.count("mamba_num_heads"), reader.count("mamba_head_dim")
    groups, state = reader.count("n_groups"), reader.count("ssm_state_size")
    kernel = reader.count("conv_kernel", minimum=2)
    recurrent = Mixer(
        mamba2(state_heads, state_dim, groups, state, kernel),
        mamba2_weights(
            hidden,
            state_heads,
            state_dim,
            groups,
            state,
            kernel,
            bias=reader.flag("mamba_proj_bias", False),
        ),
    )
    latent = None
    feed_forwards: list[FeedForward] = []
    if "moe" in blocks:
        experts, chosen = reader.count("n_routed_experts"), reader.count("num_experts_per_tok")
        if chosen > experts:
            reader.contradiction("num_experts_per_tok", f"at most {experts} is needed", chosen)
        latent = reader.optional_count("moe_latent_size")
        inner = reader.count("moe_intermediate_size")
        shared = reader.count("moe_shared_expert_intermediate_size", 0, minimum=0)
        shared *= reader.count("n_shared_experts", 0, minimum=0)
        weights = (hidden + 1) * experts
        weights += feed_forward_weights(hidden, shared, gated=False, bias=mlp_bias)
        if latent is not None:
            weights += 2 * hidden * latent + (hidden + latent) * mlp_bias
        expert = feed_forward_weights(latent or hidden, inner, gated=False, bias=mlp_bias)
        moe = FeedForward(weights, expert, experts, chosen)
        feed_forwards += [moe] * blocks.count("moe")
    if "mlp" in blocks:
        inner = reader.count("intermediate_size")
        mlp = feed_forward_weights(hidden, inner, gated=False, bias=mlp_bias)
        feed_forwards += [FeedForward(mlp)] * blocks.count("mlp")
    else:
        reader.unused("intermediate_size")
    mixers = {"mamba": recurrent, "attention": attention}
    return assemble(
        hidden,
        reader.count("vocab_size"),
        reader.flag("tie_word_embeddings", False),
        [mixers[block] for block in blocks if block in mixers],
        feed_forwards,
        other_weights=hidden * (len(blocks) + 1),
        dispatch_size=latent,
        expert_groups=reader.count("n_group", 1),
        expert_groups_per_token=reader.count("topk_group", 1),
    )
