"""Numbers and names as a person says them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

__all__ = [
    "SINGULAR",
    "compact",
    "join",
    "number",
    "percent",
    "plain",
    "resource",
    "resources",
    "scaled",
    "seconds",
    "size",
    "times",
]

_NOUNS = {
    "storage_nic_read": "storage NICs",
    "storage_nic_write": "storage NIC writes",
    "compute_nic_read": "compute NIC reads",
    "compute_nic_write": "compute NIC writes",
    "dram": "DRAM bandwidth",
    "gpu": "GPUs",
    "hbm": "HBM",
    "kv_buffer": "DRAM KV buffer",
    "storage_backend_read": "storage backend",
    "storage_backend_write": "storage backend writes",
}
"""Storage NICs are there to read the KV cache: only their writes are called so."""
SINGULAR = frozenset({"dram", "hbm", "kv_buffer", "storage_backend_read"})
_STEPS = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def plain(text: object) -> str:
    r"""Text fit for a terminal or a file: one line, no control or invisible formatting characters.

    >>> plain("a\x1b[31mb\nc")
    'a[31mb c'
    """
    flat = "".join(" " if c.isspace() else c for c in str(text))
    # Cc: escape sequences; Cf: text that runs backwards; Cs, Co: what no font shows.
    return "".join(c for c in flat if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn"))


def number(value: float | None, digits: int = 3) -> str:
    """A number to three significant digits, thousands apart.

    >>> number(85.52), number(0.38982), number(12345.6), number(None)
    ('85.5', '0.390', '12,300', '-')
    """
    if value is None:
        return "-"
    if not math.isfinite(value):
        return "unlimited"
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    magnitude = math.floor(math.log10(abs(rounded)))
    if magnitude < -4:
        return f"{rounded:.{digits - 1}e}"
    return f"{rounded:,.{max(0, digits - 1 - magnitude)}f}"


def scaled(value: float | None, unit: str, digits: int = 3) -> str:
    """A rate with the prefix that keeps it short.

    >>> scaled(120.17e9, "B/s"), scaled(15051.5, "tok/s")
    ('120 GB/s', '15.1 ktok/s')
    """
    if value is None:
        return "-"
    for factor, prefix in _STEPS:
        if float(f"{abs(value):.{digits - 1}e}") >= factor:
            return f"{number(value / factor, digits)} {prefix}{unit}"
    return f"{number(value, digits)} {unit}"


def size(value: float | None) -> str:
    """Bytes."""
    return "unlimited" if value is None else scaled(value, "B")


def seconds(value: float | None) -> str:
    """A duration.

    >>> seconds(0.02399), seconds(4.0)
    ('24.0 ms', '4.00 s')
    """
    if value is None:
        return "-"
    if value == 0:
        return "0 s"
    if value < 1e-3:
        return f"{number(value * 1e6)} us"
    return f"{number(value * 1e3)} ms" if value < 1 else f"{number(value)} s"


def percent(fraction: float | None) -> str:
    """A share; what isn't quite all or quite nothing never reads as such.

    >>> percent(0.4658), percent(0.0129), percent(0.9999), percent(1e-5), percent(0.0)
    ('47 %', '1.3 %', '>99 %', '<0.1 %', '0 %')
    """
    if fraction is None:
        return "-"
    if fraction <= 0:
        return f"{fraction * 100:.3g} %" if fraction < 0 else "0 %"
    if fraction < 0.001:
        return "<0.1 %"
    if 0.995 <= fraction < 1 - 1e-9:
        return ">99 %"
    return f"{fraction * 100:.1f} %" if fraction < 0.0995 else f"{fraction * 100:,.0f} %"


def times(factor: float | None) -> str:
    """A ratio.

    >>> times(1.397), times(None)
    ('1.40x', '-')
    """
    if factor is None:
        return "-"
    if 1 < factor < 1.005:
        return "1.00x"
    return f"{number(factor)}x"


def resource(name: str) -> str:
    """A resource in words.

    >>> resource("prefill.storage_nic_read"), resource("storage_backend_read")
    ('prefill storage NICs', 'storage backend')
    """
    side, dot, kind = name.partition(".")
    return f"{side} {_NOUNS.get(kind, kind)}" if dot else _NOUNS.get(name, name)


def resources(names: Sequence[str]) -> str:
    """Several in a sentence; "all" where both sides' are meant.

    >>> resources(["prefill.storage_nic_read", "decode.storage_nic_read", "decode.gpu"])
    'all storage NICs and decode GPUs'
    """
    sides: dict[str, list[str]] = {}
    for name in names:
        side, dot, kind = name.partition(".")
        sides.setdefault(kind if dot else name, []).append(side if dot else "")
    phrases = []
    for kind, found in sides.items():
        side = "all" if len(found) > 1 else found[0]
        phrases.append(f"{side} {_NOUNS.get(kind, kind)}".strip())
    return join(phrases)


def compact(names: Sequence[str]) -> str:
    """Several resources for a narrow column, by side.

    >>> compact(["prefill.storage_nic_read", "decode.storage_nic_read", "decode.dram"])
    'prefill storage NICs; decode storage NICs, DRAM bandwidth'
    """
    kinds: dict[str, list[str]] = {}
    for name in names:
        side, dot, kind = name.partition(".")
        kinds.setdefault(side if dot else "", []).append(_NOUNS.get(kind if dot else name, name))
    both = kinds.get("prefill")
    if both is not None and both == kinds.get("decode"):
        kinds = {"both": both} | {side: nouns for side, nouns in kinds.items() if not side}
    return "; ".join(f"{side} {', '.join(nouns)}".strip() for side, nouns in kinds.items())


def join(parts: Sequence[str]) -> str:
    """Parts of a sentence: "a, b and c"."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
