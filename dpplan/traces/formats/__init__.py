"""The trace formats in use, one module each, and telling them apart by the first records."""

from __future__ import annotations

import importlib
from typing import Final

from dpplan.errors import BadInput, Fault, did_you_mean
from dpplan.traces.formats.common import FormatReader, Head, Reading

__all__ = ["FORMATS", "detect", "make_reader"]

# In the order in which they are asked; a plain table comes last, for it knows only its header.
FORMATS: Final = {
    "weka": "WekaReader",
    "aiperf": "AiperfReader",
    "mooncake": "MooncakeReader",
    "chat": "ChatReader",
    "azure": "AzureReader",
    "table": "TableReader",
}


def detect(head: Head) -> str | None:
    """Name of the format of a text, by its first records.

    >>> detect(Head([b'{"timestamp": 0, "input_length": 3, "output_length": 1}'], b""))
    'mooncake'
    >>> detect(Head([b"dear diary"], b"")) is None
    True
    """
    for name in FORMATS:
        if _reader(name).recognises(head):
            return name
    return None


def make_reader(name: str, head: Head, reading: Reading) -> FormatReader:
    """The reader of a format.

    Raises
    ------
    BadInput
        If there is no such format.
    """
    if name not in FORMATS:
        needed = "the name of a trace format is needed"
        raise BadInput(Fault("--format-of", needed, name, did_you_mean(name, FORMATS)))
    return _reader(name)(head, reading)


def _reader(name: str) -> type[FormatReader]:
    reader: type[FormatReader] = getattr(
        importlib.import_module(f"{__name__}.{name}"), FORMATS[name]
    )
    return reader
