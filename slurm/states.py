"""What a job is doing, in the four words the orchestrator acts on, and why it ended."""

from __future__ import annotations

import enum
from typing import Literal

Cause = Literal["crash", "memory", "timeout", "preempted", "node", "cancelled"]


class State(enum.Enum):
    """State of a job.

    None of them says that the work was done: only a published artifact does.
    """

    WAITING = "waiting"
    """accepted, not started, or to be started again"""
    RUNNING = "running"
    """has processes"""
    ENDED = "ended"
    """has none, and will have none"""
    LOST = "lost"
    """cannot be seen from here, e.g. a process of another machine"""


# Slurm's long names (squeue's %T). A job that is requeued is PENDING again under the same id, so only what will not
# come back is ENDED; PREEMPTED and NODE_FAIL are that where the job may not be requeued.
STATES: dict[str, State] = {
    **dict.fromkeys(
        ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"),
        State.WAITING,
    ),
    **dict.fromkeys(
        ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT"), State.RUNNING
    ),
    **dict.fromkeys(
        (
            "COMPLETED",
            "FAILED",
            "CANCELLED",
            "TIMEOUT",
            "DEADLINE",
            "OUT_OF_MEMORY",
            "NODE_FAIL",
            "BOOT_FAIL",
            "PREEMPTED",
            "REVOKED",
        ),
        State.ENDED,
    ),
}

# An ended job in one of these may be seen for a moment before Slurm puts it back into the queue.
REQUEUEABLE = ("PREEMPTED", "NODE_FAIL", "BOOT_FAIL")

CAUSES: dict[str, Cause] = {
    "TIMEOUT": "timeout",
    "DEADLINE": "timeout",
    "OUT_OF_MEMORY": "memory",
    "NODE_FAIL": "node",
    "BOOT_FAIL": "node",
    "PREEMPTED": "preempted",
    "CANCELLED": "cancelled",
    "REVOKED": "cancelled",
}


def state_of(name: str) -> State:
    """Translate Slurm's state.

    Args:
        name: as squeue or sacct write it; sacct says who cancelled a job behind the word.

    Raises:
        ValueError: a state this table does not know, which must not be taken for an end.
    """
    word = name.split()[0].rstrip("+") if name.strip() else ""
    try:
        return STATES[word]
    except KeyError:
        raise ValueError(f"Slurm says {name!r}, a state that Baton does not know") from None


def cause_of(name: str) -> Cause:
    """Why a job in an ended state was not successful, as far as the state tells."""
    return CAUSES.get(name.split()[0].rstrip("+") if name.strip() else "", "crash")
