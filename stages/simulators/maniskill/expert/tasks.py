"""The plan of every task that has an expert, by the name that ManiSkill gives the task and its objects."""

from __future__ import annotations

from stages.simulators.maniskill.expert.plan import Place, Plan, carry, close, go, reach, release, rise

_LAY = 0.0205  # height of the middle of a cube that is put on the table, in metres: half a cube and a little
_ON_B = Place("cubeB", (0.0, 0.0, 0.041))

# The cube lies within reach of the left arm, the goal within reach of the right one: it changes hands on the table.
_LEAN = 0.2
_BETWEEN = Place("world", (0.0, 0.0, _LAY))
_TWO_ROBOT_PICK: Plan = (
    (
        reach("cube"),
        close("cube"),
        carry("cube", _BETWEEN, hover=0.03),
        release("cube"),
        rise("cube", _BETWEEN),
        go(Place("world", (0.0, -0.2, 0.2))),
    ),
    (
        go(Place("world", (0.0, 0.13, 0.16)), until=5),
        reach("cube", tilt=_LEAN),
        close("cube", tilt=_LEAN),
        carry("cube", Place("goal_site"), hover=0.0, near=0.0, tilt=_LEAN),
    ),
)

# The lower cube has to lie within 6 cm of a goal at the end of the right arm's reach: it is put short of it.
_TILT = 0.4
_BELOW = Place("goal_region", (0.0, 0.04, _LAY))
_TWO_ROBOT_STACK: Plan = (
    (
        reach("cubeA"),
        close("cubeA"),
        carry("cubeA", Place("goal_region", (0.0, -0.1, 0.15)), hover=0.0, near=0.03, until=5),
        carry("cubeA", _ON_B, near=0.008),
        release("cubeA"),
        rise("cubeA", _ON_B),
        go(Place("goal_region", (0.0, -0.1, 0.2))),
    ),
    (
        reach("cubeB", tilt=_TILT),
        close("cubeB", tilt=_TILT),
        carry("cubeB", _BELOW, hover=0.03, tilt=_TILT),
        release("cubeB", tilt=_TILT),
        rise("cubeB", _BELOW),
        go(Place("goal_region", (0.0, 0.3, 0.2))),
    ),
)

_PICK: Plan = ((reach("cube"), close("cube"), carry("cube", Place("goal_site"), hover=0.0, near=0.0)),)

_STACK_ALONE: Plan = (
    (
        reach("cubeA"),
        close("cubeA"),
        carry("cubeA", _ON_B, near=0.008),
        release("cubeA"),
        rise("cubeA", _ON_B),
        go(Place("cubeB", (0.0, 0.0, 0.2))),
    ),
)

# Shut fingers beside the cube, then through it to where they push it into the goal.
_PUSH: Plan = (
    (
        go(Place("obj", (-0.05, 0.0, 0.0)), shut=True, hover=0.06),
        go(Place("goal_region", (-0.02, 0.0, 0.02)), shut=True),
    ),
)
_PULL: Plan = (
    (
        go(Place("obj", (0.05, 0.0, 0.0)), shut=True, hover=0.06),
        go(Place("goal_region", (0.02, 0.0, 0.02)), shut=True),
    ),
)

PLANS: dict[str, Plan] = {
    "TwoRobotPickCube-v1": _TWO_ROBOT_PICK,
    "TwoRobotStackCube-v1": _TWO_ROBOT_STACK,
    "PickCube-v1": _PICK,
    "StackCube-v1": _STACK_ALONE,
    "PushCube-v1": _PUSH,
    "PullCube-v1": _PULL,
}
