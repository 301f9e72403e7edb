"""The tasks there are, from tasks.jsonl, and what a robot of each suite has: arms, numbers, cameras."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable
from pathlib import Path

from stages.simulators.interface import SimulatorConfigError
from stages.simulators.options import nearest

_FILE = Path(__file__).with_name("tasks.jsonl")
_ARM = "panda_wristcam"  # with a camera at its hand, also where a task of ManiSkill's comes without one
ARMS = {"two_robot": (_ARM, _ARM), "single_arm": (_ARM,)}
ARM_ACTIONS = 7
ARM_PROPRIO = 16


@dataclasses.dataclass(frozen=True)
class Entry:
    """A line of the file.

    Attributes:
        suite: name of the suite it belongs to.
        name: ManiSkill's name of the environment.
        instruction: what the robot is told.
    """

    suite: str
    name: str
    instruction: str

    @property
    def arms(self) -> tuple[str, ...]:
        """ManiSkill's names of the robots, from left to right."""
        return ARMS[self.suite]


@functools.cache
def entries() -> dict[str, Entry]:
    """All tasks by name, in the order of the file."""
    lines = [json.loads(line) for line in _FILE.read_text(encoding="utf-8").splitlines()]
    return {line["task_name"]: Entry(line["suite"], line["task_name"], line["task"]) for line in lines}


def expand(wanted: Iterable[str]) -> tuple[str, ...]:
    """Names of tasks from names of tasks and suites; a suite stands for its tasks.

    Raises:
        SimulatorConfigError: something is neither, or tasks are of different suites, whose robots differ.
    """
    suites = {suite: [entry.name for entry in entries().values() if entry.suite == suite] for suite in ARMS}
    names: list[str] = []
    for name in wanted:
        if name not in suites and name not in entries():
            valid = [*suites, *entries()]
            hint = nearest(str(name), valid)
            raise SimulatorConfigError(f"maniskill: tasks has no {name!r}{hint}; valid: {', '.join(valid)}")
        names += suites.get(name, [name])
    if not names or len(set(names)) < len(names):
        raise SimulatorConfigError(f"maniskill: tasks is {list(wanted)}; name at least one task, each once")
    if len({entries()[name].suite for name in names}) > 1:
        raise SimulatorConfigError(
            f"maniskill: tasks is {list(wanted)}, with one arm and with two; name tasks of one suite: "
            f"{', '.join(suites)}"
        )
    return tuple(names)
