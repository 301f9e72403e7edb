"""What the tests of the expert have done in LIBERO's own interpreter: prints a JSON object of facts.

Not a test itself, because pytest is not installed there.
"""

import json
import pickle

import numpy as np

from stages.simulators import interface
from stages.simulators.interface import HELD_OUT, Episode
from stages.simulators.libero import expert

PUDDING = "pick_up_the_chocolate_pudding_and_place_it_in_the_basket"
DRAWER = "pick_up_the_black_bowl_in_the_top_drawer_of_the_wooden_cabinet_and_place_it_on_the_plate"


def build(task, **options):
    """One world."""
    return interface.make("libero", 1, {"tasks": [task], "image_size": 32, **options})


def run(simulator, task, seed):
    """An episode of the expert."""
    simulator.reset([0], [Episode(task, seed)], [False])
    actions, clean = [], []
    while True:
        chosen, own, result = simulator.expert_chunk([0], 8)
        actions.append(chosen[0][result.executed[0]])
        clean.append(own[0][result.executed[0]])
        if result.terminated[0] or result.truncated[0]:
            break
    actions, clean = np.concatenate(actions), np.concatenate(clean)
    turns = int((np.diff(actions[:, -1]) != 0).sum())
    return {
        "success": bool(result.success[0]),
        "steps": len(actions),
        "largest": float(np.abs(actions).max()),
        "grippers": sorted({float(number) for number in actions[:, -1]}),
        "turns": turns,  # of the gripper
        "perturbed": int((~clean).sum()),
    }


def reading(simulator, task):
    """Whether choosing an action leaves the world and the memory as they were, and gives the same one again."""
    simulator.reset([0], [Episode(task, 5)], [False])
    simulator.expert_chunk([0], 30)
    environment, memory = simulator._stage.scene(0).environment, simulator._worlds[0].memory
    data = environment.sim.data._data

    def everything():
        physics = np.concatenate([data.qpos, data.qvel, data.ctrl, data.xpos.ravel()])
        return physics.tobytes(), pickle.dumps(memory)

    before = everything()
    action, _ = expert.act(environment, memory)
    again, _ = expert.act(environment, pickle.loads(pickle.dumps(memory)))
    return {
        "untouched": everything() == before,
        "repeats": action.tobytes() == again.tobytes(),
    }


def bursts(simulator, task):
    """Actions of the expert with and without random motion."""
    simulator.reset([0], [Episode(task, 6)], [False])
    environment = simulator._stage.scene(0).environment
    action, memory = expert.act(environment, expert.begin())
    never = expert.perturb(action, memory, np.random.default_rng(0), 0.0)
    runs, pushed, own_otherwise = [], 0, True
    stream, length = np.random.default_rng(1), 0
    for _ in range(4000):
        changed, clean, memory = expert.perturb(action, memory, stream, 0.1)
        own_otherwise &= bool(changed[-1] == action[-1]) and clean == bool(np.array_equal(changed, action))
        pushed += not clean
        if clean and length:
            runs.append(length)
        length = 0 if clean else length + 1
    return {
        "never": bool(never[1] and np.array_equal(never[0], action)),
        "share": pushed / 4000,
        "shortest": min(runs),
        "own_otherwise": own_otherwise,
    }


def main():
    """Print the facts."""
    simulator = build(PUDDING)
    facts = {
        "reading": reading(simulator, PUDDING),
        "bursts": bursts(simulator, PUDDING),
        "training": run(simulator, PUDDING, 11),
        "evaluation": run(simulator, PUDDING, HELD_OUT + 11),
    }
    simulator.close()
    simulator = build(DRAWER, expert_perturbation=0.02)
    facts["disturbed"] = run(simulator, DRAWER, 12)
    simulator.close()
    print("facts: " + json.dumps(facts))


if __name__ == "__main__":
    main()
