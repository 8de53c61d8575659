"""H-ttl: hits of a cache without limit that drops what idles longer than a time to live (TTL)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dpplan.arrays import Array, Flags, Ints, Ints32
from dpplan.traces.caches.curves import TtlCurve
from dpplan.traces.caches.prefix_hits import running_maximum
from dpplan.traces.caches.reuse import Touches
from dpplan.traces.requests import with_room

__all__ = ["LastTouches", "TtlHits"]


class LastTouches:
    """When each block was touched last, and its tokens.

    Examples
    --------
    >>> import numpy as np
    >>> from dpplan.traces.caches.reuse import touches_of
    >>> touches = touches_of(np.array([0, 1, 0], np.int32), np.array([0, 2, 3]))
    >>> LastTouches().take(touches, np.array([5.0, 8.0]), np.array([16, 7, 16]), 2).tolist()
    [-inf, -inf, 5.0]
    """

    def __init__(self) -> None:
        self.time_s: Array = np.empty(0)
        """Of each block, at least as many as there are."""
        self.tokens: Ints32 = np.empty(0, np.int32)
        """Of each block, likewise."""

    def take(self, once: Touches, time_s: Array, tokens: Ints, blocks: int) -> Array:
        """Time of each block's touch before this one, -inf = never; shape (m,).

        Parameters
        ----------
        once : Touches
            Without blocks that a request repeats.
        time_s : array, shape (n,)
            Time of each request [s].
        tokens : array of int, shape (m,)
            Of each block of `once` [tokens].
        blocks : int
            All numbers lie below it.
        """
        self.time_s = with_room(self.time_s, blocks, -np.inf)
        self.tokens = with_room(self.tokens, blocks)
        previous_s = np.take(self.time_s, once.numbers)
        within = np.flatnonzero(once.previous >= 0)
        previous_s[within] = time_s[once.request[once.previous[within]]]
        self.time_s[once.numbers] = np.take(time_s, once.request)
        self.tokens[once.numbers] = tokens
        return previous_s

    def keep(self, kept: Flags) -> None:
        """Forget the other blocks; those kept are numbered anew, in the same order; shape (n,)."""
        self.time_s = self.time_s[: len(kept)][kept]
        self.tokens = self.tokens[: len(kept)][kept]


class TtlHits:
    """Hits for each of a list of TTLs, by contiguous prefixes (H-ttl).

    Examples
    --------
    >>> import numpy as np
    >>> hits = TtlHits([10, 60])
    >>> hits.add(np.array([5.0, 30.0, 2.0]), np.zeros(3, np.int32), np.full(3, 16))
    >>> hits.curve(3, 48).block_hit_fraction
    (0.3333333333333333, 1.0)
    """

    def __init__(self, ttls_s: Sequence[float]) -> None:
        self._ttls_s = tuple(ttls_s)
        self._sorted_s = np.unique(np.asarray(ttls_s, dtype=float))
        self._blocks = np.zeros(len(self._sorted_s) + 1)
        self._tokens = np.zeros(len(self._sorted_s) + 1)

    def add(self, age_s: Array, request: Ints32, tokens: Ints, weight: float = 1.0) -> None:
        """Count blocks that were idle so long, inf = never seen; all of shape (m,)."""
        # The shortest TTL that keeps a block, and with it all before it.
        level = np.searchsorted(self._sorted_s, age_s, side="left").astype(np.int64)
        level = running_maximum(level, request)
        size = len(self._blocks)
        self._blocks += np.bincount(level, minlength=size) * weight
        self._tokens += np.bincount(level, tokens, size) * weight

    def curve(
        self, blocks: int, tokens: int, missing: tuple[float, float] = (0.0, 0.0)
    ) -> TtlCurve:
        """Fractions of so many block references and input tokens.

        Parameters
        ----------
        blocks, tokens : int
            All block references, all input tokens.
        missing : tuple of float
            Blocks, and tokens, that a sample doesn't stand for, though it should: taken for hits.
        """
        hit_blocks = np.cumsum(self._blocks) + missing[0]
        hit_tokens = np.cumsum(self._tokens) + missing[1]
        at = np.searchsorted(self._sorted_s, self._ttls_s)
        return TtlCurve(
            self._ttls_s,
            tuple(np.clip(hit_blocks[at] / max(blocks, 1), 0, 1).tolist()),
            tuple(np.clip(hit_tokens[at] / max(tokens, 1), 0, 1).tolist()),
        )
