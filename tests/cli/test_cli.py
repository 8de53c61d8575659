"""The command line as a user meets it: output, messages and exit codes of every command."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml

import dpplan
from dpplan import __version__
from dpplan.cli import main
from dpplan.cli.commands import optimize as optimize_command
from dpplan.profiles.library import find

BASE = ("--hw", "h800.yaml", "--workload", "agentic.yaml")
COMMANDS = ("optimize", "explain", "calibrate", "list", "show", "schema", "import-model")
LIFTED = [
    text
    for side in ("prefill", "decode")
    for kind in ("gpu", "hbm", "kv_buffer")
    for text in ("--unlimited", f"{side}.{kind}")
]
TINY = {
    "model_type": "llama",
    "hidden_size": 8,
    "vocab_size": 10,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 16,
    "torch_dtype": "bfloat16",
}


Done = subprocess.CompletedProcess[str]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run in an empty folder, with the package found as this process finds it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(dpplan.__file__).parents[1]))
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "PYTHONIOENCODING", "DPPLAN_TRACEBACK"):
        monkeypatch.delenv(name, raising=False)


def run(*arguments: str, encoding: str = "utf-8", **environment: str) -> Done:
    """The command line in this process, on streams of its own."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="") for _ in range(2)]
    with (
        mock.patch.dict(os.environ, environment),
        mock.patch.object(sys, "stdout", streams[0]),
        mock.patch.object(sys, "stderr", streams[1]),
    ):
        code = main(arguments)
    said = []
    for stream in streams:
        stream.flush()
        assert isinstance(stream.buffer, io.BytesIO)
        said.append(stream.buffer.getvalue().decode(encoding))
    return Done(arguments, code, *said)


def process(*arguments: str, **environment: str) -> Done:
    """The command line as a process: what solvers write past Python shows too."""
    return subprocess.run(
        [sys.executable, "-m", "dpplan", *arguments],
        capture_output=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONIOENCODING": "utf-8"} | environment,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )


def answer(*arguments: str) -> Any:
    """The JSON of a run that succeeds in silence; NaN and Infinity are refused."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} in JSON")

    done = run(*arguments, "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout, parse_constant=refuse)


def complaint(code: int, *arguments: str) -> list[str]:
    """The messages of a run that fails with `code` and says nothing on stdout."""
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (code, ""), done
    lines = done.stderr.splitlines()
    assert lines
    assert all(line.startswith("dpplan: ") for line in lines), done.stderr
    return [line.removeprefix("dpplan: ") for line in lines]


# The contract of `optimize --format json`.


def test_json_has_the_fixed_keys() -> None:
    document = answer("optimize", *BASE)
    assert document["schema"] == "dpplan.optimize/1"
    inputs = {
        "hardware": "h800",
        "model": "deepseek-v3.2",
        "workload": "agentic",
        "prefill_nodes": 2,
        "decode_nodes": 4,
    }
    assert inputs.items() <= document["inputs"].items()
    assert set(document["demand"]) >= {
        "kv_bytes_per_token",
        "hit_kv_bytes_per_turn",
        "prefill_flop_per_turn",
        "hit_rate_fraction",
        "cache_compute_ratio_gb_per_pflop",
    }
    assert set(document["strategies"]) == {"prefill-only", "dual-path", "oracle"}
    for result in document["strategies"].values():
        assert set(result) >= {
            "decode_read_fraction",
            "turns_per_s",
            "sessions_per_s",
            "hit_kv_bytes_per_s",
            "prompt_tokens_per_s",
            "output_tokens_per_s",
            "bottlenecks",
            "utilisation",
            "shadow_prices",
        }
        assert result["bottlenecks"]
        assert math.isclose(sum(result["shadow_prices"].values()), 1)
        assert set(result["shadow_prices"]) <= set(result["bottlenecks"])
    rates = {name: result["turns_per_s"] for name, result in document["strategies"].items()}
    assert math.isclose(document["speedup"], rates["dual-path"] / rates["prefill-only"])
    assert set(document["bottleneck_free"]) >= {
        "p_over_d_min",
        "p_over_d_max",
        "p_over_d",
        "holds",
    }
    assert document["bottleneck_free"]["holds"] is True
    assert document["assumptions"]


def test_paper_counting_gives_the_papers_numbers() -> None:
    document = answer("optimize", *BASE, "--traffic", "paper", *LIFTED)
    assert math.isclose(document["speedup"], 3)
    assert math.isclose(document["strategies"]["dual-path"]["hit_kv_bytes_per_s"], 300e9)
    span = document["bottleneck_free"]
    assert math.isclose(span["p_over_d_min"], 1 / 7)
    assert math.isclose(span["p_over_d_max"], 7 / 2)


def test_what_nothing_binds_is_an_answer() -> None:
    document = answer("optimize", *BASE, "--traffic", "paper", *LIFTED)
    oracle = document["strategies"]["oracle"]
    assert oracle["turns_per_s"] is None
    assert oracle["bottlenecks"] == []
    assert oracle["shadow_prices"] == {}
    everything = [
        text
        for side in ("prefill", "decode")
        for kind in ("storage_nic_read", "storage_nic_write", "compute_nic_read")
        for text in ("--unlimited", f"{side}.{kind}")
    ] + [
        text
        for side in ("prefill", "decode")
        for kind in ("compute_nic_write", "dram")
        for text in ("--unlimited", f"{side}.{kind}")
    ]
    for format in ("table", "csv", "markdown", "json"):
        done = run("optimize", *BASE, *LIFTED, *everything, "--format", format)
        assert (done.returncode, done.stderr) == (0, ""), format
    assert "nothing limits it" in run("optimize", *BASE, *LIFTED, *everything).stdout


def test_options_reach_the_planner() -> None:
    document = answer(
        "optimize",
        *("--prefill-hw", "h20", "--decode-hw", "h200", "--workload", "chat"),
        *("--model", "llama-3.1-70b", "--prefill-nodes", "3", "--decode-nodes", "2"),
        *("--set", "output_tokens=100", "--set", "prefill_hardware.storage_nic.count=2"),
    )
    inputs = document["inputs"]
    assert (inputs["prefill_hardware"], inputs["decode_hardware"]) == ("h20", "h200")
    assert (inputs["model"], inputs["workload"]) == ("llama-3.1-70b", "chat")
    assert (inputs["prefill_nodes"], inputs["decode_nodes"]) == (3, 2)
    assert inputs["set"] == ["output_tokens=100", "prefill_hardware.storage_nic.count=2"]
    total = answer("optimize", *BASE, "--nodes", "8")["inputs"]
    assert total["prefill_nodes"] + total["decode_nodes"] == 8


def test_a_mix_is_answered_in_every_format() -> None:
    for format in ("table", "json", "csv", "markdown"):
        done = run("optimize", "--hw", "h800", "--workload", "mix", "--format", format)
        assert (done.returncode, done.stderr) == (0, "")


def test_warnings_leave_stdout_alone() -> None:
    arguments = ("optimize", *BASE, "--set", "session_tokens=100")
    done = run(*arguments, "--format", "json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["warnings"]
    assert done.stderr.startswith("dpplan: warning: ")
    assert "WARNINGS" in run(*arguments).stdout


# Infeasible and wrong.


def test_infeasible_is_a_document_too() -> None:
    arguments = ("optimize", *BASE, "--prefill-nodes", "3", "--decode-nodes", "4")
    done = run(*arguments, "--format", "json")
    assert done.returncode == 3
    document = json.loads(done.stdout)
    assert document["schema"] == "dpplan.optimize/1"
    assert "engine group of 2 nodes" in document["infeasible"]["reason"]
    assert document["infeasible"]["limits"] == ["prefill.hbm"]
    for format in ("table", "csv", "markdown"):
        (line,) = complaint(3, *arguments, "--format", format)
        assert line.startswith("infeasible: 3 prefill nodes")
        assert line.endswith("(limits: prefill.hbm)")
    explained = run("explain", *arguments[1:], "--format", "json")
    assert explained.returncode == 3
    assert json.loads(explained.stdout)["schema"] == "dpplan.explain/1"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("optimise",), "command: a command is needed, got 'optimise'; did you mean optimize?"),
        (("optimize", "--hww", "x"), "did you mean --hw?"),
        (("optimize", "--hw"), "--hw: a value is needed, got none"),
        (("optimize",), "hardware: a hardware profile is needed, got none; give --hw"),
        (("optimize", "--hw", "h80"), "did you mean h800?"),
        (("optimize", "--hw", ""), "hardware"),
        (("optimize", "--nodes", "six"), "--nodes: a whole number is needed, got 'six'"),
        (("optimize", *BASE, "--nodes", "1"), "--nodes: a node count from 2"),
        (("optimize", *BASE, "--nodes", "9" * 400), "--nodes: a whole number is needed"),
        (("optimize", *BASE, "--format", "jsn"), "--format: one of table, json, csv, markdown"),
        (("optimize", *BASE, "--traffic", "ful"), "--traffic: full or paper is needed"),
        (("optimize", *BASE, "--unlimited", "prefill.gpus"), "did you mean prefill.gpu?"),
        (("optimize", *BASE, "--set", "append"), "--set: key.path=value is needed"),
        (("optimize", *BASE, "--set", "gpu.hbm_bytes=80"), "a unit is needed"),
        (("optimize", *BASE, "extra"), "unexpected extra argument"),
        (("explain", "--nope"), "--nope: an option of `dpplan explain` is needed"),
        (("list", "hardwares"), "kind: one of hardware, models, workloads, calibrations is needed"),
        (("list", "--format", "xml"), "--format: one of"),
        (("show",), "NAME: a value is needed, got none"),
        (("show", "h8000"), "did you mean h800?"),
        (
            ("show", "h800", "--kind", "gpu"),
            "--kind: one of hardware, model, workload, calibration",
        ),
        (("schema", "gpu"), "kind: one of hardware, model, workload, calibration is needed"),
        (("import-model", "none.json"), "none.json: a readable file is needed"),
    ],
)
def test_bad_input_is_named(arguments: tuple[str, ...], expected: str) -> None:
    (line,) = complaint(2, *arguments)
    assert expected in line


def test_all_faults_come_at_once() -> None:
    lines = complaint(
        2,
        *("optimize", "--hw", "h80", "--workload", "chatt", "--unlimited", "x"),
        *("--traffic", "y", "--format", "z", "--set", "foo=1"),
    )
    starts = ("--format", "--traffic", "--unlimited", "hardware 'h80'", "workload 'chatt'", "--set")
    for start in starts:
        assert any(line.startswith(start) for line in lines), (start, lines)


def test_messages_carry_no_control_characters() -> None:
    (line,) = complaint(2, "show", "\x1b[31mred\x07")
    assert line.isprintable()


# The table.


@pytest.mark.parametrize("width", [24, 60, 80, 100, 250])
@pytest.mark.parametrize(
    "arguments",
    [
        ("optimize", *BASE, "--nodes", "60"),
        ("explain", *BASE),
        ("list",),
        ("show", "h800"),
        ("show", "kimi-k3"),
        ("show", "h800-dualpath"),
    ],
)
def test_tables_fit_the_screen(arguments: tuple[str, ...], width: int) -> None:
    done = run(*arguments, COLUMNS=str(width))
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= min(width, 100)
    assert "\x1b" not in done.stdout
    assert not any(line != line.rstrip() for line in done.stdout.splitlines())


def test_the_table_says_what_matters_first() -> None:
    done = run("optimize", *BASE)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("deepseek-v3.2 on 2P4D h800, agentic: ")
    assert lines[0].endswith(("bind", "binds"))
    assert "x prefill-only; " in lines[0]
    for title in (
        "STRATEGIES",
        "WHAT BINDS",
        "TO RAISE THE DUAL-PATH BOUND",
        "UTILISATION",
        "WHAT CAPACITY IS WORTH",
        "BOTTLENECK-FREE P/D",
        "P:D OF 6 NODES",
        "ENGINES",
        "ASSUMPTIONS",
    ):
        assert any(line.startswith(title) for line in lines), title
    assert "x as much gives up to" in done.stdout


def test_long_tables_of_nodes_are_shortened_around_the_best() -> None:
    done = run("optimize", *BASE, "--nodes", "90", "--traffic", "paper", *LIFTED)
    rows = [line for line in done.stdout.splitlines() if "P" in line and "D  " in line[:12]]
    assert 5 < len(rows) <= 12
    assert len([line for line in rows if line.startswith("> ")]) == 1
    assert "12 of 89 P:D shown" in done.stdout


def test_colour_only_where_it_is_wanted() -> None:
    assert "\x1b[1m" in run("optimize", *BASE, FORCE_COLOR="1").stdout
    assert "\x1b" not in run("optimize", *BASE, FORCE_COLOR="1", NO_COLOR="1").stdout
    assert "\x1b" not in run("optimize", *BASE, "--format", "markdown", FORCE_COLOR="1").stdout


def test_ascii_where_the_output_has_nothing_else() -> None:
    done = run("optimize", *BASE, encoding="ascii")
    assert done.returncode == 0
    assert done.stdout.isascii()
    assert "####" in done.stdout


# Other formats.


def test_csv_is_one_tidy_table() -> None:
    done = run("optimize", *BASE, "--format", "csv")
    assert (done.returncode, done.stderr) == (0, "")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert list(rows[0]) == ["section", "strategy", "item", "quantity", "value", "unit"]
    document = answer("optimize", *BASE)
    found = {(r["section"], r["strategy"], r["item"], r["quantity"]): r for r in rows}
    assert len(found) == len(rows)
    for name, result in document["strategies"].items():
        row = found["strategy", name, "", "turns_per_s"]
        assert (float(row["value"]), row["unit"]) == (result["turns_per_s"], "turns/s")
        for resource, share in result["utilisation"].items():
            row = found["utilisation", name, resource, "utilisation"]
            assert float(row["value"]) == share


def test_csv_text_is_no_formula(tmp_path: Path) -> None:
    shown = yaml.safe_load((_shipped() / "workloads" / "chat.yaml").read_text())
    shown["description"] = "=cmd|' /C calc'!A0"
    shown["sources"] = {"default": {"kind": "assumed", "reference": '@SUM(1), "quoted"'}}
    (tmp_path / "workloads").mkdir()
    (tmp_path / "workloads" / "evil.yaml").write_text(yaml.safe_dump(shown))
    for arguments in (("list", "workloads"), ("optimize", "--hw", "h800", "--workload", "evil")):
        done = run(*arguments, "--format", "csv")
        assert done.returncode == 0, done.stderr
        for row in csv.reader(io.StringIO(done.stdout)):
            assert not any(cell.startswith(("=", "@", "+")) for cell in row), row


def test_markdown_is_a_table_for_a_pull_request() -> None:
    done = run("optimize", *BASE, "--format", "markdown")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("**deepseek-v3.2 on 2P4D h800")
    assert "| **turns/s** |" in done.stdout
    columns = 0
    for line in lines:
        width = line.replace("\\|", "").count("|") if line.startswith("|") else 0
        assert columns == 0 or width in (0, columns), line
        columns = width


def _shipped() -> Path:
    return find("hardware", "h800").parent.parent


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    profile = yaml.safe_load((_shipped() / "workloads" / "agentic.yaml").read_text())
    profile["description"] = "[red]a|b[/red] <script> \u202e reversed @everyone"
    profile["sources"] = {"default": {"kind": "assumed", "reference": "x | y `z` \u200b\u2028end"}}
    path = tmp_path / "hostile.yaml"
    path.write_text(yaml.safe_dump(profile, allow_unicode=False))
    shown = run("show", "./hostile.yaml")
    assert "[red]a|b[/red] <script>" in shown.stdout
    assert not {"\u202e", "\u200b", "\u2028"} & set(shown.stdout)
    done = run("optimize", "--hw", "h800", "--workload", "./hostile.yaml", "--format", "markdown")
    assert r"x \| y \`z\`" in done.stdout
    marked = run("show", "./hostile.yaml", "--format", "markdown").stdout
    assert r"\<script>" in marked
    assert "@everyone" not in marked


# Explain.


def test_explain_shows_every_term_in_every_format() -> None:
    document = answer("explain", *BASE)
    assert document["schema"] == "dpplan.explain/1"
    terms = document["terms"]
    assert {"D1", "D2", "S2"} <= {term["tag"] for term in terms}
    keys = {"tag", "name", "equation", "numbers", "value", "unit", "source"}
    assert all(set(term) == keys for term in terms)
    done = run("explain", *BASE, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["name"] for row in rows] == [term["name"] for term in terms]
    for format in ("table", "markdown"):
        shown = run("explain", *BASE, "--format", format)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert "Capacity" in shown.stdout or "CAPACITY" in shown.stdout


# Notebooks.


def test_a_plan_is_html_without_anything_of_its_text() -> None:
    plan = dpplan.optimize("h800", "agentic", prefill_nodes=2, decode_nodes=4)
    evil = dataclasses.replace(plan, workload="<script>", assumptions=("<b>&",))
    shown = evil._repr_html_()
    assert "<script>" not in shown
    assert "&lt;b&gt;&amp;" in shown
    xml.etree.ElementTree.fromstring(f"<div>{shown.replace('&ndash;', '-')}</div>")


# Profiles.


def test_list_groups_all_kinds() -> None:
    shown = run("list").stdout
    assert shown.index("HARDWARE") < shown.index("MODELS") < shown.index("WORKLOADS")
    profiles = answer("list")["profiles"]
    assert {"h800", "deepseek-v3.2", "agentic"} <= {item["name"] for item in profiles}
    assert all(item["description"] for item in profiles)
    assert {item["kind"] for item in answer("list", "models")["profiles"]} == {"models"}
    assert "| h800 |" in run("list", "hardware", "--format", "markdown").stdout


def test_list_names_profiles_of_the_folder_even_broken_ones(tmp_path: Path) -> None:
    (tmp_path / "hardware").mkdir()
    (tmp_path / "hardware" / "mine.yaml").write_text("name: [")
    done = run("list", "hardware", "--format", "json")
    (mine,) = (p for p in json.loads(done.stdout)["profiles"] if p["name"] == "mine")
    assert mine["where"] == os.path.join("hardware", "mine.yaml")
    assert "cannot be read" in mine["description"]


def test_show_gives_every_number_its_unit_and_source() -> None:
    document = answer("show", "h800")
    assert (document["kind"], document["name"]) == ("hardware", "h800")
    values = {item["key"]: item for item in document["values"]}
    nic = values["storage_nic.bytes_per_s"]
    assert (nic["value"], nic["unit"], nic["source"]) == (50e9, "bytes/s", "datasheet")
    assert nic["reference"]
    assert nic["url"].startswith("https://")
    assert values["headroom.gpu"]["default"] is True
    shown = run("show", "h800").stdout
    assert "400 Gbit/s  datasheet" in shown
    assert run("show", "h800", "--format", "csv").stdout.startswith("key,value,unit,")
    assert "| value |" in run("show", "h800", "--format", "markdown").stdout


@pytest.mark.parametrize("name", ["deepseek-v3.2", "agentic", "mix", "h800.yaml", "h800-dualpath"])
def test_show_finds_any_kind(name: str) -> None:
    for format in ("table", "json", "csv", "markdown"):
        done = run("show", name, "--format", format)
        assert (done.returncode, done.stderr) == (0, "")


def test_show_asks_for_the_kind_of_an_ambiguous_name(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    source = _shipped() / "models" / "llama-3.1-70b.yaml"
    (tmp_path / "models" / "h800.yaml").write_text(source.read_text())
    (line,) = complaint(2, "show", "h800")
    assert "one of hardware and model; add --kind hardware" in line
    assert answer("show", "h800", "--kind", "model")["kind"] == "model"


def test_show_reads_a_path(tmp_path: Path) -> None:
    (tmp_path / "node.yaml").write_text((_shipped() / "hardware" / "a100.yaml").read_text())
    assert answer("show", "node.yaml")["kind"] == "hardware"
    (tmp_path / "odd.yaml").write_text("name: odd\n")
    (line,) = complaint(2, "show", "odd.yaml")
    assert "add --kind" in line


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("hardware", "h800"),
        ("model", "kimi-k3"),
        ("workload", "mix"),
        ("calibration", "h800-dualpath"),
    ],
)
def test_schemas_accept_the_shipped_profiles(kind: str, name: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    done = run("schema", kind)
    assert (done.returncode, done.stderr) == (0, "")
    schema = json.loads(done.stdout)
    assert schema["$schema"].startswith("https://json-schema.org/")
    folder = kind if kind == "hardware" else f"{kind}s"
    profile = yaml.safe_load((_shipped() / folder / f"{name}.yaml").read_text())
    jsonschema.validate(profile, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(profile | {"nonsense": 1}, schema)


# Import.


def write_config(folder: Path, **fields: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(TINY | fields))
    return path


def test_import_prints_a_profile_and_says_what_it_counted(tmp_path: Path) -> None:
    write_config(tmp_path)
    done = run("import-model", "config.json", "--name", "tiny")
    assert done.returncode == 0
    profile = yaml.safe_load(done.stdout)
    assert (profile["name"], profile["num_hidden_layers"]) == ("tiny", 3)
    assert "active per token" in done.stderr
    assert "with both embeddings" in done.stderr
    assert "without either" in done.stderr
    tied = write_config(tmp_path, tie_word_embeddings=True)
    assert "the embedding, tied, once" in run("import-model", str(tied), "--name", "t").stderr


def test_import_writes_a_file_once(tmp_path: Path) -> None:
    write_config(tmp_path)
    done = run("import-model", "config.json", "-o", "models-tiny.yaml")
    assert (done.returncode, done.stdout) == (0, "")
    target = tmp_path / "models-tiny.yaml"
    assert answer("show", "models-tiny.yaml")["name"] == "models-tiny"
    target.write_text("mine")
    (line,) = complaint(2, "import-model", "config.json", "-o", "models-tiny.yaml")
    assert line.endswith("an existing one; add --force")
    assert target.read_text() == "mine"
    done = run("import-model", "config.json", "-o", "models-tiny.yaml", "--force")
    assert done.returncode == 0
    assert target.read_text().startswith("name: models-tiny")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "models-tiny.yaml"]


def test_import_refuses_unknown_fields_by_name_all_at_once(tmp_path: Path) -> None:
    write_config(tmp_path, surprise=1, riddle=2)
    lines = complaint(2, "import-model", "config.json", "--name", "tiny")
    assert any("surprise" in line for line in lines)
    assert any("--ignore-field riddle" in line for line in lines)
    vouched = ("--ignore-field", "surprise", "--ignore-field", "riddle")
    assert run("import-model", "config.json", "--name", "tiny", *vouched).returncode == 0


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"a": 1,\n"b" 2}', "config.json:2: valid JSON is needed"),
        (b'{"a": 1,\n"a": 2}', "config.json:2: a key once is needed, got 'a' twice"),
        (b'{"a": 1e999}', "numbers of reasonable length"),
        (b'{"a": ' + b"9" * 5000 + b"}", "numbers of reasonable length"),
        (b"[" * 100_000, "nesting without end"),
        (b"\xff{}", "UTF-8 text is needed, got byte 0xff"),
        (b"\xef\xbb\xbf{}", "a byte-order mark"),
        (b"[]", "a mapping of fields is needed, got a list"),
        (b'{"a": "' + b" " * (5 << 20) + b'"}', "at most 4 MiB is read"),
    ],
)
def test_import_takes_no_hostile_file(content: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    (line,) = complaint(2, "import-model", "config.json", "--name", "tiny")
    assert expected in line


def test_import_reports_what_it_cannot_write(tmp_path: Path) -> None:
    write_config(tmp_path)
    (line,) = complaint(2, "import-model", "config.json", "-o", "no/such/x.yaml")
    assert "a writable path is needed" in line
    (line,) = complaint(2, "import-model", "config.json", "--name", "a b")
    assert line.startswith("--name: ")


# The program itself.


@pytest.mark.parametrize("workload", ["agentic", "mix"])
def test_a_process_says_one_document_and_nothing_else(workload: str) -> None:
    done = process("optimize", "--hw", "h800", "--workload", workload, "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("{")
    assert json.loads(done.stdout)["schema"] == "dpplan.optimize/1"


def test_exit_codes_of_a_process() -> None:
    assert process("optimize", *BASE).returncode == 0
    assert process("optimize", "--hw", "nope").returncode == 2
    assert process("optimize", *BASE, "--nodes", "3").returncode == 3


def test_a_process_without_utf8_still_draws() -> None:
    done = process("optimize", *BASE, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "####" in done.stdout


def test_version_and_help() -> None:
    assert run("--version").stdout == f"dpplan {__version__}\n"
    helped = run("--help")
    assert helped.returncode == 0
    assert run().stdout == helped.stdout
    for name in COMMANDS:
        assert name in helped.stdout
        own = run(name, "--help")
        assert (own.returncode, own.stderr) == (0, "")
        assert "Usage: dpplan" in own.stdout


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from dpplan.cli import main; main(['--help']); "
        "heavy = {'numpy', 'pandas', 'pulp', 'scipy', 'yaml', 'dpplan.planner'}; "
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    assert done.stderr == "[]\n"


def test_a_plan_loads_no_data_frames() -> None:
    code = (
        "import sys; from dpplan.cli import main; main(['optimize', '--hw', 'h800']); "
        "print(sorted({'pandas', 'scipy', 'rich'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    assert done.stderr == "[]\n"


@pytest.mark.skipif(os.name == "nt", reason="signals and pipes of POSIX")
def test_a_reader_that_leaves_is_no_error() -> None:
    script = f'"{sys.executable}" -m dpplan list | true; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout in ("141\n", "0\n")
    assert done.stderr == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
def test_a_full_disk_is_told() -> None:
    script = f'"{sys.executable}" -m dpplan list > /dev/full'
    done = subprocess.run(["sh", "-c", script], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("dpplan: stdout: a writable output is needed")


def test_an_interruption_is_told(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(optimize_command, "run_optimize", interrupt)
    assert main(["optimize", "--hw", "h800"]) == 130
    assert capsys.readouterr().err == "dpplan: interrupted\n"


def test_an_error_of_our_own_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(optimize_command, "run_optimize", fail)
    assert main(["optimize", "--hw", "h800"]) == 1
    assert capsys.readouterr().err.startswith("dpplan: internal error: ZeroDivisionError: oh; ")
    monkeypatch.setenv("DPPLAN_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        main(["optimize", "--hw", "h800"])


def test_import_refuses_infinity_where_it_matters_and_only_there(tmp_path: Path) -> None:
    """Published files hold Infinity in fields that change neither weights nor KV cache."""
    harmless = write_config(tmp_path, time_step_limit=[0.0, math.inf])
    text = harmless.read_text(encoding="utf-8")
    assert "Infinity" in text
    done = run("import-model", str(harmless), "--name", "t", "--ignore-field", "time_step_limit")
    assert done.returncode == 0, done.stderr
    write_config(tmp_path, hidden_size=math.inf)
    assert any("hidden_size" in line for line in complaint(2, "import-model", "config.json"))
