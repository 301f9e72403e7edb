"""How good and how fast the household's scripted expert is, task by task.

    python -m tests.benchmarks.household_experts [TASK_OR_SUITE ...] [--seeds 100] [--worlds 20]

Every task runs on the same held-out initial states that an evaluation uses. The pace is that of replaying the expert's
actions without images, in steps a second of one processor, which stays true on a busy machine.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from stages.simulators.household import catalogue
from stages.simulators.interface import HELD_OUT, Episode, Simulator, make

CHUNK = 8


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=list(catalogue.suites()), help="tasks and suites, all by default")
    parser.add_argument("--seeds", type=int, default=100, help="held-out initial states a task")
    parser.add_argument("--worlds", type=int, default=20, help="worlds advanced together")
    arguments = parser.parse_args()
    print(f"{'task':44} {'success':>9} {'steps':>7} {'limit':>6} {'steps/s':>8}  failed seeds")
    for task in catalogue.expand(arguments.tasks):
        simulator = make("household", arguments.worlds, {"tasks": [task], "renderer": "raycast", "image_size": 32})
        _report(simulator, task, arguments.seeds)
        simulator.close()


def _report(simulator: Simulator, task: str, seeds: int) -> None:
    solved, steps, failed = 0, [], []
    for first in range(0, seeds, simulator.num_envs):
        numbers = range(first, min(first + simulator.num_envs, seeds))
        episodes = [Episode(task, HELD_OUT + number) for number in numbers]
        success, executed, actions = expert_run(simulator, episodes)
        solved += int(success.sum())
        steps += executed[success].tolist()
        failed += [number for number, good in zip(numbers, success, strict=True) if not good]
    pace = replay_pace(simulator, episodes, actions)
    share = f"{solved}/{seeds}"
    mean = np.mean(steps) if steps else float("nan")
    limit = simulator.spec.max_episode_steps
    print(f"{task:44} {share:>9} {mean:7.1f} {limit:6d} {pace:8.0f}  {' '.join(map(str, failed))}", flush=True)


def expert_run(simulator: Simulator, episodes: list[Episode]) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Success [n] of the expert, steps [n] it took and its actions, chunk by chunk."""
    slots = range(len(episodes))
    simulator.reset(slots, episodes, [False] * len(episodes))
    success, executed, taken = np.zeros(len(episodes), bool), np.zeros(len(episodes), int), []
    while True:
        actions, _, result = simulator.expert_chunk(slots, CHUNK)
        if not result.executed.any():
            return success, executed, taken
        success |= result.success
        executed += result.executed.sum(axis=1)
        taken.append(actions)


def replay_pace(simulator: Simulator, episodes: list[Episode], taken: list[np.ndarray]) -> float:
    """Environment steps a second of one processor, without images."""
    slots = range(len(episodes))
    simulator.reset(slots, episodes, [False] * len(episodes))
    begin, count = time.process_time(), 0
    for actions in taken:
        count += int(simulator.step_chunk(slots, actions).executed.sum())
    return count / (time.process_time() - begin)


if __name__ == "__main__":
    main()
