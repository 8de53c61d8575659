"""The baseline: predictions once accepted, as JSON that people can read in a diff."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NoReturn

from pydantic import BeforeValidator, Field

from dpplan.errors import BadInput, Fault
from dpplan.profiles.schema import Name, Strict, validate_document
from dpplan.profiles.yaml_reader import MAX_BYTES, Document, parse_yaml, read_bytes
from dpplan.validation.check.runner import Outcome
from dpplan.validation.check.scenarios import Given, Percent, PlacedScenario

__all__ = ["SCHEMA", "Baseline", "Held", "baseline_text", "read_baseline", "write_baseline"]

SCHEMA: Final = "dpplan.check/1"


def _single_value(value: object) -> object:
    try:
        if value is None or isinstance(value, (bool, str)):
            return value
        if isinstance(value, (int, float)) and math.isfinite(value):
            return value
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return value
    except OverflowError:  # whole number that no float holds
        pass
    raise ValueError("a finite number, text, true, false, null or a list of texts is needed")


class Held(Strict):
    """A value once accepted, and the tolerance it was accepted with."""

    value: Annotated[Any, BeforeValidator(_single_value)]
    tolerance: Percent


class Baseline(Strict):
    """What a baseline file holds."""

    schema_: Literal["dpplan.check/1"] = Field(alias="schema")
    versions: dict[Name, Given]
    """What predicted the values."""
    scenarios: dict[Name, dict[Given, Held]]


def read_baseline(path: Path, where: str) -> Baseline:
    """Read a baseline.

    Raises
    ------
    BadInput
        If it cannot be read, is too large, no JSON or no baseline; with all faults and lines.
    """
    data = read_bytes(path, where, MAX_BYTES)
    try:
        # Lines, limits, encoding and repeated keys are the YAML reader's: JSON is YAML, but for
        # tabs, which JSON has between tokens only.
        document = parse_yaml(data.replace(b"\t", b" "), where)
    except BadInput as error:
        raise BadInput(
            _no_json(fault.where, fault.got) if fault.needed == "valid YAML is needed" else fault
            for fault in error.faults
        ) from None
    try:
        value = json.loads(data, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        got = f"{error.msg[:1].lower()}{error.msg[1:]} (column {error.colno})"
        raise BadInput(_no_json(f"{where}:{error.lineno}", got)) from None
    except ValueError:
        needed = "finite numbers of reasonable length are needed"
        raise BadInput(Fault(where, needed, "NaN, Infinity or a longer one")) from None
    return validate_document(Document(where, value, document.lines), Baseline)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _no_json(where: str, got: str) -> Fault:
    cure = "restore it, or delete it and write it anew with --update"
    return Fault(where, "valid JSON is needed", got, cure)


def baseline_text(
    scenarios: tuple[PlacedScenario, ...],
    outcomes: Mapping[str, Outcome],
    versions: Mapping[str, str],
) -> str:
    """The baseline that accepts these predictions, the same for the same values."""
    held = {
        scenario.name: {
            name: {"value": value, "tolerance": _percent(scenario.tolerance_of(name))}
            for name, value in outcomes[scenario.name].values.items()
        }
        for scenario in (placed.scenario for placed in scenarios)
    }
    content = {"schema": SCHEMA, "versions": dict(versions), "scenarios": held}
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _percent(fraction: float) -> str:
    return f"{fraction * 100:.12f}".rstrip("0").rstrip(".") + "%"


def write_baseline(path: Path, content: str) -> None:
    """All or nothing: written beside the target, then put in its place in one step.

    Raises
    ------
    BadInput
        If it cannot be written; what stood there before still does.
    """
    try:
        target = path.resolve()  # a link stays one
        beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        try:
            with open(beside, "x", encoding="utf-8", newline="\n") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(beside, target)
        finally:
            beside.unlink(missing_ok=True)
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        cure = "check folder and permissions"
        raise BadInput(
            Fault(f"--baseline {path}", "a writable path is needed", str(reason).lower(), cure)
        ) from None
