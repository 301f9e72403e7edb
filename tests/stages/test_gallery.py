"""Images that hang in a gallery: a policy sees, and a shard gets, what they would be if they came with the answers."""

from __future__ import annotations

import os
import signal
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from stages.expert_actor import ExpertActor
from stages.gallery import Gallery, gallery
from stages.lineup import Planned
from stages.metrics import Phases
from stages.play import Played, Player, in_order
from stages.policies.interface import Decision, Observation
from stages.policy_actor import PolicyActor
from stages.simulators.interface import Episode, SimulatorConfigError
from stages.simulators.pool import SimulatorPool

pytestmark = pytest.mark.usefixtures("fakes")
COUNTING = "fakesim.counting"
WORLDS, SIZE, CHUNK = 6, 8, 4


class ByLooks:
    """A policy whose actions are what it sees."""

    device = torch.device("cpu")

    def __init__(self, disturb: Callable[[int], None] = lambda turn: None) -> None:
        self.turns, self._disturb = 0, disturb

    def act(self, observation: Observation, noise: object = None, temperature: float = 1.0) -> Decision:
        self.turns += 1
        self._disturb(self.turns)
        head, wrist = (part.float().flatten(1).mean(1) for part in (observation.head, observation.wrist))
        looks = torch.stack([head, wrist.nan_to_num(), observation.proprio[:, 0] * 255], dim=1) / 255 - 0.5
        actions = looks.clamp(-1, 1)[:, None].expand(-1, CHUNK, -1)
        return Decision(actions, {"tokens": torch.zeros(actions.shape).long()}, actions, head)


def lend(pool: SimulatorPool, file: Path) -> None:
    """Lend memory that is a file: its name is its handle."""
    shape = (WORLDS, 1 + pool.spec.wrist_cameras, 3, SIZE, SIZE)
    np.memmap(file, np.uint8, "w+", shape=shape)
    pool.lend(Gallery(torch.from_numpy(np.memmap(file, np.uint8, "r+", shape=shape)), os.fsencode(file)))


def play(workers: int, file: Path | None, *, killed: tuple[int, ...] = (), **options: object) -> list[Played]:
    plan = [Planned(index, "count", seed=index, group=index, noise=None) for index in range(30)]
    with SimulatorPool(COUNTING, options, WORLDS, workers, max_restarts=50) as pool:
        if file is not None:
            lend(pool, file)

        def disturb(turn: int) -> None:
            if turn in killed:
                os.kill(pool.pids[turn % workers], signal.SIGKILL)

        policy = ByLooks(disturb)
        actor = PolicyActor(pool, policy, temperature=1.0, coherent=False, phases=Phases())  # type: ignore[arg-type]
        played = list(in_order(plan, Player(pool, actor, groups=2, phases=Phases()).play(plan)))
        assert pool.restarts == len(killed)
        return played


def assert_same(one: list[Played], other: list[Played]) -> None:
    assert len(one) == len(other) == 30
    for mine, yours in zip(one, other, strict=True):
        for name in ("head", "wrist", "proprio", "rewards", "executed", "success", "bootstrap_value"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(yours, name))
        np.testing.assert_array_equal(mine.acted["actions"], yours.acted["actions"])


@pytest.fixture(scope="module")
def told(fakes: None) -> list[Played]:
    """Episodes whose images come with the answers."""
    return play(1, None)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_gallery_changes_nothing_of_what_is_seen_done_and_kept(
    workers: int, told: list[Played], tmp_path: Path
) -> None:
    assert len({played.acted["actions"].tobytes() for played in told}) == 30
    assert_same(play(workers, tmp_path / "images"), told)


def test_a_process_that_replaces_another_is_lent_the_gallery_too(told: list[Played], tmp_path: Path) -> None:
    assert_same(play(2, tmp_path / "images", killed=(3, 4, 11)), told)


def test_fewer_wrist_cameras_have_fewer_rooms(tmp_path: Path) -> None:
    for wrists in (0, 1):
        hung, told = (play(1, file, wrists=wrists) for file in (tmp_path / f"{wrists}", None))
        for mine, yours in zip(hung, told, strict=True):
            assert mine.wrist.shape[1] == wrists
            np.testing.assert_array_equal(mine.wrist, yours.wrist)
            np.testing.assert_array_equal(mine.head, yours.head)


def test_what_the_simulator_cannot_open_it_refuses(tmp_path: Path) -> None:
    with SimulatorPool(COUNTING, {"refuses": True}, WORLDS) as pool:
        with pytest.raises(SimulatorConfigError, match="opens nothing"):
            lend(pool, tmp_path / "images")
        assert pool.lent is None
        seen = pool.reset([2], [Episode("count", 3)])
        assert seen.head.max() > 0  # it goes on as before


@pytest.mark.parametrize(("gpus", "shared"), [(["GPU-1", "GPU-1"], "GPU-1"), (["GPU-1", "GPU-2"], None)])
def test_images_come_with_the_answers_where_simulators_and_policy_do_not_share_a_gpu(
    gpus: list[str], shared: str | None
) -> None:
    with SimulatorPool(COUNTING, {}, WORLDS, 2, environments=[{"GPU_FOR_TESTS": gpu} for gpu in gpus]) as pool:
        assert pool.gpu == shared
        assert gallery(pool, torch.device("cpu")) is None
        assert pool.lent is None


def test_demonstrations_need_their_images(tmp_path: Path) -> None:
    with SimulatorPool(COUNTING, {}, WORLDS) as pool:
        lend(pool, tmp_path / "images")
        with pytest.raises(AssertionError, match="main memory"):
            ExpertActor(pool, 1)


def test_worlds_that_lie_side_by_side_are_not_copied() -> None:
    images = torch.arange(6 * 2 * 3 * 4, dtype=torch.uint8).reshape(6, 2, 3, 2, 2)
    hung, wanted = Gallery(images, b""), images.clone()
    assert hung.look(range(2, 5))[0].data_ptr() == images[2].data_ptr()
    scattered = hung.look([4, 1])
    torch.testing.assert_close(scattered[0], images[[4, 1], 0])
    torch.testing.assert_close(scattered[1], images[[4, 1], 1:])
    seen = types.SimpleNamespace(head=np.zeros((2, 3, 2, 2), np.uint8), wrist=np.zeros((2, 1, 3, 2, 2), np.uint8))
    hung.fetch([4, 1])
    kept = hung.keep(seen)  # type: ignore[arg-type]
    images[1] = 0  # the simulators go on
    kept.result()
    np.testing.assert_array_equal(seen.head, [wanted[4, 0], wanted[1, 0]])
    np.testing.assert_array_equal(seen.wrist, [wanted[4, 1:], wanted[1, 1:]])
