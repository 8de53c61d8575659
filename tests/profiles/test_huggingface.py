"""Published configs are read right, and what is not understood is refused by name."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpplan.errors import BadInput
from dpplan.profiles.architecture import Architecture
from dpplan.profiles.huggingface.families import read_architecture, read_config

CONFIGS = Path(__file__).resolve().parents[3] / "shared" / "hf_configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.json"))
needs_configs = pytest.mark.skipif(
    not NAMES, reason="the published config.json files are not part of the repository"
)

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "vocab_size": 128256,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "rope_theta": 500000.0,
}

# Elements of the cache per token of context (full-length entries and index keys), layers per kind
# in order of first appearance, total and active parameters as the makers state them, and which
# embeddings their active count holds: both, "head" alone, or "none". Vision towers are in the
# totals of Llama 4, Qwen3.5, Qwen3-VL (whose name repeats that of the language model), Kimi-K3,
# MiniMax-M3 and Step-3.7; MTP layers in that of GLM-5.3.
STATED: dict[str, tuple[float, tuple[int, ...], float, float, str]] = {
    "DeepSeek-R1": (35136, (61,), 671e9, 37e9, "both"),
    "DeepSeek-V3": (35136, (61,), 671e9, 37e9, "both"),
    "DeepSeek-V3.2": (42944, (61,), 671e9, 37e9, "head"),
    "DeepSeek-V4-Flash": (3440, (2, 21, 20), 284e9, 13e9, "head"),
    "DeepSeek-V4-Pro": (4924, (31, 30), 1.6e12, 49e9, "head"),
    "GLM-5": (54912, (78,), 744e9, 40e9, "none"),
    "GLM-5.3": (47616, (21, 57), 753e9, 40e9, "head"),
    "Kimi-K2-Instruct": (35136, (61,), 1.04e12, 32.6e9, "both"),
    "Kimi-K2.5": (35136, (61,), 1.04e12, 32.6e9, "both"),
    "Kimi-K3": (13824, (69, 24), 2.8e12, 104e9, "head"),
    "Llama-4-Maverick-17B-128E-Instruct": (24576, (36, 12), 400e9, 17e9, "both"),
    "Meta-Llama-3.1-405B": (258048, (126,), 405e9, 405e9, "both"),
    "Meta-Llama-3.1-70B": (163840, (80,), 70.6e9, 70.6e9, "both"),
    "Meta-Llama-3.1-8B": (65536, (32,), 8.03e9, 8.03e9, "both"),
    "MiMo-V2-Flash": (11520, (9, 39), 309e9, 15e9, "head"),
    "MiniMax-M2.5": (126976, (62,), 230e9, 10e9, "none"),
    "MiniMax-M3": (68736, (3, 57), 428e9, 23e9, "none"),
    "Mixtral-8x7B-v0.1": (65536, (32,), 46.7e9, 12.9e9, "both"),
    "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": (3072, (23, 6), 31.6e9, 3.6e9, "both"),
    "NVIDIA-Nemotron-3-Super-120B-A12B-FP8": (4096, (40, 8), 120.6e9, 12.7e9, "both"),
    "NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16": (6144, (48, 12), 550e9, 55e9, "head"),
    "Qwen3-235B-A22B": (96256, (94,), 235e9, 22e9, "both"),
    "Qwen3-30B-A3B": (49152, (48,), 30.5e9, 3.3e9, "both"),
    "Qwen3-32B": (131072, (64,), 32.8e9, 32.8e9, "both"),
    "Qwen3-8B": (73728, (36,), 8.2e9, 8.2e9, "both"),
    "Qwen3-Coder-480B-A35B-Instruct": (126976, (62,), 480e9, 35e9, "both"),
    "Qwen3-VL-235B-A22B-Instruct": (96256, (94,), 235e9, 22e9, "both"),
    "Qwen3.5-122B-A10B": (12288, (36, 12), 122e9, 10e9, "both"),
    "Qwen3.5-27B": (32768, (48, 16), 27e9, 27e9, "both"),
    "Qwen3.5-397B-A17B": (15360, (45, 15), 397e9, 17e9, "both"),
    "Step-3.7-Flash": (24576, (12, 33), 198e9, 11e9, "both"),
    "gemma-4-26B-A4B": (10240, (25, 5), 25.2e9, 3.8e9, "both"),
    "gpt-oss-120b": (18432, (18, 18), 116.8e9, 5.1e9, "head"),
    "gpt-oss-20b": (12288, (12, 12), 20.9e9, 3.6e9, "head"),
}


def load(name: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((CONFIGS / f"{name}.json").read_text())
    return config


def cache_elements_per_token(architecture: Architecture) -> float:
    return sum(
        group.layers
        * (group.kv_elements_per_entry + group.index_elements_per_entry)
        / group.tokens_per_entry
        for group in architecture.layer_groups
    )


def refused(config: object, *ignore: str) -> list[str]:
    with pytest.raises(BadInput) as error:
        read_architecture(config, "config.json", ignore)  # type: ignore[arg-type]
    return [str(fault) for fault in error.value.faults]


@needs_configs
@pytest.mark.parametrize("name", NAMES)
def test_published_configs_give_their_makers_counts(name: str) -> None:
    assert name in STATED, f"{name}.json: say here what its maker states"
    elements, layers, total, active, embeddings = STATED[name]
    architecture = read_architecture(load(name), name)
    assert cache_elements_per_token(architecture) == elements
    assert tuple(group.layers for group in architecture.layer_groups) == layers
    counts = architecture.parameters
    assert counts.total == pytest.approx(total, rel=0.02)
    counted = {
        "both": counts.active,
        "head": counts.active - counts.input_embedding,
        "none": counts.routed_experts_active + counts.body,
    }[embeddings]
    # 2 %, or that the maker's whole number of billions is the count, cut or rounded
    whole = active % 1e9 == 0 and math.floor(counted / 1e9) <= active / 1e9 <= math.ceil(
        counted / 1e9
    )
    assert whole or counted == pytest.approx(active, rel=0.02)


@needs_configs
def test_deepseek_v32_by_hand() -> None:
    architecture = read_architecture(load("DeepSeek-V3.2"))
    (group,) = architecture.layer_groups
    assert (group.layers, group.kv_elements_per_entry, group.index_elements_per_entry) == (
        61,
        512 + 64,
        128,
    )
    assert (group.heads, group.qk_dim, group.v_dim, group.kv_heads) == (128, 576, 512, 1)
    assert (group.index_heads, group.index_dim, group.top_k_entries) == (64, 128, 2048)
    assert (group.latent_dim, group.expanded_qk_dim, group.expanded_up_dim) == (512, 192, 256)
    assert (architecture.moe_layers, architecture.routed_experts) == (58, 256)
    assert (architecture.expert_groups, architecture.expert_groups_per_token) == (8, 4)
    experts = 58 * 256 * 3 * 7168 * 2048
    assert architecture.parameters.routed_experts == experts
    assert architecture.parameters.routed_experts_active == experts / 256 * 8


@needs_configs
def test_glm_indexer_keys_only_in_full_layers() -> None:
    full, shared = read_architecture(load("GLM-5.3")).layer_groups
    assert (full.layers, shared.layers) == (21, 57)
    assert (full.index_elements_per_entry, full.index_heads) == (128, 32)
    assert (shared.index_elements_per_entry, shared.index_heads) == (0, 0)
    assert full.top_k_entries == shared.top_k_entries == 2048


@needs_configs
def test_deepseek_v4_sums_its_compressed_entries() -> None:
    heavy, light = read_architecture(load("DeepSeek-V4-Pro")).layer_groups
    assert (heavy.layers, heavy.tokens_per_entry, heavy.index_heads) == (31, 128, 0)
    assert (light.layers, light.tokens_per_entry, light.top_k_entries) == (30, 4, 1024)
    assert heavy.top_k_entries is None
    assert 30 * (512 + 128) / 4 + 31 * 512 / 128 == 4924
    assert {group.window_tokens for group in (heavy, light)} == {128}
    window_only = read_architecture(load("DeepSeek-V4-Flash")).layer_groups[0]
    assert (window_only.kv_elements_per_entry, window_only.window_kv_elements_per_token) == (0, 512)


@needs_configs
def test_kimi_k3_by_hand() -> None:
    architecture = read_architecture(load("Kimi-K3"))
    delta, attention = architecture.layer_groups
    assert (delta.layers, attention.layers) == (69, 24)
    assert delta.state_elements == 96 * 128 * 128
    assert delta.conv_state_elements == 3 * 3 * 96 * 128
    assert delta.recurrent_flop_per_token == 6 * 96 * 128 * 128
    assert attention.kv_elements_per_entry == 576
    assert architecture.dispatch_size == 3584
    assert architecture.parameters.routed_experts == 92 * 896 * 3 * 3584 * 3072


@needs_configs
@pytest.mark.parametrize(
    ("name", "group", "expected"),
    [
        ("gpt-oss-120b", 0, {"window_tokens": 128, "window_kv_elements_per_token": 1024}),
        ("gemma-4-26B-A4B", 0, {"window_tokens": 1024, "window_kv_elements_per_token": 4096}),
        ("gemma-4-26B-A4B", 1, {"kv_elements_per_entry": 2 * 2 * 512, "kv_heads": 2}),
        ("MiMo-V2-Flash", 0, {"kv_elements_per_entry": 4 * 320, "qk_dim": 192, "v_dim": 128}),
        ("MiMo-V2-Flash", 1, {"window_kv_elements_per_token": 8 * 320, "window_tokens": 128}),
        ("Step-3.7-Flash", 1, {"window_tokens": 512, "kv_elements_per_entry": 0}),
        (
            "Llama-4-Maverick-17B-128E-Instruct",
            0,
            {"window_tokens": 8192, "kv_elements_per_entry": 0},
        ),
        (
            "MiniMax-M3",
            1,
            {"index_elements_per_entry": 128, "index_heads": 4, "top_k_entries": 2048},
        ),
        ("Qwen3.5-397B-A17B", 0, {"state_elements": 64 * 128 * 128, "heads": 0}),
        ("Qwen3.5-397B-A17B", 1, {"kv_elements_per_entry": 2 * 2 * 256, "heads": 32}),
        (
            "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16",
            0,
            {"state_elements": 64 * 64 * 128, "conv_state_elements": 3 * (4096 + 2 * 8 * 128)},
        ),
    ],
)
def test_layer_kinds(name: str, group: int, expected: dict[str, float]) -> None:
    found = read_architecture(load(name)).layer_groups[group]
    assert {key: getattr(found, key) for key in expected} == expected


@needs_configs
def test_latent_experts_get_narrow_vectors() -> None:
    assert read_architecture(load("NVIDIA-Nemotron-3-Super-120B-A12B-FP8")).dispatch_size == 1024
    assert read_architecture(load("DeepSeek-V3")).dispatch_size == 7168
    assert read_architecture(load("Qwen3-8B")).dispatch_size == 0


def test_unknown_fields_are_all_named_with_the_cure() -> None:
    faults = refused({**LLAMA, "kv_compression": 4, "numhidden_layers": 3})
    assert len(faults) == 2
    assert faults[0].startswith("config.json: kv_compression: ")
    assert "`--ignore-field kv_compression` if it changes neither weights nor KV cache" in faults[0]
    assert "did you mean num_hidden_layers?" in faults[1]


def test_a_field_the_user_vouches_for_is_ignored() -> None:
    config = {**LLAMA, "kv_compression": 4}
    assert read_architecture(config, ignore=["kv_compression"]) == read_architecture(LLAMA)


def test_a_field_of_another_family_is_refused() -> None:
    assert "q_lora_rank" in refused({**LLAMA, "q_lora_rank": 1536})[0]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"model_type": "deepseek_v9"}, "did you mean deepseek_v"),
        ({"model_type": None}, "model_type"),
        ({"model_type": 7}, "model_type"),
        ({"architectures": ["LlamaSparseForCausalLM"]}, "architectures"),
        ({"hidden_size": "4096"}, "hidden_size"),
        ({"hidden_size": -1}, "hidden_size"),
        ({"hidden_size": True}, "hidden_size"),
        ({"hidden_size": math.nan}, "hidden_size"),
        ({"hidden_size": math.inf}, "hidden_size"),
        ({"hidden_size": 4096.0}, "hidden_size"),
        ({"hidden_size": None}, "got nothing"),
        ({"num_hidden_layers": 10**12}, "from 1 to 10000 is needed"),
        ({"vocab_size": 10**400}, "a number of 401 digits"),
        ({"num_key_value_heads": 7}, "a divisor of num_attention_heads 32"),
        ({"is_encoder_decoder": True}, "is_encoder_decoder"),
        ({"pruned_heads": {"1": [0]}}, "pruned_heads"),
        ({"tie_word_embeddings": "no"}, "true or false"),
        ({"text_config": 5}, "text_config"),
    ],
)
def test_wrong_values_are_refused(change: dict[str, Any], word: str) -> None:
    assert any(word in fault for fault in refused({**LLAMA, **change}))


def test_all_faults_come_together() -> None:
    faults = refused({**LLAMA, "hidden_size": 0, "vocab_size": "many", "mystery": 1})
    assert [fault.split(": ")[1] for fault in faults] == ["hidden_size", "vocab_size", "mystery"]


@pytest.mark.parametrize("config", [[], None, "llama", {}, {"text_config": {}}])
def test_what_is_no_config_is_refused(config: object) -> None:
    assert refused(config)


@needs_configs
@pytest.mark.parametrize(
    ("name", "path", "value", "word"),
    [
        ("DeepSeek-V4-Pro", ("compress_ratios",), [4] * 10, "61 entries are needed"),
        ("DeepSeek-V4-Pro", ("compress_ratios",), [8] * 62, "out of 0, 4, 128"),
        ("GLM-5.3", ("indexer_types",), ["full"] * 3, "78 entries are needed"),
        ("GLM-5.3", ("indexer_types",), None, "index_topk_freq"),
        ("GLM-5.3", ("mlp_layer_types",), ["sparse"] * 78, "first_k_dense_replace"),
        ("gpt-oss-120b", ("layer_types",), ["full_attention"], "36 entries"),
        ("gpt-oss-120b", ("layer_types",), ["strange"] * 36, "sliding_attention"),
        ("gpt-oss-120b", ("experts_per_token",), 5, "experts_per_token: 4 is needed"),
        ("Kimi-K3", ("text_config", "linear_attn_config", "kda_layers"), [1], "kda_layers"),
        ("Kimi-K3", ("text_config", "linear_attn_config", "mode"), 1, "linear_attn_config.mode"),
        ("Kimi-K3", ("model_type",), "kimi_k9", "kimi_k"),
        ("MiniMax-M3", ("sparse_attention_config", "sparse_disable_index_value"), [0] * 60, "1 is"),
        ("gemma-4-26B-A4B", ("text_config", "num_kv_shared_layers"), 4, "0 is needed"),
        ("NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", ("hybrid_override_pattern",), "MX", "letters"),
        ("NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", ("num_hidden_layers",), 51, "52 is needed"),
        ("DeepSeek-V3", ("num_experts_per_tok",), 257, "at most the 256 experts"),
        ("DeepSeek-V3", ("sliding_window",), 128, "sliding_window"),
    ],
)
def test_contradictions_are_refused(
    name: str, path: tuple[str, ...], value: Any, word: str
) -> None:
    config = load(name)
    node = config
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    assert any(word in fault for fault in refused(config))


def test_window_of_qwen_is_used_only_when_switched_on() -> None:
    config = {**LLAMA, "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}
    config |= {"head_dim": 128, "sliding_window": 4096, "max_window_layers": 20}
    assert len(read_architecture({**config, "use_sliding_window": False}).layer_groups) == 1
    full, sliding = read_architecture({**config, "use_sliding_window": True}).layer_groups
    assert (full.layers, sliding.layers, sliding.window_tokens) == (20, 12, 4096)


def test_tied_embeddings_count_once() -> None:
    tied = read_architecture({**LLAMA, "tie_word_embeddings": True}).parameters
    untied = read_architecture({**LLAMA, "tie_word_embeddings": False}).parameters
    assert untied.total - tied.total == 128256 * 4096
    assert untied.head_flop_parameters == tied.head_flop_parameters == 128256 * 4096


@needs_configs
@pytest.mark.parametrize("name", NAMES)
def test_fields_read_are_enough(name: str) -> None:
    architecture, fields = read_config(load(name))
    again, same = read_config(fields)
    assert again == architecture
    assert same == fields


def test_a_thousand_unknown_fields_are_cut_short() -> None:
    faults = refused({**LLAMA, **{f"field_{number}": number for number in range(1000)}})
    assert len(faults) == 201
    assert "800 more" in faults[-1]


STRANGE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-2, 9),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(-1, 130), max_size=4),
    st.lists(st.sampled_from(["full", "full_attention", 0, None]), max_size=4),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)


def _places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = []
    items = node.items() if isinstance(node, dict) else enumerate(node[:4])
    for key, value in items:
        found.append((*path, key))
        if isinstance(value, (dict, list)):
            found += _places(value, (*path, key))
    return found


def _check(config: Any) -> None:
    try:
        architecture = read_architecture(config)
    except BadInput as error:
        assert error.faults
        return
    numbers = [value for group in architecture.layer_groups for value in astuple(group)[1:]]
    numbers += astuple(architecture.parameters)
    numbers += [architecture.parameters.total, architecture.parameters.active]
    assert all(value is None or (math.isfinite(value) and value >= 0) for value in numbers)
    assert architecture.parameters.active <= architecture.parameters.total


@needs_configs
@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_mutated_configs_are_read_or_refused(data: st.DataObject) -> None:
    config = copy.deepcopy(load(data.draw(st.sampled_from(NAMES))))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(_places(config)))
        node = config
        for part in path[:-1]:
            node = node[part]
        if data.draw(st.booleans()) and isinstance(node, dict):
            del node[path[-1]]
        else:
            node[path[-1]] = data.draw(STRANGE)
    _check(config)


@given(st.dictionaries(st.text(max_size=12), STRANGE, max_size=6))
def test_any_mapping_is_read_or_refused(config: dict[str, Any]) -> None:
    _check({**LLAMA, **config})
    _check(config)
