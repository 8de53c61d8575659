"""Bad profiles and command lines: one clear message each, exit code 2 (3 where infeasible)."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpplan.cli import main
from dpplan.errors import BadInput
from dpplan.profiles.library import KINDS, profile_class, shipped_names
from dpplan.profiles.schema import validate_document
from dpplan.profiles.yaml_reader import MAX_BYTES, parse_yaml

HARDWARE = """\
name: mine
gpus: 8
gpu: {bf16_flop_per_s: 989 TFLOP/s, fp8_flop_per_s: 1979 TFLOP/s, hbm_bytes: 80 GB, hbm_bytes_per_s: 3.35 TB/s, nvlink_bytes_per_s: 200 GB/s}
compute_nic: {count: 8, bytes_per_s: 400 Gbit/s}
storage_nic: {count: 1, bytes_per_s: 400 Gbit/s}
dram: {bytes: 2 TB, bytes_per_s: 500 GB/s, kv_buffer_bytes: 80 GB}
"""
WORKLOAD = """\
name: mine
model: deepseek-v3.2
turns_per_session: 157
context_tokens: 32721
append_tokens: 429
output_tokens: 176
session_tokens: 55958
"""
MODEL = """\
name: mine
model_type: llama
hidden_size: 4096
num_hidden_layers: 32
num_attention_heads: 32
num_key_value_heads: 8
intermediate_size: 14336
vocab_size: 128256
kv_dtype: fp8
weight_dtype: bf16
compute_dtype: bf16
total_parameters: 8.03e9
active_parameters: 8.03e9
"""


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert "internal error" not in captured.err
    return code, captured.out, captured.err


# (changed text, put in its place, what the message must say); the rest of the file stays right.
HARDWARE_FAULTS = {
    "bare number for a rate": ("400 Gbit/s}\nstorage", "50e9}\nstorage", r":4: compute_nic.bytes_per_s: a unit is needed.*got 5"),
    "bare number for a size": ("hbm_bytes: 80 GB", "hbm_bytes: 80", r":3: gpu.hbm_bytes: a unit is needed.*got 80"),
    "size where a rate is due": ("bytes_per_s: 500 GB/s", "bytes_per_s: 500 GB", r":6: dram.bytes_per_s: a unit of this dimension.*'500 GB'"),
    "rate where a size is due": ("bytes: 2 TB", "bytes: 2 TB/s", r":6: dram.bytes: a unit of this dimension"),
    "flops instead of FLOP/s": ("989 TFLOP/s", "989 TFLOPS", r":3: gpu.bf16_flop_per_s: .*989 TFLOP/s.*'989 TFLOPS'"),
    "bits written as b": ("count: 8, bytes_per_s: 400 Gbit/s", "count: 8, bytes_per_s: 400 Gb/s", r"compute_nic.bytes_per_s: a unit of this dimension"),
    "negative rate": ("3.35 TB/s", "-3.35 TB/s", r"hbm_bytes_per_s: a non-negative quantity"),
    "zero rate": ("3.35 TB/s", "0 TB/s", r"hbm_bytes_per_s: a quantity above zero"),
    "nan rate": ("3.35 TB/s", ".nan", r"hbm_bytes_per_s: a unit is needed"),
    "infinite rate": ("3.35 TB/s", ".inf", r"hbm_bytes_per_s: a unit is needed"),
    "infinite rate with unit": ("3.35 TB/s", "inf TB/s", r"hbm_bytes_per_s: a number and a unit"),
    "overflowing rate": ("3.35 TB/s", "1e308 TB/s", r"hbm_bytes_per_s: a finite quantity"),
    "list for a rate": ("3.35 TB/s", "[1, 2]", r"hbm_bytes_per_s: a quantity with a unit.*got a list"),
    "nothing for a rate": ("3.35 TB/s", "~", r"hbm_bytes_per_s: .*got nothing"),
    "zero GPUs": ("gpus: 8", "gpus: 0", r":2: gpus: a number of at least 1"),
    "negative GPUs": ("gpus: 8", "gpus: -8", r":2: gpus: a number of at least 1.*got -8"),
    "half a GPU": ("gpus: 8", "gpus: 7.5", r":2: gpus: a whole number.*got 7.5"),
    "GPUs as text": ("gpus: 8", "gpus: eight", r":2: gpus: a plain number is needed, got 'eight'"),
    "GPUs as truth": ("gpus: 8", "gpus: true", r":2: gpus: a plain number is needed"),
    "too many GPUs": ("gpus: 8", "gpus: 100000000000000000000000", r":2: gpus: "),
    "misspelt key": ("storage_nic:", "storage_nics:", r":5: storage_nics: a known key is needed.*did you mean storage_nic\?"),
    "misspelt inner key": ("kv_buffer_bytes", "kv_buffer", r":6: dram.kv_buffer: a known key.*did you mean kv_buffer_bytes\?"),
    "missing key": ("gpus: 8\n", "", r"gpus: this key is needed.*add it"),
    "missing section": ("compute_nic: {count: 8, bytes_per_s: 400 Gbit/s}\n", "", r"compute_nic: this key is needed"),
    "number for a section": ("storage_nic: {count: 1, bytes_per_s: 400 Gbit/s}", "storage_nic: 5", r":5: storage_nic: a mapping of keys to values is needed, got 5"),
    "efficiency above one": ("dram:", "efficiency: {gemm: 1.2}\ndram:", r":6: efficiency.gemm: a number of at most 1.*got 1.2"),
    "efficiency of zero": ("dram:", "efficiency: {gemm: 0}\ndram:", r"efficiency.gemm: a number above 0"),
    "efficiency nan": ("dram:", "efficiency: {gemm: .nan}\ndram:", r"efficiency.gemm: "),
    "headroom of everything": ("dram:", "headroom: {hbm: 1}\ndram:", r"headroom.hbm: a number below 1"),
    "negative headroom": ("dram:", "headroom: {hbm: -0.1}\ndram:", r"headroom.hbm: a number of at least 0"),
    "unknown source kind": ("dram:", "sources: {gpu: {kind: rumour, reference: x}}\ndram:", r"sources.gpu.kind: one of .*got 'rumour'"),
    "bad name": ("name: mine", "name: ../../etc/passwd", r":1: name: a name of letters"),
    "empty name": ("name: mine", "name: ''", r":1: name: text that is not empty"),
    "name a list": ("name: mine", "name: [a]", r":1: name: text is needed, got a list"),
    "duplicate key": ("gpus: 8", "gpus: 8\ngpus: 4", r":3: gpus: a key once is needed, got it twice \(first on line 2\)"),
    "anchor": ("gpus: 8", "gpus: &n 8", r":2: plain values are needed, got a YAML anchor"),
    "tag": ("gpus: 8", "gpus: !!python/object/apply:os.system ['true']", r":2: plain values are needed, got the YAML tag"),
    "broken YAML": ("gpus: 8", "gpus: [8", r"valid YAML is needed"),
    "tab indentation": ("gpus: 8", "gpus:\n\t- 8", r":3: valid YAML is needed"),
    "two documents": ("gpus: 8", "---\ngpus: 8", r"one YAML document is needed, got a second one"),
    "control character": ("gpus: 8", "gpus: \x07", r":2: plain text is needed, got the control character U\+0007"),
}  # fmt: skip

WORKLOAD_FAULTS = {
    "negative tokens": ("append_tokens: 429", "append_tokens: -1", r":5: append_tokens: a number above 0.*got -1"),
    "zero append": ("append_tokens: 429", "append_tokens: 0", r"append_tokens: a number above 0"),
    "nan tokens": ("append_tokens: 429", "append_tokens: .nan", r"append_tokens: "),
    "infinite tokens": ("context_tokens: 32721", "context_tokens: .inf", r"context_tokens: "),
    "tokens with unit": ("context_tokens: 32721", "context_tokens: 32 k", r"context_tokens: a plain number is needed, got '32 k'"),
    "bare TPOT": ("name: mine", "name: mine\nslo: {tpot: 50}", r":2: slo.tpot: a unit is needed, such as 50 ms"),
    "negative TTFT": ("name: mine", "name: mine\nslo: {ttft: -1 s}", r"slo.ttft: a non-negative quantity"),
    "unknown SLO": ("name: mine", "name: mine\nslo: {itl: 5 ms}", r"slo.itl: a known key is needed.*choose from tpot, ttft"),
    "misspelt key": ("context_tokens", "contxt_tokens", r"contxt_tokens: a known key is needed.*did you mean context_tokens\?"),
    "fractions that fall": ("name: mine", "name: mine\ndistributions: {quantile_fractions: [0, 0.6, 0.5, 1]}", r":2: distributions.quantile_fractions.2: fractions that rise are needed, got 0.5"),
    "fractions of a part": ("name: mine", "name: mine\ndistributions: {quantile_fractions: [0.1, 0.9]}", r"quantile_fractions.1: 1 as the last fraction is needed, got 0.9"),
    "no fractions": ("name: mine", "name: mine\ndistributions: {per_session: {turns: [1, 2]}}", r"distributions.quantile_fractions: this key is needed"),
    "one fraction": ("name: mine", "name: mine\ndistributions: {quantile_fractions: [0]}", r"quantile_fractions: at least 2 entries"),
    "quantiles that fall": ("name: mine", "name: mine\ndistributions: {quantile_fractions: [0, 1], per_turn: {tool_gap_s: [2, 1]}}", r"per_turn.tool_gap_s.1: quantiles that never fall are needed, got 1"),
    "quantiles too few": ("name: mine", "name: mine\ndistributions: {quantile_fractions: [0, 0.5, 1], per_turn: {append_tokens: [2, 3]}, per_session: {turns: [1, 2]}}", r"append_tokens: 3 entries, as quantile_fractions has, are needed, got 2"),
    "sessions of no turn": ("name: mine", "name: mine\ndistributions: {quantile_fractions: [0, 1], per_session: {turns: [0, 2]}}", r"per_session.turns.0: a number above 0"),
    "quantiles without end": ("name: mine", "name: mine\ndistributions: {quantile_fractions: [0, 1], per_turn: {output_tokens: [0, .inf]}}", r"per_turn.output_tokens.1: "),
    "quantiles of another key": ("name: mine", "name: mine\ndistributions: {quantile_fractions: [0, 1], per_turn: {turns: [1, 2]}}", r"per_turn.turns: a known key is needed"),
    "model a number": ("model: deepseek-v3.2", "model: 7", r":2: model: text is needed, got 7"),
    "unknown model": ("model: deepseek-v3.2", "model: deepseek-v3.3", r"model 'deepseek-v3.3': a model profile.*did you mean deepseek-v3.2\?"),
}  # fmt: skip

MODEL_FAULTS = {
    "unknown dtype": ("kv_dtype: fp8", "kv_dtype: fp7", r"kv_dtype: one of .*got 'fp7'"),
    "unknown family": ("model_type: llama", "model_type: lama", r"model_type: "),
    "text for a count": ("hidden_size: 4096", "hidden_size: big", r"hidden_size: a whole number is needed, got 'big'"),
    "negative count": ("hidden_size: 4096", "hidden_size: -4096", r"hidden_size: "),
    "unknown key": ("hidden_size: 4096", "hidden_sise: 4096", r"hidden_sise: a known key is needed.*did you mean hidden_size\?"),
    "absurd layers": ("num_hidden_layers: 32", "num_hidden_layers: 1000000000000", r"num_hidden_layers: "),
    "field of another family": ("hidden_size: 4096", "hidden_size: 4096\nkv_lora_rank: 512", r"kv_lora_rank: "),
    "wrong parameter count": ("total_parameters: 8.03e9", "total_parameters: 8.03", r"total_parameters: a count near 8.03e\+09"),
    "more active than total": ("active_parameters: 8.03e9", "active_parameters: 9e9", r"active_parameters: "),
}  # fmt: skip


def _cases() -> list[object]:
    tables = {"hardware": HARDWARE_FAULTS, "workload": WORKLOAD_FAULTS, "model": MODEL_FAULTS}
    return [
        pytest.param(kind, *case, id=f"{kind}: {name}")
        for kind, table in tables.items()
        for name, case in table.items()
    ]


@pytest.mark.parametrize(("kind", "right", "wrong", "message"), _cases())
def test_one_message_names_file_line_and_key(
    kind: str,
    right: str,
    wrong: str,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    good = {"hardware": HARDWARE, "workload": WORKLOAD, "model": MODEL}[kind]
    assert right in good
    path = tmp_path / "mine.yaml"
    path.write_text(good.replace(right, wrong, 1), encoding="utf-8")
    option = {"hardware": "--hw", "workload": "--workload", "model": "--model"}[kind]
    arguments = {"--hw": "h800", "--workload": "agentic"} | {option: str(path)}
    code, out, err = run(capsys, "optimize", *[text for pair in arguments.items() for text in pair])
    assert code == 2
    assert out == ""
    matching = [line for line in err.splitlines() if re.search(message, line)]
    assert len(matching) == 1, err
    # A missing key and the misspelt one that stands for it are two faults; nothing else is.
    assert len(err.splitlines()) <= 2, err
    assert all(line.startswith("dpplan: ") for line in err.splitlines())


def test_right_profiles_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The corpus is wrong by its faults alone."""
    paths = {}
    for kind, text in (("hw", HARDWARE), ("workload", WORKLOAD), ("model", MODEL)):
        paths[kind] = tmp_path / f"{kind}.yaml"
        paths[kind].write_text(text, encoding="utf-8")
    options = [f"--{kind}={path}" for kind, path in paths.items()]
    assert run(capsys, "optimize", *options)[0] == 0


def test_all_faults_of_all_files_come_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hardware, workload = tmp_path / "h.yaml", tmp_path / "w.yaml"
    hardware.write_text(HARDWARE.replace("80 GB,", "80,").replace("gpus: 8", "gpus: 0"))
    workload.write_text(WORKLOAD.replace("429", "-429"))
    code, _, err = run(
        capsys,
        *("optimize", "--hw", str(hardware), "--workload", str(workload)),
        *("--nodes", "0", "--unlimited", "gpu", "--set", "storage_nic.cout=2"),
    )
    assert code == 2
    for part in (
        "h.yaml:3: gpu.hbm_bytes",
        "h.yaml:2: gpus",
        "w.yaml:5: append_tokens",
        "--nodes",
        "--unlimited",
        "--set storage_nic.cout",
    ):
        assert part in err, err
    assert len(err.splitlines()) == 6


LINES = {
    "unknown command": (["optimise"], 2, r"did you mean optimize\?"),
    "unknown option": (["optimize", "--hw", "h800", "--node", "6"], 2, r"--node.*did you mean --nodes\?"),
    "no hardware": (["optimize"], 2, r"hardware"),
    "unknown hardware": (["optimize", "--hw", "h80"], 2, r"hardware 'h80'.*did you mean"),
    "missing path": (["optimize", "--hw", "./nowhere/h800.yaml"], 2, r"no such file"),
    "unknown workload": (["optimize", "--hw", "h800", "--workload", "agentik"], 2, r"did you mean agentic\?"),
    "zero nodes": (["optimize", "--hw", "h800", "--nodes", "0"], 2, r"--nodes.*0"),
    "negative nodes": (["optimize", "--hw", "h800", "--prefill-nodes", "-1", "--decode-nodes", "1"], 2, r"--prefill-nodes.*-1"),
    "half a node": (["optimize", "--hw", "h800", "--nodes", "6.5"], 2, r"--nodes.*6.5"),
    "nodes as text": (["optimize", "--hw", "h800", "--nodes", "six"], 2, r"--nodes.*six"),
    "absurd nodes": (["optimize", "--hw", "h800", "--nodes", "1" + "0" * 400], 2, r"--nodes"),
    "contradicting nodes": (["optimize", "--hw", "h800", "--nodes", "6", "--prefill-nodes", "2", "--decode-nodes", "2"], 2, r"--nodes.*2 \+ 2"),
    "all nodes prefill": (["optimize", "--hw", "h800", "--nodes", "6", "--prefill-nodes", "6"], 2, r"--prefill-nodes"),
    "unknown resource": (["optimize", "--hw", "h800", "--unlimited", "prefill.storage_nic"], 2, r"--unlimited.*did you mean prefill.storage_nic_"),
    "unknown traffic": (["optimize", "--hw", "h800", "--traffic", "half"], 2, r"--traffic.*half"),
    "unknown format": (["optimize", "--hw", "h800", "--format", "xml"], 2, r"--format.*xml"),
    "set without value": (["optimize", "--hw", "h800", "--set", "storage_nic.count"], 2, r"--set.*key.path=value"),
    "set of an unknown key": (["optimize", "--hw", "h800", "--set", "storage_nic.cuont=2"], 2, r"did you mean storage_nic.count\?"),
    "set of an ambiguous key": (["optimize", "--hw", "h800", "--set", "name=x"], 2, r"--set name.*exactly one.*hardware.name, model.name, workload.name"),
    "set of a wrong value": (["optimize", "--hw", "h800", "--set", "storage_nic.count=two"], 2, r"--set storage_nic.count: .*'two'"),
    "set without unit": (["optimize", "--hw", "h800", "--set", "dram.bytes_per_s=500"], 2, r"--set dram.bytes_per_s: a unit is needed"),
    "set of broken YAML": (["optimize", "--hw", "h800", "--set", "storage_nic.count=[1"], 2, r"--set storage_nic.count.*valid YAML"),
    "stray argument": (["optimize", "h800"], 2, r"h800"),
    "show unknown": (["show", "nothing-of-that-name"], 2, r"nothing-of-that-name"),
    "list unknown kind": (["list", "gpus"], 2, r"gpus"),
    "schema unknown kind": (["schema", "gpu"], 2, r"gpu"),
    "import missing file": (["import-model", "nowhere.json"], 2, r"nowhere.json"),
    "no multiple of the engine": (["optimize", "--hw", "h800", "--prefill-nodes", "1", "--decode-nodes", "1"], 3, r"1 prefill node .*engine group of 2 nodes.*missing"),
    "too few nodes": (["optimize", "--hw", "h800", "--nodes", "3"], 3, r"3 nodes hold no .*missing"),
    "TPOT out of reach": (["optimize", "--hw", "h800", "--set", "slo.tpot=1 us"], 3, r"TPOT 0.001 ms"),
    "model out of reach": (["optimize", "--hw", "h800", "--set", "gpu.hbm_bytes=1 MB"], 3, r"missing"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "message"), LINES.values(), ids=LINES)
def test_command_lines(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found, out, err = run(capsys, *arguments)
    assert found == code, err
    assert out == ""
    assert re.search(message, err), err
    assert len(err.splitlines()) == 1, err


def _refused(capsys: pytest.CaptureFixture[str], path: Path, message: str) -> None:
    for option, other in (("--hw", ["--workload", "agentic"]), ("--workload", ["--hw", "h800"])):
        code, out, err = run(capsys, "optimize", option, str(path), *other)
        assert (code, out) == (2, "")
        assert re.search(message, err), err
        assert len(err) < 2000


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "a mapping of keys to values is needed, got nothing"),
        (b"# only a comment\n", "got nothing"),
        (b"- a\n- b\n", "got a list"),
        (b"just text\n", "got 'just text'"),
        (b"\xef\xbb\xbfname: x\n", "a byte-order mark; save the file as UTF-8"),
        ("name: x\n".encode("utf-16"), "a byte-order mark"),
        ("name: größe\n".encode("latin-1"), ":1: UTF-8 text is needed, got byte 0x"),
        (b"\x00\x01\x02\x03" * 64, "plain text is needed, got the control character"),
        (bytes(range(200, 256)) + b"\xff\xfe\x00", "is needed"),
        (b"a: " + b"[" * 5000, "levels of nesting"),
        (b"a: " + b"{a: " * 5000, "levels of nesting"),
        (b"\n".join(b"- %d" % i for i in range(100_000)), "at most 50000 values"),
        (b"a: &a [x]\nb: [*a, *a]\n", "got a YAML anchor"),
        (b"x: " + b"9" * 100_000, "is needed"),
        (b"k" * 200_000 + b": 1", "is needed"),
    ],
    ids=lambda value: repr(value[:12]) if isinstance(value, bytes) else None,
)
def test_hostile_files(
    data: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "hostile.yaml"
    path.write_bytes(data)
    _refused(capsys, path, message)


def test_anchor_bomb_is_refused_at_its_first_anchor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(lines))
    _refused(capsys, path, "bomb.yaml:1: plain values are needed, got a YAML anchor")


def test_hundred_megabytes_are_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "huge.yaml"
    with path.open("wb") as stream:
        stream.truncate(100 << 20)
    _refused(capsys, path, r"at most 1 MiB is read, got 100.0 MiB")


def test_folder_and_pipe_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "folder.yaml"
    folder.mkdir()
    _refused(capsys, folder, "is needed")
    if hasattr(os, "mkfifo"):
        pipe = tmp_path / "pipe.yaml"
        os.mkfifo(pipe)
        _refused(capsys, pipe, "a regular file is needed")


def test_unreadable_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "secret.yaml"
    path.write_text(HARDWARE)
    real = os.open

    def refusing(name: str | Path, *arguments: int) -> int:
        # Root may read any file, so the refusal itself is played.
        if str(name) == str(path):
            raise PermissionError(13, "Permission denied")
        return real(name, *arguments)

    monkeypatch.setattr(os, "open", refusing)
    _refused(capsys, path, "a readable file is needed, got permission denied; check the path")


def _mix(parts: str) -> str:
    return f"name: loop\nmix: [{parts}]\n"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"loop": _mix("{workload: loop, weight: 1}")}, "loop -> loop"),
        (
            {
                "loop": _mix("{workload: other, weight: 1}"),
                "other": "name: other\nmix: [{workload: loop, weight: 1}]\n",
            },
            "loop -> other -> loop",
        ),
        ({"loop": _mix("{workload: agentic, weight: 0}")}, r"mix.0.weight: a number above 0"),
        ({"loop": _mix("{workload: agentic, weight: -1}")}, r"mix.0.weight: a number above 0"),
        ({"loop": _mix("{workload: nobody, weight: 1}")}, r"'nobody'"),
        ({"loop": _mix("")}, r"mix: at least 1 entr"),
        ({"loop": _mix("{workload: agentic}")}, r"mix.0.weight: this key is needed"),
        (
            {"loop": _mix("{workload: chat, weight: 1}, {workload: chat, weight: 1}")},
            "each workload once is needed.*chat",
        ),
    ],
    ids=["itself", "round trip", "zero", "negative", "unknown", "empty", "no weight", "twice"],
)
def test_mixes(
    files: dict[str, str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "workloads").mkdir()
    for name, text in files.items():
        (tmp_path / "workloads" / f"{name}.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, "optimize", "--hw", "h800", "--workload", "loop")
    assert (code, out) == (2, "")
    assert re.search(message, err), err


# --- fuzz ----------------------------------------------------------------------------------------

_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["80 GB", "400 Gbit/s", "-1 GB", "1e400 B", "50 ms", "unlimited", "fp8", "~"]),
)
_values = st.recursive(
    _scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=8,
)


def _shipped(kind: str, name: str) -> dict[str, object]:
    from dpplan.profiles.library import find

    value = yaml.safe_load(find(kind, name).read_text(encoding="utf-8"))  # type: ignore[arg-type]
    assert isinstance(value, dict)
    return value


_relaxed = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@_relaxed
@given(st.data())
def test_fuzzed_profiles_end_in_a_profile_or_a_message(data: st.DataObject) -> None:
    """A shipped profile with one value put anywhere: read, or refused; never a traceback."""
    kind = data.draw(st.sampled_from(KINDS))
    value = _shipped(kind, data.draw(st.sampled_from(shipped_names(kind))))
    node: dict[str, object] = value
    while True:
        key = data.draw(st.sampled_from([*sorted(node), "new"]))
        inner = node.get(key)
        if not isinstance(inner, dict) or not inner or data.draw(st.booleans()):
            break
        node = inner
    node[key] = data.draw(_values)
    text = yaml.safe_dump(value, allow_unicode=True)
    try:
        document = parse_yaml(text.encode("utf-8", "surrogatepass"), "fuzz.yaml")
        validate_document(document, profile_class(kind, document.value))
    except BadInput as error:
        assert error.faults
        for fault in error.faults:
            assert "\n" not in str(fault)
            assert len(str(fault)) < 3000


@_relaxed
@given(
    st.one_of(
        st.binary(max_size=300), st.text(max_size=300).map(lambda t: t.encode("utf-8", "replace"))
    )
)
def test_fuzzed_bytes_end_in_a_value_or_a_message(data: bytes) -> None:
    try:
        parse_yaml(data, "fuzz.yaml")
    except BadInput as error:
        assert str(error).startswith("fuzz.yaml")


@_relaxed
@given(
    st.lists(
        st.sampled_from(
            [
                "{",
                "}",
                "[",
                "]",
                ",",
                ":",
                "-",
                "?",
                "&",
                "*",
                "!",
                "|",
                ">",
                "'",
                '"',
                "%",
                "@",
                "`",
                "#",
                "\n\n",
                "a",
                "b",
                "1",
                ".inf",
                "0x1",
                "---",
                "...",
                "<<",
                "=",
                "\n",
                "  ",
                "\t",
                "\u2028",
                "é",
            ]
        ),
        max_size=40,
    ).map("".join)
)
def test_fuzzed_yaml_syntax(text: str) -> None:
    try:
        parse_yaml(text.encode(), "fuzz.yaml")
    except BadInput as error:
        assert str(error).startswith("fuzz.yaml")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    pairs=st.lists(
        st.tuples(
            st.sampled_from(
                ["storage_nic.count", "gpu.hbm_bytes", "context_tokens", "kv_dtype", "slo.tpot",
                 "efficiency.gemm", "parallelism.decode.ep", "num_hidden_layers", "name", "x.y"]
            ),
            st.one_of(_scalars.map(str), st.text(max_size=10)),
        ),
        max_size=3,
    )
)  # fmt: skip
def test_fuzzed_settings_end_in_a_plan_or_a_message(
    pairs: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    options = [f"--set={key}={value}" for key, value in pairs]
    code, _, err = run(capsys, "optimize", "--hw", "h800", "--format", "json", *options)
    assert code in (0, 2, 3), err


def test_size_limit_is_a_megabyte() -> None:
    assert MAX_BYTES == 1 << 20
