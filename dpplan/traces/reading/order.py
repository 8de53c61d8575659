"""Requests in order of time, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dpplan.traces.columns import BATCH_BLOCKS, BATCH_REQUESTS, batches, join, take
from dpplan.traces.formats.common import Notes
from dpplan.traces.requests import Requests

__all__ = ["in_time_order"]

SORTED = "requests that stood out of order of time and were sorted: {}"
LATE = "requests that came too late to be sorted, and stay out of order of time: {}"


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
            notes.add(LATE, late)
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
        notes.add(SORTED, behind)
        if held is not None:
            cut = len(held)
            yield give(take(both, np.arange(cut)))
            held = take(both, np.arange(cut, len(both)))
        else:
            held = both
    if held is not None:
        yield give(held)
