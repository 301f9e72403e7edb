"""Small sets of LIBERO's demonstrations in every layout, made of the same recorded episodes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pipeline.compose import compose
from pipeline.config import Config
from stages.imports.importer import Import
from stages.imports.opening import open_source
from tests.stages.imports.libero import hdf5_files, lerobot_files, rlds_files

TASKS = (
    "pick_up_the_alphabet_soup_and_place_it_in_the_basket",
    "pick_up_the_bbq_sauce_and_place_it_in_the_basket",
    "pick_up_the_butter_and_place_it_in_the_basket",
)
SIZE, STRIDE, CHUNK = 48, 4, 8
RECIPE = f"""
epochs: 0
simulator: {{name: libero, tasks: [{TASKS[0]}, {TASKS[1]}], image_size: {SIZE}}}
policy: {{precision: fp32, chunk: {CHUNK}, action_dim: 7, options: {{images: 2, dims_per_position: 7}}}}
demonstrate: {{episodes: 4, stride: {STRIDE}, shards: 2, num_envs: 2, num_workers: 2}}
sft: {{steps: 2, batch: 8, threads: 1, processes: 1, warmup_steps: 0}}
rollout: {{num_envs: 2, num_workers: 2}}
evaluate: {{episodes: 2, num_envs: 2, num_workers: 2}}
slurm: {{launcher: local}}
trainer: {{logger: {{mlflow: {{enable: false}}}}}}
"""
IDLE = (0, 7, 8)  # frames in which the robot does nothing
CLOSING = 12  # a frame in which only the gripper does something


@dataclasses.dataclass
class Truth:
    """An episode as it went: T actions, and what was seen and felt before each of them and after the last.

    Pictures are as LIBERO renders them, before the field turns them.
    """

    task: str
    actions: np.ndarray  # float64 [T, 7]
    states: np.ndarray  # float64 [T + 1, 8]
    simulator: np.ndarray  # float64 [T + 1, 30]
    scene: np.ndarray  # uint8 [T + 1, SIZE, SIZE, 3]
    wrist: np.ndarray

    @property
    def instruction(self) -> str:
        return self.task.replace("_", " ")


def picture(camera: int, episode: int, frames: int) -> np.ndarray:
    """Four squares, one of which tells the frame: neighbours and turned pictures differ after any compression."""
    shown = np.empty((frames, SIZE, SIZE, 3), np.uint8)
    half = SIZE // 2
    shown[:, :half, :half] = (20 + 6 * np.arange(frames))[:, None, None, None]
    shown[:, :half, half:] = 40 + 60 * camera
    shown[:, half:, :half] = 200
    shown[:, half:, half:] = 90 + 20 * episode
    return shown


def truth(task: str, episode: int) -> Truth:
    rng, frames = np.random.default_rng([TASKS.index(task), episode]), 22 + 3 * episode
    actions = rng.uniform(-0.9, 0.9, (frames, 7))
    actions[:, 6] = np.where(np.arange(frames) < CLOSING, -1, 1)
    actions[[*IDLE, CLOSING], :6] = 0
    simulator = np.cumsum(rng.uniform(-0.03, 0.03, (frames + 1, 30)), axis=0)
    fingers = rng.uniform(0, 0.04, (frames + 1, 1))
    states = np.concatenate([rng.uniform(-1, 1, (frames + 1, 6)), fingers, -fingers], axis=1)
    scene, wrist = (picture(camera, episode, frames + 1) for camera in (0, 1))
    return Truth(task, actions, states, simulator, scene, wrist)


@pytest.fixture(scope="session")
def truths() -> list[Truth]:
    """Three episodes of each task."""
    return [truth(task, episode) for task in TASKS for episode in range(3)]


LAYOUTS = {
    "hdf5_late": lambda path, truths: hdf5_files.write(path, truths, late=True),
    "hdf5_before": lambda path, truths: hdf5_files.write(path, truths, late=False),
    "rlds": rlds_files.write,
    "lerobot_v2_pictures": lambda path, truths: lerobot_files.write(path, truths, "v2.1", films=False),
    "lerobot_v2_films": lambda path, truths: lerobot_files.write(path, truths, "v2.1", films=True),
    "lerobot_v3_pictures": lambda path, truths: lerobot_files.write(path, truths, "v3.0", films=False),
    "lerobot_v3_films": lambda path, truths: lerobot_files.write(path, truths, "v3.0", films=True),
}


@pytest.fixture
def made(request, truths, tmp_path) -> Path:
    """A set in the layout that the test is parametrised with."""
    path = tmp_path / request.param
    LAYOUTS[request.param](path, truths)
    return path


@pytest.fixture
def config(tmp_path):
    """Composes the config of an import into a directory of its own, with overrides."""
    (tmp_path / "tiny.yaml").write_text(RECIPE)

    def config(*overrides: str) -> Config:
        base = [f"runs_dir={tmp_path / 'runs'}", f"demonstrate.imported={tmp_path / 'shards'}"]
        return compose(tmp_path / "tiny.yaml", [*base, *overrides])

    return config


def work(path: Path, config: Config, **asked: object) -> Import:
    return Import(open_source(path, config), config, **asked)
