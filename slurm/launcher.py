"""How a unit of work gets onto a machine: what is asked for, what a job is, and what every launcher can do.

`slurm.batch` submits to Slurm, `slurm.local` starts processes of this machine, `slurm.steps` starts steps inside a
held allocation, and `slurm.residents` hands work to stages that stay up.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from slurm.options import Options
from slurm.states import Cause, State

KEY_VARIABLE = "BATON_KEY"
LOG, SCRIPT, EXIT = "log.txt", "sbatch.sh", "exit"
STOPPED = 75  # exit code of a stage that was told to stop and wants to be started again (EX_TEMPFAIL)


class LaunchError(Exception):
    """A job cannot be submitted as it is asked for; one line for the user."""


class TryLater(Exception):
    """Nothing was submitted; the same request may succeed later. One line for the user."""


@dataclasses.dataclass(frozen=True)
class Seat:
    """A place among machines that are all ours.

    Attributes:
        node: index of the first machine.
        devices: indices of the GPUs on each machine.
    """

    node: int = 0
    devices: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Request:
    """A job to be submitted, or a family of jobs that differ in an index only.

    In `key`, `arguments` and `folder` of a family `%a` stands for the index and `%4a` for it with four digits, as in
    Slurm's own file names.

    Attributes:
        key: identifies the work; two jobs never carry the same one.
        name: what people see in a queue.
        module: dotted name of the module to run.
        arguments: its command line.
        folder: existing directory for the job's log and script, used by no other job.
        environment: variables set beside those of this process.
        options: what is asked of the scheduler.
        tasks: processes started, each a rank.
        nodes: machines they are spread over evenly.
        cpus: CPU cores of each task.
        gpus: GPUs on each machine.
        gpu_type: which kind.
        seats: where the launcher may choose: the first of its machines and its GPUs on each, for every job.
        indices: of the family; empty for one job.
        after: ids of jobs that must have succeeded before.
        resident: names the stage that stays up for such work; None where each unit starts a process.
    """

    key: str
    name: str
    module: str
    arguments: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str]
    options: Options
    tasks: int = 1
    nodes: int = 1
    cpus: int = 1
    gpus: int = 0
    gpu_type: str | None = None
    seats: tuple[Seat, ...] = ()
    indices: tuple[int, ...] = ()
    after: tuple[str, ...] = ()
    resident: str | None = None

    def members(self) -> dict[str, Request]:
        """The single requests of a family by key; of one job itself."""
        if not self.indices:
            return {self.key: self}
        seats = self.seats or (Seat(),) * len(self.indices)
        single = [
            dataclasses.replace(
                self,
                key=fill(self.key, index),
                arguments=tuple(fill(argument, index) for argument in self.arguments),
                folder=Path(fill(str(self.folder), index)),
                resident=None if self.resident is None else fill(self.resident, index),
                seats=(seat,),
                indices=(),
            )
            for index, seat in zip(self.indices, seats, strict=True)
        ]
        return {request.key: request for request in single}

    @property
    def seat(self) -> Seat:
        """The seat of one job."""
        return self.seats[0] if self.seats else Seat()


@dataclasses.dataclass(frozen=True)
class Job:
    """A submitted job.

    Attributes:
        key: of its request.
        id: names it to the launcher, now and in any later process.
        host: the machine that submitted it, `slurm` where any machine of the cluster can see it.
    """

    key: str
    id: str
    host: str


@dataclasses.dataclass(frozen=True)
class Sight:
    """What a launcher sees of a job.

    Attributes:
        state: the word the orchestrator acts on.
        detail: what the scheduler calls it, and why it waits; empty where there is no scheduler.
        node: where it runs or ran.
        queued: seconds it waited, as far as known.
        seconds: seconds it has run.
        cause: of an end without success.
        starts_at: Unix time at which the scheduler expects to start it.
    """

    state: State
    detail: str = ""
    node: str = ""
    queued: float | None = None
    seconds: float | None = None
    cause: Cause | None = None
    starts_at: float | None = None


class Launcher(Protocol):
    """Submits jobs and knows about all of them, whoever submitted them."""

    def submit(self, request: Request) -> dict[str, Job]:
        """Submit a job or a family.

        Returns:
            Key -> job.

        Raises:
            LaunchError: it will never be accepted as it is.
            TryLater: it may be accepted later.
        """

    def poll(self, jobs: Sequence[Job]) -> dict[str, Sight]:
        """What is seen of every job, by its key, from one look."""

    def hurry(self) -> None:
        """There are signs that a job has ended: do not wait long with the next look."""

    def find(self, prefix: str) -> dict[str, Job]:
        """Live jobs by key, for keys that start with `prefix`."""

    def cancel(self, jobs: Sequence[Job]) -> None:
        """End jobs and everything they started; returns when nothing of them is left."""

    def tidy(self, jobs: Sequence[Job]) -> None:
        """End what jobs that have ended left behind."""

    def close(self) -> None:
        """No more work comes: let go of what is kept for it."""


def fill(pattern: str, index: int) -> str:
    """Put an index in the place of `%a` and `%4a`."""
    return re.sub(r"%(\d*)a", lambda found: str(index).zfill(int(found[1] or 0)), pattern)
