"""ManiSkill on the CPU (physx_cpu): an environment a world, played one after the other.

A world's state is kept as what led to it: its episode and the actions since. PhysX gives nobody the forces that it
starts its next solution from, so places and speeds put back by hand go on in another way (joints differ by 2e-3 rad a
step later), while the same actions from the same start give the same numbers to the last bit. Going back costs a step
for each step gone, without pictures.
"""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable, Sequence

import numpy as np
import torch

from stages.simulators.interface import ChunkResult, Episode, Observation, Simulator, SimulatorConfigError
from stages.simulators.maniskill import arms, environment, expert, pictures
from stages.simulators.maniskill.chunks import blank
from stages.simulators.maniskill.environment import step_limit
from stages.simulators.maniskill.options import Options
from stages.simulators.maniskill.worlds import Outcome, Worlds

SEEDS = 2**32  # numpy's generator takes no larger one

Policy = Callable[["_World", int], np.ndarray]


@dataclasses.dataclass
class _World:
    """A world and the episode that it is in.

    Attributes:
        place: ManiSkill's environment.
        episode: what it was reset to.
        film: whether its steps are drawn and returned.
        past: the actions since, [A] each.
        over: the episode has ended; the world rests.
        memory: of the expert.
        stream: random numbers of the expert's bursts.
        frame: the last one of its film.
    """

    place: Worlds
    episode: Episode
    film: bool
    past: list[np.ndarray] = dataclasses.field(default_factory=list)
    over: bool = False
    memory: expert.Memory = dataclasses.field(default_factory=lambda: expert.begin(1))
    stream: np.random.Generator = dataclasses.field(default_factory=np.random.default_rng)
    frame: np.ndarray | None = None


class ManiSkill(Simulator):
    """N worlds, each in an environment of its task."""

    def __init__(self, num_envs: int, options: Options, drawn_by: str, renderer: str) -> None:
        """Build the first task's environment; every world has to be reset before it is used.

        Args:
            num_envs: N.
            options: the simulator's.
            drawn_by: gpu or cpu.
            renderer: the device that draws, in words.
        """
        self.num_envs = num_envs
        self._options, self._drawn_by = options, drawn_by
        environment.check(options.tasks, options.reward)
        self._worlds: list[_World | None] = [None] * num_envs
        self._free: dict[str, list[Worlds]] = {task: [] for task in options.tasks}
        self._films: dict[Worlds, pictures.Film] = {}
        self._leave(self._place(options.tasks[0]))
        self.spec = environment.spec(options, renderer)

    def reset(self, slots: Sequence[int], episodes: Sequence[Episode], film: Sequence[bool]) -> None:
        """See Simulator.reset."""
        for episode in episodes:
            if episode.task not in self._options.tasks:
                raise SimulatorConfigError(
                    f"maniskill: no task {episode.task!r} here; tasks: {', '.join(self._options.tasks)}"
                )
            if not 0 <= episode.seed < SEEDS:
                raise SimulatorConfigError(f"maniskill: no seed {episode.seed}; seeds are from 0 to {SEEDS - 1}")
        for slot, episode, filmed in zip(slots, episodes, film, strict=True):
            self._begin(slot, episode, filmed)

    def observe(self, slots: Sequence[int]) -> Observation:
        """See Simulator.observe."""
        views, felt = [], []
        for slot in slots:
            env = self._world(slot).place.env
            views.append(pictures.draw(env))
            felt.append(arms.proprioception(env))
        return Observation(
            head=torch.cat([head for head, _ in views]).contiguous().cpu().numpy(),
            wrist=torch.cat([wrist for _, wrist in views]).contiguous().cpu().numpy(),
            proprio=torch.cat(felt).cpu().numpy(),
        )

    def step_chunk(self, slots: Sequence[int], actions: np.ndarray) -> ChunkResult:
        """See Simulator.step_chunk."""
        expected = (len(slots), self.spec.action_dim)
        if actions.ndim != 3 or (actions.shape[0], actions.shape[2]) != expected:
            raise ValueError(f"actions are {list(actions.shape)}, not [{expected[0]}, K, {expected[1]}]")
        if not np.isfinite(actions).all():
            raise ValueError("an action is not a finite number")
        result = blank(len(slots), actions.shape[1])
        for row, slot in enumerate(slots):

            def decide(world: _World, step: int, row: int = row) -> np.ndarray:
                return actions[row, step]

            self._play(self._world(slot), result, row, decide)
        return result

    def expert_chunk(self, slots: Sequence[int], length: int) -> tuple[np.ndarray, np.ndarray, ChunkResult]:
        """See Simulator.expert_chunk.

        Raises:
            SimulatorConfigError: a world's task has no expert.
        """
        actions = np.zeros((len(slots), length, self.spec.action_dim), dtype=np.float32)
        clean = np.ones((len(slots), length), dtype=bool)
        result = blank(len(slots), length)
        for row, slot in enumerate(slots):

            def decide(world: _World, step: int, row: int = row) -> np.ndarray:
                chosen, clean[row, step] = self._ask_expert(world)
                actions[row, step:] = chosen  # held where not executed
                return chosen

            world = self._world(slot)
            expert.require(world.episode.task)
            self._play(world, result, row, decide)
        return actions, clean, result

    def save_state(self, slot: int) -> bytes:
        """See Simulator.save_state."""
        world = self._world(slot)
        kept = {name: getattr(world, name) for name in ("episode", "film", "past", "over", "memory", "frame")}
        return pickle.dumps({**kept, "stream": world.stream.bit_generator.state})

    def restore_state(self, slot: int, state: bytes) -> None:
        """See Simulator.restore_state; it takes a step for each step of the episode."""
        saved = pickle.loads(state)
        self._begin(slot, saved["episode"], saved["film"])
        world = self._world(slot)
        for action in saved["past"]:
            self._act(world, action)
        world.over, world.memory, world.frame = saved["over"], saved["memory"], saved["frame"]
        world.stream.bit_generator.state = saved["stream"]

    def close(self) -> None:
        """See Simulator.close."""
        places = [world.place for world in self._worlds if world is not None]
        for place in places + [place for free in self._free.values() for place in free]:
            place.env.close()

    # ------------------------------------------------------------------------------------------------------------------
    # One world

    def _begin(self, slot: int, episode: Episode, film: bool) -> None:
        before = self._worlds[slot]
        if before is not None:
            self._leave(before.place)
            self._worlds[slot] = None  # should another task's environment fail to build
        place = self._place(episode.task)
        place.env.reset(seed=episode.seed)
        self._worlds[slot] = _World(place, episode, film, stream=expert.stream(episode))

    def _play(self, world: _World, result: ChunkResult, row: int, decide: Policy) -> None:
        """Let a world play a chunk of actions, and write down in `row` of the result what comes of it."""
        for step in range(result.rewards.shape[1]):
            if world.over:
                break
            outcome = self._act(world, decide(world, step))
            success, failure = bool(outcome.success[0]), bool(outcome.failure[0])
            late = len(world.past) >= step_limit(world.episode.task, self._options)
            world.over = success or failure or late
            result.executed[row, step] = True
            result.rewards[row, step] = outcome.reward[0] if self._options.reward == "dense" else success
            result.success[row] = success
            result.terminated[row] = success or failure
            result.truncated[row] = late and not (success or failure)
            if world.film:
                result.frames[row].append(self._filmed(world))

    def _act(self, world: _World, action: np.ndarray) -> Outcome:
        world.past.append(np.array(action, dtype=np.float32))
        return world.place.step(torch.from_numpy(world.past[-1])[None])

    def _ask_expert(self, world: _World) -> tuple[np.ndarray, bool]:
        """The expert's action [A] and whether it is its own."""
        task = world.episode.task
        actions, world.memory = expert.act(task, world.place.sight(), world.memory)
        clean = np.ones(1, dtype=bool)
        if self._options.expert_perturbation > 0:
            actions, clean, world.memory = expert.perturb(
                task, actions, world.memory, [world.stream], self._options.expert_perturbation
            )
        return actions[0].astype(np.float32), bool(clean[0])

    def _filmed(self, world: _World) -> np.ndarray:
        """The frame of a world's last step; between the moments that are drawn it is the one before.

        An episode's first and last steps are always drawn.
        """
        every = self._options.action_frequency // self._options.rendering_frequency
        if world.frame is None or world.over or len(world.past) % every == 1 % every:
            film = self._films.get(world.place)
            if film is None or film.lost:
                film = self._films[world.place] = pictures.Film(world.place.env)
            world.frame = film.frames()[0].cpu().numpy()
        return world.frame

    def _world(self, slot: int) -> _World:
        world = self._worlds[slot]
        if world is None:
            raise ValueError(f"world {slot} was never reset")
        return world

    # ------------------------------------------------------------------------------------------------------------------
    # Environments, which are kept when a world goes on to another task

    def _place(self, task: str) -> Worlds:
        free = self._free[task]
        return free.pop() if free else Worlds(environment.build(task, self._options, self._drawn_by), task)

    def _leave(self, place: Worlds) -> None:
        self._free[place.task].append(place)
