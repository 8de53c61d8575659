"""Read one YAML file that may be hostile, and remember on which line every key stands.

Only plain mappings, lists and scalars are built, straight from the parser's events: no tags, no
anchors or aliases (so nothing can expand), bounded size, depth and number of values. Nothing in
the file is ever executed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from dpplan.errors import BadInput, Fault

__all__ = ["MAX_BYTES", "Document", "KeyPath", "parse_yaml", "read_bytes", "read_yaml"]

MAX_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 24
MAX_VALUES: Final = 50_000

KeyPath = tuple[str | int, ...]

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Document:
    """The plain value of a file, and where its parts stand."""

    where: str
    """The file's name as the user knows it."""
    value: Any
    """Mappings, lists, str, int, float, bool and None only."""
    lines: dict[KeyPath, int] = field(default_factory=dict)
    """Key path -> line, counted from 1."""
    overrides: dict[KeyPath, str] = field(default_factory=dict)
    """Key path -> the option that set it in place of the file."""

    def locate(self, path: KeyPath) -> str:
        """File, line and dotted key of a path, or of the nearest parent that stands in the file."""
        key = _dotted(path)
        for length in range(len(path), 0, -1):
            if path[:length] in self.overrides:
                option = self.overrides[path[:length]]
                return f"{option}: {key}" if length < len(path) else option
        known = path
        while known and known not in self.lines:
            known = known[:-1]
        line = self.lines.get(known, 1)
        return f"{self.where}:{line}: {key}" if key else f"{self.where}:{line}"

    def replaced(self, path: KeyPath, value: Any, option: str) -> Document:
        """A copy with one value put in, as `--set` does; missing parents become mappings.

        Raises
        ------
        BadInput
            If the path goes through a list at a place that the list doesn't have.
        """
        node = self.value
        for part in path:
            if isinstance(node, list):
                if not isinstance(part, int) or part >= len(node):
                    needed = f"a position from 0 to {len(node) - 1} is needed"
                    raise BadInput(Fault(option, needed, str(part)))
                node = node[part]
            else:
                node = node.get(str(part)) if isinstance(node, dict) else None
        root = _put(self.value, path, value)
        return Document(self.where, root, self.lines, self.overrides | {path: option})


def read_yaml(path: Path, where: str | None = None) -> Document:
    """Read a YAML profile of at most `MAX_BYTES`.

    Raises
    ------
    BadInput
        If the file cannot be read, is too large, is not UTF-8 without byte-order mark, or is not
        plain YAML; a duplicate key is named with both its lines.
    """
    where = where or str(path)
    return parse_yaml(read_bytes(path, where, MAX_BYTES), where)


def read_bytes(path: Path, where: str, limit: int) -> bytes:
    """Contents of a regular file of at most `limit` bytes."""
    try:
        # Opened without blocking and looked at before reading: a pipe or a device in the place of
        # a profile must not hang or flood the planner.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise BadInput(Fault(where, "a regular file is needed", "something else"))
            data = stream.read(limit + 1)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        reason = "a directory" if isinstance(error, IsADirectoryError) else reason
        cure = "check the path and its permissions"
        raise BadInput(Fault(where, "a readable file is needed", reason, cure)) from None
    if len(data) > limit:
        size = path.stat().st_size
        needed = f"at most {limit / 2**20:.0f} MiB is read"
        raise BadInput(
            Fault(where, needed, f"{size / 2**20:.1f} MiB", "give a profile, not a data file")
        )
    return data


def parse_yaml(data: bytes | str, where: str) -> Document:
    """Build the plain value of a YAML text; see `read_yaml`."""
    text = data if isinstance(data, str) else _decode(data, where)
    builder = _Builder(where)
    try:
        value = builder.document(yaml.parse(text, Loader=_Loader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        problem = str(getattr(error, "problem", None) or "it is not YAML").replace("\n", " ")
        cure = "check indentation, quotes and brackets there"
        raise BadInput(Fault(f"{where}{line}", "valid YAML is needed", problem, cure)) from None
    if builder.faults:
        raise BadInput(builder.faults)
    return Document(where, value, builder.lines)


def _dotted(path: KeyPath) -> str:
    """A key path in one line, whatever characters its keys hold."""
    key = ".".join(map(str, path))
    return key if key.isprintable() else repr(key)[1:-1]


def _put(node: Any, path: KeyPath, value: Any) -> Any:
    if not path:
        return value
    head, rest = path[0], path[1:]
    if isinstance(node, list) and isinstance(head, int) and head < len(node):
        return [*node[:head], _put(node[head], rest, value), *node[head + 1 :]]
    branch = dict(node) if isinstance(node, dict) else {}
    branch[str(head)] = _put(branch.get(str(head)), rest, value)
    return branch


def _decode(data: bytes, where: str) -> str:
    cure = "save the file as UTF-8 without byte-order mark"
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise BadInput(Fault(where, "UTF-8 text is needed", "a byte-order mark", cure))
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        got = f"byte 0x{data[error.start]:02x}"
        raise BadInput(Fault(f"{where}:{line}", "UTF-8 text is needed", got, cure)) from None
    for number, line_text in enumerate(text.splitlines(), 1):
        if not line_text.isprintable() and (bad := _control_character(line_text)):
            got = f"the control character U+{ord(bad):04X}"
            raise BadInput(Fault(f"{where}:{number}", "plain text is needed", got, "remove it"))
    return text


def _control_character(text: str) -> str:
    return next((c for c in text if (c < " " and c != "\t") or "\x7f" <= c < "\xa0"), "")


def _plain_value(text: str) -> Any:
    resolvers = _Loader.yaml_implicit_resolvers  # keyed by first character
    kind = None
    for candidate, expression in resolvers.get(text[:1], []) + resolvers.get(None, []):
        if expression.match(text):
            kind = candidate.rsplit(":", 1)[-1]
            break
    if kind == "bool":
        # YAML 1.1 also reads yes, no, on and off as truth values: here those are words.
        lowered = text.lower()
        return lowered == "true" if lowered in ("true", "false") else text
    if kind == "null":
        return None
    if kind in ("int", "float"):
        return _number(text)
    try:
        # "2e9" is a number to everyone but YAML 1.1.
        return float(text) if text[:1] in "+-.0123456789" else text
    except ValueError:
        return text


def _number(text: str) -> Any:
    bare = text.replace("_", "")
    lowered = bare.lower().lstrip("+-")
    if lowered in (".inf", ".nan"):
        sign = "-" if bare.startswith("-") else ""
        return float(sign + lowered[1:])
    try:
        return int(bare, 10) if len(bare) <= 40 else float(bare)
    except ValueError:
        pass
    try:
        return float(bare)
    except ValueError:
        return text  # sexagesimal, octal, hexadecimal: text, refused where a number is due


class _Builder:
    """Builds plain values from parser events, keeping lines and faults."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.lines: dict[KeyPath, int] = {}
        self.faults: list[Fault] = []
        self.values = 0

    def document(self, events: Iterator[Any]) -> Any:
        value: Any = None
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._stop(event, "one YAML document is needed", "a second one")
                value = self._value(next(events), events, ())
        return value

    def _stop(self, event: Any, needed: str, got: str, cure: str = "") -> None:
        line = event.start_mark.line + 1
        raise BadInput(Fault(f"{self.where}:{line}", needed, got, cure))

    def _value(self, event: Any, events: Iterator[Any], path: KeyPath) -> Any:
        self.lines.setdefault(path, event.start_mark.line + 1)
        self.values += 1
        if self.values > MAX_VALUES:
            self._stop(event, f"at most {MAX_VALUES} values are read", "more")
        if len(path) > MAX_DEPTH:
            self._stop(event, f"at most {MAX_DEPTH} levels of nesting are read", "more")
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            cure = "write the value out"
            self._stop(event, "plain values are needed", "a YAML anchor or alias", cure)
        if event.tag is not None and event.tag != "!":
            self._stop(event, "plain values are needed", f"the YAML tag {event.tag!r}", "remove it")
        if isinstance(event, yaml.ScalarEvent):
            return _plain_value(event.value) if event.style in (None, "") else event.value
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(events, path)
        return self._mapping(events, path)

    def _sequence(self, events: Iterator[Any], path: KeyPath) -> list[Any]:
        items: list[Any] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            items.append(self._value(event, events, (*path, len(items))))
        return items

    def _mapping(self, events: Iterator[Any], path: KeyPath) -> dict[str, Any]:
        items: dict[str, Any] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            if not isinstance(event, yaml.ScalarEvent) or event.anchor or event.tag:
                self._stop(event, "a plain text key is needed", "something else")
            key, line = event.value, event.start_mark.line + 1
            key_path = (*path, key)
            duplicate = key in items
            if duplicate:
                where = f"{self.where}:{line}: {_dotted(key_path)}"
                got = f"it twice (first on line {self.lines[key_path]})"
                self.faults.append(Fault(where, "a key once is needed", got, "remove one"))
            else:
                self.lines[key_path] = line
            value = self._value(next(events), events, key_path)
            if not duplicate:
                items[key] = value
        return items
