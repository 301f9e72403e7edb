"""The long suite: two or three skills in a row, half of the tasks with both hands."""

from __future__ import annotations

import dataclasses

from stages.simulators.household import shapes
from stages.simulators.household.expert.drawers import pull_open, push_shut
from stages.simulators.household.expert.plan import REST, Plan, Skill
from stages.simulators.household.expert.skills import pick_and_place, put
from stages.simulators.household.expert.two_handed import carry_between, hand_over, put_with_drawer_held
from stages.simulators.household.furniture import BOWL, CABINET, CAN, LEFT_DRAWER, RIGHT_DRAWER
from stages.simulators.household.goals import Atom, Placed, closed, inside, on, opened
from stages.simulators.household.kit import Scene
from stages.simulators.household.layouts import EITHER_SIDE, Layout, Put
from stages.simulators.household.options import Options
from stages.simulators.household.props import Drawer, Place, Prop
from stages.simulators.household.suites.definition import Definition
from stages.simulators.household.two_handed import (
    BAR,
    CABINET_LEFT,
    CABINET_RIGHT,
    LONG_BOX,
    SPRUNG_LEFT,
    SPRUNG_RIGHT,
    STAND,
    TRAY,
    TRAY_INSIDE,
)

_RED = shapes.cube("long_red_cube", "0.9 0.08 0.08 1", 0.04)
_BLUE = shapes.cube("long_blue_cube", "0.1 0.2 0.95 1", 0.04)
_GREEN = shapes.cube("long_green_cube", "0.1 0.7 0.15 1", 0.04)
_PLATE = shapes.plate("long_plate", 0.07)

_TABLE = Scene((_RED, _BLUE, _GREEN, CAN, BOWL, _PLATE, LONG_BOX))
_BAR = Scene((BAR, LONG_BOX, _RED, _BLUE, _PLATE))
_TRAY = Scene((TRAY, STAND, _RED, _BLUE, CAN, _PLATE))
_DRAWERS = Scene((_RED, _BLUE, CAN), (CABINET,))
_SPRUNG_LEFT = Scene((_RED, _BLUE, _PLATE), (CABINET_LEFT,))
_SPRUNG_RIGHT = Scene((_RED, _BLUE, _PLATE), (CABINET_RIGHT,))

_AJAR = (0.115, 0.13)  # how far a drawer is open that starts open, in metres
_OVER_BOWL = 0.025  # fingers that let go this far over a bowl's floor are above its rim
_CLEARANCE = 0.05  # room between things for a finger, its error and a bowl's rim, in metres
_BY_THE_BAR = 0.0  # the same about long things: their circles claim more room than they take
_BY_THE_TRAY = -0.1
_APART = 0.034  # of what stands on the tray, each before or behind its middle, in metres
_HOVER = 0.11  # what is carried passes over the can


def define(options: Options) -> dict[str, Definition]:
    """The suite's tasks by name."""
    del options  # its sizes are those of the practice suite
    return {**_with_the_bar(), **_with_the_tray(), **_with_the_sprung_drawer(), **_with_one_hand()}


def _with_the_bar() -> dict[str, Definition]:
    """The bar lies on one side, its box on the other, out of reach of the hand that can take the bar."""
    boxed = Placed(BAR, Place(LONG_BOX.name, offset=(0, 0, LONG_BOX.floor + BAR.rest)), half=(0.04, 0.04), turned=True)
    puts = (Put(BAR, (-0.06, 0.25), (0.03, 0.03)), Put(LONG_BOX, (-0.05, -0.26), (0.02, 0.01), yaw=0.06))
    beside = (Put(_BLUE, (0.10, 0.0), (0.02, 0.06)), Put(_RED, (-0.15, 0.02), (0.02, 0.06)))
    # The cube and the plate are where either hand reaches them.
    chained = (Put(_PLATE, (0.07, 0.03), (0.02, 0.03)), Put(_RED, (-0.15, 0.02), (0.02, 0.06)))
    plated = on(_RED, _PLATE, 0.055)
    return {
        "long_bar_over_into_box": Definition(
            _BAR, Layout(puts + beside, mirrored=EITHER_SIDE, clearance=_BY_THE_BAR), (boxed,), (hand_over(boxed),), 200
        ),
        "long_bar_over_then_cube": Definition(
            _BAR,
            Layout(puts + chained, mirrored=EITHER_SIDE, clearance=_BY_THE_BAR),
            (boxed, plated),
            (hand_over(boxed), put(plated)),
            260,
        ),
    }


def _with_the_tray() -> dict[str, Definition]:
    """A tray that one hand cannot lift level, and a stand that it cannot be pushed onto."""
    standing = on(TRAY, STAND, 0.03)
    red_stays, blue_stays = _on_tray(_RED), _on_tray(_BLUE)
    plated = on(CAN, _PLATE, 0.05)
    places = (Put(TRAY, (-0.13, 0.0), (0.015, 0.04), yaw=0.1), Put(STAND, (0.075, 0.0), (0.01, 0.03), yaw=0.08))
    aside, spare = Put(_RED, (-0.03, 0.28), (0.05, 0.03)), Put(_PLATE, (0.0, -0.27), (0.04, 0.02))

    def task(puts: tuple[Put, ...], goal: tuple[Atom, ...], plan: Plan) -> Definition:
        layout = Layout((*places, *puts), mirrored=EITHER_SIDE, clearance=_BY_THE_TRAY)
        return Definition(_TRAY, layout, goal, plan, 220)

    def served(item: Prop, x: float) -> Put:
        return Put(item, (x, 0.0), (0.005, 0.02), by=TRAY, resting=True)

    def serve(x: float) -> Skill:
        to = dataclasses.replace(red_stays.place, local=(x, 0.0, 0.0))
        return pick_and_place(_RED.grip, to, other=REST, unless=(red_stays,))

    carry = carry_between(standing)
    return {
        "long_cube_on_tray_onto_stand": task((aside, spare), (red_stays, standing), (serve(0.0), carry)),
        "long_tray_onto_stand_then_cube": task(
            (served(_BLUE, -_APART), aside, spare), (blue_stays, standing, red_stays), (carry, serve(_APART))
        ),
        "long_can_off_tray_onto_stand": task(
            (served(CAN, -_APART), served(_RED, _APART), spare),
            (plated, red_stays, standing),
            (put(plated, carry_hover=_HOVER), carry),
        ),
    }


def _on_tray(item: Prop) -> Placed:
    """`item` stands on the tray, anywhere on it."""
    return Placed(item, Place(TRAY.name, offset=(0, 0, TRAY.top + item.rest)), half=TRAY_INSIDE, turned=True)


def _with_the_sprung_drawer() -> dict[str, Definition]:
    """A drawer that shuts itself unless a hand holds it: the left hand in one cabinet, the right one in the other."""
    left, right = Place(f"{SPRUNG_LEFT.name}.inside"), Place(f"{SPRUNG_RIGHT.name}.inside")
    # In the half of the drawer away from the holding hand.
    red_in = Place(left.frame, offset=(-0.017, -0.05, _RED.rest))
    both_in = tuple(Place(right.frame, offset=(-0.017, y, _RED.rest)) for y in (0.02, 0.08))
    hidden = Put(_RED, (0.16, -0.03), (0.01, 0.018), height=SPRUNG_LEFT.inside[2])
    spare = Put(_BLUE, (-0.12, 0.0), (0.04, 0.12))
    red_stored, plated = inside(_RED, SPRUNG_LEFT), on(_RED, _PLATE, 0.05)
    store = put_with_drawer_held(CABINET_LEFT, SPRUNG_LEFT, ((_RED.grip, red_in),), (red_stored,))
    fetch = put_with_drawer_held(CABINET_LEFT, SPRUNG_LEFT, ((_RED.grip, plated.place),), (plated,))
    store_both = put_with_drawer_held(
        CABINET_RIGHT, SPRUNG_RIGHT, ((_RED.grip, both_in[0]), (_BLUE.grip, both_in[1])), ()
    )
    # What lies on the table lies clear of the drawer when it is open.
    return {
        "long_cube_into_sprung_drawer": Definition(
            _SPRUNG_LEFT,
            Layout((Put(_RED, (-0.12, -0.255), (0.04, 0.04)), spare)),
            (red_stored, closed(SPRUNG_LEFT)),
            (store,),
            240,
        ),
        "long_two_cubes_into_sprung_drawer": Definition(
            _SPRUNG_RIGHT,
            Layout((Put(_RED, (-0.12, 0.255), (0.03, 0.03)), Put(_BLUE, (-0.03, 0.28), (0.03, 0.03)))),
            (inside(_RED, SPRUNG_RIGHT), inside(_BLUE, SPRUNG_RIGHT), closed(SPRUNG_RIGHT)),
            (store_both,),
            260,
        ),
        "long_cube_out_of_sprung_drawer": Definition(
            _SPRUNG_LEFT,
            Layout((hidden, Put(_PLATE, (-0.09, -0.255), (0.03, 0.02)), spare)),
            (plated, closed(SPRUNG_LEFT)),
            (fetch,),
            240,
        ),
    }


def _with_one_hand() -> dict[str, Definition]:
    """Chains in which each skill takes one hand, not always the same one."""
    red_boxed, can_boxed = inside(_RED, LONG_BOX), inside(CAN, LONG_BOX)
    box_puts = (
        Put(LONG_BOX, (-0.03, 0.0), (0.03, 0.02), yaw=0.1),
        Put(_RED, (-0.12, 0.27), (0.05, 0.04)),
        Put(CAN, (-0.03, -0.27), (0.09, 0.03)),
        Put(_GREEN, (0.05, 0.27), (0.04, 0.04)),
    )
    red_stacked, green_stacked = on(_RED, _BLUE, 0.024), on(_GREEN, _RED, 0.024)
    stack_puts = (
        Put(_BLUE, (-0.04, 0.0), (0.04, 0.04)),
        Put(_RED, (-0.05, 0.2), (0.06, 0.07)),
        Put(_GREEN, (-0.05, -0.2), (0.06, 0.07)),
        Put(CAN, (0.12, 0.0), (0.02, 0.2)),
    )
    bowl_plated, cube_in_bowl, can_plated = on(BOWL, _PLATE, 0.045), inside(_RED, BOWL), on(CAN, _PLATE, 0.05)
    bowl_puts = (
        Put(_PLATE, (0.06, 0.0), (0.02, 0.03)),
        Put(BOWL, (-0.12, 0.08), (0.03, 0.03)),
        Put(_RED, (-0.11, -0.15), (0.05, 0.06)),
    )
    table = {
        "long_cube_and_can_in_box": (
            box_puts,
            (red_boxed, can_boxed),
            (_store(red_boxed, -0.06), _store(can_boxed, 0.06)),
        ),
        "long_stack_three_cubes": (
            stack_puts,
            (red_stacked, green_stacked),
            (put(red_stacked, other=REST), put(green_stacked, other=REST, carry_hover=0.08)),
        ),
        "long_bowl_on_plate_cube_in_bowl": (
            (*bowl_puts, Put(CAN, (0.02, 0.27), (0.06, 0.03))),
            (bowl_plated, cube_in_bowl),
            (_put_bowl(bowl_plated), put(cube_in_bowl, _OVER_BOWL, other=REST, carry_hover=_HOVER)),
        ),
        "long_cube_in_bowl_can_on_plate": (
            (*bowl_puts, Put(CAN, (-0.02, -0.26), (0.06, 0.03))),
            (cube_in_bowl, can_plated),
            (
                put(cube_in_bowl, _OVER_BOWL, other=REST, carry_hover=_HOVER),
                put(can_plated, other=REST, carry_hover=_HOVER),
            ),
        ),
    }
    on_table = {
        name: Definition(_TABLE, Layout(puts, mirrored=EITHER_SIDE, clearance=_CLEARANCE), goal, plan, 220)
        for name, (puts, goal, plan) in table.items()
    }
    return {**on_table, **_with_the_cabinet()}


def _with_the_cabinet() -> dict[str, Definition]:
    """Chains about the two drawers of the goal suite's cabinet."""
    anywhere, on_the_right = ((-0.14, 0.0), (0.03, 0.28)), ((-0.14, -0.15), (0.03, 0.13))
    spare = (Put(_BLUE, *anywhere), Put(CAN, *anywhere))
    in_left, in_right = inside(_RED, LEFT_DRAWER), inside(_RED, RIGHT_DRAWER)
    swapped = (closed(LEFT_DRAWER), opened(RIGHT_DRAWER))

    def task(red: Put, goal: tuple[Atom, ...], plan: Plan, ajar: Drawer | None = None) -> Definition:
        openings = ((ajar, *_AJAR),) if ajar else ()
        return Definition(_DRAWERS, Layout((red, *spare), openings, clearance=_CLEARANCE), goal, plan, 260)

    open_left, open_right = pull_open(CABINET, LEFT_DRAWER), pull_open(CABINET, RIGHT_DRAWER)
    shut_left, shut_right = push_shut(CABINET, LEFT_DRAWER), push_shut(CABINET, RIGHT_DRAWER)
    store_left, store_right = (put(goal, other=REST, carry_hover=_HOVER) for goal in (in_left, in_right))
    return {
        "long_open_drawer_cube_in": task(Put(_RED, *anywhere), (in_left,), (open_left, store_left)),
        # The arm that puts the cube in also shuts the drawer: another one would be in its way.
        "long_cube_in_drawer_close": task(
            Put(_RED, *on_the_right), (in_right, closed(RIGHT_DRAWER)), (store_right, shut_right), RIGHT_DRAWER
        ),
        "long_close_left_open_right": task(Put(_RED, *anywhere), swapped, (shut_left, open_right), LEFT_DRAWER),
    }


def _store(goal: Placed, x: float) -> Skill:
    """Put the item of a goal into the box, `x` metres along it from its middle."""
    to = dataclasses.replace(goal.place, local=(x, 0.0, 0.0)).raised(0.01)
    return pick_and_place(goal.item.grip, to, other=REST, unless=(goal,))


def _put_bowl(goal: Placed) -> Skill:
    """By the rim that leaves the bowl in the hand's reach."""
    return pick_and_place(goal.item.grips[-1], goal.place, carry_hover=_HOVER, unless=(goal,))
