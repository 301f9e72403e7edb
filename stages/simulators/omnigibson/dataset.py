"""BEHAVIOR's data folder (OMNIGIBSON_DATA_PATH): scenes, instances of tasks, and how long people took for them."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stages.simulators.interface import HELD_OUT, Episode, SimulatorConfigError, split_of
from stages.simulators.omnigibson.options import Options
from stages.simulators.omnigibson.tasks import Activity

VARIABLE = "OMNIGIBSON_DATA_PATH"
DOWNLOAD = "`baton env create omnigibson` downloads the data, docs/behavior.md says how by hand"
PUBLIC_TESTS = 10  # of the public test instances, the ones that are evaluated
OWN_LIMIT = 2000  # steps of an episode where no human length is known


def data_path() -> Path:
    """The data folder.

    Raises:
        SimulatorConfigError: the variable is not set, or names no folder. OmniGibson's import would fail on it.
    """
    value = os.environ.get(VARIABLE)
    if not value:
        raise SimulatorConfigError(
            f"omnigibson: {VARIABLE} is not set; put `export {VARIABLE}=/data/behavior` or the like into slurm.setup; "
            f"{DOWNLOAD}"
        )
    if not Path(value).is_dir():
        raise SimulatorConfigError(f"omnigibson: {VARIABLE}={value} is no folder on this machine; {DOWNLOAD}")
    return Path(value)


@dataclasses.dataclass(frozen=True)
class ActivityFiles:
    """What the data folder holds of an activity.

    Attributes:
        activity: which.
        scene_model: the house it takes place in.
        directory: where the files of its instances lie.
        definition: which definition of the activity.
        train: instances for training.
        evaluation: instances for evaluation.
        limit: steps of an episode.
        shared: initial states are evaluated that are trained on, because there are no others.
    """

    activity: Activity
    scene_model: str
    directory: Path
    definition: int
    train: tuple[int, ...]
    evaluation: tuple[int, ...]
    limit: int
    shared: bool

    def instance_of(self, episode: Episode) -> int:
        """The instance that an episode begins with: the same for the same seed, in whatever world and process."""
        if split_of(episode.seed) == "train":
            return self.train[episode.seed % len(self.train)]
        return self.evaluation[(episode.seed - HELD_OUT) % len(self.evaluation)]

    def file_of(self, instance: int) -> Path:
        """Where the objects of an instance are.

        Raises:
            SimulatorConfigError: there is no such file.
        """
        path = self.directory / f"{_stem(self.scene_model, self.activity, self.definition, instance)}-tro_state.json"
        if not path.is_file():
            here = ", ".join(map(str, _instances_in(self.directory)[:10])) or "none"
            raise SimulatorConfigError(
                f"omnigibson: {self.activity.name} has no instance {instance}: {path} is not there (first of those "
                f"that are: {here}); choose others in simulator.options.train_instances or evaluation_instances"
            )
        return path


def files_of(activity: Activity, options: Options, newest: bool) -> ActivityFiles:
    """Find the files of an activity.

    Args:
        activity: which.
        options: what is to be different from what the challenge does.
        newest: whether the challenge of the newest year is meant (OmniGibson 3.9), else that of 2025.

    Raises:
        SimulatorConfigError: there are none, or an instance that was chosen has none; the message says what was looked
            for.
    """
    root = data_path()
    challenges = sorted(root.glob("*-challenge-task-instances"))
    challenge = challenges[-1 if newest else 0] if challenges else root / "2025-challenge-task-instances"
    scene = options.scene_model or _scene_of(challenge, activity, options.activity_definition)
    instances = f"{scene}_task_{activity.name}_instances"
    directory = Path(options.instance_directory or challenge / "scenes" / scene / "json" / instances)
    train, evaluation = _splits(challenge / "metadata", directory, activity)
    train, evaluation = options.train_instances or train, options.evaluation_instances or evaluation
    length = human_length(challenge / "metadata", activity)
    own = OWN_LIMIT if length is None else int(options.step_budget * length)
    found = ActivityFiles(
        activity=activity,
        scene_model=scene,
        directory=directory,
        definition=options.activity_definition,
        train=train,
        evaluation=evaluation,
        limit=options.max_episode_steps or own,
        shared=bool(set(train) & set(evaluation)),
    )
    for chosen in (options.train_instances or (), options.evaluation_instances or ()):
        for instance in chosen if chosen != (0,) else ():  # the scene as it is stored, as long as none is loaded
            found.file_of(instance)
    return found


def human_length(metadata: Path, activity: Activity) -> float | None:
    """Mean number of steps that people took, None where that is not known."""
    lengths = [episode["length"] for episode in _demonstrated(metadata, activity)]
    return float(np.mean(lengths)) if lengths else None


def _scene_of(challenge: Path, activity: Activity, definition: int) -> str:
    """The house that an activity's stored scene is for."""
    name = re.escape(f"_task_{activity.name}_{definition}_0_template.json")
    found = sorted(
        {path.parts[-3] for path in challenge.glob("scenes/*/json/*.json") if re.search(f"{name}$", path.name)}
    )
    if len(found) == 1:
        return found[0]
    problem = f"is stored for several scenes ({', '.join(found)})" if found else "is stored for no scene"
    raise SimulatorConfigError(
        f"omnigibson: {activity.name} {problem}: looked for scenes/*/json/*_task_{activity.name}_{definition}_0_"
        f"template.json below {challenge}; set simulator.options.scene_model, or complete the data: {DOWNLOAD}"
    )


def _splits(metadata: Path, directory: Path, activity: Activity) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Instances for training and for evaluation: the challenge's, else every tenth of the files that are there."""
    train = sorted({int(episode["episode_index"]) // 10 % 1000 for episode in _demonstrated(metadata, activity)})
    tests = _public_tests(metadata, activity)
    if train and tests:
        return tuple(train), tests
    there = _instances_in(directory)
    held_out = tests or tuple(there[9::10] or there[-1:] if len(there) > 1 else there)
    rest = train or [instance for instance in there if instance not in held_out]
    return tuple(rest or held_out or (0,)), held_out or (0,)


def _demonstrated(metadata: Path, activity: Activity) -> Iterator[dict[str, float]]:
    """The lines of episodes.jsonl that are about an activity; none where there is no such file."""
    path = metadata / "episodes.jsonl"
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            for line in file:
                episode = json.loads(line)
                if int(episode["episode_index"]) // 10_000 == activity.index:
                    yield episode


def _public_tests(metadata: Path, activity: Activity) -> tuple[int, ...]:
    """The first public test instances: columns index, name, "id, id, ..."."""
    path = metadata / "test_instances.csv"
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.reader(file):
                if len(row) > 2 and row[1] == activity.name:
                    return tuple(int(one) for one in row[2].split(",") if one.strip())[:PUBLIC_TESTS]
    return ()


def _instances_in(directory: Path) -> list[int]:
    numbers = (re.search(r"_(\d+)_template-tro_state\.json$", path.name) for path in directory.glob("*-tro_state.json"))
    return sorted(int(number[1]) for number in numbers if number)


def _stem(scene: str, activity: Activity, definition: int, instance: int) -> str:
    """`BehaviorTask.get_cached_activity_scene_filename`."""
    return f"{scene}_task_{activity.name}_{definition}_{instance}_template"
