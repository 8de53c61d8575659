"""Mappings of an answer that never change."""

from __future__ import annotations

from typing import Any, NoReturn

__all__ = ["Frozen", "freeze"]


class Frozen(dict[str, Any]):
    """A mapping of an answer: read like any other, never changed."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("an answer doesn't change: make a new one")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[Frozen], tuple[dict[str, Any]]]:
        return Frozen, (dict(self),)


def freeze(answer: Any, *names: str) -> None:
    """Make the mappings that those fields of a frozen dataclass hold unchangeable."""
    for name in names:
        object.__setattr__(answer, name, Frozen(getattr(answer, name)))
