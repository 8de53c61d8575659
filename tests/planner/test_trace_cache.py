"""Cache sizes planned from traces: rows against naive caches and plans, laws, the command."""

from __future__ import annotations

import io
import json
import math
import os
import sys
from collections import OrderedDict
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dpplan
from dpplan.cli.main import main
from dpplan.errors import BadInput
from dpplan.planner.trace_cache import mean_turn, plan_cache_sizes
from dpplan.results.trace_cache import CachePlan
from dpplan.traces.reading.reader import open_trace
from dpplan.traces.requests import Requests
from dpplan.traces.statistics.trace_stats import trace_stats
from dpplan.traces.statistics.trace_summary import TraceStats
from dpplan.traces.statistics.working_set_law import WorkingSetLaw

SHARED = Path(os.environ.get("DPPLAN_SHARED", Path(__file__).parents[3] / "shared")) / "traces"
CONVERSATION = SHARED / "mooncake" / "conversation_trace.jsonl"
WEKA = SHARED / "weka" / "weka_all710.rle.jsonl.gz"
AZURE = SHARED / "azure2023" / "AzureLLMInferenceTrace_code.csv"
published = pytest.mark.skipif(not SHARED.is_dir(), reason="published traces are not at hand")
BLOCK = 512
MODEL = "ds-27b"
SAMPLE = settings(
    deadline=None,
    derandomize=True,
    max_examples=12,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def write_trace(path: Path, prompts: list[list[int]], *, step_ms: int = 1000) -> Path:
    """A Mooncake file of prompts made of whole blocks."""
    lines = [
        json.dumps(
            {
                "timestamp": i * step_ms,
                "input_length": BLOCK * len(ids),
                "output_length": 100,
                "hash_ids": ids,
            }
        )
        for i, ids in enumerate(prompts)
    ]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


@st.composite
def prompts(draw: st.DrawFn) -> list[list[int]]:
    """Prompts that continue one another, ids numbered by content and what came before."""
    numbers: dict[tuple[int, ...], int] = {}
    found: list[tuple[int, ...]] = [()]
    made = []
    for _ in range(draw(st.integers(8, 40))):
        base = draw(st.sampled_from(found))
        path = base + tuple(draw(st.lists(st.integers(0, 2), min_size=1, max_size=4)))
        found.append(path)
        made.append([numbers.setdefault(path[: k + 1], len(numbers)) for k in range(len(path))])
    return made


def naive_hits(requests: list[list[int]], capacity: int) -> int:
    """Blocks hit by an LRU cache, prefixes whole, blocks touched from last to first."""
    cache: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for ids in requests:
        for one in ids:
            if one not in cache:
                break
            hits += 1
        for one in reversed(ids):
            cache[one] = None
            cache.move_to_end(one)
            if len(cache) > capacity:
                cache.popitem(last=False)
    return hits


def block_bytes(stats: TraceStats) -> float:
    plan = plan_cache_sizes(stats, "h800", MODEL, storage_bytes=[1e12], dram_bytes=[1e9])
    return plan.kv_bytes_per_token * BLOCK


# ---------------------------------------------------------------------------------------- rows


@given(prompts(), st.integers(1, 30), st.integers(1, 30))
@SAMPLE
def test_rows_are_what_naive_caches_hit(
    tmp_path: Path, requests: list[list[int]], first: int, second: int
) -> None:
    """H-size, H-lru: hits at a size; the tier's share is its hits over those of storage."""
    small, large = sorted((first, second))
    stats = trace_stats(write_trace(tmp_path / "trace.jsonl", requests))
    total = sum(map(len, requests))
    if naive_hits(requests, 10**6) == 0:
        return
    one = block_bytes(stats)
    plan = plan_cache_sizes(
        stats,
        "h800",
        MODEL,
        storage_bytes=[large * one + 0.4 * one],
        dram_bytes=[small * one + 0.4 * one],
        prefill_nodes=1,
        decode_nodes=1,
    )
    kept = plan.of_tier("storage")
    due = naive_hits(requests, large) / total
    assert kept[0].hit_fraction == pytest.approx(due, rel=1e-12, abs=1e-12)
    assert kept[-1].hit_fraction == pytest.approx(naive_hits(requests, 10**6) / total, rel=1e-12)
    tiers = plan.of_tier("dram")
    hits = naive_hits(requests, large)
    shares = {row.dram_bytes: row.dram_hit_fraction for row in tiers}
    if hits and small < large and len(tiers) == 3:
        share = naive_hits(requests, small) / hits
        assert shares[small * one + 0.4 * one] == pytest.approx(share, rel=1e-12, abs=1e-12)
        assert tiers[0].dram_hit_fraction == 0.0
        assert tiers[-1].dram_hit_fraction == 1.0
    for row in plan.sizes:
        assert row.context_tokens + row.append_tokens == pytest.approx(stats.input_tokens_mean)


def simple(tmp_path: Path) -> TraceStats:
    """Eight sessions of ten turns one after another in rounds: hits need eight sessions' room."""
    requests = [
        [session * 1000 + block for block in range(4 * (turn + 1))]
        for turn in range(10)
        for session in range(8)
    ]
    return trace_stats(write_trace(tmp_path / "rounds.jsonl", requests))


def test_rows_are_plans_of_their_mean_turn(tmp_path: Path) -> None:
    """H-size, S2, L: a row's bounds are those of `optimize` for its context, append and tier."""
    stats = simple(tmp_path)
    plan = plan_cache_sizes(stats, "h800", MODEL)
    assert len(plan.of_tier("storage")) > 3
    for row in plan.sizes:
        turn = mean_turn(stats, row.hit_fraction, MODEL)
        same = dpplan.optimize(
            "h800",
            "agentic",
            model=MODEL,
            prefill_nodes=row.prefill_nodes,
            decode_nodes=row.decode_nodes,
            settings={
                "turns_per_session": turn.turns_per_session,
                "context_tokens": row.context_tokens,
                "append_tokens": row.append_tokens,
                "output_tokens": turn.output_tokens,
                "session_tokens": turn.session_tokens,
                "dram_hit_fraction": row.dram_hit_fraction,
            },
        )
        assert row.turns_per_s == pytest.approx(same["dual-path"].turns_per_s, rel=1e-9)
        assert row.bottlenecks == same["dual-path"].bottlenecks
        single = same["prefill-only"]
        assert row.prefill_only_turns_per_s == pytest.approx(single.turns_per_s, rel=1e-9)
        assert row.prefill_only_bottlenecks == single.bottlenecks


def holds_together(plan: CachePlan) -> None:
    """What every plan keeps: more room hits more, more DRAM reads less, marks are the least."""
    for tier, size in (("storage", "storage_bytes"), ("dram", "dram_bytes"), ("ttl", "ttl_s")):
        rows = plan.of_tier(tier)
        for one, next_one in pairwise(rows):
            assert getattr(one, size) < getattr(next_one, size)
            assert one.hit_fraction <= next_one.hit_fraction + 1e-12
            if tier == "dram":
                assert one.dram_hit_fraction <= next_one.dram_hit_fraction
                reads = one.storage_read_bytes_per_turn, next_one.storage_read_bytes_per_turn
                assert reads[0] >= reads[1]
                assert one.hit_fraction == next_one.hit_fraction
        if not rows:
            continue
        marked = [i for i, row in enumerate(rows) if row.is_enough]
        assert len(marked) == 1
        rates = [row.turns_per_s or math.inf for row in rows]
        assert max(rates[marked[0] :]) <= 1.01 * rates[marked[0]]
        assert all(max(rates[i:]) > 1.01 * rates[i] for i in range(marked[0]))


def test_sizes_given_and_not(tmp_path: Path) -> None:
    """Round sizes where none are given; those given, and all that is hit, where they are."""
    stats = simple(tmp_path)
    plan = plan_cache_sizes(stats, "h800", MODEL)
    holds_together(plan)
    one = plan.kv_bytes_per_token * BLOCK
    assert stats.cache.lru is not None
    top = stats.cache.lru.saturation_blocks * one
    sizes = [row.storage_bytes for row in plan.of_tier("storage")]
    assert sizes[0] == 0.0
    assert sizes[-1] == pytest.approx(top)
    given_sizes = plan_cache_sizes(
        stats, "h800", MODEL, storage_bytes=[top / 2, top / 4, 10 * top], dram_bytes=[top / 8]
    )
    holds_together(given_sizes)
    kept = [row.storage_bytes for row in given_sizes.of_tier("storage")]
    assert kept == pytest.approx([top / 4, top / 2, top])
    tiers = [row.dram_bytes for row in given_sizes.of_tier("dram")]
    assert tiers == pytest.approx([0.0, top / 8, top])
    assert given_sizes.of_tier("storage")[0].capacity_blocks == int(top / 4 / one)
    half = plan_cache_sizes(stats, "h800", MODEL, storage_bytes=[top / 2])
    assert all(row.storage_bytes == top / 2 for row in half.of_tier("dram"))
    assert half.of_tier("dram")[-1].dram_bytes == top / 2
    assert half.of_tier("dram")[-1].dram_hit_fraction == 1.0


def test_time_to_live_is_the_curves(tmp_path: Path) -> None:
    """H-ttl: rows of the times asked for; a round of eight requests takes eight seconds."""
    requests = [
        [session * 1000 + block for block in range(4 * (turn + 1))]
        for turn in range(10)
        for session in range(8)
    ]
    path = write_trace(tmp_path / "rounds.jsonl", requests)
    plan = plan_cache_sizes(open_trace(path), "h800", MODEL, ttls_s=[9.0, 7.0])
    rows = plan.of_tier("ttl")
    assert [row.ttl_s for row in rows] == [7.0, 9.0]
    assert rows[0].hit_fraction == 0.0
    assert rows[1].hit_fraction == plan.of_tier("storage")[-1].hit_fraction
    assert rows[1].storage_bytes is None
    assert rows[0].trace_read_bytes_per_s == 0.0
    own = rows[1].trace_read_bytes_per_s
    assert own is not None
    assert plan.requests_per_s is not None
    assert own == pytest.approx(plan.requests_per_s * rows[1].storage_read_bytes_per_turn)


def test_a_tier_takes_reads_off_the_storage_nics(tmp_path: Path) -> None:
    """T: where storage binds prefill-only, DRAM raises its bound, until something else binds."""
    requests = [
        [session * 10**4 + b for b in range(60 + turn)]
        for session in range(9)
        for turn in range(40)
    ]
    stats = trace_stats(write_trace(tmp_path / "agents.jsonl", requests))
    plan = plan_cache_sizes(stats, "h800", "qwen2.5-32b", prefill_nodes=2, decode_nodes=4)
    holds_together(plan)
    rows = plan.of_tier("dram")
    assert rows[0].prefill_only_bottlenecks == ("prefill.storage_nic_read",)
    assert rows[0].prefill_only_turns_per_s is not None
    assert rows[-1].prefill_only_turns_per_s is not None
    assert rows[-1].prefill_only_turns_per_s > 1.5 * rows[0].prefill_only_turns_per_s
    assert "prefill.storage_nic_read" not in rows[-1].prefill_only_bottlenecks
    assert rows[-1].storage_nic_load_fraction == 0.0


# -------------------------------------------------------------------------------- published traces


@published
def test_the_conversation_trace_is_bound_by_prefill() -> None:
    """A service of chats with documents: a third of the input hits, GPUs bind at any size."""
    plan = plan_cache_sizes(CONVERSATION, "h800", "deepseek-v3.2")
    holds_together(plan)
    best = plan.of_tier("storage")[-1]
    assert best.hit_fraction == pytest.approx(0.3736, abs=5e-4)
    assert {row.bottlenecks for row in plan.of_tier("storage")} == {("prefill.gpu",)}
    assert plan.enough("storage") is not best
    assert plan.working_set is None
    assert not plan.scoped


@published
def test_agent_sessions_of_weka_share_a_size() -> None:
    """Caches are per conversation: N of them need N times the room for the same hits."""
    one, many = (
        plan_cache_sizes(
            WEKA,
            "h800",
            "deepseek-v3.2",
            storage_bytes=[20e9 * n],
            dram_bytes=[2e9 * n],
            conversations=n,
        )
        for n in (1, 50)
    )
    for plan in (one, many):
        holds_together(plan)
        assert plan.scoped
    for row, same in zip(one.sizes, many.sizes, strict=True):
        assert row.hit_fraction == pytest.approx(same.hit_fraction, rel=1e-12)
        assert row.dram_hit_fraction == pytest.approx(same.dram_hit_fraction, rel=1e-12)
        assert row.turns_per_s == pytest.approx(same.turns_per_s, rel=1e-9)
    assert any("50 conversations" in note for note in many.notes)
    assert one.of_tier("storage")[-1].hit_fraction > 0.96
    law = one.working_set
    assert law is not None
    assert law.sessions == 710
    # Resumed sessions start large and are compacted: more is held than half of what they end with.
    assert law.held_over_law == pytest.approx(1.635, abs=0.01)
    assert law.held_over_law_with_start == pytest.approx(1.203, abs=0.01)


@published
def test_a_trace_without_blocks_is_refused() -> None:
    with pytest.raises(BadInput, match="names its blocks"):
        plan_cache_sizes(AZURE, "h800", "deepseek-v3.2")


# --------------------------------------------------------------------------------- working set


def requests_of(rows: list[tuple[int, int, float, int, int, float]]) -> Requests:
    """Session, agent, time, input, output, service."""
    columns = list(zip(*rows, strict=True))
    whole = [np.array(columns[i], dtype=np.int64) for i in (0, 1, 3, 4)]
    times = [np.array(columns[i], dtype=float) for i in (2, 5)]
    n = len(rows)
    empty = np.zeros(0, dtype=np.int64)
    return Requests(
        time_s=times[0],
        input_tokens=whole[2],
        output_tokens=whole[3],
        session=whole[0],
        agent=whole[1],
        scope=np.zeros(n, dtype=np.int64),
        gap_s=np.full(n, np.nan),
        gap_kind=np.zeros(n, dtype=np.int64),
        service_s=times[1],
        block_starts=np.zeros(n + 1, dtype=np.int64),
        block_ids=empty,
        block_tokens=empty,
    )


ROWS = st.lists(
    st.tuples(
        st.integers(-1, 5),
        st.sampled_from([0, 0, 0, 1]),
        st.floats(0, 1000),
        st.integers(0, 10_000),
        st.integers(0, 500),
        st.sampled_from([math.nan, 0.0, 3.0]),
    ),
    min_size=1,
    max_size=40,
)


@given(ROWS, st.integers(1, 7))
@settings(deadline=None, derandomize=True, max_examples=80)
def test_held_tokens_are_the_integral(rows: list[Any], batch: int) -> None:
    """Q-held: token-seconds of each session summed turn by turn, in batches of any size."""
    rows = sorted(rows, key=lambda row: row[2])
    law = WorkingSetLaw()
    for i in range(0, len(rows), batch):
        law.add(requests_of(rows[i : i + batch]))
    found = law.result()
    held = half = from_start = 0.0
    lives = []
    ends = []
    for session in range(6):
        turns = [row for row in rows if row[0] == session and row[1] == 0]
        if not turns:
            continue
        last = turns[-1]
        end = last[2] + (0.0 if math.isnan(last[5]) else last[5])
        life = end - turns[0][2]
        if life <= 0:
            continue
        times = [row[2] for row in turns] + [end]
        held += sum((times[k + 1] - times[k]) * (row[3] + row[4]) for k, row in enumerate(turns))
        half += life * (last[3] + last[4]) / 2
        from_start += life * (turns[0][3] + last[3] + last[4]) / 2
        lives.append(life)
        ends.append(last[3] + last[4])
    if not lives or not half:
        assert found is None or found.sessions == len(lives)
        return
    assert found is not None
    assert found.sessions == len(lives)
    assert found.life_s_mean == pytest.approx(np.mean(lives))
    assert found.session_tokens_mean == pytest.approx(np.mean(ends))
    assert found.held_over_law == pytest.approx(held / half, rel=1e-9)
    assert found.held_over_law_with_start == pytest.approx(held / from_start, rel=1e-9)
    assert found.held_tokens_mean == pytest.approx(held / sum(lives), rel=1e-9)


def test_the_law_holds_for_even_growth() -> None:
    """Q-held: sessions that grow evenly from nothing hold half of what they end with."""
    turns = [(s, 0, k * (1.0 + s), 10 * k, 0, math.nan) for s in range(5) for k in range(1001)]
    law = WorkingSetLaw()
    law.add(requests_of(sorted(turns, key=lambda row: row[2])))
    found = law.result()
    assert found is not None
    assert found.held_over_law == pytest.approx(1.0, abs=2e-3)
    assert found.held_over_law_of_means == pytest.approx(1.0, abs=2e-3)


# ---------------------------------------------------------------------------------- the command


def run(*arguments: str) -> tuple[int, str, str]:
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="") for _ in range(2)]
    with (
        mock.patch.dict(os.environ, {"COLUMNS": "100"}),
        mock.patch.object(sys, "stdout", streams[0]),
        mock.patch.object(sys, "stderr", streams[1]),
    ):
        code = main(arguments)
    said = []
    for stream in streams:
        stream.flush()
        assert isinstance(stream.buffer, io.BytesIO)
        said.append(stream.buffer.getvalue().decode())
    return code, said[0], said[1]


def asked(tmp_path: Path, *more: str) -> tuple[str, ...]:
    requests = [[s * 1000 + b for b in range(4 * (t + 1))] for t in range(10) for s in range(8)]
    path = write_trace(tmp_path / "rounds.jsonl", requests)
    return ("trace", "cache", str(path), "--hw", "h800", "--model", MODEL, *more)


def test_the_command_answers_in_every_format(tmp_path: Path) -> None:
    code, out, said = run(*asked(tmp_path, "--format", "json"))
    assert code == 0
    document = json.loads(out, parse_constant=lambda word: pytest.fail(word))
    assert document["schema"] == "dpplan.trace_cache/1"
    assert document["enough_storage_bytes"] > 0
    assert {row["tier"] for row in document["sizes"]} == {"storage", "dram", "ttl"}
    assert said.startswith("dpplan: note: ")
    code, out, _ = run(*asked(tmp_path, "--format", "csv"))
    assert code == 0
    assert len(out.splitlines()) == len(document["sizes"]) + 1
    assert out.startswith("tier,storage_bytes,")
    for format in ("table", "markdown"):
        code, out, said = run(*asked(tmp_path, "--format", format))
        assert (code, said) == (0, "")
        assert "turns/s" in out
    code, out, _ = run(*asked(tmp_path))
    assert max(map(len, out.splitlines())) <= 100
    assert "KV KEPT IN STORAGE" in out
    assert "hit:" not in out


def test_the_frame_has_every_row(tmp_path: Path) -> None:
    plan = plan_cache_sizes(simple(tmp_path), "h800", MODEL)
    frame = plan.to_frame()
    assert len(frame) == len(plan.sizes)
    assert "ds-27b" in plan._repr_html_()


def test_it_draws(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for kind, start in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        target = tmp_path / f"sizes.{kind}"
        code, _, said = run(*asked(tmp_path, "--plot", str(target)))
        assert code == 0, said
        assert target.read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (("--storage", "5"), "--storage"),
        (("--storage", "0 B"), "--storage"),
        (("--dram", "5 GHz"), "--dram"),
        (("--ttl", "never"), "--ttl"),
        (("--conversations", "0"), "--conversations"),
        (("--set", "context_tokens=5"), "the trace tells it"),
        (("--set", "dram_hit_fraction=0.5"), "the trace tells it"),
        (("--plot", "x.gif"), "--plot"),
        (("--format", "xml"), "--format"),
        (("--nodes", "1"), "--nodes"),
        (("--unlimited", "gpu"), "--unlimited"),
    ],
)
def test_bad_options_are_told(more: tuple[str, ...], word: str, tmp_path: Path) -> None:
    code, out, said = run(*asked(tmp_path, *more))
    assert (code, out) == (2, "")
    assert word in said


def test_a_model_and_hardware_are_needed(tmp_path: Path) -> None:
    path = write_trace(tmp_path / "trace.jsonl", [[1], [1, 2]])
    code, _, said = run("trace", "cache", str(path))
    assert code == 2
    assert "--model" in said
    assert "--hw" in said


def test_latency_limits_may_be_set(tmp_path: Path) -> None:
    """`slo` is not the trace's to tell: a tighter TPOT costs decode batches."""
    stats = simple(tmp_path)
    slow, fast = (
        plan_cache_sizes(
            stats,
            "h800",
            MODEL,
            prefill_nodes=3,
            decode_nodes=1,
            settings={"slo.tpot": limit},
            unlimited=["prefill.gpu"],
        )
        for limit in ("200 ms", "15 ms")
    )
    rates = [plan.of_tier("storage")[-1].turns_per_s for plan in (slow, fast)]
    assert rates[0] is not None
    assert rates[1] is not None
    assert rates[0] >= rates[1]
