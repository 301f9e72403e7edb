"""One orchestrator a run: a lease file that says who holds it.

On the holder's own machine the lease is stale when that process is gone. From another machine it is stale when its
modification time does not change for a while, measured by the clock of the one who looks: clocks of two machines are
never compared.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import UserError
from slurm import client, processes
from slurm.launcher import LaunchError, TryLater
from slurm.states import State, state_of

FILE = "lease.json"
BEAT_SECONDS = 5.0
PATIENCE_SECONDS = 60.0


class Holder(BaseModel):
    """Who holds the lease of a run; `job` where it is a Slurm job."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    host: str
    pid: int
    process: str
    token: str
    job: str = ""

    def __str__(self) -> str:
        """For messages."""
        return f"process {self.pid} on {self.host}" + (f" (job {self.job})" if self.job else "")


def holder(run: Path) -> Holder | None:
    """Who drives a run, as far as can be told at a glance.

    Args:
        run: the run directory.

    Returns:
        The holder of the lease; None if nobody holds it, or a process of this machine that is gone.
    """
    found = _read(run / FILE)
    if found is None or (found.host == socket.gethostname() and not processes.alive(found.process)):
        return None
    return found


class Lease:
    """The right to drive a run, for a `with` block."""

    def __init__(self, run: Path, say: Callable[[str], None], patience: float = PATIENCE_SECONDS) -> None:
        """Prepare; nothing is taken yet.

        Args:
            run: the run directory.
            say: shows one line to the user.
            patience: seconds without a heartbeat after which another machine's lease is stale.
        """
        self._run, self._path, self._say, self._patience = run, run / FILE, say, patience
        process = processes.identity(os.getpid())
        assert process is not None
        self._own = Holder(
            host=socket.gethostname(),
            pid=os.getpid(),
            process=process,
            token=uuid.uuid4().hex,
            job=os.environ.get("SLURM_JOB_ID", ""),
        )
        self._beaten = 0.0

    def __enter__(self) -> Lease:
        """Take the lease.

        Raises:
            UserError: another orchestrator holds it.
        """
        while not self._create():
            found = _read(self._path)
            if found is None:
                continue  # released meanwhile
            if not self._stale(found):
                raise self._held(found)
            self._remove(found)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back, if it is still ours."""
        if _read(self._path) == self._own:
            self._path.unlink(missing_ok=True)

    def beat(self) -> None:
        """Show that the holder lives; cheap enough for every turn of a loop.

        Raises:
            UserError: somebody else has taken the lease.
        """
        if time.monotonic() - self._beaten < BEAT_SECONDS:
            return
        self._beaten = time.monotonic()
        found = _read(self._path)
        if found == self._own:
            os.utime(self._path)
        elif found is not None or not self._create():
            raise self._held(found)

    def _create(self) -> bool:
        """Link a complete file into place, which fails if one is there: a torn lease cannot exist."""
        partial = self._path.with_name(f".{FILE}.{self._own.token}")
        partial.write_text(self._own.model_dump_json())
        try:
            os.link(partial, self._path)
        except FileExistsError:
            return False
        finally:
            partial.unlink()
        return True

    def _remove(self, stale: Holder) -> None:
        """Move a stale lease away; if a rival has replaced it meanwhile, put the rival's back."""
        aside = self._path.with_name(f".{FILE}.{self._own.token}.stale")
        try:
            os.rename(self._path, aside)
        except FileNotFoundError:
            return
        moved = _read(aside)
        if moved != stale:
            os.link(aside, self._path)
        aside.unlink()

    def _stale(self, found: Holder) -> bool:
        if found.host == self._own.host:
            return not processes.alive(found.process)
        if found.job and _job_is_over(found.job):
            return True
        self._say(f"{self._run} is held by {found}; waiting up to {self._patience:.0f} s to see whether it lives")
        first, deadline = _modified(self._path), time.monotonic() + self._patience
        while time.monotonic() < deadline:
            time.sleep(min(1.0, self._patience / 10))
            if _modified(self._path) != first:
                return False
        return True

    def _held(self, found: Holder | None) -> UserError:
        return UserError(
            f"{self._run} is already driven by {found or 'another process'}: watch it with `baton status {self._run}`, "
            f"or stop that process first (units that run go on)"
        )


def _read(path: Path) -> Holder | None:
    try:
        return Holder.model_validate(json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (ValidationError, json.JSONDecodeError):
        raise UserError(f"{path} cannot be read: if no orchestrator drives this run, delete it") from None


def _job_is_over(job: str) -> bool:
    """Whether Slurm says so; without an answer it may yet live."""
    try:
        return not any(entry.id == job and state_of(entry.state) is State.RUNNING for entry in client.queue())
    except (client.Unanswered, LaunchError, TryLater):
        return False


def _modified(path: Path) -> int | None:
    """Modification time in ns. Opening first makes a network file system ask the server."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None
