"""Wrong words on the command line, told in the style of every other error."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from dpplan.errors import BadInput, Fault, did_you_mean

__all__ = [
    "check_choice",
    "check_command",
    "is_from_user",
    "positive_number",
    "share",
    "usage_fault",
    "whole_number",
]

_HELP = "see `{} --help`"


def check_command(arguments: Sequence[str], known: Sequence[str]) -> None:
    """Refuse an unknown command by name before anything is parsed."""
    first = arguments[0]
    if not first.startswith("-") and first not in known:
        raise BadInput(
            Fault("command", "a command is needed", _quoted(first), did_you_mean(first, known))
        )


def check_choice(option: str, value: str, choices: Sequence[str]) -> list[Fault]:
    """The fault of a value that isn't one of a few, or none."""
    if value in choices:
        return []
    needed = f"one of {', '.join(choices)} is needed"
    cure = did_you_mean(value, choices)
    return [Fault(option, needed, _quoted(value), "" if cure.startswith("choose") else cure)]


def whole_number(option: str) -> Any:
    """A parser of counts for `option`.

    >>> whole_number("--nodes")("12")
    12
    """

    def parse(value: object) -> int:
        if isinstance(value, int):
            return value
        written = str(value).strip()
        if not re.fullmatch(r"[+-]?[0-9]{1,15}", written, re.ASCII):
            raise BadInput(Fault(option, "a whole number is needed", _quoted(str(value))))
        return int(written)

    return parse


def positive_number(option: str) -> Any:
    """A parser of rates for `option`.

    >>> positive_number("--turns-per-s")("2.5")
    2.5
    """

    def parse(value: object) -> float:
        try:
            number = float(str(value))
        except ValueError:
            number = math.nan
        if not 0 < number <= 1e15:
            raise BadInput(
                Fault(option, "a number above zero and at most 1e15 is needed", _quoted(str(value)))
            )
        return number

    return parse


def is_from_user(context: Any, name: str) -> bool:
    """Was an option given, not left at its default?"""
    return getattr(context.get_parameter_source(name), "name", "DEFAULT") != "DEFAULT"


def share(option: str) -> Any:
    """A parser of shares of one for `option`.

    >>> share("--hit-fraction")("0.5")
    0.5
    """

    def parse(value: object) -> float:
        try:
            number = float(str(value))
        except ValueError:
            number = math.nan
        if not 0 <= number < 1:
            needed = "a share from 0 to below 1 is needed"
            raise BadInput(Fault(option, needed, _quoted(str(value))))
        return number

    return parse


def usage_fault(error: Exception) -> Fault | None:
    """The fault behind a usage error of the parser; None for any other exception.

    The parser's classes moved between typer's versions, so they are told by what they carry.
    """
    if not hasattr(error, "format_message"):
        return None
    context = getattr(error, "ctx", None)
    path = getattr(context, "command_path", "dpplan")
    option = getattr(error, "option_name", None)
    params = getattr(getattr(context, "command", None), "params", [])
    known = [
        name for param in params for name in getattr(param, "opts", ()) if name.startswith("-")
    ]
    if option is not None:
        option = str(option)
        if option in known or "requires" in str(getattr(error, "message", "")):
            return Fault(option, "a value is needed", "none", _HELP.format(path))
        cure = did_you_mean(option, [*known, "--help"])
        cure = _HELP.format(path) if cure.startswith("choose") else cure
        return Fault(option[:60], f"an option of `{path}` is needed", "an unknown one", cure)
    param = getattr(error, "param", None)
    if param is not None:
        names = [name for name in getattr(param, "opts", ()) if name.startswith("--")]
        name = (
            names[0]
            if names
            else (getattr(param, "human_readable_name", None) or str(param.name).upper())
        )
        if type(error).__name__ == "MissingParameter":
            return Fault(name, "a value is needed", "none", _HELP.format(path))
        return Fault(name, _sentence(str(getattr(error, "message", error))), "", _HELP.format(path))
    extra = re.match(
        r"Got unexpected extra arguments? \((.*)\)", str(getattr(error, "message", "")), re.S
    )
    if extra:
        return Fault(path, "no further argument is needed", _quoted(extra[1]), _HELP.format(path))
    return Fault(path, _sentence(str(getattr(error, "message", error))), "", _HELP.format(path))


def _sentence(text: str) -> str:
    text = " ".join(text.split()).rstrip(".")
    return text[:1].lower() + text[1:]


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
