"""Episodes of a plan in a pool of simulators: groups of worlds take turns, each group in lock step.

Every random stream belongs to an episode and every batch is made up by the order of the plan and the outcomes of
episodes, never by timing: the same plan, policy and seeds give the same numbers, whatever was slow or died on the way.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from stages.lineup import Lineup, Planned
from stages.metrics import Phases
from stages.simulators.interface import ChunkResult, Episode, Observation, split_of
from stages.simulators.pool import SimulatorPool, Start, Stepped, Ticket

LOG = "episodes.jsonl"

Rows = dict[str, np.ndarray]
Shoot = Callable[[Planned, ChunkResult, int], None]


@dataclasses.dataclass
class Played:
    """An episode as it went, D decisions of K actions.

    Attributes:
        planned: what it was.
        head: uint8 [D, 3, H, W], what decisions were made on; so are wrist [D, V, 3, H, W] and proprio float32 [D, P].
        acted: what the actor notes of its decisions, [D, ...] by the names an `EpisodeRecord` gives it; `actions`,
            float32 [D, K, A], at least.
        rewards: float32 [D, K].
        executed: bool [D, K].
        success: the task's predicate held at the end.
        terminated: the task ended it.
        truncated: the step limit ended it, and not the task.
        bootstrap_value: value of what was seen after the last step of a truncated episode, else 0.
        worker: the simulator worker it ran in.
        faults: why that worker was replaced meanwhile, a line each time.
        score: how much of the task was done, from 0 to 1, where the simulator measures it.
        broken: its physics broke down, and that ended it.
    """

    planned: Planned
    head: np.ndarray
    wrist: np.ndarray
    proprio: np.ndarray
    acted: Rows
    rewards: np.ndarray
    executed: np.ndarray
    success: bool
    terminated: bool
    truncated: bool
    bootstrap_value: float
    worker: int
    faults: list[str]
    score: float | None = None
    broken: bool = False

    @property
    def decisions(self) -> int:
        """D."""
        return len(self.executed)

    @property
    def steps(self) -> int:
        """Executed actions."""
        return int(self.executed.sum())

    @property
    def reward(self) -> float:
        """Undiscounted sum of the rewards."""
        return float(self.rewards[self.executed].sum())

    def forget_images(self) -> None:
        """Free the memory of what nobody will look at again."""
        self.head = self.wrist = np.zeros(0, np.uint8)


@dataclasses.dataclass(frozen=True)
class Sent:
    """Worlds that have been sent off.

    Attributes:
        ticket: what the simulators will answer.
        note: the answer -> what is noted of each decision, rows in the order of the worlds.
    """

    ticket: Ticket[Any]
    note: Callable[[Any], Rows]


class Actor(Protocol):
    """Who decides what worlds do."""

    def act(
        self,
        slots: Sequence[int],
        seen: Sequence[Observation],
        planned: Sequence[Planned],
        then: Sequence[Start | None],
    ) -> Sent:
        """Decide and send the worlds off.

        Args:
            slots: n worlds.
            seen: what each looks like, arrays without a leading axis.
            planned: the episode of each.
            then: what each begins should that end.
        """

    def judge(self, seen: Sequence[Observation], planned: Sequence[Planned]) -> list[float]:
        """Value what truncated episodes would have gone on from."""


@dataclasses.dataclass
class _World:
    """The episode that a slot is in, what its next decision will be made on, and its decisions so far."""

    planned: Planned
    seen: Observation
    rows: dict[str, list[np.ndarray]] = dataclasses.field(default_factory=dict)

    def add(self, **parts: np.ndarray) -> None:
        for name, part in parts.items():
            self.rows.setdefault(name, []).append(part)


class Player:
    """Plays planned episodes in one pool.

    Args:
        pool: the simulators.
        actor: who decides.
        groups: the pipeline's stages: while one group of worlds simulates, the actor decides for another.
        phases: where the seconds of the simulators, and of whoever takes the frames, are counted.
        shoot: takes what a chunk shows of a filmed episode: the episode, the outcome of the chunk, and its row there.
    """

    def __init__(
        self, pool: SimulatorPool, actor: Actor, *, groups: int, phases: Phases, shoot: Shoot | None = None
    ) -> None:
        self._pool, self._actor, self._groups, self._phases, self._shoot = pool, actor, groups, phases, shoot

    def play(self, plan: Sequence[Planned]) -> Iterator[Played]:
        """Play episodes; a slot whose episode has ended goes on with another as long as there is one.

        Args:
            plan: the episodes, the first ones first.

        Yields:
            Each episode once it has ended.
        """
        every = range(self._pool.num_envs)
        workers = [self._pool.worker_of(slot) for slot in every] if self._pool.spec.one_clock else None
        lineup = Lineup(plan, self._pool.num_envs, self._groups, workers)
        worlds: dict[int, _World] = {}
        sent: list[Sent | None] = [None] * self._groups
        begun = [self._begin(lineup, lineup.fill(group)) for group in range(self._groups)]
        for group, (slots, ticket) in enumerate(begun):
            self._arrive(slots, ticket, lineup, worlds)
            sent[group] = self._send(group, lineup, worlds)
        while not lineup.over:
            for group in range(self._groups):
                finished = self._take(group, sent[group], lineup, worlds)
                self._arrive(*self._begin(lineup, lineup.fill(group)), lineup, worlds)
                sent[group] = self._send(group, lineup, worlds)
                yield from finished

    def _begin(self, lineup: Lineup, slots: list[int]) -> tuple[list[int], Ticket[Observation] | None]:
        """Ask for worlds to be put at the start of the episodes that were dealt to them."""
        if not slots:
            return slots, None
        planned = [lineup.episode(slot) for slot in slots]
        episodes = [Episode(each.task, each.seed) for each in planned]
        return slots, self._pool.reset_async(slots, episodes, [each.film for each in planned])

    def _arrive(
        self, slots: list[int], ticket: Ticket[Observation] | None, lineup: Lineup, worlds: dict[int, _World]
    ) -> None:
        """Wait until worlds are where `_begin` wanted them."""
        if ticket is None:
            return
        with self._phases("simulate"):
            seen = self._pool.wait(ticket)
        for row, slot in enumerate(slots):
            worlds[slot] = _World(lineup.episode(slot), _row(seen, row))

    def _send(self, group: int, lineup: Lineup, worlds: dict[int, _World]) -> Sent | None:
        """Have the actor decide for a group; None when it has no episode."""
        slots = lineup.playing(group)
        if not slots:
            return None
        then = [
            None if each is None else Start(Episode(each.task, each.seed), each.film)
            for each in lineup.look_ahead(group)
        ]
        here = [worlds[slot] for slot in slots]
        for world in here:
            world.add(**vars(world.seen))
        return self._actor.act(slots, [world.seen for world in here], [world.planned for world in here], then)

    def _take(self, group: int, sent: Sent | None, lineup: Lineup, worlds: dict[int, _World]) -> list[Played]:
        """Note what a chunk brought to a group; returns the episodes that ended."""
        if sent is None:
            return []
        with self._phases("simulate"):
            stepped: Stepped = self._pool.wait(sent.ticket)
        slots, result = lineup.playing(group), stepped.result
        noted = sent.note(stepped)
        values = self._values(stepped, [worlds[slot].planned for slot in slots])
        finished = []
        for row, slot in enumerate(slots):
            world = worlds[slot]
            world.add(rewards=result.rewards[row], executed=result.executed[row])
            world.add(**{name: part[row] for name, part in noted.items()})
            if self._shoot is not None and world.planned.film:
                with self._phases("video"):
                    self._shoot(world.planned, result, row)
            seen = _row(stepped.observation, row)
            if not (result.terminated[row] or result.truncated[row]):
                world.seen = seen
                continue
            rows = {name: np.stack(parts) for name, parts in world.rows.items()}
            shown = {name: rows.pop(name) for name in ("head", "wrist", "proprio", "rewards", "executed")}
            finished.append(
                Played(
                    planned=world.planned,
                    **shown,
                    acted=rows,
                    success=bool(result.success[row]),
                    terminated=bool(result.terminated[row]),
                    truncated=not result.terminated[row],
                    bootstrap_value=values.get(row, 0.0),
                    worker=self._pool.worker_of(slot),
                    faults=stepped.faults[row],
                    broken=result.broken is not None and bool(result.broken[row]),
                    score=None if result.scores is None else float(result.scores[row]),
                )
            )
            del worlds[slot]
            followed = bool(stepped.restarted[row])
            lineup.end(slot, followed)
            if followed:
                worlds[slot] = _World(lineup.episode(slot), seen)
        return finished

    def _values(self, stepped: Stepped, planned: list[Planned]) -> dict[int, float]:
        """Values by which the returns of truncated episodes go on, by row."""
        rows = list(stepped.last)
        if not rows:
            return {}
        values = self._actor.judge(list(stepped.last.values()), [planned[row] for row in rows])
        return dict(zip(rows, values, strict=True))


def logged(path: Path, episodes: Iterable[Played]) -> Iterator[Played]:
    """Write a line for each episode as it ends, the faults of its worker among it.

    Args:
        path: the log, begun anew.
        episodes: the episodes.

    Yields:
        The same episodes.
    """
    # Unbuffered: one write(2) a line, so nothing is lost when the stage is killed.
    with path.open("wb", buffering=0) as file:
        for played in episodes:
            planned = played.planned
            line = {
                "index": planned.index,
                "task": planned.task,
                "seed": planned.seed,
                "split": split_of(planned.seed),
                "group": planned.group,
                "success": played.success,
                "return": played.reward,
                "steps": played.steps,
                "decisions": played.decisions,
                "worker": played.worker,
                "replayed": played.faults,
                "broken": played.broken,
            }
            file.write((json.dumps(line) + "\n").encode())
            yield played


def in_order(plan: Sequence[Planned], episodes: Iterable[Played]) -> Iterator[Played]:
    """Hold back episodes that ended early until all before them in the plan have ended."""
    early: dict[int, Played] = {}
    position = 0
    for played in episodes:
        early[played.planned.index] = played
        while position < len(plan) and plan[position].index in early:
            yield early.pop(plan[position].index)
            position += 1


def _row(seen: Observation, row: int) -> Observation:
    return Observation(seen.head[row], seen.wrist[row], seen.proprio[row])
