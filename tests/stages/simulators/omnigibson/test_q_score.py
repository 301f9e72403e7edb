"""Partial success on the goals of BEHAVIOR's own activities, as their BDDL definitions have them."""

from __future__ import annotations

import contextlib
import io
import json
from types import SimpleNamespace
from typing import Any

import pytest
from bddl.activity import Conditions, get_goal_conditions, get_ground_goal_state_options, get_object_scope
from bddl.trivial_backend import TrivialBackend, TrivialGenericObject, TrivialSimulator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.simulators.omnigibson.progress import q_score
from stages.simulators.omnigibson.tasks import CATALOGUE
from stages.simulators.omnigibson.vector_worlds import VectorWorlds

NAMES = [json.loads(line)["task_name"] for line in CATALOGUE.read_text().splitlines()]


class Goal(VectorWorlds):
    """The goal of an activity over a world in which facts can be set."""

    def __init__(self, name: str) -> None:
        self.facts = TrivialSimulator()
        with contextlib.redirect_stdout(io.StringIO()):
            conditions = Conditions(name, 0, simulator_name="omnigibson")
            scope = {inst: TrivialGenericObject(inst, self.facts) for inst in get_object_scope(conditions)}
            goal = get_goal_conditions(conditions, TrivialBackend(), scope)
            self.options = get_ground_goal_state_options(conditions, TrivialBackend(), scope, goal)

    def task(self, slot: int) -> Any:
        return SimpleNamespace(ground_goal_state_options=self.options)

    def literals(self) -> list[list[tuple[bool, str, tuple[str, ...]]]]:
        """Whether it is affirmed, the predicate and its objects, of every ground predicate."""
        found = []
        for option in self.options:
            terms = [list(head.terms) for head in option]
            found.append([("not" not in one, *_fact([term for term in one if term != "not"])) for one in terms])
        return found


def _fact(terms: list[str]) -> tuple[str, tuple[str, ...]]:
    return terms[0], tuple(terms[1:])


@pytest.fixture(scope="module")
def goals() -> dict[str, Goal]:
    return {name: Goal(name) for name in NAMES}


def test_all_activities_have_goals(goals):
    assert len(goals) == 50
    assert all(option for goal in goals.values() for option in goal.options)
    assert len(goals["turning_on_radio"].options[0]) == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(NAMES), drawn=st.data())
def test_what_holds_now_and_did_not_hold_at_the_start_counts(goals, name, drawn):
    goal = goals[name]
    literals = goal.literals()
    facts = sorted({(predicate, objects) for option in literals for _, predicate, objects in option})
    flags = st.lists(st.booleans(), min_size=len(facts), max_size=len(facts))
    truths, told = [], []
    for _ in range(2):
        truth = dict(zip(facts, drawn.draw(flags), strict=True))
        for (predicate, objects), holds in truth.items():
            goal.facts.predicate_to_setters[predicate](objects, holds)
        truths.append(truth)
        told.append(goal.predicates(0))
    wanted = 0.0
    for option in literals:
        before, after = (
            [truth[predicate, objects] == affirmed for affirmed, predicate, objects in option] for truth in truths
        )
        gained = sum(now for now, then in zip(after, before, strict=True) if not then)
        wanted = max(wanted, gained / len(option))
    assert q_score(*told, success=False) == pytest.approx(wanted)
    assert q_score(*told, success=True) == 1.0


def test_a_predicate_that_held_from_the_start_does_not_count():
    held, reached = [[True, False, False]], [[True, True, False]]
    assert q_score(held, reached, success=False) == pytest.approx(1 / 3)
    assert q_score(held, held, success=False) == 0.0
    assert q_score([[True], [False, False]], [[False], [True, False]], success=False) == 0.5
    assert q_score([], [], success=False) == 0.0
