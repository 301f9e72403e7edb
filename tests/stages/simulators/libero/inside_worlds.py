"""LIBERO as `inside.py` and `inside_field.py` build, drive and read it."""

import functools

import numpy as np

from stages.simulators import interface
from stages.simulators.libero import rendering

rendering.choose = functools.cache(rendering.choose)  # it asks another process, and hears the same each time

SOUP = "pick_up_the_alphabet_soup_and_place_it_in_the_basket"
MILK = "pick_up_the_milk_and_place_it_in_the_basket"
DRAWER = "pick_up_the_black_bowl_in_the_top_drawer_of_the_wooden_cabinet_and_place_it_on_the_plate"
STOVE = "KITCHEN_SCENE3_turn_on_the_stove_and_put_the_moka_pot_on_it"
SIZE = 64
WAITING = [0, 0, 0, 0, 0, 0, -1]


def build(tasks, num_envs=1, **options):
    """LIBERO with small images."""
    return interface.make("libero", num_envs, {"tasks": list(tasks), "image_size": SIZE, **options})


def motions(seed, length):
    """Random motion of the arm with a gripper that opens and closes: float32 [1, length, 7]."""
    stream = np.random.default_rng(seed)
    grip = np.where(np.arange(length) // 7 % 2, -1.0, 1.0)
    return np.concatenate([stream.uniform(-1, 1, (length, 6)), grip[:, None]], axis=1).astype(np.float32)[None]


def numbers(data):
    """Everything that a step leaves behind in MuJoCo's data."""
    return np.concatenate([data.qpos, data.qvel, data.ctrl, data.xpos.ravel(), data.site_xpos.ravel()])


def state(simulator, slot=0):
    """Those numbers of a world."""
    return numbers(simulator._stage.scene(slot).data).copy()


def same(one, other):
    """Whether two observations are equal to the last bit."""
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("head", "wrist", "proprio"))
