"""`dpplan list`, `dpplan show` and `dpplan schema`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dpplan.cli import output
from dpplan.cli.arguments import check_choice
from dpplan.cli.commands.optimize import FORMATS, write_document
from dpplan.errors import BadInput, Fault, did_you_mean

if TYPE_CHECKING:
    from dpplan.profiles.library import Kind
    from dpplan.report.documents.profiles import Listed

__all__ = ["run_list", "run_schema", "run_show"]

_KIND_NAMES: Final[dict[str, Kind]] = {
    "hardware": "hardware",
    "model": "models",
    "models": "models",
    "workload": "workloads",
    "workloads": "workloads",
    "calibration": "calibrations",
    "calibrations": "calibrations",
}
_SINGULAR: Final = {
    "hardware": "hardware",
    "models": "model",
    "workloads": "workload",
    "calibrations": "calibration",
}
_TELLING: Final[dict[Kind, tuple[str, ...]]] = {
    "hardware": ("gpus", "gpu", "compute_nic", "storage_nic", "dram"),
    "models": ("model_type", "hidden_size", "kv_dtype", "weight_dtype"),
    "workloads": ("mix", "turns_per_session", "context_tokens", "append_tokens"),
    "calibrations": ("constants", "data", "fit"),
}
"""Keys that only one kind of profile has."""


def run_list(kind: str | None, format: str) -> None:
    """Print the profiles of one kind or of all."""
    faults = check_choice("--format", format, FORMATS)
    if kind is not None:
        faults += check_choice("kind", kind, tuple(_SINGULAR)) if kind not in _KIND_NAMES else []
    if faults:
        raise BadInput(faults)
    from dpplan.profiles.library import KINDS

    kinds = KINDS if kind is None else (_KIND_NAMES[kind],)
    listed = [item for one in kinds for item in _listed(one)]
    if format == "json":
        output.json_document(
            {"schema": "dpplan.list/1", "profiles": [vars(item) for item in listed]}
        )
    elif format == "csv":
        from dpplan.report.renderers.csv import to_csv

        columns = ("kind", "name", "description", "where")
        output.text(to_csv(columns, [[getattr(item, c) for c in columns] for item in listed]))
    else:
        from dpplan.report.documents.profiles import list_document

        write_document(list_document(listed), format)


def _listed(kind: Kind) -> list[Listed]:
    from dpplan.profiles.library import find, shipped_names
    from dpplan.profiles.yaml_reader import read_yaml
    from dpplan.report.documents.profiles import Listed

    shipped = set(shipped_names(kind))
    local = {path.stem for path in Path(kind).glob("*.y*ml")}
    found = []
    for name in sorted(shipped | local):
        where = "shipped"
        try:
            path = find(kind, name)
            if not path.is_absolute():
                where = str(path)
            value = read_yaml(path).value
            said = value.get("description", "") if isinstance(value, dict) else ""
            description = said if isinstance(said, str) else ""
        except BadInput as error:
            description = f"cannot be read: {error.faults[0]}"
        found.append(Listed(kind, name, description, where))
    return found


def run_show(name: str, kind: str | None, format: str) -> None:
    """Print every value of one profile."""
    faults = check_choice("--format", format, FORMATS)
    if kind is not None and kind not in _KIND_NAMES:
        faults += check_choice("--kind", kind, tuple(_SINGULAR.values()))
    if faults:
        raise BadInput(faults)
    from dpplan.profiles.library import find, read_profile
    from dpplan.report.documents.profiles import profile_document, profile_values

    chosen = _KIND_NAMES[kind] if kind is not None else _kind_of(name)
    path = find(chosen, name)
    where = str(path) if not path.is_absolute() or "/" in name else "shipped"
    profile = read_profile(chosen, name)
    singular = _SINGULAR[chosen]
    if format in ("table", "markdown"):
        write_document(profile_document(singular, profile, where), format)
        return
    rows: list[dict[str, Any]] = [
        {
            "key": item.key,
            "value": item.value,
            "unit": item.unit,
            "default": item.is_default,
            "source": item.source.kind if item.source else None,
            "reference": item.source.reference if item.source else None,
            "url": item.source.url if item.source else None,
            "note": item.source.note if item.source else None,
        }
        for item in profile_values(profile)
    ]
    if format == "json":
        about = {key: getattr(profile, key, "") for key in ("name", "description")}
        output.json_document(
            {"schema": "dpplan.show/1", "kind": singular, **about, "where": where, "values": rows}
        )
        return
    from dpplan.report.renderers.csv import to_csv

    columns = tuple(rows[0])
    cells = [
        [" ".join(map(str, v)) if isinstance(v, list) else v for v in row.values()] for row in rows
    ]
    output.text(to_csv(columns, cells))


def _kind_of(name: str) -> Kind:
    """The one kind that has this name; a file says by its keys what it is."""
    from dpplan.profiles.library import KINDS, find, shipped_names
    from dpplan.profiles.yaml_reader import read_yaml

    paths: dict[Kind, Path] = {}
    for kind in KINDS:
        try:
            paths[kind] = find(kind, name)
        except BadInput:
            continue
    if not paths:
        known = [known for kind in KINDS for known in shipped_names(kind)]
        stem = name.removesuffix(".yaml").removesuffix(".yml")
        cure = did_you_mean(stem, known)
        cure = "see `dpplan list`" if not cure or cure.startswith("choose") else cure
        raise BadInput(
            Fault(
                f"profile {name[:60]!r}",
                "a name or path of a profile is needed",
                "no such file",
                cure,
            )
        )
    if len(paths) > 1 and len(set(paths.values())) == 1:
        value = read_yaml(next(iter(paths.values()))).value
        keys = set(value) if isinstance(value, dict) else set()
        told = [kind for kind in KINDS if keys & set(_TELLING[kind])]
        if len(told) == 1:
            return told[0]
        cure = "add --kind hardware, model, workload or calibration"
        raise BadInput(
            Fault(
                f"profile {name[:60]!r}",
                "keys that tell its kind are needed",
                "none or several",
                cure,
            )
        )
    if len(paths) > 1:
        kinds = " and ".join(_SINGULAR[kind] for kind in paths)
        cure = f"add --kind {_SINGULAR[next(iter(paths))]}"
        raise BadInput(
            Fault(f"profile {name!r}", "a name of one kind is needed", f"one of {kinds}", cure)
        )
    return next(iter(paths))


def run_schema(kind: str) -> None:
    """Print the JSON Schema of a kind of profile."""
    if kind not in _KIND_NAMES:
        raise BadInput(check_choice("kind", kind, tuple(_SINGULAR.values())))
    from pydantic import TypeAdapter

    from dpplan.profiles.library import profile_class
    from dpplan.profiles.workload import Mix, TurnClass

    chosen = _KIND_NAMES[kind]
    adapter: TypeAdapter[Any] = TypeAdapter(
        TurnClass | Mix if chosen == "workloads" else profile_class(chosen)
    )
    document = adapter.json_schema()
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"dpplan {_SINGULAR[chosen]} profile",
    }
    output.json_document(head | {key: value for key, value in document.items() if key != "title"})
