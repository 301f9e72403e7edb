"""What the expert does in each task: for each arm a row of stages, which may wait for the other arm."""

from __future__ import annotations

import dataclasses
import enum

NOBODY = -1
Vector = tuple[float, float, float]


class Kind(enum.IntEnum):
    """What an arm does in a stage."""

    REACH = 0  # open hand, from above down to the item, squared to it
    CLOSE = 1  # close the fingers until they hold it
    CARRY = 2  # bring what is held to a place
    OPEN = 3  # let go of it
    RISE = 4  # straight up, off where it was put
    GO = 5  # bring the hand itself to a place


@dataclasses.dataclass(frozen=True)
class Place:
    """A point: `offset` from the position of something, in metres along the world's axes."""

    of: str
    offset: Vector = (0.0, 0.0, 0.0)


@dataclasses.dataclass(frozen=True)
class Stage:
    """One thing that an arm does.

    Attributes:
        kind: what.
        item: the object that is reached for, held or left; unused by GO.
        to: where CARRY and GO lead, and what RISE leaves.
        shut: the fingers are closed.
        hover: from how high above its end the way leads down, in metres.
        near: how far from its end the way may end, in metres.
        tilt: how far the fingers point away from the robot instead of down, in radians.
        until: the stage of the other arm before which this one is not over; NOBODY: whenever it is done.
    """

    kind: Kind
    item: str
    to: Place
    shut: bool
    hover: float = 0.0
    near: float = 0.01
    tilt: float = 0.0
    until: int = NOBODY


Plan = tuple[tuple[Stage, ...], ...]  # of each arm; an arm keeps at its last stage


def reach(item: str, *, tilt: float = 0.0) -> Stage:
    """Bring the open hand to an item."""
    return Stage(Kind.REACH, item, Place(item), shut=False, hover=0.08, near=0.01, tilt=tilt)


def close(item: str, *, tilt: float = 0.0) -> Stage:
    """Close the fingers around it."""
    return Stage(Kind.CLOSE, item, Place(item), shut=True, tilt=tilt)


def carry(
    item: str, to: Place, *, hover: float = 0.05, near: float = 0.01, tilt: float = 0.0, until: int = NOBODY
) -> Stage:
    """Bring an item that is held to a place."""
    return Stage(Kind.CARRY, item, to, shut=True, hover=hover, near=near, tilt=tilt, until=until)


def release(item: str, *, tilt: float = 0.0) -> Stage:
    """Let go of it."""
    return Stage(Kind.OPEN, item, Place(item), shut=False, tilt=tilt)


def rise(item: str, off: Place) -> Stage:
    """Take the open hand straight up, off an item that was put at a place; where it is not there, begin again."""
    return Stage(Kind.RISE, item, off, shut=False)


def go(to: Place, *, shut: bool = False, hover: float = 0.0, near: float = 0.02, until: int = NOBODY) -> Stage:
    """Bring the hand to a place."""
    return Stage(Kind.GO, to.of, to, shut=shut, hover=hover, near=near, until=until)
