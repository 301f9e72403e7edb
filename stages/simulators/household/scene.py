"""A scene as MJCF text: room, table, robot, cameras, the props and fixtures that tasks ask for.

Only primitive geoms, elliptic cones, implicitfast and position actuators: what MuJoCo Warp supports too.
"""

from __future__ import annotations

from stages.simulators.household import robot
from stages.simulators.household.kit import Scene
from stages.simulators.household.layouts import FLOOR
from stages.simulators.household.props import Drawer, Fixture, Geom, Prop

CAMERAS = ("head", "left_wrist", "right_wrist")


def build(scene: Scene, physics_frequency: int, largest_image: int) -> str:
    """Write a scene.

    Args:
        scene: what stands on the table.
        physics_frequency: physics steps a second.
        largest_image: height and width of the largest image to be drawn, in pixels.

    Returns:
        MJCF text; bodies are named as props, joints as drawers, cameras as in CAMERAS.
    """
    fixtures = "".join(_fixture(fixture) for fixture in scene.fixtures)
    props = "".join(_prop(prop) for prop in scene.props)
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
    <default class="fixed"><geom contype="1" conaffinity="0"/></default>
    <default class="hand">
      <geom contype="2" conaffinity="3" friction="2 0.05 0.001" rgba="0.2 0.2 0.22 1"/>
    </default>
  </default>
  <worldbody>
    <light directional="true" castshadow="false" pos="0 0 2" dir="-0.35 0.3 -0.9" diffuse="0.4 0.4 0.4"
           ambient="0 0 0" specular="0 0 0"/>
    <camera name="head" pos="-0.5 0 0.8" xyaxes="0 -1 0 0.858 0 0.513" fovy="46"/>
    <geom name="floor" type="plane" size="4 4 0.1" pos="0 0 {FLOOR}" conaffinity="0" rgba="0.45 0.47 0.5 1"/>
    <geom name="table" type="box" size="0.42 0.6 0.02" pos="0.02 0 -0.02" conaffinity="0" rgba="0.82 0.72 0.58 1"/>
    <geom class="shown" type="capsule" fromto="-0.62 0 {FLOOR} -0.62 0 0.05" size="0.1"/>
    <geom class="shown" type="capsule" fromto="-0.6 -0.18 0 -0.6 0.18 0" size="0.06"/>
    {robot.arms()}{fixtures}{props}
  </worldbody>
  <actuator>{robot.servos()}</actuator>
</mujoco>"""


def _prop(prop: Prop) -> str:
    geoms = "".join(_geom(geom, "") for geom in prop.geoms)
    return f"""
    <body name="{prop.name}"><freejoint/>{geoms}
    </body>"""


def _fixture(fixture: Fixture) -> str:
    geoms = "".join(_geom(geom, "fixed") for geom in fixture.geoms)
    drawers = "".join(_drawer(drawer) for drawer in fixture.drawers)
    return f"""
    <body name="{fixture.name}" pos="{robot.text_of(fixture.at)}">{geoms}{drawers}
    </body>"""


def _drawer(drawer: Drawer) -> str:
    geoms = "".join(_geom(geom, "fixed") for geom in drawer.geoms)  # a drawer rubs on its joint, not on its fixture
    inertia = drawer.mass * 0.005
    relaxed = -drawer.preload / drawer.spring if drawer.spring else 0.0
    return f"""
      <body name="{drawer.name}">
        <inertial mass="{drawer.mass}" pos="0 0 0" diaginertia="{inertia} {inertia} {inertia}"/>
        <joint name="{drawer.name}" type="slide" axis="{robot.text_of(drawer.axis)}" range="0 {drawer.travel}"
               stiffness="{drawer.spring}" springref="{relaxed}"
               damping="{drawer.damping}" frictionloss="{drawer.friction}"/>{geoms}
      </body>"""


def _geom(geom: Geom, kind: str) -> str:
    shown = kind if geom.solid else "shown"
    kind = f' class="{shown}"' if shown else ""
    rolling = f' condim="6" friction="1 0.01 {geom.rolling}"' if geom.rolling else ""
    return f"""
      <geom{kind} type="{geom.shape}" size="{robot.text_of(geom.size)}" pos="{robot.text_of(geom.at)}"
            quat="{robot.text_of(geom.quat)}" density="{geom.density}" rgba="{geom.colour}"{rolling}/>"""
