"""H: caches over traces, against simulators that do one block after another."""

from __future__ import annotations

import itertools
import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dpplan.errors import BadInput
from dpplan.traces.caches import cache as cache_module
from dpplan.traces.caches import reuse as reuse_module
from dpplan.traces.caches.cache import CacheAnalysis, CacheResult
from dpplan.traces.caches.numbering import Numbering
from dpplan.traces.caches.reuse import larger_before
from dpplan.traces.caches.sampling import blocks_within
from dpplan.traces.reading.reader import open_trace
from dpplan.traces.requests import Requests

SHARED = Path(os.environ.get("DPPLAN_SHARED", Path(__file__).parents[2] / ".." / "shared"))
TRACES = SHARED / "traces"
MANY = settings(deadline=None, derandomize=True, max_examples=150)
CAPACITIES = (1, 2, 3, 5, 8, 13, 40)
TTLS_S = (30.0, 0.0, 5.0)


@dataclass(frozen=True)
class Request:
    """A request as the naive roads take it."""

    time_s: float
    blocks: tuple[int, ...]
    tail_tokens: int = 0
    scope: int = 0


def tokens_of(block: int) -> int:
    return 1 + block % 7


def columns(requests: Sequence[Request]) -> Requests:
    count = len(requests)
    none, unknown = np.zeros(count, np.int64), np.full(count, np.nan)
    starts = np.zeros(count + 1, np.int64)
    np.cumsum([len(r.blocks) for r in requests], out=starts[1:])
    ids = np.array([b for r in requests for b in r.blocks], np.int64)
    tokens = np.array([tokens_of(b) for r in requests for b in r.blocks], np.int64)
    whole = [sum(map(tokens_of, r.blocks)) + r.tail_tokens for r in requests]
    return Requests(
        time_s=np.array([r.time_s for r in requests], float),
        input_tokens=np.array(whole, np.int64),
        output_tokens=none,
        session=none - 1,
        agent=none,
        scope=np.array([r.scope for r in requests], np.int64),
        gap_s=unknown,
        gap_kind=none,
        service_s=unknown,
        block_starts=starts,
        block_ids=ids,
        block_tokens=tokens,
    )


def analysed(
    requests: Sequence[Request], cuts: Iterable[int] = (), **options: object
) -> tuple[CacheResult, np.ndarray, np.ndarray]:
    """Result, ideal and LRU hit tokens of each request; batches end at the cuts."""
    analysis = CacheAnalysis(**options)  # type: ignore[arg-type]
    edges = sorted({0, len(requests), *(cut % (len(requests) + 1) for cut in cuts)})
    hits = [analysis.add(columns(requests[a:b])) for a, b in itertools.pairwise(edges)]
    if not hits:
        hits = [analysis.add(columns(()))]
    ideal = np.concatenate([h.ideal_tokens for h in hits])
    return analysis.result(), ideal, np.concatenate([h.lru_tokens for h in hits], axis=1)


# -- naive roads -------------------------------------------------------------------------------


def prefix(blocks: Sequence[int], present: Iterable[int]) -> tuple[int, ...]:
    hits = 0
    held = set(present)
    while hits < len(blocks) and blocks[hits] in held:
        hits += 1
    return tuple(blocks[:hits])


def ideal_hits(requests: Sequence[Request]) -> list[tuple[int, ...]]:
    seen: set[int] = set()
    hits = []
    for request in requests:
        hits.append(prefix(request.blocks, seen))
        seen |= set(request.blocks)
    return hits


def touch(cache: OrderedDict[int, None], block: int, capacity: int) -> bool:
    hit = block in cache
    if hit:
        cache.move_to_end(block)
    else:
        cache[block] = None
        if len(cache) > capacity:
            cache.popitem(last=False)
    return hit


def lru_hits(requests: Sequence[Request], capacity: int) -> list[tuple[int, ...]]:
    """Look up the prefix, then touch or insert from last to first; a cache for each scope."""
    caches: dict[int, OrderedDict[int, None]] = {}
    hits = []
    for request in requests:
        cache = caches.setdefault(request.scope, OrderedDict())
        hits.append(prefix(request.blocks, cache))
        for block in reversed(request.blocks):
            touch(cache, block, capacity)
    return hits


def per_block_hits(requests: Sequence[Request], capacity: int) -> list[tuple[int, ...]]:
    caches: dict[int, OrderedDict[int, None]] = {}
    return [
        tuple(
            block
            for block in r.blocks
            if touch(caches.setdefault(r.scope, OrderedDict()), block, capacity)
        )
        for r in requests
    ]


def ttl_hits(requests: Sequence[Request], ttl_s: float) -> list[tuple[int, ...]]:
    last_s: dict[int, float] = {}
    hits = []
    for request in requests:
        fresh = [b for b, at_s in last_s.items() if request.time_s - at_s <= ttl_s]
        hits.append(prefix(request.blocks, fresh))
        last_s |= dict.fromkeys(request.blocks, request.time_s)
    return hits


def counted(hits: Iterable[Sequence[int]]) -> tuple[int, int]:
    hits = list(hits)
    return sum(map(len, hits)), sum(tokens_of(b) for request in hits for b in request)


# -- random traces -----------------------------------------------------------------------------


@st.composite
def traces(draw: st.DrawFn, repeats: bool = True) -> list[Request]:
    """Requests that go on from earlier ones, or hold any blocks; ids differ across scopes."""
    requests: list[Request] = []
    far = draw(st.sampled_from([1, 10**15]))
    spread = draw(st.integers(1, 40))
    for scope in range(draw(st.integers(1, 3))):
        time_s = 0.0
        base = len(requests)
        for _ in range(draw(st.integers(0, 12))):
            own = draw(st.lists(st.integers(0, spread), max_size=10, unique=not repeats))
            blocks = tuple((scope * 1000 + b) * far for b in own)
            if len(requests) > base and draw(st.booleans()):
                earlier = requests[draw(st.integers(base, len(requests) - 1))].blocks
                kept = earlier[: draw(st.integers(0, len(earlier)))]
                blocks = kept + tuple(b for b in blocks if repeats or b not in kept)
            time_s += draw(st.sampled_from([0.0, 0.25, 1.0, 5.0, 30.0, 100.0]))
            requests.append(Request(time_s, blocks, draw(st.integers(0, 3)), scope))
    return requests


CUTS = st.lists(st.integers(0, 40), max_size=5)


@MANY
@given(traces(), CUTS, st.booleans())
@example([], [], False)
@example([Request(0, (1, 1, 2)), Request(0, (2, 1, 1)), Request(1, (1, 1, 2, 2))], [1], True)
def test_hits_of_random_traces(requests: list[Request], cuts: list[int], compact: bool) -> None:
    """H-ideal, H-lru, H-per-block, H-ttl: what simulators find, wherever batches are cut."""
    with pytest.MonkeyPatch.context() as patch:
        if compact:
            patch.setattr(reuse_module, "_DEAD_MIN", 0)
            patch.setattr(reuse_module, "_DEAD_PER_LIVING", 0)
            patch.setattr(cache_module, "_PIECE", 7)
        result, ideal, lru = analysed(requests, cuts, capacities_blocks=CAPACITIES, ttls_s=TTLS_S)
    naive = ideal_hits(requests)
    assert (result.ideal_hit_blocks, result.ideal_hit_tokens) == counted(naive)
    assert ideal.tolist() == [counted([h])[1] for h in naive]
    distinct = {b for r in requests for b in r.blocks}
    assert result.unique_blocks == len(distinct)
    assert result.unique_tokens == sum(map(tokens_of, distinct))
    assert result.blocks == sum(len(r.blocks) for r in requests)
    assert result.tokens == columns(requests).input_tokens.sum()
    assert result.sampled_fraction == 1
    if not result.blocks:
        assert result.ideal_block_hit_fraction is None
        assert result.lru is None
        assert result.ttl is None
        return
    assert result.lru is not None
    assert result.per_block_lru is not None
    assert result.ttl is not None
    for row, capacity in enumerate(CAPACITIES):
        whole = lru_hits(requests, capacity)
        assert lru[row].tolist() == [counted([h])[1] for h in whole]
        for curve, hits in (
            (result.lru, whole),
            (result.per_block_lru, per_block_hits(requests, capacity)),
        ):
            blocks, tokens = counted(hits)
            assert curve.block_hit_fraction(capacity) == blocks / result.blocks
            assert curve.block_hit_fraction(capacity + 0.5) == blocks / result.blocks
            assert curve.token_hit_fraction(capacity) == tokens / result.tokens
            assert curve.standard_error(capacity) == 0
    assert result.lru.block_hit_fraction(10**9) == result.ideal_block_hit_fraction
    assert result.ttl.ttls_s == TTLS_S
    for n, ttl_s in enumerate(TTLS_S):
        blocks, tokens = counted(ttl_hits(requests, ttl_s))
        assert result.ttl.block_hit_fraction[n] == blocks / result.blocks
        assert result.ttl.token_hit_fraction[n] == tokens / result.tokens


@MANY
@given(traces())
def test_without_curves_the_same_hits(requests: list[Request]) -> None:
    full, ideal, lru = analysed(requests, capacities_blocks=[2, 9], ttls_s=TTLS_S)
    bare, bare_ideal, none = analysed(requests, curves=False)
    some, some_ideal, some_lru = analysed(requests, capacities_blocks=[2, 9], curves=False)
    assert (bare.lru, bare.per_block_lru, bare.ttl, bare.working_set) == (None,) * 4
    assert some.lru is None
    assert ideal.tolist() == bare_ideal.tolist() == some_ideal.tolist()
    assert some_lru.tolist() == lru.tolist()
    assert none.shape == (0, len(requests))
    assert full.ideal_hit_tokens == bare.ideal_hit_tokens == some.ideal_hit_tokens
    timed, _, _ = analysed(requests, ttls_s=TTLS_S, curves=False)
    assert timed.ttl == full.ttl


def test_head_stays_where_a_request_is_longer_than_the_cache() -> None:
    """H-lru: of 5 blocks a cache of 2 keeps the first two."""
    long = Request(0, (1, 2, 3, 4, 5))
    result, _, lru = analysed([long, long], capacities_blocks=[2])
    assert lru[0].tolist() == [0, tokens_of(1) + tokens_of(2)]
    # Block by block nothing is left of the head when it comes again.
    assert result.per_block_lru is not None
    assert result.per_block_lru.block_hit_fraction(np.array([4.0, 5.0])).tolist() == [0, 0.5]


def test_unknown_times_leave_out_what_needs_them() -> None:
    requests = [Request(0, (1, 2)), Request(np.nan, (1, 2)), Request(3, (1,))]
    for cuts in ([], [1], [1, 2]):
        result, _, _ = analysed(requests, cuts, ttls_s=[1.0])
        assert (result.ttl, result.working_set) == (None, None)
        assert result.ideal_hit_blocks == 3


# -- the parts ---------------------------------------------------------------------------------


@MANY
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9)), max_size=300),
    st.sampled_from([2, 4, 32]),
)
def test_inversions(pairs: list[tuple[int, int]], all_pairs: int) -> None:
    keys, weights = [k for k, _ in pairs], [w for _, w in pairs]
    naive = [sum(w for k, w in pairs[:i] if k > key) for i, key in enumerate(keys)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dpplan.traces.caches.reuse._ALL_PAIRS", all_pairs)
        assert larger_before(keys, weights).tolist() == naive


@pytest.mark.parametrize("count", [1000, 1024, 1025, 5000])
def test_long_inversions(count: int) -> None:
    rng = np.random.default_rng(count)
    keys, weights = rng.integers(0, count, count), rng.integers(0, 9, count)
    naive = [int(weights[:i][keys[:i] > keys[i]].sum()) for i in range(count)]
    assert larger_before(keys, weights).tolist() == naive


@MANY
@given(
    st.lists(
        st.lists(
            st.one_of(st.integers(0, 50), st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**40)),
            max_size=60,
        ),
        max_size=6,
    ),
    st.randoms(use_true_random=False),
)
def test_numbering(batches: list[list[int]], random) -> None:  # type: ignore[no-untyped-def]
    """Numbers in order of first appearance, whatever the ids, and when some are forgotten."""
    numbering = Numbering()
    known: dict[int, int] = {}
    for ids in batches:
        numbers, first = numbering.number(np.array(ids, np.int64))
        before = len(known)
        for block in ids:
            known.setdefault(block, len(known))
        assert numbers.tolist() == [known[b] for b in ids]
        assert first.tolist() == [ids.index(b) for b, n in known.items() if n >= before]
        assert numbering.count == len(known)
        assert numbering.ids().tolist() == list(known)
        if random.random() < 0.3:
            kept = np.array([random.random() < 0.5 for _ in known], bool)
            numbering.keep(kept)
            left = [b for b, keep in zip(known, kept, strict=True) if keep]
            known = {block: n for n, block in enumerate(left)}


def test_numbering_of_many_ids() -> None:
    """Past the room of a table, and more than one batch of others."""
    rng = np.random.default_rng(3)
    dense = rng.integers(0, 400_000, 300_000)
    for ids in (dense, dense * 7_000_003_001, np.concatenate((dense, dense + 2**40))):
        numbering = Numbering()
        numbers = np.concatenate([numbering.number(part)[0] for part in np.array_split(ids, 7)])
        distinct, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
        assert numbering.count == len(distinct)
        rank = np.empty(len(distinct), np.int64)
        rank[np.argsort(first)] = np.arange(len(distinct))
        assert (numbers == rank[inverse]).all()


def naive_working_set(requests: Sequence[Request], window_s: float) -> tuple[float, float]:
    """Mean and peak tokens over all scopes, from every block's own touches, in steps of 1/16 s."""
    token_s = duration_s = peak = 0.0
    for scope in {r.scope for r in requests}:
        own = [r for r in requests if r.scope == scope]
        start_s, end_s = own[0].time_s, own[-1].time_s
        steps = np.zeros(int((end_s - start_s) * 16) + 1)
        for block in {b for r in own for b in r.blocks}:
            alive = np.zeros(len(steps), bool)
            for request in own:
                if block in request.blocks:
                    at = int((request.time_s - start_s) * 16)
                    alive[at : at + int(window_s * 16)] = True
            steps += alive * tokens_of(block)
        token_s += steps[:-1].sum() / 16
        duration_s += end_s - start_s
        peak = max(peak, steps.max())
    return (token_s / duration_s if duration_s else peak), peak


@MANY
@given(traces(), CUTS)
def test_working_set(requests: list[Request], cuts: list[int]) -> None:
    """H-working-set: by intervals between touches, and by looking at every moment."""
    result, _, _ = analysed(requests, cuts)
    if not result.blocks:
        assert result.working_set is None
        return
    found = result.working_set
    assert found is not None
    assert found.scopes == len({r.scope for r in requests})
    for n, window_s in enumerate(found.windows_s):
        mean, peak = naive_working_set(requests, window_s)
        assert found.mean_tokens[n] == pytest.approx(mean)
        assert found.peak_tokens[n] == pytest.approx(peak)
    if found.scopes == 1:
        assert found.unique_tokens[-1] == result.unique_tokens
        assert list(found.unique_tokens) == sorted(found.unique_tokens)
        assert len(found.time_s) == len(found.unique_tokens) <= 200
    else:
        assert found.time_s == found.unique_tokens == ()


def test_result_may_be_asked_for_on_the_way() -> None:
    requests = [Request(n, tuple(range(n % 5 + 3))) for n in range(20)]
    analysis = CacheAnalysis(ttls_s=[2.0])
    for n, request in enumerate(requests):
        analysis.add(columns([request]))
        now, _, _ = analysed(requests[: n + 1], ttls_s=[2.0])
        then = analysis.result()
        assert (then.ttl, then.working_set) == (now.ttl, now.working_set)
        assert then.lru is not None
        assert now.lru is not None
        assert then.lru.hit_tokens.tolist() == now.lru.hit_tokens.tolist()


# -- samples -----------------------------------------------------------------------------------


def conversations(seed: int, sessions: int, turns: int) -> list[Request]:
    """Sessions in turn, each request going on from its last one; ids form a prefix tree."""
    rng = np.random.default_rng(seed)
    fresh = seed * 10**9
    held: list[tuple[int, ...]] = [()] * sessions
    requests = []
    popular = rng.zipf(1.3, turns) % sessions
    for turn in range(turns):
        session = int(popular[turn])
        more = int(rng.integers(1, 12))
        if len(held[session]) > 200:
            held[session] = ()
        held[session] += tuple(range(fresh, fresh + more))
        fresh += more
        requests.append(Request(turn / 10, held[session]))
    return requests


def test_sample_against_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """H-sample: estimates lie within a few standard errors, and the errors are small."""
    monkeypatch.setattr(cache_module, "blocks_within", lambda _: 3000)
    monkeypatch.setattr(cache_module, "_SMALL_PIECE", 1 << 14)
    off = []
    for seed in range(4):
        requests = conversations(seed, 400, 4000)
        exact, ideal, lru = analysed(requests, capacities_blocks=[8000], ttls_s=[5.0, 60.0])
        cuts = range(500, 4000, 500)
        found, near_ideal, near_lru = analysed(
            requests, cuts, capacities_blocks=[8000], ttls_s=[5.0, 60.0], memory_bytes=1e9
        )
        assert found.sampled_fraction in (1 / 8, 1 / 16)
        assert (found.blocks, found.tokens) == (exact.blocks, exact.tokens)
        assert found.unique_blocks == pytest.approx(exact.unique_blocks, rel=0.05)
        assert found.unique_tokens == pytest.approx(exact.unique_tokens, rel=0.05)
        assert found.ideal_hit_blocks == pytest.approx(exact.ideal_hit_blocks, rel=0.01)
        assert found.ideal_hit_tokens == pytest.approx(exact.ideal_hit_tokens, rel=0.01)
        assert near_ideal.sum() == pytest.approx(ideal.sum(), rel=0.1)
        assert near_lru.sum() == pytest.approx(lru.sum(), rel=0.1)
        assert found.ttl is not None
        assert exact.ttl is not None
        assert found.ttl.block_hit_fraction == pytest.approx(exact.ttl.block_hit_fraction, abs=0.03)
        assert found.working_set is not None
        assert exact.working_set is not None
        assert found.working_set.mean_tokens == pytest.approx(
            exact.working_set.mean_tokens, rel=0.1
        )
        assert found.working_set.peak_tokens == pytest.approx(
            exact.working_set.peak_tokens, rel=0.1
        )
        for near, true in ((found.lru, exact.lru), (found.per_block_lru, exact.per_block_lru)):
            assert near is not None
            assert true is not None
            capacity = np.array([500, 1000, 2000, 4000, 8000, 16000])
            error = np.asarray(near.standard_error(capacity))
            assert (error > 0).all()
            assert error.max() < 0.08
            difference = near.block_hit_fraction(capacity) - np.asarray(
                true.block_hit_fraction(capacity)
            )
            off.append(difference / error)
    ratio = np.concatenate(off)
    assert np.abs(ratio).max() < 3
    assert 0.2 < np.sqrt(np.mean(ratio**2)) < 1.3  # rather too large than too small


def test_ids_of_no_prefix_tree_are_not_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """H-sample: single blocks tell nothing about prefixes there."""
    monkeypatch.setattr(cache_module, "blocks_within", lambda _: 1000)
    rng = np.random.default_rng(5)
    requests = [Request(n, tuple(rng.integers(0, 3000, 10).tolist())) for n in range(2000)]
    with pytest.raises(BadInput, match="ids that stand for a block and all before it"):
        analysed(requests, range(0, 2000, 100), memory_bytes=1e9)


def test_enough_memory_is_exact() -> None:
    """H-sample: all blocks are followed until they are too many."""
    requests = conversations(1, 50, 500)
    exact, _, _ = analysed(requests)
    bounded, _, _ = analysed(requests, memory_bytes=1e9)
    assert bounded.sampled_fraction == 1
    assert exact.lru is not None
    assert bounded.lru is not None
    assert bounded.lru.hit_blocks.tolist() == exact.lru.hit_blocks.tolist()
    assert bounded.lru.block_error is None


def test_too_little_memory_says_what_would_do() -> None:
    with pytest.raises(BadInput, match=r"--memory: at least \d+ MB .* got 100 MB; give --memory"):
        CacheAnalysis(memory_bytes=1e8)
    with pytest.raises(BadInput) as caught:
        blocks_within(0)
    least_mb = int(str(caught.value).split("at least ")[1].split()[0])
    assert blocks_within(least_mb * 1e6) > 0


# -- real traces, and another's simulator --------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "mooncake/conversation_trace.jsonl",
        "mooncake/synthetic_trace.jsonl",
        "weka/traces/trace_0001.json.gz",
        "weka/traces/trace_0034.json.gz",
        "weka/traces/trace_0074.json.gz",
    ],
)
def test_cache_simulator_agrees(name: str) -> None:
    """H-per-block: libCacheSim's LRU misses as often, at several capacities."""
    libcachesim = pytest.importorskip("libcachesim")
    if not (TRACES / name).exists():
        pytest.skip(f"no {name} in {TRACES}")
    analysis = CacheAnalysis()
    ids = []
    for requests in open_trace(TRACES / name):
        analysis.add(requests)
        ids += requests.block_ids.tolist()
    curve = analysis.result().per_block_lru
    assert curve is not None
    top = curve.saturation_blocks
    request = libcachesim.Request()
    request.obj_size = 1
    for capacity in sorted({max(top // 100, 1), max(top // 10, 1), top - 1, top}):
        cache = libcachesim.LRU(capacity, hashpower=18)
        hits = 0
        for block in ids:
            request.obj_id = block
            hits += cache.get(request)
        assert curve.block_hit_fraction(capacity) == hits / len(ids)


# Found by the naive roads above, once.
REAL = {
    "mooncake/conversation_trace.jsonl": (288500, 182790),
    "mooncake/synthetic_trace.jsonl": (121877, 43924),
}


@pytest.mark.parametrize("name", REAL)
def test_real_traces_one_block_after_another(name: str) -> None:
    """H-ideal, H-lru, H-ttl: the naive road on whole traces."""
    if not (TRACES / name).exists():
        pytest.skip(f"no {name} in {TRACES}")
    analysis = CacheAnalysis(capacities_blocks=[3000], ttls_s=[100.0])
    batches = list(open_trace(TRACES / name))
    lru = np.concatenate([analysis.add(batch).lru_tokens[0] for batch in batches])
    requests: list[Request] = []
    for batch in batches:
        starts = batch.block_starts
        for n in range(len(batch)):
            blocks = tuple(batch.block_ids[starts[n] : starts[n + 1]].tolist())
            requests.append(Request(float(batch.time_s[n]), blocks))
    result = analysis.result()
    assert (result.blocks, result.unique_blocks) == REAL[name]
    assert result.ideal_hit_blocks == counted(ideal_hits(requests))[0]
    assert result.lru is not None
    hits = lru_hits(requests, 3000)
    assert result.lru.block_hit_fraction(3000) == counted(hits)[0] / result.blocks
    assert (lru > 0).tolist() == [len(h) > 0 for h in hits]
    last_s: dict[int, float] = {}
    held = 0
    for request in requests:
        for block in request.blocks:
            if not request.time_s - last_s.get(block, -np.inf) <= 100:
                break
            held += 1
        last_s |= dict.fromkeys(request.blocks, request.time_s)
    assert result.ttl is not None
    assert result.ttl.block_hit_fraction[0] == held / result.blocks
