"""What was asked of a pool and what came back: answers of several workers, put together in the asked order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from stages.simulators.channel import Message
from stages.simulators.interface import ChunkResult, Observation, SimulatorConfigError

T = TypeVar("T")

IMAGES_AND_PROPRIO = ("head", "wrist", "proprio")


@dataclasses.dataclass
class Stepped:
    """What a chunk of actions led to.

    Attributes:
        result: the outcome of the chunk.
        observation: what the policy decides on next: worlds that go on as they are after the chunk, restarted ones at
            the start of their next episode; zeros for worlds that ended and rest.
        restarted: bool [n], the world ended and was reset to the episode that was to follow.
        last: row -> what a truncated world looked like at its end, arrays without their leading axis.
        faults: one list a world: why its worker was replaced in the course of the episode, each in a line.
    """

    result: ChunkResult
    observation: Observation
    restarted: np.ndarray
    last: dict[int, Observation]
    faults: list[list[str]]


@dataclasses.dataclass
class Demonstrated(Stepped):
    """What a chunk of the expert led to.

    Attributes:
        actions: float32 [n, K, A] in [-1, 1], as executed.
        clean: bool [n, K], False where the expert's action was perturbed.
    """

    actions: np.ndarray
    clean: np.ndarray


class Ticket(Generic[T]):
    """Something asked of the pool; `SimulatorPool.wait` turns it into the answer, whose arrays are the caller's own."""

    def __init__(
        self, count: int, finish: Callable[[Ticket[T]], T], arrays: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Expect answers for `count` worlds, which `finish` makes into what the caller gets; some arrays are there."""
        self.arrays: dict[str, np.ndarray] = dict(arrays or {})
        self.frames: list[list[np.ndarray]] = [[] for _ in range(count)]
        self.last: dict[int, dict[str, np.ndarray]] = {}
        self.faults: list[list[str]] = [[] for _ in range(count)]
        self.missing = 0
        self.error: SimulatorConfigError | None = None
        self._count = count
        self._finish = finish

    def fill(self, rows: Sequence[int], message: Message) -> None:
        """Copy a worker's answer out of the shared memory into the rows of its worlds, which ascend."""
        place = whereabouts(rows)
        for name, part in message.arrays.items():
            kind, _, of_one = name.partition("/")
            if kind == "frames":
                self.frames[rows[int(of_one)]] = list(part.copy())
            elif kind == "last":
                row, _, camera = of_one.partition("/")
                self.last.setdefault(rows[int(row)], {})[camera] = part.copy()
            else:
                if name not in self.arrays:
                    self.arrays[name] = np.empty((self._count, *part.shape[1:]), part.dtype)
                self.arrays[name][place] = part

    def answer(self) -> T:
        """Return what the caller waited for."""
        if self.error is not None:
            raise self.error
        return self._finish(self)


def whereabouts(rows: Sequence[int]) -> slice | list[int]:
    """Rows as an index: a slice where they lie side by side, because those of a list are taken one by one."""
    first = rows[0] if len(rows) else 0
    side_by_side = slice(first, first + len(rows))
    return side_by_side if list(rows) == list(range(side_by_side.start, side_by_side.stop)) else list(rows)


@dataclasses.dataclass
class Part:
    """The share of a ticket that one worker carries out: `rows` of the ticket are the worlds of its command."""

    ticket: Ticket[Any]
    rows: Sequence[int]


def observation(ticket: Ticket[Any]) -> Observation:
    """Make the answer of a reset or a look."""
    return Observation(**{name: ticket.arrays[name] for name in IMAGES_AND_PROPRIO})


def stepped(ticket: Ticket[Any]) -> Stepped:
    """Make the answer of a chunk of actions."""
    names = ("rewards", "executed", "success", "terminated", "truncated")
    return Stepped(
        result=ChunkResult(
            **{name: ticket.arrays[name] for name in names},
            frames=ticket.frames,
            scores=ticket.arrays.get("scores"),
            broken=ticket.arrays.get("broken"),
        ),
        observation=observation(ticket),
        restarted=ticket.arrays["restarted"],
        last={row: Observation(**ticket.last[row]) for row in sorted(ticket.last)},
        faults=ticket.faults,
    )


def demonstrated(ticket: Ticket[Any]) -> Demonstrated:
    """Make the answer of a chunk of the expert."""
    return Demonstrated(**vars(stepped(ticket)), actions=ticket.arrays["actions"], clean=ticket.arrays["clean"])
