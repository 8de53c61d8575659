"""Quantities with units: round trips and refusals."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpplan.units import DIMENSIONS, UnitError, format_quantity, parse_quantity

QUICK = settings(deadline=None, derandomize=True, max_examples=200)


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("400 Gbit/s", "bytes_per_s", 50e9),
        ("400Gbit/s", "bytes_per_s", 50e9),
        ("1 Kibit/s", "bytes_per_s", 128.0),
        ("3.35 TB/s", "bytes_per_s", 3.35e12),
        ("40 GiB/s", "bytes_per_s", 40 * 2**30),
        ("80 GB", "bytes", 80e9),
        ("80 GiB", "bytes", 80 * 2**30),
        ("2 TB", "bytes", 2e12),
        ("1 B", "bytes", 1.0),
        ("989 TFLOP/s", "flop_per_s", 989e12),
        ("1.5 PFLOP/s", "flop_per_s", 1.5e15),
        ("50 ms", "s", 0.05),
        ("4 s", "s", 4.0),
        ("2 min", "s", 120.0),
        ("1 h", "s", 3600.0),
        ("10.2 kW", "w", 10200.0),
        ("98.3 USD/h", "usd_per_h", 98.3),
        (" 1e3 B ", "bytes", 1000.0),
        ("1.e2 B", "bytes", 100.0),
        (".5 GB", "bytes", 5e8),
        ("0 GB", "bytes", 0.0),
    ],
)
def test_quantities_by_hand(text: str, dimension: str, value: float) -> None:
    assert parse_quantity(text, dimension) == pytest.approx(value, rel=1e-15)


@given(st.sampled_from(sorted(DIMENSIONS)), st.data())
@QUICK
def test_every_unit_scales_by_its_factor(dimension: str, data: st.DataObject) -> None:
    unit = data.draw(st.sampled_from(sorted(DIMENSIONS[dimension])))
    number = data.draw(st.floats(0, 1e6))
    text = f"{number!r} {unit}"
    assert parse_quantity(text, dimension) == number * DIMENSIONS[dimension][unit]
    for other, units in DIMENSIONS.items():
        if unit not in units:
            with pytest.raises(UnitError, match="unit of this dimension"):
                parse_quantity(text, other)


@given(st.sampled_from(sorted(DIMENSIONS)), st.floats(1e-3, 1e17))
@QUICK
def test_what_is_written_is_read_back(dimension: str, value: float) -> None:
    """Seventeen digits carry a float through text; four digits to a part in two thousand."""
    assert parse_quantity(format_quantity(value, dimension, 17), dimension) == pytest.approx(
        value, rel=1e-15
    )
    assert parse_quantity(format_quantity(value, dimension), dimension) == pytest.approx(
        value, rel=5e-4
    )


@pytest.mark.parametrize("dimension", sorted(DIMENSIONS))
@pytest.mark.parametrize(
    "value",
    [
        80,
        80.0,
        True,
        None,
        [],
        {},
        "80",
        "",
        " ",
        "GB",
        "-1 GB",
        "-80 ms",
        "+1 GB",
        "1,5 GB",
        "1 000 GB",
        "nan GB",
        "inf s",
        "1e999 B",
        "0x10 B",
        "80 GB extra",
        "80 gb",
        "80 Gb",
        "80 GBs",
        "80 Gb/s",
        "80 Gbps",
        "80 GB /s",
        "80\nGB",
        "٣ GB",
        "1" * 100 + " GB",
    ],
)
def test_anything_else_is_refused(value: object, dimension: str) -> None:
    with pytest.raises(UnitError):
        parse_quantity(value, dimension)


def test_refusals_say_what_would_do() -> None:
    with pytest.raises(UnitError, match="400 Gbit/s"):
        parse_quantity(50e9, "bytes_per_s")
    with pytest.raises(UnitError, match="80 GB or 80 GiB"):
        parse_quantity("80 GB/s", "bytes")
    with pytest.raises(UnitError, match="non-negative"):
        parse_quantity("-1 GB", "bytes")
    with pytest.raises(UnitError, match="finite"):
        parse_quantity("1e999 B", "bytes")


def test_bits_and_bytes_are_never_one_another() -> None:
    assert parse_quantity("8 Gbit/s", "bytes_per_s") == parse_quantity("1 GB/s", "bytes_per_s")
    assert parse_quantity("1 GiB", "bytes") > parse_quantity("1 GB", "bytes")
    with pytest.raises(UnitError):
        parse_quantity("8 Gbit", "bytes")


def test_infinity_is_unlimited() -> None:
    assert format_quantity(math.inf, "bytes_per_s") == "unlimited"
    assert format_quantity(999.99e6, "bytes", 6) == "999.99 MB"
    assert format_quantity(0.0, "bytes") == "0 B"
