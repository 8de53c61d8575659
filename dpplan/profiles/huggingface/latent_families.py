"""Families that keep latents: MLA with and without indexer, compressed attention, KDA hybrids."""

from __future__ import annotations

from dataclasses import replace

from dpplan.profiles.architecture import Architecture
from dpplan.profiles.huggingface.attention_kinds import (
    FeedForward,
    Mixer,
    assemble,
    compressed,
    delta_rule,
    latent,
)
from dpplan.profiles.huggingface.config_reader import ConfigReader
from dpplan.profiles.huggingface.parameter_counts import (
    delta_rule_weights,
    feed_forward_weights,
    indexer_weights,
    latent_attention_weights,
)

__all__ = ["deepseek_v3", "deepseek_v4", "deepseek_v32", "glm_moe_dsa", "kimi_linear"]


def _latent_mixer(reader: ConfigReader, hidden: int, *, output_gate: bool = False) -> Mixer:
    heads = reader.count("num_attention_heads")
    reader.agree("num_key_value_heads", heads)
    q_rank = reader.count_or_null("q_lora_rank")
    kv_rank = reader.count("kv_lora_rank")
    nope, rope = reader.count("qk_nope_head_dim"), reader.count("qk_rope_head_dim")
    reader.agree("qk_head_dim", nope + rope)
    v_dim = reader.count("v_head_dim")
    weights = latent_attention_weights(
        hidden,
        heads,
        q_rank,
        kv_rank,
        nope,
        rope,
        v_dim,
        output_gate=output_gate,
        bias=reader.flag("attention_bias", False),
    )
    return Mixer(latent(heads, kv_rank, nope, rope, v_dim), weights)


def _mixture(
    reader: ConfigReader, hidden: int, experts: str, per_token: str, shared: str
) -> FeedForward:
    count, width = reader.count(experts), reader.count("moe_intermediate_size")
    chosen = reader.count(per_token)
    if chosen > count:
        reader.contradiction(per_token, f"at most the {count} experts there are is needed", chosen)
    shared_width = width * reader.count(shared, 0, minimum=0)
    return FeedForward(
        weights=hidden * count + count + feed_forward_weights(hidden, shared_width),
        expert_weights=feed_forward_weights(hidden, width),
        experts=count,
        experts_per_token=chosen,
    )


def _deepseek_blocks(reader: ConfigReader, hidden: int, layers: int) -> list[FeedForward]:
    moe = _mixture(reader, hidden, "n_routed_experts", "num_experts_per_tok", "n_shared_experts")
    dense = FeedForward(feed_forward_weights(hidden, reader.count("intermediate_size")))
    first = reader.count("first_k_dense_replace", minimum=0)
    every = reader.count("moe_layer_freq", 1)
    sparse = [layer >= first and layer % every == 0 for layer in range(layers)]
    types = reader.per_layer("mlp_layer_types", layers, ("dense", "sparse"))
    if types is not None:
        reader.read.pop("mlp_layer_types")
        if layers and [kind == "sparse" for kind in types] != sparse:
            reader.contradiction(
                "mlp_layer_types", "agreement with first_k_dense_replace is needed", types
            )
    return [moe if is_sparse else dense for is_sparse in sparse]


def _deepseek_like(
    reader: ConfigReader, hidden: int, layers: int, mixers: list[Mixer]
) -> Architecture:
    return assemble(
        hidden,
        reader.count("vocab_size"),
        reader.flag("tie_word_embeddings", False),
        mixers,
        _deepseek_blocks(reader, hidden, layers),
        other_weights=hidden * (2 * layers + 1),
        expert_groups=reader.count("n_group", 1),
        expert_groups_per_token=reader.count("topk_group", 1),
    )


def deepseek_v3(reader: ConfigReader) -> Architecture:
    """DeepSeek-V3, R1, Kimi-K2: MLA over the whole context."""
    hidden, layers = reader.count("hidden_size"), reader.layers()
    return _deepseek_like(reader, hidden, layers, [_latent_mixer(reader, hidden)] * layers)


def _indexed(reader: ConfigReader, hidden: int) -> tuple[Mixer, Mixer]:
    """MLA layers that run the indexer, and that reuse another layer's choice."""
    mixer = _latent_mixer(reader, hidden)
    heads, dim = reader.count("index_n_heads"), reader.count("index_head_dim")
    top_k = reader.count("index_topk")
    # the indexer's queries are made of the query latent; without one, of the hidden state
    width = reader.read.get("q_lora_rank") or hidden
    width = width if isinstance(width, int) else hidden
    full = Mixer(
        replace(
            mixer.group,
            name="MLA + indexer",
            index_elements_per_entry=float(dim),
            top_k_entries=top_k,
            index_heads=heads,
            index_dim=dim,
        ),
        mixer.weights + indexer_weights(hidden, width, heads, dim),
    )
    group = replace(mixer.group, name="MLA, shared top k", top_k_entries=top_k)
    return full, replace(mixer, group=group)


def deepseek_v32(reader: ConfigReader) -> Architecture:
    """DeepSeek-V3.2: MLA with an indexer (DSA) in every layer."""
    hidden, layers = reader.count("hidden_size"), reader.layers()
    return _deepseek_like(reader, hidden, layers, [_indexed(reader, hidden)[0]] * layers)


def glm_moe_dsa(reader: ConfigReader) -> Architecture:
    """GLM-5: as DeepSeek-V3.2; `indexer_types` says which layers run an indexer of their own."""
    hidden, layers = reader.count("hidden_size"), reader.layers()
    full, shared = _indexed(reader, hidden)
    types = reader.per_layer("indexer_types", layers, ("full", "shared"))
    if types is None:
        reader.must_be("index_topk_freq", 1)
        reader.must_be("index_topk_pattern")
        types = ("full",) * layers
    else:  # the list spells out what these three fields would generate
        for name in ("index_topk_freq", "index_topk_pattern", "index_skip_topk_offset"):
            reader.unused(name)
        if types[:1] == ("shared",):
            reader.contradiction("indexer_types", "a first layer of type full is needed", "shared")
    mixers = [full if kind == "full" else shared for kind in types]
    return _deepseek_like(reader, hidden, layers, mixers)


def _compressed_mixers(reader: ConfigReader, hidden: int, layers: int) -> list[Mixer]:
    heads, dim = reader.count("num_attention_heads"), reader.count("head_dim")
    reader.agree("num_key_value_heads", 1)
    reader.must_be("attention_bias", False)
    q_rank, window = reader.count("q_lora_rank"), reader.count("sliding_window")
    o_rank, o_groups = reader.count("o_lora_rank"), reader.count("o_groups")
    index_heads, index_dim = reader.count("index_n_heads"), reader.count("index_head_dim")
    top_k = reader.count("index_topk")
    ratios = reader.required_per_layer("compress_ratios", layers, (0, 4, 128), extra=8)
    query = hidden * q_rank + q_rank + q_rank * heads * dim
    output = heads * dim * o_rank + o_groups * o_rank * hidden
    base = query + hidden * dim + dim + output + heads  # key = value, output, sinks

    def compressor(width: int, ratio: int) -> int:
        # values and gates; at ratio 4 blocks overlap, which doubles both; position bias, norm
        overlap = 2 if ratio == 4 else 1
        return 2 * hidden * overlap * width + ratio * overlap * width + width

    indexer = q_rank * index_heads * index_dim + hidden * index_heads + compressor(index_dim, 4)
    kinds: dict[int, Mixer] = {}
    for ratio in sorted(set(ratios)):
        group = compressed(heads, dim, ratio, window)
        weights = base + (compressor(dim, ratio) if ratio else 0)
        if ratio == 4:
            group = replace(
                group,
                name=f"{group.name}, top {top_k}",
                index_elements_per_entry=float(index_dim),
                top_k_entries=top_k,
                index_heads=index_heads,
                index_dim=index_dim,
            )
            weights += indexer
        kinds[ratio] = Mixer(group, weights)
    return [kinds[ratio] for ratio in ratios]


def deepseek_v4(reader: ConfigReader) -> Architecture:
    """DeepSeek-V4: compressed entries (1:4 with an indexer, 1:128 without) and a raw window.

    `compress_ratios` names one ratio a layer and one more for the MTP layer, which is not counted.
    The residual stream is `hc_mult` wide; its mixing weights (two per layer) are counted.
    """
    hidden, layers = reader.count("hidden_size"), reader.layers()
    mixers = _compressed_mixers(reader, hidden, layers)
    moe = _mixture(reader, hidden, "n_routed_experts", "num_experts_per_tok", "n_shared_experts")
    streams = reader.count("hc_mult", most=1024)
    mixing = (2 + streams) * streams * (streams * hidden + 1) + 3
    head = streams * (streams * hidden + 1) + 1
    return assemble(
        hidden,
        reader.count("vocab_size"),
        reader.flag("tie_word_embeddings", False),
        mixers,
        [moe] * layers,
        other_weights=hidden * (2 * layers + 1) + 2 * mixing * layers + head,
    )


def _delta_attention(reader: ConfigReader, hidden: int) -> Mixer:
    heads, dim = reader.count("num_heads"), reader.count("head_dim")
    kernel = reader.count("short_conv_kernel_size", minimum=2)
    width = heads * dim
    reader.unused("gate_lower_bound")
    low_rank = hidden * dim + dim * width
    gate = hidden * width if reader.flag("use_full_rank_gate", False) else low_rank
    weights = delta_rule_weights(
        hidden, heads, dim, heads, dim, kernel, decay=low_rank + width + heads, gate=gate
    )
    group = delta_rule("Kimi delta attention", heads, dim, heads, dim, kernel)
    return Mixer(group, weights)


def kimi_linear(reader: ConfigReader) -> Architecture:
    """Kimi-Linear and Kimi-K3: delta attention, every few layers MLA; experts in a latent space.

    Layer numbers count from 1. With `mla_use_nope` MLA rotates nothing but keeps the part of the
    key that would be (`qk_rope_head_dim`) and caches it. Attention residuals (over depth) keep
    nothing per token of context; their weights are four vectors a layer.
    """
    hidden, layers = reader.count("hidden_size"), reader.layers()
    gate = reader.flag("mla_use_output_gate", False)
    mla = _latent_mixer(reader, hidden, output_gate=gate)
    reader.unused("mla_use_nope")
    section = reader.section("linear_attn_config")
    kda = _delta_attention(section, hidden)
    recurrent = section.layer_numbers("kda_layers", layers)
    full = section.layer_numbers("full_attn_layers", layers)
    if layers and (recurrent & full or len(recurrent | full) != layers):
        section.contradiction(
            "kda_layers", f"with full_attn_layers each of {layers} layers once", "others"
        )
    moe = _mixture(reader, hidden, "num_experts", "num_experts_per_token", "num_shared_experts")
    dispatch = reader.optional_count("routed_expert_hidden_size")
    if dispatch is not None:
        norm = dispatch * reader.flag("latent_moe_use_norm", False)
        width = reader.count("moe_intermediate_size")
        moe = replace(
            moe,
            weights=moe.weights + 2 * hidden * dispatch + norm,
            expert_weights=feed_forward_weights(dispatch, width),
        )
    dense = FeedForward(feed_forward_weights(hidden, reader.count("intermediate_size")))
    first = reader.count("first_k_dense_replace", minimum=0)
    every = reader.count("moe_layer_freq", 1)
    residuals = 4 * hidden if reader.optional_count("attn_res_block_size") else 0
    return assemble(
        hidden,
        reader.count("vocab_size"),
        reader.flag("tie_word_embeddings", False),
        [kda if layer + 1 in recurrent else mla for layer in range(layers)],
        [moe if layer >= first and layer % every == 0 else dense for layer in range(layers)],
        other_weights=hidden * (2 * layers + 1) + residuals * layers,
        dispatch_size=dispatch,
        expert_groups=reader.count("num_expert_group", 1),
        expert_groups_per_token=reader.count("topk_group", 1),
    )
