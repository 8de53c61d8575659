"""Closed form over an array of scenarios against PuLP + HiGHS one by one, as a ratio of rates.

The scenarios are real ones: the shipped h800 plan with every capacity and amount drawn within a
factor of four, and both roads must agree on each that the LP solves.

    python benchmarks/closed_form_vs_lp.py [--scenarios 1000000] [--lps 300]
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from dpplan.planner.optimize import prepare
from dpplan.solvers.closed_form import best_split
from dpplan.solvers.lp import maximise_turns


def main() -> None:
    """Print both rates, their ratio and the largest disagreement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenarios", type=int, default=1_000_000)
    parser.add_argument("--lps", type=int, default=300)
    arguments = parser.parse_args()
    limits = prepare("h800", "agentic", prefill_nodes=2, decode_nodes=4).limits
    rng = np.random.default_rng(7)
    rows = len(limits.per_prefill_node)

    def drawn() -> np.ndarray:
        return np.exp2(rng.uniform(-2, 2, (arguments.scenarios, rows)))

    capacity = limits.capacity(2, 4) * drawn()
    spread = drawn()
    first, second = limits.use[0, 0] * spread, limits.use[0, 1] * spread

    start = time.perf_counter()
    split = best_split(first, second, capacity)
    array_s = (time.perf_counter() - start) / arguments.scenarios

    start = time.perf_counter()
    worst = 0.0
    for i in range(arguments.lps):
        answer = maximise_turns([[first[i], second[i]]], capacity[i])
        worst = max(worst, abs(answer.turns_per_s / float(split.turns_per_s[i]) - 1))
    lp_s = (time.perf_counter() - start) / arguments.lps

    start = time.perf_counter()
    bare = [_bare_highs(first[i], second[i], capacity[i]) for i in range(arguments.lps)]
    bare_s = (time.perf_counter() - start) / arguments.lps
    assert len(bare) == arguments.lps

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    inputs = (first.nbytes + second.nbytes + capacity.nbytes) / 2**30
    print(f"closed form, array of {arguments.scenarios:,}: {array_s * 1e6:8.2f} us a scenario")
    print(f"LP with certificate, one by one:     {lp_s * 1e6:8.0f} us, {lp_s / array_s:,.0f}x")
    print(f"PuLP + HiGHS alone, one by one:      {bare_s * 1e6:8.0f} us, {bare_s / array_s:,.0f}x")
    print("aim: at least 1,000x")
    print(f"largest disagreement: {worst:.1e} relative")
    print(f"peak memory {peak:.2f} GiB, of which inputs {inputs:.2f} GiB and their drawing")


def _bare_highs(first: np.ndarray, second: np.ndarray, capacity: np.ndarray) -> float:
    """The same LP in the fewest PuLP calls, default options, no certificate."""
    import pulp

    problem = pulp.LpProblem("p", pulp.LpMaximize)
    a, b = problem.add_variable("a", 0), problem.add_variable("b", 0)
    problem.setObjective(a + b)
    scale = float((first / capacity).max())
    for i, (u, v) in enumerate(
        zip(first / capacity / scale, second / capacity / scale, strict=True)
    ):
        if u or v:
            row = pulp.LpAffineExpression([(a, float(u)), (b, float(v))]) <= 1
            problem.addConstraint(row, f"r{i}")
    problem.solve(pulp.HiGHS(msg=False))
    return float(pulp.value(problem.objective)) / scale


if __name__ == "__main__":
    main()
