"""What the turn before had, for every turn, though batches cut sessions anywhere."""

from __future__ import annotations

import numpy as np

from dpplan.arrays import Array, Flags, Ints
from dpplan.traces.requests import with_room

__all__ = ["TurnsBefore"]


class TurnsBefore:
    """Takes in turns of agents that are numbered from 0 on, gives each the turn before it.

    Parameters
    ----------
    columns : int
        Numbers kept of each agent's last turn.

    Examples
    --------
    >>> turns = TurnsBefore(columns=1)
    >>> turns.add(np.array([0, 1, 0]), np.array([[5, 6, 7]]))[1].tolist()
    [[0.0, 0.0, 5.0]]
    >>> earlier, before = turns.add(np.array([1, 0]), np.array([[8, 9]]))
    >>> earlier.tolist(), before.tolist()
    ([1, 2], [[6.0, 7.0]])
    """

    def __init__(self, columns: int) -> None:
        self.last: Array = np.zeros((columns, 0))
        """Of each agent's last turn, shape (columns, agents or more)."""
        self._turns: Ints = np.zeros(0, np.int64)

    def add(self, agent: Ints, values: Array | Ints) -> tuple[Ints, Array]:
        """Take in the next turns.

        Parameters
        ----------
        agent : array of int, shape (n,)
            Turns of one agent in their order.
        values : array, shape (columns, n)

        Returns
        -------
        (array of int, array)
            How many turns the agent had before, shape (n,), and the values of the last of them, 0
            where there is none, shape (columns, n).
        """
        if not len(agent):
            return agent, np.zeros(values.shape)
        agents = int(agent.max()) + 1
        self.last, self._turns = with_room(self.last, agents), with_room(self._turns, agents)
        order = np.argsort(agent, kind="stable")
        by_agent, ordered = agent[order], values[:, order].astype(float)
        first = np.concatenate([[True], by_agent[1:] != by_agent[:-1]])
        starts = np.flatnonzero(first)
        runs = np.diff(starts, append=len(agent))
        before = np.roll(ordered, 1, axis=1)
        before[:, first] = self.last[:, by_agent[first]]
        place = np.arange(len(agent)) - np.repeat(starts, runs)
        earlier = self._turns[by_agent] + place
        self.last[:, by_agent[starts]] = ordered[:, starts + runs - 1]
        self._turns[by_agent[starts]] += runs
        back = np.argsort(order)
        return earlier[back], before[:, back]

    def keep(self, kept: Flags) -> None:
        """Forget the other agents; those kept are numbered anew, in the same order; shape (k,)."""
        self.last, self._turns = self.last[:, : len(kept)][:, kept], self._turns[: len(kept)][kept]
