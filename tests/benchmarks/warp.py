"""A thousand kitchens on one GPU: env-steps a second with images, where the time goes, memory, against CPU cores.

    python tests/benchmarks/warp.py [--recipe configs/household_object_gpu.yaml] [--size 64 --size 224] \\
        [--processes 16] [--only NAME --only ...] [--rounds 2] [--repeats 5] [--json FILE] [key=value ...]

Plays episodes of the recipe's tasks in a pool as the rollout stage does, three images a decision, in as many worlds
and groups as the recipe says: in one process of backend mujoco_warp, whose images stay on the GPU or pass through main
memory, and in processes of backend mujoco. Once hands are moved at random, which takes no time: that is the simulators'
own speed, to where a policy would look. Once a policy of the recipe's sizes, with weights from the seed, decides and a
shard is written. Printed are medians. The first start compiles kernels, which is not counted.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pipeline.compose import compose
from pipeline.config import Config
from stages import usage
from stages.lineup import Planned
from stages.metrics import Phases
from stages.play import Actor, Player, Sent, in_order
from stages.policies import interface as policies
from stages.policies.statistics import Statistics
from stages.policy_actor import PolicyActor
from stages.rollout import record
from stages.sft import described
from stages.simulation import simulator_options
from stages.simulators.interface import Observation
from stages.simulators.pool import SimulatorPool, Start
from stages.trajectories import ShardAttributes, ShardSpec, ShardWriter
from stages.unit import prepare_torch

RECIPE = Path(__file__).parents[2] / "configs" / "household_object_gpu.yaml"
PARTS = ("simulate", "policy", "write")


@dataclasses.dataclass
class Figures:
    """What was measured of a contender at an image size.

    Attributes:
        contender: in words.
        version: of the simulator, with its device.
        renderer: that drew the images.
        image_size: height and width, pixels.
        worlds: how many.
        start_s: seconds until the simulators are up, kernels compiled before.
        memory_mb: megabytes a world: of the GPU where there is one, else of the simulators' processes.
        random_steps: env-steps a second, policy apart.
        policy_steps: the same with a policy and shards.
        shares: of the time with a policy: waiting for simulators, the policy, shards, the rest.
        frames: images a second drawn for decisions, policy apart.
    """

    contender: str
    version: str
    renderer: str
    image_size: int
    worlds: int
    start_s: float
    memory_mb: float
    random_steps: float
    policy_steps: float
    shares: dict[str, float]
    frames: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--size", type=int, action="append", help="of images, in pixels; not given: 64 and 224")
    parser.add_argument("--processes", type=int, default=16, help="of backend mujoco")
    parser.add_argument("--worlds-a-process", type=int, default=16)
    parser.add_argument("--only", action="append", metavar="NAME", help="of these, by their names in the table")
    parser.add_argument("--rounds", type=int, default=2, help="episodes a world plays")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_intermixed_args()
    config = compose(options.recipe, options.overrides)
    device = prepare_torch(config.rollout.threads)
    card = torch.cuda.get_device_name() if device.type == "cuda" else "no GPU"
    print(f"{time.strftime('%Y-%m-%d')}, {card}, {psutil.cpu_count()} cores, {platform.platform()}")
    processes, each = options.processes, options.worlds_a_process
    contenders = {
        "mujoco_warp": (config.rollout.num_envs, 1, {"renderer": "mujoco_warp"}),
        THROUGH_MEMORY: (config.rollout.num_envs, 1, {"renderer": "mujoco_warp", "images_on_gpu": False}),
        f"mujoco, {processes} processes": (processes * each, processes, {}),
    }
    print(f"\n{HEAD}")
    found = []
    for size in options.size or (64, 224):
        for name, (worlds, workers, chosen) in contenders.items():
            if options.only and name not in options.only:
                continue
            backend = {"backend": name.partition(",")[0], **chosen}
            found.append(measure(config, size, name, worlds, workers, backend, options.rounds, options.repeats))
            print(line(found[-1]), flush=True)
    if options.json is not None:
        about = {"date": time.strftime("%Y-%m-%d"), "device": card, "command": sys.argv}
        options.json.write_text(json.dumps({**about, "figures": [vars(figures) for figures in found]}, indent=1))


THROUGH_MEMORY = "mujoco_warp, images through main memory"
HEAD = (
    "| pixels | simulator | worlds | env-steps/s, policy apart | frames/s | env-steps/s | simulator | policy | shards "
    "| rest | MB a world | start, s |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def line(found: Figures) -> str:
    """A line of the table."""
    shares = [f"{found.shares[part]:.0%}" for part in (*PARTS, "rest")]
    speeds = [f"{found.random_steps:,.0f}", f"{found.frames:,.0f}", f"{found.policy_steps:,.0f}"]
    start = [str(found.image_size), f"{found.contender} ({found.renderer})", f"{found.worlds:,}"]
    return f"| {' | '.join([*start, *speeds, *shares, f'{found.memory_mb:.2f}', f'{found.start_s:.0f}'])} |"


def measure(
    config: Config,
    size: int,
    name: str,
    worlds: int,
    workers: int,
    backend: dict[str, Any],
    rounds: int,
    repeats: int,
) -> Figures:
    """Measure a contender at an image size."""
    settings = simulator_options(config.simulator) | {"image_size": size} | backend
    with SimulatorPool(config.simulator.name, settings, worlds, workers):
        pass  # what a first start compiles is there for the second
    before, began = used(()), time.perf_counter()
    with SimulatorPool(config.simulator.name, settings, worlds, workers) as pool:
        start = time.perf_counter() - began
        bench = Bench(config, pool, rounds)
        bench.roll(None)  # warms up; nothing is lent yet, and images come with the answers
        memory = (used(pool.pids) - before) / worlds
        policy = fresh(config, pool)
        bench.roll(policy)
        rolls = [(bench.roll(None), bench.roll(policy)) for _ in range(repeats)]
        about = (pool.spec.version, pool.spec.renderer)
    random, decided = zip(*rolls, strict=True)
    shares = {part: statistics.median(roll.parts[part] / roll.seconds for roll in decided) for part in (*PARTS, "rest")}
    return Figures(
        name,
        *about,
        size,
        worlds,
        start,
        memory / 1e6,
        statistics.median(roll.steps / roll.seconds for roll in random),
        statistics.median(roll.steps / roll.seconds for roll in decided),
        shares,
        statistics.median(3 * roll.decisions / roll.seconds for roll in random),
    )


@dataclasses.dataclass
class Roll:
    """A rollout: its seconds, the steps and decisions made in it, and the seconds of its parts."""

    seconds: float
    steps: int
    decisions: int
    parts: dict[str, float]


class Bench:
    """Rollouts in a pool."""

    def __init__(self, config: Config, pool: SimulatorPool, rounds: int) -> None:
        self._config, self._pool, self._rounds = config, pool, rounds
        self._rolled = 0

    def roll(self, policy: policies.Policy | None) -> Roll:
        """Play episodes, by a policy into a shard, or at random."""
        config, pool, phases = self._config, self._pool, Phases()
        tasks, count = config.simulator.tasks, pool.num_envs * self._rounds
        self._rolled += 1
        plan = [
            Planned(i, tasks[i % len(tasks)], 1000 * self._rolled + i, i, np.random.default_rng(i))
            for i in range(count)
        ]
        actor: Actor = Random(pool, config.policy.chunk)
        if policy is not None:
            heat, coherent = config.rollout.temperature, config.rollout.noise == "chunk"
            actor = PolicyActor(pool, policy, temperature=heat, coherent=coherent, phases=phases)
        player = Player(pool, actor, groups=config.rollout.pipeline_stage_num, phases=phases)
        steps = decisions = 0
        with tempfile.TemporaryDirectory() as folder:
            begin = time.perf_counter()
            writer = None if policy is None else shard_writer(config, pool, policy, Path(folder, "shard"))
            for played in in_order(plan, player.play(plan)):
                steps += played.steps
                decisions += played.decisions
                if writer is not None:
                    with phases("write"):
                        writer.append(record(played))
                played.forget_images()
            if writer is not None:
                with phases("write"):
                    writer.close()
            seconds = time.perf_counter() - begin
        parts = {part: phases.seconds.get(part, 0.0) for part in PARTS}
        return Roll(seconds, steps, decisions, parts | {"rest": seconds - sum(parts.values())})


class Random:
    """Moves hands at random, in no time."""

    def __init__(self, pool: SimulatorPool, chunk: int) -> None:
        self._pool, self._stream = pool, np.random.default_rng(0)
        self._shape = (chunk, pool.spec.action_dim)

    def act(
        self,
        slots: Sequence[int],
        seen: Observation,
        planned: Sequence[Planned],
        then: Sequence[Start | None],
    ) -> Sent:
        actions = self._stream.uniform(-1, 1, (len(slots), *self._shape)).astype(np.float32)
        return Sent(self._pool.step_async(slots, actions, then), lambda _: {"actions": actions})

    def judge(self, seen: Observation, planned: Sequence[Planned]) -> list[float]:
        return [0.0] * len(planned)


def fresh(config: Config, pool: SimulatorPool) -> policies.Policy:
    """A policy of the recipe's sizes, with weights from the seed."""
    chosen, spec = config.policy, pool.spec
    rows = np.random.default_rng(0).uniform(-1, 1, (64, spec.action_dim + spec.proprio_dim))
    measured = Statistics.of(rows[:, : spec.action_dim], rows[:, spec.action_dim :], dataset=spec.name)
    sizes = {"proprio_dim": spec.proprio_dim, "images": 1 + spec.wrist_cameras, "image_size": spec.image_size[0]}
    options = {"preset": chosen.preset, "precision": chosen.precision, **sizes, **described(config)}
    policy = policies.make(chosen.name, options, measured, config.seed)
    return policy.to(prepare_torch(config.rollout.threads)).eval()


def shard_writer(config: Config, pool: SimulatorPool, policy: policies.Policy, path: Path) -> ShardWriter:
    spec, tasks = pool.spec, pool.spec.tasks
    sizes = (spec.image_size, spec.proprio_dim, config.policy.chunk, spec.action_dim, policy.chain_shape)
    names, sentences = tuple(task.name for task in tasks), tuple(task.instruction for task in tasks)
    origin = ShardAttributes("benchmark", 1, 0, 0, spec.name, "", "", names, sentences, "train")
    return ShardWriter(path, ShardSpec("chain" if policy.chain_shape else "tokens", *sizes), origin)


def used(pids: Sequence[int]) -> float:
    """Bytes: of the GPU where there is one, else of the memory that processes have to themselves or share in."""
    known = [memory for _, memory in usage.gpus(None) if memory is not None]
    return 1e9 * max(known) if known else float(sum(psutil.Process(pid).memory_full_info().pss for pid in pids))


if __name__ == "__main__":
    main()
