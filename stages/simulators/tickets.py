"""What was asked of a pool and what came back: answers of several workers, put together in the asked order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np

from stages.simulators.channel import Message
from stages.simulators.interface import ChunkResult, Observation, SimulatorConfigError

T = TypeVar("T")


@dataclasses.dataclass
class Stepped:
    """What a chunk of actions led to.

    Attributes:
        result: the outcome of the chunk.
        observation: what the worlds look like after it; zeros for worlds that terminated (truncated ones are observed).
    """

    result: ChunkResult
    observation: Observation


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

    def __init__(self, count: int, finish: Callable[[Ticket[T]], T]) -> None:
        """Expect answers for `count` worlds, which `finish` makes into what the caller gets."""
        self.arrays: dict[str, np.ndarray] = {}
        self.frames: list[list[np.ndarray]] = [[] for _ in range(count)]
        self.missing = 0
        self.error: SimulatorConfigError | None = None
        self._count = count
        self._finish = finish

    def fill(self, rows: list[int], message: Message) -> None:
        """Copy a worker's answer out of the shared memory into the rows of its worlds."""
        for name, part in message.arrays.items():
            if name.startswith("frames/"):
                self.frames[rows[int(name.removeprefix("frames/"))]] = list(part.copy())
                continue
            if name not in self.arrays:
                self.arrays[name] = np.empty((self._count, *part.shape[1:]), part.dtype)
            self.arrays[name][rows] = part

    def answer(self) -> T:
        """Return what the caller waited for."""
        if self.error is not None:
            raise self.error
        return self._finish(self)


def observation(ticket: Ticket[Any]) -> Observation:
    """Make the answer of a reset or a look."""
    return Observation(**{name: ticket.arrays[name] for name in ("head", "wrist", "proprio")})


def _result(ticket: Ticket[Any]) -> ChunkResult:
    names = ("rewards", "executed", "success", "terminated", "truncated")
    return ChunkResult(**{name: ticket.arrays[name] for name in names}, frames=ticket.frames)


def stepped(ticket: Ticket[Any]) -> Stepped:
    """Make the answer of a chunk of actions."""
    return Stepped(_result(ticket), observation(ticket))


def demonstrated(ticket: Ticket[Any]) -> Demonstrated:
    """Make the answer of a chunk of the expert."""
    return Demonstrated(_result(ticket), observation(ticket), ticket.arrays["actions"], ticket.arrays["clean"])
