"""Call what a scenario names and pick the values it holds out of the answer."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from dpplan.errors import BadInput, Fault, Infeasible, did_you_mean
from dpplan.validation.check.scenarios import OptimizeCall, PlacedScenario, PredictCall, ratio_name

__all__ = ["CALLS", "Outcome", "Value", "evaluate", "evaluate_all", "look_up"]

Value = float | int | bool | str | list[str] | None

CALLS: Final = {
    "optimize": ("dpplan.planner.optimize", "optimize"),
    "predict": ("dpplan.planner.predict", "predict"),
}
"""Kind of scenario -> module and function, loaded when the first scenario asks for them."""
_ARGUMENTS: Final = {
    "hw": "hardware",
    "prefill_hw": "prefill_hardware",
    "decode_hw": "decode_hardware",
    "set": "settings",
}
"""Key of a scenario -> argument of the function, where the two differ."""
_DIGITS: Final = 12
_MOST_SHOWN: Final = 3


@dataclass(frozen=True)
class Outcome:
    """What a scenario predicts."""

    values: dict[str, Value]
    """By name of the metric or ratio, in the order of the file."""
    infeasible: str = ""
    """Why there is no prediction; then every value it would give is None."""


def evaluate_all(scenarios: tuple[PlacedScenario, ...]) -> dict[str, Outcome]:
    """Predictions of all scenarios, by name.

    Raises
    ------
    BadInput
        With the faults of all scenarios, each with the line of the call or metric.
    """
    faults: list[Fault] = []
    outcomes: dict[str, Outcome] = {}
    for placed in scenarios:
        try:
            outcomes[placed.scenario.name] = evaluate(placed)
        except BadInput as error:
            faults.extend(fault for fault in error.faults if fault not in faults)
    if faults:
        raise BadInput(faults)
    return outcomes


def evaluate(placed: PlacedScenario) -> Outcome:
    """Predictions of one scenario.

    An infeasible call is a prediction too: None for all its values, with the reason.
    """
    scenario = placed.scenario
    answers: dict[str | None, Mapping[str, Any] | None] = {}
    reasons: list[str] = []

    def answer(system: str | None) -> Mapping[str, Any] | None:
        if system not in answers:
            try:
                answers[system] = _answer(placed, system)
            except Infeasible as error:
                reasons.append(error.reason)
                answers[system] = None
        return answers[system]

    faults: list[Fault] = []
    values: dict[str, Value] = {}

    def value(system: str | None, metric: str, key: tuple[str | int, ...]) -> Value:
        found = answer(system)
        if found is None:
            return None
        try:
            return look_up(found, metric, scenario.kind)
        except BadInput as error:
            where = placed.document.locate(key)
            faults.extend(
                Fault(where, fault.needed, fault.got, fault.cure) for fault in error.faults
            )
            return None

    for index, metric in enumerate(scenario.metrics):
        values[metric] = value(None, metric, ("metrics", index))
    for metric, systems in scenario.compare.items():
        over, under = (value(system, metric, ("compare", metric)) for system in systems)
        if any(isinstance(part, (bool, str, list)) for part in (over, under)):
            where = placed.document.locate(("compare", metric))
            faults.append(Fault(where, "a metric that is a number is needed", "another"))
        values[ratio_name(metric, systems)] = _ratio(over, under)
    if faults:
        raise BadInput(dict.fromkeys(faults))
    return Outcome(values, "; ".join(dict.fromkeys(reasons)))


def _answer(placed: PlacedScenario, system: str | None) -> Mapping[str, Any]:
    kind = placed.scenario.kind
    module, function = CALLS[kind]
    called = getattr(importlib.import_module(module), function)
    arguments = _arguments(placed.scenario.call)
    if system is not None:
        arguments["system"] = system
    try:
        found: Mapping[str, Any] = called(**arguments).to_dict()
    except BadInput as error:
        where = placed.document.locate((kind,))
        raise BadInput(
            Fault(f"{where}: {fault.where}", fault.needed, fault.got, fault.cure)
            for fault in error.faults
        ) from None
    return found


def _arguments(call: OptimizeCall | PredictCall) -> dict[str, Any]:
    """The arguments given, under the names that the function has for them."""
    given = {key: getattr(call, key) for key in type(call).model_fields}
    return {_ARGUMENTS.get(key, key): value for key, value in given.items() if value is not None}


def _ratio(over: Value, under: Value) -> float | None:
    if not isinstance(over, (int, float)) or not isinstance(under, (int, float)) or not under:
        return None
    return _rounded(over / under)


def look_up(answer: Mapping[str, Any], path: str, kind: str = "optimize") -> Value:
    """The value at a dotted path; keys may hold dots themselves, positions of lists are numbers.

    >>> look_up({"use": {"prefill.gpu": 0.5}}, "use.prefill.gpu")
    0.5

    Raises
    ------
    BadInput
        If nothing is there, or no single value; names paths that would do.
    """
    missing = object()
    found = _walk(answer, path.split("."), missing)
    if found is missing:
        raise BadInput(
            Fault(path, "a value of the answer is needed", repr(path), _cure(answer, path, kind))
        )
    if isinstance(found, dict) or (
        isinstance(found, list) and not all(isinstance(item, str) for item in found)
    ):
        below = [leaf for leaf in _leaves(answer) if leaf.startswith(f"{path}.")][:_MOST_SHOWN]
        cure = f"choose a value in it, such as {' or '.join(below)}" if below else ""
        got = "a mapping" if isinstance(found, dict) else "a list"
        raise BadInput(Fault(path, "a single value or a list of names is needed", got, cure))
    if isinstance(found, (int, float)) and not isinstance(found, bool):
        if not math.isfinite(found):
            raise BadInput(Fault(path, "a finite number is needed", str(found)))
        return _rounded(found)
    value: Value = list(found) if isinstance(found, list) else found
    return value


def _rounded(value: float) -> float:
    """Without the digits in which one machine differs from another."""
    return value if isinstance(value, int) else float(f"{value:.{_DIGITS}g}")


def _walk(node: Any, parts: list[str], missing: object) -> Any:
    if not parts:
        return node
    if isinstance(node, list):
        position = int(parts[0]) if parts[0].isascii() and parts[0].isdigit() else len(node)
        return _walk(node[position], parts[1:], missing) if position < len(node) else missing
    if isinstance(node, dict):
        for length in range(1, len(parts) + 1):
            key = ".".join(parts[:length])
            if key in node:
                found = _walk(node[key], parts[length:], missing)
                if found is not missing:
                    return found
    return missing


def _leaves(node: Any, path: str = "") -> Iterator[str]:
    """Every path that holds a single value or a list of names."""
    if isinstance(node, dict):
        inner = list(node.items())
    elif isinstance(node, list) and not all(isinstance(item, str) for item in node):
        inner = list(enumerate(node))
    else:
        yield path
        return
    for key, value in inner:
        yield from _leaves(value, f"{path}.{key}" if path else str(key))


def _cure(answer: Mapping[str, Any], path: str, kind: str) -> str:
    leaves = list(_leaves(answer))
    ends = [leaf for leaf in leaves if leaf.endswith(f".{path}")][:_MOST_SHOWN]
    if ends:
        return f"did you mean {' or '.join(ends)}?"
    cure = did_you_mean(path, leaves)
    return f"see the keys of `dpplan {kind} --format json`" if cure.startswith("choose") else cure
