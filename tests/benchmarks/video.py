"""What films cost a stage: its seconds without them, with frames drawn and dropped, and with films written.

    python tests/benchmarks/video.py RUN [--stage rollout|evaluate] [--films N] [--repeats 5] [--cores 0,1]

Plays a rollout shard, shard and all, or an evaluation as the stage of RUN's config does, by the warm start of RUN,
e.g. of `baton run configs/quickstart.yaml epochs=1`. The three take turns; printed are medians. What the simulator
takes to draw the frames of filmed steps is told apart from what is Baton's: the hand-over, the bands, the encoder. CPU
seconds are those of all processes.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pipeline.artifacts import Unit
from pipeline.config import Config
from stages import schedule
from stages.metrics import Phases
from stages.play import Played, Player, in_order
from stages.policies import interface as policies
from stages.policy_actor import PolicyActor
from stages.rollout import record
from stages.simulation import simulator_options
from stages.simulators.pool import SimulatorPool
from stages.trajectories import ShardAttributes, ShardSpec, ShardWriter
from stages.unit import load_config, prepare_torch
from stages.video.filming import Filming, Studio

TICK = os.sysconf("SC_CLK_TCK")
CONTENDERS = ("no films", "frames drawn and dropped", "films")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--stage", choices=("rollout", "evaluate"), default="rollout")
    parser.add_argument("--films", type=int, help="default: as many as the config says")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cores", default="0,1", help="that everything shares")
    options = parser.parse_args()
    os.sched_setaffinity(0, {int(core) for core in options.cores.split(",")})
    config = load_config(options.run)
    wanted = {"episodes": options.films, "rollout_episodes": options.films}
    films = {"save_video": True} | {name: number for name, number in wanted.items() if number is not None}
    config = config.model_copy(update={"video_cfg": config.video_cfg.model_copy(update=films)})
    stage = getattr(config, options.stage)
    plan = schedule.evaluations(config) if options.stage == "evaluate" else schedule.rollouts(config, 1, 0)
    device = prepare_torch(stage.threads)
    policy = policies.load(options.run / "policies" / "0000", device, config.policy.precision).eval()
    settings = simulator_options(config.simulator)
    with SimulatorPool(config.simulator.name, settings, stage.num_envs, stage.num_workers) as pool:
        print(
            f"{pool.spec.name} {pool.spec.version}, {pool.spec.renderer}, {config.simulator.image_size} pixels; "
            f"{sum(planned.film for planned in plan)} of {len(plan)} episodes filmed, "
            f"{config.simulator.rendering_frequency} frames a second, {stage.num_envs} environments, "
            f"{stage.num_workers} simulator processes, cores {options.cores}; medians of {options.repeats}"
        )
        rounds = [
            {name: play(config, options.stage, pool, policy, name) for name in CONTENDERS}
            for _ in range(options.repeats + 1)
        ][1:]
    print(f"\n{'':26} {'seconds':>8} {'CPU s':>8} {'held up, s':>11} {'film steps':>11}")
    medians = {
        name: [statistics.median(found[name][number] for found in rounds) for number in range(4)] for name in CONTENDERS
    }
    for name, (wall, cpu, held, steps) in medians.items():
        print(f"{name:26} {wall:8.2f} {cpu:8.2f} {held:11.3f} {steps:11.0f}")
    for what, less, more in (("drawing (simulator)", 0, 1), ("writing (Baton)", 1, 2), ("both", 0, 2)):
        shares = [
            statistics.median(
                (found[CONTENDERS[more]][number] - found[CONTENDERS[less]][number]) / found[CONTENDERS[0]][number]
                for found in rounds
            )
            for number in (0, 1)
        ]
        print(f"{what:26} {shares[0]:+8.1%} {shares[1]:+8.1%}   of the time without films, median of differences")


def play(config: Config, stage: str, pool: SimulatorPool, policy: policies.Policy, contender: str) -> tuple[float, ...]:
    """Play a unit of a stage; returns seconds, CPU seconds, seconds that filming held it up, and steps filmed."""
    rollout = stage == "rollout"
    plan = schedule.rollouts(config, 1, 0) if rollout else schedule.evaluations(config)
    if contender == "no films":
        plan = [dataclasses.replace(planned, film=False) for planned in plan]
    phases, steps = Phases(), 0
    with tempfile.TemporaryDirectory() as directory:
        began, cpu = time.perf_counter(), cpu_seconds(pool.pids)
        films = None
        if contender == "films":
            instructions = {task.name: task.instruction for task in pool.spec.tasks}
            every = config.simulator.action_frequency // config.simulator.rendering_frequency
            fps = config.simulator.action_frequency / every
            films = Filming(Studio(Path(directory, "videos"), None, Unit(1, stage, 0), fps, every, instructions, True))
        actor = PolicyActor(
            pool,
            policy,
            temperature=(config.rollout.temperature if rollout else config.evaluate.temperature) or 1.0,
            coherent=rollout and config.rollout.noise == "chunk",
            phases=phases,
        )
        groups = (config.rollout if rollout else config.evaluate).pipeline_stage_num
        player = Player(pool, actor, groups=groups, phases=phases, shoot=films.shoot if films else None)
        with contextlib.ExitStack() as stack:
            episodes: Iterable[Played] = player.play(plan)
            if rollout:
                writer = stack.enter_context(shard_writer(config, pool, policy, Path(directory, "shard")))
                episodes = in_order(plan, episodes)
            for played in episodes:
                if rollout:
                    writer.append(record(played))
                steps += played.steps * played.planned.film
                played.forget_images()
        if films is not None:
            with phases("video"):
                films.finish()
            assert films.failed == 0
        wall = time.perf_counter() - began
        return wall, cpu_seconds(pool.pids) - cpu, phases.seconds.get("video", 0.0), float(steps)


def shard_writer(config: Config, pool: SimulatorPool, policy: policies.Policy, path: Path) -> ShardWriter:
    spec = ShardSpec(
        "chain" if policy.chain_shape else "tokens",
        pool.spec.image_size,
        pool.spec.proprio_dim,
        config.policy.chunk,
        config.policy.action_dim,
        policy.chain_shape,
    )
    tasks = pool.spec.tasks
    names, sentences = tuple(task.name for task in tasks), tuple(task.instruction for task in tasks)
    return ShardWriter(
        path, spec, ShardAttributes("benchmark", 1, 0, 0, pool.spec.name, "", "", names, sentences, "train")
    )


def cpu_seconds(workers: Sequence[int]) -> float:
    """Of this process, of the children that have ended, and of the simulators."""
    ours = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    theirs = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13] for pid in workers)
    return sum(u.ru_utime + u.ru_stime for u in ours) + sum(int(tick) for pair in theirs for tick in pair) / TICK


if __name__ == "__main__":
    main()
