"""What the expert does with drawers: pulls one open by its handle, pushes one shut with closed fingers."""

from __future__ import annotations

from stages.simulators.household.expert import plan
from stages.simulators.household.expert.plan import Skill, Stage
from stages.simulators.household.goals import closed, opened
from stages.simulators.household.props import Drawer, Fixture, Place, handle_at

_OPEN = 0.125  # how far a drawer is pulled, in metres
_BEHIND = 0.022  # from a handle's middle to that of shut fingers that push it
_APPROACH = 0.015
_CLEAR = 0.07  # metres over the handle at which shut fingers come and go


def pull_open(fixture: Fixture, drawer: Drawer) -> Skill:
    """Grip the handle, pull the drawer open, let go."""
    grip = drawer.grip
    return Skill(
        stages=(
            Stage(plan.reach(grip)),
            Stage(plan.close(grip)),
            Stage(plan.carry(grip, handle_at(fixture, drawer, _OPEN), hover=0.0)),
            Stage(plan.release(grip)),
            Stage(plan.back()),
        ),
        arm=grip.frame,
        unless=(opened(drawer),),
    )


def push_shut(fixture: Fixture, drawer: Drawer) -> Skill:
    """Set shut fingers before the handle, push the drawer in, move away."""
    before = Place(drawer.grip.frame, offset=(-_BEHIND - _APPROACH, 0.0, 0.0))
    x, y, z = handle_at(fixture, drawer, 0.0).offset
    return Skill(
        stages=(
            Stage(plan.go(before.raised(_CLEAR), shut=True)),
            Stage(plan.go(before, shut=True)),
            Stage(plan.go(Place("world", offset=(x - _BEHIND + 0.01, y, z)), shut=True)),
            Stage(plan.back((-0.03, 0.0, 0.0), 2, shut=True)),
            Stage(plan.back()),
        ),
        arm=drawer.grip.frame,
        unless=(closed(drawer),),
    )
