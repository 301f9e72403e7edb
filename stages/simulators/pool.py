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

import collections
import dataclasses
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import connection
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from stages.simulators.channel import Message
from stages.simulators.interface import Episode, Observation, SimulatorConfigError, SimulatorSpec
from stages.simulators.process import WorkerFault, WorkerOrder, WorkerProcess
from stages.simulators.replay import Command, History
from stages.simulators.tickets import Demonstrated, Stepped, Ticket, demonstrated, observation, stepped

__all__ = ["Demonstrated", "SimulatorLost", "SimulatorPool", "Stepped", "Ticket"]

CLOSE_SECONDS = 5.0  # for all workers together to close by themselves

logger = logging.getLogger(__name__)

T = TypeVar("T")


class SimulatorLost(RuntimeError):
    """A worker failed more often than `max_restarts` allows; the message holds its last words."""


@dataclasses.dataclass
class _Part:
    """The share of a ticket that one worker carries out: `rows` of the ticket are the worlds of `command`."""

    ticket: Ticket[Any]
    rows: list[int]
    command: Command


class _Worker:
    """A place in the pool for a worker process, and what is asked of whichever process holds it."""

    def __init__(self, order: WorkerOrder, first_slot: int) -> None:
        self.order = order
        self.first_slot = first_slot
        self.process = WorkerProcess(order)
        self.history = History()
        self.waiting: collections.deque[_Part] = collections.deque()
        self.current: _Part | None = None
        self.sent_at = 0.0
        self.restarts = 0
        self.peak_rss = 0

    def send(self, command: Command) -> None:
        self.sent_at = time.monotonic()
        self.process.send(command.verb, command.fields(), command.arrays())

    def receive(self) -> Message:
        message = self.process.receive()
        self.peak_rss = max(self.peak_rss, message.fields["peak_rss"])
        return message


class SimulatorPool:
    """`num_envs` worlds in `num_workers` processes; a world is named by its slot in `range(num_envs)`.

    A worker does one command at a time, in the order they were asked for. Use a pool from the thread that made it, and
    let that thread live as long as the pool: the kernel ends the workers when the thread ends.
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
            max_restarts: how often the process in one place may be replaced.
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
        self._timeout, self._start_timeout, self._max_restarts = timeout_s, start_timeout_s, max_restarts
        self._workers: list[_Worker] = []
        self._closed = False
        bounds = [num_envs * index // num_workers for index in range(num_workers + 1)]
        try:
            for index, (first, end) in enumerate(zip(bounds, bounds[1:], strict=False)):
                log = None if log_dir is None else log_dir / f"simulator-{index}.log"
                environment = environments[index] if environments else {}
                order = WorkerOrder(name, options, end - first, python or sys.executable, environment, log)
                self._workers.append(_Worker(order, first))
            specs = [self._first_spec(worker) for worker in self._workers]
        except BaseException:
            self.close()
            raise
        self.spec: SimulatorSpec = specs[0]
        self._owner = [worker for worker in self._workers for _ in range(worker.order.num_envs)]

    @property
    def restarts(self) -> int:
        """How many worker processes were replaced."""
        return sum(worker.restarts for worker in self._workers)

    @property
    def peak_rss(self) -> list[int]:
        """The most memory each worker held, in bytes."""
        return [worker.peak_rss for worker in self._workers]

    @property
    def pids(self) -> list[int]:
        """The process in each worker's place."""
        return [worker.process.process.pid for worker in self._workers]

    def reset(
        self, slots: Sequence[int], episodes: Sequence[Episode], film: Sequence[bool] | None = None
    ) -> Observation:
        """Put worlds at the start of episodes, see `reset_async`."""
        return self.wait(self.reset_async(slots, episodes, film))

    def observe(self, slots: Sequence[int]) -> Observation:
        """Look at worlds, see `observe_async`."""
        return self.wait(self.observe_async(slots))

    def step(self, slots: Sequence[int], actions: np.ndarray) -> Stepped:
        """Carry out a chunk of actions, see `step_async`."""
        return self.wait(self.step_async(slots, actions))

    def expert(self, slots: Sequence[int], length: int) -> Demonstrated:
        """Let the expert act, see `expert_async`."""
        return self.wait(self.expert_async(slots, length))

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
        # Numpy's integers would have to be known to the worker's numpy, Python's need not.
        plain = [Episode(episode.task, int(episode.seed)) for episode in episodes]
        return self._ask(Command("reset", slots, episodes=plain, film=[bool(flag) for flag in film]), observation)

    def observe_async(self, slots: Sequence[int]) -> Ticket[Observation]:
        """Ask what worlds look like now."""
        return self._ask(Command("observe", slots), observation)

    def step_async(self, slots: Sequence[int], actions: np.ndarray) -> Ticket[Stepped]:
        """Ask for a chunk of actions to be carried out and the worlds to be observed after it.

        Args:
            slots: n worlds.
            actions: float32 [n, K, A] in [-1, 1].
        """
        actions = np.array(actions, np.float32)  # kept for replays, so a copy
        if actions.ndim != 3 or (actions.shape[0], actions.shape[2]) != (len(slots), self.spec.action_dim):
            raise ValueError(f"actions are {list(actions.shape)}, wanted [{len(slots)}, K, {self.spec.action_dim}]")
        if not np.isfinite(actions).all():
            raise ValueError("actions hold NaN or infinity")
        return self._ask(Command("step", slots, actions=actions), stepped)

    def expert_async(self, slots: Sequence[int], length: int) -> Ticket[Demonstrated]:
        """Ask for the expert to act for a chunk of `length` actions and the worlds to be observed after it."""
        return self._ask(Command("expert", slots, length=int(length)), demonstrated)

    def wait(self, ticket: Ticket[T]) -> T:
        """Return the answer to a ticket, keeping every worker busy meanwhile.

        Raises:
            SimulatorConfigError: the simulator refused it.
            SimulatorLost: a worker failed too often; the pool can only be closed.
        """
        while ticket.missing:
            if self._closed:
                raise RuntimeError("the simulator pool was closed before it answered")
            self._turn()
        return ticket.answer()

    def close(self) -> None:
        """Ask the workers to close, wait briefly, then kill what is left. Never hangs; may be called twice."""
        if self._closed:
            return
        self._closed = True
        asked = []
        for worker in self._workers:
            if worker.current is None:
                try:
                    worker.process.send("close", {})
                    asked.append(worker.process)
                except WorkerFault:
                    continue  # already gone, which is what closing is for
        deadline = time.monotonic() + CLOSE_SECONDS
        while (asked := [process for process in asked if process.running()]) and time.monotonic() < deadline:
            time.sleep(0.005)
        for worker in self._workers:
            worker.process.kill()

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
        ticket = Ticket(len(slots), finish)
        shares: dict[_Worker, list[int]] = {}
        for row, slot in enumerate(slots):
            shares.setdefault(self._owner[slot], []).append(row)
        for worker, rows in shares.items():
            share = command.rows(rows)
            share = dataclasses.replace(share, slots=[int(slot) - worker.first_slot for slot in share.slots])
            worker.waiting.append(_Part(ticket, rows, share))
            ticket.missing += 1
            self._send_next(worker)
        return ticket

    def _turn(self) -> None:
        """Wait until a worker answers or is overdue, and deal with it."""
        busy = {worker.process.channel.connection: worker for worker in self._workers if worker.current is not None}
        deadline = min(worker.sent_at for worker in busy.values()) + self._timeout
        connection.wait(list(busy), max(0.0, deadline - time.monotonic()))
        for line, worker in busy.items():
            # An answer counts even when it is late: this side may have been away, with the policy or another worker.
            if line.poll():
                self._collect(worker)
            elif time.monotonic() >= worker.sent_at + self._timeout:
                self._replace(worker, WorkerFault(f"it did not answer for {self._timeout:g} s"))

    def _collect(self, worker: _Worker) -> None:
        part = worker.current
        assert part is not None
        try:
            part.ticket.fill(part.rows, worker.receive())
        except WorkerFault as fault:
            self._replace(worker, fault)
            return
        except SimulatorConfigError as error:
            part.ticket.error = error
        else:
            worker.history.record(part.command)
        part.ticket.missing -= 1
        worker.current = None
        self._send_next(worker)

    def _send_next(self, worker: _Worker) -> None:
        if worker.current is None and worker.waiting:
            worker.current = worker.waiting.popleft()
            try:
                worker.send(worker.current.command)
            except WorkerFault as fault:
                self._replace(worker, fault)

    def _replace(self, worker: _Worker, fault: WorkerFault) -> None:
        """Put a new process in a worker's place, bring its worlds back to where they were, ask again what was asked."""
        while True:
            self._count(worker, fault)
            worker.process.kill()
            worker.process = WorkerProcess(worker.order)
            try:
                worker.process.ready(self._start_timeout)
                for command in worker.history:
                    worker.send(command)
                    if not worker.process.channel.connection.poll(self._timeout):
                        raise WorkerFault(f"it did not answer for {self._timeout:g} s")
                    worker.receive()
                if worker.current is not None:
                    worker.send(worker.current.command)
                return
            except WorkerFault as again:
                fault = again

    def _count(self, worker: _Worker, fault: WorkerFault) -> None:
        """Count a restart, unless there were too many."""
        place = f"simulator worker {self._workers.index(worker)} ({worker.order.name})"
        if worker.restarts >= self._max_restarts:
            tail = worker.process.tail()
            words = f"\nThe last it printed:\n{tail}" if tail else ""
            raise SimulatorLost(f"{place} failed after {worker.restarts} restarts: {fault}{words}") from fault
        worker.restarts += 1
        logger.warning("%s is replaced, restart %d of %d: %s", place, worker.restarts, self._max_restarts, fault)

    def _first_spec(self, worker: _Worker) -> SimulatorSpec:
        """Wait for a worker to come up for the first time; one that says why it cannot is not tried again."""
        while True:
            try:
                return worker.process.ready(self._start_timeout)
            except WorkerFault as fault:
                if fault.reported:
                    raise SimulatorLost(f"simulator {worker.order.name} does not start: {fault}") from fault
                self._count(worker, fault)
                worker.process.kill()
                worker.process = WorkerProcess(worker.order)
