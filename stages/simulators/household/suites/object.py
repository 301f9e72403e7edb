"""The object suite: ten different things, of which the one that is named goes into the basket."""

from __future__ import annotations

from stages.simulators.household import groceries, shapes
from stages.simulators.household.expert.skills import put
from stages.simulators.household.goals import inside
from stages.simulators.household.kit import Scene
from stages.simulators.household.layouts import Layout, Put
from stages.simulators.household.options import Options
from stages.simulators.household.suites.definition import Definition

_THINGS = (
    groceries.RED_CUBE,
    groceries.BLUE_CAN,
    groceries.GREEN_BOTTLE,
    groceries.YELLOW_CARTON,
    groceries.ORANGE_BALL,
    groceries.PURPLE_MUG,
    groceries.CHOCOLATE_BAR,
    groceries.TEAL_POT,
    groceries.WHITE_CANDLE,
    groceries.BLACK_CAMERA,
)
_BASKET = shapes.basket("basket", "0.62 0.42 0.22 1", (0.075, 0.085), 0.05, "0.5 0.33 0.17 1")
_STEP_LIMIT = 120

_BASKET_SPOT = ((0.01, 0.0), (0.02, 0.02))
# Where the resting hands leave the view of the head camera free.
_NEAR, _FAR = ((-0.11, 0.18), (0.04, 0.03)), ((0.07, 0.215), (0.025, 0.025))
_SPOTS = (_NEAR, _FAR, ((-0.11, -0.18), (0.04, 0.03)), ((0.07, -0.215), (0.025, 0.025)))
# How many places further in the list the distractors are, so that every thing meets others.
_STRIDES = (1, 3, 6)

_HOVER = 0.13  # metres over its place at which a thing is carried, and from which a hand comes down: past the bottle
_DROP = 0.012  # metres over the basket's floor at which it is let go of


def define(options: Options) -> dict[str, Definition]:
    """The suite's tasks by name."""
    del options
    return {f"object_{thing.name}": _task(i) for i, thing in enumerate(_THINGS)}


def _task(number: int) -> Definition:
    things = tuple(_THINGS[(number + stride) % len(_THINGS)] for stride in (0, *_STRIDES))
    puts = [Put(thing, *spot) for thing, spot in zip(things, _SPOTS, strict=True)]
    layout = Layout((Put(_BASKET, *_BASKET_SPOT, yaw=0.1), *puts), shuffled=things)
    goal = inside(things[0], _BASKET)
    plan = (put(goal, above=_DROP, reach_hover=_HOVER, carry_hover=_HOVER),)
    return Definition(Scene((*things, _BASKET)), layout, (goal,), plan, _STEP_LIMIT)
