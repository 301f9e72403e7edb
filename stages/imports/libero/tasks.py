"""Which of LIBERO's tasks a recorded episode is of: by the name of its file, or by its instruction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from pipeline.errors import UserError
from stages.simulators.libero.catalogue import Entry, entries

DEMONSTRATIONS = "_demo.hdf5"  # what the original release puts behind the name of a task


def of_file(name: str) -> str:
    """The task that a file of the original release is named after, wherever it lies."""
    return PurePosixPath(name.replace("\\", "/")).name.removesuffix(DEMONSTRATIONS)


class ByInstruction:
    """Tells tasks by their instructions, which some of LIBERO-90's share among themselves and with other suites.

    Args:
        path: of the demonstrations, for messages.
        instructions: all those that occur in them; they tell which suites these are of.
        chosen: names of the tasks that are wanted.
    """

    def __init__(self, path: Path, instructions: Iterable[str], chosen: Sequence[str]) -> None:
        self._path, self._chosen = path, frozenset(chosen)
        self._tasks: dict[str, list[Entry]] = {}
        for task in entries().values():
            self._tasks.setdefault(plain(task.instruction), []).append(task)
        # An instruction that only one task has tells that the task's suite is there.
        fitting = [self._tasks.get(plain(text), []) for text in instructions]
        self._suites = {tasks[0].suite for tasks in fitting if len(tasks) == 1}

    def __call__(self, instruction: str) -> str | None:
        """The wanted task with an instruction, None if there is none.

        Raises:
            UserError: several tasks have it, and one of them is wanted.
        """
        fitting = self._tasks.get(plain(instruction), [])
        fitting = [task for task in fitting if task.suite in self._suites] or fitting
        wanted = [task.name for task in fitting if task.name in self._chosen]
        if wanted and len(fitting) > 1:
            raise UserError(
                f"{self._path}: {instruction!r} may be {' or '.join(task.name for task in fitting)}, and nothing else "
                f"in this layout tells: leave {wanted[0]} out of simulator.tasks, or import the original HDF5 files"
            )
        return wanted[0] if wanted else None


def plain(instruction: str) -> str:
    """An instruction without what differs between data sets: case, underscores, spaces, a full stop."""
    return " ".join(instruction.lower().replace("_", " ").split()).rstrip(" .")
