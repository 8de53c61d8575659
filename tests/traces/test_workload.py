"""Workloads out of traces (docs/method.md, H-workload and H-error)."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dpplan
from dpplan.cli import main
from dpplan.demand.quantiles import Quantiles
from dpplan.demand.sessions import append_after_first_tokens
from dpplan.profiles.library import read_profile
from dpplan.profiles.workload import TurnClass
from dpplan.profiles.yaml_writer import profile_text
from dpplan.traces.caches.cache import RequestHits
from dpplan.traces.requests import requests_of
from dpplan.traces.synthesis.trace_synthesize import trace_lines
from dpplan.traces.workload.trace_workload import FRACTIONS, TraceWorkload, trace_workload
from dpplan.traces.workload.turn_sums import History, Mean, TurnSums, mean_of

SHARED = Path(os.environ.get("DPPLAN_SHARED", Path(__file__).resolve().parents[3] / "shared"))
TRACES = SHARED / "traces"
WEKA = TRACES / "weka" / "weka_all710.rle.jsonl.gz"
CONVERSATION = TRACES / "mooncake" / "conversation_trace.jsonl"
KV_BYTES = dpplan.optimize("h800", "agentic").demand.kv_bytes_per_token
slowly = settings(deadline=None, derandomize=True, max_examples=40)


def real(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"{path.name} is not on this machine")
    return path


def mooncake(path: Path, requests: list[tuple[int, int, list[int]]]) -> Path:
    """Write requests of (blocks of prompt, output tokens, ids), full blocks of 512 tokens."""
    lines = [
        json.dumps(
            {
                "timestamp": 1000 * i,
                "input_length": 512 * blocks,
                "output_length": output,
                "hash_ids": ids,
            }
        )
        for i, (blocks, output, ids) in enumerate(requests)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def table(path: Path, rows: list[tuple[float, int, int, str]]) -> Path:
    lines = ["time_s,input_tokens,output_tokens,session_id"]
    lines += [",".join(map(str, row)) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


# Means and their errors


def test_a_trace_by_hand(tmp_path: Path) -> None:
    """Three prompts of 2, 3 and 1 blocks: the second hits two, the third one."""
    path = mooncake(tmp_path / "hand.jsonl", [(2, 10, [1, 2]), (3, 20, [1, 2, 3]), (1, 30, [1])])
    found = trace_workload(path)
    assert found.profile.context_tokens == 512
    assert found.profile.append_tokens == 512
    assert found.profile.output_tokens == 20
    assert found.hit_fraction == 0.5
    assert found.profile.name == "hand"
    assert found.sessions == "inferred"
    assert found.profile.sources["context_tokens"].kind == "assumed"  # that all is kept
    small = trace_workload(path, cache_blocks=1)
    # One block is kept, the head: the second request hits it, and the third.
    assert small.profile.context_tokens == pytest.approx(1024 / 3, rel=1e-5)
    assert small.profile.sources["context_tokens"].kind == "measured"


@slowly
@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 20)), min_size=2, max_size=30).filter(
        lambda units: len(units) > 1
    )
)
def test_error_of_a_mean_over_units(units: list[tuple[int, int]]) -> None:
    """H-error: with units of one turn it is that of the textbook; a copy of all halves its square.

    The jackknife over units, a second road, agrees where no unit dominates.
    """
    counts, sums = np.array([n for n, _ in units]), np.array([y for _, y in units])
    alone = mean_of(sums, np.ones(len(units)))
    assert alone.standard_error is not None
    assert alone.standard_error == pytest.approx(
        np.std(sums, ddof=1) / np.sqrt(len(units)), abs=1e-12
    )
    found = mean_of(sums, counts)
    assert found.value == pytest.approx(sums.sum() / counts.sum())
    twice = mean_of(np.tile(sums, 2), np.tile(counts, 2))
    assert found.standard_error is not None
    assert twice.standard_error is not None
    shrunk = np.sqrt((len(units) - 1) / (2 * len(units) - 1))
    assert twice.standard_error == pytest.approx(found.standard_error * shrunk, abs=1e-12)


def test_error_is_that_of_redrawn_sessions() -> None:
    """H-error: the bootstrap over sessions gives the same error as the ratio's formula."""
    rng = np.random.default_rng(4)
    counts = rng.geometric(0.05, 400)
    sums = counts * rng.lognormal(3, 0.7, 400)
    found = mean_of(sums, counts)
    drawn = rng.integers(0, 400, (4000, 400))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    assert found.standard_error == pytest.approx(means.std(), rel=0.06)
    span = found.interval
    assert span is not None
    assert span == pytest.approx(np.quantile(means, [0.05, 0.95]), rel=0.03)


def test_one_unit_tells_no_error() -> None:
    assert mean_of([6.0], [3]) == Mean(2.0, None, 1)
    assert mean_of([6.0], [3]).interval is None
    assert mean_of([], []) == Mean(0.0, None, 0)


def test_intervals_hold_the_truth() -> None:
    """Of 90 % intervals from traces of a known workload, about 90 % hold its means."""
    rng = np.random.default_rng(11)
    inside = []
    for _ in range(400):
        counts = rng.geometric(0.1, 200)
        sums = np.array([rng.exponential(5.0, n).sum() for n in counts])
        low, high = mean_of(sums, counts).interval or (0.0, 0.0)
        inside.append(low <= 5.0 <= high)
    assert 0.85 <= np.mean(inside) <= 0.95


# Hits


@st.composite
def traces(draw: st.DrawFn) -> list[tuple[int, int, list[int]]]:
    requests = []
    for _ in range(draw(st.integers(2, 25))):
        branch = draw(st.integers(0, 3))
        length = draw(st.integers(1, 8))
        ids = [1000 * branch + i for i in range(length)]
        requests.append((length, draw(st.integers(0, 300)), ids))
    return requests


@slowly
@given(traces(), st.integers(0, 20), st.integers(0, 20))
def test_hits_and_misses_are_the_prompt(
    tmp_path_factory: pytest.TempPathFactory,
    requests: list[tuple[int, int, list[int]]],
    one: int,
    other: int,
) -> None:
    """H-workload: context + append = prompt; a larger cache never hits less."""
    path = mooncake(tmp_path_factory.mktemp("t") / "t.jsonl", requests)
    prompt = np.mean([512 * blocks for blocks, _, _ in requests])
    found = [trace_workload(path, cache_blocks=blocks) for blocks in sorted((one, other))] + [
        trace_workload(path)
    ]
    for workload in found:
        whole = workload.means["context_tokens"].value + workload.means["append_tokens"].value
        assert whole == pytest.approx(prompt)
    contexts = [workload.means["context_tokens"].value for workload in found]
    assert contexts == sorted(contexts)


@slowly
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 500), st.integers(0, 90)),
        min_size=1,
        max_size=60,
    ),
    st.lists(st.integers(0, 60), max_size=3),
)
def test_history_is_what_the_session_had(
    turns: list[tuple[int, int, int]], edges: list[int]
) -> None:
    """Without ids: what the turn before left, at most the prompt; however batches fall."""
    columns = list(zip(*turns, strict=True))
    requests = requests_of(
        time_s=np.arange(float(len(turns))),
        input_tokens=np.array(columns[1]),
        output_tokens=np.array(columns[2]),
        session=np.array(columns[0]),
    )
    held: dict[int, int] = {}
    due = []
    for session, asked, answered in turns:
        due.append(min(held.get(session, 0), asked))
        held[session] = asked + answered
    from dpplan.traces.requests import take

    history, found = History(), []
    bounds = sorted({0, len(turns), *(edge % (len(turns) + 1) for edge in edges)})
    for low, high in itertools.pairwise(bounds):
        found += history.hit_tokens(take(requests, np.arange(low, high))).tolist()
    assert found == due


def test_sessions_of_a_table_hit_what_they_had(tmp_path: Path) -> None:
    path = table(
        tmp_path / "log.csv",
        [(0, 100, 20, "a"), (1, 150, 10, "a"), (2, 40, 5, "b"), (3, 300, 5, "a")],
    )
    found = trace_workload(path)
    assert found.hits.kind == "history"
    assert found.means["context_tokens"].value == pytest.approx((0 + 120 + 0 + 160) / 4)
    assert found.profile.turns_per_session == 2
    assert found.profile.distinct_sessions == 2
    assert found.profile.sources["context_tokens"].kind == "derived"


def test_a_share_may_be_assumed(tmp_path: Path) -> None:
    path = tmp_path / "azure.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,3180,8\n"
    )
    with pytest.raises(dpplan.BadInput, match="--hit-fraction"):
        trace_workload(path)
    found = trace_workload(path, hit_fraction=0.5, turns_per_session=4)
    assert found.profile.context_tokens == 1997
    assert found.profile.turns_per_session == 4
    assert found.sessions == "assumed"
    assert found.profile.sources["context_tokens"].kind == "assumed"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"cache_blocks": 3, "hit_fraction": 0.5}, "one of --cache"),
        ({"cache_blocks": -1}, "zero or more"),
        ({"cache_bytes": float("nan")}, "zero or more"),
        ({"hit_fraction": 1.0}, "below 1"),
        ({"conversations": 0}, "above zero"),
        ({"conversations": 2, "cache_blocks": 3}, "one cache for all"),
        ({"dram_bytes": 1e9, "hit_fraction": 0.5}, "hits by block ids"),
        ({"dram_bytes": -1.0}, "zero or more"),
        ({"name": "a b"}, "letters, digits"),
        ({"turns_per_session": 0.5}, "one turn or more"),
        ({"model": "no-such"}, "model profile"),
    ],
)
def test_wrong_arguments_are_told(tmp_path: Path, wrong: dict[str, Any], said: str) -> None:
    path = mooncake(tmp_path / "t.jsonl", [(1, 1, [1]), (1, 1, [1])])
    with pytest.raises(dpplan.BadInput, match=said):
        trace_workload(path, **wrong)


def test_bytes_of_cache_are_blocks_of_the_model(tmp_path: Path) -> None:
    """An LRU cache of bytes is one of bytes / (512 tokens * KV bytes a token) blocks."""
    path = mooncake(tmp_path / "t.jsonl", [(4, 1, [1, 2, 3, 4]), (4, 1, [1, 2, 3, 4])])
    per_token = dpplan.optimize("h800", "agentic").demand.kv_bytes_per_token
    found = trace_workload(path, cache_bytes=3 * 512 * per_token)
    assert found.hits.capacity_blocks == 3
    assert found.means["context_tokens"].value == 3 * 512 / 2


@slowly
@given(traces(), st.integers(0, 12), st.integers(0, 12))
def test_dram_has_what_a_smaller_cache_hits(
    tmp_path_factory: pytest.TempPathFactory,
    requests: list[tuple[int, int, list[int]]],
    storage: int,
    dram: int,
) -> None:
    """T, H-workload: the tier's share is the quotient of two LRU caches, at most 1."""
    path = mooncake(tmp_path_factory.mktemp("t") / "t.jsonl", requests)
    found = trace_workload(path, cache_blocks=storage, dram_bytes=dram * 512 * KV_BYTES)
    whole, tier = (
        trace_workload(path, cache_blocks=blocks).means["context_tokens"].value
        for blocks in (storage, min(dram, storage))
    )
    due = tier / whole if whole else 0.0
    assert found.profile.dram_hit_fraction == pytest.approx(due, rel=1e-5)
    assert found.profile.dram_hit_fraction <= 1


def test_requests_of_no_known_session_count_too() -> None:
    """They have no history, and are one draw together."""
    session = np.array([-1, 0, -1, 0, 1])
    requests = requests_of(
        time_s=np.arange(5.0),
        input_tokens=np.array([10, 20, 30, 60, 5]),
        output_tokens=np.array([1, 2, 3, 4, 5]),
        session=session,
    )
    assert History().hit_tokens(requests).tolist() == [0, 0, 0, 22, 0]
    sums = TurnSums(history=True)
    sums.add(requests, RequestHits(np.zeros(5, np.int64), np.zeros((0, 5), np.int64)))
    found = sums.result()
    assert found.means["context_tokens"].value == 22 / 5
    assert found.means["context_tokens"].units == 3


def test_a_trace_without_tokens_is_no_workload(tmp_path: Path) -> None:
    with pytest.raises(dpplan.BadInput, match="requests with prompts are needed"):
        trace_workload(mooncake(tmp_path / "t.jsonl", [(0, 0, []), (0, 0, [])]))


# Profiles


def same(one: TurnClass, other: TurnClass) -> None:
    assert one.to_document() == other.to_document()


def test_the_file_gives_the_profile_again(tmp_path: Path) -> None:
    path = mooncake(tmp_path / "t.jsonl", [(n, 7 * n, list(range(n))) for n in (1, 4, 2, 6, 6, 3)])
    made = trace_workload(path, name="again").profile
    file = tmp_path / "again.yaml"
    file.write_text(profile_text(made.to_document()))
    read = read_profile("workloads", str(file))
    assert isinstance(read, TurnClass)
    same(read, made)
    # A profile at hand plans as its file does.
    assert dpplan.optimize("h800", made).to_dict() == dpplan.optimize("h800", str(file)).to_dict()
    asked = {"agents": 50.0, "calibration": "none"}
    by_file, at_hand = (dpplan.predict("h800", w, **asked) for w in (str(file), made))  # type: ignore[arg-type]
    assert by_file.to_dict() == at_hand.to_dict()


@pytest.mark.parametrize("name", ["agentic", "agentic-48k", "chat"])
def test_shipped_profiles_are_documents_too(name: str) -> None:
    profile = read_profile("workloads", name)
    assert isinstance(profile, TurnClass)
    plan = dpplan.optimize("h800", profile).to_dict()
    assert plan == dpplan.optimize("h800", name).to_dict()


def test_settings_reach_a_profile_at_hand(tmp_path: Path) -> None:
    made = trace_workload(mooncake(tmp_path / "t.jsonl", [(4, 9, [1, 2, 3, 4])] * 3)).profile
    plan = dpplan.optimize("h800", made, settings={"append_tokens": 900})
    assert plan.to_dict()["inputs"]["set"] == ["append_tokens=900"]


def test_distributions_are_quantiles_of_turns(tmp_path: Path) -> None:
    blocks = [1, 2, 3, 4, 5]
    path = mooncake(tmp_path / "t.jsonl", [(n, n, list(range(n))) for n in blocks])
    found = trace_workload(path).profile.distributions
    assert found is not None
    assert found.quantile_fractions == list(FRACTIONS)
    hit = [0, 512, 1024, 1536, 2048]
    assert found.per_turn.context_tokens == pytest.approx(np.quantile(hit, FRACTIONS), rel=1e-5)
    assert found.per_turn.output_tokens == pytest.approx(np.quantile(blocks, FRACTIONS), rel=1e-5)


# Command line


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_command_writes_what_optimize_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(mooncake(tmp_path / "t.jsonl", [(n, 5, list(range(n))) for n in (9, 9, 12, 20)]))
    target = str(tmp_path / "w.yaml")
    code, out, err = run(capsys, "trace", "workload", path, "-o", target, "--name", "mine")
    assert (code, err.count("wrote")) == (0, 1)
    assert "90 % interval" in out
    written = Path(target).read_text()
    assert written.startswith("# Made by dpplan")
    code, _, err = run(capsys, "trace", "workload", path, "-o", target)
    assert (code, "add --force" in err) == (2, True)
    assert Path(target).read_text() == written
    code, out, _ = run(capsys, "optimize", "--hw", "h800", "--workload", target, "--format", "json")
    by_file = json.loads(out)
    code, out, _ = run(capsys, "optimize", "--hw", "h800", "--trace", path, "--format", "json")
    in_one_step = json.loads(out)
    assert by_file["strategies"] == in_one_step["strategies"]
    assert any("trace t.jsonl" in line for line in in_one_step["assumptions"])
    code, out, _ = run(
        capsys, "predict", "--hw", "h800", "--trace", path, "--agents", "9", "--format", "json"
    )
    assert (code, json.loads(out)["jct_s"] > 0) == (0, True)
    code, out, _ = run(capsys, "trace", "workload", path, "--format", "json")
    told = json.loads(out)
    assert told["schema"] == "dpplan.trace_workload/1"
    assert set(told["means"]) >= {"context_tokens", "append_tokens", "turns_per_session"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--workload", "agentic", "--trace", "t.jsonl"), "either a workload or a trace"),
        (("--cache", "2 TB"), "--trace FILE is needed"),
        (("--hit-fraction", "0.5"), "--trace FILE is needed"),
        (("--trace", "t.jsonl", "--cache", "2"), "--cache"),
        (("--trace", "none.jsonl"), "none.jsonl"),
        (("--trace", "t.jsonl", "--hit-fraction", "2"), "a share from 0"),
    ],
)
def test_wrong_options_are_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    mooncake(Path("t.jsonl"), [(1, 1, [1]), (1, 1, [1])])
    for command in ("optimize", "predict"):
        code, out, err = run(capsys, command, "--hw", "h800", *arguments)
        assert (code, out) == (2, "")
        assert said in err


# Real traces


def plan_of(found: TraceWorkload) -> dpplan.Plan:
    return dpplan.optimize("h800", found.profile)


def test_plans_of_two_real_traces_differ() -> None:
    """Agents reread long histories through storage NICs; chat prompts are mostly computed."""
    agents, chat = trace_workload(real(WEKA)), trace_workload(real(CONVERSATION))
    assert agents.hit_fraction == pytest.approx(0.96316, abs=1e-4)
    assert chat.hit_fraction == pytest.approx(0.37362, abs=1e-4)
    assert agents.profile.turns_per_session == pytest.approx(69.4845)
    by_agents, by_chat = plan_of(agents), plan_of(chat)
    assert by_agents.strategies["prefill-only"].bottlenecks == ("prefill.storage_nic_read",)
    assert by_chat.strategies["prefill-only"].bottlenecks == ("prefill.gpu",)
    ratio = {
        name: plan.to_dict()["demand"]["cache_compute_ratio_gb_per_pflop"]
        for name, plan in (("agents", by_agents), ("chat", by_chat))
    }
    assert ratio["agents"] > 10 * ratio["chat"]
    for found in (agents, chat):
        told = found.profile.distributions
        assert told is not None
        of_turns, of_sessions = told.per_turn, told.per_session
        for values, key, error in (
            (of_turns.context_tokens, "context_tokens", 0.02),
            (of_turns.append_tokens, "append_tokens", 0.04),
            (of_turns.output_tokens, "output_tokens", 0.02),
            (of_sessions.turns, "turns_per_session", 0.01),
            (of_sessions.session_tokens, "session_tokens", 0.02),
        ):
            # Straight lines between the quantiles have the mean that the trace has.
            assert values is not None
            drawn = Quantiles(np.array(told.quantile_fractions), np.array(values))
            assert drawn.mean() == pytest.approx(found.means[key].value, rel=error)
        span = found.means["context_tokens"].interval
        assert span is not None
        assert span[0] < found.means["context_tokens"].value < span[1]


# There and back


@pytest.mark.parametrize(("context", "length", "first"), [(19500, 40000, 0), (29500, 50000, 10000)])
def test_a_synthetic_trace_gives_its_workload_again(
    tmp_path: Path, context: float, length: float, first: float
) -> None:
    """Profile -> trace -> profile -> trace -> profile: first prompts are in the trace's append."""
    start = TurnClass.model_validate(
        {
            "name": "even",
            "model": "deepseek-v3.2",
            "turns_per_session": 40,
            "context_tokens": context,
            "append_tokens": 800,
            "output_tokens": 200,
            "session_tokens": length,
            "tool_gap_s": "5 s",
        }
    )
    due = {
        "turns_per_session": 40.0,
        "context_tokens": context,
        "append_tokens": 800 + first / 40,
        "output_tokens": 200.0,
        "session_tokens": length,
        "tool_gap_s": 5.0,
    }
    made, path = start, tmp_path / "made.jsonl"
    for seed, error in ((1, 0.03), (2, 0.05)):
        path.write_bytes(b"".join(trace_lines(made, 400, seed, 0.5)))
        made = trace_workload(path).profile
        for key, value in due.items():
            assert getattr(made, key) == pytest.approx(value, rel=error), (key, seed)
    # One percent of the mean context is 15 tokens a turn here.
    assert append_after_first_tokens(made) == pytest.approx(800, rel=0.1)


def test_answers_without_ids_hit_with_what_is_around_them(tmp_path: Path) -> None:
    """AIPerf's increments: prompts are 512, 512 + 100 + 512, ...; all but their ends are known."""
    lines = [
        {"session_id": "a", "timestamp": 0, "input_length": 512, "output_length": 100},
        {"session_id": "a", "delay": 10, "input_length": 512, "output_length": 100},
        {"session_id": "a", "delay": 10, "input_length": 512, "output_length": 100},
    ]
    text = "\n".join(json.dumps(line | {"hash_ids": [i]}) for i, line in enumerate(lines))
    path = tmp_path / "a.jsonl"
    path.write_text(text + "\n")
    found = trace_workload(path)
    assert found.means["context_tokens"].value == pytest.approx((0 + 612 + 1224) / 3)
    assert found.means["append_tokens"].value == 512
    # A cache of one block holds the head, not all of the last prompt: answers are missed with it.
    small = trace_workload(path, cache_blocks=1)
    assert small.means["context_tokens"].value == pytest.approx((0 + 612 + 512) / 3)
