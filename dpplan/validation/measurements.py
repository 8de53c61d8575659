"""Measured results as CSV: one number a row, checked before anything is predicted."""

from __future__ import annotations

import csv
import hashlib
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dpplan.errors import BadInput, Fault, did_you_mean
from dpplan.profiles.yaml_reader import read_bytes

__all__ = ["COLUMNS", "METRICS", "SYSTEM_NAMES", "Measurement", "fingerprint", "read_measurements"]

COLUMNS: Final = (
    "figure",
    "hardware",
    "model",
    "prefill_nodes",
    "decode_nodes",
    "workload",
    "agents",
    "agents_per_s",
    "system",
    "append_scale",
    "output_scale",
    "metric",
    "value",
)
"""Columns of a file of measurements; others are kept and shown, not read."""

METRICS: Final = (
    "jct_s",
    "ttft_s",
    "ttst_s",
    "tpot_s",
    "working_set_bytes",
    "agents_in_system",
    "capacity_agents_per_s",
)

SYSTEM_NAMES: Final = (
    "basic",
    "basic+layerwise",
    "basic+layerwise+dualpath",
    "dualpath",
    "oracle",
)

_OPTIONAL: Final = ("figure", "agents", "agents_per_s", "append_scale", "output_scale")
_MAX_BYTES: Final = 16 * 1024 * 1024
_MAX_ROWS: Final = 100_000
_MOST_FAULTS: Final = 20
_MOST_NODES: Final = 100_000


@dataclass(frozen=True)
class Measurement:
    """One measured number and the run it is of."""

    figure: str
    hardware: str
    model: str
    prefill_nodes: int
    decode_nodes: int
    workload: str
    agents: float | None
    agents_per_s: float | None
    system: str
    append_scale: float
    output_scale: float
    metric: str
    value: float
    cells: dict[str, str]
    """The row as it stands in the file, all columns."""
    line: int


def read_measurements(path: Path) -> tuple[Measurement, ...]:
    """Read a CSV of measurements (UTF-8, a header line, columns in any order).

    Parameters
    ----------
    path : Path
        At most 16 MiB and 100,000 rows.

    Raises
    ------
    BadInput
        With the faults of all lines, each with file, line and column.
    """
    where = str(path)
    try:
        text = read_bytes(path, where, _MAX_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        needed = "text in UTF-8 is needed"
        raise BadInput(Fault(where, needed, f"byte {error.start} that is none")) from None
    if text.startswith("\ufeff"):
        raise BadInput(Fault(f"{where}:1", "UTF-8 without a byte-order mark is needed", "one"))
    if "\0" in text:
        raise BadInput(Fault(where, "text in UTF-8 is needed", "a null character"))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    faults: list[Fault] = []
    found: list[Measurement] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(header, where)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            line = f"{where}:{reader.line_num}"
            if len(cells) != len(header):
                needed = f"{len(header)} columns are needed, as in the header"
                faults.append(Fault(line, needed, str(len(cells))))
            elif len(found) >= _MAX_ROWS:
                faults.append(Fault(line, f"at most {_MAX_ROWS} rows are read", "more"))
            else:
                row = dict(zip(header, (cell.strip() for cell in cells), strict=True))
                faulty = len(faults)
                measurement = _measurement(row, line, reader.line_num, faults)
                if len(faults) == faulty:
                    found.append(measurement)
            if len(faults) >= _MOST_FAULTS:
                break
    except csv.Error as error:
        faults.append(Fault(f"{where}:{reader.line_num}", "valid CSV is needed", str(error)))
    if faults:
        raise BadInput(faults)
    if not found:
        raise BadInput(Fault(where, "at least one row of measurements is needed", "none"))
    return tuple(found)


def fingerprint(path: Path) -> str:
    """SHA-256 of a file of measurements, as a calibration names the data it rests on.

    Raises
    ------
    BadInput
        If the file cannot be read.
    """
    return hashlib.sha256(read_bytes(path, str(path), _MAX_BYTES)).hexdigest()


def _check_header(header: list[str], where: str) -> None:
    faults = []
    missing = [name for name in COLUMNS if name not in header and name not in _OPTIONAL]
    if missing:
        strange = [name for name in header if name not in COLUMNS]
        cure = "; ".join(did_you_mean(name, COLUMNS) for name in strange[:1])
        needed = f"a header with the columns {', '.join(missing)} is needed"
        got = ", ".join(header)[:80] or "nothing"
        faults.append(Fault(f"{where}:1", needed, got, cure))
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        needed = "each column once is needed"
        faults.append(Fault(f"{where}:1", needed, f"{', '.join(twice)} twice"))
    if faults:
        raise BadInput(faults)


def _measurement(row: dict[str, str], line: str, number: int, faults: list[Fault]) -> Measurement:
    def positive(column: str, *, whole: bool = False) -> float | None:
        text = row.get(column, "")
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        most = _MOST_NODES if whole else 1e30
        if not 0 < value <= most or (whole and value != int(value)):
            kind = f"a whole number from 1 to {most}" if whole else "a number above zero"
            faults.append(Fault(f"{line}: {column}", f"{kind} is needed", repr(text[:40])))
            return None
        return value

    def needed(column: str, *, whole: bool = False) -> float:
        if not row[column]:
            faults.append(Fault(f"{line}: {column}", "a value is needed", "nothing"))
        return positive(column, whole=whole) or 1.0

    def one_of(column: str, known: tuple[str, ...]) -> str:
        if row[column] not in known:
            cure = did_you_mean(row[column][:80], known)
            got = repr(row[column][:40])
            faults.append(Fault(f"{line}: {column}", f"a known {column} is needed", got, cure))
        return row[column]

    def name(column: str) -> str:
        if not row[column]:
            faults.append(Fault(f"{line}: {column}", "the name of a profile is needed", "nothing"))
        return row[column]

    agents, rate = positive("agents"), positive("agents_per_s")
    metric = one_of("metric", METRICS)
    if metric == "capacity_agents_per_s":
        if agents is not None or rate is not None:
            wanted = "no agents and no agents_per_s are needed: the value is the rate"
            faults.append(Fault(f"{line}: metric", wanted, metric))
    elif metric in METRICS and not row.get("agents", "") and not row.get("agents_per_s", ""):
        wanted = "agents (a job) or agents_per_s (arrivals) is needed"
        faults.append(Fault(f"{line}: agents", wanted, "neither"))
    elif row.get("agents", "") and row.get("agents_per_s", ""):
        wanted = "agents (a job) or agents_per_s (arrivals) is needed"
        faults.append(Fault(f"{line}: agents", wanted, "both"))
    return Measurement(
        figure=row.get("figure", ""),
        hardware=name("hardware"),
        model=name("model"),
        prefill_nodes=int(needed("prefill_nodes", whole=True)),
        decode_nodes=int(needed("decode_nodes", whole=True)),
        workload=name("workload"),
        agents=agents,
        agents_per_s=rate,
        system=one_of("system", SYSTEM_NAMES),
        append_scale=positive("append_scale") or 1.0,
        output_scale=positive("output_scale") or 1.0,
        metric=metric,
        value=needed("value"),
        cells=row,
        line=number,
    )
