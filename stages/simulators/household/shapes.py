"""Common props: cubes, cans, plates and the like, of any size and colour."""

from __future__ import annotations

import math

from stages.simulators.household.props import HALF_TURN, QUARTER_TURN, Geom, Grip, Prop

PLATE_HEIGHT = 0.008
_PLATE_DENSITY = 2000  # kg/m^3, about that of stoneware
_GRIP_LEAST = 0.02  # the fingers' tips stay this far above what a thing stands on, in metres


def cube(name: str, colour: str, size: float) -> Prop:
    """A cube of an edge of `size` metres."""
    half = size / 2
    return Prop(
        name,
        geoms=(Geom("box", (half, half, half), colour),),
        rest=half,
        radius=size * math.sqrt(0.5),
        grips=(Grip(name, size, lift=max(0.0, _GRIP_LEAST - half), turns=QUARTER_TURN),),
        top=half,
    )


def plate(name: str, radius: float, colour: str = "0.97 0.97 0.97 1") -> Prop:
    """A flat round plate of a `radius` in metres."""
    half = PLATE_HEIGHT / 2
    return Prop(
        name,
        geoms=(Geom("cylinder", (radius, half), colour, density=_PLATE_DENSITY),),
        rest=half,
        radius=radius,
        top=half,
    )


def can(name: str, colour: str, radius: float = 0.024, height: float = 0.07, band: str = "0.92 0.92 0.94 1") -> Prop:
    """A can that stands, with a band around it; lengths in metres."""
    half = height / 2
    return Prop(
        name,
        geoms=(
            Geom("cylinder", (radius, half), colour),
            Geom("cylinder", (radius + 0.0004, half / 3), band, solid=False),
            Geom("cylinder", (radius * 0.85, 0.0006), "0.75 0.75 0.78 1", at=(0.0, 0.0, half), solid=False),
        ),
        rest=half,
        radius=radius,
        grips=(Grip(name, 2 * radius, at=(0.0, 0.0, half - 0.03)),),
        top=half,
    )


def block(name: str, colour: str, half: tuple[float, float, float], density: float = 700.0) -> Prop:
    """A block of half extents in metres, gripped across y where it is narrow enough for a hand."""
    width = 2 * half[1]
    grips = (Grip(name, width, lift=max(0.0, _GRIP_LEAST - half[2]), turns=HALF_TURN),) if width <= 0.06 else ()
    return Prop(
        name,
        geoms=(Geom("box", half, colour, density=density),),
        rest=half[2],
        radius=math.hypot(half[0], half[1]),
        grips=grips,
        top=half[2],
    )


def dish(name: str, colour: str, inner: float, height: float, sides: int = 10) -> Prop:
    """A shallow round dish of flat walls; `inner` is the radius of the space inside, lengths in metres."""
    floor, wall = 0.006, 0.004
    apothem = inner + wall
    half_length = apothem * math.tan(math.pi / sides) + wall
    geoms = [Geom("cylinder", (apothem, floor / 2), colour, density=1500.0)]
    for i in range(sides):
        angle = 2 * math.pi * i / sides
        at = (apothem * math.cos(angle), apothem * math.sin(angle), (height + floor) / 2 - floor / 2)
        quat = (math.cos(angle / 2), 0.0, 0.0, math.sin(angle / 2))
        geoms.append(Geom("box", (wall, half_length, (height - floor) / 2), colour, at, quat, density=1500.0))
    return Prop(
        name,
        geoms=tuple(geoms),
        rest=floor / 2,
        radius=apothem + 2 * wall,
        floor=floor / 2,
        opening=(inner * math.sqrt(0.5), inner * math.sqrt(0.5)),
        rim=height - floor / 2,
    )


def basket(name: str, colour: str, inner: tuple[float, float], height: float, lining: str) -> Prop:
    """A rectangular basket; `inner` are the half extents of the space inside, lengths in metres."""
    floor, wall = 0.006, 0.005
    x, y = inner
    middle, half = height / 2, (height - floor) / 2
    geoms = [Geom("box", (x + 2 * wall, y + 2 * wall, floor / 2), lining)]
    for sign in (1.0, -1.0):
        geoms.append(Geom("box", (wall, y + 2 * wall, half), colour, (sign * (x + wall), 0.0, middle)))
        geoms.append(Geom("box", (x, wall, half), colour, (0.0, sign * (y + wall), middle)))
    return Prop(
        name,
        geoms=tuple(geoms),
        rest=floor / 2,
        radius=math.hypot(x, y) + wall,
        floor=floor / 2,
        opening=inner,
        rim=height - floor / 2,
    )
