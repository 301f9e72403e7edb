"""`jobs.jsonl`: every submission and what became of it, one JSON object a line, only ever appended to."""

from __future__ import annotations

import dataclasses
import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.artifacts import Unit
from pipeline.errors import UserError
from slurm.states import Cause

FILE = "jobs.jsonl"
Event = Literal["session", "submit", "submitted", "ended", "reset"]
Outcome = Literal["published", "failed", "refused", "unsubmitted", "cancelled"]


class Record(BaseModel):
    """One line.

    Attributes:
        event: `session`: an orchestrator began; `submit`: a job is about to be submitted; `submitted`: it was;
            `ended`: it has no process any more; `reset`: earlier tries at the unit count no longer.
        time: Unix seconds on the host that wrote it; for people.
        unit: its name; empty for a session.
        attempt: its number.
        key: what the job carries.
        job: the launcher's id of the job.
        host: where the line was written; of a submitted job where it can be seen from.
        outcome: of an ended job. `refused`: a user's mistake; `unsubmitted`: no job ever came of it.
        cause: of a failure.
        error: why, where it was not published.
        seconds: from submission to the end, of an ended job.
        queued: seconds of these before it started, as far as known.
        node: where it ran, as far as known.
        mem: memory that a reset gives the unit from then on.
        minutes: time limit that a reset gives the unit from then on.
        note: for people.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    event: Event
    time: float
    unit: str = ""
    attempt: int = 0
    key: str = ""
    job: str = ""
    host: str = ""
    outcome: Outcome | None = None
    cause: Cause | None = None
    error: str | None = None
    seconds: float | None = None
    queued: float | None = None
    node: str = ""
    mem: str | None = None
    minutes: int | None = None
    note: str = ""


@dataclasses.dataclass(frozen=True)
class History:
    """What has been tried at one unit.

    Attributes:
        submissions: all of them, whatever became of them.
        failures: ends by cause that count towards the limits: since the session began or the unit was reset.
        outgrown: ends for want of memory or time since the unit was reset; the next try may get more.
        open: the last submission if it has not ended.
        last: the end of the last submission, while it counts.
        began: Unix seconds of the last submission.
        mem: memory that a reset gave it.
        minutes: time limit that a reset gave it.
    """

    submissions: int = 0
    failures: Mapping[Cause, int] = dataclasses.field(default_factory=dict)
    outgrown: Mapping[Cause, int] = dataclasses.field(default_factory=dict)
    open: Record | None = None
    last: Record | None = None
    began: float | None = None
    mem: str | None = None
    minutes: int | None = None

    def after(self, record: Record) -> History:
        """This history with one more line about the unit."""
        if record.event == "submit":
            return dataclasses.replace(self, submissions=self.submissions + 1, open=record, began=record.time)
        if record.event == "submitted":
            return dataclasses.replace(self, open=record)
        if record.event == "reset":
            return History(submissions=self.submissions, mem=record.mem, minutes=record.minutes)
        ended = dataclasses.replace(self, open=None, last=record)
        if record.outcome != "failed":
            return ended
        cause: Cause = record.cause or "crash"
        grown = [cause] if cause in ("memory", "timeout") else []
        return dataclasses.replace(
            ended, failures=Counter(self.failures) + Counter([cause]), outgrown=Counter(self.outgrown) + Counter(grown)
        )

    def forgiven(self) -> History:
        """This history at the begin of a session: earlier failures count no longer."""
        return dataclasses.replace(self, failures={}, last=None)


def append(run: Path, event: Event, **fields: Any) -> None:
    """Write one line through to disk.

    Args:
        run: the run directory; the caller holds its lease.
        event: what happened.
        fields: the fields of `Record` that it has.
    """
    line = Record(event=event, time=time.time(), **fields).model_dump_json(exclude_defaults=True).encode() + b"\n"
    with (run / FILE).open("ab+") as file:
        # A writer killed half-way leaves a torn last line: nothing was done on its account, so it goes.
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        if size and file.read() != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def histories(run: Path) -> dict[Unit, History]:
    """What has been tried, by unit.

    Args:
        run: the run directory.

    Returns:
        Units with at least one submission.

    Raises:
        UserError: a line cannot be read.
    """
    path = run / FILE
    try:
        status = path.stat()
    except FileNotFoundError:
        return {}
    known = _Read.of.get(path)
    if known is None or known.inode != status.st_ino or known.size > status.st_size:
        known = _Read.of[path] = _Read(status.st_ino)
    if known.size < status.st_size:
        known.go_on(path)
    return dict(known.found)


class _Read:
    """What has been read of a file that only grows: a run of a thousand epochs must not be read anew at every line."""

    of: dict[Path, _Read] = {}

    def __init__(self, inode: int) -> None:
        self.inode, self.size, self.lines = inode, 0, 0
        self.found: dict[Unit, History] = {}

    def go_on(self, path: Path) -> None:
        with path.open("rb") as file:
            file.seek(self.size)
            whole = file.read().rpartition(b"\n")[0]  # what follows the last newline is torn
        if not whole:
            return
        for line in whole.split(b"\n"):
            self._take(path, line)
            self.lines += 1
            self.size += len(line) + 1

    def _take(self, path: Path, line: bytes) -> None:
        try:
            record = Record.model_validate_json(line)
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            raise UserError(f"{path}, line {self.lines + 1} cannot be read ({message}): delete it") from None
        if record.event == "session":
            self.found = {unit: history.forgiven() for unit, history in self.found.items()}
        else:
            unit = Unit.parse(record.unit)
            self.found[unit] = self.found.get(unit, History()).after(record)
