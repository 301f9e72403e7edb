"""Who plays where: the episodes of a plan are dealt to slots that take turns in groups.

What is dealt to whom depends on the order of the plan and on how episodes go, never on timing.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Planned:
    """An episode to be played.

    Attributes:
        index: its place among the stage's episodes.
        task: name of its task.
        seed: of its initial state.
        group: episodes of one group start from the same state.
        noise: the episode's own stream for drawing actions; None: the likeliest actions.
        film: whether frames are kept.
    """

    index: int
    task: str
    seed: int
    group: int
    noise: np.random.Generator | None
    film: bool = False


class Lineup:
    """Deals episodes to slots, so that none is idle while an episode waits.

    A group that takes its turn is told which episode follows in each slot should its own end, so that the simulator
    begins it at once. Where fewer wait than could be needed, the slots whose episodes are oldest get them; what was
    dealt ahead in vain waits again.
    """

    def __init__(
        self, plan: Sequence[Planned], num_envs: int, groups: int, workers: Sequence[int] | None = None
    ) -> None:
        """Begin with all slots free.

        Args:
            plan: the episodes; the first that wait are dealt first.
            num_envs: how many slots there are.
            groups: how many take turns. Neighbouring slots, which share a worker, are of different groups: then every
                worker has something to simulate whichever group the policy decides for.
            workers: of each slot, where the worlds of a worker have one clock: those are of one group, because none of
                them can wait while the others go on.
        """
        self._plan = plan
        self._num_envs = num_envs
        turns = range(num_envs) if workers is None else workers
        self._groups = [[slot for slot, turn in enumerate(turns) if turn % groups == group] for group in range(groups)]
        self._waiting = list(range(len(plan)))  # a heap of places in the plan
        self._playing: dict[int, int] = {}  # slot -> place
        self._ahead: dict[int, int] = {}
        self._turns: dict[int, int] = {}

    @property
    def over(self) -> bool:
        """Whether every episode has been played."""
        return not (self._playing or self._waiting)

    def playing(self, group: int) -> list[int]:
        """The slots of a group that are in an episode."""
        return [slot for slot in self._groups[group] if slot in self._playing]

    def episode(self, slot: int) -> Planned:
        """The episode that a slot is in."""
        return self._plan[self._playing[slot]]

    def fill(self, group: int) -> list[int]:
        """Give the free slots of a group the next episodes.

        Returns:
            The slots that have to begin theirs.
        """
        for slot in self._groups[group]:
            if slot in self._ahead:
                heapq.heappush(self._waiting, self._ahead.pop(slot))
        free = [slot for slot in self._groups[group] if slot not in self._playing]
        begun = free[: len(self._waiting)]
        for slot in begun:
            self._begin(slot, heapq.heappop(self._waiting))
        return begun

    def look_ahead(self, group: int) -> list[Planned | None]:
        """Deal what is to follow in the slots of a group that are in an episode, in their order; None: nothing."""
        slots = self.playing(group)
        free = self._num_envs - len(self._playing)  # slots of other groups, which shall not wait for these
        oldest = sorted(slots, key=lambda slot: -self._turns[slot])
        for slot in oldest[: max(0, len(self._waiting) - free)]:
            self._ahead[slot] = heapq.heappop(self._waiting)
        for slot in slots:
            self._turns[slot] += 1
        return [self._plan[self._ahead[slot]] if slot in self._ahead else None for slot in slots]

    def end(self, slot: int, followed: bool) -> None:
        """Note that a slot's episode is over.

        Args:
            slot: the slot.
            followed: whether the simulator has begun the one that was to follow.
        """
        del self._playing[slot]
        if followed:
            self._begin(slot, self._ahead.pop(slot))

    def _begin(self, slot: int, place: int) -> None:
        self._playing[slot] = place
        self._turns[slot] = 0
