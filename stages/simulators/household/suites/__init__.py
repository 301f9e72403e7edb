"""The suites: each a module that defines its tasks."""

from __future__ import annotations

from collections.abc import Iterable

from stages.simulators.household import catalogue
from stages.simulators.household.options import Options
from stages.simulators.household.suites import goal, long, object, practice, spatial
from stages.simulators.household.suites.definition import Definition

SUITES = {
    "practice": practice.define,
    "spatial": spatial.define,
    "object": object.define,
    "goal": goal.define,
    "long": long.define,
}


def definitions(names: Iterable[str], options: Options) -> tuple[Definition, ...]:
    """What the tasks called `names` are made of."""
    wanted = [catalogue.entries()[name] for name in names]
    made = {suite: SUITES[suite](options) for suite in dict.fromkeys(entry.suite for entry in wanted)}
    return tuple(made[entry.suite][entry.name] for entry in wanted)
