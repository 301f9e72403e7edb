"""The scripted expert of LIBERO's pick-and-place tasks: closed loop from the true state, one world at a time."""

from __future__ import annotations

from stages.simulators.interface import SimulatorConfigError
from stages.simulators.libero.expert.act import act, perturb
from stages.simulators.libero.expert.progress import Memory

SUITES = ("libero_spatial", "libero_object")

__all__ = ["SUITES", "Memory", "act", "begin", "check", "perturb"]


def begin() -> Memory:
    """The memory of an expert that has not acted yet, for a world that was just reset."""
    return Memory()


def check(task: str, suite: str) -> None:
    """Refuse a task that has no expert.

    Args:
        task: its name.
        suite: the suite that it belongs to.

    Raises:
        SimulatorConfigError: the message names the suites that have one.
    """
    if suite not in SUITES:
        raise SimulatorConfigError(
            f"libero: no scripted expert for {task} of {suite}; the suites that have one: {', '.join(SUITES)}"
        )
