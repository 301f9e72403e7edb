"""Starts Isaac Sim in this process, with worlds of the generation that is installed."""

from __future__ import annotations

import importlib

from stages.simulators.omnigibson import dataset, generation, launch
from stages.simulators.omnigibson.dataset import ActivityFiles
from stages.simulators.omnigibson.options import Options
from stages.simulators.omnigibson.scene_worlds import SceneWorlds
from stages.simulators.omnigibson.tasks import Activity, chosen
from stages.simulators.omnigibson.vector_worlds import VectorWorlds
from stages.simulators.omnigibson.worlds import Worlds


def build(options: Options, num_envs: int) -> Worlds:
    """Start Isaac Sim in this process and build worlds of the first activity.

    Args:
        options: what the user chose.
        num_envs: N.

    Raises:
        ModuleNotFoundError: OmniGibson is not installed here.
        SimulatorConfigError: what is installed, or its data, cannot be used; the message says why.
    """
    activities = chosen(options.tasks, options.tasks_file)
    found = generation.find()
    card = launch.prepare(options)
    files = files_of(activities[0], options, found.letter)
    with launch.starting(options, card) as omnigibson:
        several = hasattr(importlib.import_module("omnigibson.envs"), "VectorEnvironment")
        kind: type[Worlds] = VectorWorlds if several else SceneWorlds
        worlds = kind(omnigibson, found.letter, options, num_envs, card)
        worlds.enter(files)
    return worlds


def files_of(activity: Activity, options: Options, letter: str) -> ActivityFiles:
    """The files of an activity, and a line on its log where training and evaluation share initial states."""
    files = dataset.files_of(activity, options, newest=letter == "C")
    if files.shared:
        print(
            f"omnigibson: WARNING: {activity.name} is evaluated on initial states it is trained on "
            f"({sorted(set(files.train) & set(files.evaluation))}): there are no others in {files.directory}",
            flush=True,
        )
    return files
