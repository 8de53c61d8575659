"""Profiles that a command makes, as YAML text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["profile_text"]


def profile_text(profile: Mapping[str, Any], comments: Sequence[str] = ()) -> str:
    r"""YAML text of a profile: one key a line, lists of plain values in a line of their own.

    >>> profile_text({"name": "mine", "rows": [[0.00125, 2.0]]}, ["how it was made"])
    '# how it was made\nname: mine\nrows:\n- [0.00125, 2.0]\n'
    """
    import yaml

    class Dumper(yaml.SafeDumper):
        """Flow style for the innermost lists and mappings, six digits for numbers."""

    def sequence(dumper: yaml.SafeDumper, items: Any) -> yaml.Node:
        is_flow = not any(isinstance(item, list) for item in items)
        return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=is_flow)

    def number(dumper: yaml.SafeDumper, value: float) -> yaml.Node:
        digits, e, power = f"{value:.6g}".partition("e")
        text = (digits if "." in digits else f"{digits}.0") + e + power
        return dumper.represent_scalar("tag:yaml.org,2002:float", text)

    Dumper.add_representer(list, sequence)
    Dumper.add_representer(float, number)
    text: str = yaml.dump(
        dict(profile), Dumper=Dumper, sort_keys=False, width=300, allow_unicode=True
    )
    return "".join(f"# {line}\n" for line in comments) + text
