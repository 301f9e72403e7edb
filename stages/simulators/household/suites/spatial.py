"""The spatial suite: what is meant, or where it goes, is told by where things are.

Left, right, in front of and behind are as the robot sees them.
"""

from __future__ import annotations

from stages.simulators.household import groceries, shapes
from stages.simulators.household.expert.skills import put
from stages.simulators.household.goals import Placed, beside, between, on
from stages.simulators.household.kit import Scene
from stages.simulators.household.layouts import EITHER_SIDE, NOT_MIRRORED, Layout, Put
from stages.simulators.household.options import Options
from stages.simulators.household.suites.definition import Definition

_RED, _GREEN = "0.88 0.1 0.1 1", "0.15 0.62 0.25 1"
_CUBE = groceries.RED_CUBE
_TWIN = shapes.cube("red_cube_twin", _RED, 0.042)
_CAN = groceries.BLUE_CAN
_PLATE = shapes.plate("white_plate", 0.07)
_BLOCK = shapes.block("wide_block", "0.68 0.48 0.28 1", (0.04, 0.04, 0.015))
_DISH = shapes.dish("green_dish", _GREEN, 0.072, 0.024)
_PILLARS = tuple(shapes.block(f"green_block_{i}", _GREEN, (0.026, 0.026, 0.03)) for i in (1, 2))
_CARTON = groceries.YELLOW_CARTON
_STEP_LIMIT = 120
_HOVER = 0.11  # metres over its place at which the cube is carried: past the can
_BESIDE = 0.10  # metres from the can's middle to the cube's

_SORTED = Scene((_CUBE, _TWIN, _PLATE, _BLOCK, _DISH, _CAN))
_REARRANGED = Scene((_CUBE, _CAN, *_PILLARS, _CARTON))

# Nominal places and half ranges in metres, y positive on the side that a world is mirrored to.
_PLATE_PUT = Put(_PLATE, (-0.03, 0.0), (0.02, 0.02))
_NEAR_LEFT, _NEAR_RIGHT = ((-0.14, 0.16), (0.02, 0.03)), ((-0.14, -0.16), (0.02, 0.03))
_FAR_LEFT, _FAR_RIGHT = ((0.07, 0.19), (0.02, 0.02)), ((0.07, -0.19), (0.02, 0.02))


def define(options: Options) -> dict[str, Definition]:
    """The suite's tasks by name."""
    del options
    on_block = Put(_TWIN, (0.0, 0.0), (0.01, 0.01), by=_BLOCK, resting=True)
    in_dish = Put(_TWIN, (0.0, 0.0), (0.006, 0.006), by=_DISH, resting=True, yaw=0.2)
    return {
        "spatial_cube_next_to_plate": _which(
            (
                Put(_CUBE, (0.0, 0.14), (0.02, 0.01), by=_PLATE),
                Put(_CAN, *_FAR_RIGHT),
                Put(_DISH, *_FAR_LEFT),
                Put(_BLOCK, *_NEAR_RIGHT),
                on_block,
            )
        ),
        "spatial_cube_on_block": _which(
            (
                Put(_BLOCK, *_NEAR_LEFT),
                Put(_CUBE, (0.0, 0.0), (0.01, 0.01), by=_BLOCK, resting=True),
                Put(_CAN, *_FAR_LEFT),
                Put(_DISH, *_FAR_RIGHT),
                Put(_TWIN, (-0.14, -0.17), (0.03, 0.03)),
            )
        ),
        "spatial_cube_in_dish": _which(
            (
                Put(_DISH, *_FAR_LEFT),
                Put(_CUBE, (0.0, 0.0), (0.006, 0.006), by=_DISH, resting=True, yaw=0.2),
                Put(_CAN, *_NEAR_LEFT),
                Put(_BLOCK, *_FAR_RIGHT),
                on_block,
            )
        ),
        "spatial_cube_between_plate_and_can": _which(
            (
                Put(_CAN, (0.0, 0.24), (0.03, 0.01), by=_PLATE),
                Put(_CUBE, (0.0, 0.135), (0.015, 0.006), by=_PLATE),
                Put(_BLOCK, *_NEAR_RIGHT),
                Put(_DISH, *_FAR_RIGHT),
                in_dish,
            ),
            plate=Put(_PLATE, (-0.03, -0.045), (0.02, 0.015)),
        ),
        "spatial_cube_left_of_can": _which(
            (
                Put(_CAN, (-0.06, 0.145), (0.03, 0.01)),
                Put(_CUBE, (0.0, 0.095), (0.015, 0.006), by=_CAN),
                Put(_TWIN, (0.0, -0.095), (0.015, 0.006), by=_CAN),
                Put(_BLOCK, (0.08, -0.21), (0.02, 0.02)),
                Put(_DISH, (-0.12, -0.19), (0.02, 0.02)),
            ),
            plate=Put(_PLATE, (0.03, -0.06), (0.02, 0.01)),
            mirrored=NOT_MIRRORED,
        ),
        "spatial_left_of_can": _where(beside(_CUBE, _CAN, "left", _BESIDE)),
        "spatial_right_of_can": _where(beside(_CUBE, _CAN, "right", _BESIDE)),
        "spatial_in_front_of_can": _where(beside(_CUBE, _CAN, "front", _BESIDE)),
        "spatial_behind_can": _where(beside(_CUBE, _CAN, "behind", _BESIDE)),
        "spatial_between_green_blocks": _between(),
    }


def _which(puts: tuple[Put, ...], plate: Put = _PLATE_PUT, mirrored: int = EITHER_SIDE) -> Definition:
    """Of two red cubes, the one that the instruction describes goes onto the plate."""
    layout = Layout((plate, *puts), mirrored=mirrored, clearance=0.01)
    return _task(_SORTED, layout, on(_CUBE, _PLATE, 0.06))


def _where(goal: Placed) -> Definition:
    """The red cube goes to a side of the can."""
    puts = (
        Put(_CAN, (-0.05, 0.0), (0.03, 0.03)),
        Put(_CUBE, (-0.10, 0.20), (0.05, 0.03)),
        Put(_CARTON, (-0.10, -0.21), (0.04, 0.03)),
        Put(_PILLARS[0], (0.07, -0.20), (0.03, 0.03)),
        Put(_PILLARS[1], (0.07, 0.20), (0.03, 0.03)),
    )
    return _task(_REARRANGED, Layout(puts, mirrored=EITHER_SIDE), goal)


def _between() -> Definition:
    """The red cube goes between two blocks."""
    first, second = _PILLARS
    goal = between(_CUBE, first, second, half=(0.035, 0.035))
    puts = (
        Put(first, (-0.01, 0.11), (0.04, 0.02)),
        Put(second, (0.0, -0.22), (0.02, 0.01), by=first),
        Put(_CUBE, (-0.11, 0.22), (0.04, 0.04)),
        Put(_CAN, (0.09, 0.2), (0.01, 0.03)),
        Put(_CARTON, (-0.10, -0.22), (0.05, 0.04)),
    )
    return _task(_REARRANGED, Layout(puts, mirrored=EITHER_SIDE), goal)


def _task(scene: Scene, layout: Layout, goal: Placed) -> Definition:
    return Definition(scene, layout, (goal,), (put(goal, carry_hover=_HOVER, reach_hover=_HOVER),), _STEP_LIMIT)
