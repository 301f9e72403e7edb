"""What a task is made of."""

from __future__ import annotations

import dataclasses

from stages.simulators.household.expert.plan import Plan
from stages.simulators.household.goals import Atom
from stages.simulators.household.kit import Scene
from stages.simulators.household.layouts import Layout


@dataclasses.dataclass(frozen=True)
class Definition:
    """One task; its name and its instruction are a line of tasks.jsonl.

    Attributes:
        scene: what stands on the table.
        layout: where it starts.
        goal: all of these have to hold at once.
        plan: how the expert does it.
        step_limit: steps after which an episode is truncated.
    """

    scene: Scene
    layout: Layout
    goal: tuple[Atom, ...]
    plan: Plan
    step_limit: int
