"""What profiles are made of: strict base, quantities with units, sources; pydantic underneath."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from dpplan.errors import BadInput, Fault, did_you_mean
from dpplan.profiles.yaml_reader import Document, KeyPath
from dpplan.units import parse_quantity

__all__ = [
    "Bytes",
    "BytesPerS",
    "Count",
    "FlopPerS",
    "Fraction",
    "GpuCount",
    "Name",
    "NodeCount",
    "Number",
    "Part",
    "PositiveNumber",
    "Seconds",
    "SecondsOrUnlimited",
    "Share",
    "Source",
    "Sources",
    "Strict",
    "UsdPerH",
    "Watts",
    "faults_at",
    "schema_paths",
    "validate_document",
]


class Strict(BaseModel):
    """Base of every profile: an unknown key is an error, a value never changes after reading."""

    # Validators are built when a profile is first read: an inner class never needs its own.
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        str_max_length=4000,
        defer_build=True,
    )


def _positive_quantity(value: object, dimension: str) -> float:
    quantity = parse_quantity(value, dimension)
    if quantity <= 0:
        raise ValueError("a quantity above zero is needed")
    if not _SMALLEST <= quantity <= _LARGEST:
        raise ValueError("a quantity that a machine could have is needed")
    return quantity


_SMALLEST, _LARGEST = 1e-9, 1e27
"""Base units; beyond them products of bytes and seconds would leave what a float can hold."""


def _quantity(dimension: str, pattern: str, example: str) -> Any:
    schema = {
        "type": "string",
        "pattern": rf"^\s*(?=.*[1-9])([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*{pattern}\s*$",
        "examples": [example],
    }
    return Annotated[
        float,
        BeforeValidator(partial(_positive_quantity, dimension=dimension)),
        WithJsonSchema(schema),
    ]


_PREFIX = "[kMGTPE]?"
_BINARY_PREFIX = "([kMGTPE]|[KMGTP]i)?"
Bytes = _quantity("bytes", f"{_BINARY_PREFIX}B", "80 GB")
BytesPerS = _quantity("bytes_per_s", f"{_BINARY_PREFIX}(B|bit)/s", "400 Gbit/s")
FlopPerS = _quantity("flop_per_s", f"{_PREFIX}FLOP/s", "989 TFLOP/s")
Seconds = _quantity("s", "(s|ms|us|min|h)", "50 ms")
Watts = _quantity("w", "[kM]?W", "10.2 kW")
UsdPerH = _quantity("usd_per_h", "USD/h", "98.3 USD/h")


def _seconds_or_unlimited(value: object) -> float:
    return math.inf if value == "unlimited" else _positive_quantity(value, "s")


SecondsOrUnlimited = Annotated[
    float,
    Field(allow_inf_nan=True),
    BeforeValidator(_seconds_or_unlimited),
    WithJsonSchema({"type": "string", "examples": ["50 ms", "unlimited"]}),
]


def _plain_number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("a plain number is needed")
    return value


Number = Annotated[float, Field(ge=0, le=1e12), BeforeValidator(_plain_number)]
PositiveNumber = Annotated[float, Field(gt=0, le=1e15), BeforeValidator(_plain_number)]
Count = Annotated[int, Field(ge=1, le=10**6), BeforeValidator(_plain_number)]
GpuCount = Annotated[int, Field(ge=1, le=1024), BeforeValidator(_plain_number)]
NodeCount = Annotated[int, Field(ge=2, le=10_000), BeforeValidator(_plain_number)]
Share = Annotated[float, Field(gt=0, le=1), BeforeValidator(_plain_number)]
"""Efficiency: measured share of peak, above 0, at most 1."""
Fraction = Annotated[float, Field(ge=0, lt=1), BeforeValidator(_plain_number)]
"""Headroom: share kept free, from 0 to below 1."""
Part = Annotated[float, Field(ge=0, le=1), BeforeValidator(_plain_number)]
"""Any share of a whole, from none to all."""
Name = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=80, pattern=r"^[A-Za-z0-9][\w.+-]*$"),
]
Text = Annotated[str, StringConstraints(strict=True, max_length=2000)]


class Source(Strict):
    """Where a number comes from."""

    kind: Literal["datasheet", "measured", "derived", "assumed"]
    reference: Text
    url: Text | None = None
    note: Text | None = None


Sources = dict[str, Source]
"""Dotted key path, or a prefix of one -> source; `default` covers what nothing else names."""

_Profile = TypeVar("_Profile", bound=Strict)


def validate_document(document: Document, profile: type[_Profile]) -> _Profile:
    """Turn a document into a profile, or report all its faults with file, line and key."""
    if not isinstance(document.value, dict):
        got = "nothing" if document.value is None else _describe(document.value)
        where = document.locate(())
        raise BadInput(Fault(where, "a mapping of keys to values is needed", got))
    try:
        return profile.model_validate(document.value)
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise BadInput([_fault(document, profile, item) for item in details]) from None


def faults_at(faults: Sequence[tuple[KeyPath, str, object]]) -> ValidationError:
    """What a validator raises to tell several faults, each at its own place.

    Parameters
    ----------
    faults : sequence of (path, needed, got)
        Path from the value validated on.
    """
    return ValidationError.from_exception_data(
        "faults",
        [InitErrorDetails(type=_told(needed), loc=path, input=got) for path, needed, got in faults],
    )


def _told(needed: str) -> PydanticCustomError:
    return PydanticCustomError("value_error", "{needed}", {"needed": needed})


_WORDS = {
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
    "finite_number": "a finite number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_too_long": "text of at most {max_length} characters",
    "string_too_short": "text that is not empty",
    "string_pattern_mismatch": "a name of letters, digits and . _ + -",
    "literal_error": "one of {expected}",
    "dict_type": "a mapping of keys to values",
    "list_type": "a list",
    "too_short": "at least {min_length} entries",
    "too_long": "at most {max_length} entries",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
}


def _fault(document: Document, profile: type[Strict], error: ErrorDetails) -> Fault:
    path: KeyPath = tuple(part for part in error["loc"] if part not in ("[key]", "float", "int"))
    where = document.locate(path)
    kind, value = error["type"], error.get("input")
    if kind == "extra_forbidden":
        cure = did_you_mean(str(path[-1]), _keys_at(profile, path[:-1]))
        return Fault(where, "a known key is needed", _describe(path[-1]), cure)
    if kind == "missing":
        example = _example(profile, path)
        return Fault(where, "this key is needed", "nothing", f"add it{example}")
    message = error["msg"]
    if kind in _WORDS:
        needed = _WORDS[kind].format(**error.get("ctx", {})) + " is needed"
    elif kind == "value_error":
        needed = message.removeprefix("Value error, ")
    else:
        needed = message[:1].lower() + message[1:]
    return Fault(where, needed, _describe(value) if path else "", "")


def _describe(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _example(profile: type[Strict], path: KeyPath) -> str:
    schema = profile.model_json_schema()
    node: Any = schema
    for part in path:
        while "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
        node = node.get("properties", {}).get(part, {})
    examples = node.get("examples")
    return f", for example `{path[-1]}: {examples[0]}`" if examples else ""


def _inner_models(annotation: Any) -> Iterator[Any]:
    """The Strict classes that an annotation may hold, and `dict` for free mappings."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType, Annotated, list, tuple):
        for inner in get_args(annotation):
            yield from _inner_models(inner)
    elif origin is dict:
        yield dict
    elif isinstance(annotation, type) and issubclass(annotation, Strict):
        yield annotation


def _keys_at(profile: type[Strict], path: KeyPath) -> list[str]:
    models: list[Any] = [profile]
    for part in path:
        if isinstance(part, int):
            continue
        models = [
            inner
            for model in models
            if model is not dict and part in model.model_fields
            for inner in _inner_models(model.model_fields[part].annotation)
        ]
    return [key for model in models if model is not dict for key in model.model_fields]


def schema_paths(profile: type[Strict], prefix: str = "") -> list[str]:
    """Every dotted key path a profile of this kind may hold; lists and free mappings as one."""
    paths = []
    for key, info in profile.model_fields.items():
        paths.append(f"{prefix}{key}")
        for inner in _inner_models(info.annotation):
            if inner is not dict and key != "sources":
                paths += schema_paths(inner, f"{prefix}{key}.")
    return paths
