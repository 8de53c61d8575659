"""Whole-process time of the command line, as ratios within one run.

Each command is timed in turn with its yardstick (A B A B ...), so a slow moment of the machine
falls on both; the median of the pairwise ratios is the figure. Needs an installed `dpplan`.

    python benchmarks/start_up.py [--runs 15]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

PAIRS = {
    "dpplan optimize": (
        ["-m", "dpplan", "optimize", "--hw", "h800.yaml", "--workload", "agentic.yaml"],
        ["-c", "import numpy, pulp, highspy"],
        2.0,
    ),
    "dpplan optimize --format json": (
        ["-m", "dpplan", "optimize", "--hw", "h800", "--workload", "agentic", "--format", "json"],
        ["-c", "import numpy, pulp, highspy"],
        2.0,
    ),
    "dpplan predict, against optimize": (
        ["-m", "dpplan", "predict", "--hw", "h800", "--workload", "agentic", "--agents", "2048"],
        ["-m", "dpplan", "optimize", "--hw", "h800", "--workload", "agentic"],
        2.0,
    ),
    "dpplan --help": (["-m", "dpplan", "--help"], ["-c", "import typer, rich.table"], 2.0),
}


def seconds(arguments: list[str]) -> float:
    """Wall time of one fresh interpreter."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Print a row a pair."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    print(f"{'command':32} {'median':>8} {'yardstick':>10} {'ratio':>6} {'min..max':>12}  aim")
    for name, (command, yardstick, aim) in PAIRS.items():
        seconds(command), seconds(yardstick)  # warm the file cache
        pairs = [(seconds(command), seconds(yardstick)) for _ in range(runs)]
        ratios = [a / b for a, b in pairs]
        own, other = (statistics.median(column) for column in zip(*pairs, strict=True))
        spread = f"{min(ratios):.2f}..{max(ratios):.2f}"
        ratio = statistics.median(ratios)
        print(f"{name:32} {own:6.3f} s {other:8.3f} s {ratio:6.2f} {spread:>12}  <= {aim:g}")


if __name__ == "__main__":
    main()
