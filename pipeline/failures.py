"""What is said of a unit that failed: its cause, the end of its log and where that lies."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline import jobs
from pipeline.artifacts import attempt_directory, latest_incarnation
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.ledger import UnitState
from slurm.launcher import LOG
from slurm.states import Cause

LOG_LINES = 15
CAUSES: dict[Cause, str] = {
    "crash": "crashed",
    "memory": "ran out of memory",
    "timeout": "reached its time limit",
    "preempted": "was told to make room",
    "node": "lost its node",
    "cancelled": "was cancelled",
}
REMEDIES: dict[Cause, str] = {
    "memory": "give it more: `baton retry {run} --mem 64G`, or slurm.{stage}.mem and slurm.mem_growth",
    "timeout": "give it more: `baton retry {run} --time 8:00:00`, or slurm.{stage}.time and slurm.time_growth",
}


def explain(run: Path, config: Config, state: UnitState) -> str:
    """The lines for a unit that will not be tried again.

    Args:
        run: the run directory.
        config: its config.
        state: of the unit, which has failed.
    """
    assert state.attempt is not None
    history = jobs.histories(run)[state.unit]
    if history.last and history.last.outcome == "refused":
        return str(state.error)
    attempt = attempt_directory(run, state.unit, state.attempt)
    tail = "\n".join(f"  {line}" for line in log_lines(attempt, LOG_LINES))
    causes = ", ".join(f"{count} x {CAUSES[cause]}" for cause, count in history.failures.items())
    cause: Cause = (history.last.cause if history.last else None) or "crash"
    limit = f"max_attempts={config.max_attempts}"
    if cause in ("preempted", "node"):
        limit = f"slurm.max_requeues={config.slurm.max_requeues}"
    remedy = REMEDIES.get(cause, "the same command tries again").format(run=run, stage=state.unit.stage)
    return (
        f"{state.unit} failed {sum(history.failures.values())} times ({causes}; {limit}); "
        f"attempt {state.attempt}: {state.error}\n{tail}\nfull log: {log_path(attempt)}; {remedy}"
    )


def last_words(attempt: Path) -> str:
    """The last line of an attempt's log that is not Slurm's about the end of the step."""
    lines = [line for line in log_lines(attempt, LOG_LINES) if not line.startswith(("srun: ", "slurmstepd"))]
    return (lines or log_lines(attempt, 1) or ["it left no log"])[-1]


def refusal(attempt: Path) -> str | None:
    """The one line of a user's mistake that a stage met, None if it met none."""
    note = latest_incarnation(attempt) / "error.txt"
    return note.read_text().strip() if note.is_file() else None


def log_path(attempt: Path) -> Path:
    """The file with what an attempt printed; it need not be there yet."""
    return attempt / LOG


def log_lines(attempt: Path, count: int) -> list[str]:
    """The last lines of an attempt's log that are not blank."""
    path = log_path(attempt)
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 65536))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    return [line for line in text.splitlines() if line.strip()][-count:]


@contextmanager
def disk_full_explained(run: Path) -> Iterator[None]:
    """Turn a full disk into one line.

    Args:
        run: the run directory.

    Raises:
        UserError: a write failed for want of space.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"{error.filename or run}: {os.strerror(error.errno)}; free some space (keep.policies and keep.rollouts "
            f"say what a run keeps) and run the same command again"
        ) from error
