"""How many predicates the goal of an activity has by its definition alone, without a scene."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io


@dataclasses.dataclass(frozen=True)
class Expected:
    """What a definition says.

    Attributes:
        number: predicates of the first way to ground the goal.
        open_ended: a scene may have more objects than it names.
    """

    number: int
    open_ended: bool


def predicates(activity: str, definition: int) -> Expected | None:
    """Ask `bddl`, where it is one of the versions with this interface; None elsewhere."""
    try:
        bddl = importlib.import_module("bddl.activity")
        backend = importlib.import_module("bddl.trivial_backend").TrivialBackend()
        with contextlib.redirect_stdout(io.StringIO()):
            conditions = bddl.Conditions(activity, definition, simulator_name="omnigibson")
            scope = bddl.get_object_scope(conditions)
            goal = bddl.get_goal_conditions(conditions, backend, scope)
            options = bddl.get_ground_goal_state_options(conditions, backend, scope, goal)
    except (ImportError, AttributeError, TypeError):
        return None
    named = [name for names in conditions.parsed_objects.values() for name in names]
    return Expected(len(options[0]), any(name.endswith("*") for name in named))
