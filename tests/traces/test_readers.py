"""Readers of traces: what the files hold comes out, whatever way it is packed."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import json
import math
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from dpplan.errors import BadInput
from dpplan.traces.formats import FORMATS
from dpplan.traces.reading.faults import Notes
from dpplan.traces.reading.lines import chunks
from dpplan.traces.reading.reader import Trace, open_trace
from dpplan.traces.requests import (
    GAP_HUMAN,
    GAP_TOOL,
    GAP_UNKNOWN,
    Requests,
    TraceFacts,
    batches,
    in_time_order,
    join,
    requests_of,
    take,
)

TRACES = Path(__file__).resolve().parents[3] / "shared" / "traces"
real = pytest.mark.skipif(not TRACES.is_dir(), reason="the real traces are not beside this project")
quick = settings(deadline=None, derandomize=True, max_examples=60)

MOONCAKE = '{"timestamp": %d, "input_length": %d, "output_length": %d, "hash_ids": %s}\n'


def read(paths: Any, **options: Any) -> tuple[Requests, TraceFacts]:
    trace = open_trace(paths, **options)
    requests = join(list(trace))
    starts, m = requests.block_starts, len(requests.block_ids)
    assert (starts[0], starts[-1], len(requests.block_tokens)) == (0, m, m)
    assert (np.diff(starts) >= 0).all()
    assert (requests.block_tokens > 0).all()
    # Blocks never hold more tokens than the prompt.
    sums = np.add.reduceat(np.append(requests.block_tokens, 0), starts[:-1])
    assert (np.where(np.diff(starts) > 0, sums, 0) <= requests.input_tokens).all()
    return requests, trace.facts


def message(paths: Any, **options: Any) -> str:
    with pytest.raises(BadInput) as caught:
        read(paths, **options)
    return str(caught.value)


def ids_of(requests: Requests, i: int) -> list[int]:
    starts = requests.block_starts
    return [int(k) for k in requests.block_ids[starts[i] : starts[i + 1]]]


def mooncake_line(time: int, tokens: int, ids: Sequence[int], output: int = 5) -> str:
    return MOONCAKE % (time, tokens, output, list(ids))


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


# Real files


@real
@pytest.mark.parametrize(
    ("name", "requests", "distinct"),
    [("conversation", 12031, 182790), ("synthetic", 3993, 43924)],
)
def test_mooncake_traces(name: str, requests: int, distinct: int) -> None:
    path = TRACES / "mooncake" / f"{name}_trace.jsonl"
    got, facts = read(path)
    assert len(got) == requests
    assert len(np.unique(got.block_ids)) == distinct
    # The plain way, one line after another.
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert got.block_ids.tolist() == [i for line in lines for i in line["hash_ids"]]
    assert got.input_tokens.tolist() == [line["input_length"] for line in lines]
    assert got.time_s.tolist() == [line["timestamp"] / 1e3 for line in lines]
    sums = np.add.reduceat(got.block_tokens, got.block_starts[:-1])
    assert (sums == got.input_tokens).all()
    assert (facts.format, facts.block_tokens, facts.notes, facts.faults) == (
        "mooncake",
        512,
        (),
        (),
    )
    (file,) = facts.files
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (file.bytes, file.lines, file.bad_lines) == (path.stat().st_size, requests, 0)


@real
@pytest.mark.parametrize(("name", "requests"), [("code", 8819), ("conv", 19366)])
def test_azure_traces(name: str, requests: int) -> None:
    got, facts = read(TRACES / "azure2023" / f"AzureLLMInferenceTrace_{name}.csv")
    assert len(got) == requests
    assert (facts.format, facts.block_tokens, facts.has_sessions) == ("azure", None, False)
    assert got.time_s[0] == 0
    assert (np.diff(got.time_s) >= 0).all()
    assert got.time_s[-1] == pytest.approx({"code": 3435.9, "conv": 3501.7}[name], abs=0.05)
    assert not len(got.block_ids)
    assert (got.session == -1).all()


@real
def test_azure_stamps_keep_all_seven_digits() -> None:
    got, _ = read(TRACES / "azure2023" / "AzureLLMInferenceTrace_conv.csv")
    # 18:15:46.6805900 and 18:15:50.9951690
    assert got.time_s[1] == pytest.approx(4.314579, abs=1e-9)
    assert (got.input_tokens[0], got.output_tokens[0]) == (374, 44)


@real
def test_weka_conversations_with_ranges() -> None:
    trace = open_trace(TRACES / "weka" / "weka_all710.rle.jsonl.gz")
    requests = blocks = sub_agents = 0
    conversations: set[int] = set()
    end = -1
    for batch in trace:
        requests += len(batch)
        blocks += len(batch.block_ids)
        sub_agents += int((batch.agent > 0).sum())
        conversations.update(batch.session.tolist())
        assert (batch.scope == batch.session).all()
        assert (np.diff(batch.scope) >= 0).all()
        held = np.diff(batch.block_starts)
        assert (held == batch.input_tokens // 64).all()
        # Ids of later conversations are beyond those of earlier ones.
        scope = np.repeat(batch.scope, held)
        edges = np.flatnonzero(np.diff(scope)) + 1
        for piece in np.split(batch.block_ids, edges)[1:]:
            assert piece.min() > end
            end = int(piece.max())
        within = np.diff(batch.scope) == 0
        assert (np.diff(batch.time_s)[within] >= 0).all()
    assert (requests, sub_agents, len(conversations)) == (49334, 676, 710)
    assert blocks == 94310647
    assert trace.facts.scoped
    assert trace.facts.files[0].lines == 710


@real
def test_weka_documents_equal_their_lines(tmp_path: Path) -> None:
    documents = sorted((TRACES / "weka" / "traces").glob("*.json.gz"))
    assert len(documents) == 88
    names = {path.name.removesuffix(".json.gz") for path in documents}
    with gzip.open(TRACES / "weka" / "weka_all710.rle.jsonl.gz") as stream:
        lines = sorted((json.loads(line)["id"], line) for line in stream)
    path = write(tmp_path / "t.jsonl", b"".join(line for name, line in lines if name in names))
    told, told_facts = read(TRACES / "weka" / "traces")
    ranged, facts = read(path)
    assert len(told) == len(ranged) == 7653
    for name in Requests.__dataclass_fields__:
        assert np.array_equal(
            getattr(told, name), getattr(ranged, name), equal_nan=name[-2:] == "_s"
        )
    assert (len(told_facts.files), facts.block_tokens) == (88, 64)


@real
def test_weka_fields_are_those_of_the_document() -> None:
    path = TRACES / "weka" / "traces" / "trace_0001.json.gz"
    got, _ = read(path)
    entries = json.loads(gzip.decompress(path.read_bytes()))["requests"]
    flat = [entry for entry in entries if entry["type"] != "subagent"]
    main = take(got, np.flatnonzero(got.agent == 0))
    assert main.time_s.tolist() == [entry["t"] for entry in flat]
    assert main.output_tokens.tolist() == [entry["out"] for entry in flat]
    assert main.service_s[0] == flat[0]["api_time"]
    assert np.isnan(main.gap_s[0])
    assert main.gap_kind[0] == GAP_UNKNOWN
    for i, entry in enumerate(flat[1:], 1):
        assert main.gap_s[i] == entry["think_time"]
        assert main.gap_kind[i] == (
            GAP_TOOL if "tool_result" in entry["input_types"] else GAP_HUMAN
        )
        shift = ids_of(main, 0)[0] - flat[0]["hash_ids"][0]
        assert ids_of(main, i) == [x + shift for x in entry["hash_ids"]]


@real
def test_aiperf_excerpt() -> None:
    path = TRACES / "aiperf" / "inference_day_2026_excerpt.jsonl"
    got, facts = read(path)
    assert (len(got), len(set(got.session.tolist()))) == (49, 5)
    assert (facts.format, facts.block_tokens) == ("aiperf", 512)
    assert (np.diff(got.time_s) >= 0).all()
    # By hand: one session after another.
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    numbers: dict[str, int] = {}
    seen: dict[int, int] = {}
    for line in lines:
        number = numbers.setdefault(line["session_id"], len(numbers))
        of_session = np.flatnonzero(got.session == number)
        i = of_session[seen.get(number, 0)]
        turn = seen[number] = seen.get(number, 0) + 1
        past = [x for x in lines if x["session_id"] == line["session_id"]][:turn]
        prompt = sum(x["input_length"] for x in past) + sum(x["output_length"] for x in past[:-1])
        assert got.input_tokens[i] == prompt
        assert ids_of(got, i) == [k for x in past for k in x["hash_ids"]]
        delay_s = sum(x.get("delay", 0.0) for x in past) / 1e3
        assert got.time_s[i] == pytest.approx(past[0]["timestamp"] / 1e3 + delay_s)
        blocks = slice(got.block_starts[i], got.block_starts[i + 1])
        assert got.block_tokens[blocks].sum() == sum(x["input_length"] for x in past)


@real
@pytest.mark.parametrize(
    ("name", "requests", "sessions"),
    [("miniswe", 402, 20), ("magagent", 746, 25), ("taubench", 471, 24)],
)
def test_agents_texts(name: str, requests: int, sessions: int) -> None:
    path = TRACES / "lmcache" / f"{name}.tar.gz"
    got, facts = read(path)
    assert (len(got), len(set(got.session.tolist()))) == (requests, sessions)
    assert (facts.format, facts.token_source, facts.block_tokens) == ("chat", "estimate", 64)
    assert any("ESTIMATE" in note for note in facts.notes)
    assert got.time_s[0] == 0
    assert (np.diff(got.time_s) >= 0).all()
    assert facts.files[0].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    empty = [note for note in facts.notes if "without requests" in note]
    assert bool(empty) == (name == "taubench")
    with tarfile.open(path) as archive:
        texts = [archive.extractfile(member) for member in archive.getmembers() if member.isfile()]
        lines = [json.loads(line) for text in texts if text for line in text]
    lines.sort(key=lambda line: int(line["timestamp"]))
    assert got.input_tokens.tolist() == [-(-len(line["input"]) // 4) for line in lines]
    # Equal ids = equal text from the start.
    starts: dict[int, str] = {}
    for i, line in enumerate(lines):
        for k, block in enumerate(ids_of(got, i)):
            assert (
                starts.setdefault(block, line["input"][: 256 * (k + 1)])
                == (line["input"][: 256 * (k + 1)])
            )


# What a file is packed in


TEXT = "".join(mooncake_line(t, 700 + t, [0, t + 1]) for t in range(50))


def tarred(text: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        info = tarfile.TarInfo("folder/" + "long name " * 30 + ".jsonl")
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text))
        archive.addfile(tarfile.TarInfo("folder/empty.jsonl"))
    return stream.getvalue()


def frames(text: bytes) -> bytes:
    packer = zstandard.ZstdCompressor()
    return packer.compress(text[:100]) + packer.compress(text[100:])


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "gzip members": lambda text: gzip.compress(text[:77]) + gzip.compress(text[77:]) + bytes(99),
    "zstd": zstandard.ZstdCompressor().compress,
    "zstd frames": frames,
    "tar": tarred,
    "tar.gz": lambda text: gzip.compress(tarred(text)),
    "tar.zst": lambda text: zstandard.ZstdCompressor().compress(tarred(text)),
    "gzip in tar": lambda text: tarred(gzip.compress(text)),
    "CR LF": lambda text: text.replace(b"\n", b"\r\n"),
    "CR": lambda text: text.replace(b"\n", b"\r"),
    "no last end": lambda text: text.removesuffix(b"\n"),
    "blank lines": lambda text: b"\n \n" + text.replace(b"\n", b"\n\n\t\n"),
    "mark": lambda text: b"\xef\xbb\xbf" + text,
    "mixed ends": lambda text: text.replace(b"\n", b"\r\n", 9).replace(b"}\n", b"}\r", 3),
}


@pytest.mark.parametrize("packing", PACKINGS)
def test_packings_hold_the_same(tmp_path: Path, packing: str) -> None:
    plain, _ = read(write(tmp_path / "plain", TEXT))
    path = write(tmp_path / "packed.csv", PACKINGS[packing](TEXT.encode()))
    packed, facts = read(path, strict=True)
    for name in Requests.__dataclass_fields__:
        nan = name.endswith("_s")
        assert np.array_equal(getattr(plain, name), getattr(packed, name), equal_nan=nan)
    assert (facts.files[0].lines, facts.files[0].bad_lines) == (50, 0)
    assert facts.files[0].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert any("byte-order mark" in note for note in facts.notes) == (packing == "mark")


@quick
@given(
    lines=st.lists(st.binary(max_size=6).filter(lambda b: b"\n" not in b and b"\r" not in b)),
    ends=st.lists(st.sampled_from([b"\n", b"\r\n", b"\r"]), min_size=1),
    cut=st.integers(1, 9),
    last=st.booleans(),
)
def test_lines_do_not_depend_on_blocks(
    lines: list[bytes], ends: list[bytes], cut: int, last: bool
) -> None:
    text = b"".join(line + end for line, end in zip(lines, itertools.cycle(ends), strict=False))
    text += b"end" * last
    pieces = [text[i : i + cut] for i in range(0, len(text), cut)]
    long: list[int] = []
    got = [pair for chunk in chunks(iter(pieces), "t", long.append) for pair in chunk.lines()]
    want = text.removeprefix(b"\xef\xbb\xbf").splitlines()
    assert got == [(i, line) for i, line in enumerate(want, 1) if line and not line.isspace()]
    assert not long


def test_too_long_lines_are_passed_over() -> None:
    text = b"a" * 100 + b"\nbb\r" + b"c" * 90 + b"\r\ndd\n" + b"e" * 50
    pieces = (text[i : i + 7] for i in range(0, len(text), 7))
    long: list[int] = []
    got = [pair for chunk in chunks(pieces, "t", long.append, 20) for pair in chunk.lines()]
    assert got == [(2, b"bb"), (4, b"dd")]
    assert long == [1, 3, 5]


def test_progress_reaches_all_stored_bytes(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    paths = [
        write(tmp_path / "a", gzip.compress(TEXT.encode())),
        write(tmp_path / "b", mooncake_line(9000, 100, [7])),
    ]
    trace = open_trace(paths, on_progress=lambda done, total: seen.append((done, total)))
    assert len(list(trace)) == 1
    total = sum(path.stat().st_size for path in paths)
    assert seen[-1] == (total, total)
    assert sorted(seen) == seen


# Several files


def test_parts_of_a_trace_are_put_in_order(tmp_path: Path) -> None:
    late = write(tmp_path / "a.jsonl", mooncake_line(5000, 600, [1, 2]))
    early = write(tmp_path / "b.jsonl", mooncake_line(1000, 600, [1, 3]))
    got, facts = read([late, early])
    assert got.time_s.tolist() == [1.0, 5.0]
    assert [file.name for file in facts.files] == [str(early), str(late)]
    assert read(tmp_path)[0].block_ids.tolist() == got.block_ids.tolist()


def test_traces_that_overlap_are_not_joined(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / f"{name}.jsonl", TEXT)
    assert "files that follow one another in time are needed" in message(tmp_path)


def test_files_of_unlike_formats_are_not_joined(tmp_path: Path) -> None:
    one = write(tmp_path / "one", TEXT)
    other = write(tmp_path / "other", "input_tokens,output_tokens\n1,2\n")
    assert "files of one format are needed" in message([one, other])


def test_a_directory_passes_over_what_is_no_trace(tmp_path: Path) -> None:
    write(tmp_path / "trace.jsonl", TEXT)
    write(tmp_path / "manifest{0}.json", '{"seed": 42}')
    write(tmp_path / "empty.jsonl", "")
    write(tmp_path / "README.md", "words")
    got, facts = read(tmp_path)
    assert len(got) == 50
    assert len(facts.files) == 1
    assert any("manifest{0}.json was passed over" in note for note in facts.notes)
    assert "empty files passed over: 1" in facts.notes


def test_a_trace_is_read_once(tmp_path: Path) -> None:
    trace = open_trace(write(tmp_path / "t", TEXT))
    assert isinstance(trace, Trace)
    assert trace.facts.files == ()
    list(trace)
    with pytest.raises(RuntimeError, match="read once"):
        iter(trace)


# Batches and order


def test_batches_join_and_never_split() -> None:
    parts = [
        requests_of(
            [0.0], [30], [1], block_counts=[3], block_ids=np.arange(3), block_tokens=np.full(3, 10)
        )
        for _ in range(7)
    ]
    sizes = [len(batch) for batch in batches(iter(parts), max_blocks=7)]
    assert sizes == [2, 2, 2, 1]
    assert [len(batch) for batch in batches(iter(parts), max_requests=4)] == [4, 3]


@quick
@given(
    times=st.lists(st.integers(0, 30), min_size=1, max_size=60),
    window=st.integers(1, 20),
    size=st.integers(1, 5),
)
def test_order_of_time_within_the_window(times: list[int], window: int, size: int) -> None:
    column = np.array(times, np.float64)
    tags = np.arange(len(times))
    parts = [
        requests_of(
            column[i : i + size],
            tags[i : i + size],
            tags[i : i + size],
            block_counts=1,
            block_ids=tags[i : i + size],
            block_tokens=np.ones(len(tags[i : i + size]), np.int64),
        )
        for i in range(0, len(times), size)
    ]
    notes = Notes()
    got = join(list(in_time_order(iter(parts), notes, max_requests=window)))
    assert sorted(got.block_ids.tolist()) == tags.tolist()
    assert (got.block_ids == got.input_tokens).all()
    assert (column[got.input_tokens] == got.time_s).all()
    late = any("too late" in note for note in notes.texts)
    assert late == bool((np.diff(got.time_s) < 0).any())
    if len(times) <= 2 * window - size:
        assert got.input_tokens.tolist() == sorted(tags.tolist(), key=lambda i: (times[i], i))


def test_lines_out_of_order_are_sorted_and_noted(tmp_path: Path) -> None:
    text = "".join(mooncake_line(t, 10, [t]) for t in (3, 1, 2))
    got, facts = read(write(tmp_path / "t", text))
    assert got.block_ids.tolist() == [1, 2, 3]
    assert facts.notes == ("requests that stood out of order of time and were sorted: 2",)


# One format after another


@quick
@given(
    data=st.lists(
        st.tuples(st.integers(0, 10**6), st.integers(0, 9000), st.integers(0, 999)), min_size=1
    ),
    ids=st.data(),
)
def test_mooncake_round_trip(
    tmp_path_factory: pytest.TempPathFactory, data: list[tuple[int, int, int]], ids: st.DataObject
) -> None:
    rows = [
        (
            *row,
            ids.draw(
                st.lists(
                    st.integers(-(2**63), 2**63 - 1),
                    min_size=-(-row[1] // 512),
                    max_size=-(-row[1] // 512),
                )
            ),
        )
        for row in sorted(data)
    ]
    path = tmp_path_factory.mktemp("t") / "t.jsonl"
    write(path, "".join(MOONCAKE % row for row in rows))
    if not any(row[3] for row in rows):
        return
    got, _ = read(path, format="mooncake", block_tokens=512)
    assert [ids_of(got, i) for i in range(len(got))] == [row[3] for row in rows]
    assert got.output_tokens.tolist() == [row[2] for row in rows]


def test_mooncake_without_ids(tmp_path: Path) -> None:
    line = '{"timestamp": 1.5, "input_length": 10, "output_length": 2}\n'
    got, facts = read(write(tmp_path / "t", line * 3))
    assert got.time_s.tolist() == [0.0015] * 3
    assert facts.block_tokens is None


@pytest.mark.parametrize(("size", "floor"), [(16, False), (64, True), (256, False)])
def test_mooncake_block_sizes_are_told_by_the_counts(
    tmp_path: Path, size: int, floor: bool
) -> None:
    counts = [n // size if floor else -(-n // size) for n in range(1000, 3000, 37)]
    text = "".join(
        mooncake_line(i, n, range(count))
        for i, (n, count) in enumerate(zip(range(1000, 3000, 37), counts, strict=True))
    )
    got, facts = read(write(tmp_path / "t", text))
    assert facts.block_tokens == size
    assert np.diff(got.block_starts).tolist() == counts
    sums = np.add.reduceat(got.block_tokens, got.block_starts[:-1])
    assert ((got.input_tokens - sums) == (got.input_tokens % size if floor else 0)).all()


def session_line(name: str, tokens: int, ids: Sequence[int], **when: float) -> str:
    record = {"session_id": name, "input_length": tokens, "output_length": 3}
    return json.dumps({**record, "hash_ids": list(ids), **when}) + "\n"


def test_sessions_build_up_and_are_merged(tmp_path: Path) -> None:
    text = session_line("a", 600, [1, 2], timestamp=0) + session_line("a", 20, [3], delay=3000)
    text += session_line("b", 10, [9], timestamp=1000) + session_line("a", 0, [], timestamp=9000)
    got, facts = read(write(tmp_path / "t", text))
    assert got.time_s.tolist() == [0, 1, 3, 9]
    assert got.session.tolist() == [0, 1, 0, 0]
    assert got.input_tokens.tolist() == [600, 10, 623, 626]
    assert [ids_of(got, i) for i in range(4)] == [[1, 2], [9], [1, 2, 3], [1, 2, 3]]
    assert got.block_tokens.tolist() == [512, 88, 10, 512, 88, 20, 512, 88, 20]
    assert np.isnan(got.gap_s).tolist() == [True, True, False, True]
    assert got.gap_s[2] == 3
    assert (facts.format, facts.has_sessions, len(facts.notes)) == ("aiperf", True, 2)


def test_sessions_beyond_memory_are_given_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dpplan.traces.formats import aiperf

    monkeypatch.setattr(aiperf, "MAX_HELD_REQUESTS", 2)
    text = "".join(session_line(f"{i % 3}", 5, [i], timestamp=i, delay=1) for i in range(9))
    path = write(tmp_path / "t", text)
    got, facts = read(path)
    assert got.input_tokens.tolist() == [5, 5, 5, 13, 13, 13, 21, 21, 21]
    assert ids_of(got, 8) == [2, 5, 8]
    assert any("in pieces" in note for note in facts.notes)
    # A session forgotten is one whose later turns miss their first.
    monkeypatch.setattr(aiperf, "MAX_SESSION_IDS", 1)
    lines = [session_line(f"{i}", 5, [i], timestamp=i) for i in range(200)]
    _, facts = read(write(tmp_path / "u", "".join(lines) + session_line("0", 5, [0], delay=1)))
    assert "the first turn of a session needs one" in facts.faults[0]


def weka(requests: list[dict[str, Any]], **more: Any) -> str:
    document = {"id": "t", "block_size": 64, "hash_id_scope": "local", "requests": requests, **more}
    return json.dumps(document) + "\n"


def weka_request(t: float, tokens: int, ids: Any, **more: Any) -> dict[str, Any]:
    return {"t": t, "type": "n", "in": tokens, "out": 3, "hash_ids": ids, **more}


def test_weka_sub_agents_stand_in_their_parents_time(tmp_path: Path) -> None:
    sub_agent = {
        "t": 5.0,
        "type": "subagent",
        "agent_id": "a",
        "requests": [
            weka_request(0.0, 70, [[9, 9]], input_types=["text"]),
            weka_request(2.0, 64, [[9, 9]], think_time=1.5, input_types=["tool_result"]),
        ],
    }
    text = weka(
        [
            weka_request(0.0, 130, [[1, 2]], api_time=2.0, think_time=0.0, input_types=["text"]),
            sub_agent,
            weka_request(6.0, 200, [[1, 2], [4, 4]], think_time=4.0, input_types=["text"]),
        ]
    )
    got, facts = read(write(tmp_path / "t", text * 2))
    assert got.time_s.tolist() == [0, 5, 6, 7] * 2
    assert got.agent.tolist() == [0, 1, 0, 1] * 2
    assert got.session.tolist() == got.scope.tolist() == [0] * 4 + [1] * 4
    assert [ids_of(got, i) for i in range(4)] == [[0, 1], [8], [0, 1, 3], [8]]
    assert [ids_of(got, i) for i in range(4, 8)] == [[9, 10], [17], [9, 10, 12], [17]]
    assert np.isnan(got.gap_s).tolist() == [True, True, False, False] * 2
    assert got.gap_kind.tolist() == [GAP_UNKNOWN, GAP_UNKNOWN, GAP_HUMAN, GAP_TOOL] * 2
    assert got.service_s[0] == 2.0
    assert math.isnan(got.service_s[1])
    assert facts.block_tokens == 64


def test_weka_ids_of_64_bits_stay_distinct(tmp_path: Path) -> None:
    far = [-(2**63), 2**63 - 1, 5]
    text = weka([weka_request(0, 192, far), weka_request(1, 128, far[:2])])
    got, _ = read(write(tmp_path / "t", text * 2))
    assert [ids_of(got, i) for i in range(4)] == [[0, 2, 1], [0, 2], [3, 5, 4], [3, 5]]


def test_weka_document_over_many_lines(tmp_path: Path) -> None:
    text = json.dumps(json.loads(weka([weka_request(0, 130, [1, 2])])), indent=1)
    got, facts = read(write(tmp_path / "t.json", text))
    assert (facts.format, ids_of(got, 0)) == ("weka", [0, 1])


def test_agents_are_told_apart_by_their_prompts(tmp_path: Path) -> None:
    base = 1_700_000_000_000_000
    one, two = "You plan. " * 100, "You click. " * 100
    prompts = [one, two, one + "a" * 90, "", two + "b", one + "a" * 90 + "c"]
    records = [
        {"timestamp": str(base + 1_000_000 * i), "input": p, "output": "x", "session_id": "s"}
        for i, p in enumerate(prompts)
    ]
    text = "".join(json.dumps(record) + "\n" for record in reversed(records))
    got, facts = read(write(tmp_path / "t", text), block_tokens=32)
    assert got.agent.tolist() == [0, 1, 0, 2, 1, 0]
    assert got.time_s.tolist() == [0, 1, 2, 3, 4, 5]
    assert got.input_tokens.tolist() == [-(-len(p) // 4) for p in prompts]
    assert ids_of(got, 0)[:7] == ids_of(got, 2)[:7]  # 7 x 128 of 1000 characters
    assert ids_of(got, 0)[7] != ids_of(got, 2)[7]
    assert facts.block_tokens == 32


def test_chat_messages_with_and_without_usage(tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": "Be brief. " * 60},
        {"role": "user", "content": [{"type": "text", "text": "Hello there"}]},
    ]
    answered = [*messages, {"role": "assistant", "content": "Hi!"}]
    plain = json.dumps({"messages": answered}) + "\n"
    got, facts = read(write(tmp_path / "a", plain))
    prompt = "system: " + "Be brief. " * 60 + "\nuser: Hello there\n"
    assert got.input_tokens.tolist() == [-(-len(prompt) // 4)]
    assert (got.output_tokens.tolist(), got.gap_kind.tolist()) == ([1], [GAP_HUMAN])
    assert (facts.format, facts.token_source, facts.has_sessions) == ("chat", "estimate", False)
    usage = {"prompt_tokens": 200, "completion_tokens": 2}
    counted = json.dumps({"messages": messages, "usage": usage}) + "\n"
    told, facts = read(write(tmp_path / "b", counted))
    assert (told.input_tokens.tolist(), told.output_tokens.tolist()) == ([200], [2])
    assert told.block_tokens.sum() == 200
    assert told.block_ids.tolist() == got.block_ids.tolist()
    assert facts.token_source == "given"


def test_a_given_tokenizer_counts(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="the tokenizer extra is not installed")
    words = {word: i for i, word in enumerate(["[UNK]", "one", "two", "three"])}
    model = tokenizers.models.WordLevel(words, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    record = {"timestamp": 1, "input": "one two three one two", "output": "three", "session_id": 7}
    path = write(tmp_path / "t", json.dumps(record) + "\n")
    got, facts = read(path, tokenizer=tmp_path / "tokenizer.json", block_tokens=2)
    assert (got.input_tokens.tolist(), got.output_tokens.tolist()) == ([5], [1])
    assert got.block_tokens.tolist() == [2, 2, 1]
    assert facts.token_source == "tokenizer"
    assert not any("ESTIMATE" in note for note in facts.notes)
    assert "a tokenizer.json is needed" in message(path, tokenizer=path)


def test_table_with_obvious_headers(tmp_path: Path) -> None:
    text = "arrival_ms;Prompt Tokens;output-tokens;session_id\n500;10;2;a\n1500;30;4.0;b\n"
    got, facts = read(write(tmp_path / "t.csv", text))
    assert got.time_s.tolist() == [0.5, 1.5]
    assert got.input_tokens.tolist() == [10, 30]
    assert got.output_tokens.tolist() == [2, 4]
    assert got.session.tolist() == [0, 1]
    assert (facts.format, facts.has_sessions) == ("table", True)


def test_table_with_a_column_map(tmp_path: Path) -> None:
    text = 'When,ctx,gen,"who, what",pause\n2024-01-01 00:00:01.5,10,2,"x, y",\n'
    text += "2024-01-01T00:00:03Z,30,4,z,250\n"
    path = write(tmp_path / "t.csv", text)
    columns = {"time": "When", "input": "ctx", "output": "gen", "session": "who, what"}
    got, facts = read(path, columns={**columns, "gap:ms": "pause"})
    assert got.time_s.tolist() == [0.0, 1.5]
    assert got.session.tolist() == [0, 1]
    assert got.gap_s[1] == 0.25
    assert np.isnan(got.gap_s[0])
    assert facts.format == "table"
    unknown, facts = read(path, columns="input=ctx,output=gen")
    assert np.isnan(unknown.time_s).all()
    assert any("no rates" in note for note in facts.notes)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ("input", "role=column"),
        ("input=ctx", "a column for output is needed"),
        ("input=ctx,output=gem", "did you mean gen?"),
        ("inptu=ctx,output=gen", "did you mean input?"),
        ("time:days=When,input=ctx,output=gen", "time in one of s, ms, us"),
        ("input:ms=ctx,output=gen", "input without a unit"),
    ],
)
def test_wrong_column_maps(tmp_path: Path, columns: str, words: str) -> None:
    path = write(tmp_path / "t.csv", "When,ctx,gen\n1,2,3\n")
    assert words in message(path, columns=columns)


def test_azure_dates_of_2024(tmp_path: Path) -> None:
    text = "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,2162,5\n"
    text += "2024-05-10 00:00:00.017335+00:00,2399,6\n"
    got, facts = read(write(tmp_path / "t", text))
    assert got.time_s.tolist() == [0.0, pytest.approx(0.007405)]
    assert facts.format == "azure"


def test_every_format_has_its_reader() -> None:
    from dpplan.traces.formats import detect, make_reader
    from dpplan.traces.formats.common import Head

    assert detect(Head([], b"")) is None
    assert set(FORMATS) == {"weka", "aiperf", "mooncake", "chat", "azure", "table"}
    with pytest.raises(BadInput, match="did you mean mooncake"):
        make_reader("moonkake", Head([], b""), None)  # type: ignore[arg-type]
