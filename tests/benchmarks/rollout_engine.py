"""The rollout engine's figures: steps a second beside gymnasium's AsyncVectorEnv, overlap, and where the time goes.

    python tests/benchmarks/rollout_engine.py [--workers 1] [--worlds 8] [--repeats 5] [--image-size 224] [--task stack]

Every simulator process is pinned to a core of its own. In the comparison this process shares those cores, so that what
a step costs outside its simulator counts as well. For the overlap the policy has a process and a core of its own, as a
GPU would be, and this process the cores that are left: with two cores more than `--workers` nobody shares one.
Contenders take turns; printed are medians.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks import metered

from stages.lineup import Planned
from stages.metrics import Phases
from stages.play import Player, in_order
from stages.policies.interface import Decision, Observation
from stages.policy_actor import PolicyActor
from stages.simulators.household import catalogue
from stages.simulators.interface import Episode
from stages.simulators.pool import SimulatorPool
from stages.simulators.process import ONE_THREAD
from stages.trajectories import EpisodeRecord, ShardAttributes, ShardSpec, ShardWriter

CHUNK = 8
PARTS = ("simulate: reset", "simulate: physics", "simulate: images", "wait for the slowest worker", "policy", "write")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cores = sorted(os.sched_getaffinity(0))
    parser.add_argument("--workers", type=int, default=len(cores) - 1, help="simulator processes")
    parser.add_argument("--worlds", type=int, default=8, help="worlds a process")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--renderer", default="auto")
    parser.add_argument("--task", default="stack")
    parser.add_argument("--episodes", type=int, default=3, help="of the expert, played again by all contenders")
    parser.add_argument("--rounds", type=int, default=2, help="episodes a world plays in a rollout")
    parser.add_argument("--steps", type=int, default=80, help="step limit of a rollout's episode")
    options = parser.parse_args()
    if not 1 <= options.workers < len(cores):
        parser.error(f"--workers {options.workers}: this machine lends {len(cores)} cores, and one more is needed")
    path = filter(None, [*sys.path[:2], os.environ.get("PYTHONPATH")])
    os.environ |= {**ONE_THREAD, "PYTHONPATH": os.pathsep.join(path)}  # for the simulators' processes
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(options, cores, Path(directory))
        bench.compare()
        bench.overlap()


class Bench:
    """Everything that is measured, with one set of options."""

    def __init__(self, options: argparse.Namespace, cores: list[int], directory: Path) -> None:
        self.options, self.directory = options, directory
        self.simulator_cores, self.other_cores = cores[: options.workers], cores[options.workers :]
        self.settings = {"tasks": [options.task], "image_size": options.image_size, "renderer": options.renderer}

    @contextlib.contextmanager
    def pool(self, worlds: int, blind: bool = False, **settings: Any) -> Iterator[SimulatorPool]:
        """A pool of `worlds` worlds a process; the processes, and this one meanwhile, on the simulators' cores."""
        workers = self.options.workers
        settings = {**self.settings, **settings, "blind": blind, "meter": str(self.directory)}
        os.sched_setaffinity(0, self.simulator_cores)
        with SimulatorPool("benchmarks.metered", settings, worlds * workers, workers) as pool:
            pin(pool.pids, self.simulator_cores)
            yield pool

    def compare(self) -> None:
        """Print steps a second and core: pools, which draw once a chunk, and AsyncVectorEnv, which draws every step."""
        worlds, workers = self.options.worlds, self.options.workers
        with contextlib.ExitStack() as stack:
            one = stack.enter_context(self.pool(1))
            many = stack.enter_context(self.pool(worlds))
            blind = stack.enter_context(self.pool(worlds, blind=True))
            vector = stack.enter_context(contextlib.closing(self.vector()))
            spec = one.spec
            print(
                f"{spec.version}, {spec.renderer}, task {self.options.task}, 3 cameras of {self.options.image_size}, "
                f"chunks of {CHUNK}, {workers} simulator processes, this process on the same cores"
            )
            scripts = recorded(one, self.options.task, self.options.episodes)
            contenders: dict[str, Callable[[], float]] = {
                "AsyncVectorEnv, images every step": lambda: through_gymnasium(vector, scripts),
                "pool, 1 world a process": lambda: through_pool(one, self.options.task, scripts),
                f"pool, {worlds} worlds a process": lambda: through_pool(many, self.options.task, scripts),
                f"pool, {worlds} worlds a process, no images": lambda: through_pool(blind, self.options.task, scripts),
            }
            speeds = {name: speed / workers for name, speed in self.medians(contenders).items()}
        baseline = next(iter(speeds.values()))
        print(f"\n{'env steps a second and core':42} {'median':>8} {'ratio':>7}")
        for name, speed in speeds.items():
            print(f"{name:42} {speed:8.0f} {speed / baseline:6.1f}x")

    def vector(self) -> gymnasium.vector.AsyncVectorEnv:
        """As many environments as there are processes, at their best: checker off, observations not copied again."""
        entry = catalogue.entries()[self.options.task]
        settings = {name: value for name, value in self.settings.items() if name != "tasks"}
        vector: Any = gymnasium.make_vec(
            f"stages.simulators.household.gym:household/{entry.suite.capitalize()}-{entry.index}-v0",
            num_envs=self.options.workers,
            vectorization_mode="async",
            # Not forked: this process has threads and sockets of its own.
            vector_kwargs={"copy": False, "context": "spawn"},
            disable_env_checker=True,
            **settings,
        )
        pin([process.pid for process in vector.processes], self.simulator_cores)
        return vector

    def overlap(self) -> None:
        """Print how far policy and simulators work at the same time, and where the time of a rollout goes."""
        options = self.options
        with contextlib.ExitStack() as stack:
            pool = stack.enter_context(self.pool(options.worlds, max_episode_steps=options.steps))
            *stage_cores, policy_core = self.other_cores
            os.sched_setaffinity(0, stage_cores or [policy_core])
            core = stack.enter_context(burning(policy_core))
            idle = StandIn(core, 0.0, pool, self.directory)
            self.roll(pool, idle, 1)  # warms up
            alone = self.roll(pool, idle, 1)
            busy = StandIn(core, alone.seconds / sum(idle.batches), pool, self.directory)
            rolls: dict[str, list[Roll]] = {}
            runs: dict[str, Callable[[], Roll]] = {
                "simulators alone": lambda: self.roll(pool, idle, 1),
                "pipeline_stage_num 1": lambda: self.roll(pool, busy, 1),
                "pipeline_stage_num 2": lambda: self.roll(pool, busy, 2),
            }
            floors = []
            for _ in range(options.repeats):
                for name, run in runs.items():
                    rolls.setdefault(name, []).append(run())
                floors.append(busy.alone())
        print(f"\n{pool.num_envs} worlds, {options.rounds} episodes of {options.steps} steps each, shards written")
        print(f"{'wall time of a rollout, s':30} {'median':>8}")
        walls = {name: statistics.median(roll.seconds for roll in found) for name, found in rolls.items()}
        for name, wall in {**walls, "policy alone": statistics.median(floors)}.items():
            print(f"{name:30} {wall:8.2f}")
        one, two = walls["pipeline_stage_num 1"], walls["pipeline_stage_num 2"]
        print(f"{'2 over 1':30} {two / one:8.2f}\n")
        found = rolls["pipeline_stage_num 1"]
        print(f"{'pipeline_stage_num 1, a decision':34} {'ms':>8} {'share':>8}")
        parts = np.median([roll.parts / roll.decisions for roll in found], axis=0)
        total = statistics.median(roll.seconds / roll.decisions for roll in found)
        rest = statistics.median((roll.seconds - roll.parts.sum()) / roll.decisions for roll in found)
        for name, seconds in [*zip(PARTS, parts, strict=True), ("transport and bookkeeping", rest)]:
            print(f"{name:34} {1e3 * seconds:8.3f} {seconds / total:8.1%}")
        outside = statistics.median(1 - roll.parts[:5].sum() / roll.seconds for roll in found)
        print(f"{'outside simulator and policy':34} {1e3 * total * outside:8.3f} {outside:8.1%}")

    def roll(self, pool: SimulatorPool, policy: StandIn, groups: int) -> Roll:
        """Play a plan and write its shard, as the rollout stage does."""
        count = pool.num_envs * self.options.rounds
        plan = [Planned(i, self.options.task, i, i, np.random.default_rng(i)) for i in range(count)]
        phases = Phases()
        player = Player(
            pool,
            PolicyActor(pool, policy, temperature=1.0, coherent=False, phases=phases),  # type: ignore[arg-type]
            groups=groups,
            phases=phases,
        )
        spec = ShardSpec("tokens", pool.spec.image_size, pool.spec.proprio_dim, CHUNK, pool.spec.action_dim)
        task = pool.spec.tasks[0]
        origin = ShardAttributes("benchmark", 1, 0, 0, "household", "", "", (task.name,), (task.instruction,), "train")
        with tempfile.TemporaryDirectory() as directory:
            policy.start()
            decisions, begin = 0, time.perf_counter()
            with ShardWriter(Path(directory) / "shard", spec, origin) as writer:
                for played in in_order(plan, player.play(plan)):
                    with phases("write"):
                        writer.append(record(played))
                    decisions += played.decisions
                    played.forget_images()
                with phases("write"):
                    writer.close()
            seconds = time.perf_counter() - begin
        return Roll(seconds, decisions, np.array([*policy.simulated(), policy.seconds, phases.seconds["write"]]))

    def medians(self, contenders: dict[str, Callable[[], float]]) -> dict[str, float]:
        """Let the contenders take turns, after one round to warm up."""
        rounds = [{name: run() for name, run in contenders.items()} for _ in range(self.options.repeats + 1)]
        return {name: statistics.median(found[name] for found in rounds[1:]) for name in contenders}


@dataclasses.dataclass
class Roll:
    """A rollout: its seconds on the clock, its decisions, and the seconds of PARTS on the critical path."""

    seconds: float
    decisions: int
    parts: np.ndarray


class StandIn:
    """A policy that does nothing but burn time on a core of its own, `cost` seconds a world, and moves at random."""

    device = torch.device("cpu")

    def __init__(self, core: Connection, cost: float, pool: SimulatorPool, meter: Path) -> None:
        self._core, self._cost, self._pool, self._meter = core, cost, pool, meter
        self._shape = (CHUNK, pool.spec.action_dim)

    def start(self) -> None:
        """Forget what was measured."""
        self.seconds = 0.0
        self.batches: list[int] = []
        self._last = metered.read(self._meter, self._pool.pids)
        self._critical = np.zeros(len(metered.PARTS) + 1)

    def draw_noise(self, rng: np.random.Generator, coherent: bool) -> np.ndarray:
        return rng.uniform(-1, 1, self._shape).astype(np.float32)

    def act(self, observation: Observation, noise: torch.Tensor | None, temperature: float) -> Decision:
        self._mark()
        begin = time.perf_counter()
        rows = len(observation)
        self.batches.append(rows)
        self._burn(rows)
        zeros = torch.zeros(rows, *self._shape)
        decision = Decision(zeros if noise is None else noise, {"tokens": zeros.long()}, zeros, torch.zeros(rows))
        self.seconds += time.perf_counter() - begin
        return decision

    def simulated(self) -> np.ndarray:
        """Seconds of metered.PARTS on average over the workers, and those spent waiting for the slowest one."""
        self._mark()
        return self._critical

    def alone(self) -> float:
        """Seconds that the decisions of the last rollout take by themselves."""
        begin = time.perf_counter()
        for rows in self.batches:
            self._burn(rows)
        return time.perf_counter() - begin

    def _burn(self, rows: int) -> None:
        self._core.send(self._cost * rows)
        self._core.recv()

    def _mark(self) -> None:
        """Note what the simulators did since the last decision: they work in lock step with it."""
        after = metered.read(self._meter, self._pool.pids)
        done = after - self._last
        self._last = after
        mean = done.mean(axis=0)
        self._critical += [*mean, done.sum(axis=1).max() - mean.sum()]


@contextlib.contextmanager
def burning(core: int) -> Iterator[Connection]:
    """A process on a core of its own that uses up as many seconds of it as it is sent, and then answers."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=burn, args=(theirs, core), daemon=True)
    process.start()
    try:
        yield ours
    finally:
        process.kill()
        process.join()


def burn(line: Connection, core: int) -> None:
    """What the policy's process does."""
    os.sched_setaffinity(0, [core])
    while True:
        end = time.process_time() + line.recv()
        while time.process_time() < end:
            pass
        line.send(None)


def pin(pids: Sequence[int], cores: Sequence[int]) -> None:
    """Give each process a core, with all the threads that it has and will have."""
    for pid, core in zip(pids, cores, strict=True):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), [core])


def recorded(pool: SimulatorPool, task: str, count: int) -> list[np.ndarray]:
    """The expert's actions [T, A] on the first `count` training states, T steps until it is done."""
    scripts = []
    for seed in range(count):
        pool.reset([0], [Episode(task, seed)])
        parts, over = [], False
        while not over:
            acted = pool.expert([0], CHUNK)
            parts.append(acted.actions[0][acted.result.executed[0]])
            over = bool(acted.result.terminated[0] or acted.result.truncated[0])
        scripts.append(np.concatenate(parts))
    return scripts


def through_pool(pool: SimulatorPool, task: str, scripts: list[np.ndarray]) -> float:
    """Steps a second of all worlds that play the scripts one after another, looked at once a chunk."""
    slots, steps, begin = range(pool.num_envs), 0, time.perf_counter()
    for seed, script in enumerate(scripts):
        pool.reset(slots, [Episode(task, seed)] * len(slots))
        padded = np.zeros((-(-len(script) // CHUNK) * CHUNK, script.shape[1]), np.float32)
        padded[: len(script)] = script
        for chunk in padded.reshape(-1, CHUNK, script.shape[1]):
            stepped = pool.step(slots, np.broadcast_to(chunk, (len(slots), *chunk.shape)))
            steps += int(stepped.result.executed.sum())
        assert (stepped.result.terminated | stepped.result.truncated).all(), "a replay went another way"
    assert steps == len(slots) * sum(map(len, scripts)), "a replay went another way"
    return steps / (time.perf_counter() - begin)


def through_gymnasium(vector: gymnasium.vector.AsyncVectorEnv, scripts: list[np.ndarray]) -> float:
    """Steps a second of all environments that play the same."""
    steps, begin = 0, time.perf_counter()
    for seed, script in enumerate(scripts):
        vector.reset(options={"index": seed})
        for action in script:
            _, _, terminated, truncated, _ = vector.step(np.broadcast_to(action, (vector.num_envs, len(action))))
            steps += vector.num_envs
        assert (terminated | truncated).all(), "a replay went another way"
    return steps / (time.perf_counter() - begin)


def record(played: Any) -> EpisodeRecord:
    """An episode as the shard takes it; `stages.rollout`'s own needs a whole unit of work around it."""
    names = ("success", "terminated", "truncated", "bootstrap_value", "head", "wrist", "proprio", "rewards", "executed")
    planned = played.planned
    shown = {name: getattr(played, name) for name in names}
    return EpisodeRecord(task=planned.task, seed=planned.seed, group=planned.group, **shown, **played.acted)


if __name__ == "__main__":
    main()
