"""A place in a pool for one worker process after another, and the way each of them goes."""

from __future__ import annotations

import collections
import dataclasses
import logging
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Literal

import numpy as np

from stages.simulators.channel import Message
from stages.simulators.interface import Episode, SimulatorConfigError, SimulatorSpec
from stages.simulators.process import WorkerFault, WorkerOrder, WorkerProcess
from stages.simulators.replay import Command, History
from stages.simulators.tickets import Part

TRIES = 3  # a command that ends so many processes in a row will end the next one too
NAMED = 2  # episodes named in an error

logger = logging.getLogger(__name__)


class SimulatorLost(RuntimeError):
    """A worker failed more often than it may; the message says at what, in one line.

    Attributes:
        details: the simulator's traceback or the last it printed; empty if there is neither.
    """

    def __init__(self, message: str, details: str) -> None:
        """Keep both."""
        super().__init__(message)
        self.details = details


@dataclasses.dataclass(frozen=True)
class Limits:
    """What is borne with in a worker.

    Attributes:
        timeout: seconds it may take for one command before it counts as hung.
        start_timeout: seconds it may take to come up.
        max_restarts: how often the process in one place may be replaced because it failed.
        recycle_episodes: episodes after which a process is replaced because it is old; None: never.
    """

    timeout: float
    start_timeout: float
    max_restarts: int
    recycle_episodes: int | None


class Place:
    """A place for a worker process, and what is asked of whichever process holds it.

    A process comes up, catches up with what the worlds of the place have done since their resets, then carries out what
    is asked, one command at a time and in order. When it fails, another takes its place and goes the same way. Nothing
    here waits: `attend` is called when there may be something to see.
    """

    def __init__(self, index: int, order: WorkerOrder, first_slot: int, limits: Limits) -> None:
        """Start a process.

        Args:
            index: of the place in its pool.
            order: how to start a process.
            first_slot: its first world, as the pool counts them.
            limits: what is borne with.

        Raises:
            SimulatorConfigError: the interpreter cannot be run.
        """
        self.index, self.order, self.first_slot = index, order, first_slot
        self.spec: SimulatorSpec | None = None
        self.restarts = 0
        self.recycled = 0
        self.peak_rss = 0
        self._limits = limits
        self._history = History()
        self._asked: collections.deque[tuple[Command, Part]] = collections.deque()
        self._behind: collections.deque[Command] = collections.deque()
        self._doing: Literal["start", "catch up", "answer"] | None = None
        self._since = 0.0
        self._failed_in_a_row = 0
        self._begun = 0  # episodes, by the process that is here
        self._faults: list[str] = []
        self._faults_before: dict[int, int] = {}  # how many there were when the episode of a world was asked for
        self.process = WorkerProcess(order)
        self._begin()

    @property
    def busy(self) -> bool:
        """Whether something is expected of the process."""
        return self._doing is not None

    @property
    def line(self) -> Connection:
        """Where its answer will arrive."""
        return self.process.channel.connection

    @property
    def deadline(self) -> float:
        """When the process has to be done with what it does, on the monotonic clock."""
        return self._since + (self._limits.start_timeout if self._doing == "start" else self._limits.timeout)

    def ask(self, command: Command, part: Part) -> None:
        """Have a command carried out behind those asked for before.

        Args:
            command: slots are counted within the place.
            part: where the answer goes.

        Raises:
            SimulatorLost: the process failed too often.
        """
        if command.verb == "reset":
            self._faults_before |= dict.fromkeys(command.slots, len(self._faults))
        self._asked.append((command, part))
        self._go_on()

    def attend(self) -> None:
        """Take the process's answer if it is there, or give the process up if it is overdue.

        Raises:
            SimulatorConfigError: the simulator refuses its options.
            SimulatorLost: the process failed too often.
        """
        answered = None
        try:
            # An answer counts even when it is late: this side may have been away, with the policy or another worker.
            if self.line.poll():
                answered = self._take()
                self._doing = None
            elif time.monotonic() >= self.deadline:
                waited = time.monotonic() - self._since
                raise WorkerFault(
                    f"it was not up after {waited:.0f} s" if self._doing == "start" else f"no answer for {waited:.0f} s"
                )
        except WorkerFault as fault:
            self._replace(fault)
        self._go_on()
        if answered is not None:  # copied while the process is at what comes next
            part, message = answered
            part.ticket.fill(part.rows, message)
            part.ticket.missing -= 1

    def _begin(self) -> None:
        """The process that is here is a fresh one."""
        self._doing, self._since, self._begun = "start", time.monotonic(), 0
        self._behind = collections.deque(self._history)

    def _go_on(self) -> None:
        """Have the process do what comes next, unless it is at work."""
        while self._doing is None:
            old = self._limits.recycle_episodes
            if self._behind:
                self._doing, command = "catch up", self._behind[0]
            elif old is not None and self._begun >= old:
                self.recycled += 1
                self._renew()
                return
            elif self._asked:
                self._doing, command = "answer", self._asked[0][0]
            else:
                return
            self._since = time.monotonic()
            try:
                self.process.send(command.verb, command.fields(), command.arrays())
            except WorkerFault as fault:
                self._replace(fault)

    def _take(self) -> tuple[Part, Message] | None:
        """Take an answer, returned where somebody waits for it; nothing is noted of one that is no good."""
        try:
            message = self.process.receive()
        except SimulatorConfigError as error:
            if self._doing != "answer":
                raise
            _, part = self._asked.popleft()
            part.ticket.error = error
            part.ticket.missing -= 1
            return None
        self.peak_rss = max(self.peak_rss, message.fields["peak_rss"])
        if self._doing == "start":
            self.spec = message.fields["spec"]
        elif self._doing == "catch up":
            self._refuse_nan(self._behind[0], message)
            self._behind.popleft()
        else:
            command, part = self._asked[0]
            self._refuse_nan(command, message)
            self._asked.popleft()
            self._failed_in_a_row = 0
            for row, slot in zip(part.rows, command.slots, strict=True):
                part.ticket.faults[row] = self._faults[self._faults_before.get(slot, 0) :]
            self._note(command, message)
            return part, message
        return None

    def _note(self, command: Command, message: Message) -> None:
        """Remember what was done, and the episodes that began by it."""
        restarted = np.flatnonzero(message.arrays["restarted"]).tolist() if "restarted" in message.arrays else []
        self._history.record(command, restarted)
        self._faults_before |= {command.slots[row]: len(self._faults) for row in restarted}
        self._begun += len(restarted) + len(command.starts)

    def _replace(self, fault: WorkerFault) -> None:
        """Put another process in the place of one that failed, unless too many have."""
        name = f"simulator worker {self.index} ({self.order.name})"
        details = fault.traceback or self.process.tail()
        if self.spec is None and fault.traceback:  # it said why it cannot come up, and would say so again
            raise SimulatorLost(f"simulator {self.order.name} does not start: {fault}", details) from fault
        self._faults.append(str(fault))
        self._failed_in_a_row += 1
        hopeless = self._failed_in_a_row >= TRIES
        if hopeless or self.restarts >= self._limits.max_restarts:
            times = f"{TRIES} times in a row" if hopeless else f"after {self.restarts} restarts"
            raise SimulatorLost(f"{name} failed {times}, at last {self._work()}: {fault}", details) from fault
        self.restarts += 1
        allowed = self._limits.max_restarts
        logger.warning("%s is replaced, restart %d of %d, %s: %s", name, self.restarts, allowed, self._work(), fault)
        self._renew()

    def _renew(self) -> None:
        self.process.kill()
        self.process = WorkerProcess(self.order)
        self._begin()

    def _refuse_nan(self, command: Command, message: Message) -> None:
        for name, array in message.arrays.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                last = name.startswith("last/")
                row = int(name.split("/")[1]) if last else int(np.argwhere(~np.isfinite(array))[0][0])
                episode = self._episodes(command)[row]
                if name == "proprio" and (start := command.then[row] if command.then else None) is not None:
                    episode = start.episode if message.arrays["restarted"][row] else episode
                raise WorkerFault(f"NaN or infinity in {name.split('/')[-1]} of {_named([episode])}")

    def _work(self) -> str:
        """What the process was doing, in words."""
        if self._doing == "start":
            return "coming up"
        command = self._behind[0] if self._doing == "catch up" else self._asked[0][0]
        if command.verb == "borrow":
            return "opening the stage's memory on the GPU"
        verb = {"reset": "resetting to", "observe": "looking at", "step": "stepping", "expert": "playing the expert in"}
        follow = [start.episode for start in command.then if start is not None]
        then = f", then resetting to {_named(follow)}" if follow else ""
        return f"{verb[command.verb]} {_named(self._episodes(command))}{then}"

    def _episodes(self, command: Command) -> list[Episode | None]:
        if command.starts:
            return [start.episode for start in command.starts]
        return [self._history.episode(slot) for slot in command.slots]


def _named(episodes: Sequence[Episode | None]) -> str:
    """Some episodes in words."""
    named = [f"task {each.task!r} from seed {each.seed}" for each in episodes if each is not None]
    more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
    return ", ".join(named[:NAMED]) + more if named else "no episode"
