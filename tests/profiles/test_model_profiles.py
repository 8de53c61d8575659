"""Shipped model profiles agree with published configs; bad ones are refused at their key."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dpplan.errors import BadInput
from dpplan.profiles.huggingface.model_import import import_model, read_dtypes
from dpplan.profiles.library import read_profile, shipped_names
from dpplan.profiles.model import BYTES_PER_ELEMENT, Model
from dpplan.profiles.schema import validate_document
from dpplan.profiles.yaml_reader import parse_yaml

CONFIGS = Path(__file__).resolve().parents[3] / "shared" / "hf_configs"
PUBLISHED = {
    "deepseek-v3": "DeepSeek-V3",
    "deepseek-v3.2": "DeepSeek-V3.2",
    "deepseek-v4-flash": "DeepSeek-V4-Flash",
    "deepseek-v4-pro": "DeepSeek-V4-Pro",
    "glm-5.3": "GLM-5.3",
    "gpt-oss-120b": "gpt-oss-120b",
    "kimi-k2": "Kimi-K2-Instruct",
    "kimi-k3": "Kimi-K3",
    "llama-3.1-70b": "Meta-Llama-3.1-70B",
    "minimax-m3": "MiniMax-M3",
    "qwen3-235b-a22b": "Qwen3-235B-A22B",
    "qwen3.5-397b-a17b": "Qwen3.5-397B-A17B",
}
TINY: dict[str, Any] = {
    "name": "tiny",
    "model_type": "llama",
    "hidden_size": 8,
    "vocab_size": 10,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 16,
    "kv_dtype": "fp8",
    "weight_dtype": "bf16",
    "compute_dtype": "bf16",
    "total_parameters": 2000,
    "active_parameters": 2000,
}


def read(name: str) -> Model:
    profile = read_profile("models", name)
    assert isinstance(profile, Model)
    return profile


def published(name: str) -> dict[str, Any]:
    path = CONFIGS / f"{name}.json"
    if not path.is_file():
        pytest.skip("the published config.json files are not part of the repository")
    config: dict[str, Any] = json.loads(path.read_text())
    return config


def from_text(text: str) -> Model:
    return validate_document(parse_yaml(text, "model.yaml"), Model)


def refused(**changes: Any) -> list[str]:
    text = "\n".join(f"{key}: {json.dumps(value)}" for key, value in {**TINY, **changes}.items())
    with pytest.raises(BadInput) as error:
        from_text(text)
    return [str(fault) for fault in error.value.faults]


def test_every_model_of_the_contract_is_shipped() -> None:
    assert set(shipped_names("models")) >= {*PUBLISHED, "ds-27b", "qwen2.5-32b"}


@pytest.mark.parametrize("name", shipped_names("models"))
def test_shipped_models_are_near_their_makers_counts(name: str) -> None:
    model = read(name)
    assert model.name == name
    assert model.architecture.parameters.total == pytest.approx(model.total_parameters, rel=0.02)
    assert "default" in model.sources
    for key in ("kv_dtype", "total_parameters", "active_parameters"):
        assert key in model.sources


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_shipped_models_are_what_import_gives(name: str) -> None:
    imported = from_text(import_model(published(PUBLISHED[name]), name))
    shipped = read(name)
    assert imported.architecture == shipped.architecture
    stated = {"description", "total_parameters", "active_parameters", "sources"}
    assert imported.model_dump(exclude=stated) == shipped.model_dump(exclude=stated)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.json")), ids=lambda path: path.stem)
def test_every_published_config_can_be_imported(path: Path) -> None:
    text = import_model(json.loads(path.read_text()), path.stem)
    model = from_text(text)
    assert model.total_parameters == pytest.approx(model.architecture.parameters.total, rel=1e-4)


def test_ds_27b_and_qwen_by_hand() -> None:
    (group,) = read("ds-27b").architecture.layer_groups
    assert (group.layers, group.heads, group.index_heads, group.index_dim) == (30, 32, 32, 64)
    assert (group.kv_elements_per_entry, group.index_elements_per_entry) == (576, 64)
    assert group.top_k_entries == 1024
    qwen = read("qwen2.5-32b")
    (group,) = qwen.architecture.layer_groups
    assert 64 * group.kv_elements_per_entry * qwen.kv_element_bytes == 262144
    without = qwen.architecture.parameters.body
    assert without == pytest.approx(31.0e9, rel=0.01)


@pytest.mark.parametrize(
    ("name", "weight", "expert", "compute"),
    [
        ("DeepSeek-V3.2", "fp8", "fp8", "fp8"),
        ("DeepSeek-V4-Pro", "fp8", "fp4", "fp8"),
        ("gpt-oss-120b", "bf16", "fp4", "bf16"),
        ("Kimi-K2.5", "bf16", "int4", "bf16"),
        ("Kimi-K3", "bf16", "fp4", "bf16"),
        ("Qwen3.5-27B", "bf16", "bf16", "bf16"),
    ],
)
def test_precisions_of_published_configs(name: str, weight: str, expert: str, compute: str) -> None:
    found = read_dtypes(published(name))
    assert (found["weight_dtype"], found["expert_dtype"], found["compute_dtype"]) == (
        weight,
        expert,
        compute,
    )


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"torch_dtype": "complex64"},
        {"torch_dtype": 7},
        {"quantization_config": 3},
        {"quantization_config": {"quant_method": "guessed"}},
        {"dtype": "bfloat16", "quantization_config": {"quant_method": "compressed-tensors"}},
        {
            "dtype": "bfloat16",
            "quantization_config": {
                "quant_method": "compressed-tensors",
                "config_groups": {"a": {"weights": {"num_bits": 3, "type": "int"}}},
            },
        },
    ],
)
def test_precisions_are_not_guessed(config: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="is needed"):
        read_dtypes(config)


def test_weights_of_two_precisions_add_up() -> None:
    model = read("gpt-oss-120b")
    counts = model.architecture.parameters
    expected = counts.routed_experts * 4.25 / 8 + (counts.total - counts.routed_experts) * 2
    assert model.weight_bytes == pytest.approx(expected)
    assert model.effective_index_dtype == "fp8"
    assert BYTES_PER_ELEMENT["int4"] * 8 == 4.5


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"num_key_value_heads": 3}, ":7: num_key_value_heads: a divisor"),
        ({"hidden_size": "8"}, ":3: hidden_size"),
        ({"hidden_size": 8.5}, "hidden_size"),
        ({"q_lora_rank": 4}, "q_lora_rank: no such key is needed for this model_type"),
        ({"q_lora_rang": 4}, "did you mean q_lora_rank?"),
        ({"kv_dtype": "fp9"}, "kv_dtype"),
        ({"model_type": "lama"}, "did you mean llama?"),
        ({"num_hidden_layers": None}, "num_hidden_layers"),
        ({"total_parameters": 2e12}, "total_parameters: a count near"),
        ({"active_parameters": 3000}, "active_parameters: at most total_parameters"),
        ({"total_parameters": -1}, "total_parameters"),
    ],
)
def test_bad_profiles_are_refused_at_their_key(changes: dict[str, Any], word: str) -> None:
    assert any(word in fault for fault in refused(**changes))


def test_all_faults_of_a_profile_come_together() -> None:
    assert len(refused(hidden_size=0, vocab_size=0)) == 2


def test_null_rank_means_no_low_rank_query() -> None:
    assert read("ds-27b").q_lora_rank is None
    assert "q_lora_rank" in read("ds-27b").model_fields_set


def test_reading_a_model_needs_no_heavy_import() -> None:
    code = "import sys, dpplan.profiles.model; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
