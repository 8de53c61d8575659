"""Scenario files: a YAML list of named calls, the metrics they hold and how far these may move."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, StrictBool, StringConstraints

from dpplan.errors import BadInput, Fault, did_you_mean
from dpplan.profiles.library import shipped_root
from dpplan.profiles.schema import Count, Name, PositiveNumber, Strict, Text, validate_document
from dpplan.profiles.yaml_reader import Document, read_yaml

__all__ = [
    "DEFAULT",
    "Percent",
    "PlacedScenario",
    "Scenario",
    "find_scenarios",
    "parse_percent",
    "ratio_name",
    "read_scenarios",
]

DEFAULT: Final = "dualpath-paper"
"""Shipped scenarios that are checked where no file is named."""
_PERCENT: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*%\s*", re.ASCII)
_CURE: Final = "give the path of a YAML list of scenarios, or the name of shipped ones"


def parse_percent(value: object) -> float:
    """A share written as a percentage.

    >>> parse_percent("2.5 %")
    0.025
    """
    match = _PERCENT.fullmatch(value) if isinstance(value, str) and len(value) < 40 else None
    if match is None or float(match[1]) > 100:
        raise ValueError("a percentage from 0% to 100%, such as 1%, is needed")
    return float(match[1]) / 100


def _two_systems(value: object) -> object:
    if not isinstance(value, list) or len(value) != 2 or value[0] == value[1]:
        raise ValueError("two systems, first over second, are needed, such as [basic, dualpath]")
    return value


Percent = Annotated[float, BeforeValidator(parse_percent)]
Given = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=1000)]
Metric = Annotated[
    str, StringConstraints(strict=True, min_length=1, max_length=200, pattern=r"^[\w.+-]+$")
]


class OptimizeCall(Strict):
    """Arguments of `dpplan optimize`."""

    hw: Given | None = None
    prefill_hw: Given | None = None
    decode_hw: Given | None = None
    workload: Given | None = None
    model: Given | None = None
    nodes: Count | None = None
    prefill_nodes: Count | None = None
    decode_nodes: Count | None = None
    traffic: Literal["full", "paper"] | None = None
    unlimited: list[Given] | None = None
    set: dict[Given, Any] | None = None


class PredictCall(Strict):
    """Arguments of `dpplan predict`."""

    hw: Given | None = None
    prefill_hw: Given | None = None
    decode_hw: Given | None = None
    workload: Given | None = None
    model: Given | None = None
    nodes: Count | None = None
    prefill_nodes: Count | None = None
    decode_nodes: Count | None = None
    system: Given | None = None
    calibration: Given | None = None
    agents: PositiveNumber | None = None
    agents_per_s: PositiveNumber | None = None
    capacity: StrictBool | None = None
    set: dict[Given, Any] | None = None


class Scenario(Strict):
    """One call, what is held of its answer, and how far that may move."""

    name: Name
    description: Text = ""
    source: Text = ""
    optimize: OptimizeCall | None = None
    predict: PredictCall | None = None
    metrics: list[Metric] = Field(default_factory=list)
    """Dotted paths into the answer's JSON."""
    compare: dict[Metric, Annotated[list[Given], BeforeValidator(_two_systems)]] = Field(
        default_factory=dict
    )
    """Metric of two predictions that differ in their system alone -> first over second."""
    tolerance: Percent = 0.01
    tolerances: dict[Given, Percent] = Field(default_factory=dict)
    """Tolerance of one metric, where it is another than the scenario's."""

    @property
    def kind(self) -> Literal["optimize", "predict"]:
        """Which function is called."""
        return "optimize" if self.optimize is not None else "predict"

    @property
    def call(self) -> OptimizeCall | PredictCall:
        """Arguments of that function."""
        call = self.optimize or self.predict
        assert call is not None
        return call

    @property
    def held(self) -> list[str]:
        """Names of the values held: the metrics, then the ratios."""
        ratios = [ratio_name(metric, systems) for metric, systems in self.compare.items()]
        return [*self.metrics, *ratios]

    def tolerance_of(self, name: str) -> float:
        """Relative tolerance of a held value, as a fraction."""
        return self.tolerances.get(name, self.tolerance)


@dataclass(frozen=True)
class PlacedScenario:
    """A scenario and the part of the file it stands in."""

    scenario: Scenario
    document: Document


def ratio_name(metric: str, systems: list[str]) -> str:
    """Name of a ratio between two systems.

    >>> ratio_name("jct_s", ["basic", "dualpath"])
    'jct_s[basic/dualpath]'
    """
    return f"{metric}[{systems[0]}/{systems[1]}]"


def find_scenarios(name: str) -> Path:
    """Path of scenarios: as given, then ./scenarios/, then the shipped ones.

    Raises
    ------
    BadInput
        If there is no such file; names what is shipped.
    """
    shipped = shipped_root() / "scenarios"
    if name and "\0" not in name and len(name) <= 1000:
        stem = name.removesuffix(".yaml").removesuffix(".yml")
        candidates = [Path(name)]
        if Path(name).name == name:
            candidates += [
                folder / f"{stem}{end}"
                for folder in (Path("scenarios"), shipped)
                for end in (".yaml", ".yml")
            ]
        for candidate in candidates:
            try:
                if candidate.exists() and not candidate.is_dir():
                    return candidate
            except OSError:
                continue
    known = [path.stem for path in shipped.glob("*.yaml")]
    cure = did_you_mean(name[:80], known)
    if not cure.endswith("?"):
        cure = f"{_CURE} ({', '.join(sorted(known))})"
    raise BadInput(
        Fault(f"scenarios {name[:80]!r}", "a scenario file is needed", "no such file", cure)
    )


def read_scenarios(path: Path, where: str) -> tuple[PlacedScenario, ...]:
    """Read and check a scenario file.

    Raises
    ------
    BadInput
        With all faults of the file, each with file, line and key.
    """
    document = read_yaml(path, where)
    if not isinstance(document.value, list) or not document.value:
        words = {dict: "a mapping", list: "an empty one", type(None): "nothing"}
        found = words.get(type(document.value), "a single value")
        cure = "start each with `- name: ...`"
        raise BadInput(Fault(document.locate(()), "a list of scenarios is needed", found, cure))
    faults: list[Fault] = []
    placed: list[PlacedScenario] = []
    first_lines: dict[str, int] = {}
    for part in _parts(document):
        try:
            scenario = validate_document(part, Scenario)
        except BadInput as error:
            faults.extend(error.faults)
            continue
        faults.extend(_faults(scenario, part))
        line = part.lines.get(("name",), 1)
        if scenario.name in first_lines:
            got = f"{scenario.name!r} again (first on line {first_lines[scenario.name]})"
            faults.append(Fault(part.locate(("name",)), "a name of its own is needed", got))
        first_lines.setdefault(scenario.name, line)
        placed.append(PlacedScenario(scenario, part))
    if faults:
        raise BadInput(faults)
    return tuple(placed)


def _parts(document: Document) -> Iterator[Document]:
    """One document a scenario, so that faults name the keys in it."""
    lines: list[dict[Any, int]] = [{} for _ in document.value]
    for path, line in document.lines.items():
        if path and isinstance(path[0], int):
            lines[path[0]][path[1:]] = line
    for value, own in zip(document.value, lines, strict=True):
        yield Document(document.where, value, own)


def _faults(scenario: Scenario, document: Document) -> Iterator[Fault]:
    """What no single key shows."""
    calls = [key for key in ("optimize", "predict") if getattr(scenario, key) is not None]
    if len(calls) != 1:
        needed = "one of optimize and predict is needed"
        yield Fault(document.locate(()), needed, "both" if calls else "none")
    if not scenario.metrics and not scenario.compare:
        cure = "add it, for example `metrics: [speedup]`"
        yield Fault(document.locate(("metrics",)), "a metric to hold is needed", "none", cure)
    for index, metric in enumerate(scenario.metrics):
        if metric in scenario.metrics[:index]:
            where = document.locate(("metrics", index))
            yield Fault(where, "each metric once is needed", f"{metric!r} again", "remove one")
    if scenario.compare and scenario.predict is None:
        cure = "optimize has `speedup`, and `strategies.NAME` for each strategy"
        yield Fault(document.locate(("compare",)), "a predict call is needed", "none", cure)
    named = scenario.predict is not None and scenario.predict.system is not None
    if named and scenario.compare and not scenario.metrics:
        where = document.locate(("predict", "system"))
        yield Fault(where, "no system is needed beside compare alone", "one", "remove it")
    yield from _unused(scenario.tolerances, scenario.held, document)


def _unused(given: Mapping[str, float], held: list[str], document: Document) -> Iterator[Fault]:
    for name in given:
        if name not in held:
            where, cure = document.locate(("tolerances", name)), did_you_mean(name, held)
            yield Fault(where, "a metric of this scenario is needed", repr(name[:60]), cure)
