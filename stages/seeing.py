"""What was seen at decisions of shards, as a policy takes it: held in memory, or read from disk when it is wanted."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

from stages.policies.interface import Observation
from stages.trajectories import Trajectories

IN_MEMORY = 4 * 2**30
"""Bytes of images that a process may hold; more are read from disk batch by batch."""


def observe(shards: Trajectories, decisions: np.ndarray) -> Observation:
    """What was seen at some decisions; their images are read from disk.

    Args:
        shards: D decisions.
        decisions: int [n].

    Returns:
        n decisions.
    """
    head, wrist = shards.images(decisions)
    return Observation.from_arrays(head, wrist, shards.proprio[decisions], shards.instructions_of(decisions))


def observer(shards: Trajectories, most: int = IN_MEMORY) -> Callable[[np.ndarray], Observation]:
    """A way to see decisions again and again.

    Args:
        shards: D decisions.
        most: bytes of images that may be held in memory.

    Returns:
        Int [n] -> what was seen at those decisions.
    """
    decision = sum(math.prod(shape) for shape in shards.spec.image_shapes().values())
    if len(shards) * decision > most:
        return functools.partial(observe, shards)
    return observe(shards, np.arange(len(shards))).__getitem__
