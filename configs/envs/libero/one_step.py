"""Builds a scene of LIBERO and makes a step, without drawing; numba compiles robosuite's formulas for all processes."""

import ctypes.util
import os
import sys
import types

os.environ["MUJOCO_GL"] = "egl" if ctypes.util.find_library("EGL") else "osmesa"  # robosuite loads one of them
os.environ["LIBERO_CONFIG_PATH"] = os.path.join(sys.prefix, "libero")  # whatever paths another LIBERO has left
sys.modules["robosuite.macros_private"] = types.ModuleType("robosuite.macros_private")

from libero.libero import get_libero_path  # noqa: E402
from libero.libero.envs.env_wrapper import ControlEnv  # noqa: E402

task = f"{get_libero_path('bddl_files')}/libero_goal/turn_on_the_stove.bddl"
environment = ControlEnv(bddl_file_name=task, has_offscreen_renderer=False, use_camera_obs=False, hard_reset=False)
environment.reset()
_, reward, _, _ = environment.step([0, 0, 0.1, 0, 0, 0.1, 1])
assert reward == 0, "the stove was on at the start"
