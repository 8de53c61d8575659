"""Laws D1 to D7: what a turn asks for, against sums written out layer by layer, query by query."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpplan.demand import (
    CacheLayout,
    Counting,
    all_reduce_bytes_per_token,
    attended_pairs,
    cache_compute_ratio,
    cache_layout,
    collective_bytes_per_token,
    decode_demand,
    dispatch_bytes_per_token,
    hit_rate,
    largest_batch,
    persisted_tokens,
    prefill_flop,
    remote_nodes_reached,
    sequence_bytes,
    step_time_s,
)
from dpplan.profiles.architecture import Architecture, LayerGroup, ParameterCounts
from dpplan.profiles.library import read_profile, shipped_names
from dpplan.profiles.model import Model

SAMPLE = settings(deadline=None, derandomize=True, max_examples=150)
MODELS = shipped_names("models")


def shipped(name: str) -> Model:
    model = read_profile("models", name)
    assert isinstance(model, Model)
    return model


# ------------------------------------------------------------------------- random architectures


@st.composite
def layer_groups(draw: st.DrawFn) -> LayerGroup:
    """A layer kind: full or sparse or compressed attention, MLA, window, recurrent, or mixtures."""
    kind = draw(st.sampled_from(["full", "latent", "window", "compressed", "recurrent"]))
    layers, heads = draw(st.integers(1, 4)), draw(st.integers(1, 8))
    dim = draw(st.sampled_from([4, 8, 16]))
    top_k = draw(st.one_of(st.none(), st.integers(1, 40)))
    sparse: dict[str, Any] = (
        {}
        if top_k is None
        else {
            "top_k_entries": top_k,
            "index_heads": draw(st.integers(0, 3)),
            "index_dim": 4,
            "index_elements_per_entry": 4.0,
        }
    )
    if kind == "full":
        return LayerGroup(
            "full", layers, 2.0 * heads * dim, heads=heads, qk_dim=dim, v_dim=dim, **sparse
        )
    if kind == "latent":
        return LayerGroup(
            "latent",
            layers,
            kv_elements_per_entry=20.0,
            heads=heads,
            qk_dim=20,
            v_dim=16,
            latent_dim=16,
            expanded_qk_dim=draw(st.integers(2, 12)),
            expanded_up_dim=draw(st.integers(2, 12)),
            expanded_v_dim=4,
            **sparse,
        )
    window: dict[str, Any] = {
        "window_tokens": draw(st.integers(1, 50)),
        "window_kv_elements_per_token": 6.0,
    }
    if kind == "window":
        return LayerGroup("window", layers, heads=heads, qk_dim=dim, v_dim=dim, **window)
    if kind == "compressed":
        return LayerGroup(
            "compressed",
            layers,
            kv_elements_per_entry=8.0,
            tokens_per_entry=draw(st.sampled_from([4, 16])),
            heads=heads,
            qk_dim=8,
            v_dim=8,
            **window,
            **sparse,
        )
    return LayerGroup(
        "recurrent",
        layers,
        state_elements=draw(st.integers(0, 100)) * 1.0,
        conv_state_elements=draw(st.integers(0, 20)) * 1.0,
        recurrent_flop_per_token=draw(st.integers(0, 100)) * 1.0,
    )


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    groups = draw(st.lists(layer_groups(), min_size=1, max_size=4))
    tied = draw(st.booleans())
    counts = ParameterCounts(1000.0, 0.0 if tied else 1000.0, 800.0, 200.0, 5000.0, tied)
    return Architecture(tuple(groups), 16, 100, counts)


def each_layer(architecture: Architecture) -> Iterator[LayerGroup]:
    for group in architecture.layer_groups:
        for _ in range(group.layers):
            yield group


CONTEXTS = st.integers(0, 120)
APPENDS = st.integers(1, 40)
BYTES = st.sampled_from([0.5, 1.0, 2.0, 4.0])


# ---------------------------------------------------------------------------------- D1: KV bytes


def cache_bytes_by_token(
    architecture: Architecture, tokens: int, kv: float, index: float, state: float
) -> float:
    """Every layer's entries, window and state, token by token."""
    total = 0.0
    for layer in each_layer(architecture):
        for position in range(tokens):
            total += layer.kv_elements_per_entry / layer.tokens_per_entry * kv
            total += layer.index_elements_per_entry / layer.tokens_per_entry * index
            if tokens - position <= layer.window_tokens:
                total += layer.window_kv_elements_per_token * kv
        if tokens:
            total += layer.state_elements * state + layer.conv_state_elements * 2
    return total


@given(architectures(), CONTEXTS, BYTES, BYTES, BYTES)
@SAMPLE
def test_cache_is_the_sum_over_layers_and_tokens(
    architecture: Architecture, tokens: int, kv: float, index: float, state: float
) -> None:
    """D1: bytes of a sequence, windows and states in."""
    layout = cache_layout(architecture, kv, index, state)
    expected = cache_bytes_by_token(architecture, tokens, kv, index, state)
    assert float(sequence_bytes(layout, tokens)) == pytest.approx(expected, rel=1e-12)


@given(architectures(), BYTES)
@SAMPLE
def test_cache_bytes_are_homogeneous_in_the_dtype(architecture: Architecture, kv: float) -> None:
    """D1: twice the bytes per element, twice the cache; the index defaults to the KV's dtype."""
    once, twice = cache_layout(architecture, kv), cache_layout(architecture, 2 * kv)
    assert twice.bytes_per_token == pytest.approx(2 * once.bytes_per_token, rel=1e-14)
    assert once == cache_layout(architecture, kv, kv)
    assert 0 <= once.index_bytes_per_token <= once.bytes_per_token


@given(architectures(), st.lists(CONTEXTS, min_size=2, max_size=6))
@SAMPLE
def test_cache_grows_and_broadcasts(architecture: Architecture, lengths: list[int]) -> None:
    """D1: monotone in tokens; an array is its members; windows and states only in `full`."""
    layout = cache_layout(architecture, 1.0)
    together = sequence_bytes(layout, np.array(lengths).reshape(1, -1))
    assert together.shape == (1, len(lengths))
    assert together[0].tolist() == [float(sequence_bytes(layout, n)) for n in lengths]
    ordered = sequence_bytes(layout, sorted(lengths))
    assert (np.diff(ordered) >= 0).all()
    assert (sequence_bytes(layout, lengths, growing_only=True) <= together[0]).all()


@pytest.mark.parametrize(
    ("name", "bytes_per_token"),
    [
        ("deepseek-v3", 61 * (512 + 64)),
        ("deepseek-v3.2", 61 * (512 + 64 + 128)),
        ("ds-27b", 30 * (512 + 64 + 64)),
        ("kimi-k2", 61 * (512 + 64)),
        ("qwen2.5-32b", 64 * 2 * 8 * 128 * 2),
        ("gpt-oss-120b", 18 * 2 * 8 * 64),
        ("qwen3-235b-a22b", 94 * 2 * 4 * 128),
        ("deepseek-v4-pro", 31 * 512 / 128 + 30 * (512 + 128) / 4),
        ("deepseek-v4-flash", 20 * 512 / 128 + 21 * (512 + 128) / 4),
        ("kimi-k3", 24 * (512 + 64)),
        ("glm-5.3", 78 * (512 + 64) + 21 * 128),
        ("qwen3.5-397b-a17b", 15 * 2 * 2 * 256),
        ("minimax-m3", 60 * 2 * 4 * 128 + 57 * 128),
    ],
)
def test_kv_bytes_per_token_by_hand(name: str, bytes_per_token: float) -> None:
    """D1: elements per token of the shipped models, times their KV dtype (Qwen2.5: 2 bytes)."""
    model = shipped(name)
    layout = cache_layout(model.architecture, model.kv_element_bytes, model.index_element_bytes)
    scale = model.kv_element_bytes / (2 if name == "qwen2.5-32b" else 1)
    assert model.effective_index_dtype == model.kv_dtype
    assert layout.bytes_per_token == pytest.approx(bytes_per_token * scale, rel=1e-12)


# -------------------------------------------------------------------------------- D2: prefill FLOP


def prefill_by_query(architecture: Architecture, context: int, append: int) -> float:
    """`full` counting: every layer, every query, every entry that it may attend to."""
    counts = architecture.parameters
    head = counts.input_embedding if counts.tied_embeddings else counts.output_head
    total = sum(2 * (counts.body + counts.routed_experts_active) for _ in range(append)) + 2 * head
    for layer in each_layer(architecture):
        absorbed = expanded = 0.0
        for query in range(1, append + 1):
            seen = context + query
            total += layer.recurrent_flop_per_token
            total += 2 * layer.heads * (layer.qk_dim + layer.v_dim) * min(layer.window_tokens, seen)
            entries = seen / layer.tokens_per_entry
            total += 2 * layer.index_heads * layer.index_dim * entries
            if layer.kv_elements_per_entry:
                attended = (
                    entries if layer.top_k_entries is None else min(layer.top_k_entries, entries)
                )
                absorbed += 2 * layer.heads * (layer.qk_dim + layer.v_dim) * attended
                expanded += (
                    2 * layer.heads * (layer.expanded_qk_dim + layer.expanded_v_dim) * attended
                )
        if layer.latent_dim:
            expanded += context * 2 * layer.latent_dim * layer.heads * layer.expanded_up_dim
            total += min(absorbed, expanded)
        else:
            total += absorbed
    return total


@given(architectures(), CONTEXTS, APPENDS)
@SAMPLE
def test_full_prefill_is_the_sum_over_queries(
    architecture: Architecture, context: int, append: int
) -> None:
    """D2: causal pairs, top-k, windows, indexer, recurrent updates, both MLA forms."""
    found = prefill_flop(architecture, context, append)
    assert float(found.total) == pytest.approx(
        prefill_by_query(architecture, context, append), rel=1e-12
    )


@given(architectures(), CONTEXTS, APPENDS)
@SAMPLE
def test_paper_prefill_counts_context_pairs_alone(
    architecture: Architecture, context: int, append: int
) -> None:
    """D2: `paper`: a*c pairs (a*min(top_k, c)), MLA absorbed, growing layers only, N as stated."""
    expected = 2.0 * 7000 * append
    for layer in each_layer(architecture):
        if layer.kv_elements_per_entry:
            entries = context / layer.tokens_per_entry
            chosen = entries if layer.top_k_entries is None else min(entries, layer.top_k_entries)
            for _ in range(append):
                expected += 2 * layer.heads * (layer.qk_dim + layer.v_dim) * chosen
                expected += 2 * layer.index_heads * layer.index_dim * entries
    found = prefill_flop(architecture, context, append, counting="paper", active_parameters=7000)
    assert float(found.total) == pytest.approx(expected, rel=1e-12)
    counted = prefill_flop(architecture, context, append, counting="paper")
    assert float(counted.gemm) == 2 * architecture.parameters.active * append


@given(
    CONTEXTS,
    APPENDS,
    st.one_of(st.none(), st.integers(1, 200)),
    st.sampled_from([1, 4, 16]),
)
@settings(deadline=None, derandomize=True, max_examples=400)
def test_pairs_are_counted_query_by_query(
    context: int, append: int, at_most: int | None, per_entry: int
) -> None:
    """D2: pairs = a*c + a*(a+1)/2 without a limit, the clipped sum with one."""
    expected = sum(
        min(math.inf if at_most is None else at_most, (context + i) / per_entry)
        for i in range(1, append + 1)
    )
    found = float(attended_pairs(context, append, at_most, per_entry))
    assert found == pytest.approx(expected, rel=1e-13)
    if at_most is None and per_entry == 1:
        assert found == append * context + append * (append + 1) / 2


@given(architectures(), CONTEXTS, APPENDS, st.sampled_from(["paper", "full"]))
@SAMPLE
def test_a_limit_beyond_the_context_is_no_limit(
    architecture: Architecture, context: int, append: int, counting: Counting
) -> None:
    """D2: top-k and windows larger than the sequence are dense attention."""
    longest = context + append
    wide = [
        replace(
            g,
            top_k_entries=None if g.top_k_entries is None else longest,
            window_tokens=longest if g.window_tokens else 0,
        )
        for g in architecture.layer_groups
    ]
    dense = [replace(g, top_k_entries=None) for g in wide]
    endless = [replace(g, window_tokens=10**9 if g.window_tokens else 0) for g in dense]
    first, *others = (
        float(
            prefill_flop(
                replace(architecture, layer_groups=tuple(groups)),
                context,
                append,
                counting=counting,
            ).total
        )
        for groups in (wide, dense, endless)
    )
    assert others == pytest.approx([first, first], rel=1e-13)


@given(architectures(), CONTEXTS, APPENDS, st.integers(1, 30))
@SAMPLE
def test_prefill_grows_with_context_append_and_limits(
    architecture: Architecture, context: int, append: int, more: int
) -> None:
    """D2: never negative, never NaN, monotone in c, a, top-k and window."""
    for counting in ("paper", "full"):
        base = prefill_flop(architecture, context, append, counting=counting)
        parts = (base.gemm, base.attention, base.index)
        assert all(np.isfinite(part).all() and (part >= 0).all() for part in parts)
        wider = replace(
            architecture,
            layer_groups=tuple(
                replace(
                    g,
                    top_k_entries=None if g.top_k_entries is None else g.top_k_entries + more,
                    window_tokens=g.window_tokens + more if g.window_tokens else 0,
                )
                for g in architecture.layer_groups
            ),
        )
        for larger in (
            prefill_flop(architecture, context + more, append, counting=counting),
            prefill_flop(architecture, context, append + more, counting=counting),
            prefill_flop(wider, context, append, counting=counting),
        ):
            assert float(larger.total) >= float(base.total) * (1 - 1e-13)


@given(architectures(), st.lists(st.tuples(CONTEXTS, APPENDS), min_size=1, max_size=5))
@SAMPLE
def test_prefill_broadcasts(architecture: Architecture, turns: list[tuple[int, int]]) -> None:
    """D2: an array of turns is its members, and c and a broadcast against each other."""
    context, append = (np.array(column) for column in zip(*turns, strict=True))
    for counting in ("paper", "full"):
        table = prefill_flop(architecture, context[:, None], append, counting=counting)
        assert table.total.shape == (len(turns), len(turns))
        for i, j in np.ndindex(table.total.shape):
            one = prefill_flop(architecture, context[i], append[j], counting=counting)
            assert float(one.total) == table.total[i, j]


@given(architectures(), CONTEXTS, st.integers(2, 40), st.data())
@SAMPLE
def test_a_prefill_in_two_chunks_costs_the_same(
    architecture: Architecture, context: int, append: int, data: st.DataObject
) -> None:
    """D2: chunked prefill splits the pairs, it neither adds nor loses any (MLA: absorbed form)."""
    plain = replace(
        architecture,
        layer_groups=tuple(replace(g, latent_dim=0) for g in architecture.layer_groups),
    )
    cut = data.draw(st.integers(1, append - 1))
    whole = prefill_flop(plain, context, append)
    first, second = (
        prefill_flop(plain, context, cut),
        prefill_flop(plain, context + cut, append - cut),
    )
    attention = first.attention + second.attention
    assert float(attention) == pytest.approx(float(whole.attention), rel=1e-12)
    assert float(first.index + second.index) == pytest.approx(float(whole.index), rel=1e-12)
    logits = 2 * plain.parameters.head_flop_parameters  # every chunk's last token asks for its own
    assert float(first.gemm + second.gemm) == pytest.approx(float(whole.gemm) + logits, rel=1e-12)


def test_expanded_mla_wins_for_long_appends() -> None:
    """D2: the engine takes the cheaper MLA form: absorbed for one token, expanded for many."""
    v3 = shipped("deepseek-v3").architecture
    (group,) = v3.layer_groups
    absorbed = replace(v3, layer_groups=(replace(group, latent_dim=0),))
    for append, expands in ((1, False), (4096, True)):
        taken, kept = (float(prefill_flop(a, 16384, append).attention) for a in (v3, absorbed))
        assert (taken < kept) is expands
        assert taken <= kept


# ----------------------------------------------------------------------- Table 1: D1, D2, D4, real

TABLE_1 = {
    "qwen2.5-32b": (117.0, 267.0),
    "gpt-oss-120b": (47.0, 95.0),
    "qwen3-235b-a22b": (39.0, 60.0),
    "deepseek-v3.2": (13.0, 36.0),
    "deepseek-v3": (4.8, 5.8),
}


def table_1(name: str, context: float, counting: Counting) -> float:
    """Cache-compute ratio of a turn of 429 new tokens [GB/PFLOP]."""
    model = shipped(name)
    layout = cache_layout(
        model.architecture,
        model.kv_element_bytes,
        model.index_element_bytes,
        model.state_element_bytes,
    )
    flop = prefill_flop(
        model.architecture,
        context,
        429,
        counting=counting,
        active_parameters=model.active_parameters,
    )
    loaded = sequence_bytes(layout, context, growing_only=counting == "paper")
    return float(cache_compute_ratio(loaded, flop.total))


@pytest.mark.parametrize("name", [n for n in TABLE_1 if n != "deepseek-v3"])
def test_table_1_of_the_paper(name: str) -> None:
    """D4 (with D1, D2): the first four rows, 2 % at 16K and 5 % at 64K."""
    assert table_1(name, 16384, "paper") == pytest.approx(TABLE_1[name][0], rel=0.02)
    assert table_1(name, 65536, "paper") == pytest.approx(TABLE_1[name][1], rel=0.05)


def test_table_1_row_of_v3_keeps_its_residual() -> None:
    """D2, D4: V3's row does not follow from 576 bytes x 61 layers; by how much, either way."""
    low, high = TABLE_1["deepseek-v3"]
    absorbed = [
        table_1("deepseek-v3", c, "paper") / p - 1 for c, p in ((16384, low), (65536, high))
    ]
    assert absorbed == pytest.approx([-0.207, -0.221], abs=0.005)
    full = [table_1("deepseek-v3", c, "full") / p - 1 for c, p in ((16384, low), (65536, high))]
    assert full == pytest.approx([0.20, 0.30], abs=0.015)


def test_v32_at_the_mean_context() -> None:
    """D4: about 22 GB/PFLOP at 32.7K tokens (23.1; full counting 23.2)."""
    assert table_1("deepseek-v3.2", 32721, "paper") == pytest.approx(22.0, rel=0.06)


def test_table_1_by_hand() -> None:
    """D1, D2, D4: V3.2 at 16K in one line of arithmetic."""
    pairs = 429 * 16384
    flop = 2 * 37e9 * 429 + 61 * (2 * 128 * (576 + 512) * 429 * 2048 + 2 * 64 * 128 * pairs)
    assert table_1("deepseek-v3.2", 16384, "paper") == pytest.approx(
        (61 * 704 * 16384 / 1e9) / (flop / 1e15), rel=1e-12
    )


# ------------------------------------------------------------------------------- D3, D4: the ratios


@given(st.floats(0, 1e6), st.floats(1, 1e5))
@SAMPLE
def test_hit_rate_is_the_cached_share(context: float, append: float) -> None:
    """D3: c / (c + a), within [0, 1), rising in c and falling in a."""
    rate = float(hit_rate(context, append))
    assert 0 <= rate <= 1
    assert rate == pytest.approx(1 - append / (context + append), abs=1e-12)
    assert float(hit_rate(context + 1, append)) >= rate
    assert float(hit_rate(context, append + 1)) <= rate


def test_ratios_broadcast() -> None:
    """D3, D4: arrays in, arrays out."""
    assert hit_rate([0, 95, 99], [5, 5, 1]).tolist() == [0.0, 0.95, 0.99]
    assert cache_compute_ratio([[22e9], [44e9]], [1e15, 2e15]).tolist() == [
        [22.0, 11.0],
        [44.0, 22.0],
    ]


# --------------------------------------------------------------------------------- D5: write-back


def blocks_written(turns: int, append: int, output: int, block: int = 64) -> int:
    """A session turn by turn: tokens pile up, every full block is written as soon as it is full."""
    waiting = written = 0
    for _ in range(turns):
        for _ in range(append + output):
            waiting += 1
            if waiting == block:
                written, waiting = written + 1, 0
    return written


@given(st.integers(1, 40), st.integers(1, 150), st.integers(0, 150), st.sampled_from([16, 64, 128]))
@SAMPLE
def test_write_back_fills_blocks_turn_by_turn(
    turns: int, append: int, output: int, block: int
) -> None:
    """D5: mean tokens a turn persists, in full blocks, never more than it makes."""
    found = float(persisted_tokens(append, output, turns, block))
    assert found == pytest.approx(
        blocks_written(turns, append, output, block) * block / turns, rel=1e-12
    )
    assert found <= (append + output) * (1 + 1e-11)
    assert found > append + output - block / turns - 1e-9


def test_write_back_of_the_agentic_session() -> None:
    """D5: 157 turns of 429 + 176 tokens fill 1484 blocks of 64; arrays broadcast."""
    assert float(persisted_tokens(429, 176, 157)) == 1484 * 64 / 157
    assert persisted_tokens([429, 10], [[176], [0]], 157).shape == (2, 2)


@given(st.floats(1, 500), st.floats(0, 500), st.floats(1, 200), st.floats(0, 50))
@SAMPLE
def test_write_back_grows(append: float, output: float, turns: float, more: float) -> None:
    """D5: monotone in append and output, also for fractional means."""
    base = float(persisted_tokens(append, output, turns))
    assert float(persisted_tokens(append + more, output, turns)) >= base
    assert float(persisted_tokens(append, output + more, turns)) >= base


# ------------------------------------------------------------------------------------- D6: decode


@given(architectures(), st.integers(1, 200), BYTES, BYTES, BYTES)
@SAMPLE
def test_decode_is_the_sum_over_layers_and_entries(
    architecture: Architecture, tokens: int, kv: float, index: float, state: float
) -> None:
    """D6: a step reads and computes what one more token attends to, layer by layer."""
    read = attention = scored = 0.0
    for layer in each_layer(architecture):
        entries = tokens / layer.tokens_per_entry
        if layer.kv_elements_per_entry:
            chosen = entries if layer.top_k_entries is None else min(layer.top_k_entries, entries)
            read += chosen * layer.kv_elements_per_entry * kv
            attention += 2 * layer.heads * (layer.qk_dim + layer.v_dim) * chosen
        for position in range(tokens):
            if tokens - position <= layer.window_tokens:
                read += layer.window_kv_elements_per_token * kv
                attention += 2 * layer.heads * (layer.qk_dim + layer.v_dim)
        read += entries * layer.index_elements_per_entry * index
        scored += 2 * layer.index_heads * layer.index_dim * entries
        read += 2 * layer.state_elements * state  # read and written back
        attention += layer.recurrent_flop_per_token
    layout = cache_layout(architecture, kv, index, state)
    found = decode_demand(architecture, layout, tokens, kv, index, state)
    assert found.read_bytes == pytest.approx(read, rel=1e-12)
    assert found.attention_flop == pytest.approx(attention, rel=1e-12)
    assert found.index_flop == pytest.approx(scored, rel=1e-12)
    assert found.resident_bytes == float(sequence_bytes(layout, tokens))
    counts = architecture.parameters
    head = counts.input_embedding if counts.tied_embeddings else counts.output_head
    assert found.gemm_flop == 2 * (counts.body + counts.routed_experts_active + head)


@pytest.mark.parametrize("name", MODELS)
def test_decode_equals_a_prefill_of_one_token(name: str) -> None:
    """D2, D6: FLOP of a step on n tokens = prefill of the n-th on n-1, MLA absorbed."""
    model = shipped(name)
    plain = replace(
        model.architecture,
        layer_groups=tuple(replace(g, latent_dim=0) for g in model.architecture.layer_groups),
    )
    sizes = (model.kv_element_bytes, model.index_element_bytes, model.state_element_bytes)
    for n in (1, 100, 5000, 40_000):
        step = decode_demand(plain, cache_layout(plain, *sizes), n, *sizes)
        turn = prefill_flop(plain, n - 1, 1)
        assert step.attention_flop == pytest.approx(float(turn.attention), rel=1e-12)
        assert step.index_flop == pytest.approx(float(turn.index), rel=1e-12)
        assert step.gemm_flop == pytest.approx(float(turn.gemm), rel=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_decode_at_the_mean_length_is_the_mean_over_tokens(name: str) -> None:
    """D6: an answer decoded token by token costs its steps at the mean length, to 0.1 %."""
    model = shipped(name)
    sizes = (model.kv_element_bytes, model.index_element_bytes, model.state_element_bytes)
    layout = cache_layout(model.architecture, *sizes)
    first, output = 33_150, 176
    steps = [
        decode_demand(model.architecture, layout, first + i + 0.5, *sizes) for i in range(output)
    ]
    mean = decode_demand(model.architecture, layout, first + output / 2, *sizes)
    for field, value in vars(mean).items():
        assert value == pytest.approx(np.mean([getattr(step, field) for step in steps]), rel=1e-3)


STEP = st.fixed_dictionaries(
    {
        "shared_weight_s": st.floats(0, 0.03),
        "expert_weight_s": st.one_of(st.just(0.0), st.floats(1e-4, 0.1)),
        "expert_share_per_token": st.one_of(st.just(0.0), st.just(1.0), st.floats(1e-3, 0.9)),
        "cache_s_per_sequence": st.one_of(st.just(0.0), st.floats(1e-5, 1e-2)),
        "compute_s_per_sequence": st.one_of(st.just(0.0), st.floats(1e-6, 1e-2)),
    }
)


@given(STEP, st.integers(1, 300))
@SAMPLE
def test_step_time_is_the_roofline_expert_by_expert(terms: dict[str, float], batch: int) -> None:
    """D6: weights once a step, an expert if any of the batch chose it, caches one by one."""
    missed = 1.0
    for _ in range(batch):
        missed *= 1 - terms["expert_share_per_token"]
    memory = terms["shared_weight_s"] + terms["expert_weight_s"] * (1 - missed)
    compute = 0.0
    for _ in range(batch):
        memory += terms["cache_s_per_sequence"]
        compute += terms["compute_s_per_sequence"]
    assert float(step_time_s(batch, **terms)) == pytest.approx(
        max(memory, compute), rel=1e-9, abs=1e-15
    )


def test_experts_touched_by_a_batch_match_a_draw() -> None:
    """D6: share of 64 experts that a batch of tokens, 4 distinct experts each, touches."""
    rng = np.random.default_rng(4)
    for batch in (1, 8, 32):
        touched = np.zeros(2000)
        for trial in range(len(touched)):
            chosen = rng.permuted(np.tile(np.arange(64), (batch, 1)), axis=1)[:, :4]
            touched[trial] = len(np.unique(chosen)) / 64
        formula = float(
            step_time_s(
                batch,
                shared_weight_s=0.0,
                expert_weight_s=1.0,
                expert_share_per_token=4 / 64,
                cache_s_per_sequence=0.0,
                compute_s_per_sequence=0.0,
            )
        )
        spread = touched.std() / math.sqrt(len(touched))
        assert formula == pytest.approx(touched.mean(), abs=5 * spread + 1e-12)


@given(STEP, st.lists(st.floats(0.5, 1e4), min_size=2, max_size=8))
@SAMPLE
def test_step_time_grows_and_throughput_too(terms: dict[str, float], batches: list[float]) -> None:
    """D6: a larger batch takes longer and yields no fewer tokens/s; arrays = members."""
    sizes = np.array(sorted(batches))
    times = step_time_s(sizes, **terms)
    assert times.tolist() == [float(step_time_s(size, **terms)) for size in sizes]
    assert (np.diff(times) >= -1e-12 * times[1:]).all()
    if times[0] > 0:
        per_token = times / sizes
        assert (np.diff(per_token) <= 1e-12 * per_token[:-1]).all()


@given(STEP, st.floats(1e-3, 0.2))
@settings(deadline=None, derandomize=True, max_examples=400)
def test_largest_batch_is_where_the_scan_stops(terms: dict[str, float], tpot_s: float) -> None:
    """D6: the step at the largest batch takes the limit, at any larger one more."""
    found = largest_batch(tpot_s, **terms)
    assert found >= 0
    if math.isinf(found):
        assert float(step_time_s(1e12, **terms)) <= tpot_s * (1 + 1e-9)
        return
    if found > 0:
        assert float(step_time_s(found, **terms)) <= tpot_s * (1 + 1e-9)
    assert float(step_time_s(found * (1 + 1e-6) + 1e-9, **terms)) >= tpot_s * (1 - 1e-9)
    scan = np.arange(1, 2001)
    fits = scan[step_time_s(scan, **terms) <= tpot_s]
    longest = int(fits.max()) if fits.size else 0
    if longest < 2000:
        assert math.floor(found * (1 - 1e-9)) <= longest <= found * (1 + 1e-9)


@given(STEP, st.floats(1e-3, 0.2), st.floats(1, 4))
@SAMPLE
def test_largest_batch_grows_with_the_limit(
    terms: dict[str, float], tpot_s: float, factor: float
) -> None:
    """D6: more time or faster memory, never a smaller batch; scaling all of both, the same."""
    base = largest_batch(tpot_s, **terms)
    assert largest_batch(tpot_s * factor, **terms) >= base * (1 - 1e-12)
    faster = terms | {"cache_s_per_sequence": terms["cache_s_per_sequence"] / factor}
    assert largest_batch(tpot_s, **faster) >= base * (1 - 1e-12)
    share = {"expert_share_per_token": terms["expert_share_per_token"]}
    scaled = {name: value * 8 for name, value in terms.items()} | share
    assert largest_batch(tpot_s * 8, **scaled) == pytest.approx(base, rel=1e-9)
    assert largest_batch(math.inf, **terms) == math.inf


# -------------------------------------------------------------------------------- D7: collectives


def drawn_remote_nodes(
    rng: np.random.Generator, nodes: int, experts: int, chosen: int, groups: int, reach: int, n: int
) -> npt.NDArray[np.float64]:
    """Other nodes reached by n random tokens: groups first, then experts of those groups.

    Experts lie on nodes in order, a token lives on a random node.
    """
    node_of = np.arange(experts) * nodes // experts
    group_of = np.arange(experts) // (experts // groups)
    reached = np.empty(n)
    for i in range(n):
        open_groups = rng.permutation(groups)[:reach]
        pool = np.flatnonzero(np.isin(group_of, open_groups))
        hit = np.unique(node_of[rng.choice(pool, chosen, replace=False)])
        reached[i] = np.count_nonzero(hit != rng.integers(nodes))
    return reached


@pytest.mark.parametrize(
    ("nodes", "experts", "chosen", "groups", "reach"),
    [
        (2, 256, 8, 1, 1),
        (4, 256, 8, 1, 1),
        (12, 384, 8, 1, 1),
        (8, 128, 4, 1, 1),
        (2, 256, 8, 8, 4),  # a node holds several groups
        (4, 256, 8, 8, 4),
        (8, 256, 8, 8, 4),  # a node is a group
        (16, 256, 8, 8, 4),  # a group lies on two nodes
        (3, 256, 8, 8, 4),  # nodes split groups
        (5, 160, 6, 8, 3),
        (6, 256, 8, 8, 4),
        (9, 256, 8, 8, 4),
        (8, 64, 4, 8, 1),
        (4, 64, 6, 8, 8),
    ],
)
def test_remote_nodes_match_a_draw(
    nodes: int, experts: int, chosen: int, groups: int, reach: int
) -> None:
    """D7: mean number of other nodes that hold a chosen expert, node-limited routing in."""
    draws = drawn_remote_nodes(
        np.random.default_rng(7), nodes, experts, chosen, groups, reach, 4000
    )
    found = remote_nodes_reached(nodes, experts, chosen, groups, reach)
    assert found == pytest.approx(
        draws.mean(), abs=4.5 * draws.std() / math.sqrt(len(draws)) + 1e-12
    )


@given(
    nodes=st.integers(1, 64),
    per_group=st.integers(64, 128),
    groups=st.sampled_from([1, 4, 8]),
    reach=st.integers(1, 8),
    chosen=st.integers(1, 8),
)
@SAMPLE
def test_remote_nodes_stay_within_what_there_is(
    nodes: int, per_group: int, groups: int, reach: int, chosen: int
) -> None:
    """D7: from 0 to the other nodes, at most k, 0 within one NVLink domain."""
    reach = min(reach, groups)
    found = remote_nodes_reached(nodes, per_group * groups, chosen, groups, reach)
    assert 0 <= found <= min(nodes - 1, chosen) + 1e-9
    assert math.isfinite(found)
    if nodes == 1:
        assert found == 0.0
    assert remote_nodes_reached(nodes, 0, 0) == 0.0


def test_more_choices_reach_more_nodes() -> None:
    """D7: monotone in experts per token and in groups a token may reach."""
    by_choice = [remote_nodes_reached(8, 256, k) for k in range(1, 17)]
    assert (np.diff(by_choice) > 0).all()
    for nodes in (2, 3, 4, 6, 8, 9, 16):
        by_group = [remote_nodes_reached(nodes, 256, 8, 8, reach) for reach in range(1, 9)]
        assert (np.diff(by_group) >= -1e-12).all()
        assert by_group[-1] == pytest.approx(remote_nodes_reached(nodes, 256, 8), rel=1e-12)
    by_node = [remote_nodes_reached(nodes, 256, 8) for nodes in range(1, 65)]
    assert (np.diff(by_node) > 0).all()


def test_dispatch_and_combine_by_hand() -> None:
    """D7: V3 on 4 nodes: 58 layers x 7168 x (1 + 2 bytes) x the remote nodes."""
    v3 = shipped("deepseek-v3").architecture
    reached = remote_nodes_reached(4, 256, 8, 8, 4)
    assert dispatch_bytes_per_token(v3, 4, 1.0) == pytest.approx(58 * 7168 * 3 * reached, rel=1e-13)
    assert dispatch_bytes_per_token(v3, 1, 1.0) == 0.0
    assert dispatch_bytes_per_token(shipped("llama-3.1-70b").architecture, 4, 2.0) == 0.0


@pytest.mark.parametrize("nodes", [1, 2, 3, 8])
def test_all_reduce_is_a_ring_step_by_step(nodes: int) -> None:
    """D7: two all-reduces a layer; each of n nodes sends 2(n-1) chunks of 1/n of the vector."""
    architecture = shipped("llama-3.1-70b").architecture
    sent = 0.0
    for _ in range(architecture.layers):
        for _ in ("attention", "ffn"):
            for _ in range(nodes):
                for _ in range(2 * (nodes - 1)):
                    sent += architecture.hidden_size * 2 / nodes
    assert all_reduce_bytes_per_token(architecture, nodes) == pytest.approx(sent, rel=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_collectives_add_up(name: str) -> None:
    """D7: expert and tensor parallelism add; one domain needs no compute NIC."""
    architecture = shipped(name).architecture
    both = collective_bytes_per_token(
        architecture, expert_domains=4, tensor_domains=2, dispatch_element_bytes=1.0
    )
    assert both == dispatch_bytes_per_token(architecture, 4, 1.0) + all_reduce_bytes_per_token(
        architecture, 2
    )
    alone = collective_bytes_per_token(
        architecture, expert_domains=1, tensor_domains=1, dispatch_element_bytes=1.0
    )
    assert alone == 0.0


# ------------------------------------------------------------------------------ D1, D2, D6: shipped


@pytest.mark.parametrize("name", MODELS)
def test_shipped_models_ask_for_finite_amounts(name: str) -> None:
    """D1, D2, D6: every shipped model from an empty to a very long context."""
    model = shipped(name)
    sizes = (model.kv_element_bytes, model.index_element_bytes, model.state_element_bytes)
    layout = cache_layout(model.architecture, *sizes)
    contexts = np.array([0.0, 1.0, 63.0, 4096.0, 32721.0, 1e6])
    held = sequence_bytes(layout, contexts)
    assert held[0] == 0.0
    assert (np.diff(held) > 0).all()
    counting: Counting
    for counting in ("paper", "full"):
        flop = prefill_flop(
            model.architecture,
            contexts,
            429,
            counting=counting,
            active_parameters=model.active_parameters,
        ).total
        assert np.isfinite(flop).all()
        assert (np.diff(flop) >= 0).all()
    for n in contexts[1:]:
        step = decode_demand(model.architecture, layout, float(n), *sizes)
        assert all(math.isfinite(value) and value >= 0 for value in vars(step).values())
        assert step.read_bytes <= step.resident_bytes * 2 + 1e-9


def test_an_empty_layout_holds_nothing() -> None:
    """D1: no layers that keep anything, no bytes."""
    assert float(sequence_bytes(CacheLayout(0.0), 1e6)) == 0.0
