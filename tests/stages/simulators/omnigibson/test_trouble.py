"""Isaac Sim in trouble: the pool heals what can be healed, the rest is one clear line, and nothing is left behind."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from stages.simulators.interface import Episode, SimulatorConfigError
from stages.simulators.pool import SimulatorLost, SimulatorPool

pytestmark = pytest.mark.slow

RADIO = "turning_on_radio"
STEPS = np.zeros((1, 8, 14), np.float32)


def open_pool(tmp_path: Path, start_timeout: float = 120.0, max_restarts: int = 1, **options) -> SimulatorPool:
    settings = {"image_size": 32, "max_episode_steps": 20, **options}
    limits = {"timeout_s": 60.0, "start_timeout_s": start_timeout, "max_restarts": max_restarts}
    return SimulatorPool("omnigibson", settings, 1, **limits, log_dir=tmp_path)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("fault", "reason", "told"),
    [
        ("segfault_on_step", "it was killed by signal 11 (Segmentation fault)", "the fake crashes in step"),
        ("hang_on_step", "it was killed by signal 14 (Alarm clock): a step of its simulator did not come back in time",
         "in strike"),
    ],
)  # fmt: skip
def test_a_step_that_goes_wrong_once_is_done_again(worker, tmp_path, fault, reason, told):
    worker("b_fork", f"{fault}:{tmp_path / 'happened'}")
    with open_pool(tmp_path, step_timeout=2) as pool:
        pool.reset([0], [Episode(RADIO, 0)])
        stepped = pool.step([0], STEPS)
        assert (pool.restarts, stepped.faults) == (1, [[reason]])
        assert stepped.result.executed.all()
        np.testing.assert_allclose(stepped.observation.proprio[0, :3], [0.45, 0.25, 0.8], atol=1e-6)
    assert told in (tmp_path / "simulator-0.log").read_text()  # the traceback, in the worker's log


@pytest.mark.parametrize(
    ("fault", "reason", "printed"),
    [
        ("hang_on_build", "it was not up after 8 s", "the fake hangs in build"),
        ("segfault_on_build", "it was killed by signal 11 (Segmentation fault)", "the fake crashes in build"),
    ],
)
def test_a_start_that_hangs_or_crashes_is_named(worker, tmp_path, fault, reason, printed):
    worker("b", fault)
    with pytest.raises(SimulatorLost) as caught:
        open_pool(tmp_path, start_timeout=8, max_restarts=0)
    assert str(caught.value) == (
        f"simulator worker 0 (omnigibson) failed after 0 restarts, at last coming up: {reason}"
    )
    assert caught.value.details
    assert printed in (tmp_path / "simulator-0.log").read_text()


def test_a_simulator_that_refuses_to_die_is_killed_with_all_its_results_told(worker, tmp_path):
    worker("b_fork", "refuse_to_die")
    with open_pool(tmp_path) as pool:
        pool.reset([0], [Episode(RADIO, 0)])
        stepped = pool.step([0], STEPS)
        [pid] = pool.pids
        begun = time.monotonic()
    assert time.monotonic() - begun < 8
    assert not alive(pid)
    assert stepped.result.executed.all()
    assert "the fake refuses to die" in (tmp_path / "simulator-0.log").read_text()


def test_what_the_user_has_to_put_right_is_one_line(worker, tmp_path, machine):
    worker("a")
    with pytest.raises(SimulatorConfigError, match="^omnigibson: version 1.1.1 has no R1 Pro"):
        open_pool(tmp_path)
    worker("b")
    with pytest.raises(
        SimulatorConfigError, match="^omnigibson: no activity 'turn_on_radio' in .*; did you mean turning"
    ):
        open_pool(tmp_path, tasks=["turn_on_radio"])
    machine.delenv("OMNIGIBSON_DATA_PATH")
    with pytest.raises(SimulatorConfigError, match="^omnigibson: OMNIGIBSON_DATA_PATH is not set; "):
        open_pool(tmp_path)
    machine.setenv("PYTHONPATH", os.pathsep)
    with pytest.raises(SimulatorConfigError) as caught:
        open_pool(tmp_path)
    assert str(caught.value).endswith(
        " lacks what simulator omnigibson needs (No module named 'omnigibson'); run `baton env create omnigibson`, or "
        "name another interpreter"
    )


def test_an_instance_that_is_not_there_refuses_the_episode_and_not_the_worlds(worker, tmp_path, data):
    worker("b_fork")
    [folder] = (data / "2025-challenge-task-instances").glob("scenes/*/json/*_task_turning_on_radio_instances")
    mine = shutil.copytree(folder, tmp_path / "instances")
    with open_pool(tmp_path, instance_directory=str(mine), train_instances=[1, 2]) as pool:
        [gone] = mine.glob("*_0_2_template-tro_state.json")
        gone.unlink()
        with pytest.raises(SimulatorConfigError, match="^omnigibson: turning_on_radio has no instance 2: "):
            pool.reset([0], [Episode(RADIO, 1)])
        assert pool.reset([0], [Episode(RADIO, 0)]).head.shape == (1, 3, 32, 32)
        assert pool.restarts == 0
