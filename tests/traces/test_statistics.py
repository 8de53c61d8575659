"""Statistics of traces, counted a second time the slow way (docs/method.md, H)."""

from __future__ import annotations

import csv
import gzip
import hashlib
import itertools
import json
import math
import os
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dpplan
from dpplan.cli import main
from dpplan.traces.requests import GAP_HUMAN, GAP_TOOL, GAP_UNKNOWN, Requests, requests_of
from dpplan.traces.statistics.arrivals import ArrivalCounter
from dpplan.traces.statistics.distributions import (
    EXACT_TOKENS,
    TIME_ERROR,
    TOKEN_ERROR,
    TimeCounter,
    TokenCounter,
    of_values,
    weighted_by_size,
)
from dpplan.traces.statistics.inferred_sessions import SessionFinder, chains
from dpplan.traces.statistics.session_turns import GAP_NAMES, MOST_TURNS, SessionTurns

SHARED = Path(os.environ.get("DPPLAN_SHARED", Path(__file__).resolve().parents[3] / "shared"))
TRACES = SHARED / "traces"
slowly = settings(deadline=None, derandomize=True, max_examples=60)
SHARES = np.array([0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0])


def cut(requests: Requests, edges: list[int]) -> list[Requests]:
    """The same requests in several batches."""
    from dpplan.traces.requests import take

    bounds = sorted({0, len(requests), *(edge % (len(requests) + 1) for edge in edges)})
    return [take(requests, np.arange(a, b)) for a, b in itertools.pairwise(bounds)]


# Distributions


@slowly
@given(
    st.lists(st.lists(st.integers(-5_000, 200_000), max_size=30), max_size=5),
)
def test_counts_of_tokens_are_exact(batches: list[list[int]]) -> None:
    """H-dist: percentiles of the counts are numpy's of the raw numbers."""
    counter = TokenCounter()
    for batch in batches:
        counter.add(np.array(batch, dtype=np.int64))
    raw = np.array([value for batch in batches for value in batch], dtype=float)
    found = counter.result()
    assert found.count == len(raw)
    assert found.relative_error == 0
    if not len(raw):
        assert found.mean is None
        assert found.quantile(0.5) is None
        return
    assert found.quantiles(SHARES) == pytest.approx(np.quantile(raw, SHARES), abs=1e-9)
    assert found.mean == pytest.approx(raw.mean(), rel=1e-12, abs=1e-9)
    assert found.standard_deviation == pytest.approx(raw.std(), rel=1e-9, abs=1e-6)
    assert (np.diff(found.values) > 0).all()


@slowly
@given(st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=40))
def test_counts_of_huge_numbers_are_within_their_error(raw: list[int]) -> None:
    """H-dist: beyond the exact counts a bin is narrow."""
    counter = TokenCounter()
    counter.add(np.array(raw, dtype=np.int64))
    found = counter.result()
    assert found.relative_error == (TOKEN_ERROR if max(map(abs, raw)) > EXACT_TOKENS else 0)
    ordered = np.repeat(found.values, found.counts)
    assert ordered == pytest.approx(np.sort(raw), rel=TOKEN_ERROR * 1.01)


@slowly
@given(st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 1e8), st.just(math.nan)), max_size=60))
def test_times_are_within_their_error(raw: list[float]) -> None:
    """H-dist: order statistics of times are within 0.1 %, mean and deviation exact."""
    counter = TimeCounter()
    for start in range(0, len(raw), 7):
        counter.add(np.array(raw[start : start + 7]))
    known = np.sort([value for value in raw if not math.isnan(value)])
    found = counter.result()
    assert np.repeat(found.values, found.counts) == pytest.approx(known, rel=TIME_ERROR * 1.01)
    if len(known):
        assert found.mean == pytest.approx(known.mean(), rel=1e-9)
        assert found.standard_deviation == pytest.approx(known.std(), rel=1e-6, abs=1e-9)


@slowly
@given(st.lists(st.integers(1, 30), min_size=1, max_size=20))
def test_members_see_large_groups_more_often(sizes: list[int]) -> None:
    """H-dist: turn-weighted lengths of sessions are each session's repeated for its turns."""
    found = weighted_by_size(of_values(sizes))
    raw = np.repeat(sizes, sizes)
    assert found.mean == pytest.approx(raw.mean())
    assert found.standard_deviation == pytest.approx(raw.std())
    assert found.quantiles(SHARES) == pytest.approx(np.quantile(raw, SHARES))


# Sessions

turn = st.tuples(
    st.integers(0, 4),  # session
    st.sampled_from([0, 0, 0, 1, 2]),  # agent
    st.integers(0, 5_000),  # input
    st.integers(0, 300),  # output
    st.one_of(st.just(math.nan), st.floats(0, 1e4)),  # gap
    st.sampled_from([GAP_TOOL, GAP_HUMAN, GAP_UNKNOWN]),
    st.one_of(st.just(math.nan), st.floats(0, 50)),  # service
)


def as_requests(turns: list[tuple[Any, ...]], times: list[float]) -> Requests:
    session, agent, inputs, outputs, gap, kind, service = zip(*turns, strict=True)
    return requests_of(
        times,
        inputs,
        outputs,
        session=session,
        agent=agent,
        scope=session,
        gap_s=gap,
        gap_kind=kind,
        service_s=service,
    )


@slowly
@given(st.lists(turn, min_size=1, max_size=60), st.lists(st.integers(0, 60), max_size=4), st.data())
def test_turns_are_those_of_a_walk_through_each_session(
    turns: list[tuple[Any, ...]], edges: list[int], data: st.DataObject
) -> None:
    """H-append, H-sessions: a dictionary per agent gives the same, however batches are cut."""
    scoped = data.draw(st.booleans())
    if scoped:
        turns = sorted(turns, key=lambda one: one[0])
    numbers = {name: n for n, name in enumerate(dict.fromkeys(one[0] for one in turns))}
    turns = [(numbers[one[0]], *one[1:]) for one in turns]
    times = np.cumsum(data.draw(st.lists(st.floats(0, 9), min_size=60, max_size=60)))[: len(turns)]
    counter = SessionTurns(scoped=scoped)
    for batch in cut(as_requests(turns, list(times)), edges):
        counter.add(batch)
    found = counter.result()

    last: dict[tuple[int, int], tuple[int, int]] = {}
    appends, contexts, growths, by_kind = [], [], [], defaultdict(list)
    per_session: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    by_number: dict[int, list[int]] = defaultdict(list)
    counts: dict[int, int] = defaultdict(int)
    subagent_prompts = []
    for (session, agent, inputs, outputs, gap, kind, service), time in zip(
        turns, times, strict=True
    ):
        own = per_session[session]
        own["input"].append(inputs)
        own["output"].append(outputs)
        own["start"].append(time)
        own["end"].append(time + (0 if math.isnan(service) else service))
        if (session, agent) in last:
            was_in, was_out = last[session, agent]
            appends.append(inputs - was_in - was_out)
            contexts.append(was_in + was_out)
            growths.append(inputs - was_in)
            own["append"].append(appends[-1])
        elif agent == 0:
            own["prompt"].append(inputs)
        else:
            subagent_prompts.append(inputs)
        last[session, agent] = inputs, outputs
        if agent == 0:
            counts[session] += 1
            by_number[counts[session]].append(inputs)
            own["total"] = [inputs + outputs]
        if not math.isnan(gap):
            by_kind[kind].append(gap)

    assert found.sessions == len(per_session)
    assert found.turns == len(turns)
    assert found.subagents == len(subagent_prompts)
    assert found.appends == len(appends)
    assert found.negative_appends == sum(value < 0 for value in appends)
    same(found.by_turn["append_tokens"], appends)
    same(found.by_turn["context_tokens"], contexts)
    same(found.subagent_first_prompt_tokens, subagent_prompts)
    lengths = [len(own["input"]) for own in per_session.values()]
    same(found.by_session["turns_per_session"], lengths)
    same(found.by_turn["turns_per_session"], [n for n in lengths for _ in range(n)])
    same(found.by_session["first_prompt_tokens"], listed(per_session, "prompt"))
    same(found.by_session["session_tokens"], listed(per_session, "total"))
    for name in ("input", "output", "append"):
        means = [np.rint(np.mean(own[name])) for own in per_session.values() if own[name]]
        same(found.by_session[f"{name}_tokens"], means)
    spans = [max(own["end"]) - min(own["start"]) for own in per_session.values()]
    durations = found.by_session["session_duration_s"]
    assert durations.mean == pytest.approx(np.mean(spans), abs=1e-6)
    for kind, name in GAP_NAMES.items():
        assert found.by_turn[name].count == len(by_kind[kind])
        if by_kind[kind]:
            assert found.by_turn[name].mean == pytest.approx(np.mean(by_kind[kind]), abs=1e-9)
    if growths:
        assert found.growth_tokens_per_turn == pytest.approx(np.mean(growths))
    else:
        assert found.growth_tokens_per_turn is None
    assert [(p.turn, p.requests) for p in found.growth] == [
        (number, len(values)) for number, values in sorted(by_number.items())
    ]
    for point in found.growth:
        assert point.input_tokens_mean == pytest.approx(np.mean(by_number[point.turn]))


def listed(per_session: dict[int, dict[str, list[float]]], name: str) -> list[float]:
    return [value for own in per_session.values() for value in own[name]]


def same(found: Any, raw: Iterable[float]) -> None:
    assert np.repeat(found.values, found.counts).tolist() == sorted(map(float, raw))


def test_appends_by_hand() -> None:
    """H-append: 100 in, 20 out; then 150 (30 appended); compacted to 60; a sub-agent beside it."""
    turns = [
        (0, 0, 100, 20, math.nan, GAP_UNKNOWN, math.nan),
        (0, 0, 150, 10, 2.0, GAP_TOOL, math.nan),
        (0, 1, 40, 5, math.nan, GAP_UNKNOWN, math.nan),
        (0, 0, 60, 10, 30.0, GAP_HUMAN, math.nan),
    ]
    counter = SessionTurns(scoped=False)
    counter.add(as_requests(turns, [0.0, 1.0, 2.0, 3.0]))
    found = counter.result()
    assert found.by_turn["append_tokens"].values.tolist() == [-100.0, 30.0]
    assert found.by_turn["context_tokens"].values.tolist() == [120.0, 160.0]
    assert (found.negative_appends, found.appends, found.subagents) == (1, 2, 1)
    assert found.by_session["session_tokens"].values.tolist() == [70.0]
    assert found.growth_tokens_per_turn == -20
    assert [point.input_tokens_mean for point in found.growth] == [100, 150, 60]


def test_closed_sessions_are_forgotten() -> None:
    """H-sessions: of scopes that follow one another only the open ones are held."""
    counter = SessionTurns(scoped=True)
    for start in range(0, 20_000, 500):
        turns = [(s, a, 9, 1, 1.0, 0, 1.0) for s in range(start, start + 500) for a in (0, 1)]
        counter.add(as_requests(turns, [0.0] * len(turns)))
    assert counter._agents.count <= 1000
    assert counter._before.last.shape[1] <= 2048
    assert counter._open.shape[1] <= 2048
    assert counter.result().sessions == 20_000


def test_late_turns_have_no_mean_of_their_own() -> None:
    """H-growth: turns 1 to 200."""
    turns = [(0, 0, n, 0, math.nan, 0, math.nan) for n in range(1, 251)]
    counter = SessionTurns(scoped=False)
    counter.add(as_requests(turns, list(range(250))))
    found = counter.result()
    assert [(p.turn, p.input_tokens_mean) for p in found.growth] == [
        (n, n) for n in range(1, MOST_TURNS + 1)
    ]
    assert found.growth_tokens_per_turn == 1


# Inferred sessions


@st.composite
def prefix_trees(draw: st.DrawFn) -> list[tuple[list[int], int, int]]:
    """Requests with blocks of 10 tokens whose ids name their content and all before it."""
    names: dict[tuple[int, ...], int] = {}
    made: list[tuple[list[int], int, int]] = []
    contents: list[list[int]] = []
    for _ in range(draw(st.integers(1, 40))):
        base = draw(st.sampled_from([[], *contents]))
        grown = base[: draw(st.integers(0, len(base)))] if draw(st.booleans()) else list(base)
        grown = grown + draw(st.lists(st.integers(0, 2), max_size=25))
        contents.append(grown)
        ids = []
        for end in range(10, len(grown) + 10, 10):
            ids.append(names.setdefault(tuple(grown[:end]), len(names)))
        made.append((ids, len(grown), draw(st.integers(0, 12))))
    return made


def tree_requests(made: list[tuple[list[int], int, int]]) -> Requests:
    tokens = [min(10, n - 10 * k) for ids, n, _ in made for k in range(len(ids))]
    return requests_of(
        list(range(len(made))),
        [n for _, n, _ in made],
        [out for _, _, out in made],
        block_counts=[len(ids) for ids, _, _ in made],
        block_ids=np.array([i for ids, _, _ in made for i in ids], dtype=np.int64),
        block_tokens=np.array(tokens, dtype=np.int64),
    )


@slowly
@given(prefix_trees(), st.lists(st.integers(0, 40), max_size=4))
def test_inferred_sessions_are_those_of_a_search(
    made: list[tuple[list[int], int, int]], edges: list[int]
) -> None:
    """H-inferred: the latest of the requests whose full blocks are the longest prefix."""
    finder = SessionFinder(10)
    for batch in cut(tree_requests(made), edges):
        finder.add(batch)
    found = finder.result()
    assert found is not None
    parents = []
    short = 0
    for now, (ids, inputs, _) in enumerate(made):
        best = (0, -1)
        for before in range(now):
            full = made[before][0][: made[before][1] // 10]
            if full and ids[: len(full)] == full:
                best = max(best, (len(full), before))
        parent = best[1]
        if parent >= 0 and inputs < made[parent][1] + made[parent][2]:
            short += 1
            parent = -1
        parents.append(parent)
    # No block is asked by more than 20 of these few requests unless they all are alike.
    if found.head_blocks:
        return
    assert found.without_room == short
    roots, turns = chains(np.array(parents))
    assert found.sessions == parents.count(-1)
    same(found.by_session["turns_per_session"], list(np.unique(roots, return_counts=True)[1]))
    appends = [made[n][1] - made[p][1] - made[p][2] for n, p in enumerate(parents) if p >= 0]
    same(found.by_turn["append_tokens"], appends)
    assert [p.requests for p in found.growth] == np.bincount(turns)[1:].tolist()


def test_a_shared_head_continues_nothing() -> None:
    """H-inferred: a block that everybody starts with is a system prompt, not a turn."""
    made = [([0], 10, 0)]
    made += [([0, 10 + n], 20, 0) for n in range(60)]
    made += [([0, 10 + n, 100 + n], 30, 0) for n in range(60)]
    finder = SessionFinder(10)
    finder.add(tree_requests(made))
    found = finder.result()
    assert found is not None
    assert (found.sessions, found.single_turns, found.head_blocks) == (61, 1, 1)


def test_any_ids_will_do() -> None:
    """H-inferred: hashes of 64 bits, negative ones too."""
    made = [([-5, 2**40], 20, 1), ([-5, 2**40, 2**60], 30, 1)]
    finder = SessionFinder(10)
    finder.add(tree_requests(made))
    found = finder.result()
    assert found is not None
    assert (found.sessions, found.by_turn["append_tokens"].values.tolist()) == (1, [9.0])


def test_too_many_requests_have_no_inferred_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """H-inferred: a reason, and the memory is given back."""
    monkeypatch.setattr("dpplan.traces.statistics.inferred_sessions.MOST_REQUESTS", 1)
    finder = SessionFinder(10)
    for _ in range(3):
        finder.add(tree_requests([([7], 10, 1)]))
    assert finder.result() is None
    assert finder.refusal == "more than 1 requests"


# Arrivals


@slowly
@given(
    st.lists(st.integers(0, 30_000), min_size=2, max_size=300),
    st.lists(st.integers(0, 300), max_size=3),
)
def test_burstiness_is_that_of_the_raw_times(stamps: list[int], edges: list[int]) -> None:
    """H-arrivals: squared variation of distances, dispersion of counts, from the definition."""
    times = np.sort(stamps) / 10 + 5
    requests = requests_of(times, np.ones(len(times)), np.ones(len(times)))
    counter = ArrivalCounter(scoped=False)
    for batch in cut(requests, edges):
        counter.add(batch)
    found = counter.result()
    steps = np.diff(times)
    duration = times[-1] - times[0]
    assert found.duration_s == pytest.approx(duration)
    if not duration:
        assert found.requests_per_s is None
        assert found.interarrival_cv2 is None
        return
    assert found.requests_per_s == pytest.approx(len(times) / duration)
    assert found.interarrival_cv2 == pytest.approx(steps.var() / steps.mean() ** 2, abs=1e-7)
    assert found.zero_interarrival_fraction == (steps == 0).mean()
    for window, index in found.dispersion:
        whole = math.floor(duration) // window
        if whole < 10:
            assert index is None
            continue
        places = np.floor(times - times[0]).astype(int) // window
        counts = np.bincount(places[places < whole], minlength=whole)
        expected = counts.var() / counts.mean() if counts.any() else None
        assert index == pytest.approx(expected)
    places = np.floor(times - times[0]).astype(int) // found.counts_window_s
    whole = math.floor(duration) // found.counts_window_s
    assert list(found.counts) == np.bincount(places[places < whole], minlength=whole).tolist()
    assert len(found.counts) <= 400


def test_arrivals_without_a_common_clock() -> None:
    """H-arrivals: each scope has its own; their rate is that of one while it lasts."""
    requests = requests_of(
        [0.0, 10.0, 0.0, 2.0, 4.0], [1] * 5, [1] * 5, scope=[0, 0, 1, 1, 1], session=[0, 0, 1, 1, 1]
    )
    for edges in ([], [1], [3], [2]):
        counter = ArrivalCounter(scoped=True)
        for batch in cut(requests, edges):
            counter.add(batch)
        found = counter.result()
        assert found.clock == "per scope"
        assert found.duration_s == 10
        assert found.requests_per_s is None
        assert found.requests_per_s_per_scope == pytest.approx(5 / 14)


def test_arrivals_out_of_order_or_unknown_say_so() -> None:
    """H-arrivals: no burstiness then."""
    counter = ArrivalCounter(scoped=False)
    counter.add(requests_of([3.0, 1.0, 9.0], [1] * 3, [1] * 3))
    found = counter.result()
    assert (found.in_order, found.duration_s, found.interarrival_cv2) == (False, 8, None)
    counter = ArrivalCounter(scoped=False)
    counter.add(requests_of([3.0, math.nan], [1] * 2, [1] * 2))
    assert counter.result().clock == "unknown"


# The answer as a whole

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "traces" / "example.jsonl"
KEYS = {
    "requests",
    "sessions",
    "duration_s",
    "requests_per_s",
    "input_tokens_mean",
    "output_tokens_mean",
    "turns_per_session_mean",
    "ideal_block_hit_fraction",
    "ideal_token_hit_fraction",
    "lru_block_hit_fraction",
    "per_block_lru_hit_fraction",
    "ttl_block_hit_fraction",
    "unique_blocks",
    "unique_tokens",
}


def mooncake_file(folder: Path, records: list[dict[str, Any]], name: str = "t.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["trace", "stats", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


SMALL = [
    {"timestamp": 0, "input_length": 1100, "output_length": 10, "hash_ids": [1, 2, 3]},
    {"timestamp": 4000, "input_length": 1500, "output_length": 20, "hash_ids": [1, 2, 4]},
    {"timestamp": 8000, "input_length": 600, "output_length": 30, "hash_ids": [5, 6]},
]
"""Ideal: the second request hits blocks 1 and 2; its third one isn't that of the first."""


def test_json_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """H: the keys that other programs read, with three requests counted by hand."""
    path = mooncake_file(tmp_path, SMALL)
    asked = ("--capacity", "2", "--capacity", "0", "--ttl", "3s", "--ttl", "10m")
    code, out, _ = run(capsys, str(path), "--format", "json", *asked)
    assert code == 0
    found = json.loads(out, parse_constant=lambda name: pytest.fail(name))
    assert found["schema"] == "dpplan.trace_stats/1"
    assert set(found) >= KEYS
    assert found["requests"] == 3
    assert found["sessions"] is None
    assert found["turns_per_session_mean"] is None
    assert found["duration_s"] == 8
    assert found["requests_per_s"] == 3 / 8
    assert found["input_tokens_mean"] == pytest.approx(3200 / 3)
    assert found["output_tokens_mean"] == 20
    assert found["ideal_block_hit_fraction"] == 2 / 8
    assert found["ideal_token_hit_fraction"] == 1024 / 3200
    assert found["lru_block_hit_fraction"] == {"2": 2 / 8, "0": 0}
    assert found["per_block_lru_hit_fraction"] == {"2": 0, "0": 0}
    assert found["ttl_block_hit_fraction"] == {"3": 0, "600": 2 / 8}
    assert found["unique_blocks"] == 6
    assert found["unique_tokens"] == 4 * 512 + (1100 - 1024) + (1500 - 1024) + (600 - 512) - 512
    assert found["distributions"]["input_tokens"]["p50"] == 1100
    assert found["distributions"]["input_tokens"]["weighting"] == "turn"
    assert found["files"][0]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found["inferred_sessions"]["turns_per_session_mean"] == 1.5


def test_several_files_are_one_trace(tmp_path: Path) -> None:
    """H: what was seen in one file hits in the next."""
    parts = [mooncake_file(tmp_path, [one], f"{n}.jsonl") for n, one in enumerate(SMALL)]
    together = dpplan.trace_stats(mooncake_file(tmp_path, SMALL))
    apart = dpplan.trace_stats(parts)
    assert len(apart.facts.files) == 3
    ours, theirs = apart.to_dict(), together.to_dict()
    assert {k: v for k, v in ours.items() if k != "files"} == {
        k: v for k, v in theirs.items() if k != "files"
    }


def test_the_answer_in_python() -> None:
    """H: frozen, with frames and a notebook's view; no session is lost between them."""
    found = dpplan.trace_stats(EXAMPLE, capacities_blocks=[100])
    assert isinstance(found, dpplan.TraceStats)
    assert (found.requests, found.sessions) == (144, 24)
    assert found.turns_per_session_mean == 6
    with pytest.raises(TypeError):
        found.distributions["input_tokens"] = None  # type: ignore[assignment]
    frame = found.distributions_frame().set_index(["quantity", "weighting"])
    assert frame.loc[("turns_per_session", "session"), "mean"] == 6
    assert found.curve_frame()["lru_block_hit_fraction"].is_monotonic_increasing
    assert found.growth_frame()["requests"].iloc[0] == 24
    assert found.to_frame().set_index("quantity").loc["requests", "value"] == 144
    assert "example.jsonl" in found._repr_html_()
    assert found.distributions["append_tokens"].count == 120
    whole = found.curve[-1]
    assert whole.lru_block_hit_fraction == pytest.approx(found.cache.ideal_block_hit_fraction)


def test_totals_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """H: without curves the rest is the same."""
    code, out, _ = run(capsys, str(EXAMPLE), "--no-curves", "--format", "json")
    assert code == 0
    found, full = json.loads(out), dpplan.trace_stats(EXAMPLE).to_dict()
    empty = ("curve", "lru_block_hit_fraction", "ttl_block_hit_fraction", "ttl_token_hit_fraction")
    assert [found[name] for name in empty] == [[], {}, {}, {}]
    for name in ("ideal_block_hit_fraction", "unique_blocks", "distributions", "arrivals"):
        assert found[name] == json.loads(json.dumps(full[name]))


def test_a_table_fits_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, str(EXAMPLE), "--capacity", "120")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 100
    for said in ("144 requests in 24 sessions", "EACH TURN", "EACH SESSION", "LRU CACHE", "NOTES"):
        assert said in out
    assert any(line.startswith("120 blocks") for line in out.splitlines())
    code, out, _ = run(capsys, str(EXAMPLE), "--format", "markdown")
    assert code == 0
    assert "| turns | 24 | 6 |" in out


def test_a_sample_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """H-sample: the share and the errors stand in the answer and in the picture."""
    monkeypatch.setattr("dpplan.traces.caches.cache.blocks_within", lambda _: 200)
    asked = (str(EXAMPLE), "--memory", "1GiB", "--capacity", "20")
    code, out, _ = run(capsys, *asked)
    assert code == 0
    assert "estimates from 25 % of the blocks (SHARDS)" in out
    assert max(map(len, out.splitlines())) <= 100
    found = json.loads(run(capsys, *asked, "--format", "json")[1])
    assert found["sampled_fraction"] == 0.25
    assert found["lru_standard_error"]["20"] > 0
    pytest.importorskip("matplotlib")
    target = tmp_path / "sampled.svg"
    assert run(capsys, *asked, "--plot", str(target))[0] == 0
    assert b"2 std. errors" in target.read_bytes()


def test_csv_has_every_number(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, str(EXAMPLE), "--format", "csv", "--capacity", "120")
    assert code == 0
    rows = list(csv.DictReader(out.splitlines()))
    told = dpplan.trace_stats(EXAMPLE, capacities_blocks=[120]).to_dict()
    found = {(r["section"], r["item"], r["weighting"], r["quantity"]): r for r in rows}
    assert len(found) == len(rows)
    assert float(found["trace", "", "", "requests"]["value"]) == 144
    p90 = found["distributions", "append_tokens", "turn", "p90"]
    assert float(p90["value"]) == told["distributions"]["append_tokens"]["p90"]
    assert p90["unit"] == "tokens"
    hit = found["capacity", "120 blocks", "", "lru_block_hit_fraction"]
    assert float(hit["value"]) == told["lru_block_hit_fraction"]["120"]


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_a_plot_is_written(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    target = tmp_path / f"trace.{kind}"
    code, _, err = run(capsys, str(EXAMPLE), "--plot", str(target), "--capacity", "120")
    assert (code, err) == (0, f"dpplan: wrote {target}\n")
    first = target.read_bytes()
    assert first.startswith(b"\x89PNG" if kind == "png" else b"<?xml")
    run(capsys, str(EXAMPLE), "--plot", str(target), "--capacity", "120")
    assert target.read_bytes() == first
    if kind == "svg":
        assert b"NaN" not in first


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--capacity", "-1"], "--capacity: a number of blocks from 0 to 1e15 is needed, got -1"),
        (["--capacity", "many"], "--capacity: a whole number is needed, got 'many'"),
        (["--ttl", "10"], "--ttl: a number and a unit such as 50 ms or 4 s are needed, got '10'"),
        (["--ttl", "0 s"], "--ttl: a time above zero is needed, got '0 s'"),
        (["--memory", "1"], "--memory: a number and a unit such as 80 GB or 80 GiB are needed"),
        (["--memory", "1 MB"], "--memory: at least "),
        (["--format", "xml"], "--format: one of table, json, csv, markdown is needed, got 'xml'"),
        (["--format-of", "mooncak"], "did you mean mooncake?"),
        (["--plot", "a.pdf"], "--plot: a file name that ends in .png or .svg is needed"),
        (["--block-tokens", "0"], "--block-tokens: a number of tokens from 1 to 1,000,000"),
        (["--no-curves", "--ttl", "1h"], "--no-curves: no --capacity and no --ttl is needed"),
    ],
)
def test_wrong_options_say_so(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, str(EXAMPLE), *arguments)
    assert (code, out) == (2, "")
    assert said in err


def test_a_bar_shows_on_a_terminal_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = mooncake_file(tmp_path, SMALL)
    monkeypatch.setattr("dpplan.cli.commands.trace_reading._LONG_BYTES", 1)
    assert run(capsys, str(path), "--format", "json", "--no-curves")[2] == (
        "dpplan: note: the trace names no sessions\n"
    )
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    code, out, err = run(capsys, str(path), "--format", "json", "--no-curves")
    assert code == 0
    assert json.loads(out)["requests"] == 3
    assert "reading" in err


def test_the_group_of_commands_helps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace"]) == 0
    assert "stats" in capsys.readouterr().out
    assert main(["trace", "stat"]) == 2
    assert "did you mean stats?" in capsys.readouterr().err


# Real traces

REAL = {
    "mooncake/conversation_trace.jsonl": (12031, None),
    "mooncake/synthetic_trace.jsonl": (3993, None),
    "azure2023/AzureLLMInferenceTrace_code.csv": (8819, None),
    "azure2023/AzureLLMInferenceTrace_conv.csv": (19366, None),
    "aiperf/inference_day_2026_excerpt.jsonl": (49, 5),
}


def naive_lengths(path: Path) -> list[tuple[int, int]]:
    """Input and output of each request, read without any of the package."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".csv":
        rows = csv.DictReader(text.splitlines())
        return [(int(row["ContextTokens"]), int(row["GeneratedTokens"])) for row in rows]
    found: list[tuple[int, int]] = []
    held: dict[Any, int] = defaultdict(int)
    for line in text.splitlines():
        record = json.loads(line)
        session = record.get("session_id", len(found))
        held[session] += record["input_length"]
        found.append((held[session], record["output_length"]))
        held[session] += record["output_length"]
    return found


@pytest.mark.skipif(not TRACES.is_dir(), reason="the real traces are not part of the repository")
@pytest.mark.parametrize("name", REAL)
def test_counts_of_real_traces(name: str) -> None:
    """H: what their sources say of them, and distributions read a second time."""
    found = dpplan.trace_stats(TRACES / name, curves=False, ttls_s=())
    assert (found.requests, found.sessions, found.bad_lines) == (*REAL[name], 0)
    for column, kept in zip(
        zip(*naive_lengths(TRACES / name), strict=True),
        (found.distributions["input_tokens"], found.distributions["output_tokens"]),
        strict=True,
    ):
        assert kept.mean == pytest.approx(np.mean(column))
        assert kept.quantiles(SHARES) == pytest.approx(np.quantile(column, SHARES))


@pytest.mark.skipif(not TRACES.is_dir(), reason="the real traces are not part of the repository")
def test_burstiness_of_real_arrivals() -> None:
    """H-arrivals: coarse stamps of one trace, Poisson arrivals of another."""
    kept = [
        dpplan.trace_stats(TRACES / "mooncake" / f"{name}_trace.jsonl", curves=False, ttls_s=())
        for name in ("conversation", "synthetic")
    ]
    coarse, poisson = (found.arrivals for found in kept)
    assert coarse.zero_interarrival_fraction == pytest.approx(1 - 1179 / 12030)
    assert coarse.duration_s == pytest.approx(3536.999)
    assert any("coarse" in note for note in kept[0].notes)
    assert poisson.interarrival_cv2 == pytest.approx(1, abs=0.1)


@pytest.mark.skipif(not TRACES.is_dir(), reason="the real traces are not part of the repository")
def test_appends_of_agentic_sessions() -> None:
    """H-append: every eighth conversation, walked through one by one."""
    path = TRACES / "weka" / "weka_all710.rle.jsonl.gz"
    found = dpplan.trace_stats(path, curves=False, ttls_s=())
    assert (found.requests, found.sessions) == (49334, 710)
    assert found.requests_per_s is None
    appends, negative, subagents = [], 0, 0
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            runs = [json.loads(line)["requests"]]
            runs += [entry["requests"] for entry in runs[0] if entry["type"] == "subagent"]
            subagents += sum(bool(run) for run in runs[1:])
            for one in runs:
                turns = [entry for entry in one if entry["type"] != "subagent"]
                for past, now in itertools.pairwise(turns):
                    appends.append(now["in"] - past["in"] - past["out"])
    negative = sum(append < 0 for append in appends)
    assert found.turns is not None
    assert (found.turns.appends, found.turns.negative_appends) == (len(appends), negative)
    assert found.turns.subagents == subagents
    assert found.distributions["append_tokens"].mean == pytest.approx(np.mean(appends))
    expected = np.quantile(appends, SHARES)
    assert found.distributions["append_tokens"].quantiles(SHARES) == pytest.approx(expected)
