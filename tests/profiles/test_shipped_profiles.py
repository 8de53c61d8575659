"""The shipped profiles are complete, sourced, and agree with the published hardware facts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from dpplan.profiles.hardware import Hardware
from dpplan.profiles.library import KINDS, Kind, find, profile_class, read_profile, shipped_names
from dpplan.profiles.yaml_reader import read_yaml

ROOT = Path(__file__).resolve().parents[2]
SHIPPED: dict[Kind, set[str]] = {
    "hardware": {"a100", "h100", "h800", "h20", "h200", "b200", "gb200", "mi300x"},
    "models": {
        "deepseek-v3",
        "deepseek-v3.2",
        "deepseek-v4-flash",
        "deepseek-v4-pro",
        "ds-27b",
        "glm-5.3",
        "gpt-oss-120b",
        "kimi-k2",
        "kimi-k3",
        "llama-3.1-70b",
        "minimax-m3",
        "qwen2.5-32b",
        "qwen3-235b-a22b",
        "qwen3.5-397b-a17b",
    },
    "workloads": {"agentic", "agentic-48k", "agentic-32k", "chat", "mix"},
    "calibrations": {"h800-dualpath"},
}
PROFILES: list[tuple[Kind, str]] = [(kind, name) for kind in KINDS for name in shipped_names(kind)]
every_profile = pytest.mark.parametrize(("kind", "name"), PROFILES)
UNSOURCED = {"name", "description", "model", "sources"}
"""Keys that hold words of the profile's own."""

# Per GPU, one direction: BF16 and FP8 TFLOP/s, HBM GB and GB/s, NVLink GB/s, NIC Gbit/s.
# Several values where the makers' sheets disagree.
GPU_FACTS: dict[str, tuple[tuple[float, ...], ...]] = {
    "a100": ((312,), (), (80,), (2039,), (300,), (200,)),
    "h100": ((989,), (1979,), (80,), (3350,), (450,), (400,)),
    "h800": ((989,), (1979,), (80,), (3350,), (200,), (400,)),
    "h20": ((148,), (296,), (96,), (4000,), (450,), (400,)),
    "h200": ((989,), (1979,), (141,), (4800,), (450,), (400,)),
    "b200": ((2250,), (4500,), (180, 192), (7700, 8000), (900,), (400, 800)),
    "gb200": ((2500,), (5000,), (185,), (8000,), (900,), (400, 800)),
    "mi300x": ((1307,), (2614,), (192,), (5300,), (448,), (400,)),
}


def raw(kind: Kind, name: str) -> Any:
    return read_yaml(find(kind, name)).value


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Dotted path of every value; a list is one value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if path or key not in UNSOURCED:
                yield from leaves(inner, (*path, key))
    else:
        yield ".".join(path)


def test_every_profile_of_the_contract_is_shipped() -> None:
    for kind in KINDS:
        assert set(shipped_names(kind)) >= SHIPPED[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_the_package_carries_the_profiles_of_the_repository(kind: Kind) -> None:
    here = {path.stem: path.read_bytes() for path in (ROOT / kind).glob("*.yaml")}
    assert {name: find(kind, name).read_bytes() for name in shipped_names(kind)} == here


@every_profile
def test_a_profile_is_named_as_its_file(kind: Kind, name: str) -> None:
    profile: Any = read_profile(kind, name)
    assert profile.name == name
    assert profile.description


@every_profile
def test_every_number_has_a_source(kind: Kind, name: str) -> None:
    profile: Any = read_profile(kind, name)
    values, sources = set(leaves(raw(kind, name))), profile.sources
    covered = {
        path for path in values for key in sources if path == key or path.startswith(f"{key}.")
    }
    assert "default" in sources or values - covered == set()


@every_profile
def test_every_source_covers_something(kind: Kind, name: str) -> None:
    profile: Any = read_profile(kind, name)
    values = set(leaves(raw(kind, name)))
    idle = {
        key
        for key in profile.sources
        if key != "default" and not any(v == key or v.startswith(f"{key}.") for v in values)
    }
    assert idle == set()


@every_profile
def test_sources_can_be_followed(kind: Kind, name: str) -> None:
    profile: Any = read_profile(kind, name)
    for key, source in profile.sources.items():
        assert len(source.reference) >= 8, key
        if kind != "models" and source.kind in ("datasheet", "measured"):
            assert source.url, f"{key}: a {source.kind} number needs its url"
        if source.url:
            assert source.url.startswith("https://"), key


@every_profile
def test_the_json_schema_takes_the_profile(kind: Kind, name: str) -> None:
    value = raw(kind, name)
    schema = profile_class(kind, value).model_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(value, schema, cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize("name", sorted(GPU_FACTS))
def test_hardware_agrees_with_the_published_facts(name: str) -> None:
    node = read_profile("hardware", name)
    assert isinstance(node, Hardware)
    found = (
        node.gpu.bf16_flop_per_s / 1e12,
        None if node.gpu.fp8_flop_per_s is None else node.gpu.fp8_flop_per_s / 1e12,
        node.gpu.hbm_bytes / 1e9,
        node.gpu.hbm_bytes_per_s / 1e9,
        node.gpu.nvlink_bytes_per_s / 1e9,
        node.compute_nic.bytes_per_s * 8 / 1e9 * node.compute_nic.count / node.gpus,
    )
    for value, stated in zip(found, GPU_FACTS[name], strict=True):
        if value is None:
            assert stated == ()
        else:
            # Sheets round to four digits or fewer.
            assert any(value == pytest.approx(fact, rel=1e-3) for fact in stated)


@pytest.mark.parametrize("name", sorted(SHIPPED["hardware"]))
def test_a_node_is_whole(name: str) -> None:
    node = read_profile("hardware", name)
    assert isinstance(node, Hardware)
    assert node.dram.kv_buffer_bytes < node.dram.bytes
    assert node.storage_nic.count * node.storage_nic.bytes_per_s > 0
    assert node.gpu.bf16_flop_per_s <= (node.gpu.fp8_flop_per_s or node.gpu.bf16_flop_per_s)


def test_the_papers_testbed_is_the_h800_node() -> None:
    node = read_profile("hardware", "h800")
    assert isinstance(node, Hardware)
    assert (node.gpus, node.compute_nic.count, node.storage_nic.count) == (8, 8, 1)
    assert node.compute_nic.bytes_per_s == node.storage_nic.bytes_per_s == 50e9
    assert (node.dram.bytes_per_s, node.dram.kv_buffer_bytes) == (500e9, 80e9)
    assert node.default_nodes == 6
