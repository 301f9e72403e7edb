"""The tasks of Baton's own simulators: what `tasks.jsonl` of each lists, and what the name of a suite stands for."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import UserError
from pipeline.rundir import package_root

SIMULATORS = package_root() / "stages" / "simulators"
CATALOGUE = "tasks.jsonl"

Name = Annotated[str, Field(min_length=1)]


class Task(BaseModel):
    """A line of `tasks.jsonl`.

    Attributes:
        task_index: its place in its suite, from 0.
        task_name: what configs, shards and results call it.
        task: the instruction in words.
        suite: the suite that it belongs to.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    task_index: int
    task_name: Name
    task: Name
    suite: Name


def expand(simulator: str, names: Sequence[str]) -> list[str]:
    """Put the tasks of a suite where its name stands.

    Args:
        simulator: `simulator.name` of a config.
        names: tasks and suites; as they are where the simulator lists none.

    Returns:
        Names of tasks.

    Raises:
        UserError: a line for each name that is neither, or the list is broken.
    """
    listed = catalogue(simulator)
    if listed is None:
        return list(names)
    suites = by_suite(listed)
    tasks = {task.task_name for task in listed}
    if unknown := [name for name in names if name not in suites and name not in tasks]:
        sizes = ", ".join(f"{suite} ({len(members)} tasks)" for suite, members in suites.items())
        there = f"Suites: {sizes}; `baton tasks {simulator}` lists all"
        lines = []
        for name in unknown:
            near = difflib.get_close_matches(name, [*suites, *tasks], n=1)
            guess = f"; did you mean {near[0]}?" if near else ";"
            lines.append(f"simulator.tasks: {simulator} has no task or suite {name!r}{guess} {there}")
        raise UserError("\n".join(lines))
    return [task for name in names for task in ([one.task_name for one in suites[name]] if name in suites else [name])]


def by_suite(listed: Sequence[Task]) -> dict[str, list[Task]]:
    """The tasks of each suite, suites and tasks in the order in which they are listed."""
    suites: dict[str, list[Task]] = {}
    for task in listed:
        suites.setdefault(task.suite, []).append(task)
    return suites


def catalogue(simulator: str) -> tuple[Task, ...] | None:
    """The tasks of a simulator.

    Args:
        simulator: `simulator.name` of a config.

    Returns:
        Its tasks as listed; None where it is a module elsewhere or lists none.

    Raises:
        UserError: the list is broken.
    """
    path = SIMULATORS / simulator / CATALOGUE
    return read(path) if simulator.isidentifier() and path.is_file() else None


def catalogues() -> list[str]:
    """Names of the simulators that list their tasks."""
    return sorted(path.parent.name for path in SIMULATORS.glob(f"*/{CATALOGUE}"))


def read(path: Path) -> tuple[Task, ...]:
    """Read a list of tasks.

    Args:
        path: a JSON object a line, the fields of `Task`.

    Raises:
        UserError: it cannot be read; the line says where and why.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _broken(str(path), str(error)) from None
    listed: list[Task] = []
    sizes: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        place = f"{path}:{number}"
        try:
            task = Task.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            raise _broken(place, " ".join([*map(str, first["loc"]), first["msg"]])) from None
        size = sizes.get(task.suite, 0)
        if task.task_index != size:
            raise _broken(place, f"task_index is {task.task_index}, but {size} tasks of {task.suite} come before it")
        if task.task_name in {other.task_name for other in listed}:
            raise _broken(place, f"{task.task_name} is listed before")
        sizes[task.suite] = size + 1
        listed.append(task)
    if not listed:
        raise _broken(str(path), "it lists no task")
    if both := sizes.keys() & {task.task_name for task in listed}:
        raise _broken(str(path), f"{min(both)} is both a suite and a task")
    return tuple(listed)


def _broken(place: str, problem: str) -> UserError:
    return UserError(f"{place}: {problem}; every line is a JSON object with {', '.join(Task.model_fields)}")
