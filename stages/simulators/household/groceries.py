"""Ten things that look different and are held differently, all within a hand's reach of 10 cm."""

from __future__ import annotations

import math

from stages.simulators.household import shapes
from stages.simulators.household.props import HALF_TURN, QUARTER_TURN, Geom, Grip, Prop

_WHITE, _STEEL, _DARK = "0.96 0.96 0.94 1", "0.7 0.72 0.75 1", "0.12 0.12 0.14 1"

RED_CUBE = shapes.cube("red_cube", "0.88 0.1 0.1 1", 0.042)
BLUE_CAN = shapes.can("blue_can", "0.12 0.3 0.85 1")


def _bottle(name: str) -> Prop:
    glass, cap = "0.1 0.55 0.25 1", "0.95 0.95 0.9 1"
    return Prop(
        name,
        geoms=(
            Geom("cylinder", (0.025, 0.03), glass),
            Geom("cylinder", (0.011, 0.02), glass, at=(0.0, 0.0, 0.05)),
            Geom("cylinder", (0.0125, 0.005), cap, at=(0.0, 0.0, 0.071), solid=False),
            Geom("cylinder", (0.0254, 0.014), "0.95 0.9 0.7 1", solid=False),
        ),
        rest=0.03,
        radius=0.025,
        grips=(Grip(name, 0.022, at=(0.0, 0.0, 0.054)),),
    )


def _carton(name: str) -> Prop:
    yellow = "0.97 0.8 0.1 1"
    return Prop(
        name,
        geoms=(
            Geom("box", (0.022, 0.022, 0.032), yellow),
            Geom("box", (0.022, 0.004, 0.008), _WHITE, at=(0.0, 0.0, 0.04), solid=False),
            Geom("box", (0.0224, 0.0224, 0.010), _WHITE, at=(0.0, 0.0, -0.008), solid=False),
        ),
        rest=0.032,
        radius=0.031,
        grips=(Grip(name, 0.044, at=(0.0, 0.0, 0.008), turns=QUARTER_TURN),),
    )


def _ball(name: str) -> Prop:
    return Prop(
        name,
        geoms=(Geom("sphere", (0.024,), "0.98 0.5 0.05 1", rolling=0.002),),
        rest=0.024,
        radius=0.024,
        grips=(Grip(name, 0.048),),
    )


def _mug(name: str) -> Prop:
    purple = "0.5 0.2 0.7 1"
    ear = ((0.033, 0.016), (0.043, 0.0), (0.033, -0.016))
    return Prop(
        name,
        geoms=(
            Geom("cylinder", (0.028, 0.03), purple),
            Geom("cylinder", (0.023, 0.0006), "0.25 0.12 0.06 1", at=(0.0, 0.0, 0.03), solid=False),
            *(Geom("box", (0.005, 0.005, 0.012), purple, at=(-x, 0.0, z), solid=x > 0.04) for x, z in ear),
        ),
        rest=0.03,
        radius=0.048,
        grips=(Grip(name, 0.056, turns=HALF_TURN),),
    )


def _chocolate(name: str) -> Prop:
    brown = "0.32 0.17 0.08 1"
    squares = (-0.03, -0.01, 0.01, 0.03)
    return Prop(
        name,
        geoms=(
            Geom("box", (0.042, 0.018, 0.011), brown),
            Geom("box", (0.0215, 0.0184, 0.0114), "0.85 0.15 0.3 1", at=(-0.0215, 0.0, 0.0), solid=False),
            *(Geom("box", (0.008, 0.013, 0.0015), brown, at=(x, 0.0, 0.0115), solid=False) for x in squares[2:]),
        ),
        rest=0.011,
        radius=0.046,
        grips=(Grip(name, 0.036, lift=0.009, turns=HALF_TURN),),
    )


def _pot(name: str) -> Prop:
    teal, lid = "0.05 0.6 0.6 1", "0.1 0.7 0.7 1"
    return Prop(
        name,
        geoms=(
            Geom("cylinder", (0.036, 0.02), teal),
            Geom("cylinder", (0.037, 0.002), lid, at=(0.0, 0.0, 0.021), solid=False),
            Geom("cylinder", (0.011, 0.014), _DARK, at=(0.0, 0.0, 0.034)),
        ),
        rest=0.02,
        radius=0.037,
        grips=(Grip(name, 0.022, at=(0.0, 0.0, 0.039)),),
    )


def _candle(name: str) -> Prop:
    return Prop(
        name,
        geoms=(
            Geom("cylinder", (0.019, 0.003), _STEEL),
            Geom("cylinder", (0.013, 0.03), _WHITE, at=(0.0, 0.0, 0.033)),
            Geom("sphere", (0.006,), "1 0.65 0.1 1", at=(0.0, 0.0, 0.069), solid=False),
            Geom("sphere", (0.004,), "1 0.85 0.3 1", at=(0.0, 0.0, 0.076), solid=False),
        ),
        rest=0.003,
        radius=0.019,
        grips=(Grip(name, 0.026, at=(0.0, 0.0, 0.038)),),
    )


def _camera(name: str) -> Prop:
    side = (math.sqrt(0.5), 0.0, math.sqrt(0.5), 0.0)
    return Prop(
        name,
        geoms=(
            Geom("box", (0.019, 0.032, 0.022), _DARK),
            Geom("cylinder", (0.015, 0.006), _STEEL, at=(-0.024, 0.0, 0.0), quat=side, solid=False),
            Geom("cylinder", (0.010, 0.0065), "0.2 0.35 0.6 1", at=(-0.0245, 0.0, 0.0), quat=side, solid=False),
            Geom("cylinder", (0.006, 0.003), "0.9 0.1 0.1 1", at=(0.0, 0.02, 0.024), solid=False),
        ),
        rest=0.022,
        radius=0.044,
        grips=(Grip(name, 0.064, turns=HALF_TURN),),
    )


GREEN_BOTTLE = _bottle("green_bottle")
YELLOW_CARTON = _carton("yellow_carton")
ORANGE_BALL = _ball("orange_ball")
PURPLE_MUG = _mug("purple_mug")
CHOCOLATE_BAR = _chocolate("chocolate_bar")
TEAL_POT = _pot("teal_pot")
WHITE_CANDLE = _candle("white_candle")
BLACK_CAMERA = _camera("black_camera")
