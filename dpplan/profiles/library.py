"""Find and read profiles: a path, a name in the working directory, or a shipped one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from dpplan.errors import BadInput, Fault, did_you_mean
from dpplan.profiles.calibration import Calibration
from dpplan.profiles.hardware import Hardware
from dpplan.profiles.model import Model
from dpplan.profiles.schema import Strict, schema_paths, validate_document
from dpplan.profiles.workload import Mix, TurnClass
from dpplan.profiles.yaml_reader import Document, parse_yaml, read_yaml

__all__ = [
    "KINDS",
    "Inputs",
    "WeightedClass",
    "load_inputs",
    "profile_class",
    "read_profile",
    "shipped_names",
    "shipped_root",
]

Kind = Literal["hardware", "models", "workloads", "calibrations"]
KINDS: Final[tuple[Kind, ...]] = ("hardware", "models", "workloads", "calibrations")
_SINGULAR: Final = {
    "hardware": "hardware",
    "models": "model",
    "workloads": "workload",
    "calibrations": "calibration",
}
MAX_MIX_DEPTH: Final = 8
MAX_CLASSES: Final = 256


@dataclass(frozen=True)
class WeightedClass:
    """One class of turns and its share of all turns."""

    turns: TurnClass
    weight_fraction: float


@dataclass(frozen=True)
class Inputs:
    """Everything a plan starts from, read and checked."""

    prefill_hardware: Hardware
    decode_hardware: Hardware
    model: Model
    workload: TurnClass | Mix
    classes: tuple[WeightedClass, ...]
    overrides: tuple[str, ...]
    """The `--set` texts applied, as given."""


def shipped_root() -> Path:
    """Folder that holds the shipped `hardware`, `models`, `workloads` and `scenarios`."""
    installed = Path(__file__).resolve().parent.parent / "shipped"
    return installed if installed.is_dir() else Path(__file__).resolve().parents[2]


def shipped_names(kind: Kind) -> list[str]:
    """Names of the shipped profiles of a kind."""
    return sorted(path.stem for path in (shipped_root() / kind).glob("*.yaml"))


def profile_class(kind: Kind, value: Any = None) -> type[Strict]:
    """The schema of a kind; a workload with a `mix` is a `Mix`."""
    if kind == "hardware":
        return Hardware
    if kind == "models":
        return Model
    if kind == "calibrations":
        return Calibration
    return Mix if isinstance(value, dict) and "mix" in value else TurnClass


def find(kind: Kind, name: str) -> Path:
    """Path of a profile: as given, then in the folder of its kind, then the shipped ones."""
    what = _SINGULAR[kind]
    if not name or "\0" in name or len(name) > 1000:
        needed = f"the name or path of a {what} profile is needed"
        raise BadInput(Fault(f"{what} profile", needed, repr(name[:40]), "see `dpplan list`"))
    given = Path(name)
    stem = name.removesuffix(".yaml").removesuffix(".yml")
    is_bare = given.name == name
    candidates = [given] if not is_bare or given.suffix else []
    if is_bare:
        folders = [Path(kind), shipped_root() / kind]
        candidates += [folder / f"{stem}{end}" for folder in folders for end in (".yaml", ".yml")]
        candidates.insert(0, given)
    for candidate in candidates:
        try:
            # A folder of the profile's bare name (a checkout, say) doesn't hide the profile.
            if candidate.exists() and not (is_bare and candidate.is_dir()):
                return candidate
        except OSError:
            continue
    known = shipped_names(kind) + [path.stem for path in Path(kind).glob("*.y*ml")]
    needed = f"a {what} profile (a path, or a name) is needed"
    raise BadInput(Fault(f"{what} {name!r}", needed, "no such file", did_you_mean(stem, known)))


def read_profile(kind: Kind, name: str) -> Strict:
    """Find, read and check one profile, without overrides."""
    document = _read(kind, name)
    return validate_document(document, profile_class(kind, document.value))


def _read(kind: Kind, name: str) -> Document:
    path = find(kind, name)
    return read_yaml(path, _shown(path))


def _shown(path: Path) -> str:
    root = shipped_root()
    return f"shipped {path.relative_to(root)}" if path.is_relative_to(root) else str(path)


def load_inputs(
    *,
    hardware: str | None,
    workload: str | TurnClass,
    model: str | None = None,
    prefill_hardware: str | None = None,
    decode_hardware: str | None = None,
    settings: Sequence[str] | Mapping[str, object] = (),
) -> Inputs:
    """Read all profiles of a plan with `--set` applied; faults of all files come together.

    Parameters
    ----------
    hardware, workload, model : str
        Name or path; without a model, the workload's default. A workload may be one at hand.
    prefill_hardware, decode_hardware : str, optional
        Node type of one side; absent = `hardware`.
    settings : sequence of "key.path=value", or mapping of key path to value
        Values put in place of the profiles' own.

    Raises
    ------
    BadInput
        With every fault found.
    """
    faults: list[Fault] = []

    def attempt(kind: Kind, name: str | TurnClass | None) -> Document | None:
        if name is None:
            return None
        if isinstance(name, TurnClass):
            return Document(f"workload {name.name}", name.to_document())
        try:
            return _read(kind, name)
        except BadInput as error:
            faults.extend(fault for fault in error.faults if fault not in faults)
            return None

    if hardware is None and (prefill_hardware is None or decode_hardware is None):
        cure = "give --hw, or both --prefill-hw and --decode-hw"
        faults.append(Fault("hardware", "a hardware profile is needed", "none", cure))
    documents: dict[str, Document | None] = {
        "prefill_hardware": attempt("hardware", prefill_hardware or hardware),
        "decode_hardware": attempt("hardware", decode_hardware or hardware),
        "workload": attempt("workloads", workload),
    }
    # The model is chosen by the workload as set, so it is read after the workload's settings.
    placed = _place(documents["workload"], _parse_settings(settings, faults), faults)
    for target in ("prefill_hardware", "decode_hardware", "workload"):
        documents[target] = _put(documents[target], placed[target], faults)
    workload_document = documents["workload"]
    documents["model"] = attempt("models", model or _default_model(workload_document))
    documents["model"] = _put(documents["model"], placed["model"], faults)

    profiles: dict[str, Strict] = {}
    for key, kind in (
        ("prefill_hardware", "hardware"),
        ("decode_hardware", "hardware"),
        ("workload", "workloads"),
        ("model", "models"),
    ):
        document = documents[key]
        if document is None:
            continue
        try:
            profiles[key] = validate_document(document, profile_class(kind, document.value))  # type: ignore[arg-type]
        except BadInput as error:
            faults.extend(fault for fault in error.faults if fault not in faults)
    classes: tuple[WeightedClass, ...] = ()
    loaded = profiles.get("workload")
    if isinstance(loaded, (TurnClass, Mix)) and workload_document is not None:
        try:
            classes = _classes(loaded, workload_document.where)
        except BadInput as error:
            faults.extend(error.faults)
    if faults:
        raise BadInput(faults)
    chosen = profiles.get("model")
    if chosen is None and isinstance(loaded, Mix):
        chosen = read_profile("models", classes[0].turns.model)
    prefill, decode = profiles["prefill_hardware"], profiles["decode_hardware"]
    assert isinstance(prefill, Hardware)
    assert isinstance(decode, Hardware)
    assert isinstance(chosen, Model)
    assert isinstance(loaded, (TurnClass, Mix))
    if isinstance(settings, Mapping):
        settings = [f"{key}={value}" for key, value in settings.items()]
    return Inputs(prefill, decode, chosen, loaded, classes, tuple(settings))


def _default_model(document: Document | None) -> str | None:
    if document is None or not isinstance(document.value, dict):
        return None
    named = document.value.get("model")
    if isinstance(named, str):
        return named
    parts = document.value.get("mix")
    if isinstance(parts, list) and parts and isinstance(parts[0], dict):
        first = parts[0].get("workload")
        if isinstance(first, str):
            try:
                return _default_model(_read("workloads", first))
            except (BadInput, RecursionError):
                return None  # told with the mix's own faults
    return None


def _classes(workload: TurnClass | Mix, where: str) -> tuple[WeightedClass, ...]:
    """Flatten a mix of mixes into classes with weights that sum to 1; cycles are named."""
    collected: list[WeightedClass] = []

    def visit(part: TurnClass | Mix, share: float, trail: tuple[str, ...]) -> None:
        if isinstance(part, TurnClass):
            collected.append(WeightedClass(part, share))
            return
        total = sum(item.weight for item in part.mix)
        for index, item in enumerate(part.mix):
            spot = f"{where}: mix.{index}.workload"
            if item.workload in trail:
                cycle = " -> ".join((*trail[trail.index(item.workload) :], item.workload))
                needed = "a mix that doesn't contain itself is needed"
                raise BadInput(Fault(spot, needed, cycle, "remove one of them"))
            if len(trail) >= MAX_MIX_DEPTH or len(collected) >= MAX_CLASSES:
                needed = f"at most {MAX_MIX_DEPTH} levels and {MAX_CLASSES} classes are read"
                raise BadInput(Fault(spot, needed, "more", "flatten the mix"))
            inner = read_profile("workloads", item.workload)
            assert isinstance(inner, (TurnClass, Mix))
            visit(inner, share * item.weight / total, (*trail, item.workload))

    visit(workload, 1.0, (workload.name,))
    return tuple(collected)


def _parse_settings(
    settings: Sequence[str] | Mapping[str, object], faults: list[Fault]
) -> list[tuple[str, object]]:
    if isinstance(settings, Mapping):
        return list(settings.items())
    parsed: list[tuple[str, object]] = []
    for text in settings:
        path, equals, value = text.partition("=")
        if not equals or not path.strip() or not value.strip():
            cure = "for example --set storage_nic.count=2"
            faults.append(Fault("--set", "key.path=value is needed", repr(text[:60]), cure))
            continue
        try:
            parsed.append((path.strip(), parse_yaml(value.strip(), f"--set {path.strip()}").value))
        except BadInput as error:
            faults.extend(error.faults)
    return parsed


_Setting = tuple[str, str, object]
"""Option as given, key path, value."""


def _place(
    workload: Document | None, settings: Sequence[tuple[str, object]], faults: list[Fault]
) -> dict[str, list[_Setting]]:
    """Find for every setting the one profile whose schema has its path."""
    paths = {
        "hardware": schema_paths(Hardware),
        "model": schema_paths(Model),
        "workload": schema_paths(profile_class("workloads", workload.value if workload else None)),
    }
    targets = {
        "hardware": ("prefill_hardware", "decode_hardware"),
        "prefill_hardware": ("prefill_hardware",),
        "decode_hardware": ("decode_hardware",),
        "model": ("model",),
        "workload": ("workload",),
    }
    placed: dict[str, list[_Setting]] = {
        target: [] for owned in targets.values() for target in owned
    }
    for text, value in settings:
        option = f"--set {text}"
        head, _, rest = text.partition(".")
        if head in targets and rest:
            kind = "hardware" if head.endswith("hardware") else head
            owners, path = [head], rest
        else:
            owners = [kind for kind, known in paths.items() if _known(text, known)]
            path, kind = text, ""
        everywhere = [f"{owner}.{known}" for owner, keys in paths.items() for known in keys]
        if len(owners) > 1:
            candidates = ", ".join(f"{owner}.{path}" for owner in owners)
            needed = "a path in exactly one profile is needed"
            got, cure = f"one in {len(owners)}", f"write one of {candidates}"
            faults.append(Fault(option, needed, got, cure))
        elif not owners or (kind and not _known(path, paths[kind])):
            if kind:
                cure = did_you_mean(text, [f"{head}.{known}" for known in paths[kind]])
            else:
                bare = {known: full for full in everywhere for known in [full.split(".", 1)[1]]}
                cure = did_you_mean(text, bare)
            if cure.startswith("choose"):
                cure = "see `dpplan show NAME` for the keys of a profile"
            needed = "a key of hardware, model or workload is needed"
            faults.append(Fault(option, needed, "none", cure))
        else:
            for target in targets[owners[0]]:
                placed[target].append((option, path, value))
    return placed


def _put(
    document: Document | None, settings: Sequence[_Setting], faults: list[Fault]
) -> Document | None:
    for option, path, value in settings:
        parts = tuple(int(p) if p.isdigit() else p for p in path.split("."))
        if document is not None:
            try:
                document = document.replaced(parts, value, option)
            except BadInput as error:
                faults.extend(fault for fault in error.faults if fault not in faults)
    return document


def _known(path: str, keys: Sequence[str]) -> bool:
    """Is a dotted path in the schema? Positions in lists (`mix.0.weight`) are skipped."""
    return ".".join(part for part in path.split(".") if not part.isdigit()) in keys
