"""Requests of a trace as columns: what every reader gives and every analysis takes.

Here they are built, joined, reordered and put in order of time, in batches of bounded memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from dpplan.arrays import Array, Ints
from dpplan.traces.reading.faults import Notes

__all__ = [
    "BATCH_BLOCKS",
    "BATCH_REQUESTS",
    "GAP_HUMAN",
    "GAP_TOOL",
    "GAP_UNKNOWN",
    "NO_IDS",
    "Requests",
    "Row",
    "TokenSource",
    "TraceFacts",
    "TraceFile",
    "batches",
    "batches_of",
    "in_time_order",
    "join",
    "requests_of",
    "take",
    "with_room",
]

TokenSource = Literal["given", "tokenizer", "estimate"]

GAP_UNKNOWN: Final = 0
GAP_TOOL: Final = 1
GAP_HUMAN: Final = 2
BATCH_BLOCKS: Final = 1 << 20
BATCH_REQUESTS: Final = 1 << 16
_FIRST_ROOM: Final = 1024

_Scalar = TypeVar("_Scalar", np.int32, np.int64, np.float64)

_SORTED: Final = "requests that stood out of order of time and were sorted: {}"
_LATE: Final = "requests that came too late to be sorted, and stay out of order of time: {}"

NO_IDS: Final[Ints] = np.empty(0, np.int64)


@dataclass(frozen=True)
class Requests:
    """Consecutive requests, in the order in which a cache sees them; columns of shape (n,)."""

    time_s: Array
    """Arrival since the start of the trace, or of its scope where clocks are apart; NaN unknown."""
    input_tokens: Ints
    """The whole prompt, also where the file gives increments."""
    output_tokens: Ints
    session: Ints
    """Number of the session, from 0 through the whole trace; -1 = the trace doesn't tell."""
    agent: Ints
    """Sub-agent within its session, 0 = the main one; turns of one agent follow one another."""
    scope: Ints
    """Requests of unlike scopes share no cache, and have clocks of their own."""
    gap_s: Array
    """Pause between the agent's previous answer and this request; NaN = first, or unknown."""
    gap_kind: Ints
    """`GAP_TOOL`, `GAP_HUMAN` or `GAP_UNKNOWN`."""
    service_s: Array
    """What the measured server took for the request; NaN unknown."""
    block_starts: Ints
    """Where each request's blocks start in the arrays below, shape (n + 1,)."""
    block_ids: Ints
    """Equal ids = equal content and equal content before it; distinct across scopes; shape (m,)."""
    block_tokens: Ints
    """Tokens of each block, shape (m,); a request's tail may have tokens without a block."""

    def __len__(self) -> int:
        """Requests."""
        return len(self.input_tokens)


@dataclass(frozen=True)
class TraceFile:
    """One file that was read."""

    name: str
    bytes: int
    """As stored."""
    sha256: str
    """Of the stored bytes."""
    lines: int
    """Records seen, good or bad."""
    bad_lines: int


@dataclass(frozen=True)
class TraceFacts:
    """What a trace tells about itself; complete once all requests are read."""

    format: str
    block_tokens: int | None
    """Tokens of a full block; None = no block ids."""
    scoped: bool
    """Each scope has a clock and a cache of its own (ids local to a conversation)."""
    has_sessions: bool
    token_source: TokenSource
    files: tuple[TraceFile, ...]
    faults: tuple[str, ...]
    """The first bad lines, each with file, line and what is wrong."""
    notes: tuple[str, ...]
    """What a reader of the numbers must know: reordered, estimated, missing."""

    @property
    def outputs_have_ids(self) -> bool:
        """Is what was generated among the blocks of later prompts? Not in AIPerf's increments."""
        return self.format != "aiperf"


class Row(NamedTuple):
    """One request, for formats that are read one by one; see `Requests`."""

    time_s: float
    input_tokens: int
    output_tokens: int
    session: int = -1
    agent: int = 0
    scope: int = 0
    gap_s: float = math.nan
    gap_kind: int = GAP_UNKNOWN
    service_s: float = math.nan
    ids: Ints = NO_IDS
    """Of its blocks."""
    tokens: Ints = NO_IDS
    """Of its blocks."""


COLUMNS: Final = Row._fields[:-2]


def requests_of(
    time_s: npt.ArrayLike,
    input_tokens: npt.ArrayLike,
    output_tokens: npt.ArrayLike,
    *,
    block_counts: npt.ArrayLike = 0,
    block_ids: Ints = NO_IDS,
    block_tokens: Ints = NO_IDS,
    **others: npt.ArrayLike,
) -> Requests:
    """A batch out of columns, of which a single value stands for every request.

    >>> batch = requests_of([0.0, 1.5], [700, 20], [3, 4])
    >>> batch.session, batch.block_starts
    (array([-1, -1]), array([0, 0, 0]))
    """
    n = len(np.atleast_1d(np.asarray(input_tokens)))

    def column(values: npt.ArrayLike, kind: type) -> npt.NDArray[Any]:
        array: npt.NDArray[Any] = np.asarray(values, kind)
        return array if array.ndim else np.full(n, array)

    given = {"time_s": time_s, "input_tokens": input_tokens, "output_tokens": output_tokens}
    columns: dict[str, npt.ArrayLike] = {**Row._field_defaults, **given, **others}
    del columns["ids"], columns["tokens"]
    starts = np.zeros(n + 1, np.int64)
    np.cumsum(column(block_counts, np.int64), out=starts[1:])
    return Requests(
        **{k: column(v, float if k.endswith("_s") else np.int64) for k, v in columns.items()},
        block_starts=starts,
        block_ids=block_ids,
        block_tokens=block_tokens,
    )


def join(parts: Sequence[Requests]) -> Requests:
    """Several batches as one, in their order."""
    if len(parts) == 1:
        return parts[0]
    counts = np.concatenate([np.diff(part.block_starts) for part in parts])
    return Requests(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS},
        block_starts=np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
        block_ids=np.concatenate([part.block_ids for part in parts]),
        block_tokens=np.concatenate([part.block_tokens for part in parts]),
    )


def take(requests: Requests, which: Ints) -> Requests:
    """Some requests of a batch, in the order given.

    >>> batch = requests_of([0.0, 1.0], [3, 2], [1, 1], block_counts=[2, 1],
    ...     block_ids=np.array([7, 8, 9]), block_tokens=np.array([2, 1, 2]))
    >>> take(batch, np.array([1, 0])).block_ids
    array([9, 7, 8])
    """
    starts = requests.block_starts
    counts = np.diff(starts)[which]
    new_starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    # Block k of the answer is so far into its request, which starts there in the batch.
    places = np.arange(new_starts[-1]) + np.repeat(starts[which] - new_starts[:-1], counts)
    return Requests(
        **{name: getattr(requests, name)[which] for name in COLUMNS},
        block_starts=new_starts,
        block_ids=requests.block_ids[places],
        block_tokens=requests.block_tokens[places],
    )


def batches(
    parts: Iterable[Requests], max_blocks: int = BATCH_BLOCKS, max_requests: int = BATCH_REQUESTS
) -> Iterator[Requests]:
    """Batches as large as allowed out of smaller ones."""
    held: list[Requests] = []
    blocks = requests = 0
    for part in parts:
        if not len(part):
            continue
        if held and (
            blocks + len(part.block_ids) > max_blocks or requests + len(part) > max_requests
        ):
            yield join(held)
            held, blocks, requests = [], 0, 0
        held.append(part)
        blocks += len(part.block_ids)
        requests += len(part)
    if held:
        yield join(held)


def batches_of(rows: Iterable[Row]) -> Iterator[Requests]:
    """Batches out of single requests; none of none."""
    # Plain tuples of numbers, unlike rows, cost the garbage collector nothing.
    columns: list[tuple[Any, ...]] = []
    counts: list[int] = []
    ids, tokens = [NO_IDS], [NO_IDS]

    def batch() -> Requests:
        return requests_of(
            **dict(zip(COLUMNS, zip(*columns, strict=True), strict=True)),
            block_counts=counts,
            block_ids=np.concatenate(ids),
            block_tokens=np.concatenate(tokens),
        )

    blocks = 0
    for row in rows:
        columns.append(row[:-2])
        counts.append(len(row.ids))
        if len(row.ids):
            ids.append(row.ids)
            tokens.append(row.tokens)
            blocks += len(row.ids)
        if blocks >= BATCH_BLOCKS or len(columns) >= BATCH_REQUESTS:
            yield batch()
            columns, counts, ids, tokens, blocks = [], [], [NO_IDS], [NO_IDS], 0
    if columns:
        yield batch()


def in_time_order(
    parts: Iterator[Requests],
    notes: Notes,
    max_blocks: int = BATCH_BLOCKS,
    max_requests: int = BATCH_REQUESTS,
) -> Iterator[Requests]:
    """The same requests sorted by time, as far as a window of two batches reaches.

    Equal times keep their order. Requests that belong before a batch already given stay where
    they are; how many is noted.
    """
    held: Requests | None = None
    given_until = -np.inf

    def give(batch: Requests) -> Requests:
        nonlocal given_until
        late = int((batch.time_s < given_until).sum())
        if late:
            notes.add(_LATE, late)
        given_until = max(given_until, float(batch.time_s[-1]))
        return batch

    for batch in batches(parts, max_blocks, max_requests):
        times = batch.time_s if held is None else np.concatenate([held.time_s, batch.time_s])
        if (times[1:] >= times[:-1]).all():
            if held is not None:
                yield give(held)
            held = batch
            continue
        both = batch if held is None else join([held, batch])
        order = np.argsort(both.time_s, kind="stable")
        # A request that follows one of a later time is out of order.
        behind = int((times < np.maximum.accumulate(times)).sum())
        both = take(both, order)
        notes.add(_SORTED, behind)
        if held is not None:
            cut = len(held)
            yield give(take(both, np.arange(cut)))
            held = take(both, np.arange(cut, len(both)))
        else:
            held = both
    if held is not None:
        yield give(held)


def with_room(columns: npt.NDArray[_Scalar], size: int, fill: float = 0) -> npt.NDArray[_Scalar]:
    """An array with room for so many along its last axis: itself, or a larger copy of it.

    >>> with_room(np.array([7, 8]), 3, -1)[:4]
    array([ 7,  8, -1, -1])
    """
    room = columns.shape[-1]
    if size <= room:
        return columns
    # By a quarter at least, so that growing costs little over many batches.
    shape = (*columns.shape[:-1], max(size, room * 5 // 4, _FIRST_ROOM))
    # Zeros take no memory before they are written.
    grown = np.full(shape, fill, columns.dtype) if fill else np.zeros(shape, columns.dtype)
    grown[..., :room] = columns
    return grown
