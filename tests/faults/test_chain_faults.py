"""A chain of jobs on a real cluster: it runs with nobody alive, and what breaks it is repaired by the same command.

The stages are fakes without work; everything else is what users run.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import chain
from pipeline.artifacts import Unit, attempt_directory
from pipeline.errors import UserError
from pipeline.ledger import published, read
from tests.faults.slurm_runs_for_tests import FIRST, complete, executions, in_queue, new_run, until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fakes_on_the_cluster")]


def test_a_chain_runs_with_nobody_alive(tmp_path: Path) -> None:
    run = new_run(tmp_path, epochs=2, schedule="chain")
    done = chain.extend(run, stages_package="fake_stages")
    assert done.submitted == len(read(run).units)
    assert read(run).driver is None
    until(lambda: published(run, Unit(2, "evaluate")), 90)
    assert complete(run)
    until(lambda: not in_queue(), 30)
    assert chain.extend(run, stages_package="fake_stages").finished


def test_a_broken_chain_is_cancelled_behind_the_break_and_repaired(tmp_path: Path) -> None:
    run = new_run(tmp_path, epochs=1, schedule="chain", knobs={"crash": {"e0000-sft": 1}})
    chain.extend(run, stages_package="fake_stages")
    # Repaired at once, before Slurm itself has cancelled what waits for the failed unit.
    until(lambda: (attempt_directory(run, Unit(0, "sft"), 1) / "exit").exists(), 60)
    assert published(run, FIRST)
    assert not published(run, Unit(0, "sft"))
    assert not executions(run, Unit(1, "rollout", 0)), "what needs it was cancelled"
    again = chain.extend(run, stages_package="fake_stages")
    assert again.submitted == len(read(run).units) - 2
    until(lambda: published(run, Unit(1, "evaluate")), 60)
    assert complete(run)


def test_a_chain_that_slurm_refuses_half_way_leaves_nothing_in_the_queue(tmp_path: Path) -> None:
    run = new_run(tmp_path, epochs=1, schedule="chain", evaluate={"partition": "nowhere"})
    with pytest.raises(UserError, match="invalid partition"):
        chain.extend(run, stages_package="fake_stages")
    assert not in_queue()
