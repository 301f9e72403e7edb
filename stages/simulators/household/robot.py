"""The two-armed robot as MJCF text: capsules on the kinematics of `arm.py`, two-fingered hands, a camera on each wrist.

Only primitive geoms and position actuators: what MuJoCo Warp supports too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stages.simulators.household import arm
from stages.simulators.household.controller import FINGER_OPEN

SIDES = ("left", "right")

# Arms at rest: hands over the table's near corners, pointing down, out of the head camera's way.
HOME_JOINTS = np.array(
    [
        [0.1634, -0.14782, 0.04871, -2.60592, 0.01136, 2.45824, 0.98817],
        [-0.1634, -0.14782, -0.04871, -2.60592, -0.01136, 2.45824, 0.58263],
    ]
)

# A link's mass in kg and the capsule that shows it: two ends and a radius, in metres.
_LINKS: tuple[tuple[float, tuple[float, ...], float], ...] = (
    (2.5, (0, 0, -0.28, 0, 0, 0), 0.06),
    (2.0, (0, 0, 0, 0, -0.22, 0), 0.058),
    (1.5, (0, 0, -0.08, 0.0825, 0, 0), 0.055),
    (1.5, (0, 0, 0, -0.0825, 0.14, 0), 0.052),
    (1.0, (0, 0, -0.22, 0, 0, -0.02), 0.045),
    (0.6, (0, 0, 0, 0.088, 0, 0), 0.042),
    (0.4, (0, 0, 0, 0, 0, 0.08), 0.04),
)
_ARMATURE = (0.3, 0.3, 0.2, 0.2, 0.05, 0.05, 0.05)  # kg m^2
# Servos settle within a control step of 50 ms: 60 rad/s over the inertia that each joint sees, critically damped.
_SERVO_FREQUENCY = 60.0
_SERVO_INERTIA = (1.0, 1.0, 0.6, 0.5, 0.09, 0.08, 0.055)  # kg m^2


def arms() -> str:
    """Bodies of both arms."""
    return "".join(_arm(side, position) for side, position in zip(SIDES, arm.BASES, strict=True))


def servos() -> str:
    """Actuators of both arms: per arm seven joints and two fingers."""
    return "".join(_servos(side) for side in SIDES)


def _arm(side: str, base: np.ndarray) -> str:
    links, closing = "", ""
    for i, (mass, ends, radius) in enumerate(_LINKS):
        position = text_of(base + arm.LINK_POSITIONS[i] if i == 0 else arm.LINK_POSITIONS[i])
        middle = (np.array(ends[:3]) + np.array(ends[3:])) / 2
        inertia = mass * max(0.01, float(np.sum((np.array(ends[:3]) - middle) ** 2)) / 3)
        links += f"""
    <body name="{side}_link{i + 1}" pos="{position}" quat="{text_of(arm.LINK_QUATERNIONS[i])}" gravcomp="1">
      <inertial mass="{mass}" pos="{text_of(middle)}" diaginertia="{inertia} {inertia} {inertia}"/>
      <joint name="{side}_joint{i + 1}" axis="0 0 1" armature="{_ARMATURE[i]}"
             range="{arm.JOINT_LOW[i]} {arm.JOINT_HIGH[i]}"/>
      <geom class="shown" type="capsule" fromto="{text_of(ends)}" size="{radius}"/>"""
        closing += "</body>"
    return links + _hand(side) + closing


def _hand(side: str) -> str:
    fingers = ""
    for name, sign in (("a", 1), ("b", -1)):
        fingers += f"""
      <body name="{side}_finger_{name}" pos="0 0 0.065" gravcomp="1">
        <inertial mass="0.08" pos="0 0 0.025" diaginertia="1e-4 1e-4 1e-4"/>
        <joint name="{side}_finger_{name}" type="slide" axis="0 {sign} 0" range="0 {FINGER_OPEN}" armature="0.15"/>
        <geom class="hand" type="box" size="0.015 0.006 0.026" pos="0 {0.006 * sign} 0.026" rgba="0.95 0.5 0.1 1"/>
      </body>"""
    # The wrist camera sits in front of the hand and looks down and back at what is between the finger tips.
    return f"""
    <body name="{side}_hand" pos="{text_of(arm.HAND_POSITION)}" quat="{text_of(arm.HAND_QUATERNION)}" gravcomp="1">
      <inertial mass="0.4" pos="0 0 0.03" diaginertia="1e-3 1e-3 1e-3"/>
      <geom class="hand" type="box" size="0.03 0.07 0.03" pos="0 0 0.032"/>
      <site name="{side}_grip" pos="0 0 {arm.GRIP_HEIGHT}" size="0.005" rgba="0 0 0 0"/>
      <camera name="{side}_wrist" pos="0.09 0 0.045" xyaxes="0 1 0 0.883 0 0.469" fovy="80"/>
      {fingers}
    </body>"""


def _servos(side: str) -> str:
    text = ""
    for i, inertia in enumerate(_SERVO_INERTIA):
        stiffness = _SERVO_FREQUENCY**2 * inertia
        text += f"""
    <position joint="{side}_joint{i + 1}" kp="{stiffness:g}" kv="{2 * stiffness / _SERVO_FREQUENCY:g}"/>"""
    for name in ("a", "b"):
        text += f"""
    <position joint="{side}_finger_{name}" kp="700" kv="22" forcerange="-40 40"/>"""
    return text


def text_of(values: Sequence[float] | np.ndarray) -> str:
    """Numbers as MJCF writes them."""
    return " ".join(f"{float(value):.9g}" for value in values)
