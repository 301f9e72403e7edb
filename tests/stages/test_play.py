"""Episodes in a pool: the same numbers whatever the timing and whoever dies, and simulators that never wait in vain."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from stages.lineup import Planned
from stages.metrics import Phases
from stages.play import Played, Player, Sent, Shoot, in_order, logged
from stages.simulators.interface import HELD_OUT, ChunkResult, Observation
from stages.simulators.pool import SimulatorPool, Start

pytestmark = pytest.mark.usefixtures("fakes")
COUNTING = "fakesim.counting"
CHUNK = 4


class Whim:
    """Acts on what it sees, on the episode's own noise and, as batched arithmetic may, on who else is in the batch."""

    def __init__(self, pool: SimulatorPool, seconds: float = 0.0, disturb: Callable[[int], None] = lambda turn: None):
        self.pool, self.seconds, self.disturb = pool, seconds, disturb
        self.turns = 0

    def act(
        self,
        slots: Sequence[int],
        seen: Observation,
        planned: Sequence[Planned],
        then: Sequence[Start | None],
    ) -> Sent:
        time.sleep(self.seconds)
        noise = np.stack([each.noise.uniform(-0.5, 0.5, (CHUNK, 3)) for each in planned if each.noise is not None])
        actions = np.clip(noise + 0.01 * seen.proprio.sum() * np.arange(len(slots))[:, None, None], -1, 1).astype(
            np.float32
        )
        ticket = self.pool.step_async(slots, actions, then)
        self.turns += 1
        self.disturb(self.turns)
        return Sent(ticket, lambda _: {"actions": actions})

    def judge(self, seen: Observation, planned: Sequence[Planned]) -> list[float]:
        return [float(proprio.sum() + episode.seed) for proprio, episode in zip(seen.proprio, planned, strict=True)]


def plan(episodes: int, film: int = -1) -> list[Planned]:
    return [
        Planned(index, "count", seed=index, group=index, noise=np.random.default_rng(index), film=index == film)
        for index in range(episodes)
    ]


def play(
    episodes: int,
    num_envs: int,
    workers: int,
    groups: int,
    film: int = -1,
    log: Path = Path(os.devnull),
    shoot: Shoot | None = None,
    **options,
) -> list[Played]:
    disturb = options.pop("disturb", None)
    with SimulatorPool(COUNTING, options, num_envs, workers, max_restarts=50) as pool:
        actor = Whim(pool) if disturb is None else Whim(pool, disturb=lambda turn: disturb(pool, turn))
        player = Player(pool, actor, groups=groups, phases=Phases(), shoot=shoot)
        made = plan(episodes, film)
        return list(in_order(made, logged(log, player.play(made))))


def assert_same(one: list[Played], other: list[Played]) -> None:
    assert [each.planned.index for each in one] == [each.planned.index for each in other]
    for mine, yours in zip(one, other, strict=True):
        for name in ("head", "wrist", "proprio", "rewards", "executed"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(yours, name))
        np.testing.assert_array_equal(mine.acted["actions"], yours.acted["actions"])
        for name in ("success", "terminated", "truncated", "bootstrap_value"):
            assert getattr(mine, name) == getattr(yours, name)


@pytest.fixture(scope="module")
def undisturbed(fakes: None) -> list[Played]:
    return play(30, num_envs=6, workers=1, groups=2)


def test_episodes_are_whole_and_end_as_the_simulator_says(undisturbed: list[Played]) -> None:
    """Seed s succeeds after 3 + s % 15 steps, but where 4 divides it the limit of 20 cuts it off."""
    assert [each.planned.index for each in undisturbed] == list(range(30))
    for each in undisturbed:
        seed = each.planned.seed
        steps = 20 if seed % 4 == 0 else 3 + seed % 15
        assert each.steps == steps
        assert each.decisions == -(-steps // CHUNK)
        assert len(each.head) == len(each.wrist) == len(each.proprio) == len(each.acted["actions"]) == each.decisions
        assert (each.success, each.terminated, each.truncated) == (seed % 4 > 0, seed % 4 > 0, seed % 4 == 0)
        assert (each.bootstrap_value == 0) == each.terminated
        assert each.reward == pytest.approx(each.rewards.sum())


@pytest.mark.parametrize("workers", [2, 3, 6])
def test_workers_and_their_timing_change_nothing(workers: int, undisturbed: list[Played]) -> None:
    assert_same(play(30, num_envs=6, workers=workers, groups=2, delay=0.002, reset_delay=0.003), undisturbed)


@pytest.mark.parametrize("wrists", [0, 1])
def test_fewer_wrist_cameras_change_nothing_else(wrists: int, undisturbed: list[Played]) -> None:
    fewer = play(30, num_envs=6, workers=2, groups=2, wrists=wrists)
    for each, same in zip(fewer, undisturbed, strict=True):
        assert each.wrist.shape == (each.decisions, wrists, 3, 8, 8)
        np.testing.assert_array_equal(each.wrist, same.wrist[:, :wrists])
        each.wrist = same.wrist
    assert_same(fewer, undisturbed)


def test_workers_that_die_change_nothing_and_the_log_tells_of_them(tmp_path: Path, undisturbed: list[Played]) -> None:
    def disturb(pool: SimulatorPool, turn: int) -> None:
        if turn in (5, 6, 20):
            os.kill(pool.pids[turn % 2], signal.SIGKILL)

    log = tmp_path / "episodes.jsonl"
    assert_same(play(30, num_envs=6, workers=2, groups=2, log=log, disturb=disturb), undisturbed)
    lines = {line["index"]: line for line in map(json.loads, log.read_text().splitlines())}
    assert len(lines) == 30
    for each in undisturbed:
        line = lines[each.planned.index]
        assert (line["task"], line["seed"], line["group"]) == ("count", each.planned.seed, each.planned.group)
        assert (line["success"], line["steps"], line["decisions"]) == (each.success, each.steps, each.decisions)
        assert line["return"] == each.reward
        assert line["split"] == "train"
    lived_through = [(line["worker"], reason) for line in lines.values() for reason in line["replayed"]]
    assert {worker for worker, _ in lived_through} == {0, 1}
    assert all(reason.startswith("it was killed by signal 9") for _, reason in lived_through)
    assert 4 <= len(lived_through) <= 9, "three worlds a worker, three deaths, some between two episodes"


def test_the_log_is_written_as_episodes_end_and_names_the_split(tmp_path: Path) -> None:
    log = tmp_path / "episodes.jsonl"
    log.write_text("of an earlier start\n")
    with SimulatorPool(COUNTING, {}, 2) as pool:
        made = [
            Planned(0, "count", HELD_OUT + 1, 0, np.random.default_rng(0)),
            Planned(1, "count", HELD_OUT - 1, 0, np.random.default_rng(0)),
        ]
        played = logged(log, Player(pool, Whim(pool), groups=1, phases=Phases()).play(made))
        for count, each in enumerate(played, start=1):
            lines = [json.loads(line) for line in log.read_text().splitlines()]
            assert len(lines) == count
            assert lines[-1]["seed"] == each.planned.seed
    assert {line["seed"]: line["split"] for line in lines} == {HELD_OUT + 1: "evaluation", HELD_OUT - 1: "train"}


class Camera:
    """Keeps what a player hands it."""

    def __init__(self) -> None:
        self.frames: list[int] = []
        self.outcomes: list[str] = []

    def __call__(self, planned: Planned, result: ChunkResult, row: int) -> None:
        assert planned.index == 4
        assert len(result.frames[row]) == result.executed[row].sum()
        self.frames += [int(frame[0, 0, 0]) for frame in result.frames[row]]
        if result.terminated[row] or result.truncated[row]:
            self.outcomes.append("success" if result.success[row] else "failure")


def test_a_filmed_episode_that_follows_another_has_all_its_frames(undisturbed: list[Played]) -> None:
    camera = Camera()
    played = play(30, num_envs=6, workers=1, groups=2, film=4, shoot=camera)
    assert camera.frames == list(range(1, 21))
    assert camera.outcomes == ["failure"]
    assert_same(played, undisturbed)


def test_a_worker_that_dies_leaves_no_gap_and_no_frame_twice(undisturbed: list[Played]) -> None:
    def disturb(pool: SimulatorPool, turn: int) -> None:
        if turn in (2, 5, 6):
            os.kill(pool.pids[turn % 2], signal.SIGKILL)

    camera = Camera()
    played = play(30, num_envs=6, workers=2, groups=2, film=4, shoot=camera, disturb=disturb)
    assert any(each.faults for each in played if each.planned.index == 4), "it lived through one"
    assert camera.frames == list(range(1, 21))
    assert camera.outcomes == ["failure"]
    assert_same(played, undisturbed)


@pytest.mark.parametrize("episodes", [0, 1, 3])
def test_fewer_episodes_than_slots(episodes: int) -> None:
    assert len(play(episodes, num_envs=4, workers=2, groups=2)) == episodes


def seconds(groups: int, policy: float, **options: float) -> float:
    """How long 24 episodes take in 8 worlds, two workers, once the workers are up."""
    with SimulatorPool(COUNTING, options, 8, 2) as pool:
        player = Player(pool, Whim(pool, policy), groups=groups, phases=Phases())
        begun = time.monotonic()
        assert len(list(player.play(plan(24)))) == 24
        return time.monotonic() - begun


def test_simulators_and_policy_work_at_the_same_time() -> None:
    """Half a group costs a worker and the policy half of the time, so that two groups could take half of it."""
    one, two = seconds(1, 0.1, delay=0.1), seconds(2, 0.05, delay=0.05)
    assert two < 0.75 * one


def test_nobody_waits_for_a_reset_while_many_episodes_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers begin episodes by themselves; only the first of each world and some of the last are asked for apart."""
    asked: list[int] = []
    with SimulatorPool(COUNTING, {}, 8, 2) as pool:
        reset = pool.reset_async
        monkeypatch.setattr(pool, "reset_async", lambda slots, *how: asked.append(len(slots)) or reset(slots, *how))
        assert len(list(Player(pool, Whim(pool), groups=2, phases=Phases()).play(plan(100)))) == 100
    assert asked[:2] == [4, 4]
    assert sum(asked[2:]) <= 8
