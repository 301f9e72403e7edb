"""The tasks there are, from tasks.jsonl: the one source of their names, order and instructions."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable
from pathlib import Path

from stages.simulators.interface import SimulatorConfigError
from stages.simulators.options import nearest

_FILE = Path(__file__).with_name("tasks.jsonl")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A line of the file.

    Attributes:
        suite: name of the suite it belongs to.
        index: its number in the suite.
        name: unique over all suites.
        instruction: what the robot is told.
    """

    suite: str
    index: int
    name: str
    instruction: str


@functools.cache
def entries() -> dict[str, Entry]:
    """All tasks by name, in the order of the file."""
    lines = [json.loads(line) for line in _FILE.read_text(encoding="utf-8").splitlines()]
    read = [Entry(line["suite"], line["task_index"], line["task_name"], line["task"]) for line in lines]
    return {entry.name: entry for entry in read}


def suites() -> dict[str, tuple[str, ...]]:
    """The names of each suite's tasks."""
    found: dict[str, tuple[str, ...]] = {}
    for entry in entries().values():
        found[entry.suite] = (*found.get(entry.suite, ()), entry.name)
    return found


def expand(wanted: Iterable[str]) -> tuple[str, ...]:
    """Names of tasks from names of tasks and suites; a suite stands for its tasks.

    Raises:
        SimulatorConfigError: something is neither; the message names what comes close and what there is.
    """
    names: list[str] = []
    for name in wanted:
        names += suites().get(name, (name,))
        if name not in suites() and name not in entries():
            valid = [*suites(), *entries()]
            hint = nearest(str(name), valid)
            raise SimulatorConfigError(f"household: tasks has no {name!r}{hint}; valid: {', '.join(valid)}")
    if not names or len(set(names)) < len(names):
        raise SimulatorConfigError(f"household: tasks is {list(wanted)}; name at least one task, each once")
    return tuple(names)
