"""Slurm's states in the orchestrator's words."""

from __future__ import annotations

from typing import get_args

import pytest

from slurm.states import CAUSES, REQUEUEABLE, STATES, Cause, State, cause_of, state_of

# JOB STATE CODES of squeue's manual.
WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")
RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT")
ENDED = (
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
)


@pytest.mark.parametrize(
    ("names", "state"), [(WAITING, State.WAITING), (RUNNING, State.RUNNING), (ENDED, State.ENDED)], ids=str
)
def test_every_state_of_slurms_manual_has_one_meaning(names: tuple[str, ...], state: State) -> None:
    assert {state_of(name) for name in names} == {state}


def test_slurm_loses_no_job_from_sight() -> None:
    assert State.LOST not in STATES.values()


@pytest.mark.parametrize("name", ["", " ", "FINISHED", "pending", "PD"])
def test_an_unknown_state_is_never_taken_for_an_end(name: str) -> None:
    with pytest.raises(ValueError, match="a state that Baton does not know"):
        state_of(name)


def test_what_sacct_adds_to_a_state_is_ignored() -> None:
    assert state_of("CANCELLED by 1001") is State.ENDED
    assert state_of("CANCELLED+") is State.ENDED
    assert cause_of("CANCELLED by 1001") == "cancelled"
    assert cause_of("OUT_OF_ME+") == "crash", "a word that was cut off tells nothing"


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("TIMEOUT", "timeout"),
        ("DEADLINE", "timeout"),
        ("OUT_OF_MEMORY", "memory"),
        ("NODE_FAIL", "node"),
        ("BOOT_FAIL", "node"),
        ("PREEMPTED", "preempted"),
        ("CANCELLED", "cancelled"),
        ("REVOKED", "cancelled"),
        ("FAILED", "crash"),
        ("COMPLETED", "crash"),
        ("", "crash"),
    ],
)
def test_the_cause_of_an_end_is_as_precise_as_slurms_word(name: str, cause: Cause) -> None:
    assert cause_of(name) == cause


def test_states_with_a_cause_are_ends_and_causes_are_known() -> None:
    assert {state_of(name) for name in CAUSES} == {State.ENDED}
    assert set(CAUSES.values()) < set(get_args(Cause))


def test_only_ends_that_slurm_may_take_back_are_requeueable() -> None:
    assert set(REQUEUEABLE) == {"PREEMPTED", "NODE_FAIL", "BOOT_FAIL"}
    assert {state_of(name) for name in REQUEUEABLE} == {State.ENDED}
    assert {cause_of(name) for name in REQUEUEABLE} == {"preempted", "node"}, "what max_requeues counts"
