"""H-synthesis: sessions drawn from means, their form, their round trip, and the command."""

from __future__ import annotations

import gzip
import io
import json
import math
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from queueing_cases import distributions

from dpplan.cli.main import main
from dpplan.demand.sessions import append_after_first_tokens
from dpplan.errors import BadInput
from dpplan.profiles.library import read_profile
from dpplan.profiles.workload import Distributions, TurnClass
from dpplan.traces.reading.reader import open_trace
from dpplan.traces.statistics.trace_stats import trace_stats
from dpplan.traces.synthesis.measured_law import MeasuredLaw, law_of
from dpplan.traces.synthesis.session_law import session_law
from dpplan.traces.synthesis.trace_synthesize import (
    BLOCK_TOKENS,
    synthesize,
    synthesize_sessions,
    trace_lines,
)

MEANS = (
    "turns_per_session",
    "append_tokens",
    "output_tokens",
    "session_tokens",
    "context_tokens",
)
SAMPLE = settings(
    deadline=None,
    derandomize=True,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
SHIPPED = ("agentic", "agentic-48k", "agentic-32k", "chat")


def shipped(name: str, **changes: object) -> TurnClass:
    profile = read_profile("workloads", name)
    assert isinstance(profile, TurnClass)
    return profile.model_copy(update=changes)


@st.composite
def workloads(draw: st.DrawFn) -> TurnClass:
    """Means that sessions can have: growth that turns add up to, more or less unequally."""
    turns = draw(st.floats(1.0, 80.0))
    append, output = draw(st.floats(5.0, 3000.0)), draw(st.floats(0.0, 1000.0))
    spread = draw(st.sampled_from([1.0, 1.2, 2.0, 4.0]))
    growth = turns * (append + output) / min(spread, 1.0 + 0.5 * (turns - 1.0))
    first = draw(st.sampled_from([0.0, 0.3, 2.0])) * growth
    # Contexts of even growth, from a little below to a little above.
    context = first + growth * (0.5 - 0.5 / turns) * draw(st.floats(0.9, 1.0))
    return TurnClass(
        name="drawn",
        model="m",
        turns_per_session=turns,
        context_tokens=context,
        append_tokens=append,
        output_tokens=output,
        session_tokens=first + growth,
        tool_gap_s=draw(st.sampled_from([None, "3 s"])),
    )


def measured(workload: TurnClass, sessions: int, seed: int) -> dict[str, tuple[float, float]]:
    """Means of sessions drawn, the plain way, each with its standard error.

    Appends are counted without the head of the first prompt, which is the law's.
    """
    head = session_law(workload).first_prompt_tokens
    rows: dict[str, list[float]] = {name: [] for name in MEANS}
    for one in synthesize_sessions(workload, sessions, seed):
        count = len(one.input_tokens)
        ends = np.cumsum(one.input_tokens + one.output_tokens)
        rows["turns_per_session"].append(count)
        rows["append_tokens"].append((float(one.input_tokens.sum()) - head) / count)
        rows["output_tokens"].append(float(one.output_tokens.sum()) / count)
        rows["session_tokens"].append(float(ends[-1]))
        rows["context_tokens"].append(head + float(ends[:-1].sum()))
    columns = {name: np.array(values) for name, values in rows.items()}
    turns = columns["turns_per_session"]
    # A mean over turns: its error is that of what each session is off the mean.
    mean = columns["context_tokens"].sum() / turns.sum()
    off = (columns.pop("context_tokens") - mean * turns) / turns.mean()
    found = {
        name: (float(values.mean()), float(values.std()) / math.sqrt(sessions))
        for name, values in columns.items()
    }
    return found | {"context_tokens": (float(mean), float(off.std()) / math.sqrt(sessions))}


def close(found: tuple[float, float], due: float) -> bool:
    """Within five standard errors and half a token."""
    return abs(found[0] - due) <= 5 * found[1] + 0.5 + 1e-3 * due


# ------------------------------------------------------------------------------------- the law


@pytest.mark.parametrize("name", SHIPPED)
def test_the_law_has_the_means_of_shipped_workloads(name: str) -> None:
    """H-synthesis: every mean of the profile, free of what rounding to whole turns would shift."""
    workload = shipped(name)
    law = session_law(workload)
    for key in MEANS:
        assert getattr(law, key) == pytest.approx(getattr(workload, key), rel=1e-6), key
    assert 0 <= law.first_prompt_tokens <= workload.session_tokens
    assert law.exponent == pytest.approx(1.0 if name == "chat" else 0.0, abs=0.1)


@given(workloads())
@SAMPLE
def test_the_law_keeps_means_that_fit_together(workload: TurnClass) -> None:
    """H-synthesis: turns and tokens exactly; what the others leave room for as near as can be."""
    law = session_law(workload)
    assert law.turns_per_session == pytest.approx(workload.turns_per_session, rel=1e-6)
    assert law.session_tokens == pytest.approx(workload.session_tokens, rel=1e-9)
    assert law.append_tokens * workload.output_tokens == pytest.approx(
        law.output_tokens * workload.append_tokens, rel=1e-9, abs=1e-9
    )
    assert -1 <= law.tilt <= 1
    if abs(law.exponent) < 2.99 and abs(law.tilt) < 1 and workload.turns_per_session > 1.5:
        assert law.context_tokens == pytest.approx(workload.context_tokens, rel=1e-3, abs=1.0)


@given(workloads(), st.integers(0, 2**31))
@SAMPLE
def test_sessions_drawn_have_the_means_of_the_law(workload: TurnClass, seed: int) -> None:
    """H-synthesis: within five standard errors, deviation / sqrt(n), and half a token."""
    law = session_law(workload)
    for name, found in measured(workload, 1500, seed).items():
        assert close(found, getattr(law, name)), (name, found, getattr(law, name))


def test_turns_of_a_session_grow_as_told() -> None:
    """H-synthesis: totals of a session and its tilt, by hand."""
    law = session_law(shipped("chat"))
    for turns in (1, 2, 3, 7):
        growth = law.growth_of(turns)
        due = law.growth_tokens * turns**law.exponent / law.power_mean
        assert growth.sum() == pytest.approx(due, rel=1e-12)
        if turns > 1:
            steps = np.diff(growth) * (turns - 1) / 2 / growth.mean()
            assert steps == pytest.approx(np.full(turns - 1, law.tilt), rel=1e-9)


def test_whole_sessions_of_one_kind_are_exact() -> None:
    """H-synthesis: ten turns of 30 + 20 tokens after 100 are written as just that."""
    workload = TurnClass(
        name="even",
        model="m",
        turns_per_session=10,
        context_tokens=325,
        append_tokens=30,
        output_tokens=20,
        session_tokens=600,
    )
    for one in synthesize_sessions(workload, 5, 1):
        assert one.input_tokens.tolist() == [130] + [30] * 9
        assert one.output_tokens.tolist() == [20] * 10


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"turns_per_session": 2e6}, "turns_per_session"),
        ({"turns_per_session": 0.5}, "turns_per_session"),
        ({"session_tokens": 1e10}, "session_tokens"),
    ],
)
def test_what_cannot_be_written_is_refused(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(BadInput, match=key):
        next(synthesize(shipped("agentic", **changes), 1))


@pytest.mark.parametrize(
    "arguments", [{"sessions": 0}, {"seed": -1}, {"agents_per_s": 0.0}, {"agents_per_s": math.inf}]
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        next(synthesize(shipped("chat"), **({"sessions": 1} | arguments)))


# ------------------------------------------------------------------------------------- the form


def test_records_are_in_the_session_form() -> None:
    """H-synthesis: times, increments, and ids that are new with every block, 512 tokens each."""
    records = list(synthesize(shipped("agentic-32k", tool_gap_s=2.0), 30, 5, 0.4))
    seen: set[int] = set()
    known: set[str] = set()
    last = 0.0
    for record in records:
        ids = record["hash_ids"]
        assert len(ids) == -(-record["input_length"] // BLOCK_TOKENS)
        assert not seen & set(ids)
        seen |= set(ids)
        first = record["session_id"] not in known
        assert ("timestamp" in record) is first
        assert ("delay" in record) is not first
        if first:
            assert record["timestamp"] >= last
            last = record["timestamp"]
        known.add(record["session_id"])
    assert seen == set(range(len(seen)))
    assert len(known) == 30


def test_a_seed_is_a_file() -> None:
    """H-synthesis: byte for byte, whatever else is drawn; other seeds give others."""
    workload = shipped("agentic", tool_gap_s=3.0)
    one, same, other = (b"".join(trace_lines(workload, 40, seed, 0.4)) for seed in (7, 7, 8))
    assert one == same
    assert one != other
    longer = b"".join(trace_lines(workload, 60, 7, 0.4))
    assert longer.startswith(one)
    parsed = [json.loads(line) for line in one.splitlines()]
    assert parsed == list(synthesize(workload, 40, 7, 0.4))


def test_arrivals_are_poisson_and_gaps_exponential() -> None:
    """H-synthesis: mean and deviation of exponential times agree, and half are below ln 2."""
    sessions = list(synthesize_sessions(shipped("chat", tool_gap_s=5.0), 4000, 3, 0.5))
    between = np.diff([0.0, *(one.start_s for one in sessions)])
    gaps = np.concatenate([one.delay_s[1:] for one in sessions])
    for times, mean in ((between, 2.0), (gaps, 5.0)):
        assert times.mean() == pytest.approx(mean, rel=5 / math.sqrt(len(times)))
        assert times.std() == pytest.approx(mean, rel=10 / math.sqrt(len(times)))
        below = float((times < mean * math.log(2)).mean())
        assert below == pytest.approx(0.5, abs=2.5 / math.sqrt(len(times)))
    assert all(one.delay_s[0] == 0.0 for one in sessions)


def test_it_streams() -> None:
    """H-synthesis: a billion sessions begin at once."""
    lines = trace_lines(shipped("agentic"), 10**9)
    assert json.loads(next(lines).splitlines()[0])["session_id"] == "session-00000000"


# ------------------------------------------------------------------------------------ round trip


@pytest.mark.parametrize("name", SHIPPED)
def test_round_trip(name: str, tmp_path: Path) -> None:
    """H-synthesis: profile -> trace -> what `trace stats` finds, within the error stated.

    What the profile calls append and output is the mean over sessions of their mean turn.
    """
    workload = shipped(name, tool_gap_s=4.0)
    sessions = 1000
    path = tmp_path / "made.jsonl"
    path.write_bytes(b"".join(trace_lines(workload, sessions, 11, 0.4)))
    found = trace_stats(open_trace(path), curves=False)
    law = session_law(workload)
    assert found.facts.format == "aiperf"
    assert found.bad_lines == 0
    assert found.sessions == sessions
    told = found.session_distributions
    for key in ("turns_per_session", "output_tokens", "session_tokens"):
        kept = told[key]
        assert kept.mean is not None
        assert kept.standard_deviation is not None
        error = kept.standard_deviation / math.sqrt(sessions)
        assert close((kept.mean, error), getattr(workload, key)), key
    # Appends and contexts are those of later turns there; the first ones' follow from the law.
    appends, turns = told["append_tokens"], told["turns_per_session"]
    assert appends.mean is not None
    assert appends.standard_deviation is not None
    if abs(law.tilt) < 1e-9:
        lone = float((turns.values == 1) @ turns.counts) / sessions
        assert lone < 0.01
        error = appends.standard_deviation / math.sqrt(sessions)
        assert appends.mean == pytest.approx(workload.append_tokens, abs=5 * error + 0.03 * 500)
    contexts = found.distributions["context_tokens"]
    assert contexts.mean is not None
    assert found.turns is not None
    later = contexts.mean * contexts.count + sessions * law.first_prompt_tokens
    assert later / found.turns.turns == pytest.approx(workload.context_tokens, rel=0.06)
    gaps = found.distributions["gap_unknown_s"]
    assert gaps.mean == pytest.approx(4.0, rel=6 / math.sqrt(gaps.count))
    rate = found.arrivals.sessions_per_s
    assert rate is not None
    for key, (mean, error) in measured(workload, sessions, 11).items():
        assert close((mean, error), getattr(workload, key)), key


def test_the_spread_of_turns_is_the_gamma_laws(tmp_path: Path) -> None:
    """H-synthesis, Q-sessions: quantiles of turns per session are those of the gamma law."""
    from scipy import stats

    workload = shipped("agentic")
    path = tmp_path / "made.jsonl"
    path.write_bytes(b"".join(trace_lines(workload, 2000, 2)))
    found = trace_stats(open_trace(path), curves=False)
    law = session_law(workload)
    turns = found.session_distributions["turns_per_session"]
    for share in (0.1, 0.25, 0.5, 0.75, 0.9):
        due = stats.gamma.ppf(share, law.shape, scale=law.turns.scale_turns / law.shape)
        density = stats.gamma.pdf(due, law.shape, scale=law.turns.scale_turns / law.shape)
        error = math.sqrt(share * (1 - share) / 2000) / density
        assert turns.quantile(share) == pytest.approx(due, abs=4 * error + 1)


# -------------------------------------------------------------------------------------- measured

FRACTIONS = [0, 0.25, 0.5, 0.75, 0.9, 1]


def told(**changes: object) -> TurnClass:
    """Twenty turns on average, and what was measured of them."""
    values = {
        "name": "told",
        "model": "m",
        "turns_per_session": 20,
        "context_tokens": 17000,
        "append_tokens": 850,
        "output_tokens": 150,
        "session_tokens": 20000,
        "tool_gap_s": "4 s",
        "distributions": {
            "quantile_fractions": FRACTIONS,
            "per_turn": {
                "append_tokens": [10, 100, 300, 700, 1500, 4000],
                "output_tokens": [1, 20, 80, 200, 400, 800],
                "tool_gap_s": [0, 0.5, 1, 4, 10, 30],
            },
            "per_session": {"turns": [2, 8, 14, 26, 44, 70]},
        },
    }
    return TurnClass.model_validate(values | changes)


def scaled_quantiles(workload: TurnClass, group: str, key: str, mean: float) -> np.ndarray:
    """Those of the profile, times what brings their mean (by the midpoints of pieces) to its."""
    assert workload.distributions is not None
    values = np.array(getattr(getattr(workload.distributions, group), key))
    middles = (values[1:] + values[:-1]) / 2
    return np.asarray(values * mean / (np.diff(FRACTIONS) * middles).sum())


def test_measured_sessions_have_the_quantiles_and_means_told() -> None:
    """H-synthesis: quantiles of turns, tokens and gaps drawn; every mean of the profile."""
    workload = told()
    law = law_of(workload)
    assert isinstance(law, MeasuredLaw)
    for key in MEANS:
        assert getattr(law, key) == pytest.approx(getattr(workload, key), rel=2e-3), key
    sessions = list(synthesize_sessions(workload, 4000, 5))
    turns = np.array([len(one.input_tokens) for one in sessions])
    drawn = {
        "append_tokens": np.concatenate([one.input_tokens[1:] for one in sessions]),
        "output_tokens": np.concatenate([one.output_tokens for one in sessions]),
        "tool_gap_s": np.concatenate([one.delay_s[1:] for one in sessions]),
    }
    for group, key, values, mean in (
        ("per_session", "turns", turns, 20.0),
        ("per_turn", "append_tokens", drawn["append_tokens"], law.later_append_tokens),
        ("per_turn", "output_tokens", drawn["output_tokens"], 150.0),
        ("per_turn", "tool_gap_s", drawn["tool_gap_s"], 4.0),
    ):
        due = scaled_quantiles(workload, group, key, mean)
        error = 5 * values.std() / math.sqrt(len(values))
        assert values.mean() == pytest.approx(mean, abs=error), key
        for share, value in zip(FRACTIONS, due, strict=True):
            # A share of draws, off by luck and by rounding to whole ones.
            luck = 5 * math.sqrt(max(share * (1 - share), 1e-3) / len(values))
            rounding = 0.0 if key == "tool_gap_s" else 1.0
            assert (values < value - rounding - 1e-9).mean() <= share + luck, (key, share)
            assert (values <= value + rounding + 1e-9).mean() >= share - luck, (key, share)
    ends = np.array([float((one.input_tokens + one.output_tokens).sum()) for one in sessions])
    assert ends.mean() == pytest.approx(20000, abs=5 * ends.std() / math.sqrt(len(ends)))
    before = [np.cumsum(one.input_tokens + one.output_tokens)[:-1].sum() for one in sessions]
    firsts = law.first_prompt_tokens * turns**law.exponent / law.power_mean
    context = (sum(before) + firsts.sum()) / turns.sum()
    assert context == pytest.approx(17000, rel=0.05)


@given(workloads(), distributions(), st.integers(0, 2**31))
@SAMPLE
def test_measured_sessions_have_the_means_of_the_law(
    workload: TurnClass, found: Distributions, seed: int
) -> None:
    """H-synthesis: turns, tokens and length within six standard errors and half a token."""
    workload = workload.model_copy(update={"distributions": found})
    law = law_of(workload)
    assert law.turns_per_session == pytest.approx(workload.turns_per_session, rel=1e-4)
    later = append_after_first_tokens(workload)
    assert law.append_tokens * law.turns_per_session == pytest.approx(
        later * law.turns_per_session + law.first_prompt_tokens
    )
    sessions = list(synthesize_sessions(workload, 600, seed))
    turns = np.array([len(one.input_tokens) for one in sessions])
    ends = np.array([float((one.input_tokens + one.output_tokens).sum()) for one in sessions])
    output = np.array([float(one.output_tokens.sum()) for one in sessions])
    for values, mean in (
        (turns, law.turns_per_session),
        (ends, law.session_tokens),
        (output, law.turns_per_session * law.output_tokens),
    ):
        error = 6 * values.std() / math.sqrt(len(values))
        assert values.mean() == pytest.approx(mean, abs=error + 1, rel=1e-3)


def test_what_is_not_told_is_as_without() -> None:
    """H-synthesis: contexts alone change nothing; gaps alone change gaps alone."""
    plain = told(distributions=None)
    same = told(
        distributions={
            "quantile_fractions": [0, 1],
            "per_turn": {"context_tokens": [0, 30000]},
        }
    )
    assert list(synthesize(plain, 20, 3)) == list(synthesize(same, 20, 3))
    gaps = told(
        tool_gap_s=None,
        distributions={"quantile_fractions": [0, 1], "per_turn": {"tool_gap_s": [3, 3]}},
    )
    records = list(synthesize(gaps, 20, 3))
    assert {record["delay"] for record in records if "delay" in record} == {3000.0}
    for one, other in zip(synthesize(plain, 20, 3), records, strict=True):
        assert one["input_length"] == other["input_length"]
    tokens = told(
        distributions={"quantile_fractions": [0, 1], "per_turn": {"output_tokens": [150, 150]}}
    )
    for session in synthesize_sessions(tokens, 20, 3):
        assert set(session.output_tokens.tolist()) == {150}


# ----------------------------------------------------------------------------------- the command


def run(*arguments: str) -> tuple[int, str, str]:
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="") for _ in range(2)]
    with mock.patch.object(sys, "stdout", streams[0]), mock.patch.object(sys, "stderr", streams[1]):
        code = main(arguments)
    said = []
    for stream in streams:
        stream.flush()
        assert isinstance(stream.buffer, io.BytesIO)
        said.append(stream.buffer.getvalue().decode())
    return code, said[0], said[1]


def test_the_command_writes_all_or_nothing(tmp_path: Path) -> None:
    target = tmp_path / "made.jsonl"
    asked = ("trace", "synthesize", "--workload", "chat", "--sessions", "20", "--seed", "4")
    code, out, said = run(*asked, "-o", str(target))
    assert (code, out) == (0, "")
    assert said == f"dpplan: wrote {target}: 20 sessions\n"
    written = target.read_bytes()
    assert written == b"".join(trace_lines(shipped("chat"), 20, 4))
    code, _, said = run(*asked, "-o", str(target))
    assert code == 2
    assert "add --force" in said
    code, _, said = run(*asked[:-1], "5", "-o", str(target), "--force")
    assert code == 0
    assert target.read_bytes() != written
    packed = tmp_path / "made.jsonl.gz"
    assert run(*asked, "-o", str(packed))[0] == 0
    assert gzip.decompress(packed.read_bytes()) == written
    again = tmp_path / "again.jsonl.gz"
    assert run(*asked, "-o", str(again))[0] == 0
    assert again.read_bytes() == packed.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "again.jsonl.gz",
        "made.jsonl",
        "made.jsonl.gz",
    ]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((), "--output"),
        (("-o", "/nowhere/at/all.jsonl"), "--output"),
        (("-o", "{}/x.jsonl", "--workload", "mix"), "one class of turns"),
        (("-o", "{}/x.jsonl", "--workload", "agentik"), "agentic"),
        (("-o", "{}/x.jsonl", "--sessions", "0"), "--sessions"),
        (("-o", "{}/x.jsonl", "--sessions", "1.5"), "--sessions"),
        (("-o", "{}/x.jsonl", "--seed", "-1"), "--seed"),
        (("-o", "{}/x.jsonl", "--agents-per-s", "0"), "--agents-per-s"),
    ],
)
def test_bad_options_are_told(arguments: tuple[str, ...], word: str, tmp_path: Path) -> None:
    code, out, said = run("trace", "synthesize", *(a.format(tmp_path) for a in arguments))
    assert (code, out) == (2, "")
    assert word in said
    assert list(tmp_path.iterdir()) == []


def test_means_that_contradict_each_other_are_told(tmp_path: Path) -> None:
    """Turns that would add up to ten sessions' growth: written as near as can be, and said."""
    profile = tmp_path / "odd.yaml"
    profile.write_text(
        "name: odd\nmodel: ds-27b\nturns_per_session: 4\ncontext_tokens: 9000\n"
        "append_tokens: 2000\noutput_tokens: 500\nsession_tokens: 10000\n",
        encoding="utf-8",
    )
    target = tmp_path / "made.jsonl"
    code, _, said = run("trace", "synthesize", "--workload", str(profile), "-o", str(target))
    assert code == 0
    assert "cannot have all its means" in said
    assert target.exists()
