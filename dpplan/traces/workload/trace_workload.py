"""A workload profile out of a trace: means with their error, distributions, where each is from."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dpplan.errors import BadInput, Fault
from dpplan.profiles.library import read_profile
from dpplan.profiles.model import Model
from dpplan.profiles.workload import Distributions, PerSession, PerTurn, TurnClass
from dpplan.traces.reading.reader import Trace, open_trace
from dpplan.traces.statistics.distributions import Distribution
from dpplan.traces.statistics.trace_stats import trace_stats
from dpplan.traces.statistics.trace_summary import TraceStats
from dpplan.traces.workload.hit_basis import Hits, hit_basis
from dpplan.traces.workload.provenance import description_of, profile_name, sources_of
from dpplan.traces.workload.turn_sums import Mean, Turns, TurnSums

__all__ = ["DEFAULT_MODEL", "TraceWorkload", "trace_workload", "workload_of"]

DEFAULT_MODEL: Final = "deepseek-v3.2"
"""A trace names no model that could be served."""
_TAIL: Final = (0.97, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998, 0.9999, 1.0)
FRACTIONS: Final = (*(i / 20 for i in range(20)), *_TAIL)
"""Where distributions are kept: every twentieth, and the tail finely: a straight line from 0.99 on
would put the mean append of real agents 80 % too high."""
NAME: Final = re.compile(r"[A-Za-z0-9][\w.+-]{0,79}", re.ASCII)
_DIGITS: Final = 6
_LEAST_TOKENS: Final = 1e-6

PathLike = str | Path


@dataclass(frozen=True, eq=False)
class TraceWorkload:
    """A workload out of a trace: the profile, and how sure each of its means is."""

    profile: TurnClass
    means: dict[str, Mean]
    """By key of the profile."""
    hits: Hits
    sessions: str
    """`named`, `inferred` or `assumed`."""
    unit: str
    """What counts as one independent draw in the errors of means over turns."""
    stats: TraceStats
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON of the command line, schema `dpplan.trace_workload/1`."""
        return {
            "schema": "dpplan.trace_workload/1",
            "workload": self.profile.to_document(),
            "means": {
                name: {
                    "mean": mean.value,
                    "standard_error": mean.standard_error,
                    "interval_90": mean.interval,
                    "units": mean.units,
                }
                for name, mean in self.means.items()
            },
            "hits": vars(self.hits),
            "hit_fraction": self.hit_fraction,
            "sessions": self.sessions,
            "error_unit": self.unit,
            "requests": self.stats.requests,
            "files": [vars(file) for file in self.stats.facts.files],
            "notes": list(self.notes),
        }

    @property
    def hit_fraction(self) -> float:
        """Hit tokens / input tokens."""
        context, append = self.profile.context_tokens, self.profile.append_tokens
        return context / (context + append)


def trace_workload(
    trace: Trace | PathLike | Sequence[PathLike],
    *,
    name: str | None = None,
    model: str | None = None,
    cache_bytes: float | None = None,
    cache_blocks: int | None = None,
    dram_bytes: float | None = None,
    conversations: int = 1,
    hit_fraction: float | None = None,
    turns_per_session: float | None = None,
    memory_bytes: float | None = None,
    **reading: Any,
) -> TraceWorkload:
    """The workload that a trace shows (H-workload).

    A turn's context is what its prompt hits, its append what it misses: context + append = prompt.
    Hits are those of block ids in a cache that keeps everything, or of an LRU cache of a given
    size; without block ids what the session had before; else a share must be given.

    Parameters
    ----------
    trace : Trace, path or sequence of paths
    name : str, optional
        Of the profile; absent = that of the first file.
    model : str, optional
        Default model of the profile; absent = deepseek-v3.2, assumed.
    cache_bytes : float, optional
        KV kept [bytes], by the model's bytes a token; LRU.
    cache_blocks : int, optional
        The same in blocks.
    dram_bytes : float, optional
        KV in DRAM of the prefill nodes before it [bytes]: its share of the hits.
    conversations : int, optional
        Where the trace's caches are per conversation: how many share the size.
    hit_fraction : float, optional
        Share of each prompt that is assumed to hit, in [0, 1], in place of what the trace says.
    turns_per_session : float, optional
        Where the trace tells nothing of sessions; absent = 1.
    memory_bytes : float, optional
        Beyond it, blocks are sampled (H-sample).
    **reading
        How files are read, as `open_trace` takes it.

    Returns
    -------
    TraceWorkload

    Raises
    ------
    BadInput
        If files or arguments are wrong, or nothing tells what hits.
    """
    sizes_asked = {"--cache": cache_bytes, "--cache-blocks": cache_blocks, "--dram": dram_bytes}
    faults = _faults(sizes_asked, conversations, hit_fraction, turns_per_session)
    if name is not None and not NAME.fullmatch(name):
        needed = "a name of letters, digits and . _ + - is needed"
        faults.append(Fault("--name", needed, repr(name[:60])))
    if faults:
        raise BadInput(faults)
    loaded = read_profile("models", model or DEFAULT_MODEL)
    assert isinstance(loaded, Model)
    if not isinstance(trace, Trace):
        trace = open_trace(trace, **reading)
    hits = hit_basis(
        trace.facts, loaded, cache_bytes, cache_blocks, dram_bytes, conversations, hit_fraction
    )
    sizes = [size for size in (hits.capacity_blocks, hits.dram_blocks) if size is not None]
    sums = TurnSums(
        row=0 if hits.kind == "lru" else None,
        dram_row=None if hits.dram_blocks is None else len(sizes) - 1,
        hit_fraction=hits.hit_fraction,
        history=hits.kind == "history",
        answers=not trace.facts.outputs_have_ids,
    )
    stats = trace_stats(
        trace,
        capacities_blocks=tuple(sizes),
        ttls_s=(),
        memory_bytes=memory_bytes,
        curves=False,
        on_batch=sums.add,
    )
    return workload_of(
        stats, sums.result(), hits, name=name, model=model, turns_per_session=turns_per_session
    )


def _faults(
    sizes: Mapping[str, float | None],
    conversations: int,
    hit_fraction: float | None,
    turns_per_session: float | None,
) -> list[Fault]:
    """What is wrong with the arguments; `sizes` by option."""
    found = []
    rivals = (sizes["--cache"], sizes["--cache-blocks"], hit_fraction)
    if sum(given is not None for given in rivals) > 1:
        needed = "one of --cache, --cache-blocks and --hit-fraction is needed"
        found.append(Fault("--cache", needed, "several", "keep one"))
    if sizes["--dram"] is not None and hit_fraction is not None:
        needed = "hits by block ids are needed with it"
        found.append(Fault("--dram", needed, "--hit-fraction", "leave one out"))
    for option, value in sizes.items():
        if value is not None and not (math.isfinite(value) and 0 <= value <= 1e24):
            found.append(Fault(option, "a size of zero or more is needed", str(value)))
    if hit_fraction is not None and not 0 <= hit_fraction < 1:
        found.append(Fault("--hit-fraction", "a share below 1 is needed", str(hit_fraction)))
    if conversations < 1:
        needed = "a count above zero is needed"
        found.append(Fault("--conversations", needed, str(conversations)))
    if turns_per_session is not None and not 1 <= turns_per_session < 1e9:
        found.append(Fault("--turns", "one turn or more is needed", str(turns_per_session)))
    return found


def workload_of(
    stats: TraceStats,
    turns: Turns,
    hits: Hits,
    *,
    name: str | None = None,
    model: str | None = None,
    turns_per_session: float | None = None,
) -> TraceWorkload:
    """Put a profile together (H-workload); see `trace_workload`.

    Means of tokens and gaps are over turns, those of turns and length over sessions. A first
    prompt is missed like any other; predictions take its length from the mean context, as that of
    a context which grows evenly.
    """
    if not stats.requests or not stats.input_tokens_mean:
        needed = "requests with prompts are needed"
        raise BadInput(Fault("trace", needed, f"{stats.requests:,} without a token"))
    basis = "named" if stats.sessions else "inferred" if stats.inferred else "assumed"
    by_session = stats.session_distributions or stats.inferred_distributions("session")
    lengths, ends = by_session.get("turns_per_session"), by_session.get("session_tokens")
    if turns_per_session is not None and basis == "named":
        needed = "a trace without sessions is needed"
        raise BadInput(Fault("--turns", needed, "one that names them", "leave it away"))
    means, per_turn = dict(turns.means), dict(turns.distributions)
    gap = means.pop("tool_gap_s", None)
    whole = sum(mean.value for mean in means.values())
    if turns_per_session is not None or lengths is None or ends is None or not lengths.count:
        basis, lengths, ends = "assumed", None, None
        means["turns_per_session"] = Mean(turns_per_session or 1.0, None, 0)
        means["session_tokens"] = Mean(max(whole, _LEAST_TOKENS), None, 0)
    else:
        means["turns_per_session"] = _mean(lengths)
        means["session_tokens"] = _mean(ends)
    if gap is None and basis == "inferred" and stats.inferred is not None:
        pauses = per_turn["tool_gap_s"] = stats.inferred.by_turn["pause_s"]
        gap = _mean(pauses) if pauses.count else None
    if gap is not None and gap.value > 0:
        means["tool_gap_s"] = gap
    values = {key: float(f"{mean.value:.{_DIGITS}g}") for key, mean in means.items()}
    values["append_tokens"] = max(values["append_tokens"], _LEAST_TOKENS)
    values["session_tokens"] = max(values["session_tokens"], _LEAST_TOKENS)
    sources, notes = sources_of(stats, hits, basis, model, values)
    profile = TurnClass.model_validate(
        {
            **values,
            "name": name or profile_name(stats.facts),
            "description": description_of(stats),
            "model": model or DEFAULT_MODEL,
            "tool_gap_s": f"{values['tool_gap_s']!r} s" if "tool_gap_s" in values else None,
            "distinct_sessions": float(lengths.count) if lengths is not None else None,
            "dram_hit_fraction": float(f"{turns.dram_hit_fraction:.{_DIGITS}g}"),
            "distributions": _distributions(per_turn, lengths, ends),
            "sources": sources,
        }
    )
    return TraceWorkload(profile, means, hits, basis, turns.unit, stats, tuple(notes))


def _mean(kept: Distribution) -> Mean:
    n, deviation = kept.count, kept.standard_deviation
    assert kept.mean is not None
    error = None if n < 2 or deviation is None else deviation / math.sqrt(n - 1)
    return Mean(kept.mean, error, n)


def _distributions(
    per_turn: Mapping[str, Distribution], lengths: Distribution | None, ends: Distribution | None
) -> Distributions:
    def quantiles(kept: Distribution | None, least: float = 0.0) -> list[float] | None:
        if kept is None or not kept.count:
            return None
        found = [max(float(f"{q:.6g}"), least) for q in kept.quantiles(FRACTIONS).tolist()]
        return [max(found[: i + 1]) for i in range(len(found))]  # as ascending as unrounded

    return Distributions(
        quantile_fractions=list(FRACTIONS),
        per_turn=PerTurn(**{name: quantiles(kept) for name, kept in per_turn.items()}),
        per_session=PerSession(
            turns=quantiles(lengths, 1.0), session_tokens=quantiles(ends, _LEAST_TOKENS)
        ),
    )
