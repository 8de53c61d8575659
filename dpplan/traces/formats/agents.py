"""Which agent of a session a prompt belongs to, where the trace doesn't tell."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

__all__ = ["Agents", "shared_start"]

# Characters of last prompts remembered, over all sessions.
MAX_REMEMBERED: Final = 32 << 20
# A prompt that shares less than this of the shorter of the two starts a new agent.
MIN_SHARED_FRACTION: Final = 0.5


class Agents:
    """Numbers sessions, and the agents in each by the prompts they build upon.

    Several agents often talk in one session, each with a prompt of its own that grows. A prompt
    goes to the agent whose last prompt shares the longest start with it, if that is at least half
    of the shorter of the two; otherwise it starts a new agent. An agent that drops most of its
    context counts as a new one.

    Examples
    --------
    >>> agents = Agents()
    >>> agents.of("s", "plan: walk"), agents.of("s", "do: open the map")
    ((0, 0), (0, 1))
    >>> agents.of("s", "plan: walk. then?"), agents.of("other", "plan: walk")
    ((0, 0), (1, 0))
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._counts: dict[int, int] = {}
        self._prompts: OrderedDict[int, dict[int, str]] = OrderedDict()
        self._remembered = 0

    def of(self, session: str, prompt: str) -> tuple[int, int]:
        """Number of the session, and of the agent in it."""
        number = self._numbers.setdefault(session, len(self._numbers))
        prompts = self._prompts.setdefault(number, {})
        self._prompts.move_to_end(number)
        agent, longest = -1, -1
        for known, last in prompts.items():
            shared = shared_start(last, prompt)
            enough = MIN_SHARED_FRACTION * min(len(last), len(prompt))
            # An empty prompt shares all of itself with any other: it goes with empty ones.
            if shared >= enough and bool(last) == bool(prompt) and shared > longest:
                agent, longest = known, shared
        if agent < 0:
            agent = self._counts.get(number, 0)
            self._counts[number] = agent + 1
        self._remembered += len(prompt) - len(prompts.get(agent, ""))
        prompts[agent] = prompt
        while self._remembered > MAX_REMEMBERED and len(self._prompts) > 1:
            _, oldest = self._prompts.popitem(last=False)
            self._remembered -= sum(map(len, oldest.values()))
        return number, agent


def shared_start(one: str, other: str) -> int:
    """Characters that two texts share from their start.

    >>> shared_start("append", "apple"), shared_start("a", "ab"), shared_start("", "b")
    (3, 1, 0)
    """
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while low + 1 < high:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low
