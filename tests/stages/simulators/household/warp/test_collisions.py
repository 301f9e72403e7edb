"""Contacts in single precision: a cylinder that stands on the table touches it, and is never found deep inside it."""

import mujoco
import mujoco_warp as mjw
import numpy as np

from stages.simulators.household.warp.batch import COLLISION_TOLERANCE
from stages.simulators.household.warp.device import Device

WORLDS, ROUNDS = 4_000, 8
RADIUS, HALF = 0.025, 0.035
SCENE = f"""
<mujoco>
  <worldbody>
    <geom type="box" size="0.42 0.6 0.02" pos="0.02 0 -0.02"/>
    <body><freejoint/><geom type="cylinder" size="{RADIUS} {HALF}"/></body>
  </worldbody>
</mujoco>"""


def _standing(random):
    """Poses [N, 7] of a can that stands all but upright, a few hundredths of a millimetre deep."""
    poses = np.zeros((WORLDS, 7), np.float32)
    poses[:, :2] = random.uniform(-0.2, 0.2, (WORLDS, 2))
    poses[:, 2] = HALF - random.uniform(1e-5, 4e-5, WORLDS)
    turn = random.uniform(-np.pi, np.pi, WORLDS) / 2
    poses[:, 3], poses[:, 6] = np.cos(turn), np.sin(turn)
    poses[:, 4:6] = random.normal(0, 3e-5, (WORLDS, 2))
    return poses


def test_what_stands_on_the_table_is_not_found_deep_inside_it(compiled):
    described = mujoco.MjModel.from_xml_string(SCENE)
    described.opt.ccd_tolerance = COLLISION_TOLERANCE
    random = np.random.default_rng(1)
    with Device().current(None):
        model, data = mjw.put_model(described), mjw.make_data(described, nworld=WORLDS, nconmax=8, njmax=64)
        model.opt.warn_overflow = 0
        for _ in range(ROUNDS):
            data.qpos.assign(_standing(random))
            mjw.kinematics(model, data)
            mjw.collision(model, data)
            found = data.nacon.numpy()[0]
            touching = np.unique(data.contact.worldid.numpy()[:found])
            assert len(touching) == WORLDS
            assert data.contact.dist.numpy()[:found].min() > -1e-3
