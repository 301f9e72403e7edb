"""Make a film of an episode that was played before: `baton replay`.

    python -m stages.replay runs/quickstart --epoch 3 --episode 17               # what the policy saw, from the shard
    python -m stages.replay runs/quickstart --epoch 3 --episode 17 --simulate    # its actions once more, every step
    python -m stages.replay runs/quickstart --epoch 3 --episode 17 --stage evaluate

A shard keeps what was seen at every decision and all that was done, so that the first needs no simulator, and the
second a deterministic one. An evaluation keeps outcomes only: the policy plays the episode again, from the same state.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifacts import Unit, require_artifact
from pipeline.config import Config
from pipeline.errors import UserError
from stages import schedule
from stages.lineup import Planned
from stages.metrics import Phases
from stages.play import Player
from stages.simulation import simulator_options
from stages.simulators.interface import ChunkResult, Episode, SimulatorConfigError
from stages.simulators.pool import SimulatorLost, SimulatorPool
from stages.trajectories import Trajectories, read
from stages.unit import load_config, prepare_torch
from stages.video import HEIGHT, Bands, VideoError, compose
from stages.video.film import Film
from stages.video.filming import stem

SMALLEST, LARGEST, MULTIPLE = 224, 1792, 4
SAME = 1e-4  # of proprioception and rewards: what the eye could not tell apart


def main() -> int:
    """Make the film that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m stages.replay", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("--epoch", type=int, required=True)
    parser.add_argument("--episode", type=int, required=True, help="its number within the epoch, as in names of films")
    parser.add_argument("--stage", choices=("demonstrate", "rollout", "evaluate"), help="default: that of the shards")
    parser.add_argument("--simulate", action="store_true", help="carry the actions out once more, and show every step")
    parser.add_argument("--size", type=int, default=HEIGHT, help="height of the film in pixels; default: %(default)s")
    parser.add_argument("--out", type=Path, metavar="FILE.mp4", help="default: named by epoch, task, episode, outcome")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # what is begun is removed on the way out
    try:
        print(replay(Asked(**vars(given))))
    except (UserError, SimulatorConfigError, SimulatorLost, VideoError) as error:
        print(f"baton: {error}", file=sys.stderr)
        return UserError.EXIT_CODE
    return 0


@dataclasses.dataclass(frozen=True)
class Asked:
    """The film that is wanted, as on the command line."""

    run: Path
    epoch: int
    episode: int
    stage: str | None
    simulate: bool
    size: int
    out: Path | None


def replay(asked: Asked) -> str:
    """Make a film.

    Args:
        asked: which.

    Returns:
        A line about it.

    Raises:
        UserError: there is no such episode, or it cannot be shown so.
        VideoError: the film could not be written.
    """
    if asked.size % MULTIPLE or not SMALLEST <= asked.size <= LARGEST:
        raise UserError(f"--size {asked.size}: it must be a multiple of {MULTIPLE} from {SMALLEST} to {LARGEST} pixels")
    if asked.out is not None and not asked.out.parent.is_dir():
        raise UserError(f"--out {asked.out}: the folder {asked.out.parent} is not there; make it first")
    config = load_config(asked.run)
    stage = asked.stage or ("rollout" if asked.epoch else "demonstrate")
    unit, planned = _find(config, stage, asked.epoch, asked.episode)
    cut = Cut(asked, unit, planned, config)
    if stage == "evaluate":
        return _play_again(cut)
    return _simulate_again(cut) if asked.simulate else _show(cut)


def _find(config: Config, stage: str, epoch: int, episode: int) -> tuple[Unit, Planned]:
    """The unit that an episode was played in, and its plan."""
    plans: dict[Unit, list[Planned]]
    if stage == "evaluate":
        plans = {Unit(epoch, stage): schedule.evaluations(config)}
    elif stage == "rollout":
        if epoch < 1:
            raise UserError(f"--epoch {epoch}: rollouts begin with epoch 1; demonstrations are of epoch 0")
        plans = {Unit(epoch, stage, s): schedule.rollouts(config, epoch, s) for s in range(config.rollout.shards)}
    else:
        if epoch != 0:
            raise UserError(f"--epoch {epoch}: demonstrations are of epoch 0")
        plans = {Unit(0, stage, s): schedule.demonstrations(config, s) for s in range(config.demonstrate.shards)}
    for unit, plan in plans.items():
        for planned in plan:
            if planned.index == episode:
                return unit, planned
    last = max(planned.index for plan in plans.values() for planned in plan)
    raise UserError(f"--episode {episode}: {stage} of epoch {epoch} has the episodes 0 to {last}")


class Cut:
    """The film in the making, and what everything about it is taken from.

    Args:
        asked: what is wanted.
        unit: that played the episode.
        planned: the episode.
        config: of the run.
    """

    def __init__(self, asked: Asked, unit: Unit, planned: Planned, config: Config) -> None:
        self.asked, self.unit, self.planned, self.config = asked, unit, planned, config
        self.stride = config.demonstrate.stride if unit.stage == "demonstrate" else config.policy.chunk
        self._partial = (asked.out or Path()).parent / f".{stem(unit, planned)}.{os.getpid()}.mp4"
        self.outcome = ""

    def film(self, instruction: str, fps: float) -> Film:
        """The film, not yet under its name; `finish` gives it that."""
        bands = Bands(instruction, self.planned.task, self.planned.seed, self.asked.size)
        return Film(self._partial, fps, bands if self.config.video_cfg.info_on_video else None, self.asked.size)

    def shooting(self, film: Film) -> Callable[[Planned, ChunkResult, int], None]:
        """What adds every frame of a chunk to the film."""

        def shoot(planned: Planned, result: ChunkResult, row: int) -> None:
            rewards = result.rewards[row][result.executed[row]]
            over = bool(result.terminated[row] or result.truncated[row])
            for step, (frame, reward) in enumerate(zip(result.frames[row], rewards, strict=True), start=1):
                if over and step == len(rewards):
                    self.outcome = _outcome(result.success[row])
                film.add(frame, float(reward), self.outcome)

        return shoot

    def finish(self, film: Film, about: str) -> str:
        """Name a film that is whole; returns a line about it."""
        name = f"{stem(self.unit, self.planned)}-{self.outcome}.mp4"
        path = self.asked.out or Path(name)
        os.replace(self._partial, path)
        return f"{path}: {film.writer.frames} frames, {about}; {self.outcome} after {film.steps} steps"

    def shard(self) -> tuple[Trajectories, int]:
        """The shard that holds the episode, and its place there."""
        shard = read(require_artifact(self.asked.run / self.unit.marker, self.unit).path)
        group = np.flatnonzero(shard.episodes.group == self.planned.group)
        size = self.config.rollout.group_size if self.unit.stage == "rollout" else 1
        if not len(group):  # only demonstrations are left out
            raise UserError(
                f"--episode {self.planned.index}: the expert failed at it, and demonstrate.only_success left it out"
            )
        return shard, int(group[self.planned.index % size])

    def pool(self, **options: Any) -> SimulatorPool:
        """A simulator with one world, of which every step is drawn."""
        simulator = self.config.simulator
        drawn = {"rendering_frequency": max(simulator.action_frequency, simulator.rendering_frequency)}
        return SimulatorPool(
            simulator.name,
            simulator_options(simulator) | drawn | options,
            num_envs=1,
            python=simulator.python,
            timeout_s=simulator.timeout,
            start_timeout_s=simulator.start_timeout,
        )


# ----------------------------------------------------------------------------------------------------------------------
# Three ways to see an episode


def _show(cut: Cut) -> str:
    """From the shard's pictures: one frame a decision, for as long as its actions took, and the last once more."""
    shard, place = cut.shard()
    start, length = int(shard.episodes.start[place]), int(shard.episodes.length[place])
    head, wrist = shard.images(range(start, start + length))
    rewards, executed = (part[start : start + length, : cut.stride].sum(1) for part in (shard.rewards, shard.executed))
    instruction = shard.instructions[shard.episodes.task[place]]
    cut.outcome = _outcome(shard.episodes.success[place])
    with cut.film(instruction, cut.config.simulator.action_frequency / cut.stride) as film:
        for decision in range(length + 1):
            seen = min(decision, length - 1)
            before = (float(rewards[decision - 1]), int(executed[decision - 1])) if decision else (0.0, 0)
            outcome = cut.outcome if decision == length else ""
            film.add(compose(head[seen], wrist[seen], cut.asked.size), before[0], outcome, before[1])
    return cut.finish(film, "what was seen at each decision (--simulate shows every step)")


def _simulate_again(cut: Cut) -> str:
    """By the recorded actions, from the episode's seed: every step; what comes out is compared with the shard."""
    shard, place = cut.shard()
    start, length = int(shard.episodes.start[place]), int(shard.episodes.length[place])
    source = shard.sources[0]
    stage = getattr(cut.config, cut.unit.stage)
    limit = stage.max_episode_steps or cut.config.simulator.max_episode_steps
    with cut.pool(max_episode_steps=limit) as pool:
        here = f"{pool.spec.name} {pool.spec.version}"
        if (there := f"{source.simulator} {source.simulator_version}") != here:
            raise UserError(f"--simulate: the episode was played in {there}, here is {here}; leave --simulate out")
        if not pool.spec.deterministic:
            raise UserError(f"--simulate: {here} does not repeat an episode; leave --simulate out")
        pool.reset([0], [Episode(cut.planned.task, cut.planned.seed)], [True])
        with cut.film(shard.instructions[shard.episodes.task[place]], cut.config.simulator.action_frequency) as film:
            shoot = cut.shooting(film)
            for decision in range(start, start + length):
                stepped = pool.step([0], shard.actions[decision : decision + 1, : cut.stride])
                shoot(cut.planned, stepped.result, 0)
                pairs = [
                    (getattr(stepped.result, name)[0], getattr(shard, name)[decision, : cut.stride])
                    for name in ("rewards", "executed")
                ]
                if decision + 1 < start + length:
                    pairs.append((stepped.observation.proprio[0], shard.proprio[decision + 1]))
                if not all(np.allclose(once, then, rtol=0, atol=SAME) for once, then in pairs):
                    raise UserError(
                        f"--simulate: decision {decision - start} does not lead to where it led when the shard was "
                        "written: the episode does not repeat on this machine; leave --simulate out"
                    )
    return cut.finish(film, "every step, simulated again")


def _play_again(cut: Cut) -> str:
    """By the evaluated policy, from the held-out state; its outcome is compared with the published one."""
    config, epoch = cut.config, cut.unit.epoch
    evaluation = require_artifact(cut.asked.run / cut.unit.marker, cut.unit)
    device = prepare_torch(config.evaluate.threads)
    from stages.policies import interface as policies
    from stages.policy_actor import PolicyActor

    made_by = Unit(epoch, "update" if epoch else "sft")
    version = require_artifact(cut.asked.run / made_by.outputs["policy"], made_by)
    policy = policies.load(version.path, device, config.policy.precision).eval()
    lines = (evaluation.path / "episodes.jsonl").read_text().splitlines()
    published = json.loads(lines[cut.planned.index])
    with cut.pool() as pool:
        instruction = next(task.instruction for task in pool.spec.tasks if task.name == cut.planned.task)
        temperature = config.evaluate.temperature or 1.0
        actor = PolicyActor(pool, policy, temperature=temperature, coherent=False, phases=Phases())
        with cut.film(instruction, config.simulator.action_frequency) as film:
            player = Player(pool, actor, groups=1, phases=Phases(), shoot=cut.shooting(film))
            [played] = player.play([dataclasses.replace(cut.planned, film=True)])
    same = (played.success, played.steps) == (published["success"], published["steps"])
    then = f"{_outcome(published['success'])} after {published['steps']} steps"
    told = "as published" if same else f"published as {then}: alone in its batch the policy's sums round otherwise"
    return f"{cut.finish(film, f'every step, played again by policy {epoch}')}, {told}"


def _outcome(success: Any) -> str:
    return "success" if success else "failure"


if __name__ == "__main__":
    sys.exit(main())
