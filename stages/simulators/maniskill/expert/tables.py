"""Plans as arrays: the stages [M arms, S] of a task, gathered by number."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from stages.simulators.maniskill.expert.plan import Plan, Stage

WORLD = "world"


@dataclasses.dataclass
class Stages:
    """What arms do: the fields of `plan.Stage` as arrays [n, M]; a place is an object's number and an offset [n, M, 3].

    `last` tells the stages that an arm keeps at.
    """

    kind: np.ndarray
    item: np.ndarray
    to: np.ndarray
    offset: np.ndarray
    shut: np.ndarray
    hover: np.ndarray
    near: np.ndarray
    tilt: np.ndarray
    until: np.ndarray
    last: np.ndarray

    def take(self, numbers: np.ndarray) -> Stages:
        """The stages that arms are in, by their numbers [n, M]."""
        arms = np.arange(numbers.shape[1])
        return Stages(*(getattr(self, field.name)[arms, numbers] for field in dataclasses.fields(self)))


@dataclasses.dataclass(frozen=True)
class Table:
    """A task's plan.

    Attributes:
        names: of its objects, behind the world's origin.
        arms: M.
        stages: all of them, [M, S]; a shorter row is filled up with its last one.
    """

    names: tuple[str, ...]
    arms: int
    stages: Stages


def tabulate(plan: Plan) -> Table:
    """Write a plan as arrays."""
    named = [name for arm in plan for stage in arm for name in (stage.item, stage.to.of)]
    names = tuple(sorted(set(named) - {WORLD}))
    number = {WORLD: 0, **{name: 1 + i for i, name in enumerate(names)}}
    longest = max(map(len, plan))
    rows: list[Sequence[Stage]] = [(*arm, *(arm[-1],) * (longest - len(arm))) for arm in plan]

    def gathered(field: str) -> np.ndarray:
        return np.array([[getattr(stage, field) for stage in row] for row in rows])

    stages = Stages(
        kind=gathered("kind"),
        item=np.array([[number[stage.item] for stage in row] for row in rows]),
        to=np.array([[number[stage.to.of] for stage in row] for row in rows]),
        offset=np.array([[stage.to.offset for stage in row] for row in rows]),
        shut=gathered("shut"),
        hover=gathered("hover"),
        near=gathered("near"),
        tilt=gathered("tilt"),
        until=gathered("until"),
        last=np.array([[i >= len(arm) - 1 for i in range(longest)] for arm in plan]),
    )
    return Table(names, len(plan), stages)
