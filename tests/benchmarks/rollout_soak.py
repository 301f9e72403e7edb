"""Whether memory stays flat: `python tests/benchmarks/rollout_soak.py 60`, a line a minute and the slopes at the end.

The household plays episodes of random actions in a pool, as a rollout does without a policy and a shard. Resident
memory is that of the stage and of each worker, the least within a minute, since episodes in flight come and go; what
they share for arrays counts in both.
"""

from __future__ import annotations

import argparse
import itertools
import math
import mmap
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from stages.lineup import Planned
from stages.metrics import Phases
from stages.play import Player, Sent
from stages.simulators.interface import Observation
from stages.simulators.pool import SimulatorPool, Start

CHUNK = 8
ROUND = 64  # episodes a plan
MB = 1 << 20


class Whim:
    """Draws actions at random."""

    def __init__(self, pool: SimulatorPool) -> None:
        """Act in `pool`."""
        self._pool = pool
        self._random = np.random.default_rng(0)

    def act(
        self,
        slots: Sequence[int],
        seen: Observation,
        planned: Sequence[Planned],
        then: Sequence[Start | None],
    ) -> Sent:
        """See Actor.act."""
        actions = self._random.uniform(-1, 1, (len(slots), CHUNK, self._pool.spec.action_dim)).astype(np.float32)
        return Sent(self._pool.step_async(slots, actions, then), lambda _: {"actions": actions})

    def judge(self, seen: Observation, planned: Sequence[Planned]) -> list[float]:
        """See Actor.judge."""
        return [0.0] * len(planned)


def resident(pid: int | str) -> float:
    """The memory that a process holds, in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * mmap.PAGESIZE / MB


def play(pool: SimulatorPool) -> Iterator[int]:
    """Play plans without end; yields the steps of each episode."""
    player = Player(pool, Whim(pool), groups=2, phases=Phases())
    tasks = [task.name for task in pool.spec.tasks]
    for begin in itertools.count(0, ROUND):
        plan = [
            Planned(index, tasks[index % len(tasks)], seed=index, group=index, noise=None)
            for index in range(begin, begin + ROUND)
        ]
        yield from (played.steps for played in player.play(plan))


def main() -> None:
    """Play for the asked time and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("minutes", type=float)
    parser.add_argument("--envs", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--tasks", nargs="+", help="default: the simulator's own")
    parser.add_argument("--recycle", type=int, help="episodes after which a worker is replaced; default: never")
    options = parser.parse_args()
    settings = {"image_size": options.image_size} | ({"tasks": options.tasks} if options.tasks else {})
    with SimulatorPool("household", settings, options.envs, options.workers, recycle_episodes=options.recycle) as pool:
        begun = time.monotonic()
        lines: list[list[float]] = []
        print(f"{'minutes':>8} {'episodes':>9} {'steps/s':>8} {'stage MB':>9} {'workers MB':>11}", flush=True)
        steps, held = 0, [math.inf] * (1 + options.workers)
        for episodes, taken in enumerate(play(pool), start=1):
            steps += taken
            minutes = (time.monotonic() - begun) / 60
            held = [min(least, resident(pid)) for least, pid in zip(held, ["self", *pool.pids], strict=True)]
            if minutes >= len(lines) + 1 or minutes >= options.minutes:
                lines.append([minutes, *held])
                workers = " ".join(f"{each:.1f}" for each in held[1:])
                print(
                    f"{minutes:8.2f} {episodes:9} {steps / minutes / 60:8.0f} {held[0]:9.1f} {workers:>11}", flush=True
                )
            if minutes >= options.minutes:
                break
        table = np.array(lines)
        late = table[len(table) // 3 :]  # after the first third nothing is loaded for the first time
        if len(late) > 1:
            slopes = np.polyfit(late[:, 0], late[:, 1:], 1)[0]
            told = ", ".join(f"{slope * 60:+.1f}" for slope in slopes)
            print(f"MB an hour since minute {late[0, 0]:.0f}, stage and workers: {told}; restarts {pool.restarts}")


if __name__ == "__main__":
    main()
