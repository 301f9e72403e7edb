"""The language of the expert's plans: a plan is a row of skills, a skill a row of stages, a stage one motion an arm.

A stage gives one motion to each of two roles: `main` acts, `other` helps. Which arm plays `main` is settled per world
when a skill begins. When the motions of both are done, the next stage begins; when one fails, both open hands back off
and the skill goes on at the stage's retry point. After the last skill, or a skill that was lost, skills whose `unless`
holds are passed over.
"""

from __future__ import annotations

import dataclasses
import enum

from stages.simulators.household.goals import Atom, Slid
from stages.simulators.household.props import Grip, Place, Vector


class Kind(enum.IntEnum):
    """What a motion does."""

    STILL = 0  # stays where it is; always done
    REST = 1  # drifts to its place of rest beside the table's middle; always done
    MOVE = 2  # the hand goes to a place, from above where it has a hover
    CLOSE = 3  # the fingers close around what is held from then on
    CARRY = 4  # the hand moves so that what it holds reaches a place
    OPEN = 5  # the fingers let go
    BACK = 6  # the hand goes a few steps in one direction


class Turn(enum.IntEnum):
    """Where a hand turns while it moves."""

    AHEAD = 0  # fingers open sideways, plus the motion's yaw
    GRIP = 1  # as the grip asks
    KEEP = 2  # stays as it is turned


@dataclasses.dataclass(frozen=True)
class Motion:
    """What one arm does in a stage; made by the functions below.

    Attributes:
        kind: what it does.
        grip: what it holds, or is about to; a hand that carries it and is far from it has lost it.
        to: MOVE: where the hand goes; CARRY: where the origin of the grip's frame goes.
        shut: whether the fingers are closed.
        hover: height over `to` while far aside, in metres; 0 goes straight.
        near: how far aside of `to` counts as there, in metres.
        level: how far above or below `to` counts as there, in metres.
        turn: where the hand turns.
        yaw: added to AHEAD, towards the hand's own side, in radians.
        direction: BACK: metres a step along the world's axes.
        steps: BACK: how many.
        speed: of the fastest there is, from 0 to 1.
        patience: steps after which it counts as failed (OPEN: as done).
    """

    kind: Kind
    grip: Grip | None = None
    to: Place | None = None
    shut: bool = False
    hover: float = 0.0
    near: float = 0.012
    level: float = 0.012
    turn: Turn = Turn.AHEAD
    yaw: float = 0.0
    direction: Vector = (0.0, 0.0, 0.04)
    steps: int = 4
    speed: float = 0.5
    patience: int = 25


STILL = Motion(Kind.STILL)
REST = Motion(Kind.REST, hover=0.0)


def hold(grip: Grip | None = None) -> Motion:
    """Stay still with shut fingers; with a `grip`, losing it fails the stage."""
    return Motion(Kind.STILL, grip=grip, shut=True)


def reach(grip: Grip, hover: float = 0.10, **changes: object) -> Motion:
    """Go around a grip from above, turned to it, with open fingers."""
    return _with(Motion(Kind.MOVE, grip=grip, hover=hover, near=0.010, turn=Turn.GRIP), changes)


def go(to: Place, hover: float = 0.0, **changes: object) -> Motion:
    """Bring the hand to a place."""
    return _with(Motion(Kind.MOVE, to=to, hover=hover), changes)


def close(grip: Grip) -> Motion:
    """Close the fingers around a grip."""
    return Motion(Kind.CLOSE, grip=grip, shut=True, patience=6)


def carry(grip: Grip, to: Place, hover: float = 0.06, **changes: object) -> Motion:
    """Bring what is held to a place: the origin of a prop, or the handle of a drawer."""
    # Patient enough for the way across the whole table: one that gives up lets go in mid-air.
    return _with(Motion(Kind.CARRY, grip=grip, to=to, shut=True, hover=hover, level=0.006, patience=45), changes)


def release(grip: Grip) -> Motion:
    """Open the fingers."""
    return Motion(Kind.OPEN, grip=grip)


def back(direction: Vector = (0.0, 0.0, 0.04), steps: int = 4, shut: bool = False) -> Motion:
    """Move away, upwards unless told otherwise."""
    return Motion(Kind.BACK, direction=direction, steps=steps, shut=shut)


def _with(motion: Motion, changes: dict[str, object]) -> Motion:
    return dataclasses.replace(motion, **changes)  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True)
class Stage:
    """One motion an arm.

    Attributes:
        main: what the acting arm does.
        other: what the helping arm does.
        together: both hands make the same motion, so that what both hold is not torn.
        require: drawers that have to stay that far open; else the stage fails.
        retry: number of the stage in the skill to go back to on failure.
    """

    main: Motion = STILL
    other: Motion = STILL
    together: bool = False
    require: tuple[Slid, ...] = ()
    retry: int = 0


@dataclasses.dataclass(frozen=True)
class Skill:
    """A row of stages for one purpose.

    Attributes:
        stages: the stages.
        arm: which arm plays `main`: left, right, or the name of a frame: the arm on whose side that is, if both it and
            `to` are in its workspace, else the other one.
        to: where that goes; None asks for nothing.
        unless: the skill is passed over where one of these holds.
    """

    stages: tuple[Stage, ...]
    arm: str
    to: Place | None = None
    unless: tuple[Atom, ...] = ()


Plan = tuple[Skill, ...]
