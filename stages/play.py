"""Episodes of a policy in a pool of simulators, in lock step.

Every random stream belongs to an episode and every batch is made up by the order of the plan and the outcomes of
episodes, never by timing: the same plan, policy and seeds give the same numbers, whatever was slow or died on the way.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from stages.metrics import Phases
from stages.policies.interface import Observation, Policy
from stages.simulators.interface import Episode
from stages.simulators.interface import Observation as Seen
from stages.simulators.pool import SimulatorPool, Stepped, Ticket


@dataclasses.dataclass(frozen=True)
class Planned:
    """An episode to be played.

    Attributes:
        index: its place among the stage's episodes.
        task: name of its task.
        seed: of its initial state.
        group: episodes of one group start from the same state.
        noise: the episode's own stream for drawing actions; None: the likeliest actions.
        film: whether frames are kept.
    """

    index: int
    task: str
    seed: int
    group: int
    noise: np.random.Generator | None
    film: bool = False


@dataclasses.dataclass
class Played:
    """An episode as it went, D decisions of K actions.

    Attributes:
        planned: what it was.
        head: uint8 [D, 3, H, W]; likewise wrist [D, 2, 3, H, W] and proprio float32 [D, P].
        tokens: int16 [D, K, A].
        actions: float32 [D, K, A], as sent to the simulator.
        log_probs: float32 [D, K, A].
        values: float32 [D].
        rewards: float32 [D, K].
        executed: bool [D, K].
        success: the task's predicate held at the end.
        terminated: the task ended it.
        truncated: the step limit ended it.
        bootstrap_value: value of what was seen after the last step of a truncated episode, else 0.
        frames: uint8 [448, 672, 3] one a step, where filmed.
    """

    planned: Planned
    head: np.ndarray
    wrist: np.ndarray
    proprio: np.ndarray
    tokens: np.ndarray
    actions: np.ndarray
    log_probs: np.ndarray
    values: np.ndarray
    rewards: np.ndarray
    executed: np.ndarray
    success: bool
    terminated: bool
    truncated: bool
    bootstrap_value: float
    frames: list[np.ndarray]

    @property
    def steps(self) -> int:
        """Executed actions."""
        return int(self.executed.sum())

    @property
    def reward(self) -> float:
        """Undiscounted sum of the rewards."""
        return float(self.rewards[self.executed].sum())


@dataclasses.dataclass
class _World:
    """The episode that a slot is in the middle of, and its decisions so far."""

    planned: Planned
    rows: dict[str, list[np.ndarray]] = dataclasses.field(default_factory=dict)
    frames: list[np.ndarray] = dataclasses.field(default_factory=list)

    def add(self, **parts: np.ndarray) -> None:
        for name, part in parts.items():
            self.rows.setdefault(name, []).append(part)


class Player:
    """Plays planned episodes with one policy in one pool.

    Args:
        pool: the simulators; its slots are split into `groups` that take turns.
        policy: decides.
        instructions: task name -> sentence.
        groups: the pipeline's stages: while one group simulates, the policy decides for another.
        temperature: of the distribution that actions are drawn from.
        coherent: one draw a dimension, shared by the steps of a chunk.
        phases: where the seconds of simulator and policy are counted.
    """

    def __init__(
        self,
        pool: SimulatorPool,
        policy: Policy,
        instructions: dict[str, str],
        *,
        groups: int,
        temperature: float,
        coherent: bool,
        phases: Phases,
    ) -> None:
        self._pool, self._policy, self._instructions = pool, policy, instructions
        self._temperature, self._coherent, self._phases = temperature, coherent, phases
        self._groups = [list(part) for part in np.array_split(np.arange(pool.num_envs), groups)]

    def play(self, plan: Sequence[Planned]) -> Iterator[Played]:
        """Play episodes; each slot takes the next of the plan as soon as its own has ended.

        Args:
            plan: the episodes, started in this order.

        Yields:
            Each episode once it has ended.
        """
        waiting = deque(plan)
        worlds: dict[int, _World] = {}
        tickets: list[Ticket[Stepped] | None] = []
        for group in self._groups:
            seen = self._start(group, waiting, worlds)
            tickets.append(self._decide(seen, worlds))
        while any(ticket is not None for ticket in tickets):
            for number, group in enumerate(self._groups):
                ticket = tickets[number]
                if ticket is None:
                    continue
                slots = [slot for slot in group if slot in worlds]
                with self._phases("simulate"):
                    stepped = self._pool.wait(ticket)
                finished, seen = self._record(slots, stepped, worlds)
                seen |= self._start([slot for slot in group if slot not in worlds], waiting, worlds)
                tickets[number] = self._decide(dict(sorted(seen.items())), worlds)
                yield from finished

    def _start(self, free: list[int], waiting: deque[Planned], worlds: dict[int, _World]) -> dict[int, Seen]:
        """Give free slots the next episodes; returns what the started worlds look like."""
        slots = free[: len(waiting)]
        if not slots:
            return {}
        for slot in slots:
            worlds[slot] = _World(waiting.popleft())
        planned = [worlds[slot].planned for slot in slots]
        with self._phases("simulate"):
            seen = self._pool.reset(slots, [Episode(p.task, p.seed) for p in planned], [p.film for p in planned])
        return {slot: _row(seen, i) for i, slot in enumerate(slots)}

    def _decide(self, seen: dict[int, Seen], worlds: dict[int, _World]) -> Ticket[Stepped] | None:
        """Let the policy decide for the worlds seen and send them off; None when there are none."""
        if not seen:
            return None
        slots = list(seen)
        with self._phases("policy"):
            noise = self._noise([worlds[slot].planned for slot in slots])
            observation = self._observation([seen[slot] for slot in slots], [worlds[slot] for slot in slots])
            decision = self._policy.act(observation, noise, self._temperature)
            actions = decision.actions.cpu().numpy()
            tokens = decision.taken.cpu().numpy().astype(np.int16)
            log_probs, values = decision.log_probs.cpu().numpy(), decision.values.cpu().numpy()
        for i, slot in enumerate(slots):
            worlds[slot].add(
                head=seen[slot].head,
                wrist=seen[slot].wrist,
                proprio=seen[slot].proprio,
                tokens=tokens[i],
                actions=actions[i],
                log_probs=log_probs[i],
                values=values[i],
            )
        with self._phases("simulate"):
            return self._pool.step_async(slots, actions)

    def _record(
        self, slots: list[int], stepped: Stepped, worlds: dict[int, _World]
    ) -> tuple[list[Played], dict[int, Seen]]:
        """Note what a chunk brought; returns the episodes that ended and what the others see now."""
        result = stepped.result
        over = result.terminated | result.truncated
        bootstrap = self._bootstrap(slots, stepped, worlds)
        finished, seen = [], {}
        for i, slot in enumerate(slots):
            world = worlds[slot]
            world.add(rewards=result.rewards[i], executed=result.executed[i])
            world.frames += result.frames[i]
            if not over[i]:
                seen[slot] = _row(stepped.observation, i)
                continue
            rows = {name: np.stack(parts) for name, parts in world.rows.items()}
            finished.append(
                Played(
                    planned=world.planned,
                    **rows,
                    success=bool(result.success[i]),
                    terminated=bool(result.terminated[i]),
                    truncated=bool(result.truncated[i]),
                    bootstrap_value=bootstrap.get(slot, 0.0),
                    frames=world.frames,
                )
            )
            del worlds[slot]
        return finished, seen

    def _bootstrap(self, slots: list[int], stepped: Stepped, worlds: dict[int, _World]) -> dict[int, float]:
        """Values of what truncated episodes would have gone on from."""
        cut = [i for i in range(len(slots)) if stepped.result.truncated[i] and not stepped.result.terminated[i]]
        if not cut:
            return {}
        with self._phases("policy"):
            rows = [_row(stepped.observation, i) for i in cut]
            observation = self._observation(rows, [worlds[slots[i]] for i in cut])
            values = self._policy.act(observation, None, self._temperature).values.cpu().numpy()
        return {slots[i]: float(value) for i, value in zip(cut, values, strict=True)}

    def _noise(self, planned: list[Planned]) -> torch.Tensor | None:
        if planned[0].noise is None:
            return None
        rows = [self._policy.draw_noise(p.noise, self._coherent) for p in planned if p.noise is not None]
        return torch.from_numpy(np.stack(rows)).to(self._policy.device)

    def _observation(self, seen: list[Seen], worlds: list[_World]) -> Observation:
        head, wrist, proprio = (np.stack([getattr(o, name) for o in seen]) for name in ("head", "wrist", "proprio"))
        instructions = [self._instructions[world.planned.task] for world in worlds]
        return Observation.from_arrays(head, wrist, proprio, instructions).to(self._policy.device)


def _row(seen: Seen, i: int) -> Seen:
    return Seen(seen.head[i], seen.wrist[i], seen.proprio[i])
