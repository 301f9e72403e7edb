"""A job's GPUs are dealt out to its simulators and its policy as they are written."""

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from stages.devices import divide, narrow_to_policy, simulator_devices, visible

MIG = "MIG-7d3a5a1e-0f5b-5a3c-9d3e-2f8c6a1b4c5d"


@pytest.mark.parametrize(
    ("devices", "env", "policy", "shared", "expected"),
    [
        ("2,5", 1, 1, False, (["2"], "5")),
        ("GPU-a1,GPU-b2", 1, 1, False, (["GPU-a1"], "GPU-b2")),
        (f"{MIG}, MIG-GPU-c3/7/0", 1, 1, False, ([MIG], "MIG-GPU-c3/7/0")),
        ("7,3,1", 2, 1, False, (["7", "3"], "1")),
        ("0,1,2", 1, 2, False, (["0"], "1,2")),
        ("0,1,2", 1, 1, False, (["0"], "1")),
        (MIG, 1, 1, True, ([MIG], MIG)),
    ],
)
def test_simulators_get_the_first_gpus_under_their_own_names(devices, env, policy, shared, expected):
    assert visible(devices, env, policy, shared) == expected


@pytest.mark.parametrize("devices", ["", "3", "-1", "NoDevFiles", "3,-1,4", "3,"])
def test_too_few_gpus_are_refused_with_the_sum(devices):
    with pytest.raises(UserError, match=r"CUDA_VISIBLE_DEVICES=.* 1 for simulators \+ 1 for the policy = 2; give it 2"):
        visible(devices, 1, 1, False)


def test_a_job_that_got_no_gpus_is_refused():
    with pytest.raises(UserError, match="CUDA_VISIBLE_DEVICES='' gives 0 GPUs and the job's cell takes 1 shared"):
        divide({"BATON_CELL": "shared:1"})


@pytest.fixture
def job(monkeypatch):
    """Sets the variables of the job that this process is."""
    for name in ("BATON_CELL", "BATON_JOB_DEVICES", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "")  # so that whatever a test sets is undone
        monkeypatch.delenv(name)

    def become(cell, devices):
        monkeypatch.delenv("BATON_JOB_DEVICES", raising=False)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
        if cell is not None:
            monkeypatch.setenv("BATON_CELL", cell)

    return become


def test_without_a_cell_everything_is_left_as_it_is(job):
    job(None, "0,1")
    narrow_to_policy()
    assert simulator_devices(2) == [{}, {}]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_workers_take_the_simulators_gpus_in_turn_also_after_the_policy_took_its_own(job):
    job("2+1", f"4,{MIG},6")
    narrow_to_policy()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "6"
    assert [worker["CUDA_VISIBLE_DEVICES"] for worker in simulator_devices(5)] == ["4", MIG, "4", MIG, "4"]
    narrow_to_policy()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "6", "a stage that stays up asks again"


def test_a_shared_gpu_is_everybodys_and_the_expert_needs_none_for_a_policy(job):
    job("shared:1", "4")
    narrow_to_policy()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4"
    assert simulator_devices(2) == [{"CUDA_VISIBLE_DEVICES": "4"}] * 2
    job("1+0", "4")
    narrow_to_policy()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert simulator_devices(1) == [{"CUDA_VISIBLE_DEVICES": "4"}]


@pytest.mark.parametrize("cell", ["", "1", "0+0", "0+1", "shared:0", "shared", "a+b", "1+1+1", " 1+1"])
def test_a_cell_that_is_none_is_refused(cell):
    with pytest.raises(UserError, match="BATON_CELL=.* is no cell; write"):
        divide({"BATON_CELL": cell, "CUDA_VISIBLE_DEVICES": "0,1,2"})


@given(st.lists(st.integers(0, 15), min_size=2, max_size=8, unique=True), st.integers(1, 7))
def test_no_simulator_sees_the_policys_gpu(devices, env):
    env = min(env, len(devices) - 1)
    environment = {"BATON_CELL": f"{env}+1", "CUDA_VISIBLE_DEVICES": ",".join(map(str, devices))}
    divided = divide(environment)
    assert divided is not None
    simulators, policy = divided
    assert simulators == [str(device) for device in devices[:env]]
    assert policy == str(devices[env])
    assert policy not in simulators


def test_devices_are_known_before_torch_is_imported():
    code = "import sys, stages.devices; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
