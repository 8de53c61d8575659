"""`dpplan import-model`: a `config.json` from anywhere to a model profile."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Final, get_args

from dpplan.cli import output
from dpplan.cli.arguments import check_choice
from dpplan.cli.files import write_file
from dpplan.errors import BadInput, Fault

__all__ = ["parse_config", "run_import"]

MAX_CONFIG_BYTES: Final = 4 << 20
"""Configs are kilobytes; quantised ones with a list of modules reach a megabyte."""
_NAME: Final = re.compile(r"[A-Za-z0-9][\w.+-]{0,79}")


def run_import(
    config: str,
    out: str | None,
    name: str | None,
    ignore: tuple[str, ...],
    kv_dtype: str,
    weight_dtype: str | None,
    force: bool,
) -> None:
    """Print or write the profile; say the derived counts on stderr."""
    from dpplan.profiles.huggingface.families import read_config
    from dpplan.profiles.huggingface.model_import import import_model
    from dpplan.profiles.model import Dtype, Model
    from dpplan.profiles.schema import validate_document
    from dpplan.profiles.yaml_reader import parse_yaml, read_bytes

    dtypes = get_args(Dtype)
    faults = check_choice("--kv-dtype", kv_dtype, dtypes)
    if weight_dtype is not None:
        faults += check_choice("--weight-dtype", weight_dtype, dtypes)
    if out is not None and not force and os.path.lexists(out):
        faults.append(
            Fault(
                f"-o {out}",
                "a file that does not exist is needed",
                "an existing one",
                "add --force",
            )
        )
    chosen = name if name is not None else _name(config, out)
    if not _NAME.fullmatch(chosen):
        needed = "a name of letters, digits and . _ + - is needed"
        faults.append(Fault("--name", needed, repr(chosen[:60]), "give one with --name"))
    if not config or "\0" in config:
        faults.append(Fault("CONFIG.JSON", "a path is needed", repr(config[:60])))
    if faults:
        raise BadInput(faults)
    content = parse_config(read_bytes(Path(config), config, MAX_CONFIG_BYTES), config)
    architecture, _ = read_config(content, config, ignore)
    options: dict[str, Any] = {"kv_dtype": kv_dtype, "weight_dtype": weight_dtype}
    written = import_model(content, chosen, where=Path(config).name, ignore=ignore, **options)
    validate_document(parse_yaml(written, f"profile {chosen}"), Model)
    if out is None:
        output.text(written)
    else:
        write_file(Path(out), written.encode(), "-o", overwrite=force)
        output.message(f"wrote {out}")
    counts = architecture.parameters
    active, table = counts.active, counts.input_embedding
    ways = [f"{active / 1e9:.4g} G with both embeddings"]
    if counts.tied_embeddings:
        ways = [f"{active / 1e9:.4g} G with the embedding, tied, once"]
    else:
        ways.append(f"{(active - table) / 1e9:.4g} G with the LM head only")
    ways.append(f"{(active - table - counts.output_head) / 1e9:.4g} G without either")
    output.message(
        f"derived: {counts.total / 1e9:.4g} G parameters; active per token {', '.join(ways)} "
        "(makers differ); MTP layers and vision or audio towers are not counted"
    )


def parse_config(data: bytes, where: str) -> dict[str, Any]:
    """The mapping of a JSON file, which must be plain: UTF-8, no key twice.

    Infinity and NaN are read, as published files have them in fields that don't matter; a field
    that does matter is refused by name with them.

    Raises
    ------
    BadInput
        With the line, or all the keys that stand twice.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        got = f"byte 0x{data[error.start]:02x}"
        raise BadInput(Fault(f"{where}:{line}", "UTF-8 text is needed", got)) from None
    if text.startswith("\ufeff"):
        cure = "save the file as UTF-8 without byte-order mark"
        raise BadInput(Fault(where, "UTF-8 text is needed", "a byte-order mark", cure))
    twice: dict[str, None] = {}

    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        known: dict[str, Any] = {}
        for key, value in pairs:
            if key in known:
                twice[key] = None
            known[key] = value
        return known

    try:
        value = json.loads(text, object_pairs_hook=mapping, parse_float=_float)
    except json.JSONDecodeError as error:
        got = f"{error.msg[:1].lower()}{error.msg[1:]} (column {error.colno})"
        raise BadInput(Fault(f"{where}:{error.lineno}", "valid JSON is needed", got)) from None
    except RecursionError:
        raise BadInput(Fault(where, "a config is needed", "nesting without end")) from None
    except ValueError:  # a number of thousands of digits
        raise BadInput(
            Fault(where, "numbers of reasonable length are needed", "a huge one")
        ) from None
    faults = [
        Fault(
            _located(text, where, f'"{key}"'),
            "a key once is needed",
            f"{key[:60]!r} twice",
            "remove one",
        )
        for key in list(twice)[:20]
    ]
    if faults:
        raise BadInput(faults)
    if not isinstance(value, dict):
        got = "a list" if isinstance(value, list) else "a single value"
        raise BadInput(
            Fault(where, "a mapping of fields is needed", got, "give a model's config.json")
        )
    return value


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("out of range")
    return value


def _located(text: str, where: str, token: str) -> str:
    """File and line of a token's last occurrence."""
    position = text.rfind(token)
    return where if position < 0 else f"{where}:{text.count(chr(10), 0, position) + 1}"


def _name(config: str, out: str | None) -> str:
    """What the output is called, else the file, else (every config.json) its folder."""
    if out is not None:
        return Path(out).stem
    path = Path(config)
    return path.stem if path.stem != "config" else path.absolute().parent.name
