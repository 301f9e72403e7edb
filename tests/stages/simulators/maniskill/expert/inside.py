"""What the tests have done in ManiSkill's own interpreter: prints a JSON object. Nothing is drawn, which takes long.

Not a test itself, because pytest is not installed there.
"""

import json
import sys

import torch

from stages.simulators import interface
from stages.simulators.interface import HELD_OUT, Episode, SimulatorConfigError
from stages.simulators.maniskill import expert, vulkan
from stages.simulators.maniskill.options import parse
from stages.simulators.maniskill.parallel import Parallel
from stages.simulators.maniskill.worlds import Worlds

CHUNK = 8
PICK = "TwoRobotPickCube-v1"


def options(task, **more):
    return parse({"tasks": [task], "renderer": "cpu", **more})


def together(task, **more):
    """The batched simulator over one world on the CPU."""
    from stages.simulators.maniskill import environment

    chosen = options(task, **more)
    worlds = Worlds(environment.build(task, chosen, DRAWN_BY), task)
    return Parallel(worlds, environment.spec(chosen, "none"), chosen)


def play(simulator, task, seed):
    """Success of the expert, the steps it took, and whether its numbers were in bounds."""
    simulator.reset([0], [Episode(task, seed)], [False])
    steps, bounded = 0, True
    while True:
        actions, _, result = simulator.expert_chunk([0], CHUNK)
        steps += int(result.executed.sum())
        bounded &= bool((abs(actions) <= 1).all())
        if result.terminated[0] or result.truncated[0]:
            return [bool(result.success[0]), steps, bounded]


def experts():
    """Outcomes of every expert, by task."""
    seeds = [HELD_OUT, HELD_OUT + 1]
    outcomes = {}
    for task in sorted(expert.TASKS):
        simulator = together(task)
        outcomes[task] = [simulator.spec.max_episode_steps, [play(simulator, task, seed) for seed in seeds]]
        simulator.close()
    return outcomes


def one_by_one():
    """Whether worlds stepped together and those stepped one by one give the same numbers, bursts of motion included."""
    pair = [
        together(PICK, expert_perturbation=0.2),
        interface.make("maniskill", 1, {"tasks": [PICK], "renderer": "cpu", "expert_perturbation": 0.2}),
    ]
    told = []
    for simulator in pair:
        simulator.reset([0], [Episode(PICK, 5)], [False])
        chunks = [simulator.expert_chunk([0], CHUNK) for _ in range(3)]
        told.append([(a.tolist(), c.tolist(), r.rewards.tolist(), r.executed.tolist()) for a, c, r in chunks])
    return told[0] == told[1]


def one_world():
    """Of `Worlds`: a reset is ManiSkill's own with the seed; how far a world put back is from where it was."""
    simulator = together(PICK)
    worlds = simulator._worlds
    worlds.env.reset(seed=HELD_OUT + 3)
    there = flat(worlds.state())
    worlds.reset(0, 7)
    other = flat(worlds.state())
    worlds.reset(0, HELD_OUT + 3)
    start = worlds.state()
    same, differs = torch.equal(flat(start), there), not torch.equal(other, there)
    simulator.reset([0], [Episode(PICK, HELD_OUT + 3)], [False])
    simulator.expert_chunk([0], CHUNK)
    moved = float((flat(worlds.state()) - there).abs().max())
    worlds.put([0], start)
    return {"same": same, "differs": differs, "moved": moved, "back": float((flat(worlds.state()) - there).abs().max())}


def flat(state):
    return torch.cat([values.flatten() for named in state.values() for values in named.values()])


def refused(attempt):
    try:
        attempt()
    except SimulatorConfigError as error:
        return str(error)
    return None


def refusals():
    simulator = together("PlaceSphere-v1")
    simulator.reset([0], [Episode("PlaceSphere-v1", 0)], [False])
    return {
        "cuda": refused(lambda: interface.make("maniskill", 4, {"backend": "physx_cuda", "renderer": "cpu"})),
        "expert": refused(lambda: simulator.expert_chunk([0], CHUNK)),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    DRAWN_BY, _ = vulkan.prepare("cpu")
    json.dump({each.__name__: each() for each in (experts, one_by_one, one_world, refusals)}, sys.stdout)
