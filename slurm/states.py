"""What a job is doing, in the four words the orchestrator acts on."""

from __future__ import annotations

import enum


class State(enum.Enum):
    """State of a job.

    None of them says that the work was done: only a published artifact does.
    """

    WAITING = "waiting"
    """accepted, not started"""
    RUNNING = "running"
    """has processes"""
    ENDED = "ended"
    """has none, and will have none"""
    LOST = "lost"
    """cannot be seen from here, e.g. a process of another machine"""
