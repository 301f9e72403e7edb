"""What was asked of a worker's worlds since they were last reset: enough to bring another worker to the same point."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence, Set
from typing import Any

import numpy as np

from stages.simulators.interface import Episode, Gallery


@dataclasses.dataclass(frozen=True)
class Start:
    """How an episode begins.

    Attributes:
        episode: what the world is reset to.
        film: whether it returns frames from then on.
    """

    episode: Episode
    film: bool = False


@dataclasses.dataclass(frozen=True)
class Command:
    """Something a worker is asked to do with some of its worlds.

    Attributes:
        verb: "reset", "observe", "step", "expert" or "borrow".
        slots: worlds, counted within the worker, n of them.
        starts: of a reset, n.
        actions: of a step, float32 [n, K, A].
        length: of an expert's chunk, K.
        then: of a chunk: what each world that ends is reset to at once, n; None lets it rest. Empty: all rest.
        blind: nobody wants to see the worlds afterwards.
        gallery: what is lent; of no world.
    """

    verb: str
    slots: Sequence[int]
    starts: Sequence[Start] = ()
    actions: np.ndarray | None = None
    length: int = 0
    then: Sequence[Start | None] = ()
    blind: bool = False
    gallery: Gallery | None = None

    def fields(self) -> dict[str, Any]:
        """Return what goes through the socket."""
        names = ("slots", "starts", "length", "then", "blind", "gallery")
        return {name: getattr(self, name) for name in names}

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what goes through shared memory."""
        return {} if self.actions is None else {"actions": self.actions}

    def rows(self, rows: Sequence[int]) -> Command:
        """Return the same command for some of its worlds, named by row."""
        return dataclasses.replace(
            self,
            slots=[self.slots[row] for row in rows],
            starts=[self.starts[row] for row in rows] if self.starts else (),
            actions=None if self.actions is None else self.actions[list(rows)],
            then=[self.then[row] for row in rows] if self.then else (),
        )


class History:
    """The commands that led a worker's worlds from their resets to where they are.

    Commands are kept, not only actions: an expert's next action depends on its own phase and random numbers, which come
    back only if the expert itself acts again. They are kept whole, several worlds in one, because a simulator that
    advances its worlds as one batch need not round alike when they are advanced one by one. Images are not drawn again:
    looking at a world changes nothing in it.
    """

    def __init__(self) -> None:
        """Start with nothing done."""
        self._lent: list[Command] = []  # the gallery, which outlasts every episode
        self._commands: list[Command] = []
        self._episodes: dict[int, Episode] = {}

    def record(self, command: Command, restarted: Sequence[int] = ()) -> None:
        """Add a command that was carried out; a reset makes what its worlds did before irrelevant.

        Args:
            command: the command.
            restarted: rows of it whose worlds ended and were reset to what was to follow.
        """
        if command.verb == "observe":
            return
        if command.verb == "borrow":
            self._lent = [command]
            return
        if command.verb == "reset":
            self._forget(frozenset(command.slots))
            self._episodes.update(
                (slot, start.episode) for slot, start in zip(command.slots, command.starts, strict=True)
            )
        self._commands.append(dataclasses.replace(command, then=(), blind=True))
        if restarted:
            follow = command.rows(restarted)
            starts = [start for start in follow.then if start is not None]
            self.record(Command("reset", follow.slots, starts))

    def __iter__(self) -> Iterator[Command]:
        """Go through the commands in the order they were carried out."""
        return iter([*self._lent, *self._commands])

    def episode(self, slot: int) -> Episode | None:
        """Return the episode a world is in, None before its first reset."""
        return self._episodes.get(slot)

    def _forget(self, slots: Set[int]) -> None:
        kept = []
        for command in self._commands:
            rows = [row for row, slot in enumerate(command.slots) if slot not in slots]
            if len(rows) == len(command.slots):
                kept.append(command)
            elif rows:
                kept.append(command.rows(rows))
        self._commands = kept
