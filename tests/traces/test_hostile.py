"""Hostile and broken traces: a clear message, bounded memory, no traceback."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dpplan.errors import BadInput
from dpplan.traces.formats import FORMATS
from dpplan.traces.reading.reader import open_trace
from dpplan.traces.requests import Requests, TraceFacts, join

quick = settings(deadline=None, derandomize=True, max_examples=150)

GOOD = b'{"timestamp": 1, "input_length": 600, "output_length": 5, "hash_ids": [0, 1]}\n'
AZURE = b"TIMESTAMP,ContextTokens,GeneratedTokens\n"
AZURE_GOOD = b"2023-11-16 18:15:46.6805900,374,44\n"
SESSION = (
    b'{"session_id": "s", "timestamp": 0, "input_length": 600, "output_length": 5,'
    b' "hash_ids": [0, 1]}\n'
)
TURN = b'{"session_id": "s", "delay": 5, "input_length": 9, "output_length": 5, "hash_ids": [3]}\n'
CHAT = b'{"timestamp": "1700000000000000", "input": "a", "output": "b", "session_id": "s"}\n'
WEKA = (
    b'{"block_size": 64, "hash_id_scope": "local", "requests":'
    b' [{"t": 0, "type": "n", "in": 130, "out": 1, "hash_ids": [[1, 2]]}]}\n'
)
TABLE = b"time,input_tokens,output_tokens\n"
TABLE_GOOD = b"1,2,3\n"


def put(folder: Path, data: bytes) -> Path:
    path = folder / "trace"
    path.write_bytes(data)
    return path


def read(path: Path, **options: Any) -> tuple[Requests, TraceFacts]:
    trace = open_trace(path, **options)
    return join(list(trace)), trace.facts


def message(path: Path, **options: Any) -> str:
    with pytest.raises(BadInput) as caught:
        read(path, **options)
    assert caught.value.exit_code == 2
    return str(caught.value)


# One bad line among many good ones: what is said about it, and that the others are read.

BAD_LINES = {
    "not JSON": (GOOD, b'{"timestamp": 1,', "JSON is needed"),
    "NaN": (GOOD, GOOD.replace(b"1,", b"NaN,", 1), "JSON is needed (invalid character"),
    "infinite": (GOOD, GOOD.replace(b"1,", b"1e999,", 1), "timestamp"),
    "negative time": (GOOD, GOOD.replace(b": 1", b": -1", 1), "milliseconds from 0 are needed"),
    "negative tokens": (GOOD, GOOD.replace(b"600", b"-600"), "input_length: 0 to 1000000000"),
    "negative output": (GOOD, GOOD.replace(b": 5", b": -5"), "output_length: 0 to 1000000000"),
    "huge tokens": (GOOD, GOOD.replace(b"600", b"9" * 30), "input_length: 0 to 1000000000"),
    "tokens as text": (GOOD, GOOD.replace(b"600", b'"600"'), "input_length: expected `int`"),
    "half a token": (GOOD, GOOD.replace(b"600", b"600.5"), "input_length: expected `int`"),
    "no tokens": (GOOD, GOOD.replace(b"input_length", b"length"), "`input_length`"),
    "too few ids": (GOOD, GOOD.replace(b"[0, 1]", b"[0]"), "2 ids are needed for 600 tokens"),
    "too many ids": (GOOD, GOOD.replace(b"[0, 1]", b"[0, 1, 2]"), "got 3"),
    "no ids": (GOOD, GOOD.replace(b"hash_ids", b"ids"), "hash_ids are needed, got none"),
    "ids as text": (GOOD, GOOD.replace(b"[0, 1]", b'[0, "1"]'), "hash_ids[1]: expected `int`"),
    "nested ids": (GOOD, GOOD.replace(b"[0, 1]", b"[[0, 1]]"), "hash_ids[0]: expected `int`"),
    "fractional ids": (GOOD, GOOD.replace(b"[0, 1]", b"[0, 1.5]"), "hash_ids[1]: expected `int`"),
    "ids of 100 bits": (GOOD, GOOD.replace(b"1]", b"%d]" % 2**99), "got one of 100 bits"),
    "deep": (GOOD, b'{"deep": ' + b"[" * 100_000, "JSON is needed, got brackets nested too deep"),
    "binary": (GOOD, bytes(range(14, 99)), "JSON is needed"),
    "UTF-16": (GOOD, '{"timestamp": 1}'.encode("utf-16-le"), "JSON is needed"),
    "two on a line": (GOOD, GOOD.strip() * 2, "JSON is needed (trailing characters"),
    "delay first": (SESSION, TURN.replace(b'"s"', b'"new"'), "the first turn of a session needs"),
    "no delay": (SESSION, TURN.replace(b'"delay": 5, ', b""), "later turns of a session need one"),
    "delay back": (SESSION, TURN.replace(b": 5,", b": -5,", 1), "delay: milliseconds from 0"),
    "endless delay": (SESSION, TURN.replace(b": 5,", b": 1e300,", 1), "delay: milliseconds"),
    "session ids": (SESSION, TURN.replace(b"[3]", b"[]"), "1 ids are needed for 9 tokens"),
    "date": (AZURE_GOOD, b"2023-13-16 18:15:46.68,374,44", "TIMESTAMP: a date is needed"),
    "date in words": (AZURE_GOOD, b"today,374,44", "a UTC date and two counts of tokens"),
    "negative CSV": (AZURE_GOOD, AZURE_GOOD.strip().replace(b"374", b"-374"), "two counts"),
    "huge CSV": (AZURE_GOOD, AZURE_GOOD.strip().replace(b"374", b"9999999999"), "ContextTokens: 0"),
    "missing cell": (AZURE_GOOD, b"2023-11-16 18:15:46.6805900,374", "two counts of tokens"),
    "cells": (TABLE_GOOD, b"1,2", "3 cells are needed, got 2"),
    "NaN cell": (TABLE_GOOD, b"nan,2,3", "time: a number from 0 or an ISO date is needed, got nan"),
    "open quote": (TABLE_GOOD, b'1,2,"3', "cells of a table are needed"),
    "Latin-1": (TABLE_GOOD, b"1,2,\xe9", "UTF-8 text is needed, got byte 0xe9"),
    "negative cell": (TABLE_GOOD, b"1,-2,3", "input: a whole number of tokens is needed, got -2"),
    "text": (CHAT, CHAT.replace(b'"a"', b"5"), "input: text is needed, got int"),
    "text time": (CHAT, CHAT.replace(b"1700000000000000", b"soon"), "a time since 1970 or a date"),
    "no session": (CHAT, CHAT.replace(b'"s"', b"[]"), "session_id: a name is needed"),
    "surrogate": (CHAT, CHAT.replace(b'"a"', rb'"\ud800"'), "JSON is needed"),
    "range": (WEKA, WEKA.replace(b"[1, 2]", b"[0, 1000000000000]"), "got 1000000000001"),
    "range of all": (
        WEKA,
        WEKA.replace(b"130", b"64000000000000").replace(b"[1, 2]", b"[0, 999999999999]"),
        "requests[0].in: 0 to 1000000000 tokens",
    ),
    "range back": (WEKA, WEKA.replace(b"[1, 2]", b"[2, 1]"), "ranges [first, last] are needed"),
    "wide range": (WEKA, WEKA.replace(b"[1, 2]", b"[%d, 2]" % -(2**64)), "got one of 65 bits"),
    "range of three": (WEKA, WEKA.replace(b"[1, 2]", b"[1, 2, 3]"), "hash_ids: Expected `array`"),
    "ranged ids": (WEKA, WEKA.replace(b"[[1, 2]]", b"[1, 2, 3]"), "2 ids are needed for 130"),
    "block size": (WEKA, WEKA.replace(b"64", b"16"), "block_size: 64 is needed"),
    "scope": (WEKA, WEKA.replace(b"local", b"global"), 'hash_id_scope: "local" is needed'),
    "WEKA tokens": (WEKA, WEKA.replace(b"130", b"-130"), "requests[0].in: 0 to"),
    "no in": (WEKA, WEKA.replace(b'"in"', b'"inn"'), "in, out: tokens are needed"),
    "api": (WEKA, WEKA.replace(b'"t"', b'"api_time": -1, "t"'), "api_time: seconds from 0"),
}  # fmt: skip
HEADERS = {AZURE_GOOD: AZURE, TABLE_GOOD: TABLE}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_bad_line_is_counted_and_the_rest_is_read(tmp_path: Path, case: str) -> None:
    good, bad, words = BAD_LINES[case]
    header = HEADERS.get(good, b"")
    number = 101 + bool(header)
    path = put(tmp_path, header + good * 100 + bad.strip(b"\n") + b"\n" + good * 100)
    got, facts = read(path)
    assert len(got) == 200
    (fault,) = facts.faults
    assert fault.startswith(f"{path}:{number}: ")
    assert words in fault
    assert fault.isprintable()
    assert (facts.files[0].lines, facts.files[0].bad_lines) == (201, 1)
    # The first one ends a strict reading.
    strict = message(path, strict=True)
    assert strict.startswith(f"{path}:{number}: ")
    assert words in strict
    assert strict.endswith("without --strict")


def test_more_than_a_hundredth_of_bad_lines_is_refused(tmp_path: Path) -> None:
    bad = GOOD.replace(b"600", b"-1")
    assert len(read(put(tmp_path, GOOD * 99 + bad))[0]) == 99
    text = message(put(tmp_path, GOOD * 98 + bad * 2))
    first, *rest = text.splitlines()
    assert "at most 1% bad lines are tolerated, got 2 of 100; mend them" in first
    assert [line.split(": ")[0] for line in rest] == [f"{tmp_path}/trace:{n}" for n in (99, 100)]


def test_a_file_of_bad_lines_is_given_up_early(tmp_path: Path) -> None:
    bad = GOOD.replace(b"600", b"-1")
    assert "got 1000 of 1000" in message(put(tmp_path, bad * 50_000))
    assert "got 1 of 1" in message(put(tmp_path, bad))


def test_lines_out_of_order_and_repeated_ids_are_no_faults(tmp_path: Path) -> None:
    odd = GOOD.replace(b"[0, 1]", b"[7, 7]") + GOOD.replace(b"[0, 1]", b"[-3, 2]")
    got, facts = read(put(tmp_path, GOOD.replace(b": 1,", b": 9,", 1) + odd), strict=True)
    assert got.block_ids.tolist() == [7, 7, -3, 2, 0, 1]
    assert facts.faults == ()


# Files that hold no trace at all


NOTHING = {
    "empty": (b"", "requests are needed, got an empty file: no requests"),
    "blank": (b"\n \r\n\t\n", "no requests"),
    "mark": (b"\xef\xbb\xbf", "no requests"),
    "empty gzip": (gzip.compress(b""), "no requests"),
    "empty zstd": (zstandard.ZstdCompressor().compress(b""), "no requests"),
    "words": (b"dear diary,\ntoday", "a trace is needed (weka, aiperf, mooncake, chat, azure"),
    "binary": (bytes(range(14, 256)), "a trace is needed"),
    "zeros": (bytes(5000), "a trace is needed"),
    "UTF-16": ("time,input_tokens\n".encode("utf-16"), "UTF-16 text (save it as UTF-8)"),
    "other JSON": (b'{"seed": 42}\n', "a trace is needed"),
    "header": (AZURE, "requests are needed, got no requests"),
    "deep": (b"[" * 200_000, "a trace is needed"),
    "truncated gzip": (gzip.compress(GOOD * 99)[:60], "a whole gzip file is needed, got one that"),
    "gzip header": (b"\x1f\x8b", "a whole gzip file is needed"),
    "damaged gzip": (gzip.compress(GOOD)[:20] + b"x" * 80, "an undamaged gzip file is needed"),
    "wrong sum": (gzip.compress(GOOD)[:-8] + b"x" * 8, "an undamaged gzip file is needed"),
    "truncated zstd": (
        zstandard.ZstdCompressor().compress(GOOD * 99)[:40], "a whole zstd file is needed"
    ),
    "damaged zstd": (b"\x28\xb5\x2f\xfd" + b"\xff" * 80, "an undamaged zstd file is needed"),
}  # fmt: skip


@pytest.mark.parametrize("case", NOTHING)
def test_what_is_no_trace(tmp_path: Path, case: str) -> None:
    data, words = NOTHING[case]
    path = put(tmp_path, data)
    text = message(path)
    assert text.startswith(f"{path}: ")
    assert words in text
    assert text.isprintable()


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    assert "a readable file is needed, got no such file" in message(tmp_path / "none")
    assert "trace files are needed, got a directory with none" in message(tmp_path)
    assert "a regular file is needed" in message(Path("/dev/null"))
    assert "a readable file is needed, got embedded null" in message(Path("\0"))
    assert "got moonkake; did you mean mooncake?" in message(put(tmp_path, GOOD), format="moonkake")
    assert "at least 1 token is needed" in message(put(tmp_path, GOOD), block_tokens=0)


def test_a_wrong_format_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path, GOOD * 9)
    for name in FORMATS:
        if name != "mooncake":
            assert str(path) in message(path, format=name) or name == "table"


def tar_header(**fields: Any) -> bytes:
    info = tarfile.TarInfo("t")
    for name, value in fields.items():
        setattr(info, name, value)
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (tar_header(size=10**12), "a whole tar file is needed"),
        (tar_header(size=10**12, type=tarfile.XHDTYPE), "an undamaged tar file is needed"),
        (tar_header(size=10**12, type=tarfile.GNUTYPE_LONGNAME), "an undamaged tar file"),
        (tar_header()[:300], "a whole tar file is needed"),
        (tar_header()[:124] + b"x" * 12 + tar_header()[136:], "got a size of"),
        (tar_header(), "no requests"),
    ],
)
def test_hostile_archives(tmp_path: Path, data: bytes, words: str) -> None:
    assert words in message(put(tmp_path, data))


def test_an_archive_that_breaks_off_within_its_gzip(tmp_path: Path) -> None:
    archive = tar_header(size=len(GOOD) * 1000) + GOOD * 1000
    for packed in (gzip.compress(archive), zstandard.ZstdCompressor().compress(archive)):
        for kept in (len(packed) // 2, len(packed) - 5):
            kind = "gzip" if packed.startswith(b"\x1f") else "zstd"
            assert f"a whole {kind} file is needed" in message(put(tmp_path, packed[:kept]))


def test_a_bad_line_in_an_archive_is_named_with_its_file(tmp_path: Path) -> None:
    stream = BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in ("a.jsonl", "b.jsonl"):
            text = GOOD * 100 + b"{\n"
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, BytesIO(text))
    path = put(tmp_path, stream.getvalue())
    _, facts = read(path)
    assert [fault.split(": ")[0] for fault in facts.faults] == [
        f"{path}/a.jsonl:101",
        f"{path}/b.jsonl:101",
    ]


# Memory: each in a process of its own, whose peak is looked at


def peak_mib(path: Path, format: str | None = None) -> tuple[float, str]:
    """Peak memory beyond that of the imports, and what came of reading."""
    script = """
import resource, sys, zstandard, msgspec
from dpplan.errors import BadInput
from dpplan.traces.formats import FORMATS, detect
from dpplan.traces.formats.common import Head
from dpplan.traces.reading.reader import open_trace
detect(Head([], b""))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
try:
    trace = open_trace(sys.argv[1], format=sys.argv[2] or None)
    answer = f"{sum(map(len, trace))} requests {trace.facts.faults}"
except BadInput as error:
    answer = str(error)
print(peak() - before)
print(answer)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(path), format or ""],
        capture_output=True,
        text=True,
        check=True,
    )
    peak, answer = done.stdout.split("\n", 1)
    return float(peak), answer.strip()


def long_line(path: Path) -> None:
    with path.open("wb") as stream:  # a hole: no disk is used
        stream.write(GOOD * 100)
        stream.seek(1 << 30, 1)
        stream.write(b"\n" + GOOD * 100)


def long_first_line(path: Path) -> None:
    with path.open("wb") as stream:
        stream.write(GOOD[:-4])
        stream.seek(1 << 30, 1)
        stream.write(b"\n")


def gzip_bomb(path: Path) -> None:
    path.write_bytes(gzip.compress(bytes(1 << 24), 9) * 600)


def gzip_bomb_behind_lines(path: Path) -> None:
    path.write_bytes(gzip.compress(GOOD * 100) + gzip.compress(bytes(1 << 24), 9) * 600)


def zstd_bomb_behind_lines(path: Path) -> None:
    packer = zstandard.ZstdCompressor()
    path.write_bytes(packer.compress(GOOD * 100) + packer.compress(bytes(1 << 28)) * 40)


def many_ids(path: Path) -> None:
    ids = b"7," * ((15 << 20) // 2) + b"7"
    path.write_bytes(GOOD * 200 + b'{"hash_ids": [' + ids + b"]}\n")


def wide_ranges(path: Path) -> None:
    requests = [
        {"t": 0, "type": "n", "in": 10**9, "out": 1, "hash_ids": [[i << 40, (i << 40) + 15624999]]}
        for i in range(100)
    ]
    document = {"block_size": 64, "hash_id_scope": "local", "requests": requests}
    path.write_bytes(WEKA * 200 + json.dumps(document).encode() + b"\n")


@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is told by POSIX systems")
@pytest.mark.parametrize(
    ("make", "format", "words", "limit_mib"),
    [
        (long_line, None, "200 requests ('", 100),
        (long_first_line, None, "a line of at most 16 MiB is needed, got a longer one", 100),
        (long_first_line, "weka", "a line of at most 64 MiB is needed, got a longer one", 200),
        (gzip_bomb, None, "a trace is needed", 60),
        (gzip_bomb, "mooncake", "unpacks to at most 500 times its size is needed, got", 100),
        (gzip_bomb_behind_lines, None, "unpacks to at most 500 times its size", 100),
        (zstd_bomb_behind_lines, None, "unpacks to at most 500 times its size", 200),
        (many_ids, None, "200 requests ('", 400),
        (wide_ranges, None, "200 requests ('", 100),
    ],
)
def test_memory_stays_bounded(
    tmp_path: Path,
    make: Callable[[Path], None],
    format: str | None,
    words: str,
    limit_mib: float,
) -> None:
    path = tmp_path / "trace"
    make(path)
    peak, answer = peak_mib(path, format)
    assert words in answer
    assert "Traceback" not in answer
    assert peak < limit_mib


# Anything at all


STARTS = [b"", GOOD, SESSION + TURN, CHAT, AZURE + AZURE_GOOD, TABLE + TABLE_GOOD, WEKA]


@quick
@given(
    start=st.sampled_from(STARTS),
    junk=st.binary(max_size=300),
    place=st.integers(0, 400),
    packed=st.sampled_from(["plain", "gzip", "zstd"]),
    cut=st.integers(0, 60),
    format=st.sampled_from([None, *FORMATS]),
)
@example(WEKA, b'{"t":1e400}', 60, "plain", 0, None)
def test_bytes_end_in_requests_or_a_message(
    tmp_path_factory: pytest.TempPathFactory,
    start: bytes,
    junk: bytes,
    place: int,
    packed: str,
    cut: int,
    format: str | None,
) -> None:
    data = start[:place] + junk + start[place:]
    if packed == "gzip":
        data = gzip.compress(data)
    elif packed == "zstd":
        data = zstandard.ZstdCompressor().compress(data)
    path = put(tmp_path_factory.getbasetemp(), data[: len(data) - cut] if cut > 40 else data)
    check_anything(path, format)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.sampled_from([0, 1, 64, 130, 600, 2**63, -(2**63)]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@quick
@given(
    base=st.sampled_from([GOOD, SESSION, TURN, CHAT, WEKA]),
    changes=st.lists(st.tuples(st.integers(0, 12), JSON), max_size=3),
    before=st.booleans(),
)
def test_any_value_in_any_field(
    tmp_path_factory: pytest.TempPathFactory,
    base: bytes,
    changes: list[tuple[int, Any]],
    before: bool,
) -> None:
    record = json.loads(base)
    inner = record["requests"][0] if "requests" in record else record
    for where, value in changes:
        target = inner if where % 2 else record
        keys = list(target)
        target[keys[where % len(keys)]] = value
    line = json.dumps(record).encode() + b"\n"
    path = put(tmp_path_factory.getbasetemp(), base * before + line)
    check_anything(path, None)


def check_anything(path: Path, format: str | None) -> None:
    try:
        got, _ = read(path, format=format)
    except BadInput as error:
        assert str(path) in str(error) or "--" in str(error)
        return
    assert len(got) > 0
    for column in (got.input_tokens, got.output_tokens):
        assert ((column >= 0) & (column <= 10**9)).all()
    known = got.time_s[~np.isnan(got.time_s)]
    assert np.isfinite(known).all()
    assert (got.block_tokens >= 0).all()
    assert got.block_starts[-1] == len(got.block_ids) == len(got.block_tokens)
