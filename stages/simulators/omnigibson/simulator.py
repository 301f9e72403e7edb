"""BEHAVIOR on OmniGibson: N worlds of a process, behind the interface of all simulators."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence

import numpy as np

from stages.simulators.interface import (
    ChunkResult,
    Episode,
    Observation,
    Simulator,
    SimulatorConfigError,
    SimulatorSpec,
    Task,
)
from stages.simulators.omnigibson import generation, graphics, observations, watchdog
from stages.simulators.omnigibson.actions import ActionMapping, gripper_commands
from stages.simulators.omnigibson.options import NO_EXPERT, Options
from stages.simulators.omnigibson.progress import q_score
from stages.simulators.omnigibson.proprioception import Selection, size
from stages.simulators.omnigibson.start import build, files_of
from stages.simulators.omnigibson.tasks import chosen


@dataclasses.dataclass
class _World:
    """The episode that a world is in.

    Attributes:
        episode: what it was reset to; None before the first reset.
        film: whether its steps are drawn and returned.
        steps: executed actions.
        over: the episode has ended; the world rests.
        fresh: nobody has looked at it since its reset.
        grippers: the last gripper commands [2].
        hold: the command that keeps it as it is.
        initial: predicates right after the reset.
    """

    episode: Episode | None = None
    film: bool = False
    steps: int = 0
    over: bool = True
    fresh: bool = False
    grippers: np.ndarray = dataclasses.field(default_factory=lambda: np.ones(2))
    hold: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.float32))
    initial: list[list[bool]] = dataclasses.field(default_factory=list)


class OmniGibson(Simulator):
    """N worlds that share one clock: whatever steps one of them steps all, and those not meant hold still."""

    def __init__(self, num_envs: int, options: Options) -> None:
        """Start Isaac Sim and build the worlds, which takes minutes; every one has to be reset before it is used."""
        self.num_envs = num_envs
        self._options = options
        self._activities = {activity.name: activity for activity in chosen(options.tasks, options.tasks_file)}
        self._mapping = ActionMapping(options.action_mode, options.trunk)
        self._selection = Selection(options.proprio_keys)
        self.worlds = build(options, num_envs)
        self._states = [_World() for _ in range(num_envs)]
        self._files = {
            name: files_of(activity, options, self.worlds.generation) for name, activity in self._activities.items()
        }
        self.worlds.settle()
        self.worlds.render(options.renders_per_observation)
        for slot in range(num_envs):
            self._rest(slot)
            try:
                self._see(slot, refuse_black=True)
            except observations.BlackFrames as error:  # from the start: another process would not do better
                raise SimulatorConfigError(f"omnigibson: {error}") from None
        isaac = generation.isaac_version()
        self.spec = SimulatorSpec(
            name="omnigibson",
            version=self.worlds.version + (f", Isaac Sim {isaac}" if isaac else ""),
            renderer=graphics.describe(self.worlds.card),
            tasks=tuple(Task(name, activity.instruction) for name, activity in self._activities.items()),
            action_dim=options.action_dim,
            proprio_dim=size(options.proprio_keys),
            image_size=(options.image_size, options.image_size),
            max_episode_steps=max(files.limit for files in self._files.values()),
            deterministic=False,
            one_clock=True,
        )

    def reset(self, slots: Sequence[int], episodes: Sequence[Episode], film: Sequence[bool]) -> None:
        """See Simulator.reset."""
        self._enter(slots, [episode.task for episode in episodes])
        files = self.worlds.files
        for slot in self._others(slots):  # which would glide on while the others are put in place
            self._rest(slot)
            self.worlds.command(slot, self._states[slot].hold)
        for slot, episode, filmed in zip(slots, episodes, film, strict=True):
            self.worlds.reset(slot, files.instance_of(episode))
            self._states[slot] = _World(episode, filmed, over=False, fresh=True)
        self.worlds.settle()
        for slot in slots:
            world = self._states[slot]
            world.grippers = gripper_commands(self.worlds.joints(slot))
            world.initial = self.worlds.predicates(slot)
            self._rest(slot)

    def observe(self, slots: Sequence[int]) -> Observation:
        """See Simulator.observe."""
        for slot in slots:
            self._entered(slot)
        self.worlds.render(self._options.renders_per_observation)
        seen = [self._see(slot, refuse_black=self._states[slot].fresh) for slot in slots]
        for slot in slots:
            self._states[slot].fresh = False
        planes = np.stack([pictures for pictures, _ in seen])
        return Observation(
            head=np.ascontiguousarray(planes[:, 0]),
            wrist=np.ascontiguousarray(planes[:, 1:]),
            proprio=np.stack([proprio for _, proprio in seen]),
        )

    def step_chunk(self, slots: Sequence[int], actions: np.ndarray) -> ChunkResult:
        """See Simulator.step_chunk; in joint_23 actions are in the robot's own units."""
        expected = (len(slots), self._mapping.policy_dim)
        if actions.ndim != 3 or (actions.shape[0], actions.shape[2]) != expected:
            raise ValueError(f"actions are {list(actions.shape)}, not [{expected[0]}, K, {expected[1]}]")
        count, length = actions.shape[:2]
        result = ChunkResult(
            rewards=np.zeros((count, length), np.float32),
            executed=np.zeros((count, length), np.bool_),
            success=np.zeros(count, np.bool_),
            terminated=np.zeros(count, np.bool_),
            truncated=np.zeros(count, np.bool_),
            frames=[[] for _ in slots],
        )
        scores = result.scores = np.zeros(count, np.float32)
        for slot in slots:
            self._entered(slot)
        for slot in self._others(slots):
            self._rest(slot)
        for step in range(length):
            active = [row for row, slot in enumerate(slots) if not self._states[slot].over]
            if not active:
                break
            self._advance(slots, active, actions[:, step], result, step)
        for row, slot in enumerate(slots):
            if not self._states[slot].over:
                scores[row] = self._score(slot, success=False)
        return result

    def expert_chunk(self, slots: Sequence[int], length: int) -> tuple[np.ndarray, np.ndarray, ChunkResult]:
        """There is no expert."""
        raise SimulatorConfigError(NO_EXPERT)

    def save_state(self, slot: int) -> bytes:
        """PhysX keeps contacts and warm starts to itself, so a saved world would go on differently."""
        raise NotImplementedError("omnigibson: a world's state cannot be put back exactly; play its episode again")

    def restore_state(self, slot: int, state: bytes) -> None:
        """See save_state."""
        raise NotImplementedError("omnigibson: a world's state cannot be put back exactly; play its episode again")

    def close(self) -> None:
        """Shut Isaac Sim down, which ends the process: whatever was to be told has to have been told."""
        sys.stdout.flush()
        sys.stderr.flush()
        self.worlds.shut_down()

    def _advance(
        self, slots: Sequence[int], active: Sequence[int], actions: np.ndarray, result: ChunkResult, step: int
    ) -> None:
        """Carry out one action [n, A] of the rows that are active."""
        commands = np.stack([world.hold for world in self._states])
        for row in active:
            world = self._states[slots[row]]
            commands[slots[row]] = self._mapping.command(actions[row])
            world.grippers = self._mapping.grippers(actions[row])
        draw = any(self._states[slots[row]].film for row in active)
        with watchdog.limit(self._options.step_timeout):
            outcomes = self.worlds.step(commands, draw)
        for row in active:
            slot = slots[row]
            world, outcome = self._states[slot], outcomes[slot]
            world.steps += 1
            reward = float(outcome.success) if self._options.reward == "sparse" else outcome.reward
            result.rewards[row, step] = self._options.reward_scale * reward
            result.executed[row, step] = True
            result.success[row] = outcome.success
            result.terminated[row] = outcome.terminated or outcome.success
            # The step limit is this side's: OmniGibson counts the steps in which a world was held as well.
            result.truncated[row] = world.steps >= self.worlds.files.limit
            if world.film:
                result.frames[row].append(observations.frame(self._see(slot, refuse_black=False)[0]))
            if result.terminated[row] or result.truncated[row]:
                assert result.scores is not None
                result.scores[row] = self._score(slot, outcome.success)
                world.over = True
                self._rest(slot)

    def _enter(self, slots: Sequence[int], tasks: Sequence[str]) -> None:
        """Have the process simulate the activity that worlds are to be reset to."""
        for task in tasks:
            if task not in self._activities:
                raise SimulatorConfigError(
                    f"omnigibson: no task {task!r} here; simulator.tasks are {', '.join(self._activities)}"
                )
        wanted = set(tasks)
        if wanted <= {self.worlds.files.activity.name}:
            return
        going_on = [slot for slot in self._others(slots) if not self._states[slot].over]
        if len(wanted) > 1 or going_on:
            others = wanted | ({self.worlds.files.activity.name} if going_on else set())
            raise SimulatorConfigError(
                f"omnigibson: a process simulates one activity at a time, and its worlds are to be in "
                f"{' and '.join(sorted(others))}: give each world a process of its own (num_workers equal to num_envs) "
                "or train one task a run"
            )
        self.worlds.enter(self._files[tasks[0]])
        self._states = [_World() for _ in range(self.num_envs)]
        for slot in range(self.num_envs):
            self._rest(slot)

    def _others(self, slots: Sequence[int]) -> list[int]:
        return [slot for slot in range(self.num_envs) if slot not in slots]

    def _entered(self, slot: int) -> None:
        if self._states[slot].episode is None:
            raise ValueError(f"world {slot} was never reset")

    def _rest(self, slot: int) -> None:
        """Note the command that keeps a world as it is."""
        world = self._states[slot]
        world.hold = self._mapping.hold(self.worlds.joints(slot), world.grippers)

    def _score(self, slot: int, success: bool) -> float:
        return q_score(self._states[slot].initial, self.worlds.predicates(slot), success)

    def _see(self, slot: int, refuse_black: bool) -> tuple[np.ndarray, np.ndarray]:
        """The pictures [3, 3, H, W] of a world and its proprioception [P], as drawn last."""
        told = self.worlds.look(slot)
        planes = observations.pictures(told, self._options.image_size)
        if refuse_black:
            observations.refuse_black(planes, f"world {slot} in {self.worlds.files.activity.name}")
        return planes, self._selection.take(observations.proprioception(told))
