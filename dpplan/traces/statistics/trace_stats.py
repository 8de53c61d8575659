"""Statistics of a trace in one pass over its requests."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Final

from dpplan.errors import BadInput, Fault
from dpplan.traces.caches.cache import CacheAnalysis, CacheResult, RequestHits
from dpplan.traces.caches.curves import TtlCurve
from dpplan.traces.reading.reader import Trace, open_trace
from dpplan.traces.requests import Requests, TraceFacts
from dpplan.traces.statistics.arrivals import ArrivalCounter, Arrivals
from dpplan.traces.statistics.distributions import Distribution, TokenCounter
from dpplan.traces.statistics.inferred_sessions import InferredSessions, SessionFinder
from dpplan.traces.statistics.session_turns import Sessions, SessionTurns
from dpplan.traces.statistics.trace_summary import CurvePoint, TraceStats

__all__ = ["TTLS_S", "trace_stats"]

TTLS_S: Final = (60.0, 300.0, 600.0, 1800.0, 3600.0)
"""Times to live that are looked at where none are asked for."""
_COARSE: Final = 0.5

PathLike = str | Path


def trace_stats(
    trace: Trace | PathLike | Sequence[PathLike],
    *,
    capacities_blocks: Sequence[int] = (),
    ttls_s: Sequence[float] = TTLS_S,
    memory_bytes: float | None = None,
    curves: bool = True,
    on_batch: Callable[[Requests, RequestHits], None] | None = None,
    **reading: Any,
) -> TraceStats:
    """Requests, sessions, token counts, gaps and hit rates of a trace (H).

    Parameters
    ----------
    trace : Trace, path or sequence of paths
        An open trace, or its files.
    capacities_blocks : sequence of int, optional
        Sizes of an LRU cache to give hit rates at [blocks].
    ttls_s : sequence of float, optional
        Times to live to give hit rates at [s].
    memory_bytes : float, optional
        Beyond it, blocks are sampled (H-sample); absent = exact.
    curves : bool, optional
        False: no hit rates against cache size, which take most of the time.
    on_batch : callable, optional
        Called with every batch of requests and their hits at `capacities_blocks`.
    **reading
        How files are read, as `open_trace` takes it; an open trace knows.

    Returns
    -------
    TraceStats

    Raises
    ------
    BadInput
        If a file cannot be read as a trace.
    """
    if faults := _faults(capacities_blocks, ttls_s, memory_bytes):
        raise BadInput(faults)
    if not isinstance(trace, Trace):
        trace = open_trace(trace, **reading)
    facts = trace.facts
    inputs, outputs = TokenCounter(), TokenCounter()
    arrivals = ArrivalCounter(scoped=facts.scoped)
    turns = SessionTurns(scoped=facts.scoped) if facts.has_sessions else None
    finder = None
    if turns is None and facts.block_tokens is not None and not facts.scoped:
        finder = SessionFinder(facts.block_tokens)
    cache = CacheAnalysis(
        capacities_blocks=tuple(capacities_blocks) if on_batch else (),
        ttls_s=tuple(ttls_s),
        memory_bytes=memory_bytes,
        curves=curves,
    )
    for requests in trace:
        hits = cache.add(requests)
        inputs.add(requests.input_tokens)
        outputs.add(requests.output_tokens)
        for counter in (arrivals, turns, finder):
            if counter is not None:
                counter.add(requests)
        if on_batch is not None:
            on_batch(requests, hits)
    return _summary(
        trace.facts,
        {"input_tokens": inputs.result(), "output_tokens": outputs.result()},
        arrivals.result(),
        None if turns is None else turns.result(),
        None if finder is None else (finder.result() or finder.refusal),
        cache.result(),
        tuple(capacities_blocks),
    )


def _faults(
    capacities_blocks: Sequence[int], ttls_s: Sequence[float], memory_bytes: float | None
) -> list[Fault]:
    """What is wrong with arguments of a Python caller."""
    needed = "whole numbers of blocks from 0 are needed"
    found = [
        Fault("capacities_blocks", needed, repr(blocks))
        for blocks in capacities_blocks
        if not (_is_a(blocks, Integral) and 0 <= blocks <= 10**15)
    ]
    memory = () if memory_bytes is None else (memory_bytes,)
    for name, values in (("ttls_s", ttls_s), ("memory_bytes", memory)):
        found += [
            Fault(name, "finite numbers above zero are needed", repr(value))
            for value in values
            if not (_is_a(value, Real) and 0 < value < math.inf)
        ]
    return found


def _is_a(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _summary(
    facts: TraceFacts,
    by_turn: dict[str, Distribution],
    arrivals: Arrivals,
    turns: Sessions | None,
    inferred: InferredSessions | str | None,
    cache: CacheResult,
    capacities: tuple[int, ...],
) -> TraceStats:
    """Everything put together; `inferred` sessions, or why there are none."""
    inputs, outputs = by_turn.values()
    if turns is not None:
        renamed = {"turns_per_session": "turns_per_session_by_turn"}
        by_turn |= {renamed.get(name, name): kept for name, kept in turns.by_turn.items()}
    refusal = inferred if isinstance(inferred, str) else None
    ttl = cache.ttl or TtlCurve((), (), ())
    ttls = [seconds_text(seconds) for seconds in ttl.ttls_s]
    grid = () if cache.lru is None else tuple(cache.lru.capacities().tolist())
    return TraceStats(
        facts=facts,
        requests=inputs.count,
        sessions=None if turns is None else turns.sessions,
        turns_per_session_mean=(
            turns.turns / turns.sessions if turns is not None and turns.sessions else None
        ),
        input_tokens_mean=inputs.mean,
        output_tokens_mean=outputs.mean,
        arrivals=arrivals,
        distributions=by_turn,
        session_distributions={} if turns is None else turns.by_session,
        turns=turns,
        inferred=None if isinstance(inferred, str) else inferred,
        cache=cache,
        asked=_points(cache, capacities, facts.block_tokens),
        curve=_points(cache, grid, facts.block_tokens),
        ttl_block_hit_fraction=dict(zip(ttls, ttl.block_hit_fraction, strict=True)),
        ttl_token_hit_fraction=dict(zip(ttls, ttl.token_hit_fraction, strict=True)),
        notes=(*facts.notes, *_notes(facts, arrivals, refusal), *_sample_notes(cache)),
    )


def seconds_text(seconds: float) -> str:
    """A time as a key: whole seconds without a point.

    >>> seconds_text(600.0), seconds_text(0.25)
    ('600', '0.25')
    """
    return str(int(seconds)) if float(seconds).is_integer() else repr(float(seconds))


def _points(
    cache: CacheResult, capacities: tuple[int, ...], block_tokens: int | None
) -> tuple[CurvePoint, ...]:
    lru, per_block = cache.lru, cache.per_block_lru
    if lru is None or per_block is None:
        return ()
    return tuple(
        CurvePoint(
            capacity_blocks=blocks,
            capacity_tokens=None if block_tokens is None else blocks * block_tokens,
            lru_block_hit_fraction=lru.block_hit_fraction(blocks),
            lru_token_hit_fraction=lru.token_hit_fraction(blocks),
            lru_standard_error=lru.standard_error(blocks),
            per_block_lru_hit_fraction=per_block.block_hit_fraction(blocks),
            per_block_lru_token_hit_fraction=per_block.token_hit_fraction(blocks),
        )
        for blocks in capacities
    )


def _sample_notes(cache: CacheResult) -> list[str]:
    if cache.sampled_fraction == 1.0:
        return []
    error = (
        f" (ideal hits: standard error {cache.lru.standard_error(cache.unique_blocks):.2g})"
        if cache.lru is not None
        else ""
    )
    return [
        f"memory allowed for {100 * cache.sampled_fraction:.3g} % of the blocks: hit rates, "
        f"distinct blocks and working sets are estimates{error}; those at times to live err alike"
    ]


def _notes(facts: TraceFacts, arrivals: Arrivals, refusal: str | None) -> list[str]:
    said = []
    if arrivals.clock == "per scope":
        said.append(
            "every conversation has a clock and a cache of its own: duration_s is the longest's, "
            "and there is no arrival rate of all together; capacities are per conversation"
        )
    elif arrivals.clock == "unknown":
        said.append("arrival times are missing: no duration, rates, burstiness or TTL hits")
    if not arrivals.in_order:
        said.append("arrivals are not in order of time: nothing is said of burstiness")
    zeros = arrivals.zero_interarrival_fraction
    if zeros is not None and zeros > _COARSE and arrivals.time_step_s is not None:
        said.append(
            f"arrival times are coarse: {100 * zeros:.0f} % of requests are stamped as the one "
            f"before, a new stamp every {arrivals.time_step_s:.3g} s on average; burstiness below "
            "that is that of the stamps"
        )
    if not facts.has_sessions:
        said.append("the trace names no sessions")
    if refusal is not None:
        said.append(f"sessions are not inferred: {refusal}")
    return said
