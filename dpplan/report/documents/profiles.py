"""Profiles for a reader: every value with its unit and where it comes from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dpplan.planner.assumptions import source_of
from dpplan.profiles.model import Model
from dpplan.profiles.schema import Source, Strict
from dpplan.report.document import Block, Column, Document, Items, Paragraph, Section, Table
from dpplan.report.words import number, plain, scaled
from dpplan.units import DIMENSIONS, format_quantity

__all__ = ["Listed", "ProfileValue", "list_document", "profile_document", "profile_values"]

_BASE_UNITS = {
    "bytes": "bytes",
    "bytes_per_s": "bytes/s",
    "flop_per_s": "FLOP/s",
    "s": "s",
    "w": "W",
    "usd_per_h": "USD/h",
}
_SECONDS = ("slo.ttft", "slo.tpot")
_NOT_VALUES = ("name", "description", "sources")


@dataclass(frozen=True)
class Listed:
    """One line of `dpplan list`."""

    kind: str
    name: str
    description: str
    where: str
    """"shipped", or the path of a profile of the working directory."""


@dataclass(frozen=True)
class ProfileValue:
    """One value of a profile."""

    key: str
    value: Any
    """In base units; text, numbers, lists and truth values; "unlimited" for no limit."""
    unit: str
    text: str
    """As a person reads it."""
    source: Source | None
    is_default: bool
    """The profile doesn't name it."""


def profile_values(profile: Strict) -> tuple[ProfileValue, ...]:
    """Every value of a profile, in its schema's order; fields that are absent are left out."""
    sources: Mapping[str, Source] = getattr(profile, "sources", {})
    return tuple(_values(profile, "", sources, is_given=True))


def _values(
    profile: Strict, prefix: str, sources: Mapping[str, Source], *, is_given: bool
) -> Iterator[ProfileValue]:
    for key in type(profile).model_fields:
        value = getattr(profile, key)
        if value is None or (not prefix and key in _NOT_VALUES):
            continue
        path = f"{prefix}{key}"
        named = is_given and key in profile.model_fields_set
        if isinstance(value, Strict):
            yield from _values(value, f"{path}.", sources, is_given=named)
            continue
        if isinstance(value, Sequence) and value and isinstance(value[0], Strict):
            for index, part in enumerate(value):
                yield from _values(part, f"{path}.{index}.", sources, is_given=named)
            continue
        if isinstance(value, Mapping):
            for name, part in value.items():
                if isinstance(part, Strict):
                    yield from _values(part, f"{path}.{name}.", sources, is_given=named)
                else:
                    source = source_of(path, sources)
                    yield ProfileValue(f"{path}.{name}", part, *_sized(part, key), source, False)
            continue
        dimension = _dimension(path)
        source = source_of(path, sources) if named else None
        if isinstance(value, float) and math.isinf(value):
            yield ProfileValue(path, "unlimited", "", "unlimited", source, not named)
            continue
        plain_value = list(value) if isinstance(value, tuple) else value
        unit = _BASE_UNITS.get(dimension, "")
        # People know NICs by their line rate in bits.
        text = (
            f"{value / 0.125e9:g} Gbit/s"
            if "nic." in path and unit == "bytes/s"
            else _text(value, dimension)
        )
        yield ProfileValue(path, plain_value, unit, text, source, not named)


def _sized(value: Any, key: str) -> tuple[str, str]:
    """Unit and text of a value in a free mapping, whose key says what all of them are."""
    if key.endswith("_bytes_per_token") and isinstance(value, float):
        return "bytes/token", f"{value:,.10g} bytes/token"
    return "", _text(value, "")


def _dimension(path: str) -> str:
    if path in _SECONDS:
        return "s"
    last = path.rpartition(".")[2]
    found = [d for d in DIMENSIONS if last == d or last.endswith(f"_{d}")]
    return max(found, key=len, default="")


def _text(value: Any, dimension: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list) and dimension:
        return _runs([format_quantity(one, dimension) for one in value])
    if dimension:
        return format_quantity(value, dimension)
    if isinstance(value, float):
        return scaled(value, "").strip() if value >= 1e6 else f"{value:,.10g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, (tuple, list)):
        if value and isinstance(value[0], list):
            return f"{len(value)} x {len(value[0])} numbers"
        return _runs(value)
    return plain(value)


def _runs(values: Sequence[Any]) -> str:
    """A list with repeats taken together: "4 x 0, 128"."""
    parts: list[tuple[str, int]] = []
    for value in values:
        text = f"{value:.10g}" if isinstance(value, float) else plain(value)
        if parts and parts[-1][0] == text:
            parts[-1] = (text, parts[-1][1] + 1)
        else:
            parts.append((text, 1))
    if len(parts) > 8:
        kinds = dict.fromkeys(text for text, _ in parts)
        more = ", ..." if len(kinds) > 6 else ""
        return f"{len(values)} values of {', '.join(list(kinds)[:6])}{more}"
    return ", ".join(text if count == 1 else f"{count} x {text}" for text, count in parts)


def profile_document(kind: str, profile: Strict, where: str) -> Document:
    """A profile with its sources numbered."""
    name, description = getattr(profile, "name", where), getattr(profile, "description", "")
    values = profile_values(profile)
    numbered: dict[tuple[str, ...], int] = {}
    rows = []
    for item in values:
        mark, said = "", "default" if item.is_default else "none"
        if item.source is not None:
            s = item.source
            key = (s.kind, s.reference, s.note or "", s.url or "")
            mark, said = f"[{numbered.setdefault(key, len(numbered) + 1)}]", s.kind
        rows.append((item.key, item.text, said, mark))
    columns = (
        Column(""),
        Column("value", "right", may_wrap=True),
        Column("source"),
        Column("", "right"),
    )
    sections = [Section("Values", (Table(columns, tuple(rows)),))]
    if isinstance(profile, Model):
        sections.append(_derived(profile))
    if numbered:
        sections.append(
            Section("Sources", (Items(tuple(map(_source, numbered)), is_numbered=True),))
        )
    about = f": {description}" if description else ""
    return Document(f"{kind} {name} ({where}){about}", tuple(sections))


def _source(key: tuple[str, ...]) -> str:
    kind, reference, note, url = key
    return " - ".join(part for part in (f"{kind}: {reference}", note, url) if part)


def _derived(model: Model) -> Section:
    """What the planner makes of the fields."""
    a = model.architecture
    rows: list[tuple[str, str]] = [
        ("layers", f"{a.layers:,}"),
        ("parameters", f"{number(a.parameters.total / 1e9, 4)} G"),
        ("active parameters", f"{number(a.parameters.active / 1e9, 4)} G"),
        ("weights", scaled(model.weight_bytes, "B")),
    ]
    blocks: list[Block] = [
        Table((Column(""), Column("", "right")), tuple(rows)),
        Paragraph(
            "Counted from the fields: both embeddings (tied: once), without MTP layers and vision "
            "or audio towers.",
            is_note=True,
        ),
    ]
    return Section("Derived", tuple(blocks))


def list_document(listed: Sequence[Listed]) -> Document:
    """Profiles grouped by kind."""
    sections = []
    for kind in dict.fromkeys(item.kind for item in listed):
        own = [item for item in listed if item.kind == kind]
        has_local = any(item.where != "shipped" for item in own)
        rows = tuple(
            (item.name, item.description, *([item.where] if has_local else [])) for item in own
        )
        columns = (Column(""), Column("", may_wrap=True), *([Column("from")] if has_local else []))
        sections.append(Section(kind, (Table(columns, rows),)))
    count = f"{len(listed)} profile{'' if len(listed) == 1 else 's'}"
    text = f"{count}; `dpplan show NAME` has the numbers and their sources"
    return Document(text, tuple(sections))
