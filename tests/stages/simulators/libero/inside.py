"""What the tests have done in LIBERO's own interpreter: `python inside.py NAME...` prints a JSON object by name.

Not a test itself, because pytest is not installed there.
"""

import contextlib
import dataclasses
import functools
import json
import pickle
import sys
from pathlib import Path

import numpy as np
from inside_field import field_with_furniture, field_with_pictures, own_tasks  # noqa: F401
from inside_worlds import MILK, SOUP, STOVE, WAITING, build, motions, same, state

from stages.simulators.interface import HELD_OUT, Episode, SimulatorConfigError


@functools.cache
def unsettled_worlds():
    """Two worlds that begin before anything has come to rest."""
    return build([SOUP], num_envs=2, settling_steps=0)


def digests():
    """Numbers of episodes, for comparison with another process that has done other things before."""
    simulator = build([SOUP])
    told = []
    for seed in (11, HELD_OUT + 4, 12):
        simulator.reset([0], [Episode(SOUP, seed)], [False])
        simulator.step_chunk([0], motions(seed % 1000, 6))
        told.append(state(simulator).tolist())
    simulator.close()
    return told


def starts():
    """Which states episodes begin in."""
    simulator = unsettled_worlds()
    scene = simulator._stage.enter(0, simulator._entries[SOUP])
    file = scene._states[:, 1 : 1 + scene.model.nq]

    def begin(seed):
        simulator.reset([0], [Episode(SOUP, seed)], [False])
        return simulator._stage.scene(0).data.qpos.copy()

    trained = [begin(seed) for seed in range(8)]
    told = {
        "evaluation": [bool(np.array_equal(begin(HELD_OUT + i), file[i % 50])) for i in (0, 7, 49, 57)],
        "nearest": min(float(np.abs(file - one).max(axis=1).min()) for one in trained),
        "apart": min(float(np.abs(a - b).max()) for i, a in enumerate(trained) for b in trained[:i]),
        "again": bool(np.array_equal(begin(3), trained[3])),
    }
    return told


def worlds():
    """Two worlds of a task in turns, each as if it were alone, and put back to where they were saved."""
    alone, both = build([SOUP]), build([SOUP], num_envs=2)
    episodes = [Episode(SOUP, 1), Episode(SOUP, HELD_OUT + 2)]
    both.reset([0, 1], episodes, [False, False])
    fresh = both.save_state(1)
    saved = []
    for part in range(3):
        both.step_chunk([1, 0], np.concatenate([motions(part + 10, 5), motions(part, 5)]))
        saved.append(both.save_state(0))
    told = {}
    for slot, episode in enumerate(episodes):
        alone.reset([0], [episode], [False])
        for part in range(3):
            alone.step_chunk([0], motions(part + 10 * slot, 5))
        told[f"world {slot} as alone"] = bool(np.array_equal(state(alone), state(both, slot)))
    seen = both.observe([0])
    for part in (1, 2):
        alone.restore_state(0, saved[part])
    told["seen in another simulator"] = same(alone.observe([0]), seen)
    alone.restore_state(0, saved[0])
    for part in (1, 2):
        alone.step_chunk([0], motions(part, 5))
    told["goes on in another simulator"] = bool(np.array_equal(state(alone), state(both, 0)))
    both.restore_state(0, fresh)
    for part in range(3):
        both.step_chunk([0], motions(part + 10, 5))
    told["from the start in another world"] = bool(np.array_equal(state(both, 0), state(both, 1)))
    told["steps"] = both._worlds[0].steps
    both.close()
    alone.close()
    return told


def unsettled():
    """A world saved before anything has moved."""
    simulator = unsettled_worlds()
    simulator.reset([0], [Episode(SOUP, HELD_OUT + 1)], [False])
    saved = simulator.save_state(0)
    simulator.step_chunk([0], motions(0, 4))
    reached = state(simulator)
    simulator.reset([1], [Episode(SOUP, 5)], [False])
    simulator.restore_state(0, saved)
    simulator.step_chunk([0], motions(0, 4))
    return bool(np.array_equal(state(simulator), reached))


def endings():
    """How episodes end, and what a filmed one shows."""
    simulator = build([SOUP], max_episode_steps=5, rendering_frequency=10)
    told = {}

    def outcome(result):
        return {
            "executed": int(result.executed.sum()),
            "reward": float(result.rewards.sum()),
            "last": float(result.rewards[0, int(result.executed.sum()) - 1]) if result.executed.any() else None,
            **{name: bool(getattr(result, name)[0]) for name in ("success", "terminated", "truncated")},
        }

    simulator.reset([0], [Episode(SOUP, 1)], [True])
    result = simulator.step_chunk([0], motions(0, 8))
    frames = result.frames[0]
    told["limit"] = outcome(result)
    told["frames"] = [list(frame.shape) for frame in frames]
    told["repeated"] = [bool(np.array_equal(a, b)) for a, b in zip(frames, frames[1:], strict=False)]
    told["below the wrist"] = int(frames[0][224:, :224].max())
    told["wrist"], told["head"] = (float(part.std()) for part in (frames[0][:224, :224], frames[0][:, 224:]))
    told["after the end"] = outcome(simulator.step_chunk([0], motions(0, 8)))

    simulator.reset([0], [Episode(SOUP, 2)], [False])
    data = simulator._stage.scene(0).environment.sim.data
    basket = data.get_joint_qpos("basket_1_joint0")
    data.set_joint_qpos("alphabet_soup_1_joint0", np.array([*(basket[:3] + [0, 0, 0.1]), 1, 0, 0, 0]))
    told["success"] = outcome(simulator.step_chunk([0], np.array([[WAITING] * 8], dtype=np.float32)))

    simulator.reset([0], [Episode(SOUP, 3)], [False])
    simulator._stage.scene(0).data.qvel[0] = np.nan
    told["broken"] = outcome(simulator.step_chunk([0], motions(0, 8)))
    simulator.reset([0], [Episode(SOUP, 3)], [False])
    told["next"] = outcome(simulator.step_chunk([0], motions(0, 3)))
    simulator.close()
    return told


def gripper():
    """The same motion in both conventions."""
    reached, simulator = [], build([SOUP])
    for convention, closed, opened in (("robosuite", 1.0, -1.0), ("openvla", 0.0, 1.0)):
        simulator._options = dataclasses.replace(simulator._options, gripper=convention)
        simulator.reset([0], [Episode(SOUP, 1)], [False])
        widths = []
        for grip in (closed, opened):
            simulator.step_chunk([0], np.array([[[0, 0, 0, 0, 0, 0, grip]] * 8], dtype=np.float32))
            fingers = simulator._stage.scene(0).proprioception()[-2:]
            widths.append(float(fingers[0] - fingers[1]))
        actions, _, _ = simulator.expert_chunk([0], 2)
        reached.append({"widths": widths, "state": state(simulator).tolist(), "grip": actions[0, :, -1].tolist()})
    simulator.close()
    return reached


def expert():
    """What the expert writes down is what was carried out."""
    simulator = build([SOUP], expert_perturbation=0.3)
    simulator.reset([0], [Episode(SOUP, 1)], [False])
    begun = simulator.save_state(0)
    actions, clean, result = simulator.expert_chunk([0], 20)
    reached = state(simulator)
    simulator.restore_state(0, begun)
    again, _, _ = simulator.expert_chunk([0], 20)
    simulator.restore_state(0, begun)
    simulator.step_chunk([0], actions)
    told = {
        "replayed": bool(np.array_equal(state(simulator), reached)),
        "again": bool(np.array_equal(actions, again)),
        "clean": int(clean.sum()),
        "executed": int(result.executed.sum()),
        "furthest": float(np.abs(actions).max()),
        "type": str(actions.dtype),
    }
    simulator.close()
    return told


def scenes():
    """Which scenes are in memory while worlds go from task to task."""
    simulator = build([SOUP, MILK, STOVE], num_envs=2, kept_scenes=1, settling_steps=1)
    told = []
    for slot, task in ((0, SOUP), (1, SOUP), (0, MILK), (1, MILK), (0, STOVE), (1, STOVE)):
        simulator.reset([slot], [Episode(task, slot)], [False])
        told.append(len(simulator._stage._scenes))
    proprio = simulator.observe([0, 1]).proprio
    limit = simulator.spec.max_episode_steps
    with contextlib.suppress(ValueError):
        simulator.close()
    return {"scenes": told, "shape": list(proprio.shape), "limit": limit}


def canvases():
    """What OpenGL holds for two tasks among the same things."""
    tasks = ["turn_on_the_stove", "put_the_bowl_on_the_plate"]
    both, alone = build(tasks, num_envs=2, kept_scenes=1), build(tasks[1:])
    for slot, task in enumerate(tasks):
        both.reset([slot], [Episode(task, 7)], [False])
    alone.reset([0], [Episode(tasks[1], 7)], [False])
    both.observe([0])
    seen = both.observe([1])
    told = {"scenes": len(both._stage._scenes), "canvases": len(both._stage._canvases)}
    told["as alone"] = same(seen, alone.observe([0]))
    both.reset([0], [Episode(tasks[1], 8)], [False])
    told["scenes later"], told["canvases later"] = len(both._stage._scenes), len(both._stage._canvases)
    told["still"] = same(seen, both.observe([1]))
    both._options = dataclasses.replace(both._options, wrist_cameras=0)
    blind, frame = both.observe([1]), both.frame(1)
    told["without the wrist"] = [list(blind.wrist.shape), bool(np.array_equal(blind.head, seen.head))]
    told["beside the head"] = [
        int(frame[:, :112].max()),
        int(frame[:, 560:].max()),
        int(frame[:, 112:560].min(0).max()),
    ]
    both.reset([0, 1], [Episode(tasks[0], 8)] * 2, [False] * 2)
    told["scenes at last"], told["canvases at last"] = len(both._stage._scenes), len(both._stage._canvases)
    both.close()
    alone.close()
    return told


def strangers():
    """Images of two tasks among different things, drawn in turns."""
    tasks = [SOUP, "turn_on_the_stove"]
    both = build(tasks, num_envs=2)
    both.reset([0, 1], [Episode(task, 7) for task in tasks], [False, False])
    seen = [both.observe([slot]) for slot in (0, 1, 0, 1)]
    told = {"canvases": len(both._stage._canvases), "as alone": []}
    frames = [both.frame(slot) for slot in (0, 1)]
    both.close()
    for slot, task in enumerate(tasks):
        alone = build([task])
        alone.reset([0], [Episode(task, 7)], [False])
        by_itself = alone.observe([0])
        told["as alone"] += [same(each, by_itself) for each in seen[slot::2]]
        told["as alone"].append(bool(np.array_equal(frames[slot], alone.frame(0))))
        alone.close()
    return told


def growth():
    """MB more a reset, once what is opened at first is open."""
    simulator = unsettled_worlds()

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

    for seed in range(70):
        if seed == 20:
            begin = resident()
        simulator.reset([0], [Episode(SOUP, seed if seed % 2 else HELD_OUT + seed)], [False])
        simulator.step_chunk([0], motions(seed, 1))
    return (resident() - begin) / 50


def refusals():
    """What is said to who asks for what is not here."""
    simulator = build([SOUP])
    said = {}
    for name, ask in (
        ("task", lambda: simulator.reset([0], [Episode(MILK, 0)], [False])),
        ("never reset", lambda: simulator.observe([0])),
        ("shape", lambda: simulator.step_chunk([0], np.zeros((1, 3, 6), np.float32))),
        ("number", lambda: simulator.step_chunk([0], np.full((1, 3, 7), np.nan, np.float32))),
        ("device", lambda: build([SOUP], renderer="egl", egl_device=9)),
        ("worlds", lambda: build([SOUP], num_envs=0)),
    ):
        try:
            ask()
        except (SimulatorConfigError, ValueError) as error:
            said[name] = f"{type(error).__name__}: {error}"
    simulator.close()
    return said


def spec():
    """What the simulator tells of itself."""
    simulator = build(["libero_object"])
    told = simulator.spec
    simulator.close()
    pickle.dumps(told)
    return {
        "version": told.version,
        "renderer": told.renderer,
        "tasks": len(told.tasks),
        "instruction": told.tasks[0].instruction,
        "blind": build([SOUP], wrist_cameras=0).spec.wrist_cameras,
        "numbers": [told.action_dim, told.proprio_dim, told.wrist_cameras, told.max_episode_steps, *told.image_size],
    }


if __name__ == "__main__":
    print("facts: " + json.dumps({name: globals()[name]() for name in sys.argv[1:]}))
