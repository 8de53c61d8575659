"""From a Hugging Face `config.json` to an `Architecture`, without a guess.

A config is read by the function of its family (`model_type`). Every field is either read, known
to change neither weights nor KV cache nor FLOP, or refused by name. Vision and audio towers of
multimodal models are not counted; nor are MTP layers, which don't run without speculation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from dpplan.errors import BadInput, Fault, did_you_mean
from dpplan.profiles.architecture import Architecture
from dpplan.profiles.huggingface import grouped_query_families as gqa
from dpplan.profiles.huggingface import hybrid_families as hybrid
from dpplan.profiles.huggingface import latent_families as mla
from dpplan.profiles.huggingface import recurrent_families as rnn
from dpplan.profiles.huggingface.config_reader import ConfigReader

__all__ = ["FAMILIES", "WRAPPERS", "read_architecture", "read_config"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BOOKKEEPING: Final = _names("""
    auto_map transformers_version model_type torch_dtype dtype use_cache
    use_bfloat16 torchscript return_dict finetuning_task problem_type id2label label2id
    tokenizer_class prefix task_specific_params output_attentions output_hidden_states
    output_scores output_router_logits ep_size pretraining_tp quantization_config expert_dtype
    use_mamba_kernels num_logits_to_keep chunk_size_feed_forward tf_legacy_loss
""")
_TOKENS: Final = _names("""
    bos_token_id eos_token_id pad_token_id sep_token_id decoder_start_token_id
    forced_bos_token_id forced_eos_token_id ignore_index media_placeholder_token_id
    image_placeholder video_placeholder image_token_id video_token_id audio_token_id
    vision_start_token_id vision_end_token_id boa_token_id boi_token_id eoa_token_id
    eoa_token_index eoi_token_id vision_soft_tokens_per_image use_unified_vision_chunk
    image_token_index boi_token_index eoi_token_index
""")
_GENERATION: Final = _names("""
    bad_words_ids begin_suppress_tokens suppress_tokens diversity_penalty do_sample
    early_stopping encoder_no_repeat_ngram_size exponential_decay_length_penalty length_penalty
    max_length min_length no_repeat_ngram_size num_beam_groups num_beams num_return_sequences
    remove_invalid_values repetition_penalty return_dict_in_generate temperature top_k top_p
    typical_p
""")
_POSITIONS: Final = _names("""
    rope_theta rope_scaling rope_parameters rope_interleave indexer_rope_interleave
    partial_rotary_factor rotary_dim max_position_embeddings initial_context_length
    swa_rope_theta compress_rope_theta
""")
_NUMERICS: Final = _names("""
    rms_norm_eps norm_eps layer_norm_epsilon layernorm_epsilon initializer_range
    attention_dropout hidden_dropout hidden_act hidden_activation mlp_hidden_act
    activation_situ_beta activation_situ_linear_beta swiglu_limit swiglu_alpha
    final_logit_softcapping attention_value_scale residual_in_fp32 rescale_prenorm_residual
    use_qk_norm qk_norm_type use_gemma_norm
""")
_ROUTING: Final = _names("""
    norm_topk_prob scoring_func topk_method routed_scaling_factor aux_loss_alpha seq_aux
    router_aux_loss_coef moe_renormalize moe_router_activation_func use_grouped_topk
    moe_router_dtype use_routing_bias use_moe_router_bias moe_router_scaling_factor
    router_jitter_noise moe_shared_expert_overlap
""")
_SPECULATION: Final = _names("""
    num_nextn_predict_layers mtp_num_hidden_layers mtp_use_dedicated_embeddings use_mtp
    mtp_transformer_layers num_mtp_modules mtp_hybrid_override_pattern mtp_layers_block_type
    index_share_for_mtp_iteration
""")
_COMMON: Final = (
    _BOOKKEEPING | _TOKENS | _GENERATION | _POSITIONS | _NUMERICS | _ROUTING | _SPECULATION
)
_TOWERS: Final = _names("text_config vision_config audio_config")
_NOT_AN_ENCODER: Final[dict[str, tuple[Any, ...]]] = {
    "is_encoder_decoder": (False,),
    "is_decoder": (False, True),
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (),
    "tie_encoder_decoder": (False,),
    "pruned_heads": ({},),
}
"""Fields that are harmless at these values (and null) alone."""


@dataclass(frozen=True)
class Family:
    """How the configs of some model types are read."""

    read: Callable[[ConfigReader], Architecture]
    classes: frozenset[str]
    """What `architectures` may name: the classes whose code `read` follows."""
    irrelevant: frozenset[str] = frozenset()
    """Fields that change nothing in this family, though they do in others."""


_QWEN_WINDOW: Final = _names("sliding_window max_window_layers")
"""Unused while `use_sliding_window` is false; read where it is true."""
_SSM: Final = _names("mamba_ssm_dtype")
_HEAD_DIM: Final = _names("head_dim")
"""MLA configs repeat one of the head dimensions under this name."""


def _family(
    read: Callable[[ConfigReader], Architecture],
    classes: str,
    irrelevant: frozenset[str] = frozenset(),
) -> Family:
    return Family(read, frozenset(f"{name}ForCausalLM" for name in classes.split()), irrelevant)


FAMILIES: Final[dict[str, Family]] = {
    "llama": _family(gqa.llama, "Llama"),
    "mistral": _family(gqa.llama, "Mistral"),
    "mixtral": _family(gqa.mixtral, "Mixtral"),
    "qwen2": _family(gqa.qwen2, "Qwen2", _QWEN_WINDOW),
    "qwen3": _family(gqa.qwen3, "Qwen3", _QWEN_WINDOW),
    "qwen3_vl_text": _family(gqa.qwen3, "Qwen3VLText", _QWEN_WINDOW),
    "qwen3_moe": _family(gqa.qwen3_moe, "Qwen3Moe", _QWEN_WINDOW),
    "qwen3_vl_moe_text": _family(gqa.qwen3_moe, "Qwen3VLMoeText", _QWEN_WINDOW),
    "gpt_oss": _family(gqa.gpt_oss, "GptOss"),
    "gemma4_text": _family(
        hybrid.gemma4, "Gemma4", _names("use_bidirectional_attention vocab_size_per_layer_input")
    ),
    "mimo_v2_flash": _family(hybrid.mimo_v2, "MiMoV2Flash"),
    "step3p7": _family(hybrid.step3p7, "Step3p7Flash"),
    "llama4_text": _family(
        hybrid.llama4, "Llama4", _names("attn_scale floor_scale attn_temperature_tuning")
    ),
    "minimax_m2": _family(gqa.minimax_m2, "MiniMaxM2"),
    "minimax_m3": _family(hybrid.minimax_m3, "MiniMaxM3"),
    "deepseek_v3": _family(mla.deepseek_v3, "DeepseekV3", _HEAD_DIM),
    "kimi_k2": _family(mla.deepseek_v3, "DeepseekV3 KimiK2", _HEAD_DIM),
    "deepseek_v32": _family(mla.deepseek_v32, "DeepseekV32", _HEAD_DIM),
    "glm_moe_dsa": _family(mla.glm_moe_dsa, "GlmMoeDsa", _HEAD_DIM),
    # qk_rope_head_dim is the rotary part of head_dim; hash layers route by a table of token ids
    "deepseek_v4": _family(
        mla.deepseek_v4,
        "DeepseekV4",
        _names("qk_rope_head_dim num_hash_layers hc_eps hc_sinkhorn_iters"),
    ),
    "kimi_linear": _family(mla.kimi_linear, "KimiLinear", _HEAD_DIM),
    "qwen3_next": _family(rnn.qwen3_5_moe, "Qwen3Next", _SSM),
    "qwen3_5_text": _family(rnn.qwen3_5, "Qwen3_5", _SSM),
    "qwen3_5_moe_text": _family(rnn.qwen3_5_moe, "Qwen3_5Moe", _SSM),
    # expand is unused: mamba_num_heads * mamba_head_dim is the inner width
    "nemotron_h": _family(
        rnn.nemotron_h,
        "NemotronH",
        _names("""
            expand chunk_size mamba_hidden_act mamba_ssm_cache_dtype time_step_floor
            time_step_limit time_step_max time_step_min use_bias use_conv_bias
        """),
    ),
}
"""`model_type` of a language model -> how its config is read."""

WRAPPERS: Final[dict[str, frozenset[str]]] = {
    kind: frozenset({f"{name}ForConditionalGeneration"})
    for kind, name in {
        "llama4": "Llama4",
        "qwen3_vl": "Qwen3VL",
        "qwen3_vl_moe": "Qwen3VLMoe",
        "qwen3_5": "Qwen3_5",
        "qwen3_5_moe": "Qwen3_5Moe",
        "gemma4": "Gemma4",
        "kimi_k25": "KimiK25",
        "kimi_k3": "KimiK3",
    }.items()
}
"""`model_type` of a multimodal model -> its `architectures`; `text_config` is what is read."""


def read_architecture(
    config: Mapping[str, Any], where: str = "config.json", ignore: Collection[str] = ()
) -> Architecture:
    """What a model's layers keep and compute, from its `config.json`.

    Parameters
    ----------
    config : Mapping[str, Any]
        The file's content.
    where : str
        What messages call the file.
    ignore : collection of str
        Unknown fields (`name` or `text_config.name`) that the user vouches for.

    Returns
    -------
    Architecture
        Elements per token and FLOP of every kind of layer, and parameter counts.

    Raises
    ------
    BadInput
        If the model type or any field is not understood, a field is missing or of the wrong
        type, or fields contradict each other: all of them at once.

    Examples
    --------
    >>> config = dict(model_type="llama", hidden_size=8, vocab_size=10, num_hidden_layers=3,
    ...               num_attention_heads=2, num_key_value_heads=1, intermediate_size=16)
    >>> read_architecture(config).layer_groups[0].kv_elements_per_entry
    8.0
    """
    return read_config(config, where, ignore)[0]


def read_config(
    config: Mapping[str, Any], where: str = "config.json", ignore: Collection[str] = ()
) -> tuple[Architecture, dict[str, Any]]:
    """As `read_architecture`, with the fields that it follows from, `model_type` first.

    Returns
    -------
    Architecture
    dict of str to Any
        Fields of the language model in the order they were read; those of `text_config` flat.

    Examples
    --------
    >>> config = dict(model_type="llama", hidden_size=8, vocab_size=10, num_hidden_layers=3,
    ...               num_attention_heads=2, num_key_value_heads=1, intermediate_size=16,
    ...               use_cache=True)
    >>> list(read_config(config)[1])[:3]
    ['model_type', 'hidden_size', 'vocab_size']
    """
    if not isinstance(config, Mapping):
        raise BadInput(Fault(where, "a mapping of fields is needed", type(config).__name__))
    faults: list[Fault] = []
    text, path, outer, wrapper = config, "", None, None
    if isinstance(config.get("text_config"), Mapping):
        text, path, outer = config["text_config"], "text_config.", config
        wrapper = config.get("model_type")
        if not isinstance(wrapper, str) or wrapper not in WRAPPERS:
            faults.append(_unknown_type(f"{where}: model_type", wrapper, WRAPPERS))
    kind = text.get("model_type")
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        faults.append(_unknown_type(f"{where}: {path}model_type", kind, FAMILIES))
        raise BadInput(faults)
    shared = {key: outer[key] for key in ("tie_word_embeddings",) if outer and key in outer}
    reader = ConfigReader(text, where, path, shared)
    architecture = family.read(reader)
    for name, allowed in _NOT_AN_ENCODER.items():
        reader.must_be(name, *allowed)
    _check_classes(reader, family.classes, ignore, path)
    try:
        reader.finish(_COMMON | family.irrelevant, ignore)
    except BadInput as error:
        faults.extend(error.faults)
    if outer is not None:
        around = ConfigReader(outer, where)
        if isinstance(wrapper, str) and wrapper in WRAPPERS:
            _check_classes(around, WRAPPERS[wrapper], ignore, "")
        try:
            around.finish(_COMMON | _TOWERS | {"tie_word_embeddings"}, ignore)
        except BadInput as error:
            faults.extend(error.faults)
    if faults:
        raise BadInput(faults)
    return architecture, {"model_type": kind, **reader.read}


def _check_classes(
    reader: ConfigReader, classes: frozenset[str], ignore: Collection[str], path: str
) -> None:
    """Code of another class may give the same fields another meaning."""
    given = reader.names("architectures")
    strange = [name for name in given if name not in classes]
    if strange and not {"architectures", f"{path}architectures"} & set(ignore):
        cure = "`--ignore-field architectures` if its code is the same"
        known = " or ".join(sorted(classes))
        reader.fault("architectures", f"{known} is needed", strange[0], cure)


def _unknown_type(where: str, kind: object, known: Collection[str]) -> Fault:
    got = "nothing" if kind is None else str(kind)[:60]
    needed = "a model type that dpplan understands is needed"
    return Fault(where, needed, got, did_you_mean(got, known))
