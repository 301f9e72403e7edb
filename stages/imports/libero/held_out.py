"""Whether a demonstration begins from one of the states that LIBERO keeps for evaluation.

The benchmark's 50 states of a task were drawn apart from the demonstrations, say its authors (LIBERO's issue 27); where
a layout holds the simulator's states and LIBERO is installed, that is looked at.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np

from pipeline.errors import UserError
from stages.simulators.libero.catalogue import entries

APART = 1.2e-3  # metres; until the sixth frame, the first that the release stores, objects were seen to move 0.9 mm
ROBOT = slice(0, 10)  # of a flattened state: the time, seven joints, two fingers
POSE = 7  # numbers of a free object: three of its place, a quaternion
FIND = "import importlib.util as u; print(u.find_spec('libero').submodule_search_locations[0])"


class HeldOut:
    """The states kept for evaluation, of the tasks whose states are installed.

    Args:
        python: an interpreter that has LIBERO; None: there is none.
    """

    def __init__(self, python: str | None) -> None:
        """Find the states.

        Raises:
            UserError: there is no such interpreter.
        """
        self._folder = _folder(python) if python else None
        self._states: dict[str, np.ndarray | None] = {}

    def known(self, task: str) -> bool:
        """Whether the states of a task are there to compare with."""
        return self._of(task) is not None

    def begins(self, task: str, start: np.ndarray) -> bool:
        """Whether a demonstration of a task begins from one of its states.

        Args:
            task: its name.
            start: flattened state of the simulator.
        """
        states = self._of(task)
        if states is None or states.shape[1] != len(start):
            return False
        where = places(states[0])
        return bool(where) and bool((np.abs(states[:, where] - start[where]) < APART).all(axis=1).any())

    def _of(self, task: str) -> np.ndarray | None:
        if task not in self._states:
            file = self._folder and self._folder / entries()[task].suite / f"{task}.pruned_init.npz"
            with_states = file is not None and file.is_file()
            self._states[task] = np.load(file)["states"] if file and with_states else None
        return self._states[task]


def places(state: np.ndarray) -> list[int]:
    """Which numbers of a state say where free objects lie on their table: two of each.

    Args:
        state: flattened: the time, positions of all joints, velocities of all joints. There are no more velocities than
            positions, so that the first half holds positions alone.
    """
    positions, found, at = 1 + len(state) // 2, [], ROBOT.stop
    while at + POSE <= positions:
        # A free object is told by its quaternion; doors and drawers lie between them, a number each.
        free = abs(np.linalg.norm(state[at + 3 : at + POSE]) - 1) < 1e-3
        found += [at, at + 1] if free else []
        at += POSE if free else 1
    return found


def _folder(python: str) -> Path | None:
    """Where an interpreter has LIBERO's initial states.

    Raises:
        UserError: there is no such interpreter.
    """
    command = [python, "-c", FIND]
    try:
        told = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    except OSError as error:
        raise UserError(
            f"simulator.python={python} cannot be started ({error.strerror}): name an interpreter that has LIBERO, or "
            "none; `baton env create libero` makes one"
        ) from None
    folder = Path(told.stdout.strip()) / "libero" / "init_files"
    return folder if told.returncode == 0 and folder.is_dir() else None
