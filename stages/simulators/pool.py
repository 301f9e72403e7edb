"""A row of worlds spread over worker processes, which are replaced when they die, hang or return NaN.

    with SimulatorPool("household", options, num_envs=16, num_workers=4) as pool:
        observation = pool.reset(range(16), episodes)
        ticket = pool.step_async(range(8), actions)    # these worlds simulate ...
        ...                                            # ... while the policy decides for the other eight
        stepped = pool.wait(ticket)

A replaced worker's worlds are reset to their episodes and everything they did since is done again, so with a
deterministic simulator whatever a pool returns is, bit for bit, what it would have returned undisturbed. Where
`spec.deterministic` is False the same is done, but the worlds come back near the point they were lost at, not to it.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import connection
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

import numpy as np

from stages.simulators.interface import Episode, Gallery, Observation, SimulatorConfigError, SimulatorSpec
from stages.simulators.place import Limits, Place, SimulatorLost
from stages.simulators.process import WorkerFault, WorkerOrder
from stages.simulators.replay import Command, Start
from stages.simulators.tickets import Demonstrated, Part, Stepped, Ticket, demonstrated, observation, stepped

__all__ = ["Demonstrated", "SimulatorLost", "SimulatorPool", "Start", "Stepped", "Ticket"]

CLOSE_SECONDS = 5.0  # for all workers together to close by themselves

T = TypeVar("T")


class Lender(Protocol):
    """Who owns a gallery, for as long as it is lent."""

    @property
    def handle(self) -> bytes:
        """See `Gallery`."""


class SimulatorPool:
    """`num_envs` worlds in `num_workers` processes; a world is named by its slot in `range(num_envs)`.

    A worker does one command at a time, in the order they were asked for. Use a pool from the thread that made it, and
    let that thread live as long as the pool: the kernel ends the workers when the thread ends.

    Attributes:
        num_envs: worlds.
        spec: what the simulators tell of themselves.
        lent: the gallery that images hang in; observations then come with blank images. None: they come with them.
    """

    def __init__(
        self,
        name: str,
        options: Mapping[str, Any],
        num_envs: int,
        num_workers: int = 1,
        python: str | None = None,
        timeout_s: float = 300.0,
        start_timeout_s: float = 600.0,
        max_restarts: int = 3,
        recycle_episodes: int | None = None,
        log_dir: Path | None = None,
        environments: Sequence[Mapping[str, str]] = (),
    ) -> None:
        """Start the workers and wait until all are up.

        Args:
            name: simulator, as `stages.simulators.interface.make` takes it.
            options: the simulator's own options.
            num_envs: worlds; neighbours share a worker.
            num_workers: processes, at most one a world.
            python: interpreter of the simulator; None takes this one.
            timeout_s: seconds a worker may take for one command before it counts as hung.
            start_timeout_s: seconds a worker may take to come up.
            max_restarts: how often the process in one place may be replaced because it failed.
            recycle_episodes: episodes after which a process is replaced because it is old; None: never.
            log_dir: folder for `simulator-<worker>.log`; None leaves the workers' output where this process's goes.
            environments: variables set for each worker, e.g. `CUDA_VISIBLE_DEVICES`; empty: none.

        Raises:
            SimulatorConfigError: what is asked for does not exist.
            SimulatorLost: a worker did not come up.
        """
        if not 1 <= num_workers <= num_envs:
            raise SimulatorConfigError(
                f"{num_workers} simulator workers cannot share {num_envs} environments; ask for 1 to {num_envs}"
            )
        self.num_envs = num_envs
        self._places: list[Place] = []
        self._closed = False
        self.lent: Lender | None = None
        limits = Limits(timeout_s, start_timeout_s, max_restarts, recycle_episodes)
        bounds = [num_envs * index // num_workers for index in range(num_workers + 1)]
        try:
            for index, (first, end) in enumerate(zip(bounds, bounds[1:], strict=False)):
                log = None if log_dir is None else log_dir / f"simulator-{index}.log"
                environment = environments[index] if environments else {}
                order = WorkerOrder(name, options, end - first, python or sys.executable, environment, log)
                self._places.append(Place(index, order, first, limits))
            while any(place.spec is None for place in self._places):
                self._turn()
        except BaseException:
            self.close()
            raise
        spec = self._places[0].spec
        assert spec is not None
        self.spec: SimulatorSpec = spec
        self._owner = [place for place in self._places for _ in range(place.order.num_envs)]

    @property
    def gpu(self) -> str | None:
        """The GPU that all workers draw on, if it is one and images can stay there: see `SimulatorSpec.gpu`."""
        there = {place.spec.gpu for place in self._places if place.spec is not None}
        return there.pop() if len(there) == 1 else None

    @property
    def restarts(self) -> int:
        """How many worker processes were replaced because they failed."""
        return sum(place.restarts for place in self._places)

    @property
    def recycled(self) -> int:
        """How many worker processes were replaced because they were old."""
        return sum(place.recycled for place in self._places)

    @property
    def peak_rss(self) -> list[int]:
        """The most memory each worker held, in bytes."""
        return [place.peak_rss for place in self._places]

    @property
    def pids(self) -> list[int]:
        """The process in each worker's place."""
        return [place.process.process.pid for place in self._places]

    def worker_of(self, slot: int) -> int:
        """Return the worker that a world lives in."""
        return self._owner[slot].index

    def reset(
        self, slots: Sequence[int], episodes: Sequence[Episode], film: Sequence[bool] | None = None
    ) -> Observation:
        """Put worlds at the start of episodes, see `reset_async`."""
        return self.wait(self.reset_async(slots, episodes, film))

    def observe(self, slots: Sequence[int]) -> Observation:
        """Look at worlds, see `observe_async`."""
        return self.wait(self.observe_async(slots))

    def step(self, slots: Sequence[int], actions: np.ndarray, then: Sequence[Start | None] = ()) -> Stepped:
        """Carry out a chunk of actions, see `step_async`."""
        return self.wait(self.step_async(slots, actions, then))

    def expert(self, slots: Sequence[int], length: int, then: Sequence[Start | None] = ()) -> Demonstrated:
        """Let the expert act, see `expert_async`."""
        return self.wait(self.expert_async(slots, length, then))

    def reset_async(
        self, slots: Sequence[int], episodes: Sequence[Episode], film: Sequence[bool] | None = None
    ) -> Ticket[Observation]:
        """Ask for worlds to be put at the start of episodes and observed.

        Args:
            slots: n worlds.
            episodes: what each is reset to, n.
            film: whether each returns frames from then on, n; None films nothing.
        """
        film = [False] * len(slots) if film is None else film
        if not len(slots) == len(episodes) == len(film):
            raise ValueError(f"{len(slots)} slots, {len(episodes)} episodes and {len(film)} film flags")
        starts = [_plain(Start(episode, filmed)) for episode, filmed in zip(episodes, film, strict=True)]
        return self._ask(Command("reset", slots, starts=starts), observation)

    def observe_async(self, slots: Sequence[int]) -> Ticket[Observation]:
        """Ask what worlds look like now."""
        return self._ask(Command("observe", slots), observation)

    def step_async(
        self, slots: Sequence[int], actions: np.ndarray, then: Sequence[Start | None] = ()
    ) -> Ticket[Stepped]:
        """Ask for a chunk of actions to be carried out and the worlds to be observed after it.

        Args:
            slots: n worlds.
            actions: float32 [n, K, A] in [-1, 1].
            then: what each world is reset to should its episode end in this chunk, n; None and empty let it rest.
        """
        actions = np.array(actions, np.float32)  # kept for replays, so a copy
        if actions.ndim != 3 or (actions.shape[0], actions.shape[2]) != (len(slots), self.spec.action_dim):
            raise ValueError(f"actions are {list(actions.shape)}, wanted [{len(slots)}, K, {self.spec.action_dim}]")
        if not np.isfinite(actions).all():
            raise ValueError("actions hold NaN or infinity")
        return self._ask(Command("step", slots, actions=actions, then=_following(slots, then)), stepped)

    def expert_async(
        self, slots: Sequence[int], length: int, then: Sequence[Start | None] = ()
    ) -> Ticket[Demonstrated]:
        """Ask for the expert to act for a chunk of `length` actions, else as `step_async`."""
        return self._ask(Command("expert", slots, length=int(length), then=_following(slots, then)), demonstrated)

    def lend(self, lender: Lender) -> None:
        """Have the images of all worlds hung in a gallery from now on; the pool keeps what lends it.

        Raises:
            SimulatorConfigError: the simulators cannot open it.
        """
        ticket: Ticket[None] = Ticket(0, lambda _: None)
        for place in self._places:
            ticket.missing += 1
            gallery = Gallery(lender.handle, self.num_envs, place.first_slot)
            place.ask(Command("borrow", (), gallery=gallery), Part(ticket, ()))
        self.wait(ticket)
        self.lent = lender

    def wait(self, ticket: Ticket[T]) -> T:
        """Return the answer to a ticket, keeping every worker busy meanwhile.

        Raises:
            SimulatorConfigError: the simulator refused it, or to start again; only the latter closes the pool.
            SimulatorLost: a worker failed too often; the pool is closed.
        """
        while ticket.missing:
            if self._closed:
                raise RuntimeError("the simulator pool was closed before it answered")
            try:
                self._turn()
            except (SimulatorLost, SimulatorConfigError):
                self.close()
                raise
        return ticket.answer()

    def close(self) -> None:
        """Ask the workers to close, wait briefly, then kill what is left. Never hangs; may be called twice."""
        if self._closed:
            return
        self._closed = True
        asked = []
        for place in self._places:
            if not place.busy:
                try:
                    place.process.send("close", {})
                    asked.append(place.process)
                except WorkerFault:
                    continue  # already gone, which is what closing is for
        deadline = time.monotonic() + CLOSE_SECONDS
        while (asked := [process for process in asked if process.running()]) and time.monotonic() < deadline:
            time.sleep(0.005)
        for place in self._places:
            place.process.kill()

    def __enter__(self) -> SimulatorPool:
        """Use the pool in a `with` block, which closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the pool."""
        self.close()

    def _ask(self, command: Command, finish: Callable[[Ticket[T]], T]) -> Ticket[T]:
        """Share a command out to the workers that own its worlds, whose slots are counted within the pool."""
        if self._closed:
            raise RuntimeError("the simulator pool is closed")
        slots = [int(slot) for slot in command.slots]
        if len(set(slots)) != len(slots) or not set(slots) <= set(range(self.num_envs)):
            raise ValueError(f"slots {slots}: wanted different ones of 0 to {self.num_envs - 1}")
        ticket = Ticket(len(slots), finish, None if self.lent is None else self._blank(len(slots)))
        shares: dict[Place, list[int]] = {}
        for row, slot in enumerate(slots):
            shares.setdefault(self._owner[slot], []).append(row)
        for place, rows in shares.items():
            share = command if len(rows) == len(slots) else command.rows(rows)
            share = dataclasses.replace(share, slots=[int(slot) - place.first_slot for slot in share.slots])
            ticket.missing += 1
            place.ask(share, Part(ticket, rows))
        return ticket

    def _blank(self, count: int) -> dict[str, np.ndarray]:
        """Room for the images of n = `count` worlds that hang in the gallery."""
        looks = self.spec.looks()
        return {name: np.empty((count, *looks[name][1]), looks[name][0]) for name in ("head", "wrist")}

    def _turn(self) -> None:
        """Wait until a worker answers or is overdue, and see to it."""
        busy = [place for place in self._places if place.busy]
        deadline = min(place.deadline for place in busy)
        connection.wait([place.line for place in busy], max(0.0, deadline - time.monotonic()))
        for place in busy:
            place.attend()


def _following(slots: Sequence[int], then: Sequence[Start | None]) -> list[Start | None]:
    if then and len(then) != len(slots):
        raise ValueError(f"{len(slots)} slots and {len(then)} episodes that follow")
    return [None if start is None else _plain(start) for start in then]


def _plain(start: Start) -> Start:
    """The same in Python's own numbers: numpy's would have to be known to the worker's numpy."""
    return Start(Episode(start.episode.task, int(start.episode.seed)), bool(start.film))
