"""Where units run, and what they share there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pipeline import resources
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.launchers import PILOT_VARIABLE, launcher_for, where
from pipeline.machine import Machine
from pipeline.plan import UnitPlan, by_urgency, make_plan
from pipeline.resolve import resolve
from pipeline.rundir import create_or_resume, identity
from slurm import processes
from slurm.batch import SlurmLauncher
from slurm.launcher import Job
from slurm.states import State


def config(folder: Path | None = None, **values: Any) -> Config:
    given = {"name": "run", "epochs": 1, "runs_dir": str(folder or "runs"), "rollout": {"shards": 2}, **values}
    return resolve(Config.model_validate(given))


@pytest.fixture(autouse=True)
def _no_slurm_and_four_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sbatch` fails until a test says otherwise, whatever is installed here."""
    for name in ("SLURM_JOB_ID", PILOT_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    sbatch(tmp_path, "exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'commands'}:{os.environ['PATH']}")
    monkeypatch.setattr(resources, "machine_gpus", lambda: 4)


def sbatch(folder: Path, body: str) -> None:
    path = folder / "commands" / "sbatch"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)


def in_an_allocation(folder: Path, monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    sbatch(folder, "echo slurm 24.05.1")
    given = {"SLURM_JOB_ID": "17", PILOT_VARIABLE: "1", "SLURM_JOB_CPUS_PER_NODE": "8", **variables}
    for name, value in given.items():
        monkeypatch.setenv(name, value)


def ready(of: Config, *stages: str) -> list[UnitPlan]:
    return by_urgency(plan for plan in make_plan(of) if plan.unit.stage in stages and plan.unit.epoch <= 1)


def names(plans: list[UnitPlan]) -> list[str]:
    return [str(plan.unit) for plan in plans]


@pytest.mark.parametrize("answers", [True, False])
def test_local_is_here_whatever_is_installed(tmp_path: Path, answers: bool) -> None:
    sbatch(tmp_path, "exit 0" if answers else "exit 1")
    assert where(config(slurm={"launcher": "local"})) == "local"
    assert where(config()) == ("slurm" if answers else "local")


def test_slurm_where_there_is_none_is_refused_with_remedies(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^slurm\.launcher=slurm, but .* set slurm\.launcher=local$"):
        where(config(slurm={"launcher": "slurm"}))
    for launcher in ("auto", "local"):
        with pytest.raises(UserError, match=r"^slurm\.schedule=chain needs Slurm, .* set slurm\.schedule=supervise$"):
            where(config(slurm={"launcher": launcher, "schedule": "chain"}))
    sbatch(tmp_path, "exit 0")
    assert where(config(slurm={"schedule": "chain"})) == "slurm"


def test_a_pilot_uses_the_allocation_that_was_made_for_it_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pilot = config(slurm={"schedule": "pilot"})
    assert where(pilot) == "local", "without Slurm this machine is the allocation"
    sbatch(tmp_path, "exit 0")
    assert where(pilot) == "slurm"
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert where(pilot) == "slurm", "an interactive job of the user's is not ours"
    monkeypatch.setenv(PILOT_VARIABLE, "1")
    assert where(pilot) == "allocation"
    assert where(config()) == "slurm"


def test_only_slurms_own_queue_is_left_to_slurms_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_slurms(**slurm: Any) -> bool:
        of = config(tmp_path, slurm=slurm)
        return isinstance(launcher_for(create_or_resume(of), of), SlurmLauncher)

    assert not is_slurms()
    in_an_allocation(tmp_path, monkeypatch)
    assert is_slurms()
    assert is_slurms(follow=True), "only a launcher whose processes it sees has residents"
    assert is_slurms(schedule="chain")
    assert not is_slurms(schedule="pilot")
    assert not is_slurms(launcher="local")


def test_an_order_of_before_is_seen_when_the_run_no_longer_follows(tmp_path: Path) -> None:
    of = config(tmp_path, slurm={"follow": False})
    run = create_or_resume(of)
    resident = processes.identity(os.getpid())  # it lives
    owner = identity(run)["id"]
    order = Job(f"{owner}:e0001-update:1", f"{resident}/{owner}:orders-update:1/0001", os.uname().nodename)
    assert launcher_for(run, of).poll([order])[order.key].state is State.RUNNING


def test_units_fit_while_there_are_cores(tmp_path: Path) -> None:
    of = config(rollout={"shards": 2, "num_workers": 3}, evaluate={"num_workers": 2})
    machine = Machine(cores=8)
    rollouts, (first, second) = ready(of, "rollout"), ready(of, "evaluate")
    assert names(machine.fit([*rollouts, first], [])) == [*names(rollouts), str(first.unit)]
    assert names(machine.fit([*rollouts, first, second], [])) == [*names(rollouts), str(first.unit)]
    assert names(machine.fit(rollouts, [first.share])) == names(rollouts)
    assert names(machine.fit(rollouts, [rollouts[0].share])) == [str(rollouts[0].unit)]
    assert machine.fit(rollouts, [rollouts[0].share] * 2) == []
    assert machine.fit([], []) == []


def test_nothing_less_urgent_slips_past_what_does_not_fit() -> None:
    of = config(update={"threads": 6}, evaluate={"num_workers": 1})
    (update,), evaluations = ready(of, "update"), ready(of, "evaluate")
    assert Machine(cores=6).fit([update, *evaluations], [evaluations[0].share]) == []
    assert names(Machine(cores=7).fit([update, evaluations[1]], [])) == names([update, evaluations[1]])


def test_gpus_that_a_plan_names_are_used_by_one_unit_at_a_time() -> None:
    apart = {"component_placement": {"env": "0", "rollout": "1", "actor": "2-3"}}
    of = config(cluster=apart, rollout={"shards": 2})
    (first, second), (update,) = ready(of, "rollout"), ready(of, "update")
    machine = Machine(cores=64, gpus=4)
    assert names(machine.fit([first, second], [])) == [str(first.unit)], "one cell, so they take turns"
    assert names(machine.fit([first, update], [])) == names([first, update])
    together = config(cluster={"component_placement": {"env,rollout,actor": "0-1"}})
    rollouts, (update,) = ready(together, "rollout"), ready(together, "update")
    assert names(machine.fit([*rollouts, update], [])) == names(rollouts)
    assert machine.fit([update], [rollouts[1].share]) == []


def test_a_scheduler_shares_out_itself(tmp_path: Path) -> None:
    of = config(tmp_path, rollout={"shards": 8}, cluster={"num_nodes": 2})
    run = create_or_resume(of)
    sbatch(tmp_path, "exit 0")
    machine = Machine.of(run, of, cores=1)
    rollouts = ready(of, "rollout")
    assert machine.fit(rollouts, [plan.share for plan in rollouts]) == rollouts


def test_this_machine_has_its_cores_and_refuses_what_never_fits(tmp_path: Path) -> None:
    of = config(tmp_path, rollout={"shards": 2, "num_workers": 3})
    run = create_or_resume(of)
    assert Machine.of(run, of, cores=4).cores == 4
    assert Machine.of(run, of, cores=4).gpus == 4
    with pytest.raises(UserError, match=r"takes 3 cores and this machine has 2"):
        Machine.of(run, of, cores=2)
    small = config(tmp_path / "b", sft={"threads": 1}, update={"threads": 1})
    assert Machine.of(create_or_resume(small), small).cores == resources.machine_cores()
    gpus = config(tmp_path / "c", cluster={"component_placement": {"env,rollout,actor": "0-7"}}, rollout={"shards": 8})
    with pytest.raises(UserError, match=r"GPU \d, and this machine has 4 \(GPUs 0 to 3\)"):
        Machine.of(create_or_resume(gpus), gpus, cores=64)


@pytest.mark.parametrize(
    ("variables", "cores", "gpus"),
    [
        ({"SLURM_JOB_CPUS_PER_NODE": "8"}, 8, 0),
        ({"SLURM_JOB_CPUS_PER_NODE": "8(x2),4", "SLURM_JOB_NUM_NODES": "3", "SLURM_GPUS_ON_NODE": "4"}, 20, 12),
        ({"SLURM_JOB_CPUS_PER_NODE": "72(x2)", "SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "8"}, 144, 16),
    ],
)
def test_an_allocation_has_what_slurm_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], cores: int, gpus: int
) -> None:
    of = config(tmp_path, slurm={"schedule": "pilot"}, rollout={"shards": 2, "num_workers": 3})
    run = create_or_resume(of)
    in_an_allocation(tmp_path, monkeypatch, **variables)
    machine = Machine.of(run, of)
    assert (machine.cores, machine.gpus) == (cores, gpus)
    assert names(machine.fit(ready(of, "rollout"), [])) == names(ready(of, "rollout"))


def test_an_allocation_that_is_too_small_is_refused_with_the_arithmetic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = config(tmp_path, slurm={"schedule": "pilot"}, rollout={"shards": 2, "num_workers": 9})
    run = create_or_resume(of)
    in_an_allocation(tmp_path, monkeypatch)
    with pytest.raises(UserError, match=r"takes 9 cores and 0 GPUs, the allocation has 8 and 0: raise slurm\.pilot$"):
        Machine.of(run, of)
    of = config(
        tmp_path / "b",
        slurm={"schedule": "pilot"},
        cluster={"component_placement": {"env,rollout,actor": "0-3"}},
        rollout={"shards": 4},
    )
    in_an_allocation(tmp_path, monkeypatch, SLURM_GPUS_ON_NODE="2", SLURM_JOB_NUM_NODES="1")
    with pytest.raises(UserError, match=r"takes 8 cores and 4 GPUs, the allocation has 8 and 2: raise slurm\.pilot$"):
        Machine.of(create_or_resume(of), of)
