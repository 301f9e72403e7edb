"""What went wrong in a run: every attempt that was not published, why, and what it cost."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from pydantic import ValidationError

from pipeline import jobs
from pipeline.artifacts import Unit
from pipeline.errors import UserError
from pipeline.failures import CAUSES


@dataclasses.dataclass(frozen=True)
class Setback:
    """An attempt that came to nothing.

    Attributes:
        time: Unix seconds of its end.
        unit: what was tried.
        attempt: its number.
        what: how it ended, in words.
        error: what it said; empty where it said nothing.
        node: where it ran, as far as known.
        seconds: how long it ran, without the time in the queue; None where nobody knows.
    """

    time: float
    unit: Unit
    attempt: int
    what: str
    error: str
    node: str
    seconds: float | None


@dataclasses.dataclass(frozen=True)
class Redone:
    """Results that were put aside.

    Attributes:
        name: what was put aside, with the time.
        reason: why.
    """

    name: str
    reason: str


def ends(run: Path) -> list[jobs.Record]:
    """Every end of an attempt in `jobs.jsonl`, oldest first.

    Raises:
        UserError: a line cannot be read.
    """
    path = run / jobs.FILE
    try:
        lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last newline is torn
    except FileNotFoundError:
        return []
    found = []
    for number, line in enumerate(lines, 1):
        if b'"ended"' not in line:
            continue
        try:
            record = jobs.Record.model_validate_json(line)
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            raise UserError(f"{path}, line {number} cannot be read ({message}): delete it") from None
        if record.event == "ended":
            found.append(record)
    return found


def setbacks(records: list[jobs.Record]) -> list[Setback]:
    """The attempts that were not published, newest first.

    Args:
        records: as `ends` has them.
    """
    return [
        Setback(
            record.time,
            Unit.parse(record.unit),
            record.attempt,
            _words(record),
            record.error or "",
            record.node,
            None if record.seconds is None else max(record.seconds - (record.queued or 0.0), 0.0),
        )
        for record in reversed(records)
        if record.outcome != "published"
    ]


def redone(run: Path) -> list[Redone]:
    """Published results that somebody had made again, oldest first."""
    return [
        Redone(re.sub(r"^\d{8}T[\d.]+-", "", path.stem), path.read_text(encoding="utf-8", errors="replace").strip())
        for path in sorted((run / "superseded").glob("*.reason"))
    ]


def _words(record: jobs.Record) -> str:
    if record.outcome == "failed":
        return CAUSES[record.cause or "crash"]
    return {"refused": "was refused", "unsubmitted": "never became a job", "cancelled": "was cancelled"}.get(
        record.outcome or "", "ended"
    )
