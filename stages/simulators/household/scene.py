"""The household as MJCF text: a table, a two-armed robot, three cameras, cubes and a plate.

Only primitive geoms, elliptic cones, implicitfast and position actuators: what MuJoCo Warp supports too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stages.simulators.household import arm
from stages.simulators.household.controller import FINGER_OPEN

SIDES = ("left", "right")
CAMERAS = ("head", "left_wrist", "right_wrist")

# Arms at rest: hands over the table's near corners, pointing down, out of the head camera's way.
HOME_JOINTS = np.array(
    [
        [0.1634, -0.14782, 0.04871, -2.60592, 0.01136, 2.45824, 0.98817],
        [-0.1634, -0.14782, -0.04871, -2.60592, -0.01136, 2.45824, 0.58263],
    ]
)

# The order of the cubes in the scene: the target, what it is stacked on, then distractors.
CUBE_COLOURS = {
    "red": "0.9 0.08 0.08 1",
    "blue": "0.1 0.2 0.95 1",
    "green": "0.1 0.7 0.15 1",
    "yellow": "0.95 0.8 0.05 1",
    "purple": "0.6 0.1 0.75 1",
}
PLATE_HEIGHT = 0.008
FLOOR = -0.6
_CUBE_DENSITY = 500  # kg/m^3, about that of wood
_PLATE_DENSITY = 2000

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


def build(object_size: float, plate_radius: float, cubes: int, physics_frequency: int, largest_image: int) -> str:
    """Write the scene.

    Args:
        object_size: edge of a cube, in metres.
        plate_radius: in metres.
        cubes: how many cubes, in the order of CUBE_COLOURS.
        physics_frequency: physics steps a second.
        largest_image: height and width of the largest image to be drawn, in pixels.

    Returns:
        MJCF text; bodies are named as in `object_names`, cameras as in CAMERAS.
    """
    arms = "".join(_arm(side, position) for side, position in zip(SIDES, arm.BASES, strict=True))
    servos = "".join(_servos(side) for side in SIDES)
    return f"""
<mujoco model="household">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{1 / physics_frequency:.9g}" integrator="implicitfast" cone="elliptic" impratio="5"
          iterations="30" ls_iterations="20">
    <flag autoreset="disable"/>
  </option>
  <visual>
    <headlight ambient="0.45 0.45 0.45" diffuse="0.2 0.2 0.2" specular="0 0 0"/>
    <quality shadowsize="0" offsamples="0" numslices="16" numstacks="8"/>
    <global offwidth="{largest_image}" offheight="{largest_image}"/>
    <map znear="0.01" zfar="6"/>
  </visual>
  <default>
    <geom condim="4" friction="1 0.01 0.001" solref="0.01 1"/>
    <default class="shown"><geom contype="0" conaffinity="0" rgba="0.85 0.85 0.88 1"/></default>
    <default class="hand">
      <geom contype="2" conaffinity="3" friction="2 0.05 0.001" rgba="0.2 0.2 0.22 1"/>
    </default>
  </default>
  <worldbody>
    <light directional="true" castshadow="false" pos="0 0 2" dir="-0.35 0.3 -0.9" diffuse="0.4 0.4 0.4"
           ambient="0 0 0" specular="0 0 0"/>
    <camera name="head" pos="0.42 0 0.74" xyaxes="0 1 0 -0.8366 0 0.5479" fovy="40"/>
    <geom name="floor" type="plane" size="4 4 0.1" pos="0 0 {FLOOR}" conaffinity="0" rgba="0.45 0.47 0.5 1"/>
    <geom name="table" type="box" size="0.42 0.6 0.02" pos="0.02 0 -0.02" conaffinity="0" rgba="0.82 0.72 0.58 1"/>
    <geom class="shown" type="capsule" fromto="-0.62 0 {FLOOR} -0.62 0 0.05" size="0.1"/>
    <geom class="shown" type="capsule" fromto="-0.6 -0.18 0 -0.6 0.18 0" size="0.06"/>
    {arms}
    {_objects(object_size, plate_radius, cubes)}
  </worldbody>
  <actuator>{servos}</actuator>
</mujoco>"""


def object_names(cubes: int) -> tuple[str, ...]:
    """Names of the free bodies in the order of every object array: the cubes, then the plate."""
    return (*list(CUBE_COLOURS)[:cubes], "plate")


def _objects(object_size: float, plate_radius: float, cubes: int) -> str:
    half = object_size / 2
    text = ""
    for name in object_names(cubes)[:-1]:
        text += f"""
    <body name="{name}"><freejoint/>
      <geom name="{name}" type="box" size="{half} {half} {half}" density="{_CUBE_DENSITY}" rgba="{CUBE_COLOURS[name]}"/>
    </body>"""
    return f"""{text}
    <body name="plate"><freejoint/>
      <geom name="plate" type="cylinder" size="{plate_radius} {PLATE_HEIGHT / 2}" density="{_PLATE_DENSITY}"
            rgba="0.97 0.97 0.97 1"/>
    </body>"""


def _arm(side: str, base: np.ndarray) -> str:
    links, closing = "", ""
    for i, (mass, ends, radius) in enumerate(_LINKS):
        position = _text(base + arm.LINK_POSITIONS[i] if i == 0 else arm.LINK_POSITIONS[i])
        middle = (np.array(ends[:3]) + np.array(ends[3:])) / 2
        inertia = mass * max(0.01, float(np.sum((np.array(ends[:3]) - middle) ** 2)) / 3)
        links += f"""
    <body name="{side}_link{i + 1}" pos="{position}" quat="{_text(arm.LINK_QUATERNIONS[i])}" gravcomp="1">
      <inertial mass="{mass}" pos="{_text(middle)}" diaginertia="{inertia} {inertia} {inertia}"/>
      <joint name="{side}_joint{i + 1}" axis="0 0 1" armature="{_ARMATURE[i]}"
             range="{arm.JOINT_LOW[i]} {arm.JOINT_HIGH[i]}"/>
      <geom class="shown" type="capsule" fromto="{_text(ends)}" size="{radius}"/>"""
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
    <body name="{side}_hand" pos="{_text(arm.HAND_POSITION)}" quat="{_text(arm.HAND_QUATERNION)}" gravcomp="1">
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


def _text(values: Sequence[float] | np.ndarray) -> str:
    return " ".join(f"{float(value):.9g}" for value in values)
