"""Text with a unit <-> a float in base units (bytes, seconds, FLOP, tokens, watts).

Bits and bytes, GB (1e9) and GiB (2**30) are told apart and never guessed: a quantity without a
unit, or with the unit of something else, is refused with the units that would do.
"""

from __future__ import annotations

import math
import re
from typing import Final

__all__ = ["DIMENSIONS", "UnitError", "format_quantity", "parse_quantity"]

_DECIMAL: Final = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_BINARY: Final = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50}


def _scaled(symbol: str, factor: float, prefixes: dict[str, float]) -> dict[str, float]:
    return {prefix + symbol: factor * scale for prefix, scale in prefixes.items()}


_BYTES: Final = _scaled("B", 1.0, _DECIMAL | _BINARY)
_BITS_PER_S: Final = _scaled("bit/s", 0.125, _DECIMAL | _BINARY)

DIMENSIONS: Final[dict[str, dict[str, float]]] = {
    "bytes": _BYTES,
    "bytes_per_s": {f"{unit}/s": factor for unit, factor in _BYTES.items()} | _BITS_PER_S,
    "flop_per_s": _scaled("FLOP/s", 1.0, _DECIMAL),
    "s": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0, "h": 3600.0},
    "w": {"W": 1.0, "kW": 1e3, "MW": 1e6},
    "usd_per_h": {"USD/h": 1.0},
}
"""Dimension (the ending of the field's name) -> unit -> factor to the base unit."""

_EXAMPLES: Final = {
    "bytes": "80 GB or 80 GiB",
    "bytes_per_s": "400 Gbit/s or 3.35 TB/s",
    "flop_per_s": "989 TFLOP/s",
    "s": "50 ms or 4 s",
    "w": "10.2 kW",
    "usd_per_h": "98.3 USD/h",
}

_QUANTITY: Final = re.compile(
    r"([0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?|\.[0-9]+)[ \t]*([A-Za-z/]+)"
)


class UnitError(ValueError):
    """A text is not a quantity of the dimension wanted; the message says what would be."""


def parse_quantity(text: object, dimension: str) -> float:
    """Read a quantity such as "400 Gbit/s" into base units.

    Parameters
    ----------
    text : str
        A non-negative number, an optional space and a unit.
    dimension : str
        One of `DIMENSIONS`: bytes, bytes_per_s, flop_per_s, s, w, usd_per_h.

    Returns
    -------
    float
        The value in bytes, bytes/s, FLOP/s, s, W or USD/h.

    Raises
    ------
    UnitError
        If the text is no number with a unit of that dimension.

    Examples
    --------
    >>> parse_quantity("400 Gbit/s", "bytes_per_s")
    50000000000.0
    >>> parse_quantity("80 GiB", "bytes")
    85899345920.0
    """
    units = DIMENSIONS[dimension]
    example = _EXAMPLES[dimension]
    if isinstance(text, bool) or not isinstance(text, (str, int, float)):
        raise UnitError(f"a quantity with a unit such as {example} is needed")
    if isinstance(text, (int, float)):
        raise UnitError(f"a unit is needed, such as {example}: a bare number is ambiguous")
    match = _QUANTITY.fullmatch(text.strip()) if len(text) <= 80 else None
    if match is None:
        if text.strip().startswith("-"):
            raise UnitError(f"a non-negative quantity such as {example} is needed")
        raise UnitError(f"a number and a unit such as {example} are needed")
    number, unit = match.groups()
    if unit not in units:
        raise UnitError(f"a unit of this dimension is needed, such as {example}")
    value = float(number) * units[unit]
    if not math.isfinite(value):
        raise UnitError("a finite quantity is needed")
    return value


def format_quantity(value: float, dimension: str, digits: int = 4) -> str:
    """Write a value in base units as text a person reads and `parse_quantity` takes back.

    >>> format_quantity(50e9, "bytes_per_s")
    '50 GB/s'
    >>> format_quantity(0.05, "s")
    '50 ms'
    """
    if math.isinf(value):
        return "unlimited"
    if dimension == "s":
        ladder = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
    elif dimension == "usd_per_h":
        ladder = {"USD/h": 1.0}
    else:
        symbol = {"bytes": "B", "bytes_per_s": "B/s", "flop_per_s": "FLOP/s", "w": "W"}[dimension]
        scales = _DECIMAL if dimension != "w" else {"": 1.0, "k": 1e3, "M": 1e6}
        ladder = _scaled(symbol, 1.0, scales)
    unit, factor = next(iter(ladder.items()))
    for candidate, scale in ladder.items():
        if value >= scale * (1 - 1e-12):
            unit, factor = candidate, scale
    return f"{value / factor:.{digits}g} {unit}"
