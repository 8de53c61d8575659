"""Time to validate 300 measured rows in one process, over that of one whole `dpplan optimize`.

The rows are those of `measurements/dualpath.csv`, each run at five loads of its own, so that no
scenario is worked out once for several of them. Both are timed in turn (A B A B ...), so a slow
moment of the machine falls on both; the median of the pairwise ratios is the figure. Needs an
installed `dpplan`.

    python benchmarks/validate_rows.py [--runs 9]
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dpplan.profiles.library import shipped_root

ROWS = 300
AIM = 3.0
OPTIMIZE = ["-m", "dpplan", "optimize", "--hw", "h800.yaml", "--workload", "agentic.yaml"]


def write_rows(target: Path) -> None:
    """The shipped rows at loads a few percent apart."""
    source = shipped_root() / "measurements" / "dualpath.csv"
    with open(source, encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    with open(target, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        for n in range(ROWS):
            row = dict(rows[n % len(rows)])
            for load in ("agents", "agents_per_s"):
                if row[load]:
                    row[load] = repr(float(row[load]) * (1 - 0.01 * (n // len(rows))))
            writer.writerow(row)


def seconds(arguments: list[str]) -> float:
    """Wall time of one fresh interpreter."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        write_rows(path)
        validate = ["-m", "dpplan", "validate", str(path)]
        seconds(validate), seconds(OPTIMIZE)  # warm the file cache
        pairs = [(seconds(validate), seconds(OPTIMIZE)) for _ in range(runs)]
    ratios = [a / b for a, b in pairs]
    own, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"dpplan validate, {ROWS} rows: {own:.3f} s; dpplan optimize: {other:.3f} s")
    spread = f"{min(ratios):.2f}..{max(ratios):.2f}"
    print(f"ratio {statistics.median(ratios):.2f} ({spread}), aim <= {AIM:g}")


if __name__ == "__main__":
    main()
