"""BEHAVIOR's activities: their numbers and their instructions in words."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Sequence
from pathlib import Path

from stages.simulators.interface import SimulatorConfigError

CATALOGUE = Path(__file__).with_name("tasks.jsonl")


@dataclasses.dataclass(frozen=True)
class Activity:
    """A line of a file of tasks.

    Attributes:
        index: the task's number in the challenge.
        name: BEHAVIOR's name of it.
        instruction: what the robot is asked to do.
    """

    index: int
    name: str
    instruction: str


def chosen(names: Sequence[str], tasks_file: str | None) -> tuple[Activity, ...]:
    """The activities of a config, in its order.

    Args:
        names: of activities.
        tasks_file: JSONL with task_index, task_name and task in each line; further keys are for others. None: the 50
            of the challenge.

    Raises:
        SimulatorConfigError: a name is not among them, or the file cannot be read.
    """
    path = Path(tasks_file) if tasks_file else CATALOGUE
    listed = {activity.name: activity for activity in read(path)}
    for name in names:
        if name not in listed:
            close = difflib.get_close_matches(name, list(listed), n=1)
            hint = f"; did you mean {close[0]}?" if close else ";"
            raise SimulatorConfigError(
                f"omnigibson: no activity {name!r} in {path}{hint} `baton tasks omnigibson` lists the challenge's, "
                "simulator.options.tasks_file names a file of others"
            )
    return tuple(listed[name] for name in names)


def read(path: Path) -> list[Activity]:
    """All activities of a file.

    Raises:
        SimulatorConfigError: it cannot be read; the message names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SimulatorConfigError(f"omnigibson: tasks_file {path} cannot be read: {error}") from None
    activities = []
    for number, line in enumerate(lines, 1):
        try:
            told = json.loads(line)
            activities.append(Activity(int(told["task_index"]), str(told["task_name"]), str(told["task"])))
        except (ValueError, TypeError, KeyError):
            raise SimulatorConfigError(
                f"omnigibson: {path}:{number}: every line is a JSON object with task_index, task_name and task"
            ) from None
    return activities
