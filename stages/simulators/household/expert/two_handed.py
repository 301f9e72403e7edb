"""What the expert does with both hands: hands a bar over, carries a tray, holds a drawer open."""

from __future__ import annotations

from stages.simulators.household.expert.plan import (
    REST,
    Skill,
    Stage,
    back,
    carry,
    close,
    hold,
    reach,
    release,
)
from stages.simulators.household.goals import Atom, Placed, Slid
from stages.simulators.household.props import Drawer, Fixture, Grip, Place, handle_at
from stages.simulators.household.two_handed import BAR_FAR_END, BAR_NEAR_END, TRAY_LEFT, TRAY_RIGHT

_MEETING = Place("world", offset=(-0.05, 0.0, 0.16))  # where the bar changes hands
_TURNED = 0.45  # radians that the giving hand turns to its own side, so that the two arms come from either side
_PULLED = 0.125  # how far a drawer is held open, in metres
_HELD_OPEN = 0.09
_UNHURRIED = 40  # steps


def hand_over(goal: Placed) -> Skill:
    """Take the bar by its far end, give its near end to the other hand, which puts it where `goal` wants it."""
    far, near = BAR_FAR_END, BAR_NEAR_END
    return Skill(
        stages=(
            Stage(reach(far)),
            Stage(close(far)),
            Stage(carry(far, _MEETING, yaw=_TURNED, patience=_UNHURRIED)),
            Stage(hold(far), reach(near), retry=2),
            Stage(hold(far), close(near), retry=2),
            Stage(release(far), hold(near)),
            Stage(back(), hold(near)),
            Stage(REST, carry(near, goal.place, hover=0.08, patience=_UNHURRIED)),
            Stage(REST, release(near)),
            Stage(REST, back()),
        ),
        arm=far.frame,
        unless=(goal,),
    )


def carry_between(goal: Placed) -> Skill:
    """Take the tray by both grips and bring it, level, where `goal` wants it."""
    left, right = (carry(grip, goal.place, speed=0.25, patience=2 * _UNHURRIED) for grip in (TRAY_LEFT, TRAY_RIGHT))
    return Skill(
        stages=(
            Stage(reach(TRAY_LEFT), reach(TRAY_RIGHT)),
            Stage(close(TRAY_LEFT), close(TRAY_RIGHT)),
            Stage(left, right, together=True),
            Stage(release(TRAY_LEFT), release(TRAY_RIGHT)),
            Stage(back(), back()),
        ),
        arm="left",
        unless=(goal,),
    )


def put_with_drawer_held(
    fixture: Fixture, drawer: Drawer, errands: tuple[tuple[Grip, Place], ...], unless: tuple[Atom, ...]
) -> Skill:
    """Pull a drawer that shuts itself and hold it, while the other hand brings things to their places.

    Args:
        fixture: what the drawer belongs to.
        drawer: one of its drawers.
        errands: what the other hand takes and where that goes, one after the other.
        unless: as `Skill.unless`.
    """
    handle = drawer.grip
    kept = (Slid(drawer, _HELD_OPEN, drawer.travel, drawer.travel),)
    stages = [
        Stage(reach(handle), REST),
        Stage(close(handle), REST),
        Stage(carry(handle, handle_at(fixture, drawer, _PULLED), hover=0.0), REST),
    ]
    for grip, to in errands:
        motions = (reach(grip), close(grip), carry(grip, to), release(grip), back())
        stages += [Stage(hold(handle), motion, require=kept, retry=2) for motion in motions]
    return Skill((*stages, Stage(release(handle), REST), Stage(back(), REST)), arm=handle.frame, unless=unless)
