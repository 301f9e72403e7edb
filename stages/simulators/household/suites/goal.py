"""The goal suite: one scene of a cabinet with two drawers, a burner and five things; what is asked for differs."""

from __future__ import annotations

import dataclasses

from stages.simulators.household import shapes
from stages.simulators.household.expert.drawers import pull_open, push_shut
from stages.simulators.household.expert.plan import Skill
from stages.simulators.household.expert.skills import pick_and_place
from stages.simulators.household.furniture import BOWL, BURNER, CABINET, CAN, LEFT_DRAWER, RIGHT_DRAWER, WOODEN_BLOCK
from stages.simulators.household.goals import Atom, Placed, closed, inside, on, opened
from stages.simulators.household.kit import Scene
from stages.simulators.household.layouts import Layout, Put
from stages.simulators.household.options import Options
from stages.simulators.household.props import Drawer, Place, Prop
from stages.simulators.household.suites.definition import Definition

_CUBE = shapes.cube("goal_cube", "0.9 0.08 0.08 1", 0.04)
_PLATE = shapes.plate("goal_plate", 0.08)
_SCENE = Scene((_CUBE, BOWL, WOODEN_BLOCK, CAN, _PLATE), (CABINET, BURNER))

_LOW = (_CUBE, WOODEN_BLOCK)  # a hand that reaches for something beside them passes over them

_STEP_LIMIT = 150
# How far a drawer is open that starts open, in metres: to be shut, and to be put into.
_AJAR, _WIDE = (0.05, 0.09), (0.115, 0.13)
_CLEARANCE = 0.058  # a hand that grips the bowl's rim has a finger outside it, in metres
_HOVER = 0.11  # height over its place at which a thing is carried, past the can
_DROP = 0.025  # height over a bowl's floor at which fingers that let go are above its rim

_BURNER_TOP = Place("burner.top")
_BEFORE_BURNER = Place("burner.top", offset=(-0.14, 0.0, -BURNER.spots[0][1][2]))


def define(options: Options) -> dict[str, Definition]:
    """The suite's tasks by name."""
    del options  # its sizes are those of the practice suite
    return {
        "goal_open_left_drawer": _task(opened(LEFT_DRAWER), pull_open(CABINET, LEFT_DRAWER), _layout()),
        "goal_open_right_drawer": _task(opened(RIGHT_DRAWER), pull_open(CABINET, RIGHT_DRAWER), _layout()),
        "goal_close_left_drawer": _task(
            closed(LEFT_DRAWER), push_shut(CABINET, LEFT_DRAWER), _layout(openings=((LEFT_DRAWER, *_AJAR),))
        ),
        "goal_bowl_on_plate": _put(on(BOWL, _PLATE, radius=0.05), _layout(shuffled=_LOW)),
        "goal_bowl_on_burner": _put(Placed(BOWL, _BURNER_TOP, radius=0.05), _layout(shuffled=_LOW)),
        "goal_bowl_before_burner": _put(Placed(BOWL, _BEFORE_BURNER, half=(0.04, 0.05)), _can_on_cabinet()),
        "goal_can_on_plate": _put(
            on(CAN, _PLATE, radius=0.06), _layout((_CUBE, CAN, WOODEN_BLOCK), shuffled=(_CUBE, CAN))
        ),
        "goal_can_on_burner": _put(Placed(CAN, _BURNER_TOP.raised(CAN.rest), radius=0.05), _layout(shuffled=_LOW)),
        "goal_cube_in_bowl": _put(inside(_CUBE, BOWL), _layout(), above=_DROP),
        "goal_cube_on_block": _put(on(_CUBE, WOODEN_BLOCK, radius=0.03), _layout(shuffled=_LOW)),
        "goal_cube_on_cabinet": _cube_on_cabinet(),
        "goal_cube_in_right_drawer": _put(inside(_CUBE, RIGHT_DRAWER), _layout(openings=((RIGHT_DRAWER, *_WIDE),))),
    }


def _layout(
    row: tuple[Prop, Prop, Prop] = (_CUBE, WOODEN_BLOCK, CAN),
    shuffled: tuple[Prop, ...] = (_CUBE, WOODEN_BLOCK, CAN),
    openings: tuple[tuple[Drawer, float, float], ...] = (),
) -> Layout:
    """Things in a row near the robot, out of the drawers' way, the plate beside the cabinet.

    Args:
        row: what stands left of the bowl, right of it, and before the burner.
        shuffled: which of them exchange their places at random.
        openings: drawers that start open, and how far.
    """
    left, right, far_right = row
    return Layout(
        puts=(
            Put(_PLATE, (0.02, 0.275), (0.025, 0.02)),
            Put(BOWL, (-0.16, 0.10), (0.012, 0.02)),
            Put(left, (-0.155, 0.27), (0.02, 0.03)),
            Put(right, (-0.15, -0.07), (0.02, 0.02)),
            Put(far_right, (-0.14, -0.21), (0.03, 0.03)),
        ),
        openings=openings,
        shuffled=shuffled,
        clearance=_CLEARANCE,
    )


def _can_on_cabinet() -> Layout:
    """The layout with the can out of the way."""
    layout = _layout(shuffled=_LOW)
    on_top = Put(CAN, (0.19, 0.0), (0.03, 0.10), height=CABINET.spots[0][1][2])
    return dataclasses.replace(layout, puts=(*layout.puts[:-1], on_top))


def _task(goal: Atom, skill: Skill, layout: Layout) -> Definition:
    return Definition(_SCENE, layout, (goal,), (skill,), _STEP_LIMIT)


def _put(goal: Placed, layout: Layout, above: float = 0.0) -> Definition:
    """A task of putting one thing somewhere, let go of `above` metres over its place."""
    # A bowl is held by its right rim: what the left hand brings to the plate stays in its reach.
    skill = pick_and_place(goal.item.grips[-1], goal.place.raised(above), carry_hover=_HOVER)
    return _task(goal, skill, layout)


def _cube_on_cabinet() -> Definition:
    """Anywhere on top counts; the expert puts it down over the drawer on its own side."""
    goal = Placed(_CUBE, Place("cabinet.top").raised(_CUBE.rest), half=(0.08, 0.165))
    to = Place("cabinet.top", offset=(0.0, 0.08, _CUBE.rest), mirrored=True)
    return _task(goal, pick_and_place(_CUBE.grip, to, carry_hover=_HOVER), _layout())
