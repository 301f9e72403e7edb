"""Worlds with one clock take their turns by processes, so that none moves while it waits for the policy."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stages.lineup import Lineup, Planned


def plan(count: int) -> list[Planned]:
    return [Planned(index, "turning_on_radio", index, index, None) for index in range(count)]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.integers(1, 3), st.integers(0, 30))
def test_a_process_belongs_to_one_group(worlds, groups, episodes):
    workers = [worker for worker, count in enumerate(worlds) for _ in range(count)]
    lineup = Lineup(plan(episodes), len(workers), groups, workers)
    begun = [lineup.fill(group) for group in range(groups)]
    turns: dict[int, set[int]] = {}
    for group, slots in enumerate(begun):
        for slot in slots:
            turns.setdefault(workers[slot], set()).add(group)
    assert all(len(group) == 1 for group in turns.values())
    assert sorted(slot for slots in begun for slot in slots) == sorted(set(sum(begun, [])))
    assert sum(map(len, begun)) == min(episodes, len(workers))


@given(st.integers(1, 12), st.integers(1, 4))
def test_without_it_neighbours_take_turns(worlds, groups):
    lineup = Lineup(plan(worlds), worlds, groups)
    assert [lineup.fill(group) for group in range(groups)] == [list(range(g, worlds, groups)) for g in range(groups)]
