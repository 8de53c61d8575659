"""H-synthesis: traces made from a workload profile, in the form that load generators replay.

Mooncake's session form: a session's first line has its `timestamp`, later ones the `delay` after
the previous answer, all times in milliseconds; `input_length` and `hash_ids` are what a turn adds.
Sessions arrive at random (Poisson) and share nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dpplan.arrays import Array, Ints
from dpplan.demand.quantiles import Quantiles
from dpplan.errors import BadInput, Fault
from dpplan.profiles.workload import TurnClass
from dpplan.traces.synthesis.measured_law import gap_quantiles, law_of

__all__ = ["BLOCK_TOKENS", "Turns", "synthesize", "synthesize_sessions", "trace_lines"]


BLOCK_TOKENS: Final = 512
"""Tokens of a block, as in Mooncake's traces."""
_AT_A_TIME: Final = 1024
"""Sessions whose random numbers are drawn together: part of what a seed means."""
_MOST_SESSIONS: Final = 10**9
_LEAST_PER_S: Final = 1e-6
_MOST_PER_S: Final = 1e6


@dataclass(frozen=True)
class Turns:
    """One session; columns of shape (turns,)."""

    number: int
    start_s: float
    input_tokens: Ints
    """What each turn adds to the prompt; the first one brings the head of the first prompt, too."""
    output_tokens: Ints
    delay_s: Array
    """After the previous answer; 0 for the first turn."""


def synthesize(
    workload: TurnClass, sessions: int, seed: int = 0, agents_per_s: float = 1.0
) -> Iterator[dict[str, Any]]:
    """Records of a trace whose sessions are a workload's (H-synthesis).

    The means of n sessions are the workload's within the luck of the draw, a standard error of
    deviation/sqrt(n), and half a token. Where the workload has measured distributions, turns,
    tokens and gaps are drawn from these.

    Parameters
    ----------
    workload : TurnClass
    sessions : int
        How many, from 1.
    seed : int
        The same seed gives the same trace.
    agents_per_s : float
        Mean arrivals of sessions [1/s].

    Yields
    ------
    dict
        `session_id`, `timestamp` of a first turn or `delay` of a later one [ms], `input_length`,
        `output_length`, `hash_ids` of blocks of 512 tokens.

    Raises
    ------
    BadInput
        If an argument is wrong, or the workload is more than can be written.

    Examples
    --------
    >>> w = TurnClass(name="x", model="m", turns_per_session=2, context_tokens=625,
    ...     append_tokens=30, output_tokens=20, session_tokens=700)
    >>> for record in synthesize(w, 1): print(record["input_length"], record["hash_ids"])
    630 [0, 1]
    30 [2]
    """
    blocks = 0
    for one in synthesize_sessions(workload, sessions, seed, agents_per_s):
        yield from _records(one, blocks)
        blocks += _blocks(one)


def trace_lines(
    workload: TurnClass, sessions: int, seed: int = 0, agents_per_s: float = 1.0
) -> Iterator[bytes]:
    """The same as JSON Lines, one piece of text a session; arguments and errors as `synthesize`."""
    blocks = 0
    for one in synthesize_sessions(workload, sessions, seed, agents_per_s):
        lines = [json.dumps(record, separators=(",", ":")) for record in _records(one, blocks)]
        yield ("\n".join(lines) + "\n").encode("ascii")
        blocks += _blocks(one)


def synthesize_sessions(
    workload: TurnClass, sessions: int, seed: int = 0, agents_per_s: float = 1.0
) -> Iterator[Turns]:
    """The same as sessions; arguments and errors as `synthesize`."""
    _check(sessions, seed, agents_per_s)
    law, gaps = law_of(workload), gap_quantiles(workload)
    # Uniform numbers alone: how other laws are drawn may change from release to release of numpy.
    draw = np.random.Generator(np.random.PCG64(seed))
    clock_s = 0.0
    for begin in range(0, sessions, _AT_A_TIME):
        count = min(_AT_A_TIME, sessions - begin)
        between, place, rounding, *starts = draw.random((5, _AT_A_TIME))
        turns = law.turns.at(place[:count], rounding[:count])
        arrivals = clock_s + np.cumsum(_exponential(between[:count], 1.0 / agents_per_s))
        clock_s = float(arrivals[-1])
        for i in range(count):
            added, generated = law.tokens_of(int(turns[i]), draw)
            delays = _gaps(draw.random(len(added)), *gaps)
            delays[0] = 0.0
            yield Turns(
                number=begin + i,
                start_s=float(arrivals[i]),
                input_tokens=_whole(added, float(starts[0][i])),
                output_tokens=_whole(generated, float(starts[1][i])),
                delay_s=delays,
            )


def _blocks(one: Turns) -> int:
    return int((-(-one.input_tokens // BLOCK_TOKENS)).sum())


def _records(one: Turns, blocks: int) -> Iterator[dict[str, Any]]:
    """Records of a session, its blocks numbered from `blocks` on."""
    name = f"session-{one.number:08d}"
    columns = (one.input_tokens.tolist(), one.output_tokens.tolist(), one.delay_s.tolist())
    for turn, (tokens, output, delay) in enumerate(zip(*columns, strict=True)):
        following = blocks + -(-tokens // BLOCK_TOKENS)
        record = {
            "session_id": name,
            "input_length": tokens,
            "output_length": output,
            "hash_ids": list(range(blocks, following)),
        }
        if turn:
            record["delay"] = round(delay * 1e3, 1)
        else:
            record["timestamp"] = round(one.start_s * 1e3, 1)
        blocks = following
        yield record


def _whole(tokens: Array, start: float) -> Ints:
    """Whole numbers whose running sums stay within one of those given; right on average.

    >>> _whole(np.array([1.5, 1.5, 1.5, 1.5]), 0.6).tolist()
    [2, 1, 2, 1]
    """
    sums = np.floor(np.cumsum(tokens) + start + 1e-9).astype(np.int64)
    return np.diff(sums, prepend=0)


def _gaps(uniform: Array, measured: Quantiles | None, mean_s: float) -> Array:
    """Gaps at uniform places, of the quantiles measured or else exponential."""
    return _exponential(uniform, mean_s) if measured is None else mean_s * measured.at(uniform)


def _exponential(uniform: Array, mean: float) -> Array:
    return np.asarray(-mean * np.log1p(-uniform))


def _check(sessions: int, seed: int, agents_per_s: float) -> None:
    faults = []
    if not 1 <= sessions <= _MOST_SESSIONS:
        needed = f"a count from 1 to {_MOST_SESSIONS:,} is needed"
        faults.append(Fault("--sessions", needed, str(sessions)))
    if not 0 <= seed < 2**63:
        faults.append(Fault("--seed", "a whole number from 0 is needed", str(seed)))
    if not _LEAST_PER_S <= agents_per_s <= _MOST_PER_S:
        needed = f"a rate from {_LEAST_PER_S:g} to {_MOST_PER_S:,.0f} is needed"
        faults.append(Fault("--agents-per-s", needed, str(agents_per_s)))
    if faults:
        raise BadInput(faults)
