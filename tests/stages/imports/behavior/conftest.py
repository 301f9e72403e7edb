"""A small data set in the layout of BEHAVIOR's demonstrations: parquet by pyarrow, films by PyAV."""

from __future__ import annotations

import dataclasses
import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from pipeline.compose import compose
from pipeline.config import Config
from stages.imports.importer import Import
from stages.imports.opening import open_source

CHUNK = 10000
CAMERAS = {"head": 96, "left_wrist": 64, "right_wrist": 64}
TASKS = {0: "turning_on_radio", 35: "attach_a_camera_to_a_tripod", 40: "make_microwave_popcorn"}
RECIPE = """
epochs: 0
simulator:
  name: omnigibson
  tasks: [turning_on_radio, make_microwave_popcorn]
  image_size: 32
  action_frequency: 30
  physics_frequency: 120
  rendering_frequency: 30
  options: {action_mode: joint_23}
policy: {precision: fp32, chunk: 8, action_dim: 23, options: {dims_per_position: 23}}
demonstrate: {episodes: 4, stride: 4, shards: 2, num_envs: 2, num_workers: 2}
sft: {steps: 2, batch: 8, threads: 1, processes: 1, warmup_steps: 0}
rollout: {num_envs: 2, num_workers: 2}
evaluate: {episodes: 2, num_envs: 2, num_workers: 2}
slurm: {launcher: local}
trainer: {logger: {mlflow: {enable: false}}}
"""


@dataclasses.dataclass
class Made:
    """A data set on disk and what was put into it."""

    path: Path
    actions: dict[int, np.ndarray]
    states: dict[int, np.ndarray]

    def table(self, number: int) -> Path:
        return self.path / f"data/task-{number // CHUNK:04d}/episode_{number:08d}.parquet"

    def film(self, number: int, camera: str) -> Path:
        name = f"observation.images.rgb.{camera}"
        return self.path / f"videos/task-{number // CHUNK:04d}/{name}/episode_{number:08d}.mp4"

    def rewrite_info(self, **changes: object) -> None:
        file = self.path / "meta/info.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    def write_table(self, number: int, actions: np.ndarray, states: np.ndarray) -> None:
        columns = {
            "action": pyarrow.array(list(actions), pyarrow.list_(pyarrow.float32())),
            "timestamp": np.arange(len(actions)) / 30,
            "episode_index": np.full(len(actions), number),
            "index": np.arange(len(actions)),
            "observation.cam_rel_poses": list(np.zeros((len(actions), 21), np.float32)),
            "observation.state": pyarrow.array(list(states), pyarrow.list_(pyarrow.float32())),
            "observation.task_info": [np.zeros(3 + number % 4, np.float32)] * len(actions),
        }
        self.table(number).parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pyarrow.table(columns), self.table(number))

    def write_film(self, number: int, camera: str, frames: int) -> None:
        """Each frame is of one grey that grows with its number, so that a frame can be told from its neighbours."""
        size, path = CAMERAS[camera], self.film(number, camera)
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=Fraction(30))
            stream.width = stream.height = size
            stream.pix_fmt = "yuv420p"
            for index in range(frames):
                picture = np.full((size, size, 3), grey(number, camera, index), np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())


def work(made: Made, config: Config, **asked: object) -> Import:
    return Import(open_source(made.path, config), config, **asked)


def grey(number: int, camera: str, frame: int) -> int:
    return 20 + 5 * frame + 20 * list(CAMERAS).index(camera) + number % 7


def wrist_path(frames: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A hand's positions and orientations (x, y, z, w), in small steps."""
    positions = np.cumsum(rng.uniform(-0.03, 0.03, (frames, 3)), axis=0)
    turns = rng.uniform(-0.08, 0.08, (frames, 3))
    orientation, path = np.array([0.0, 0.0, 0.0, 1.0]), []
    for turn in turns:
        orientation = multiply(quaternion(turn), orientation)
        path.append(orientation * rng.choice([-1, 1]))  # q and -q are the same orientation
    return positions, np.array(path)


def quaternion(turn: np.ndarray) -> np.ndarray:
    angle = np.linalg.norm(turn)
    axis = turn / angle if angle else turn
    return np.append(axis * np.sin(angle / 2), np.cos(angle / 2))


def multiply(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    (px, py, pz, pw), (qx, qy, qz, qw) = p, q
    return np.array(
        [
            pw * qx + px * qw + py * qz - pz * qy,
            pw * qy - px * qz + py * qw + pz * qx,
            pw * qz + px * qy - py * qx + pz * qw,
            pw * qw - px * qx - py * qy - pz * qz,
        ]
    )


def episode(frames: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    actions = rng.uniform(-1, 1, (frames, 23)).astype(np.float32)
    states = rng.normal(0, 1, (frames, 256)).astype(np.float32)
    for position, rotation in ((186, 189), (225, 228)):
        states[:, position : position + 3], states[:, rotation : rotation + 4] = wrist_path(frames, rng)
    states[:, 240:244] = states[:, 253:256] = 0  # trunk and base stand still
    return actions, states


@pytest.fixture(scope="session")
def _original(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Three episodes of each of three tasks; numbers are not contiguous, as in the real one."""
    path = tmp_path_factory.mktemp("lerobot") / "2025-challenge-demos"
    (path / "meta").mkdir(parents=True)
    made, rng = Made(path, {}, {}), np.random.default_rng(0)
    lines = []
    for index, name in TASKS.items():
        for place in (10, 20, 40):
            number, frames = index * CHUNK + place, 30 + place // 10
            made.actions[number], made.states[number] = episode(frames, rng)
            made.write_table(number, made.actions[number], made.states[number])
            for camera in CAMERAS:
                made.write_film(number, camera, frames)
            lines.append({"episode_index": number, "tasks": [name], "length": frames})
    lines.sort(key=lambda line: -line["episode_index"])  # any order will do
    (path / "meta/episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    tasks = [{"task_index": index, "task_name": name, "task": f"recorded {name}"} for index, name in TASKS.items()]
    (path / "meta/tasks.jsonl").write_text("\n".join(map(json.dumps, tasks)))  # without a newline at its end
    features = {
        **{f"observation.images.rgb.{name}": {"dtype": "video", "shape": [s, s, 3]} for name, s in CAMERAS.items()},
        "observation.images.depth.head": {"dtype": "video", "shape": [720, 720, 3]},
        "action": {"dtype": "float32", "shape": [23], "names": None},
        "observation.state": {"dtype": "float32", "shape": [256], "names": None},
        "observation.task_info": {"dtype": "float32", "shape": [None], "names": None},
    }
    info = {
        "codebase_version": "v2.1",
        "robot_type": "R1Pro",
        "chunks_size": CHUNK,
        "fps": 30,
        "data_path": "data/task-{episode_chunk:04d}/episode_{episode_index:08d}.parquet",
        "video_path": "videos/task-{episode_chunk:04d}/{video_key}/episode_{episode_index:08d}.mp4",
        "metainfo_path": "meta/episodes/task-{episode_chunk:04d}/episode_{episode_index:08d}.json",
        "features": features,
    }
    (path / "meta/info.json").write_text(json.dumps(info))
    return made


@pytest.fixture
def made(_original: Made, tmp_path: Path) -> Made:
    """The data set, for one test to spoil."""
    import shutil

    path = tmp_path / _original.path.name
    shutil.copytree(_original.path, path)
    return dataclasses.replace(_original, path=path)


@pytest.fixture
def config(tmp_path: Path):
    """Composes the config of an import into a directory of its own, with overrides."""
    (tmp_path / "tiny.yaml").write_text(RECIPE)

    def config(*overrides: str) -> Config:
        base = [f"runs_dir={tmp_path / 'runs'}", f"demonstrate.imported={tmp_path / 'shards'}"]
        return compose(tmp_path / "tiny.yaml", [*base, *overrides])

    return config
