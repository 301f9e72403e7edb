"""The HDF5 files of LIBERO's original release and of OpenVLA's regeneration: a file a task, a group a demonstration.

    TASK_demo.hdf5: data/demo_I/{actions,states,rewards,dones}, data/demo_I/obs/{agentview_rgb,eye_in_hand_rgb,ee_pos,
    ee_ori,gripper_states,joint_states}, as LIBERO's `scripts/create_dataset.py` writes them

That script stores what is seen after each action: its observation t belongs before action t + 1. The regeneration
stores what is seen before. Which of both a file does is told by the joints: those of observation t are in the
simulator's state t, which is the one before action t, or in t + 1.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import UserError
from stages.imports.films import AGAIN, first_line
from stages.imports.libero import tasks
from stages.imports.libero.conventions import ACTION_NUMBERS
from stages.imports.libero.formats import Numbers
from stages.imports.source import Episode
from stages.simulators.libero.catalogue import entries

A_TASK = 1000  # numbers of episodes that a task has
DEMONSTRATION = re.compile(r"demo_(\d+)")
JOINTS = slice(1, 8)  # of a simulator's state: the time, the robot's seven joints, ...
VIEWS = ("agentview_rgb", "eye_in_hand_rgb")


class Hdf5:
    """See `stages.imports.libero.formats.Format`. Episode 1000 n + i is demo_i of the task in line n of `baton tasks`.

    Args:
        path: a file, or a directory with one a task.
        chosen: names of the tasks that are wanted.
    """

    name, turned, starts = "hdf5", False, True

    def __init__(self, path: Path, chosen: Sequence[str]) -> None:
        """Look into the files of the wanted tasks.

        Raises:
            UserError: one is damaged.
        """
        self.path = path
        files = sorted(path.rglob(f"*{tasks.DEMONSTRATIONS}")) if path.is_dir() else [path]
        self._others = [tasks.of_file(file.name) for file in files]
        if path.is_file() and self._others[0] not in entries():
            raise UserError(f"{path} is named after no task of LIBERO; name a file TASK{tasks.DEMONSTRATIONS} of one")
        self._files: dict[str, Path] = {}
        for file in files:
            task = tasks.of_file(file.name)
            if task in self._files:
                raise UserError(
                    f"{path} holds two files of {task}, {self._files[task].relative_to(path)} and "
                    f"{file.relative_to(path)}; name the directory of one of them"
                )
            if task in chosen:
                self._files[task] = file
        places, self._episodes = {name: place for place, name in enumerate(entries())}, []
        sizes: set[int] = set()
        for task, file in self._files.items():
            with _opened(file) as data:
                for demonstration in data:
                    found = DEMONSTRATION.fullmatch(demonstration)
                    if found is None:
                        continue
                    number = A_TASK * places[task] + int(found[1])
                    views = [_array(file, data, f"{demonstration}/obs/{view}") for view in VIEWS]
                    sizes |= {size for view in views for size in view.shape[1:3]}
                    if not len(views[0]):
                        raise UserError(f"{file}: data/{demonstration} has no frames; {AGAIN}")
                    self._episodes.append(Episode(number, task, len(views[0])))
        if len(sizes) > 1:
            raise UserError(f"{path}: its pictures have the sizes {sorted(sizes)}, one is needed; {AGAIN}")
        self.picture_size = sizes.pop() if sizes else 0

    def episodes(self) -> list[Episode]:
        """See Format.episodes."""
        return sorted(self._episodes, key=lambda episode: episode.number)

    def others(self) -> list[str]:
        """See Format.others."""
        return self._others

    def grippers(self) -> Iterator[np.ndarray]:
        """See Format.grippers."""
        for episode in self.episodes():
            with _opened(self._files[episode.task]) as data:
                actions = _array(self._files[episode.task], data, f"{_group(episode)}/actions", ACTION_NUMBERS)
                yield actions[:, -1]

    def numbers(self, episode: Episode) -> Numbers:
        """See Format.numbers."""
        file, group = self._files[episode.task], _group(episode)
        widths = {"actions": ACTION_NUMBERS, "obs/ee_pos": 3, "obs/ee_ori": 3, "obs/gripper_states": 2}
        widths |= {"obs/joint_states": 7}
        with _opened(file) as data:
            arrays = {name: _array(file, data, f"{group}/{name}", width)[()] for name, width in widths.items()}
            simulator = _array(file, data, f"{group}/states")[()]
            endings = [data[group][name][()] for name in ("rewards", "dones") if name in data[group]]
        arrays["states"] = simulator
        for name, array in arrays.items():
            if len(array) != episode.frames:
                raise UserError(
                    f"{file}: data/{group}/{name} has {len(array)} rows, its pictures {episode.frames}; {AGAIN}"
                )
        late = seen_late(arrays["obs/joint_states"], simulator)
        states = np.concatenate([arrays[f"obs/{name}"] for name in ("ee_pos", "ee_ori", "gripper_states")], axis=1)
        return Numbers(
            actions=arrays["actions"][int(late) :].astype(np.float32),
            states=states[: len(states) - late].astype(np.float32),
            success=all(bool(np.asarray(ending).any()) for ending in endings),
            start=simulator[0],
        )

    def pictures(self, episode: Episode, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See Format.pictures."""
        file = self._files[episode.task]
        with _opened(file) as data:
            scene, wrist = (_array(file, data, f"{_group(episode)}/obs/{view}")[rows] for view in VIEWS)
            convention = data.attrs.get("macros_image_convention", "opengl")
        # robosuite flips what it renders to have it upright, "opencv", unless it leaves that to others, "opengl".
        return (scene[:, ::-1], wrist[:, ::-1]) if convention == "opencv" else (scene, wrist)

    def digests(self) -> dict[str, str]:
        """See Format.digests: files of gigabytes are told apart by what is in them and their first actions."""
        found = {}
        for task, file in self._files.items():
            own = [episode for episode in self.episodes() if episode.task == task]
            digest = hashlib.sha256(repr([(episode.number, episode.frames) for episode in own]).encode())
            with _opened(file) as data:
                digest.update(_array(file, data, f"{_group(own[0])}/actions")[()].tobytes())
            found[file.name] = digest.hexdigest()
        return found


def seen_late(joints: np.ndarray, simulator: np.ndarray) -> bool:
    """Whether observations were stored after their actions.

    Args:
        joints: [T, 7], the robot's, as observed.
        simulator: [T, ...], flattened states before each action.
    """
    if len(joints) < 2:
        return False
    before = np.abs(joints[:-1] - simulator[:-1, JOINTS]).mean()
    after = np.abs(joints[:-1] - simulator[1:, JOINTS]).mean()
    return bool(after < before)


def _group(episode: Episode) -> str:
    return f"demo_{episode.number % A_TASK}"


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """The group `data` of a file."""
    import h5py

    try:
        with h5py.File(file, "r") as opened:
            if "data" not in opened:
                raise UserError(f"{file}: there is no group data; name files of LIBERO's release, TASK_demo.hdf5")
            yield opened["data"]
    except FileNotFoundError:
        raise UserError(f"{file} is missing; name a directory of files TASK_demo.hdf5, or one of them") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read ({first_line(error)}); {AGAIN}") from None


def _array(file: Path, data: Any, name: str, width: int | None = None) -> Any:
    """An array of a file, with rows of so many numbers."""
    if name not in data:
        raise UserError(f"{file}: there is no data/{name}; {AGAIN}")
    array = data[name]
    if width is not None and array.shape[1:] != (width,):
        raise UserError(f"{file}: data/{name} has the shape {list(array.shape)}, expected [T, {width}]; {AGAIN}")
    return array
