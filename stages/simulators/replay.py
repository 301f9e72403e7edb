"""What was asked of a worker's worlds since they were last reset: enough to bring another worker to the same point."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence, Set
from typing import Any

import numpy as np

from stages.simulators.interface import Episode


@dataclasses.dataclass(frozen=True)
class Command:
    """Something a worker is asked to do with some of its worlds.

    Attributes:
        verb: "reset", "observe", "step" or "expert".
        slots: worlds, counted within the worker, n of them.
        episodes: of a reset, n.
        film: of a reset, n.
        actions: of a step, float32 [n, K, A].
        length: of an expert's chunk, K.
    """

    verb: str
    slots: Sequence[int]
    episodes: Sequence[Episode] = ()
    film: Sequence[bool] = ()
    actions: np.ndarray | None = None
    length: int = 0

    def fields(self) -> dict[str, Any]:
        """Return what goes through the socket."""
        return {"slots": self.slots, "episodes": self.episodes, "film": self.film, "length": self.length}

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what goes through shared memory."""
        return {} if self.actions is None else {"actions": self.actions}

    def rows(self, rows: Sequence[int]) -> Command:
        """Return the same command for some of its worlds, named by row."""
        return dataclasses.replace(
            self,
            slots=[self.slots[row] for row in rows],
            episodes=[self.episodes[row] for row in rows] if self.episodes else (),
            film=[self.film[row] for row in rows] if self.film else (),
            actions=None if self.actions is None else self.actions[list(rows)],
        )


class History:
    """The commands that led a worker's worlds from their resets to where they are.

    Commands are kept, not only actions: an expert's next action depends on its own phase and random numbers, which come
    back only if the expert itself acts again. They are kept whole, several worlds in one, because a simulator that
    advances its worlds as one batch need not round alike when they are advanced one by one.
    """

    def __init__(self) -> None:
        """Start with nothing done."""
        self._commands: list[Command] = []

    def record(self, command: Command) -> None:
        """Add a command that was carried out; a reset makes what its worlds did before irrelevant."""
        if command.verb == "observe":
            return
        if command.verb == "reset":
            self._forget(frozenset(command.slots))
        self._commands.append(command)

    def __iter__(self) -> Iterator[Command]:
        """Go through the commands in the order they were carried out."""
        return iter(self._commands)

    def _forget(self, slots: Set[int]) -> None:
        kept = []
        for command in self._commands:
            rows = [row for row, slot in enumerate(command.slots) if slot not in slots]
            if len(rows) == len(command.slots):
                kept.append(command)
            elif rows:
                kept.append(command.rows(rows))
        self._commands = kept
