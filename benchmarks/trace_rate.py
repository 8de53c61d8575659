"""Time to find what caches make of a trace, over that of parsing its JSON and doing nothing.

Writes a Mooncake file of the size asked for and reads it in fresh processes in turn:

- parse: line by line to Python values by the fastest of msgspec (typed), orjson and pysimdjson,
  as far as installed;
- ideal: read, totals, ideal hits;
- all: the same with LRU at all capacities in both conventions, five TTLs and working sets;
- stats: all of `dpplan.traces.statistics.trace_stats`, which adds distributions.

Kinds of files: `turns`, where conversations go on and blocks have small numbers; `hashes`, the same
with random 50-bit ids; `scatter`, where each block is drawn from all, which no cache likes, nor any
program that counts on runs. At most 5 million distinct blocks. Needs an installed `dpplan`.

    python benchmarks/trace_rate.py [--megabytes 100] [--kind turns] [--runs 3] [--folder /tmp]
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

AIMS = {"ideal": 3.0, "all": 30.0, "stats": 30.0}
BLOCK_TOKENS = 512
DISTINCT = 5_000_000
TTLS_S = (60.0, 300.0, 600.0, 1800.0, 3600.0)
CHUNK = 1 << 24


def write_trace(target: Path, size: int, kind: str) -> None:
    """Requests in time order until the file has so many bytes; the same at every run."""
    rng = random.Random(11)
    held: list[list[str]] = []
    fresh = written = stamp = 0
    # In a large file fewer turns bring new blocks, so that these last to its end.
    new_share = min(1.0, DISTINCT / (size / 40))
    factor = 225_199_981_368_527 if kind == "hashes" else 1
    with open(target, "w", encoding="ascii") as stream:
        while written < size:
            stamp += rng.randrange(20)
            if kind == "scatter":
                ids = [str(n) for n in rng.choices(range(DISTINCT), k=rng.randrange(1, 300))]
            else:
                if len(held) < 500 or (rng.random() < 0.03 and fresh < DISTINCT * 0.99):
                    held.append([])
                    if len(held) > 4000:
                        held.pop(rng.randrange(len(held)))
                    at = len(held) - 1
                else:
                    at = rng.randrange(len(held))
                ids = held[at]
                if len(ids) > 300:  # compaction: the head stays
                    ids = ids[:30]
                more = rng.randrange(1, 20)
                if rng.random() < new_share and fresh + more < DISTINCT:
                    numbers = range(fresh, fresh + more)
                    fresh += more
                    ids = ids + [str(n * factor % 2**50) for n in numbers]
                held[at] = ids
            if not ids:
                continue
            tokens = len(ids) * BLOCK_TOKENS - rng.randrange(BLOCK_TOKENS)
            line = (
                f'{{"timestamp": {stamp}, "input_length": {tokens}, '
                f'"output_length": {rng.randrange(1, 900)}, "hash_ids": [{", ".join(ids)}]}}\n'
            )
            written += stream.write(line)


def parsers() -> dict[str, Callable[[bytes], object]]:
    """Ways to parse a line, of the libraries installed."""
    found: dict[str, Callable[[bytes], object]] = {}
    try:
        import msgspec

        class Line(msgspec.Struct):
            timestamp: int
            input_length: int
            output_length: int
            hash_ids: list[int]

        found["msgspec"] = msgspec.json.Decoder(Line).decode
    except ImportError:
        pass
    try:
        import orjson

        found["orjson"] = orjson.loads
    except ImportError:
        pass
    try:
        import simdjson

        parser = simdjson.Parser()
        found["pysimdjson"] = lambda line: parser.parse(line).as_dict()
    except ImportError:
        pass
    return found


def parse_all(parse: Callable[[bytes], object], lines: bytes) -> None:
    """Parse line by line, and drop what comes out."""
    for line in lines.splitlines():
        parse(line)


def whole_lines(path: Path) -> Iterator[bytes]:
    """Chunks of a file that end where lines end."""
    rest = b""
    with open(path, "rb") as stream:
        while data := stream.read(CHUNK):
            end = data.rfind(b"\n") + 1
            yield rest + data[:end]
            rest = data[end:]
    if rest:
        yield rest


def run_here(what: str, path: Path) -> dict[str, object]:
    """Do one thing, and tell seconds and peak memory."""
    found: dict[str, object] = {}
    if what == "parse":
        trial = next(whole_lines(path))
        best_s, parse = float("inf"), None
        for name, candidate in parsers().items():
            start = time.perf_counter()
            parse_all(candidate, trial)
            took_s = time.perf_counter() - start
            if took_s < best_s:
                best_s, parse, found["parser"] = took_s, candidate, name
        assert parse is not None
        start = time.perf_counter()
        for lines in whole_lines(path):
            parse_all(parse, lines)
    elif what == "stats":
        from dpplan.traces.statistics.trace_stats import trace_stats

        start = time.perf_counter()
        stats = trace_stats(path)
        found["ideal"] = stats.cache.ideal_block_hit_fraction
    else:
        from dpplan.traces.caches.cache import CacheAnalysis
        from dpplan.traces.reading.reader import open_trace

        start = time.perf_counter()
        curves = what == "all"
        analysis = CacheAnalysis(curves=curves, ttls_s=TTLS_S if curves else ())
        requests = output_tokens = 0
        for batch in open_trace(path):
            requests += len(batch)
            output_tokens += int(batch.output_tokens.sum())
            analysis.add(batch)
        result = analysis.result()
        found["ideal"] = result.ideal_block_hit_fraction
        found["blocks"], found["distinct"] = result.blocks, result.unique_blocks
        if result.lru is not None:
            found["lru at 100,000 blocks"] = result.lru.block_hit_fraction(100_000)
    found["seconds"] = time.perf_counter() - start
    found["gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return found


def run_apart(what: str, path: Path) -> dict[str, object]:
    """`run_here` in a process of its own."""
    command = [sys.executable, __file__, "--only", what, "--folder", str(path)]
    return dict(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=100.0)
    parser.add_argument("--kind", choices=("turns", "hashes", "scatter"), default="turns")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--only", choices=("parse", *AIMS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(run_here(arguments.only, arguments.folder)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / "trace.jsonl"
        write_trace(path, int(arguments.megabytes * 1e6), arguments.kind)
        rounds = [
            {what: run_apart(what, path) for what in ("parse", *AIMS)}
            for _ in range(arguments.runs)
        ]
    last = rounds[-1]
    parse_s = statistics.median(float(str(r["parse"]["seconds"])) for r in rounds)
    print(f"{arguments.kind}, {arguments.megabytes:g} MB: {last['all']}")
    print(f"parse with {last['parse']['parser']}: {parse_s:.2f} s")
    for what, aim in AIMS.items():
        seconds = [float(str(r[what]["seconds"])) for r in rounds]
        ratio = statistics.median(
            s / float(str(r["parse"]["seconds"])) for s, r in zip(seconds, rounds, strict=True)
        )
        took = f"{statistics.median(seconds):.2f} s"
        memory = f"{float(str(last[what]['gib'])):.2f} GiB"
        print(f"{what}: {took}, ratio {ratio:.2f}, aim <= {aim:g}, peak memory {memory}")


if __name__ == "__main__":
    main()
