"""How good and how fast LIBERO's scripted expert is, task by task.

    baton env create libero
    ~/.local/share/baton/envs/libero/bin/python -m tests.benchmarks.libero_experts [TASK_OR_SUITE ...] [--states 50]

Every task runs from LIBERO's own initial states, those that an evaluation begins in; `--training` takes as many that
the simulator draws for demonstrations. In brackets stands the 95 % Wilson interval of the success in percent. Steps are
those of the episodes that succeeded; the pace is without images, in steps a second of one processor.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from pipeline.report.wilson import interval
from stages.simulators.interface import HELD_OUT, Episode, Simulator, make
from stages.simulators.libero import catalogue, expert

CHUNK = 8


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "tasks", nargs="*", default=expert.SUITES, help="tasks and suites, all with an expert by default"
    )
    parser.add_argument("--states", type=int, default=50, help="initial states a task")
    parser.add_argument("--training", action="store_true", help="states that the simulator draws, not LIBERO's own")
    parser.add_argument("--perturbation", type=float, default=0.0, help="option expert_perturbation")
    arguments = parser.parse_args()
    first = 0 if arguments.training else HELD_OUT
    print(f"{'task':72} {'success':>20} {'steps':>13} {'steps/s':>8}  failed states")
    solved, count = 0, 0
    for task in catalogue.expand(arguments.tasks):
        options = {"tasks": [task], "image_size": 32, "expert_perturbation": arguments.perturbation}
        simulator = make("libero", 1, options)
        solved += _report(simulator, task, range(first, first + arguments.states))
        count += arguments.states
        simulator.close()
    print(f"{'all':72} {_share(solved, count):>20}")


def _report(simulator: Simulator, task: str, seeds: range) -> int:
    steps, failed, taken, spent = [], [], 0, 0.0
    for seed in seeds:
        simulator.reset([0], [Episode(task, seed)], [False])
        begin = time.process_time()
        success, executed = expert_run(simulator)
        spent += time.process_time() - begin
        taken += executed
        if success:
            steps.append(executed)
        else:
            failed.append(seed - seeds.start)
    length = f"{np.mean(steps):.0f} ({min(steps)}-{max(steps)})" if steps else "-"
    share = _share(len(steps), len(seeds))
    print(f"{task:72} {share:>20} {length:>13} {taken / spent:8.0f}  {' '.join(map(str, failed))}", flush=True)
    return len(steps)


def expert_run(simulator: Simulator) -> tuple[bool, int]:
    """Success of the expert in the only world, and the steps it took."""
    executed = 0
    while True:
        _, _, result = simulator.expert_chunk([0], CHUNK)
        executed += int(result.executed.sum())
        if result.terminated[0] or result.truncated[0]:
            return bool(result.success[0]), executed


def _share(successes: int, episodes: int) -> str:
    low, high = interval(successes, episodes)
    return f"{successes}/{episodes} [{100 * low:.0f}, {100 * high:.0f}]"


if __name__ == "__main__":
    main()
