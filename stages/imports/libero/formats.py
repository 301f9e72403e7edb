"""What the layouts of LIBERO's demonstrations have in common.

Shapes: T frames, n of them asked for, H x W recorded pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from stages.imports.source import Episode


@dataclasses.dataclass(frozen=True)
class Numbers:
    """An episode's numbers: what was done at each frame, and what was felt before it was done.

    Attributes:
        actions: float32 [T, 7]; the gripper's number is the data set's.
        states: float32 [T, 8]: place of the hand (metres), its rotation as axis times angle, two fingers (metres).
        success: whether the episode reached its goal, as far as it says.
        start: the simulator's flattened state before the first action, where the layout has it.
    """

    actions: np.ndarray
    states: np.ndarray
    success: bool
    start: np.ndarray | None = None


class Format(Protocol):
    """Demonstrations of the wanted tasks in one layout.

    Attributes:
        path: where they are.
        name: of the layout.
        picture_size: H and W.
        turned: whether pictures lie as the field shows them, 180 degrees from how LIBERO renders them.
        starts: whether episodes say from which state of the simulator they began.
    """

    path: Path
    name: str
    picture_size: int
    turned: bool
    starts: bool

    def episodes(self) -> list[Episode]:
        """All episodes of the wanted tasks, in the order of their numbers; none where there are none."""

    def others(self) -> list[str]:
        """Names or instructions of tasks that are there, for a message."""

    def grippers(self) -> Iterator[np.ndarray]:
        """The gripper's number in each frame, [T] an episode of the wanted tasks."""

    def numbers(self, episode: Episode) -> Numbers:
        """Read an episode's numbers.

        Raises:
            UserError: they are missing, damaged, or of another shape.
        """

    def pictures(self, episode: Episode, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Read what was seen at some frames.

        Args:
            episode: one of those above.
            rows: int [n], frames, ascending.

        Returns:
            Both as they lie, uint8 [n, H, W, 3]: the scene's camera and the wrist's.

        Raises:
            UserError: they are missing or damaged.
        """

    def digests(self) -> dict[str, str]:
        """File -> its checksum, of the files that tell this set from another."""
