"""How much KV to keep: hit rates of a trace against cache sizes, joined with throughput bounds.

A size in bytes is a number of blocks, which has a hit rate (H-lru); the hits are the context of the
mean turn and the misses its append, which make a plan (S2, L). A DRAM tier takes its share of the
reads off the storage NICs (T).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from dpplan.bounds.strategies import solve_strategy
from dpplan.demand import Counting
from dpplan.errors import BadInput, Fault
from dpplan.planner.optimize import Case, prepare_inputs
from dpplan.profiles.library import Inputs, WeightedClass, load_inputs
from dpplan.profiles.workload import TurnClass
from dpplan.results.trace_cache import CachePlan, CacheSize
from dpplan.traces.caches.curves import HitCurve
from dpplan.traces.reading.reader import Trace
from dpplan.traces.statistics.trace_stats import trace_stats
from dpplan.traces.statistics.trace_summary import TraceStats
from dpplan.traces.statistics.working_set_law import WorkingSetCheck, WorkingSetLaw

__all__ = ["SizeTable", "mean_turn", "plan_cache_sizes"]

ENOUGH: Final = 0.01
"""A size is enough where all that more of it can buy is less than this share of throughput."""
_ROUND: Final = (1.0, 2.0, 5.0)
_STORAGE_ROWS: Final = 10
_DRAM_ROWS: Final = 7
_READS: Final = ("prefill.storage_nic_read", "decode.storage_nic_read")
_LEAST_TOKENS: Final = 1e-6
_BASE: Final = "agentic"
"""Whose latency limits hold unless `settings` give others; nothing else of it counts."""
_MOST_CONVERSATIONS: Final = 10**9

Paths = str | Path | Sequence[str | Path]


def plan_cache_sizes(
    trace: TraceStats | Trace | Paths,
    hardware: str | None = None,
    model: str | None = None,
    *,
    storage_bytes: Sequence[float] = (),
    dram_bytes: Sequence[float] = (),
    ttls_s: Sequence[float] = (),
    conversations: int = 1,
    prefill_hardware: str | None = None,
    decode_hardware: str | None = None,
    nodes: int | None = None,
    prefill_nodes: int | None = None,
    decode_nodes: int | None = None,
    traffic: Counting = "full",
    unlimited: Collection[str] = (),
    settings: Sequence[str] | Mapping[str, object] = (),
    working_set: WorkingSetCheck | None = None,
    **reading: Any,
) -> CachePlan:
    """Throughput and what binds, by how much KV is kept, where, and for how long (H-size).

    Parameters
    ----------
    trace : TraceStats, Trace, path or sequence of paths
        Statistics with hit rates at all capacities; or what to take them from.
    hardware, model : str
        Profile names or paths.
    storage_bytes, dram_bytes : sequence of float
        Sizes of the whole cluster [bytes]; absent = some up to what holds everything that is ever
        hit. DRAM stands before the largest storage.
    ttls_s : sequence of float
        Times after which idle blocks are dropped [s]; of `TraceStats`, those it was made with.
    conversations : int
        Where the trace's caches are per conversation: how many share a size at a time.
    prefill_hardware, decode_hardware, nodes, prefill_nodes, decode_nodes, traffic, unlimited
        As `dpplan.optimize`; without P and D, every size has the P:D that is best for it.
    settings : mapping or sequence of "key=value"
        Values of hardware, model and `slo`: everything else of the workload is the trace's.
    working_set : WorkingSetCheck, optional
        Of the same trace, where `trace` is `TraceStats`.
    **reading
        How to read files, as `trace_stats` takes it.

    Returns
    -------
    CachePlan

    Raises
    ------
    BadInput
        If a profile, an argument or the trace is wrong, or the trace names no blocks.
    Infeasible
        If nothing holds the model or meets TPOT.
    """
    faults = _faults(model, storage_bytes, dram_bytes, conversations)
    try:
        inputs = load_inputs(
            hardware=hardware,
            workload=_BASE,
            model=model,
            prefill_hardware=prefill_hardware,
            decode_hardware=decode_hardware,
            settings=settings,
        )
    except BadInput as error:
        raise BadInput([*faults, *error.faults]) from None
    faults += _workload_faults(inputs)
    if faults:
        raise BadInput(faults)

    def case_of(turns: TurnClass) -> Case:
        return prepare_inputs(
            dataclasses.replace(inputs, workload=turns, classes=(WeightedClass(turns, 1.0),)),
            nodes=nodes,
            prefill_nodes=prefill_nodes,
            decode_nodes=decode_nodes,
            traffic=traffic,
            unlimited=unlimited,
        )

    if not isinstance(trace, TraceStats):
        law = WorkingSetLaw()
        if ttls_s:
            reading["ttls_s"] = tuple(ttls_s)
        trace = trace_stats(trace, on_batch=lambda requests, _: law.add(requests), **reading)
        working_set = law.result()
    table = SizeTable(trace, inputs, conversations, case_of)
    return _plan(table, storage_bytes, dram_bytes, working_set, conversations)


def _faults(
    model: str | None,
    storage_bytes: Sequence[float],
    dram_bytes: Sequence[float],
    conversations: int,
) -> list[Fault]:
    found = []
    if model is None:
        cure = "`dpplan list` names the shipped ones"
        found.append(Fault("--model", "a model is needed: a trace names none", "none", cure))
    for option, sizes in (("--storage", storage_bytes), ("--dram", dram_bytes)):
        found += [
            Fault(option, "a size above zero is needed", repr(size))
            for size in sizes
            if not (math.isfinite(size) and size > 0)
        ]
    if not 1 <= conversations <= _MOST_CONVERSATIONS:
        found.append(Fault("--conversations", "a count above zero is needed", str(conversations)))
    return found


def _workload_faults(inputs: Inputs) -> list[Fault]:
    """Settings of what the trace itself tells."""
    from dpplan.profiles.library import read_profile

    base, given = read_profile("workloads", _BASE), inputs.workload
    assert isinstance(base, TurnClass)
    assert isinstance(given, TurnClass)
    return [
        Fault("--set", "a value of hardware, model or slo is needed", name, "the trace tells it")
        for name in TurnClass.model_fields
        if name != "slo" and getattr(base, name) != getattr(given, name)
    ]


def mean_turn(
    stats: TraceStats,
    hit_fraction: float,
    model: str,
    *,
    dram_hit_fraction: float = 0.0,
    like: TurnClass | None = None,
) -> TurnClass:
    """The mean turn of a trace whose prompts hit a share of their tokens.

    Hits are its context, misses its append; turns and tokens of a session as the trace names or
    lets infer them, else one turn. Latency limits are those of `like`.
    """
    told = stats.session_distributions or stats.inferred_distributions("session")
    turns = told["turns_per_session"].mean if "turns_per_session" in told else None
    tokens = told["session_tokens"].mean if "session_tokens" in told else None
    inputs, outputs = stats.input_tokens_mean or 0.0, stats.output_tokens_mean or 0.0
    return TurnClass(
        name="trace",
        model=model,
        turns_per_session=turns or 1.0,
        context_tokens=inputs * hit_fraction,
        append_tokens=max(inputs * (1.0 - hit_fraction), _LEAST_TOKENS),
        output_tokens=outputs,
        session_tokens=max(tokens or 0.0, inputs + outputs, _LEAST_TOKENS),
        dram_hit_fraction=dram_hit_fraction,
        slo=None if like is None else like.slo,
    )


class SizeTable:
    """Rows of a cache plan, one size at a time; `case_of` makes a planner's case of a turn."""

    def __init__(
        self,
        stats: TraceStats,
        inputs: Inputs,
        conversations: int,
        case_of: Callable[[TurnClass], Case],
    ) -> None:
        curve, block_tokens = stats.cache.lru, stats.facts.block_tokens
        if curve is None or block_tokens is None or not curve.blocks:
            needed, cure = "a trace that names its blocks is needed", "read one that has hash ids"
            raise BadInput(Fault("trace", needed, f"{stats.facts.format} without any", cure))
        if conversations > 1 and not stats.facts.scoped:
            needed = "a trace whose conversations have caches of their own is needed"
            got = f"{stats.facts.format}: one cache for all"
            raise BadInput(Fault("--conversations", needed, got, "leave it out"))
        assert isinstance(inputs.workload, TurnClass)
        self.curve: HitCurve = curve
        self.stats, self.inputs, self.case_of = stats, inputs, case_of
        self.scopes = conversations if stats.facts.scoped else 1
        self.case = case_of(mean_turn(stats, 0.0, inputs.model.name, like=inputs.workload))
        self.kv_bytes_per_token = self.case.limits.layout.bytes_per_token
        if not self.kv_bytes_per_token:
            needed = "a model with KV that grows with the context is needed"
            raise BadInput(Fault("--model", needed, inputs.model.name))
        self.block_bytes = block_tokens * self.kv_bytes_per_token
        self.all_bytes = curve.saturation_blocks * self.block_bytes * self.scopes
        """What holds everything that is ever hit."""

    def round_sizes(self, most: int) -> list[float]:
        """Sizes of 1, 2 and 5 times powers of ten below `all_bytes`, the largest of them."""
        top = math.floor(math.log10(self.all_bytes)) if self.all_bytes > 0 else 0
        steps = [digit * 10.0**power for power in range(top - 5, top + 1) for digit in _ROUND]
        least = self.block_bytes * self.scopes
        return [size for size in steps if least <= size < self.all_bytes][-most:]

    def blocks(self, size_bytes: float) -> int:
        """Blocks of one cache that a size holds."""
        blocks = size_bytes / self.scopes / self.block_bytes
        return int(min(blocks * (1 + 1e-12), self.curve.saturation_blocks))

    def hits(self, size_bytes: float) -> float:
        """Share of all input tokens that hit in a cache of a size (H-lru)."""
        return float(self.curve.token_hit_fraction(self.blocks(size_bytes)))

    def storage(self, size_bytes: float) -> CacheSize:
        """Row of a storage size without DRAM."""
        return self._row("storage", self.hits(size_bytes), size_bytes)

    def dram(self, size_bytes: float, storage_bytes: float) -> CacheSize:
        """Row of a DRAM size before a storage size.

        An LRU cache holds what every smaller one holds (inclusion), so the tier's share of the
        hits is the quotient of both hit rates.
        """
        hit, first = self.hits(storage_bytes), self.hits(min(size_bytes, storage_bytes))
        share = min(first / hit, 1.0) if hit else 0.0
        return self._row("dram", hit, storage_bytes, dram_bytes=size_bytes, share=share)

    def ttl(self, index: int) -> CacheSize:
        """Row of a time to live of the trace's curve, without a limit of size."""
        curve = self.stats.cache.ttl
        assert curve is not None
        ttl_s = curve.ttls_s[index]
        return self._row("ttl", curve.token_hit_fraction[index], None, ttl_s=ttl_s)

    def _row(
        self,
        tier: str,
        hit: float,
        storage_bytes: float | None,
        *,
        dram_bytes: float = 0.0,
        share: float = 0.0,
        ttl_s: float | None = None,
    ) -> CacheSize:
        like = self.inputs.workload
        assert isinstance(like, TurnClass)
        turns = mean_turn(
            self.stats, hit, self.inputs.model.name, dram_hit_fraction=share, like=like
        )
        case = self.case_of(turns)
        nodes = case.nodes.prefill_nodes, case.nodes.decode_nodes
        dual, single = (
            solve_strategy(case.limits, name, *nodes) for name in ("dual-path", "prefill-only")
        )
        read = case.limits.classes[0].storage_kv_bytes
        rate = self.stats.requests_per_s
        blocks = None if storage_bytes is None else self.blocks(storage_bytes)
        return CacheSize(
            tier=tier,
            storage_bytes=storage_bytes,
            dram_bytes=dram_bytes,
            ttl_s=ttl_s,
            capacity_blocks=blocks,
            hit_fraction=hit,
            hit_standard_error=0.0 if blocks is None else self.curve.standard_error(blocks),
            dram_hit_fraction=share,
            context_tokens=turns.context_tokens,
            append_tokens=turns.append_tokens,
            prefill_nodes=nodes[0],
            decode_nodes=nodes[1],
            turns_per_s=dual.turns_per_s,
            bottlenecks=dual.bottlenecks,
            prefill_only_turns_per_s=single.turns_per_s,
            prefill_only_bottlenecks=single.bottlenecks,
            decode_read_fraction=dual.decode_read_fraction,
            storage_read_bytes_per_turn=read,
            storage_nic_load_fraction=max(dual.utilisation.get(name, 0.0) for name in _READS),
            trace_read_bytes_per_s=None if rate is None else rate * read,
        )


def _plan(
    table: SizeTable,
    storage_bytes: Sequence[float],
    dram_bytes: Sequence[float],
    working_set: WorkingSetCheck | None,
    conversations: int,
) -> CachePlan:
    """All rows: storage sizes, DRAM sizes before the largest storage, times to live."""
    stats, whole = table.stats, table.all_bytes
    storage = sorted(set(storage_bytes)) or [0.0, *table.round_sizes(_STORAGE_ROWS)]
    kept = [table.storage(size) for size in storage if size < whole] + [table.storage(whole)]
    behind = min(max(storage_bytes, default=whole), whole)
    dram = sorted(set(dram_bytes)) or table.round_sizes(_DRAM_ROWS)
    sizes = [0.0, *(size for size in dram if 0 < size < behind), *([behind] if behind else [])]
    tiers = [table.dram(size, behind) for size in sizes]
    curve = stats.cache.ttl
    order = [] if curve is None else sorted(range(len(curve.ttls_s)), key=curve.ttls_s.__getitem__)
    times = [table.ttl(i) for i in order]
    limits = table.case.limits
    block_tokens = stats.facts.block_tokens
    assert block_tokens is not None
    sides = (table.inputs.prefill_hardware.name, table.inputs.decode_hardware.name)
    return CachePlan(
        hardware=sides[0] if sides[0] == sides[1] else "+".join(sides),
        model=table.inputs.model.name,
        counting=limits.counting,
        settings=table.inputs.overrides,
        format=stats.facts.format,
        requests=stats.requests,
        requests_per_s=stats.requests_per_s,
        input_tokens_mean=stats.input_tokens_mean or 0.0,
        output_tokens_mean=stats.output_tokens_mean or 0.0,
        block_tokens=block_tokens,
        kv_bytes_per_token=table.kv_bytes_per_token,
        unique_bytes=stats.cache.unique_tokens * table.kv_bytes_per_token,
        scoped=stats.facts.scoped,
        conversations=conversations,
        sizes=(*_marked(kept), *_marked(tiers), *_marked(times)),
        working_set=working_set,
        notes=tuple(_notes(table, tiers, conversations)),
    )


def _marked(rows: list[CacheSize]) -> list[CacheSize]:
    """Mark the first row that no later one beats by 1 %."""
    rates = [math.inf if row.turns_per_s is None else row.turns_per_s for row in rows]
    for i, rate in enumerate(rates):
        if max(rates[i:]) <= rate * (1 + ENOUGH):
            return [dataclasses.replace(row, is_enough=j == i) for j, row in enumerate(rows)]
    return rows


def _notes(table: SizeTable, tiers: list[CacheSize], conversations: int) -> Iterable[str]:
    stats, layout = table.stats, table.case.limits.layout
    if stats.facts.scoped:
        yield (
            f"The trace's caches are per conversation: a size is shared by {conversations:,} "
            "conversations at a time, alike; KV that they might share is not counted."
        )
    if layout.windows or layout.state_bytes:
        yield (
            "The model also keeps a state of constant size per sequence (windows, recurrent "
            "layers): sizes here are those of the KV that grows with the context."
        )
    outputs, inputs = stats.output_tokens_mean or 0.0, stats.input_tokens_mean or 0.0
    ideal = stats.cache.ideal_token_hit_fraction or 0.0
    if inputs and outputs:
        share = min(outputs / max(inputs * (1 - ideal), outputs), 1.0)
        yield (
            "A block hits from its second prompt on, so what a turn generated counts as missed in "
            f"the next prompt: at most {share * 100:.0f} % of the misses where everything is kept."
        )
    for row in tiers:
        dram = table.inputs.prefill_hardware.dram
        room = row.prefill_nodes * (dram.bytes - dram.kv_buffer_bytes)
        if row.dram_bytes > room:
            yield (
                f"DRAM of the {row.prefill_nodes} prefill nodes holds {room / 1e12:.3g} TB beside "
                "the KV buffer: larger tiers are shown for comparison only."
            )
            break
    if stats.cache.sampled_fraction < 1:
        yield f"Hit rates are sampled: {stats.cache.sampled_fraction:.2%} of the blocks."
