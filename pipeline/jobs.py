"""`jobs.jsonl`: every submission and what became of it, one JSON object a line, only ever appended to."""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.artifacts import Unit
from pipeline.errors import UserError

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
        host: where the line was written.
        outcome: of an ended job. `refused`: a user's mistake; `unsubmitted`: no job ever came of it.
        error: why, where it was not published.
        seconds: from submission to the end, of an ended job.
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
    error: str | None = None
    seconds: float | None = None
    note: str = ""


@dataclasses.dataclass
class History:
    """What has been tried at one unit.

    Attributes:
        submissions: all of them, whatever became of them.
        failures: crashes that count towards `max_attempts`: since the session began or the unit was reset.
        open: the last submission if it has not ended.
        last: the end of the last submission, while it counts.
        began: Unix seconds of the last submission.
    """

    submissions: int = 0
    failures: int = 0
    open: Record | None = None
    last: Record | None = None
    began: float | None = None


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
    try:
        status = (run / FILE).stat()
    except FileNotFoundError:
        return {}
    return _fold(run / FILE, status.st_ino, status.st_size)


@functools.lru_cache(maxsize=4)
def _fold(path: Path, _inode: int, _size: int) -> dict[Unit, History]:
    found: dict[Unit, History] = {}
    for number, line in enumerate(
        path.read_bytes().split(b"\n")[:-1], start=1
    ):  # what follows the last newline is torn
        try:
            record = Record.model_validate_json(line)
        except ValidationError as error:
            raise UserError(f"{path}, line {number} cannot be read ({error.errors()[0]['msg']}): delete it") from None
        if record.event == "session":
            for history in found.values():
                history.failures, history.last = 0, None
            continue
        history = found.setdefault(Unit.parse(record.unit), History())
        if record.event == "submit":
            history.submissions += 1
            history.open, history.began = record, record.time
        elif record.event == "submitted":
            history.open = record
        elif record.event == "ended":
            history.open, history.last = None, record
            history.failures += record.outcome == "failed"
        else:
            found[Unit.parse(record.unit)] = History(submissions=history.submissions)
    return found
