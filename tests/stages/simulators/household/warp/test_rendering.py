"""The batch renderer shows what the other renderers show, of every world its own, at any size."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mujoco
import mujoco_warp as mjw
import numpy as np
import pytest
import warp as wp

from stages.simulators import opengl
from stages.simulators.household import rendering
from stages.simulators.household.benchmark import Benchmark
from stages.simulators.household.options import parse
from stages.simulators.household.scene import build
from stages.simulators.household.simulator import Household
from stages.simulators.household.warp import memory
from stages.simulators.household.warp.device import Device
from stages.simulators.household.warp.rendering import BatchRenderer
from stages.simulators.interface import Episode, Gallery, make
from stages.simulators.pool import SimulatorPool, Start

from .conftest import TASKS

MEAN, FAR, FEW = 1.5, 16, 0.01  # levels of 255: mean difference; a far one, at an edge; how many pixels may be so far
Made = Callable[..., Household]


@pytest.fixture(scope="module")
def made(compiled: None) -> Iterator[Made]:
    """Makes simulators of both backends, which are closed at the end."""
    simulators: list[Household] = []

    def one(**options: object) -> Household:
        simulators.append(make("household", 3, {"tasks": TASKS, **options}))  # type: ignore[arg-type]
        return simulators[-1]

    yield one
    for simulator in simulators:
        simulator.close()


def pictures(simulator: Household, slots: list[int]) -> np.ndarray:
    """int [n, cameras, 3, H, W]."""
    seen = simulator.observe(slots)
    return np.concatenate([seen.head[:, None], seen.wrist], axis=1).astype(int)


@pytest.mark.parametrize("size", [33, 64])
def test_it_shows_what_opengl_shows_of_worlds_in_several_scenes(made: Made, size: int) -> None:
    if rendering.choose("auto") == "raycast":
        pytest.skip(f"no OpenGL here: as root, {opengl.REMEDIES['egl']}")
    ours = made(backend="mujoco_warp", renderer="mujoco_warp", image_size=size)
    theirs = made(backend="mujoco", image_size=size)
    episodes = [Episode(TASKS[1], 5), Episode(TASKS[0], 6), Episode(TASKS[1], 7)]
    for simulator in (ours, theirs):
        simulator.reset([0, 1, 2], episodes, [False] * 3)
    drawn, wanted = pictures(ours, [0, 1, 2]), pictures(theirs, [0, 1, 2])
    assert drawn.shape == (3, 3, 3, size, size)
    off = np.abs(drawn - wanted)
    assert off.mean(axis=(2, 3, 4)).max() < MEAN
    assert (off.max(axis=2) > FAR).mean(axis=(2, 3)).max() < FEW
    assert (np.abs(drawn[0] - drawn[2]).mean(axis=(1, 2, 3)) > 0.05).all()  # another seed is another picture
    np.testing.assert_array_equal(pictures(ours, [2, 1]), drawn[[2, 1]])


def test_images_hang_in_the_rows_of_a_gallery(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    simulator, size = made(backend="mujoco_warp", renderer="mujoco_warp", image_size=33), 33
    episodes = [Episode(TASKS[1], 5), Episode(TASKS[0], 6), Episode(TASKS[1], 7)]
    simulator.reset([0, 1, 2], episodes, [False] * 3)
    simulator.step_chunk([0, 1, 2], np.full((3, 2, 14), 0.3, np.float32))
    wanted, proprio = pictures(simulator, [0, 1, 2]), simulator.observe([2, 1]).proprio
    memory = wp.full((5, 3, 3, size * size), 7, dtype=wp.uint8, device="cpu")
    monkeypatch.setattr(Device, "opened", lambda self, handle, shape: memory.reshape(shape))  # no GPU, no driver
    simulator.borrow(Gallery(b"", worlds=5, first=2))
    np.testing.assert_array_equal(simulator.hang([2, 1]), proprio)
    hung = memory.numpy().reshape(5, 3, 3, size, size)
    np.testing.assert_array_equal(hung[[4, 3]], wanted[[2, 1]])
    assert (hung[:3] == 7).all()  # nobody asked for world 0, and the first two rows are another worker's


@pytest.mark.parametrize("wrists", [0, 1])
def test_only_the_chosen_cameras_are_drawn(made: Made, monkeypatch: pytest.MonkeyPatch, wrists: int) -> None:
    chosen = {"backend": "mujoco_warp", "renderer": "mujoco_warp", "image_size": 33}
    every, some = made(**chosen), made(**chosen, wrist_cameras=wrists)
    for simulator in (every, some):
        simulator.reset([0, 1], [Episode(TASKS[1], 5), Episode(TASKS[0], 6)], [False] * 2)
    wanted = pictures(every, [0, 1])[:, : 1 + wrists]
    np.testing.assert_array_equal(pictures(some, [0, 1]), wanted)
    memory = wp.zeros((3, 1 + wrists, 3, 33 * 33), dtype=wp.uint8, device="cpu")
    monkeypatch.setattr(Device, "opened", lambda self, handle, shape: memory.reshape(shape))  # no GPU, no driver
    some.borrow(Gallery(b"", worlds=3, first=0))
    some.hang([0, 1])
    np.testing.assert_array_equal(memory.numpy()[:2].reshape(wanted.shape), wanted)


def test_it_shows_what_the_ray_caster_shows_but_for_its_flat_light(made: Made) -> None:
    ours = made(backend="mujoco_warp", renderer="mujoco_warp", image_size=32)
    theirs = made(backend="mujoco", renderer="raycast", image_size=32)
    for simulator in (ours, theirs):
        simulator.reset([0, 1], [Episode(TASKS[0], 3), Episode(TASKS[1], 3)], [False] * 2)
        simulator.step_chunk([0, 1], np.full((2, 2, 14), 0.3, np.float32))
    drawn, wanted = pictures(ours, [0, 1]), pictures(theirs, [0, 1])
    for world in range(2):
        for camera in range(3):
            both = np.corrcoef(drawn[world, camera].ravel(), wanted[world, camera].ravel())
            assert both[0, 1] > 0.98


def test_the_memory_that_images_take_is_known_beforehand(compiled: None) -> None:
    options = parse({"tasks": TASKS[:1]})
    [scene] = Benchmark(options).scenes
    described = mujoco.MjModel.from_xml_string(build(scene, options.physics_frequency, 48))
    described.opt.disableflags &= ~int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
    taken = []
    with wp.ScopedDevice("cpu"):
        for worlds in (1, 2):
            data = mjw.make_data(described, nworld=worlds)
            renderer = BatchRenderer(described, mjw.put_model(described), data, options.cameras, 48)
            taken.append(memory._bytes_of(renderer._context) + renderer._images.capacity)
    # The nodes of the tree are not among the arrays that can be counted.
    assert 0.7 * memory.of_images(described, 3, 48) < taken[1] - taken[0] < memory.of_images(described, 3, 48)
    assert memory.of_images(described, 3, 0) == 0


@pytest.mark.parametrize("tasks", [TASKS[:1], TASKS])
def test_what_a_truncated_world_looked_like_is_not_overdrawn_by_the_episode_that_follows(
    compiled: None, tasks: list[str]
) -> None:
    options = {"tasks": tasks, "backend": "mujoco_warp", "renderer": "mujoco_warp", "image_size": 32}
    actions = np.full((3, 2, 14), 0.3, np.float32)
    first, then = ([Episode(tasks[i % len(tasks)], 10 * batch + i) for i in range(3)] for batch in (0, 1))
    with SimulatorPool("household", {**options, "max_episode_steps": 2}, 3) as pool:
        pool.reset(range(3), first)
        stepped = pool.step(range(3), actions, [Start(episode, False) for episode in then])
        assert stepped.restarted.all()
        begun = pool.reset(range(3), then)
    with SimulatorPool("household", options, 3) as pool:
        pool.reset(range(3), first)
        ended = pool.step(range(3), actions).observation
    for name in ("head", "wrist", "proprio"):
        np.testing.assert_array_equal(getattr(stepped.observation, name), getattr(begun, name))
        last = np.stack([getattr(stepped.last[row], name) for row in range(3)])
        np.testing.assert_array_equal(last, getattr(ended, name))
        assert not np.array_equal(last, getattr(begun, name))
