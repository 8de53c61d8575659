"""Statistics of a trace in one pass over its requests."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Final

import numpy as np

from dpplan.errors import BadInput, Fault
from dpplan.traces.caches.cache import CacheAnalysis, CacheResult, RequestHits
from dpplan.traces.caches.curves import HitCurve
from dpplan.traces.reading.reader import Trace, open_trace
from dpplan.traces.requests import Requests, TraceFacts
from dpplan.traces.statistics.arrivals import ArrivalCounter, Arrivals
from dpplan.traces.statistics.distributions import TokenCounter
from dpplan.traces.statistics.inferred_sessions import SessionFinder
from dpplan.traces.statistics.session_turns import SessionTurns
from dpplan.traces.statistics.trace_summary import CurvePoint, TraceStats

__all__ = ["TTLS_S", "trace_stats"]

TTLS_S: Final = (60.0, 300.0, 600.0, 1800.0, 3600.0)
"""Times to live that are looked at where none are asked for."""
_COARSE: Final = 0.5

PathLike = str | Path


def trace_stats(
    trace: Trace | PathLike | Sequence[PathLike],
    *,
    format: str | None = None,
    columns: Mapping[str, str] | str | None = None,
    tokenizer: PathLike | None = None,
    block_tokens: int | None = None,
    strict: bool = False,
    capacities_blocks: Sequence[int] = (),
    ttls_s: Sequence[float] = TTLS_S,
    memory_bytes: float | None = None,
    curves: bool = True,
    on_batch: Callable[[Requests, RequestHits], None] | None = None,
) -> TraceStats:
    """Requests, sessions, token counts, gaps and hit rates of a trace (H).

    Parameters
    ----------
    trace : Trace, path or sequence of paths
        An open trace, or its files.
    format, columns, tokenizer, block_tokens, strict
        How files are read, as `open_trace` takes them; an open trace knows.
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
        trace = open_trace(
            trace,
            format=format,
            columns=columns,
            tokenizer=tokenizer,
            block_tokens=block_tokens,
            strict=strict,
        )
    facts = trace.facts
    gathered = _Gathered(facts)
    cache = CacheAnalysis(
        capacities_blocks=tuple(capacities_blocks) if on_batch else (),
        ttls_s=tuple(ttls_s),
        memory_bytes=memory_bytes,
        curves=curves,
    )
    for requests in trace:
        hits = cache.add(requests)
        gathered.add(requests)
        if on_batch is not None:
            on_batch(requests, hits)
    return gathered.result(trace.facts, cache.result(), tuple(capacities_blocks))


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


class _Gathered:
    """Everything that is counted beside the caches."""

    def __init__(self, facts: TraceFacts) -> None:
        self.requests = 0
        self.inputs, self.outputs = TokenCounter(), TokenCounter()
        self.arrivals = ArrivalCounter(scoped=facts.scoped)
        self.turns = SessionTurns(scoped=facts.scoped) if facts.has_sessions else None
        block = facts.block_tokens
        infers = self.turns is None and block is not None and not facts.scoped
        self.finder = SessionFinder(block) if infers and block is not None else None

    def add(self, requests: Requests) -> None:
        self.requests += len(requests)
        self.inputs.add(requests.input_tokens)
        self.outputs.add(requests.output_tokens)
        self.arrivals.add(requests)
        if self.turns is not None:
            self.turns.add(requests)
        if self.finder is not None:
            self.finder.add(requests)

    def result(
        self, facts: TraceFacts, cache: CacheResult, capacities: tuple[int, ...]
    ) -> TraceStats:
        inputs, outputs = self.inputs.result(), self.outputs.result()
        arrivals = self.arrivals.result()
        turns = None if self.turns is None else self.turns.result()
        inferred = None if self.finder is None else self.finder.result()
        by_turn = {"input_tokens": inputs, "output_tokens": outputs}
        if turns is not None:
            by_turn |= {
                ("turns_per_session_by_turn" if name == "turns_per_session" else name): kept
                for name, kept in turns.by_turn.items()
            }
        block = facts.block_tokens
        grid = [] if cache.lru is None or not cache.blocks else cache.lru.capacities().tolist()
        asked = capacities if cache.lru is not None and cache.blocks else ()
        blocks_s = () if cache.ttl is None else cache.ttl.block_hit_fraction
        tokens_s = () if cache.ttl is None else cache.ttl.token_hit_fraction
        ttls = () if cache.ttl is None else tuple(seconds_text(s) for s in cache.ttl.ttls_s)
        refusal = None if self.finder is None else self.finder.refusal
        return TraceStats(
            facts=facts,
            requests=self.requests,
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
            inferred=inferred,
            cache=cache,
            asked=tuple(_point(cache, blocks, block) for blocks in asked),
            curve=tuple(_point(cache, blocks, block) for blocks in grid),
            ttl_block_hit_fraction=dict(zip(ttls, blocks_s, strict=True)),
            ttl_token_hit_fraction=dict(zip(ttls, tokens_s, strict=True)),
            notes=(*facts.notes, *_notes(facts, arrivals, refusal), *_sample_notes(cache)),
        )


def seconds_text(seconds: float) -> str:
    """A time as a key: whole seconds without a point.

    >>> seconds_text(600.0), seconds_text(0.25)
    ('600', '0.25')
    """
    return str(int(seconds)) if float(seconds).is_integer() else repr(float(seconds))


def _point(cache: CacheResult, blocks: int, block_tokens: int | None) -> CurvePoint:
    lru, per_block = cache.lru, cache.per_block_lru
    assert lru is not None
    return CurvePoint(
        capacity_blocks=blocks,
        capacity_tokens=None if block_tokens is None else blocks * block_tokens,
        lru_block_hit_fraction=_number(lru, "block_hit_fraction", blocks),
        lru_token_hit_fraction=_number(lru, "token_hit_fraction", blocks),
        lru_standard_error=_number(lru, "standard_error", blocks) or 0.0,
        per_block_lru_hit_fraction=_number(per_block, "block_hit_fraction", blocks),
        per_block_lru_token_hit_fraction=_number(per_block, "token_hit_fraction", blocks),
    )


def _number(curve: HitCurve | None, name: str, blocks: int) -> float | None:
    if curve is None:
        return None
    value = getattr(curve, name)(blocks)
    return None if value is None or np.isnan(value) else float(value)


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
