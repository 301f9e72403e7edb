"""Things that take two hands: a long bar and its box, a tray and its stand, drawers that shut themselves."""

from __future__ import annotations

import dataclasses
import math

from stages.simulators.household.furniture import cabinet, drawer
from stages.simulators.household.props import HALF_TURN, Drawer, Fixture, Geom, Grip, Prop

_ORANGE, _VIOLET, _LILAC = "0.95 0.55 0.05 1", "0.35 0.25 0.6 1", "0.48 0.38 0.75 1"
_BIRCH, _RIM, _WALNUT, _SLATE = "0.74 0.56 0.36 1", "0.62 0.45 0.28 1", "0.3 0.2 0.12 1", "0.25 0.42 0.55 1"

_LIFTED = 0.001  # of a thing's other parts over the one that it stands on, in metres

# Two hands hold the bar 15 cm apart: nearer to each other, their wrists would meet.
_BAR_HALF, _BAR_GRIP = (0.105, 0.0125, 0.0125), 0.075

BAR = Prop(
    name="bar",
    geoms=(Geom("box", _BAR_HALF, _ORANGE),),
    rest=_BAR_HALF[2],
    radius=_BAR_HALF[0],
    grips=tuple(
        Grip("bar", 2 * _BAR_HALF[1], (end * _BAR_GRIP, 0.0, 0.0), lift=0.006, turns=HALF_TURN) for end in (1, -1)
    ),
    top=_BAR_HALF[2],
)
BAR_FAR_END, BAR_NEAR_END = BAR.grips


def _long_box() -> Prop:
    """A box for the bar, wide enough for a hand that lets go of it; its origin is the middle of its underside."""
    x, y, wall, floor, rim = 0.135, 0.07, 0.003, 0.005, 0.022
    geoms = [Geom("box", (x, y, floor / 2), _VIOLET, (0.0, 0.0, floor / 2))]
    for sign in (1, -1):
        # Only the floor touches the table: four contacts.
        half, middle = (rim - _LIFTED) / 2, (rim + _LIFTED) / 2
        geoms.append(Geom("box", (wall, y, half), _LILAC, (sign * (x - wall), 0.0, middle)))
        geoms.append(Geom("box", (x - 2 * wall, wall, half), _LILAC, (0.0, sign * (y - wall), middle)))
    inner = (x - 2 * wall, y - 2 * wall)
    return Prop(
        "long_box", tuple(geoms), rest=0.0, radius=math.hypot(x, y), floor=floor, opening=inner, rim=rim, top=floor
    )


LONG_BOX = _long_box()

_TRAY_HALF, _TRAY_FLOOR, _TRAY_GRIP = (0.07, 0.125), 0.01, 0.034


def _tray() -> Prop:
    """A tray with an upright grip at its left and right end; its origin is the middle of its underside."""
    x, y = _TRAY_HALF
    reach = y - 0.012  # the grips stand outside the rim
    geoms = [Geom("box", (x, y + 0.01, _TRAY_FLOOR / 2), _BIRCH, (0.0, 0.0, _TRAY_FLOOR / 2), density=800.0)]
    for sign in (1, -1):
        geoms.append(Geom("box", (0.02, 0.009, 0.026), _WALNUT, (0.0, sign * y, 0.026 + _LIFTED)))
        rims = (((x, 0.003, 0.008), (0.0, sign * reach, 0.013)), ((0.003, reach, 0.008), (sign * x, 0.0, 0.013)))
        geoms += [Geom("box", half, _RIM, at) for half, at in rims]
    grips = tuple(Grip("tray", 0.018, (0.0, sign * y, _TRAY_GRIP), turns=HALF_TURN) for sign in (1, -1))
    return Prop("tray", tuple(geoms), rest=0.0, radius=math.hypot(x, y), grips=grips, top=_TRAY_FLOOR)


TRAY = _tray()
TRAY_LEFT, TRAY_RIGHT = TRAY.grips
TRAY_INSIDE = (_TRAY_HALF[0] - 0.005, _TRAY_HALF[1] - 0.03)  # half extents (x, y) of what things stand on

STAND = Prop(
    name="stand",
    geoms=(Geom("box", (0.06, 0.09, 0.015), _SLATE, density=2500.0),),
    rest=0.015,
    radius=math.hypot(0.06, 0.09),
    top=0.015,
)


def _sprung(name: str, handle_y: float) -> Drawer:
    """A wide drawer that shuts itself, its handle to one side so that the other hand has room."""
    box = drawer(name, 0.0, 0.13, handle_y, spring=20.0)
    return dataclasses.replace(box, preload=1.6, damping=12.0, friction=0.0)


def _wide(name: str, content: Drawer) -> Fixture:
    return cabinet(name, (0.21, 0.0, 0.0), (content,), (), 0.145)


# One for each hand to hold open.
SPRUNG_LEFT, SPRUNG_RIGHT = _sprung("sprung_drawer_left", 0.08), _sprung("sprung_drawer_right", -0.08)
CABINET_LEFT, CABINET_RIGHT = _wide("sprung_cabinet_left", SPRUNG_LEFT), _wide("sprung_cabinet_right", SPRUNG_RIGHT)
