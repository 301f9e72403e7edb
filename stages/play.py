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
from stages.simulators.tickets import IMAGES_AND_PROPRIO

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
        seen: Observation,
        planned: Sequence[Planned],
        then: Sequence[Start | None],
    ) -> Sent:
        """Decide and send the worlds off.

        Args:
            slots: n worlds.
            seen: what they look like; nobody may change it.
            planned: the episode of each.
            then: what each begins should that end.
        """

    def judge(self, seen: Observation, planned: Sequence[Planned]) -> list[float]:
        """Value what truncated episodes would have gone on from."""


@dataclasses.dataclass
class _Turn:
    """What the worlds of a group saw, did and got at once: parts of [n, ...], and the row of each slot."""

    rows: dict[int, int]
    parts: Rows


@dataclasses.dataclass
class _World:
    """The episode that a slot is in, and the turns that it has taken."""

    planned: Planned
    turns: list[_Turn] = dataclasses.field(default_factory=list)


_Shown = list[tuple[Sequence[int], Observation]]
"""What slots of a group look like since its last turn; the later it came, the truer it is."""


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
        shown: list[_Shown] = [[] for _ in range(self._groups)]
        begun = [self._begin(lineup, lineup.fill(group)) for group in range(self._groups)]
        sent: list[tuple[_Turn, Sent] | None] = []
        for group, asked in enumerate(begun):
            self._arrive(*asked, lineup, worlds, shown[group])
            sent.append(self._send(group, lineup, worlds, shown[group]))
        while not lineup.over:
            for group in range(self._groups):
                finished = self._take(sent[group], lineup, worlds, shown[group])
                self._arrive(*self._begin(lineup, lineup.fill(group)), lineup, worlds, shown[group])
                sent[group] = self._send(group, lineup, worlds, shown[group])
                yield from finished

    def _begin(self, lineup: Lineup, slots: list[int]) -> tuple[list[int], Ticket[Observation] | None]:
        """Ask for worlds to be put at the start of the episodes that were dealt to them."""
        if not slots:
            return slots, None
        planned = [lineup.episode(slot) for slot in slots]
        episodes = [Episode(each.task, each.seed) for each in planned]
        return slots, self._pool.reset_async(slots, episodes, [each.film for each in planned])

    def _arrive(
        self,
        slots: list[int],
        ticket: Ticket[Observation] | None,
        lineup: Lineup,
        worlds: dict[int, _World],
        shown: _Shown,
    ) -> None:
        """Wait until worlds are where `_begin` wanted them."""
        if ticket is None:
            return
        with self._phases("simulate"):
            shown.append((slots, self._pool.wait(ticket)))
        worlds.update((slot, _World(lineup.episode(slot))) for slot in slots)

    def _send(self, group: int, lineup: Lineup, worlds: dict[int, _World], shown: _Shown) -> tuple[_Turn, Sent] | None:
        """Have the actor decide for a group; None when it has no episode."""
        slots = lineup.playing(group)
        if not slots:
            return None
        then = [
            None if each is None else Start(Episode(each.task, each.seed), each.film)
            for each in lineup.look_ahead(group)
        ]
        seen = _gathered(shown, slots)
        shown.clear()
        turn = _Turn({slot: row for row, slot in enumerate(slots)}, dict(vars(seen)))
        for slot in slots:
            worlds[slot].turns.append(turn)
        return turn, self._actor.act(slots, seen, [worlds[slot].planned for slot in slots], then)

    def _take(
        self, sent: tuple[_Turn, Sent] | None, lineup: Lineup, worlds: dict[int, _World], shown: _Shown
    ) -> list[Played]:
        """Note what a chunk brought to a group; returns the episodes that ended."""
        if sent is None:
            return []
        turn, asked = sent
        with self._phases("simulate"):
            stepped: Stepped = self._pool.wait(asked.ticket)
        slots, result = list(turn.rows), stepped.result
        turn.parts |= {"rewards": result.rewards, "executed": result.executed, **asked.note(stepped)}
        shown.append((slots, stepped.observation))
        planned = [worlds[slot].planned for slot in slots]
        values = self._values(stepped, planned)
        for row, each in enumerate(planned):
            if self._shoot is not None and each.film:
                with self._phases("video"):
                    self._shoot(each, result, row)
        ended = np.flatnonzero(result.terminated | result.truncated).tolist()
        whole = _whole({slots[row]: worlds.pop(slots[row]).turns for row in ended})
        finished = []
        for row in ended:
            slot = slots[row]
            parts = whole[slot]
            finished.append(
                Played(
                    planned=planned[row],
                    **{name: parts.pop(name) for name in (*IMAGES_AND_PROPRIO, "rewards", "executed")},
                    acted=parts,
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
            followed = bool(stepped.restarted[row])
            lineup.end(slot, followed)
            if followed:
                worlds[slot] = _World(lineup.episode(slot))
        return finished

    def _values(self, stepped: Stepped, planned: list[Planned]) -> dict[int, float]:
        """Values by which the returns of truncated episodes go on, by row."""
        rows = list(stepped.last)
        if not rows:
            return {}
        last = list(stepped.last.values())
        seen = Observation(*(np.stack([getattr(each, name) for each in last]) for name in IMAGES_AND_PROPRIO))
        values = self._actor.judge(seen, [planned[row] for row in rows])
        return dict(zip(rows, values, strict=True))


def _gathered(shown: _Shown, slots: list[int]) -> Observation:
    """What some slots look like, in their order; not copied where it came like that."""
    if len(shown) == 1 and shown[0][0] == slots:
        return shown[0][1]
    came = [slot for some, _ in shown for slot in some]
    last = {slot: place for place, slot in enumerate(came)}
    places = [last[slot] for slot in slots]
    came_as = ([getattr(seen, name) for _, seen in shown] for name in IMAGES_AND_PROPRIO)
    return Observation(*((parts[0] if len(parts) == 1 else np.concatenate(parts))[places] for parts in came_as))


def _whole(ended: dict[int, list[_Turn]]) -> dict[int, Rows]:
    """Cut episodes that ended in one turn out of all that they took: slot -> parts of [D, ...].

    Those of one length took the same turns and are copied together, because a copy an episode and turn costs more than
    what it copies.
    """
    whole: dict[int, Rows] = {slot: {} for slot in ended}
    for length in {len(turns) for turns in ended.values()}:
        slots = [slot for slot, turns in ended.items() if len(turns) == length]
        turns = ended[slots[0]]
        rows = [[turn.rows[slot] for slot in slots] for turn in turns]
        for name, first in turns[0].parts.items():
            cut = np.empty((length, len(slots), *first.shape[1:]), first.dtype)
            for turn, here, out in zip(turns, rows, cut, strict=True):
                # Without a mode that cannot fail numpy copies twice.
                np.take(turn.parts[name], here, axis=0, out=out, mode="clip")
            for place, slot in enumerate(slots):
                whole[slot][name] = cut[:, place]
    return whole


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
