"""Requests: what a unit's job runs, what it is called, and what it asks for after earlier tries."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.jobs import History, append, histories
from pipeline.plan import UnitPlan, make_plan
from pipeline.resolve import resolve
from pipeline.rundir import create_or_resume, identity, package_root
from pipeline.submission import Sender
from slurm.launcher import Request

SENDER = Sender(Path("/runs/run"), "run-12345678", "abcdef")
CELLS = {"component_placement": {"env": "0-1", "rollout": "2-3", "actor": "0-3"}}


def config(**values: Any) -> Config:
    return resolve(Config.model_validate({"name": "run", "epochs": 1, "rollout": {"shards": 2}, **values}))


def family(of: Config, stage: str, epoch: int = 1) -> list[UnitPlan]:
    return [plan for plan in make_plan(of) if (plan.unit.stage, plan.unit.epoch) == (stage, epoch)]


def request(
    of: Config, stage: str, epoch: int = 1, history: History | None = None, after: Sequence[str] = ()
) -> Request:
    return SENDER.request(of, family(of, stage, epoch), 1, history or History(), after)


def outgrown(**times: int) -> History:
    return History(submissions=sum(times.values()), outgrown=times)  # type: ignore[arg-type]


def test_shards_are_one_family_that_differs_in_the_index() -> None:
    found = request(config(), "rollout")
    assert found.key == "run-12345678:e0001-rollout-s%4a:1"
    assert (found.name, found.module, found.indices) == ("run-e0001-rollout", "stages.rollout", (0, 1))
    assert found.arguments == ("/runs/run", "--epoch", "1", "--shard", "%a", "--attempt", "1")
    members = found.members()
    assert list(members) == [SENDER.key(plan.unit, 1) for plan in family(config(), "rollout")]
    last = members["run-12345678:e0001-rollout-s0001:1"]
    assert last.arguments == ("/runs/run", "--epoch", "1", "--shard", "1", "--attempt", "1")
    assert last.folder == Path("/runs/run/attempts/e0001-rollout-s0001/1")
    assert (last.indices, last.members()) == ((), {last.key: last})


def test_a_stage_without_shards_is_one_job() -> None:
    found = request(config(), "update", after=("7_0", "7_1"))
    assert (found.key, found.indices) == ("run-12345678:e0001-update:1", ())
    assert found.arguments == ("/runs/run", "--epoch", "1", "--attempt", "1")
    assert found.folder == Path("/runs/run/attempts/e0001-update/1")
    assert found.after == ("7_0", "7_1")
    assert found.resident is None


def test_a_single_shard_is_still_one_of_an_array() -> None:
    only = family(config(), "rollout")[1:]
    found = SENDER.request(config(), only, 3, History())
    assert list(found.members()) == ["run-12345678:e0001-rollout-s0001:3"]


def test_demonstrations_are_rollouts_by_the_expert() -> None:
    found = request(config(), "demonstrate", epoch=0)
    assert (found.module, found.name) == ("stages.rollout", "run-e0000-demonstrate")
    assert list(found.members()) == ["run-12345678:e0000-demonstrate-s0000:1"]


def test_ranks_threads_and_gpus_become_tasks_cores_and_cards() -> None:
    plain = request(config(update={"processes": 4, "threads": 3}, slurm={"update": {"nodes": 2}}), "update")
    assert (plain.tasks, plain.nodes, plain.cpus, plain.gpus) == (4, 2, 3, 0)
    rollout = request(config(rollout={"shards": 2, "threads": 2, "num_workers": 5}), "rollout")
    assert (rollout.tasks, rollout.nodes, rollout.cpus) == (1, 1, 5)
    gpus = config(cluster={**CELLS, "node_groups": [{"label": "a", "node_ranks": 0, "gpu_type": "h100"}]})
    update = request(gpus, "update")
    assert (update.tasks, update.gpus, update.gpu_type) == (4, 4, "h100")
    assert (request(gpus, "rollout").tasks, request(gpus, "rollout").gpus) == (1, 2)


def test_cores_of_the_config_go_before_those_of_the_plan() -> None:
    shared = config(slurm={"cpus": 9, "update": {"cpus": 7}})
    assert (request(shared, "update").cpus, request(shared, "rollout").cpus) == (7, 9)


def test_the_cell_and_the_threads_are_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/mine")
    with_gpus = config(cluster=CELLS, rollout={"shards": 2, "threads": 5})
    variables = request(with_gpus, "rollout").environment
    assert variables["BATON_CELL"] == "1+1"
    assert variables["BATON_CODE_REVISION"] == "abcdef"
    assert variables["PYTHONPATH"] == f"{package_root()}{os.pathsep}/mine"
    assert {variables[name] for name in variables if name.endswith("_NUM_THREADS")} == {"5"}
    assert request(with_gpus, "demonstrate", epoch=0).environment["BATON_CELL"] == "1+0"
    assert "BATON_CELL" not in request(with_gpus, "update").environment
    assert "BATON_CELL" not in request(config(), "rollout").environment
    monkeypatch.delenv("PYTHONPATH")
    assert request(config(), "update").environment["PYTHONPATH"] == str(package_root())


def test_what_a_unit_ran_out_of_grows_with_every_time() -> None:
    of = config(slurm={"mem": "4G", "time": 100, "mem_growth": 2, "time_growth": 1.5})
    asked = [request(of, "update", history=h).options for h in (None, outgrown(memory=1), outgrown(memory=2))]
    assert [(each.mem, each.time) for each in asked] == [("4G", 100), ("8192M", 100), ("16384M", 100)]
    asked = [request(of, "update", history=h).options for h in (outgrown(timeout=1), outgrown(timeout=2, memory=1))]
    assert [(each.mem, each.time) for each in asked] == [("4G", 150), ("8192M", 225)]


def test_nothing_grows_unless_the_config_says_so() -> None:
    asked = request(config(slurm={"mem": "4G"}), "update", history=outgrown(memory=3, timeout=3)).options
    assert (asked.mem, asked.time) == ("4G", 240)
    assert request(config(), "update", history=outgrown(memory=3)).options.mem is None


def test_memory_that_is_not_set_cannot_grow_and_that_is_said() -> None:
    of = config(slurm={"mem_growth": 2})
    assert request(of, "update").options.mem is None, "nothing has run out of it yet"
    assert request(of, "update", history=outgrown(timeout=1)).options.mem is None
    with pytest.raises(UserError, match=r"^slurm\.mem_growth multiplies slurm\.mem, which is not set: set slurm\.mem"):
        request(of, "update", history=outgrown(memory=1))


def test_what_a_retry_gives_replaces_the_config_and_grows_from_there() -> None:
    of = config(slurm={"mem": "4G", "time": 100, "mem_growth": 2, "time_growth": 2})
    given = request(of, "update", history=History(mem="64G", minutes=600)).options
    assert (given.mem, given.time) == ("64G", 600)
    again = History(mem="64G", minutes=600, outgrown={"memory": 1, "timeout": 1})
    assert (request(of, "update", history=again).options.mem, request(of, "update", history=again).options.time) == (
        "131072M",
        1200,
    )
    assert request(config(slurm={"mem_growth": 2}), "update", history=again).options.mem == "131072M"


def test_a_reset_in_the_jobs_file_reaches_the_request(tmp_path: Path) -> None:
    of = config(slurm={"mem": "4G", "mem_growth": 2})
    (plan,) = family(of, "update")
    append(tmp_path, "submit", unit=str(plan.unit))
    append(tmp_path, "ended", unit=str(plan.unit), outcome="failed", cause="memory")
    assert request(of, "update", history=histories(tmp_path)[plan.unit]).options.mem == "8192M"
    append(tmp_path, "session")
    assert request(of, "update", history=histories(tmp_path)[plan.unit]).options.mem == "8192M", "not learnt anew"
    append(tmp_path, "reset", unit=str(plan.unit), mem="6G", minutes=30)
    found = request(of, "update", history=histories(tmp_path)[plan.unit]).options
    assert (found.mem, found.time) == ("6G", 30)


def test_residents_are_named_by_stage_and_shard() -> None:
    of = config(slurm={"follow": True}, epochs=2)
    names = {
        stage: [single.resident for single in request(of, stage, epoch).members().values()]
        for stage, epoch in (("rollout", 1), ("update", 1), ("evaluate", 0), ("sft", 0), ("demonstrate", 0))
    }
    assert names == {
        "rollout": ["rollout-s0000", "rollout-s0001"],
        "update": ["update"],
        "evaluate": ["evaluate"],
        "sft": [None],
        "demonstrate": [None],
    }
    assert request(of, "update", 2).resident == "update", "the same in every epoch"
    assert request(config(), "rollout").resident is None


def test_the_sender_of_a_run_carries_its_id_and_the_code(tmp_path: Path) -> None:
    run = create_or_resume(Config(name="run", runs_dir=str(tmp_path)))
    sender = Sender.of(run, "fake_stages")
    assert (sender.run, sender.id, sender.package) == (run, identity(run)["id"], "fake_stages")
    assert re.fullmatch(r"[0-9a-f]{40}|sources [0-9a-f]{12}", sender.revision)
    found = sender.request(config(), family(config(), "update"), 1, History())
    assert (found.module, found.arguments[0]) == ("fake_stages.update", str(run))
