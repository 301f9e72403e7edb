"""LIBERO behind the interface: N worlds, each in the scene of its task, which the worlds of a task share."""

from __future__ import annotations

import dataclasses
import pickle
import zlib
from collections.abc import Callable, Sequence
from typing import Any

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
from stages.simulators.libero import catalogue, expert, installed, rendering
from stages.simulators.libero.options import OPENVLA, Options
from stages.simulators.libero.scene import ACTION_DIM, PROPRIO_DIM, Scene
from stages.simulators.libero.stage import Stage

EXPERT_STREAM = 1
HEAD_FRAME, WRIST_FRAME = 448, 224

Policy = Callable[[Scene, int], np.ndarray]


@dataclasses.dataclass
class World:
    """What is known of a world beside the physics.

    Attributes:
        episode: what it was reset to.
        film: whether it returns frames.
        steps: that it has made.
        done: whether its episode is over.
        frame: the last frame of its film.
        memory: what the expert remembers of it.
        stream: what disturbs the expert.
    """

    episode: Episode
    film: bool
    steps: int
    done: bool
    frame: np.ndarray | None
    memory: Any
    stream: np.random.Generator


class Libero(Simulator):
    """N worlds of LIBERO."""

    def __init__(self, num_envs: int, options: Options) -> None:
        """Settle on a renderer and load LIBERO; every world has to be reset before it is used."""
        self.num_envs = num_envs
        self._options = options
        self._entries = {name: catalogue.entries()[name] for name in options.tasks}
        versions = installed.versions()
        renderer = rendering.choose(options.renderer, options.egl_device)
        size = max(options.image_size, HEAD_FRAME)
        self._stage = Stage(installed.environments(renderer), renderer, size, options.kept_scenes)
        self._worlds: list[World | None] = [None] * num_envs
        self.spec = SimulatorSpec(
            name="libero",
            version=", ".join(f"{package} {version}" for package, version in versions.items()),
            renderer=renderer,
            tasks=tuple(Task(entry.name, entry.instruction) for entry in self._entries.values()),
            action_dim=ACTION_DIM,
            proprio_dim=PROPRIO_DIM,
            image_size=(options.image_size, options.image_size),
            max_episode_steps=max(self._limit(name) for name in options.tasks),
            deterministic=True,
            wrist_cameras=options.wrist_cameras,
        )

    def reset(self, slots: Sequence[int], episodes: Sequence[Episode], film: Sequence[bool]) -> None:
        """See Simulator.reset."""
        for episode in episodes:
            if episode.task not in self._entries:
                raise SimulatorConfigError(
                    f"libero: no task {episode.task!r} here; tasks: {', '.join(self._options.tasks)}"
                )
        for slot, episode, filmed in zip(slots, episodes, film, strict=True):
            scene = self._stage.enter(slot, self._entries[episode.task])
            scene.start(episode, self._options.settling_steps)
            stream = np.random.SeedSequence([episode.seed, zlib.crc32(episode.task.encode()), EXPERT_STREAM])
            self._worlds[slot] = World(
                episode=episode,
                film=bool(filmed),
                steps=0,
                done=False,
                frame=None,
                memory=expert.begin(),
                stream=np.random.Generator(np.random.Philox(stream)),
            )

    def observe(self, slots: Sequence[int]) -> Observation:
        """See Simulator.observe."""
        size, count = self._options.image_size, len(slots)
        cameras = rendering.CAMERAS if self._options.wrist_cameras else (rendering.HEAD,)
        images = np.empty((count, len(cameras), size, size, 3), dtype=np.uint8)
        proprio = np.empty((count, PROPRIO_DIM), dtype=np.float32)
        for row, slot in enumerate(slots):
            self._world(slot)
            proprio[row] = self._stage.scene(slot).proprioception()
            for number, camera in enumerate(cameras):
                images[row, number] = self._stage.draw(slot, camera, size)
        planes = np.ascontiguousarray(images.transpose(0, 1, 4, 2, 3))
        return Observation(head=planes[:, 0], wrist=planes[:, 1:], proprio=proprio)

    def step_chunk(self, slots: Sequence[int], actions: np.ndarray) -> ChunkResult:
        """See Simulator.step_chunk; the last action number is the gripper's, see options.Options.gripper."""
        if actions.ndim != 3 or (actions.shape[0], actions.shape[2]) != (len(slots), ACTION_DIM):
            raise ValueError(f"actions are {list(actions.shape)}, not [{len(slots)}, K, {ACTION_DIM}]")
        if not np.isfinite(actions).all():
            raise ValueError("an action is not a finite number")
        commands = self._commands(actions)
        result = _blank(len(slots), actions.shape[1])
        for row, slot in enumerate(slots):
            self._run(row, slot, _played(commands[row]), result)
        return result

    def expert_chunk(self, slots: Sequence[int], length: int) -> tuple[np.ndarray, np.ndarray, ChunkResult]:
        """See Simulator.expert_chunk."""
        for slot in slots:
            entry = self._entries[self._world(slot).episode.task]
            expert.check(entry.name, entry.suite)
        actions = np.zeros((len(slots), length, ACTION_DIM), dtype=np.float32)
        clean = np.ones((len(slots), length), dtype=bool)
        result = _blank(len(slots), length)
        for row, slot in enumerate(slots):
            self._run(row, slot, self._expert(self._world(slot), actions[row], clean[row]), result)
        return actions, clean, result

    def save_state(self, slot: int) -> bytes:
        """See Simulator.save_state."""
        return pickle.dumps((self._world(slot), self._stage.save(slot)))

    def restore_state(self, slot: int, state: bytes) -> None:
        """See Simulator.restore_state."""
        world, snapshot = pickle.loads(state)
        self._stage.enter(slot, self._entries[world.episode.task]).restore(snapshot)
        self._worlds[slot] = world

    def close(self) -> None:
        """See Simulator.close."""
        self._stage.close()

    def frame(self, slot: int) -> np.ndarray:
        """What a world looks like to an audience: the wrist camera at the left top, the head camera on the right.

        Where the wrist camera is not observed, the head camera is in the middle.

        Args:
            slot: the world.

        Returns:
            uint8 [448, 672, 3], RGB.
        """
        frame = np.zeros((HEAD_FRAME, WRIST_FRAME + HEAD_FRAME, 3), dtype=np.uint8)
        left = WRIST_FRAME if self._options.wrist_cameras else WRIST_FRAME // 2
        frame[:, left : left + HEAD_FRAME] = self._stage.draw(slot, rendering.HEAD, HEAD_FRAME)
        if self._options.wrist_cameras:
            frame[:WRIST_FRAME, :WRIST_FRAME] = self._stage.draw(slot, rendering.WRIST, WRIST_FRAME)
        return frame

    def _run(self, row: int, slot: int, decide: Policy, result: ChunkResult) -> None:
        """Step a world through a chunk; `decide` gives the command [7] of a step."""
        world, scene = self._world(slot), self._stage.scene(slot)
        for step in range(result.executed.shape[1]):
            if world.done:
                return
            held = scene.step(decide(scene, step))
            world.steps += 1
            success = held and scene.succeeded()
            result.executed[row, step] = True
            result.rewards[row, step] = success
            result.success[row] = success
            result.terminated[row] = success or not held
            result.truncated[row] = not result.terminated[row] and world.steps >= self._limit(world.episode.task)
            world.done = bool(result.terminated[row] or result.truncated[row])
            if not held:
                print(
                    f"libero: the physics of task {world.episode.task}, seed {world.episode.seed} broke down at step "
                    f"{world.steps}: the episode ends without success",
                    flush=True,
                )
            if world.film:
                result.frames[row].append(self._filmed(slot, world))

    def _expert(self, world: World, actions: np.ndarray, clean: np.ndarray) -> Policy:
        """The expert as a policy, which writes down its actions [K, 7] and which of them are its own [K]."""

        def decide(scene: Scene, step: int) -> np.ndarray:
            command, world.memory = expert.act(scene.environment, world.memory)
            if self._options.expert_perturbation > 0:
                command, clean[step], world.memory = expert.perturb(
                    command, world.memory, world.stream, self._options.expert_perturbation
                )
            if self._options.gripper == OPENVLA:
                command = np.append(command[:-1], (1 - np.sign(command[-1])) / 2)
            # Later steps hold the last executed action until they are executed themselves.
            actions[step:] = command
            return self._commands(actions[step])

        return decide

    def _commands(self, actions: np.ndarray) -> np.ndarray:
        """Actions [..., 7] of a policy as robosuite takes them: float64, -1 opens the gripper and 1 closes it."""
        commands = actions.astype(np.float64)
        if self._options.gripper == OPENVLA:  # as OpenVLA's own evaluation on LIBERO maps them
            commands[..., -1] = -np.sign(2 * commands[..., -1] - 1)
        return commands

    def _filmed(self, slot: int, world: World) -> np.ndarray:
        """The frame of a world's last step; between the moments that are drawn it is the one before.

        An episode's first and last steps are always drawn.
        """
        every = self._options.action_frequency // self._options.rendering_frequency
        if world.frame is None or world.done or world.steps % every == 1 % every:
            world.frame = self.frame(slot)
        return world.frame

    def _limit(self, task: str) -> int:
        return self._options.max_episode_steps or self._entries[task].step_limit

    def _world(self, slot: int) -> World:
        world = self._worlds[slot]
        if world is None:
            raise ValueError(f"world {slot} was never reset")
        return world


def _played(commands: np.ndarray) -> Policy:
    """Commands [K, 7] as a policy."""
    return lambda scene, step: commands[step]


def _blank(count: int, length: int) -> ChunkResult:
    """An outcome to be filled in."""
    return ChunkResult(
        rewards=np.zeros((count, length), dtype=np.float32),
        executed=np.zeros((count, length), dtype=bool),
        success=np.zeros(count, dtype=bool),
        terminated=np.zeros(count, dtype=bool),
        truncated=np.zeros(count, dtype=bool),
        frames=[[] for _ in range(count)],
    )
