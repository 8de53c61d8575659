"""Typed, recorded access to a config mapping: every fault is kept, every field read is known.

A family reads its fields through `ConfigReader`; `finish` then refuses, all at once, the fields
that are of the wrong type and those that nobody read and nobody knows to be irrelevant.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from dpplan.errors import BadInput, Fault, did_you_mean

__all__ = ["ConfigReader"]

_REQUIRED: Final = object()
_LARGEST_COUNT: Final = 2**24
_MOST_LAYERS: Final = 10_000
_MOST_NAMED: Final = 200


class ConfigReader:
    """Reads one mapping; a wrong field is noted and replaced by a harmless value.

    Parameters
    ----------
    config : Mapping[str, Any]
        The mapping, or the `text_config` of it.
    where : str
        What messages call it: "config.json".
    path : str
        Dotted path of the mapping inside the file, with its dot: "text_config.".
    outer : Mapping[str, Any], optional
        Where a field is looked up that this mapping lacks (the file around `text_config`).

    Examples
    --------
    >>> reader = ConfigReader({"hidden_size": 4096, "surprise": 1})
    >>> reader.count("hidden_size")
    4096
    >>> reader.finish(irrelevant=(), ignore=("surprise",))
    >>> reader.read
    {'hidden_size': 4096}
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        where: str = "config.json",
        path: str = "",
        outer: Mapping[str, Any] | None = None,
    ) -> None:
        self._config = config
        self._outer: Mapping[str, Any] = outer or {}
        self._where = where
        self._path = path
        self._sections: list[ConfigReader] = []
        self._sound = True
        self.faults: list[Fault] = []
        self.read: dict[str, Any] = {}
        """Fields that the architecture follows from, in the order they were asked for."""
        self.asked: set[str] = set()

    def _get(self, name: str) -> Any:
        self.asked.add(name)
        if name in self._config:
            self.read[name] = self._config[name]
            return self._config[name]
        if name in self._outer:
            self.read[name] = self._outer[name]
            return self._outer[name]
        return None

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self._get(name) is not None

    def fault(self, name: str, needed: str, got: object = "", cure: str = "") -> None:
        """Note something wrong with a field."""
        self._sound = False
        self._note(name, needed, got, cure)

    def contradiction(self, name: str, needed: str, got: object = "") -> None:
        """Note a field at odds with others, unless one of those may stand in for a faulty one."""
        if self._sound:
            self._note(name, needed, got, "")

    def _note(self, name: str, needed: str, got: object, cure: str) -> None:
        shown = got if isinstance(got, str) and got == "" else _shown(got)
        self.faults.append(Fault(f"{self._where}: {self._path}{name}", needed, shown, cure))

    def count(
        self, name: str, default: Any = _REQUIRED, minimum: int = 1, most: int = _LARGEST_COUNT
    ) -> int:
        """A whole number between `minimum` and `most`; null counts as absent."""
        value = self._get(name)
        if value is None:
            if default is _REQUIRED:
                self.fault(name, "a whole number is needed", "nothing")
                return max(1, minimum)
            return int(default)
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= most:
            self.fault(name, f"a whole number from {minimum} to {most} is needed", value)
            return max(1, minimum)
        return value

    def count_or_null(self, name: str) -> int | None:
        """A positive whole number, or an explicit null for "this part is absent"."""
        if self._get(name) is None and name in self._config:
            return None
        return self.count(name)

    def optional_count(self, name: str) -> int | None:
        """A positive whole number, or None where the field is null or absent."""
        return self.count(name) if self.has(name) else None

    def layers(self, name: str = "num_hidden_layers") -> int:
        """The number of layers; 0 where that field is faulty, so that lists aren't blamed."""
        before = len(self.faults)
        layers = self.count(name, most=_MOST_LAYERS)
        return layers if len(self.faults) == before else 0

    def flag(self, name: str, default: Any = _REQUIRED) -> bool:
        """True or false; null counts as absent."""
        value = self._get(name)
        if value is None:
            if default is _REQUIRED:
                self.fault(name, "true or false is needed", "nothing")
                return False
            return bool(default)
        if not isinstance(value, bool):
            self.fault(name, "true or false is needed", value)
            return False
        return value

    def per_layer(
        self, name: str, layers: int, choices: Sequence[Any], extra: int = 0
    ) -> tuple[Any, ...] | None:
        """A list of one of `choices` for every layer, and up to `extra` more for MTP layers.

        Returns
        -------
        tuple or None
            The first `layers` entries; None where the field is absent or faulty.
        """
        value = self._get(name)
        if value is None:
            return None
        if not isinstance(value, (list, tuple)):
            self.fault(name, "a list of one entry a layer is needed", value)
            return None
        strange = [item for item in value if not _is_one_of(item, choices)]
        if strange:
            known = ", ".join(str(choice) for choice in choices)
            self.fault(name, f"entries out of {known} are needed", strange[0])
            return None
        if layers and not layers <= len(value) <= layers + extra:
            self.fault(name, f"{layers} entries are needed, one a layer", f"{len(value)} entries")
            return None
        return tuple(value[:layers])

    def required_per_layer(
        self, name: str, layers: int, choices: Sequence[Any], extra: int = 0
    ) -> tuple[Any, ...]:
        """As `per_layer`, but the field must be there; () where it is faulty."""
        if not self.has(name):
            self.fault(name, "a list of one entry a layer is needed", "nothing")
        return self.per_layer(name, layers, choices, extra) or ()

    def layer_indices(self, name: str, layers: int) -> frozenset[int]:
        """A list of distinct layer numbers, counted from 0; absent = none."""
        return self._numbers(name, 0, layers - 1) if self.has(name) else frozenset()

    def layer_numbers(self, name: str, layers: int) -> frozenset[int]:
        """A list of distinct layer numbers, counted from 1."""
        return self._numbers(name, 1, layers)

    def _numbers(self, name: str, first: int, last: int) -> frozenset[int]:
        value = self._get(name)
        if not isinstance(value, (list, tuple)):
            self.fault(name, "a list of layer numbers is needed", value)
            return frozenset()
        known_last = last >= first
        for item in value:
            whole = isinstance(item, int) and not isinstance(item, bool)
            if not whole or item < first or (known_last and item > last):
                end = str(last) if known_last else "the last"
                self.fault(name, f"layer numbers from {first} to {end} are needed", item)
                return frozenset()
        if len(set(value)) != len(value):
            self.fault(name, "each layer number is needed once", "a repeated one")
        return frozenset(value)

    def names(self, name: str) -> tuple[str, ...]:
        """A list of names that the architecture does not follow from; absent = none."""
        value = self._get(name)
        self.read.pop(name, None)
        if value is None:
            return ()
        if not isinstance(value, (list, tuple)) or not all(isinstance(x, str) for x in value):
            self.fault(name, "a list of names is needed", value)
            return ()
        return tuple(value)

    def unused(self, name: str) -> None:
        """A field that is known and, in this model, changes nothing."""
        self.asked.add(name)

    def text(self, name: str, default: Any = _REQUIRED, longest: int = 20_000) -> str:
        """A text; null counts as absent."""
        value = self._get(name)
        if value is None and default is not _REQUIRED:
            return str(default)
        if not isinstance(value, str) or not 0 < len(value) <= longest:
            self.fault(name, "a text is needed", "nothing" if value is None else value)
            return ""
        return value

    def section(self, name: str) -> ConfigReader:
        """A reader of a nested mapping; its faults are reported with this one's."""
        value = self._get(name)
        if not isinstance(value, Mapping):
            self.fault(name, "a mapping of keys to values is needed", value)
            value = {}
        inner = ConfigReader(value, self._where, f"{self._path}{name}.")
        self._sections.append(inner)
        return inner

    def must_be(self, name: str, *allowed: Any) -> None:
        """Accept a field only at values under which it changes nothing."""
        value = self._get(name)
        self.read.pop(name, None)
        if value is not None and not _is_one_of(value, allowed):
            known = " or ".join(_shown(item) for item in allowed)
            self.fault(name, f"{known} is needed (nothing else is understood)", value)

    def agree(self, name: str, value: int) -> None:
        """A field that repeats another one must say the same."""
        given = self._get(name)
        self.read.pop(name, None)
        if given is not None and (isinstance(given, bool) or given != value):
            self.contradiction(name, f"{value} is needed, as the fields it repeats say", given)

    def finish(self, irrelevant: Collection[str], ignore: Collection[str] = ()) -> None:
        """Refuse unknown fields together with all faults noted so far.

        Parameters
        ----------
        irrelevant : collection of str
            Fields known to change neither weights nor KV cache nor FLOP.
        ignore : collection of str
            Fields, plain or with their dotted path, that the user vouches for.

        Raises
        ------
        BadInput
            With every fault of this mapping and its sections.
        """
        known = {*self.asked, *irrelevant, *ignore}
        unknown = [
            str(name)[:80]
            for name in self._config
            if name not in known and f"{self._path}{name}" not in known
            if not str(name).startswith("_")
        ]
        for name in unknown[:_MOST_NAMED]:
            hint = did_you_mean(name, self.asked) if len(unknown) < 40 else ""
            guess = f" ({hint})" if hint.startswith("did you mean") else ""
            self.fault(
                name,
                f"a field whose meaning is known is needed{guess}",
                self._config.get(name),
                f"`--ignore-field {name}` if it changes neither weights nor KV cache",
            )
        if len(unknown) > _MOST_NAMED:
            more = f"{len(unknown) - _MOST_NAMED} more unknown ones"
            self.fault("...", "fields whose meaning is known are needed", more)
        for inner in self._sections:
            try:
                inner.finish((), ignore)
            except BadInput as error:
                self.faults.extend(error.faults)
        if self.faults:
            raise BadInput(self.faults)


def _is_one_of(value: object, choices: Sequence[Any]) -> bool:
    return any(type(value) is type(choice) and value == choice for choice in choices)


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping" if value else "{}"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**15:
        return "a number of " + str(int(math.log10(abs(value))) + 1) + " digits"
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
