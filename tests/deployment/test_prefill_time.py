"""Q-prefill: against measured rates, a sum over layers, and the planner's bound."""

from __future__ import annotations

import dataclasses
import itertools
import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dpplan.demand import PrefillFlop, cache_layout, prefill_flop, remote_nodes_reached
from dpplan.deployment.layouts import Engine, GpuRates, engine_layout
from dpplan.deployment.pools import side_rates, weights_of
from dpplan.deployment.prefill_time import (
    COLLECTIVE_NIC_SHARE,
    COLLECTIVE_NVLINK_SHARE,
    COMMUNICATION_SM_SHARE,
    PrefillEngine,
    activation_bytes_per_token,
    prefill_engine,
    prefill_time,
    prefill_tokens_per_s_per_gpu,
)
from dpplan.deployment.turns import gpu_seconds, prefill_gpu_seconds
from dpplan.profiles.hardware import Hardware
from dpplan.profiles.library import read_profile, shipped_names
from dpplan.profiles.model import Model

MANY = settings(deadline=None, derandomize=True, max_examples=200)

# Fields of the makers' config.json on the Hugging Face hub.
QWEN3_30B_A3B: dict[str, Any] = yaml.safe_load("""
{name: qwen3-30b-a3b, model_type: qwen3_moe, hidden_size: 2048, num_hidden_layers: 48,
num_attention_heads: 32, num_key_value_heads: 4, head_dim: 128, vocab_size: 151936,
tie_word_embeddings: false, intermediate_size: 6144, moe_intermediate_size: 768, num_experts: 128,
num_experts_per_tok: 8, decoder_sparse_step: 1, mlp_only_layers: [], attention_bias: false,
kv_dtype: bf16, weight_dtype: bf16, compute_dtype: bf16,
total_parameters: 30.5e+9, active_parameters: 3.3e+9}
""")
QWEN3_8B_FP8: dict[str, Any] = yaml.safe_load("""
{name: qwen3-8b, model_type: qwen3, hidden_size: 4096, num_hidden_layers: 36,
num_attention_heads: 32, num_key_value_heads: 8, head_dim: 128, vocab_size: 151936,
tie_word_embeddings: false, intermediate_size: 12288, attention_bias: false,
kv_dtype: bf16, weight_dtype: fp8, compute_dtype: fp8,
total_parameters: 8.2e+9, active_parameters: 8.2e+9}
""")


@cache
def hardware(name: str) -> Hardware:
    found = read_profile("hardware", name)
    assert isinstance(found, Hardware)
    return found


@cache
def model(name: str) -> Model:
    found = read_profile("models", name)
    assert isinstance(found, Model)
    return found


@cache
def usable(node: str, of: str) -> GpuRates:
    m = model(of)
    layout = cache_layout(m.architecture, m.kv_element_bytes, m.index_element_bytes)
    return side_rates("prefill", hardware(node), m, layout, "full", frozenset())[0]


def layout_of(node: str, of: str, gpus: int, tp: int = 1) -> Engine:
    m, hw = model(of), hardware(node)
    return engine_layout(
        gpus,
        tp,
        gpus if m.architecture.moe_layers else 1,
        kv_heads=1,
        weights=weights_of(m),
        hbm_bytes=usable(node, of).hbm_bytes,
        gpus_per_node=hw.gpus,
    )


def engine_of(node: str, of: str, gpus: int, tp: int = 1, **changes: float) -> PrefillEngine:
    """Numbers of a shipped model on a shipped node type; `changes` to the GPU's rates."""
    rates = dataclasses.replace(usable(node, of), **changes)
    return prefill_engine(hardware(node), model(of), layout_of(node, of, gpus, tp), rates)


# ------------------------------------------------------------------------------------ measurements


def rate(node: str, of: Model, prompt: float, gpus: int, **how: Any) -> float:
    return prefill_tokens_per_s_per_gpu(
        hardware(node), of, context_tokens=0, append_tokens=prompt, engine_gpus=gpus, **how
    )


def test_measured_rates_are_predicted() -> None:
    """Q-prefill: by the total. Both predictions are held so that a change of the law shows."""
    v3, moe, dense = model("deepseek-v3"), Model(**QWEN3_30B_A3B), Model(**QWEN3_8B_FP8)
    for node, m, prompt, gpus, measured, limit, serial, overlapped in (
        ("h800", v3, 4096, 32, 7839, 0.2, 6495, 8992),  # DeepSeek's profile, balanced routing
        ("h100", v3, 2000, 32, 52_300 / 8, 0.2, 6834, 9815),  # SGLang, served
        ("h20", moe, 4096, 1, 16_594, 0.3, 17_917, 17_917),  # prompts taken as 4,096 tokens
        ("h20", dense, 4096, 1, 15_061, 0.3, 15_477, 15_477),
    ):
        total = rate(node, m, prompt, gpus)
        assert total == pytest.approx(measured, rel=limit)
        assert total == pytest.approx(serial, rel=1e-3)
        assert rate(node, m, prompt, gpus, overlap=True) == pytest.approx(overlapped, rel=1e-3)


def test_what_the_interval_of_schedules_brackets() -> None:
    """Q-prefill: DeepSeek's profile, and SGLang with simulated balance (4K, 5.6 % below it).

    Not SGLang as served (2K): slower than both ends, so the total is no lower bound. Overlapped,
    busiest ranks at twice the mean would explain it.
    """
    v3 = model("deepseek-v3")
    for node, measured in (("h800", 7839), ("h100", 7839 * (1 - 0.056))):
        assert rate(node, v3, 4096, 32) < measured < rate(node, v3, 4096, 32, overlap=True)
    served = 52_300 / 8
    assert served < rate("h100", v3, 2000, 32) < rate("h100", v3, 2000, 32, overlap=True)
    loaded = rate("h100", v3, 2000, 32, overlap=True, expert_load=2.0)
    assert loaded == pytest.approx(served, rel=0.1)


@pytest.mark.parametrize(
    ("nodes", "measured", "tolerance"),
    [(1, 155.5, 0.05), (2, 43, 0.25), (4, 58, 0.1), (8, 51, 0.1)],
)
def test_deep_ep_bandwidths_follow_from_two_shares(
    nodes: int, measured: float, tolerance: float
) -> None:
    """Q-prefill: the table of DeepEP (H800; counts a token's own node or rank among the copies).

    Its tests choose at most 4 nodes a token. EP16 is NVLink's, where D7 counts a copy too few:
    what RDMA brings to a node lands on the sender's rank number, wherever its expert is.
    """
    ranks, limit = 8 * nodes, min(nodes, 4)
    remote = remote_nodes_reached(nodes, 256, 8, nodes, limit)
    other = remote_nodes_reached(ranks, 256, 8, nodes, limit)
    byte_s = max(
        remote / (COLLECTIVE_NIC_SHARE * 50), (other - remote) / (COLLECTIVE_NVLINK_SHARE * 200)
    )
    counted = other * ranks / (ranks - 1) if nodes == 1 else remote * nodes / (nodes - 1)
    assert counted / byte_s == pytest.approx(measured, rel=tolerance)


# -------------------------------------------------------------------------------------- two roads


def test_activations_are_the_sum_over_kernels_of_every_layer() -> None:
    """Q-prefill: DeepSeek-V3 under EP32, kernel by kernel [elements read, element written]."""
    h, heads, experts, width = 7168, 128, 8, 2048
    a = model("deepseek-v3").architecture
    body_width = a.parameters.body / (3 * h) / 61
    total = 0.0
    for layer in range(61):
        bf16 = fp8 = 0.0
        for _norm in ("attention", "ffn"):
            bf16 += 2 * h + 2 * h  # residual and norm
            bf16, fp8 = bf16 + h, fp8 + h  # quantise
        bf16 += 2 * heads * 192 + 2 * heads * 192  # queries, keys: read, write
        bf16, fp8 = bf16 + heads * 128, fp8 + heads * 128  # quantise the output
        bf16, fp8 = bf16 + 4 * body_width, fp8 + body_width  # gate, quantise
        if layer >= 3:
            bf16, fp8 = bf16 + 4 * experts * width, fp8 + experts * width
            fp8 += 2 * experts * h  # gather
            bf16 += experts * h + (1 + remote_nodes_reached(32, 256, 8, 8, 4)) * h  # sum up
        total += 2 * bf16 + fp8
    assert activation_bytes_per_token(a, 1.0, 32) == pytest.approx(total, rel=1e-9)


def test_the_time_of_a_prompt_is_that_of_its_parts() -> None:
    """Q-prefill: DeepSeek-V3 on H800 from the profile's numbers alone, by hand."""
    numbers = engine_of("h800", "deepseek-v3", 32)
    time = numbers.time(0, 4096)
    active = 2 * (numbers.architecture.parameters.active - 2 * 129280 * 7168) * 4096
    assert float(time.gemm_s) == pytest.approx(active / (1979e12 * 0.68), rel=1e-3)
    pairs = 4096 * 4097 / 2
    attended = 61 * 2 * 128 * (192 + 128) * pairs
    assert float(time.attention_s) == pytest.approx(attended / (989e12 * 0.65))
    # 58 layers, FP8 there and BF16 back, 2.196 other nodes, 0.87 of a 50 GB/s NIC
    sent = 58 * 7168 * 3 * remote_nodes_reached(4, 256, 8, 8, 4) * 4096
    assert float(time.communication_s) == pytest.approx(sent / 43.5e9)
    kernels = float(time.gemm_s + time.attention_s + time.activation_s)
    assert float(time.total_s) == pytest.approx(kernels + float(time.communication_s))
    assert float(time.overlapped_s) == pytest.approx(kernels * 132 / 108)


SECONDS = st.floats(0, 1e3)
ONE = GpuRates(1.0, 1.0, 1.0, hbm_bytes_per_s=1.0, hbm_bytes=1.0)


@MANY
@given(SECONDS, SECONDS, SECONDS, SECONDS, SECONDS)
def test_the_two_schedules(g: float, a: float, w: float, m: float, c: float) -> None:
    """Q-prefill: taking turns, or overlapping on fewer multiprocessors; never below either load."""
    flop = PrefillFlop(np.array(g), np.array(a), np.array(0.0))
    costs = {"activation_bytes_per_token": m, "communication_s_per_token": c}
    found = prefill_time(flop, 1.0, ONE, weight_read_bytes=w, **costs)
    total, fast = float(found.total_s), float(found.overlapped_s)
    overlapped = max((max(g, 2 * w) + a + m) * 132 / 108, c)
    assert total == pytest.approx(max(g, w) + a + m + c)
    assert fast == pytest.approx(min(total, overlapped))
    assert total >= fast >= max(g, w, a, m, c) * (1 - 1e-12)
    if c == 0:
        assert fast == total


WHOLE = st.integers(0, 10**6)  # seconds whose products and sums are exact


@MANY
@given(st.lists(st.tuples(WHOLE, WHOLE, WHOLE, WHOLE), min_size=1, max_size=9), WHOLE, WHOLE)
def test_the_total_is_exactly_additive(
    parts: list[tuple[int, int, int, int]], m: int, c: int
) -> None:
    """Q-prefill: over tokens, to the last bit, where products hide the weights' reading.

    Elsewhere parts take longer at most: what one part's products leave idle is lost to the others.
    """
    gemm, attention, read, tokens = np.array(parts, dtype=float).T
    costs = {"activation_bytes_per_token": float(m), "communication_s_per_token": float(c)}

    def total(weights: Any, add: Any) -> float:
        flop = PrefillFlop(add(gemm), add(attention), np.array(0.0))
        found = prefill_time(flop, add(tokens), ONE, weight_read_bytes=add(weights), **costs)
        return float(found.total_s.sum())

    assert total(np.minimum(read, gemm), np.sum) == total(np.minimum(read, gemm), np.array)
    assert total(read, np.sum) <= total(read, np.array)


# -------------------------------------------------------------------------------- never too fast

NODES = st.sampled_from(shipped_names("hardware"))
MODELS = st.sampled_from(shipped_names("models"))
SIZES = st.sampled_from([(1, 1), (4, 2), (8, 1), (8, 8), (16, 8), (32, 1), (64, 4)])
TOKENS = st.floats(0, 2e6)
RATES = ("gemm_flop_per_s", "attention_flop_per_s", "index_flop_per_s", "hbm_bytes_per_s")


@MANY
@given(NODES, MODELS, SIZES, TOKENS, st.floats(0, 1e5))
def test_never_faster_than_the_planner(
    node: str, of: str, size: tuple[int, int], context: float, append: float
) -> None:
    """Q-prefill >= the bound's GPU-seconds (D2, D7, C), finite, of any turn on any engine."""
    m, hw, rates, layout = model(of), hardware(node), usable(node, of), layout_of(node, of, *size)
    kernels = gpu_seconds(prefill_flop(m.architecture, context, append), rates)
    bound = prefill_gpu_seconds(kernels, append, m, layout, hw, rates)
    time = prefill_engine(hw, m, layout, rates).time(context, append)
    assert math.isfinite(time.total_s)
    assert time.total_s >= time.overlapped_s >= bound * (1 - 1e-12) >= 0


@MANY
@given(NODES, MODELS, SIZES, TOKENS, st.floats(1, 1e5), st.floats(1, 10))
def test_monotone(
    node: str, of: str, size: tuple[int, int], context: float, append: float, factor: float
) -> None:
    """Q-prefill falls with every rate, grows with context, append and expert load."""
    numbers = engine_of(node, of, *size)
    sent = numbers.communication_s_per_token * factor
    slower = [
        numbers.time(context * factor, append),
        numbers.time(context, append * factor),
        dataclasses.replace(numbers, communication_s_per_token=sent).time(context, append),
        dataclasses.replace(numbers, expert_load=factor).time(context, append),
    ]
    faster = [
        engine_of(node, of, *size, **{name: getattr(numbers.rates, name) * factor}).time(
            context, append
        )
        for name in (*RATES, "nvlink_bytes_per_s")
    ]
    now = numbers.time(context, append)
    for end in ("total_s", "overlapped_s"):
        found = float(getattr(now, end))
        assert min(getattr(time, end) for time in slower) >= found * (1 - 1e-12)
        assert max(getattr(time, end) for time in faster) <= found * (1 + 1e-12)


@MANY
@given(NODES, MODELS, st.lists(st.floats(1, 1e4), min_size=2, max_size=5), TOKENS)
def test_the_loads_of_chunks_add_up(
    node: str, of: str, chunks: list[float], context: float
) -> None:
    """Q-prefill: time is that of full batches, so a turn in chunks loads a GPU no less.

    More only for MLA's up-projection of the context and the logits, both once a chunk.
    """
    numbers = engine_of(node, of, 8)
    whole = numbers.time(context, math.fsum(chunks))
    starts = [context + before for before in itertools.accumulate([0.0, *chunks[:-1]])]
    parts = numbers.time(np.array(starts), np.array(chunks))
    assert parts.total_s.shape == (len(chunks),)
    assert parts.gemm_s.sum() >= whole.gemm_s * (1 - 1e-9)
    # A window or top-k that a fractional position reaches is counted in whole tokens.
    assert parts.attention_s.sum() >= whole.attention_s * (1 - 1e-2)
    for name in ("weight_read_s", "activation_s", "communication_s"):
        assert getattr(parts, name).sum() == pytest.approx(float(getattr(whole, name)))
    more = (parts.gemm_s + parts.attention_s).sum() - float(whole.gemm_s + whole.attention_s)
    assert parts.total_s.sum() == pytest.approx(float(whole.total_s) + more)


def test_unlimited_gpus_take_no_time() -> None:
    """Q-prefill: `--unlimited prefill.gpu` lifts kernels and links, without a NaN."""
    m, hw = model("deepseek-v3"), hardware("h800")
    layout = cache_layout(m.architecture, m.kv_element_bytes)
    rates, _, _ = side_rates("prefill", hw, m, layout, "full", frozenset({"prefill.gpu"}))
    lifted = prefill_engine(hw, m, layout_of("h800", "deepseek-v3", 32), rates)
    assert lifted.time([0, 9e5], [0, 4096]).total_s.max() == 0


def test_small_batches_wait_for_weights() -> None:
    """Q-prefill: with few tokens a batch, reading the weights twice or once sets the time."""
    numbers = dataclasses.replace(engine_of("h20", "deepseek-v3", 8), batch_tokens=64.0)
    time = numbers.time(0, 64)
    assert time.weight_read_s > 1.5 * time.gemm_s
    assert time.total_s == pytest.approx(
        float(time.weight_read_s + time.attention_s + time.activation_s + time.communication_s)
    )


def test_what_is_refused() -> None:
    """Q-prefill: negative amounts, empty batches, a busiest rank below the mean."""
    numbers = engine_of("h800", "deepseek-v3", 32)
    for context, append in ((-1, 5), (5, -1)):
        with pytest.raises(ValueError, match="zero or more"):
            numbers.time(context, append)
    hw, m = hardware("h800"), model("deepseek-v3")
    for wrong in ({"append_tokens": 0}, {"tokens_per_gpu": 0}, {"expert_load": 0.9}):
        given_values = {"context_tokens": 0.0, "append_tokens": 1.0} | wrong
        with pytest.raises(ValueError, match="needed"):
            prefill_tokens_per_s_per_gpu(hw, m, **given_values)
    assert 0 < COMMUNICATION_SM_SHARE < 1
