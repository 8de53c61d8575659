"""Families whose layers differ in what they keep: windows, chunks, selected blocks.

One function per family, named after the `model_type`; see `grouped_query_families`.
"""

from __future__ import annotations

from dataclasses import replace

from dpplan.profiles.architecture import Architecture
from dpplan.profiles.huggingface.attention_kinds import (
    FeedForward,
    Mixer,
    assemble,
    grouped_query,
    windowed,
)
from dpplan.profiles.huggingface.config_reader import ConfigReader
from dpplan.profiles.huggingface.grouped_query_families import (
    FULL,
    SLIDING,
    full_attention,
    norm_weights,
    read_experts_per_token,
    read_heads,
    read_stem,
    with_window,
)
from dpplan.profiles.huggingface.parameter_counts import feed_forward_weights, grouped_query_weights

__all__ = ["gemma4", "llama4", "mimo_v2", "minimax_m3", "step3p7"]


def gemma4(reader: ConfigReader) -> Architecture:
    """Gemma 4: windows and wider global heads; a dense MLP beside the experts of every layer.

    With `attention_k_eq_v` global layers have no value projection. The cache still holds both:
    keys are normed with weights and rotated, values are normed without.
    """
    hidden, vocab, tied, layers = read_stem(reader, tied=True)
    heads, kv_heads, head_dim = read_heads(reader, hidden)
    bias = reader.flag("attention_bias", False)
    global_dim = reader.count("global_head_dim", head_dim)
    shared_kv = reader.flag("attention_k_eq_v", False)
    global_kv_heads = kv_heads
    if shared_kv:
        global_kv_heads = reader.count("num_global_key_value_heads", kv_heads)
    else:
        reader.must_be("num_global_key_value_heads", kv_heads)
    for name in ("hidden_size_per_layer_input", "num_kv_shared_layers"):
        reader.must_be(name, 0)
    reader.must_be("use_double_wide_mlp", False)
    local = full_attention(hidden, heads, kv_heads, head_dim, bias=bias, qk_norm=2 * head_dim)
    sliding = with_window(local, reader.count("sliding_window"))
    full = Mixer(
        grouped_query("full attention", heads, global_kv_heads, global_dim, global_dim),
        grouped_query_weights(
            hidden,
            heads,
            global_kv_heads,
            global_dim,
            global_dim,
            qkv_bias=bias,
            output_bias=bias,
            shared_kv=shared_kv,
        )
        + 2 * global_dim,
    )
    types = reader.required_per_layer("layer_types", layers, (FULL, SLIDING))
    dense = feed_forward_weights(hidden, reader.count("intermediate_size"))
    block = FeedForward(dense)
    if reader.flag("enable_moe_block", False):
        experts = reader.count("num_experts")
        block = FeedForward(
            weights=dense + hidden * experts + hidden + experts,
            expert_weights=feed_forward_weights(hidden, reader.count("moe_intermediate_size")),
            experts=experts,
            experts_per_token=read_experts_per_token(reader, "top_k_experts", experts),
        )
    return assemble(
        hidden,
        vocab,
        tied,
        [sliding if kind == SLIDING else full for kind in types],
        [block] * layers,
        other_weights=norm_weights(hidden, layers, per_layer=7),
    )


def mimo_v2(reader: ConfigReader) -> Architecture:
    """MiMo-V2: windows with heads of their own (`swa_*`), values narrower than keys."""
    hidden, vocab, tied, layers = read_stem(reader)
    bias = reader.flag("attention_bias", False)

    def mixer(prefix: str) -> Mixer:
        heads = reader.count(f"{prefix}num_attention_heads")
        kv_heads = reader.count(f"{prefix}num_key_value_heads")
        qk_dim, v_dim = reader.count(f"{prefix}head_dim"), reader.count(f"{prefix}v_head_dim")
        sink = "add_swa_attention_sink_bias" if prefix else "add_full_attention_sink_bias"
        weights = grouped_query_weights(hidden, heads, kv_heads, qk_dim, v_dim, qkv_bias=bias)
        return Mixer(
            grouped_query("full attention", heads, kv_heads, qk_dim, v_dim),
            weights + heads * reader.flag(sink, False),
        )

    window = reader.count("sliding_window")
    for name in ("sliding_window_size", "attention_chunk_size"):
        reader.agree(name, window)
    full, sliding = mixer(""), with_window(mixer("swa_"), window)
    pattern = reader.required_per_layer("hybrid_layer_pattern", layers, (0, 1))
    experts = reader.count("n_routed_experts")
    reader.must_be("n_shared_experts", 0)
    moe = FeedForward(
        weights=hidden * experts,
        expert_weights=feed_forward_weights(hidden, reader.count("moe_intermediate_size")),
        experts=experts,
        experts_per_token=read_experts_per_token(reader, "num_experts_per_tok", experts),
    )
    dense = FeedForward(feed_forward_weights(hidden, reader.count("intermediate_size")))
    is_sparse = reader.required_per_layer("moe_layer_freq", layers, (0, 1))
    return assemble(
        hidden,
        vocab,
        tied,
        [sliding if kind else full for kind in pattern],
        [moe if sparse else dense for sparse in is_sparse],
        other_weights=norm_weights(hidden, layers),
        expert_groups=reader.count("n_group", 1),
        expert_groups_per_token=reader.count("topk_group", 1),
    )


def step3p7(reader: ConfigReader) -> Architecture:
    """Step-3.7: windows on three of four layers, `share_expert_dim` wide shared expert."""
    hidden, vocab, tied, layers = read_stem(reader)
    heads, kv_heads, head_dim = read_heads(reader, hidden)
    full = full_attention(hidden, heads, kv_heads, head_dim, bias=False, qk_norm=2 * head_dim)
    sliding = with_window(full, reader.count("sliding_window"))
    types = reader.required_per_layer("layer_types", layers, (FULL, SLIDING))
    experts = reader.count("num_experts")
    reader.must_be("n_shared_experts", 1)
    shared = feed_forward_weights(hidden, reader.count("share_expert_dim"))
    moe = FeedForward(
        weights=hidden * experts + shared,
        expert_weights=feed_forward_weights(hidden, reader.count("moe_intermediate_size")),
        experts=experts,
        experts_per_token=read_experts_per_token(reader, "num_experts_per_tok", experts),
    )
    dense = FeedForward(feed_forward_weights(hidden, reader.count("intermediate_size")))
    first = reader.count("first_k_dense_replace", minimum=0)
    return assemble(
        hidden,
        vocab,
        tied,
        [sliding if kind == SLIDING else full for kind in types],
        [dense if layer < first else moe for layer in range(layers)],
        other_weights=norm_weights(hidden, layers),
    )


def llama4(reader: ConfigReader) -> Architecture:
    """Llama 4: every fourth layer (no rotary embedding) sees all, the others their chunk.

    A token sees the tokens of its own chunk of `attention_chunk_size`, half of it on average: the
    window of that size is an upper bound of what is kept and read.
    """
    hidden, vocab, tied, layers = read_stem(reader)
    heads, kv_heads, head_dim = read_heads(reader, hidden)
    bias = reader.flag("attention_bias", False)
    full = full_attention(hidden, heads, kv_heads, head_dim, bias=bias)
    chunk = reader.count("attention_chunk_size")
    chunked = replace(full, group=windowed(full.group, chunk, f"chunks of {chunk}"))
    if reader.has("no_rope_layers") and reader.read["no_rope_layers"] != []:
        rotary = reader.required_per_layer("no_rope_layers", layers, (0, 1))
    else:
        interval = reader.count("no_rope_layer_interval", 4)
        rotary = tuple(int((layer + 1) % interval != 0) for layer in range(layers))
    experts = reader.count("num_local_experts")
    expert = feed_forward_weights(hidden, reader.count("intermediate_size"))
    moe = FeedForward(
        weights=hidden * experts + expert,  # router and one shared expert
        expert_weights=expert,
        experts=experts,
        experts_per_token=read_experts_per_token(reader, "num_experts_per_tok", experts),
    )
    dense = FeedForward(feed_forward_weights(hidden, reader.count("intermediate_size_mlp")))
    step = reader.count("interleave_moe_layer_step")
    sparse = {layer for layer in range(layers) if (layer + 1) % step == 0}
    if reader.has("moe_layers"):
        sparse = set(reader.layer_indices("moe_layers", layers))
    return assemble(
        hidden,
        vocab,
        tied,
        [chunked if rope else full for rope in rotary],
        [moe if layer in sparse else dense for layer in range(layers)],
        other_weights=norm_weights(hidden, layers),
    )


def minimax_m3(reader: ConfigReader) -> Architecture:
    """MiniMax-M3: block-sparse attention; an index key picks blocks, per KV head.

    A sparse layer keeps, beside K and V, one index key of `sparse_index_dim` per token (one for
    all index heads). `sparse_num_index_heads` index queries score every earlier token, a block's
    score is its largest one, and `sparse_topk_blocks` blocks of `sparse_block_size` tokens (local
    and initial ones among them) are attended to. An index value is kept by no sparse layer.
    """
    hidden, vocab, tied, layers = read_stem(reader)
    heads, kv_heads, head_dim = read_heads(reader, hidden)
    reader.must_be("attention_output_gate", False)
    full = full_attention(hidden, heads, kv_heads, head_dim, bias=False, qk_norm=2 * head_dim)
    mixers = [full] * layers
    if reader.has("sparse_attention_config"):
        section = reader.section("sparse_attention_config")
        freq = section.required_per_layer("sparse_attention_freq", layers, (0, 1))
        no_value = section.required_per_layer("sparse_disable_index_value", layers, (0, 1))
        if any(sparse and not off for sparse, off in zip(freq, no_value, strict=False)):
            section.contradiction(
                "sparse_disable_index_value", "1 is needed in every sparse layer", 0
            )
        top_k = section.count("sparse_topk_blocks") * section.count("sparse_block_size")
        index_heads = section.count("sparse_num_index_heads")
        index_dim = section.count("sparse_index_dim")
        sparse_mixer = Mixer(
            replace(
                full.group,
                name=f"block-sparse, top {top_k} tokens",
                index_elements_per_entry=float(index_dim),
                top_k_entries=top_k,
                index_heads=index_heads,
                index_dim=index_dim,
            ),
            full.weights + hidden * (index_heads + 1) * index_dim + 2 * index_dim,
        )
        if section.flag("use_sparse_attention"):
            mixers = [sparse_mixer if sparse else full for sparse in freq]
        for name in ("sparse_init_block", "sparse_local_block"):
            section.unused(name)
        section.unused("sparse_score_type")
    experts = reader.count("num_local_experts")
    width = reader.count("intermediate_size")
    reader.agree("moe_intermediate_size", width)
    shared = reader.count("shared_intermediate_size", 0, minimum=0)
    shared *= reader.count("n_shared_experts", 0, minimum=0)
    moe = FeedForward(
        weights=hidden * experts + experts + feed_forward_weights(hidden, shared),
        expert_weights=feed_forward_weights(hidden, width),
        experts=experts,
        experts_per_token=read_experts_per_token(reader, "num_experts_per_tok", experts),
    )
    dense = FeedForward(feed_forward_weights(hidden, reader.count("dense_intermediate_size")))
    is_sparse = reader.required_per_layer("moe_layer_freq", layers, (0, 1))
    if is_sparse:
        reader.agree("first_k_dense_replace", (*is_sparse, 1).index(1))
    return assemble(
        hidden,
        vocab,
        tied,
        mixers,
        [moe if sparse else dense for sparse in is_sparse],
        other_weights=norm_weights(hidden, layers),
    )
