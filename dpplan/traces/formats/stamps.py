"""Points in time as traces write them: dates, and numbers since 1970 in several units."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import numpy as np

from dpplan.arrays import Ints
from dpplan.traces.reading.faults import BadRecord

__all__ = ["DATE", "date_ns", "date_s", "since_1970_s"]

# 1970 to 2199, so that nanoseconds fit 64 bits; up to 9 digits of a second; UTC, or unsaid.
DATE: Final = (
    rb"((?:19[7-9]\d|2[01]\d\d)-\d\d-\d\d)[T ](\d\d:\d\d:\d\d(?:\.\d{1,9})?)\d*(?:Z| ?[+-]00:?00)?"
)
# Numbers from here on are in the unit: no trace is older than 1973 or younger than 2286.
UNITS: Final = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))


def date_ns(dates: Sequence[tuple[bytes, bytes]]) -> Ints:
    """Nanoseconds since 1970 of dates and times of day that `DATE` has matched.

    Raises
    ------
    ValueError
        If there is no such day or time of day.

    Examples
    --------
    >>> date_ns([(b"1970-01-01", b"00:00:01.0000001")])
    array([1000000100])
    """
    text = [f"{day.decode()}T{time.decode()}" for day, time in dates]
    return np.array(text, "datetime64[ns]").astype(np.int64)


def date_s(text: str) -> float | None:
    """Seconds since 1970 of a date with or without a zone; None if it isn't one.

    >>> date_s("1970-01-01 00:00:01.5"), date_s("1970-01-01T01:00:00+01:00"), date_s("12")
    (1.5, 0.0, None)
    """
    if not re.match(r"\d{4}-\d\d-\d\d[T ]\d", text):
        return None
    try:
        stamp = datetime.fromisoformat(text)
        return (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def since_1970_s(value: object) -> float:
    """Seconds since 1970 of a number in s, ms, us or ns, told by its size, or of a date.

    Raises
    ------
    BadRecord
        If it is neither.

    Examples
    --------
    >>> since_1970_s(1760428503399051), since_1970_s("1760428503"), since_1970_s(1760428503399)
    (1760428503.399051, 1760428503.0, 1760428503.399)
    """
    number = None
    if isinstance(value, str):
        number = date_s(value)
        if number is None and re.fullmatch(r"\s*\d{1,20}(\.\d{1,20})?\s*", value):
            number = float(value)
    elif isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e20:
        number = float(value)
    if number is None:
        got = repr(value)[:40]
        raise BadRecord("timestamp: a time since 1970 or a date is needed", got)
    for least, per_second in UNITS:
        if number >= least:
            return number / per_second
    return number
