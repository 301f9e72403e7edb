"""Things of a kitchen: a cabinet with two drawers, a burner, and what is put on and into them."""

from __future__ import annotations

import math

from stages.simulators.household.props import (
    ANY_TURN,
    HALF_TURN,
    QUARTER_TURN,
    Drawer,
    Fixture,
    Geom,
    Grip,
    Prop,
    Vector,
)

_WOOD, _FRONT, _METAL = "0.55 0.38 0.24 1", "0.72 0.55 0.38 1", "0.25 0.25 0.28 1"
_BLUE, _OAK, _IRON, _GLOW = "0.25 0.45 0.85 1", "0.76 0.6 0.4 1", "0.2 0.2 0.22 1", "0.75 0.25 0.1 1"

# A cabinet's outside, about its origin on the table. It is low: the wrist cameras look over it, not into it.
_HALF_DEPTH, _HEIGHT, _BOARD = 0.10, 0.07, 0.005
# A drawer's inside is wider than open fingers (12.4 cm), its floor 12 mm over the table.
_DRAWER_DEPTH, _PANEL, _SIDE, _FLOOR = 0.17, 0.006, 0.004, 0.012
_HANDLE_OUT, _HANDLE_HEIGHT, _HANDLE_HALF_WIDTH = 0.035, 0.04, 0.011
_TRAVEL = 0.13


def drawer(name: str, y: float, half_width: float, handle_y: float = 0.0, spring: float = 0.0) -> Drawer:
    """A drawer for a fixture whose front face lies `_HALF_DEPTH` before its origin.

    Args:
        name: unique in a scene.
        y: of its middle, in the fixture's frame, in metres.
        half_width: half of its outer width, in metres.
        handle_y: how far left of the drawer's middle the handle is, in metres.
        spring: stiffness of the spring that shuts it, N/m.

    Returns:
        A shallow box with an upright handle that a hand grips from above, its fingers opening along y.
    """
    front = -_HALF_DEPTH
    back = front + _DRAWER_DEPTH
    wall = 0.016  # half height of its sides
    side_middle = (front + 2 * _PANEL + back) / 2
    half_length = (back - front) / 2 - _PANEL
    geoms = [
        _box((_PANEL, half_width, 0.027), (front + _PANEL, y, 0.031), _FRONT),
        _box((half_length, half_width, 0.004), (side_middle, y, _FLOOR - 0.004), _WOOD),
        _box((_SIDE, half_width - 2 * _SIDE, wall), (back - _SIDE, y, _FLOOR + wall), _WOOD),
        _box((0.014, 0.005, 0.006), (front - 0.014, y + handle_y, _HANDLE_HEIGHT), _METAL),
        _box((0.007, _HANDLE_HALF_WIDTH, 0.021), (front - _HANDLE_OUT, y + handle_y, _HANDLE_HEIGHT), _METAL),
    ]
    for sign in (1, -1):
        middle = (side_middle, y + sign * (half_width - _SIDE), _FLOOR + wall)
        geoms.append(_box((half_length, _SIDE, wall), middle, _WOOD))
    return Drawer(
        name=name,
        geoms=tuple(geoms),
        travel=_TRAVEL,
        handle=(front - _HANDLE_OUT, y + handle_y, _HANDLE_HEIGHT),
        inside=(side_middle - _SIDE, y, _FLOOR),
        room=(half_length - _SIDE, half_width - 2 * _SIDE),
        width=2 * _HANDLE_HALF_WIDTH,
        spring=spring,
        damping=8.0,
        friction=1.5,
        mass=0.6,
    )


def cabinet(
    name: str, at: Vector, drawers: tuple[Drawer, ...], partitions: tuple[float, ...], half_width: float
) -> Fixture:
    """A low cabinet around drawers; its spot `top` is where on it a hand reaches.

    Args:
        name: unique in a scene.
        at: its middle on the table.
        drawers: as `drawer` builds them.
        partitions: y of the boards between drawers, in metres.
        half_width: of the whole, in metres.
    """
    shell, upright = 2 * _PANEL, _HEIGHT / 2 - _BOARD
    middle, half_depth = shell / 2, _HALF_DEPTH - shell / 2  # it begins behind the drawers' front panels
    boards = [(y, 0.004) for y in partitions] + [(sign * (half_width - _BOARD), _BOARD) for sign in (1, -1)]
    geoms = [_box((half_depth, half, upright), (middle, y, upright), _WOOD) for y, half in boards]
    geoms.append(_box((half_depth, half_width, _BOARD), (middle, 0, _HEIGHT - _BOARD), _WOOD))
    geoms.append(_box((_BOARD, half_width, upright), (_HALF_DEPTH - _BOARD, 0, upright), _WOOD))
    handle_reach = _HALF_DEPTH + _HANDLE_OUT + 0.007
    return Fixture(
        name=name,
        at=at,
        geoms=tuple(geoms),
        footprint=(handle_reach, half_width),
        drawers=drawers,
        spots=(("top", (0.035 - _HALF_DEPTH, 0.0, _HEIGHT)),),
    )


def _box(half: tuple[float, float, float], at: Vector, colour: str) -> Geom:
    return Geom("box", half, colour, at)


LEFT_DRAWER = drawer("left_drawer", 0.082, 0.076)
RIGHT_DRAWER = drawer("right_drawer", -0.082, 0.076)
CABINET = cabinet("cabinet", (0.20, 0.0, 0.0), (LEFT_DRAWER, RIGHT_DRAWER), (0.0,), 0.169)

_BURNER_TOP = 0.018
BURNER = Fixture(
    name="burner",
    at=(0.06, -0.27, 0.0),
    geoms=(
        _box((0.07, 0.065, _BURNER_TOP / 2), (0, 0, _BURNER_TOP / 2), _IRON),
        Geom("cylinder", (0.05, 0.0004), _GLOW, (0, 0, _BURNER_TOP), solid=False),
        Geom("cylinder", (0.03, 0.0008), _IRON, (0, 0, _BURNER_TOP), solid=False),
    ),
    footprint=(0.07, 0.065),
    spots=(("top", (0.0, 0.0, _BURNER_TOP)),),
)


def _bowl(name: str, colour: str) -> Prop:
    """A bowl of eight walls, gripped by its rim on its left or its right; its origin is the middle of its underside."""
    distance, height, thickness, floor, sides = 0.056, 0.034, 0.006, 0.006, 8
    half_wall = distance * math.tan(math.pi / sides)
    density = 600.0
    geoms = [
        # What it stands on is a square: four contacts.
        Geom("box", (0.038, 0.038, floor / 2), colour, (0, 0, floor / 2), density=density),
        Geom("cylinder", (distance, floor / 2 - 0.0005), colour, (0, 0, floor / 2), density=0.0, solid=False),
    ]
    for i in range(sides):
        turn = 2 * math.pi * i / sides
        geoms.append(
            Geom(
                "box",
                (thickness / 2, half_wall, height / 2 - 0.001),
                colour,
                (distance * math.cos(turn), distance * math.sin(turn), height / 2 + 0.001),
                (math.cos(turn / 2), 0.0, 0.0, math.sin(turn / 2)),
                density,
            )
        )
    inner = (distance - thickness / 2) * math.sqrt(0.5)
    rims = tuple(Grip(name, thickness, (0.0, sign * distance, 0.024), turns=HALF_TURN) for sign in (1, -1))
    return Prop(
        name,
        tuple(geoms),
        rest=0.0,
        radius=distance + thickness,
        grips=rims,
        floor=floor,
        opening=(inner, inner),
        rim=height,
    )


BOWL = _bowl("bowl", _BLUE)

CAN = Prop(
    name="can",
    geoms=(
        Geom("cylinder", (0.028, 0.04), "0.85 0.2 0.15 1"),
        Geom("cylinder", (0.0284, 0.018), "0.95 0.9 0.8 1", density=0.0, solid=False),
    ),
    rest=0.04,
    radius=0.028,
    grips=(Grip("can", 0.056, lift=0.01, turns=ANY_TURN),),
    top=0.04,
)

WOODEN_BLOCK = Prop(
    name="wooden_block",
    geoms=(Geom("box", (0.03, 0.03, 0.02), _OAK),),
    rest=0.02,
    radius=0.03 * math.sqrt(2),
    grips=(Grip("wooden_block", 0.06, turns=QUARTER_TURN),),
    top=0.02,
)
