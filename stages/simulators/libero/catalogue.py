"""The tasks of LIBERO's five suites, from tasks.jsonl, and how long the field lets a policy try each."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable
from pathlib import Path

from stages.simulators.interface import SimulatorConfigError
from stages.simulators.options import nearest

STEP_LIMITS = {"libero_spatial": 220, "libero_object": 280, "libero_goal": 300, "libero_10": 520, "libero_90": 400}
"""Suite -> steps of an episode, settling not counted: each a little more than the longest demonstration takes."""
STATES = 50  # initial states that LIBERO keeps for the evaluation of a task

_FILE = Path(__file__).with_name("tasks.jsonl")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A line of the file.

    Attributes:
        suite: name of the suite it belongs to.
        index: its number in the suite.
        name: LIBERO's own, unique over all suites.
        instruction: what the robot is told; by the field's custom the name in words.
    """

    suite: str
    index: int
    name: str
    instruction: str

    @property
    def step_limit(self) -> int:
        """Steps after which an episode is cut off."""
        return STEP_LIMITS[self.suite]


@functools.cache
def entries() -> dict[str, Entry]:
    """All tasks by name, in the order of the file."""
    lines = [json.loads(line) for line in _FILE.read_text(encoding="utf-8").splitlines()]
    read = [Entry(line["suite"], line["task_index"], line["task_name"], line["task"]) for line in lines]
    return {entry.name: entry for entry in read}


def expand(wanted: Iterable[str]) -> tuple[str, ...]:
    """Names of tasks from names of tasks and suites; a suite stands for its tasks.

    Raises:
        SimulatorConfigError: something is neither, or a task is named twice.
    """
    names: list[str] = []
    for name in wanted:
        members = [entry.name for entry in entries().values() if entry.suite == name]
        if not members and name not in entries():
            hint = nearest(str(name), [*STEP_LIMITS, *entries()]) or ";"
            suites = ", ".join(STEP_LIMITS)
            raise SimulatorConfigError(
                f"libero: tasks has no {name!r}{hint} suites: {suites}; `baton tasks libero` lists all tasks"
            )
        names += members or [name]
    if not names or len(set(names)) < len(names):
        raise SimulatorConfigError(f"libero: tasks is {list(wanted)}; name at least one task, each once")
    return tuple(names)
