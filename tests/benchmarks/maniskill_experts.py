"""How good and how fast ManiSkill's scripted experts are, task by task; run by ManiSkill's interpreter.

    ~/.local/share/baton/envs/maniskill/bin/python -m tests.benchmarks.maniskill_experts [TASK ...] [--seeds 100]
    ... --backend physx_cuda --worlds 256      # all together on a GPU

Every task runs on the held-out initial states that an evaluation uses. In brackets 95 % Wilson intervals (Wilson 1927).
The pace is that of playing without images, resets and expert included, in steps a second.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np

from stages.simulators.interface import HELD_OUT, Episode, Simulator, make
from stages.simulators.maniskill import expert

CHUNK = 8
Z = 1.959964  # of a standard normal variable, two-sided 95 %


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", help="names of tasks, by default all that have an expert")
    parser.add_argument("--seeds", type=int, default=100, help="held-out initial states a task")
    parser.add_argument("--backend", default="physx_cpu", help="physx_cpu or physx_cuda")
    parser.add_argument("--worlds", type=int, default=1, help="worlds advanced together")
    parser.add_argument("--perturbation", type=float, default=0.0, help="probability that a burst of motion starts")
    arguments = parser.parse_args()
    print(
        f"{'task':22} {'success':>9} {'interval':>12} {'steps':>6} {'longest':>8} {'limit':>6} {'steps/s':>8}  failed"
    )
    for task in arguments.tasks or sorted(expert.TASKS):
        options = {"tasks": [task], "backend": arguments.backend, "expert_perturbation": arguments.perturbation}
        simulator = make("maniskill", arguments.worlds, {**options, "image_size": 32})
        report(simulator, task, arguments.seeds)
        simulator.close()


def report(simulator: Simulator, task: str, seeds: int) -> None:
    """Play a task from its held-out states and print its line."""
    steps, failed, total, begin = [], [], 0, time.perf_counter()
    for first in range(0, seeds, simulator.num_envs):
        numbers = np.arange(first, min(first + simulator.num_envs, seeds))
        success, taken = play(simulator, [Episode(task, HELD_OUT + int(number)) for number in numbers])
        total += int(taken.sum())
        steps += taken[success].tolist()
        failed += numbers[~success].tolist()
    pace = total / (time.perf_counter() - begin)
    low, high = wilson(len(steps), seeds)
    mean, longest = (np.mean(steps), max(steps)) if steps else (math.nan, 0)
    share, interval = f"{len(steps)}/{seeds}", f"[{100 * low:.0f}, {100 * high:.0f}] %"
    limit, numbers = simulator.spec.max_episode_steps, " ".join(map(str, failed))
    print(f"{task:22} {share:>9} {interval:>12} {mean:6.1f} {longest:8d} {limit:6d} {pace:8.0f}  {numbers}", flush=True)


def play(simulator: Simulator, episodes: list[Episode]) -> tuple[np.ndarray, np.ndarray]:
    """Success [n] of the expert and the steps [n] it took."""
    slots = range(len(episodes))
    simulator.reset(slots, episodes, [False] * len(episodes))
    success, taken = np.zeros(len(episodes), bool), np.zeros(len(episodes), int)
    while True:
        _, _, result = simulator.expert_chunk(slots, CHUNK)
        if not result.executed.any():
            return success, taken
        success |= result.success
        taken += result.executed.sum(axis=1)


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % score interval of a share."""
    share, spread = successes / trials, Z * Z / trials
    middle = share + spread / 2
    half = Z * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    return (middle - half) / (1 + spread), (middle + half) / (1 + spread)


if __name__ == "__main__":
    main()
