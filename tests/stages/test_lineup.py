"""Who plays where: every episode once, no slot idle while one waits, and the same whatever the timing."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.lineup import Lineup, Planned


def planned(count: int) -> list[Planned]:
    return [Planned(index=index, task="task", seed=index, group=index, noise=None) for index in range(count)]


class Table:
    """Slots whose episodes last as many turns as they are told to."""

    def __init__(self, lengths: list[int], num_envs: int, groups: int) -> None:
        self.lengths, self.groups = lengths, groups
        self.lineup = Lineup(planned(len(lengths)), num_envs, groups)
        self.num_envs = num_envs
        self.left: dict[int, int] = {}
        self.order: list[int] = []  # as they began
        self.stalled = 0  # episodes that could not follow at once
        self.then: dict[int, Planned | None] = {}

    def begin(self, slot: int) -> None:
        index = self.lineup.episode(slot).index
        self.left[slot] = self.lengths[index]
        self.order.append(index)

    def send(self, group: int) -> None:
        self.then |= dict(zip(self.lineup.playing(group), self.lineup.look_ahead(group), strict=True))

    def take(self, group: int) -> None:
        for slot in self.lineup.playing(group):
            self.left[slot] -= 1
            if self.left[slot] == 0:
                followed = self.then[slot] is not None
                self.lineup.end(slot, followed)
                if followed:
                    assert self.lineup.episode(slot) == self.then[slot]
                    self.begin(slot)

    def play(self) -> int:
        """Play all; return how many rounds it took."""
        for group in range(self.groups):
            for slot in self.lineup.fill(group):
                self.begin(slot)
        for group in range(self.groups):
            self.send(group)
        rounds = 0
        while not self.lineup.over:
            rounds += 1
            for group in range(self.groups):
                self.take(group)
                for slot in self.lineup.fill(group):
                    self.begin(slot)
                    self.stalled += 1
                self.send(group)
        return rounds


lengths = st.lists(st.integers(1, 6), min_size=0, max_size=40)


@given(lengths, st.integers(1, 9), st.integers(1, 4))
def test_every_episode_is_played_once_and_slots_are_never_idle_for_long(
    lengths: list[int], num_envs: int, groups: int
) -> None:
    groups = min(groups, num_envs)
    table = Table(lengths, num_envs, groups)
    rounds = table.play()
    assert sorted(table.order) == list(range(len(lengths)))
    # What a free slot may wait for: what another group was dealt ahead in vain comes back a round later.
    longest = max(lengths, default=0)
    assert rounds <= sum(lengths) / num_envs + longest + 1


@given(lengths, st.integers(1, 6))
def test_with_one_group_slots_are_taken_as_soon_as_they_are_free(lengths: list[int], num_envs: int) -> None:
    ends = [0] * num_envs
    table = Table(lengths, num_envs, 1)
    rounds = table.play()
    for index in table.order:  # greedy, in the order in which they began
        slot = int(np.argmin(ends))
        ends[slot] += lengths[index]
    assert rounds == max(ends)


def test_while_many_wait_every_episode_follows_at_once() -> None:
    table = Table([3, 1, 2, 5] * 25, 8, 2)
    table.play()
    assert table.stalled <= 16, "only at the end of a plan"
    far = max(abs(place - index) for place, index in enumerate(table.order))
    assert far <= 16, "episodes begin nearly in the order of the plan, so that few are held back"


def test_groups_share_the_slots_of_every_worker() -> None:
    lineup = Lineup(planned(6), 6, 2)
    assert [lineup.fill(group) for group in (0, 1)] == [[0, 2, 4], [1, 3, 5]]
    assert [lineup.episode(slot).index for slot in (0, 2, 4, 1, 3, 5)] == [0, 1, 2, 3, 4, 5]
    assert lineup.look_ahead(0) == [None] * 3


def test_the_oldest_episodes_are_followed_first_where_few_wait() -> None:
    lineup = Lineup(planned(5), 3, 1)
    lineup.fill(0)
    lineup.look_ahead(0)
    lineup.end(1, followed=True)  # slot 1 began later than the others
    assert lineup.fill(0) == []
    after = lineup.look_ahead(0)
    assert [each and each.index for each in after] == [3, None, None]
