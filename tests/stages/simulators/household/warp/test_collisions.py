"""Contacts in single precision: what stands on the table touches it, and is never found deep inside it."""

import mujoco
import mujoco_warp as mjw
import numpy as np
import pytest

from stages.simulators.household.warp.batch import adapted
from stages.simulators.household.warp.device import Device

WORLDS, ROUNDS = 4_000, 8
HALF = 0.035  # of their heights
SHAPES = {"cylinder": f"0.025 {HALF}", "box": f"0.02 0.03 {HALF}"}
SCENE = """
<mujoco>
  <worldbody>
    <geom type="box" size="0.42 0.6 0.02" pos="0.02 0 -0.02"/>
    <body><freejoint/><geom type="{shape}" size="{size}"/></body>
  </worldbody>
</mujoco>"""


def _standing(random):
    """Poses [N, 7] of something that stands all but upright, a few hundredths of a millimetre deep."""
    poses = np.zeros((WORLDS, 7), np.float32)
    poses[:, :2] = random.uniform(-0.2, 0.2, (WORLDS, 2))
    poses[:, 2] = HALF - random.uniform(1e-5, 4e-5, WORLDS)
    turn = random.uniform(-np.pi, np.pi, WORLDS) / 2
    poses[:, 3], poses[:, 6] = np.cos(turn), np.sin(turn)
    poses[:, 4:6] = random.normal(0, 3e-5, (WORLDS, 2))
    return poses


@pytest.mark.parametrize("shape", SHAPES)
def test_what_stands_on_the_table_is_not_found_deep_inside_it(compiled, shape):
    described = adapted(mujoco.MjModel.from_xml_string(SCENE.format(shape=shape, size=SHAPES[shape])))
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
            assert shape != "box" or found == 4 * WORLDS
            assert data.contact.dist.numpy()[:found].min() > -1e-3
