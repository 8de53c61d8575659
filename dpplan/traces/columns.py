"""Building, joining and reordering batches of requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from dpplan.arrays import Ints
from dpplan.traces.requests import GAP_UNKNOWN, Requests

__all__ = [
    "BATCH_BLOCKS",
    "BATCH_REQUESTS",
    "NO_IDS",
    "Rows",
    "batches",
    "join",
    "requests_of",
    "take",
    "with_room",
]

BATCH_BLOCKS: Final = 1 << 20
BATCH_REQUESTS: Final = 1 << 16
_FIRST_ROOM: Final = 1024

_Scalar = TypeVar("_Scalar", np.int32, np.int64, np.float64)

NO_IDS: Final[Ints] = np.empty(0, np.int64)


def requests_of(
    time_s: npt.ArrayLike,
    input_tokens: npt.ArrayLike,
    output_tokens: npt.ArrayLike,
    *,
    session: npt.ArrayLike = -1,
    agent: npt.ArrayLike = 0,
    scope: npt.ArrayLike = 0,
    gap_s: npt.ArrayLike = np.nan,
    gap_kind: npt.ArrayLike = GAP_UNKNOWN,
    service_s: npt.ArrayLike = np.nan,
    block_counts: npt.ArrayLike = 0,
    block_ids: Ints = NO_IDS,
    block_tokens: Ints = NO_IDS,
) -> Requests:
    """A batch out of columns, of which a single value stands for every request.

    >>> batch = requests_of([0.0, 1.5], [700, 20], [3, 4])
    >>> batch.session, batch.block_starts
    (array([-1, -1]), array([0, 0, 0]))
    """
    n = len(np.atleast_1d(np.asarray(input_tokens)))

    def column(values: npt.ArrayLike, kind: type) -> Any:
        array: npt.NDArray[Any] = np.asarray(values, kind)
        return array if array.ndim else np.full(n, array)

    starts = np.zeros(n + 1, np.int64)
    np.cumsum(column(block_counts, np.int64), out=starts[1:])
    return Requests(
        time_s=column(time_s, np.float64),
        input_tokens=column(input_tokens, np.int64),
        output_tokens=column(output_tokens, np.int64),
        session=column(session, np.int64),
        agent=column(agent, np.int64),
        scope=column(scope, np.int64),
        gap_s=column(gap_s, np.float64),
        gap_kind=column(gap_kind, np.int64),
        service_s=column(service_s, np.float64),
        block_starts=starts,
        block_ids=block_ids,
        block_tokens=block_tokens,
    )


COLUMNS: Final = (
    "time_s",
    "input_tokens",
    "output_tokens",
    "session",
    "agent",
    "scope",
    "gap_s",
    "gap_kind",
    "service_s",
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
    parts: Iterable[Requests],
    max_blocks: int = BATCH_BLOCKS,
    max_requests: int = BATCH_REQUESTS,
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


class Rows:
    """Gathers requests one by one, for formats that are read so."""

    def __init__(self) -> None:
        self._rows: list[tuple[float, int, int, int, int, int, float, int, float]] = []
        self._counts: list[int] = []
        self._ids: list[Ints] = []
        self._tokens: list[Ints] = []
        self.blocks = 0

    def __len__(self) -> int:
        """Requests gathered."""
        return len(self._rows)

    @property
    def full(self) -> bool:
        """Whether they make a batch."""
        return self.blocks >= BATCH_BLOCKS or len(self._rows) >= BATCH_REQUESTS

    def add(
        self,
        time_s: float,
        input_tokens: int,
        output_tokens: int,
        *,
        session: int = -1,
        agent: int = 0,
        scope: int = 0,
        gap_s: float = float("nan"),
        gap_kind: int = GAP_UNKNOWN,
        service_s: float = float("nan"),
        ids: Ints = NO_IDS,
        tokens: Ints = NO_IDS,
    ) -> None:
        """Gather a request."""
        self._rows.append(
            (
                time_s,
                input_tokens,
                output_tokens,
                session,
                agent,
                scope,
                gap_s,
                gap_kind,
                service_s,
            )
        )
        self._counts.append(len(ids))
        if len(ids):
            self._ids.append(ids)
            self._tokens.append(tokens)
            self.blocks += len(ids)

    def flush(self) -> Requests:
        """The requests gathered, which are then forgotten."""
        columns: dict[str, Any] = dict(zip(COLUMNS, zip(*self._rows, strict=True), strict=True))
        batch = requests_of(
            **columns,
            block_counts=self._counts,
            block_ids=np.concatenate(self._ids) if self._ids else NO_IDS,
            block_tokens=np.concatenate(self._tokens) if self._tokens else NO_IDS,
        )
        self.__init__()  # type: ignore[misc]
        return batch


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
