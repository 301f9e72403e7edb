"""What a pool remembers of its worlds: what happened since their resets, and nothing older."""

import numpy as np

from stages.simulators.interface import Episode
from stages.simulators.replay import Command, History, Start


def start(seed: int) -> Start:
    return Start(Episode("count", seed))


def reset(*slots: int) -> Command:
    return Command("reset", slots, [start(10 + slot) for slot in slots])


def step(*slots: int) -> Command:
    return Command("step", slots, actions=np.stack([np.full((2, 3), slot, np.float32) for slot in slots]))


def told(history: History) -> list[tuple[str, list[int]]]:
    return [(command.verb, list(command.slots)) for command in history]


def test_a_reset_makes_older_commands_of_its_worlds_irrelevant() -> None:
    history = History()
    for command in (reset(0, 1, 2), step(2, 0, 1), step(1), reset(1), step(0, 1)):
        history.record(command)
    assert told(history) == [("reset", [0, 2]), ("step", [2, 0]), ("reset", [1]), ("step", [0, 1])]
    commands = list(history)
    assert [start.episode.seed for start in commands[0].starts] == [10, 12]
    assert commands[1].actions is not None
    assert commands[1].actions[:, 0, 0].tolist() == [2.0, 0.0]


def test_an_episode_that_followed_counts_as_a_reset_behind_its_chunk() -> None:
    history = History()
    history.record(reset(0, 1, 2))
    chunk = Command("expert", [2, 0, 1], length=4, then=[start(32), None, start(31)])
    history.record(chunk, restarted=[2])
    assert told(history) == [("reset", [0, 2]), ("expert", [2, 0]), ("reset", [1])]
    for command in history:
        assert not command.then, "what did not follow then must not follow in a replay"
        assert command.blind, "nobody looks at a replay"
    assert [history.episode(slot) for slot in (0, 1, 3)] == [Episode("count", 10), Episode("count", 31), None]


def test_looking_is_not_remembered_and_whole_batches_stay_whole() -> None:
    history = History()
    for command in (reset(0, 1), Command("observe", [0]), Command("expert", [0, 1], length=4), step(1)):
        history.record(command)
    assert told(history) == [("reset", [0, 1]), ("expert", [0, 1]), ("step", [1])]


def test_memory_does_not_grow_with_episodes() -> None:
    history = History()
    for _ in range(50):
        for command in (reset(0), reset(1), step(0, 1), step(0)):
            history.record(command)
        history.record(Command("expert", [0, 1], length=4, then=[start(1), start(2)]), restarted=[1])
    assert len(told(history)) == 5
