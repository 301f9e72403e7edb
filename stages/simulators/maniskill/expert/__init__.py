"""The scripted expert: closed loop from the true state, over arrays with a leading world axis n.

One CPU world and a hundred CUDA worlds are served alike. A step is `look`, `act`, now and then `perturb`.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from stages.simulators.interface import Episode, SimulatorConfigError
from stages.simulators.maniskill.expert import acting
from stages.simulators.maniskill.expert import sight as seeing
from stages.simulators.maniskill.expert.acting import Memory, begin
from stages.simulators.maniskill.expert.sight import Sight
from stages.simulators.maniskill.expert.tables import tabulate
from stages.simulators.maniskill.expert.tasks import PLANS

__all__ = ["TASKS", "Memory", "Sight", "act", "begin", "look", "perturb", "require", "stream"]

_TABLES = {task: tabulate(plan) for task, plan in PLANS.items()}
TASKS = frozenset(_TABLES)


def require(task: str) -> None:
    """Refuse a task that has no expert.

    Raises:
        SimulatorConfigError: with the tasks that have one.
    """
    if task not in _TABLES:
        raise SimulatorConfigError(f"maniskill: {task} has no expert; tasks that have one: {', '.join(_TABLES)}")


def stream(episode: Episode) -> np.random.Generator:
    """The random numbers of an episode's bursts: the same in any process."""
    seed = np.random.SeedSequence([episode.seed, zlib.crc32(episode.task.encode())])
    return np.random.Generator(np.random.Philox(seed))


def look(env: Any, task: str) -> Sight:
    """The true state of the b worlds of ManiSkill's environment `env`, as far as the expert of `task` looks at it."""
    return seeing.look(env, _TABLES[task].names)


def act(task: str, sight: Sight, memory: Memory) -> tuple[np.ndarray, Memory]:
    """The expert's next actions [n, A] in n worlds of a task, and what to remember; see `acting.act`."""
    return acting.act(_TABLES[task], sight, memory)


def perturb(
    task: str, actions: np.ndarray, memory: Memory, generators: list[np.random.Generator], probability: float
) -> tuple[np.ndarray, np.ndarray, Memory]:
    """The actions with bursts of random motion, which of them are clean [n], what to remember; see `acting.perturb`."""
    return acting.perturb(_TABLES[task], actions, memory, generators, probability)
