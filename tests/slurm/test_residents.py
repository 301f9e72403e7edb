"""Stages that stay up: one process serves many orders, and an order never outlives its resident unnoticed."""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slurm import processes
from slurm.launcher import KEY_VARIABLE, Job, Request
from slurm.local import LocalLauncher
from slurm.options import Options
from slurm.residents import ORDERS, ResidentLauncher
from slurm.states import State

ROOT = Path(__file__).parents[2]
# Serves orders as a stage does; the epoch says how: 7 dies, 8 waits for ever, anything else is done at once.
FOLLOWER = """
import itertools, json, os, sys, time
from pathlib import Path
run = Path(sys.argv[1])
if sys.argv[2] != "--follow":
    (run / "alone").write_text(json.dumps(sys.argv[1:]))
    raise SystemExit
orders = Path(sys.argv[3]) / "orders"
for number in itertools.count(1):
    given = orders / f"{number:04d}.json"
    while not given.exists():
        if (orders / "stop").exists():
            raise SystemExit
        time.sleep(0.01)
    order = json.loads(given.read_text())
    with (run / "served").open("a") as log:
        log.write(json.dumps([os.getpid(), order]) + "\\n")
    if order["epoch"] == 7:
        raise SystemExit(1)
    if order["epoch"] == 8:
        time.sleep(300)
    (orders / f"{number:04d}.done").write_text("0")
"""


class Stage:
    """A run with one stage that stays up, and everything the tests ask of it."""

    def __init__(self, run: Path) -> None:
        self.run, self.owner = run, f"run-{uuid.uuid4().hex}"

    def launcher(self) -> ResidentLauncher:
        return ResidentLauncher(LocalLauncher(grace=0.5), self.run / "residents", self.owner)

    def request(self, epoch: int, resident: str | None = "rollout-s%4a", indices: tuple[int, ...] = (0,)) -> Request:
        shard = ("--shard", "%a") if indices else ()
        request = Request(
            key=f"{self.owner}:e{epoch:04d}-rollout" + ("-s%4a:1" if indices else ":1"),
            name="rollout",
            module="follower",
            arguments=(str(self.run), "--epoch", str(epoch), *shard, "--attempt", "1"),
            folder=self.run / "attempts" / f"e{epoch:04d}-s%4a",
            environment={"PYTHONPATH": os.pathsep.join([str(ROOT), str(self.run)])},
            options=Options(time=5),
            indices=indices,
            resident=resident,
        )
        for single in request.members().values():
            single.folder.mkdir(parents=True, exist_ok=True)
        return request

    def order(self, launcher: ResidentLauncher, epoch: int) -> Job:
        (job,) = launcher.submit(self.request(epoch)).values()
        return job

    def served(self) -> list[tuple[int, dict[str, int | str | None]]]:
        """(pid, order) in order of service."""
        path = self.run / "served"
        return [tuple(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []

    def pids(self) -> set[int]:
        return set(processes.marked(KEY_VARIABLE, f"{self.owner}:"))


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    (tmp_path / "follower.py").write_text(FOLLOWER)
    stage = Stage(tmp_path)
    yield stage
    inner = LocalLauncher(grace=0.2)
    inner.cancel(list(inner.find(f"{stage.owner}:").values()))


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def state(launcher: ResidentLauncher, job: Job) -> State:
    return launcher.poll([job])[job.key].state


def ended(launcher: ResidentLauncher, job: Job) -> Callable[[], bool]:
    return lambda: state(launcher, job) is State.ENDED


def test_orders_are_served_by_one_process_one_after_the_other(stage: Stage) -> None:
    launcher = stage.launcher()
    for epoch in (1, 2, 3):
        job = stage.order(launcher, epoch)
        assert job.key == f"{stage.owner}:e{epoch:04d}-rollout-s0000:1"
        until(ended(launcher, job))
        launcher.tidy([job])
    assert len({pid for pid, _ in stage.served()}) == 1
    wanted = [
        {"key": f"{stage.owner}:e{e:04d}-rollout-s0000:1", "epoch": e, "shard": 0, "attempt": 1} for e in (1, 2, 3)
    ]
    assert [order for _, order in stage.served()] == wanted
    assert stage.served()[0][0] in stage.pids(), "it stays for the next epoch"


def test_each_shard_has_a_resident_of_its_own(stage: Stage) -> None:
    launcher = stage.launcher()
    jobs = list(launcher.submit(stage.request(1, indices=(0, 1))).values())
    assert [job.key.rpartition("-")[2] for job in jobs] == ["s0000:1", "s0001:1"]
    until(lambda: all(sight.state is State.ENDED for sight in launcher.poll(jobs).values()))
    assert len({pid for pid, _ in stage.served()}) == 2
    assert {order["shard"] for _, order in stage.served()} == {0, 1}


def test_what_names_no_resident_is_a_job_of_its_own(stage: Stage) -> None:
    launcher = stage.launcher()
    (job,) = launcher.submit(stage.request(1, resident=None, indices=())).values()
    until(ended(launcher, job))
    assert json.loads((stage.run / "alone").read_text()) == [str(stage.run), "--epoch", "1", "--attempt", "1"]
    assert not (stage.run / "residents").exists()
    launcher.tidy([job])


def test_a_resident_that_dies_ends_its_order_and_the_next_starts_a_new_one(stage: Stage) -> None:
    launcher = stage.launcher()
    first = stage.order(launcher, 1)
    until(ended(launcher, first))
    launcher.tidy([first])
    fatal = stage.order(launcher, 7)
    until(ended(launcher, fatal))
    launcher.tidy([fatal])
    assert ended(launcher, first)(), "what was done stays done"
    last = stage.order(launcher, 2)
    until(ended(launcher, last))
    pids = [pid for pid, _ in stage.served()]
    assert pids[0] == pids[1] != pids[2]
    assert [order["epoch"] for _, order in stage.served()] == [1, 7, 2], "no order is served twice"


def test_a_resident_that_is_killed_ends_its_order(stage: Stage) -> None:
    launcher = stage.launcher()
    job = stage.order(launcher, 8)
    until(stage.served)
    assert state(launcher, job) is State.RUNNING
    os.kill(stage.served()[0][0], signal.SIGKILL)
    until(ended(launcher, job))


def test_cancelling_an_order_ends_its_resident_and_no_other(stage: Stage) -> None:
    launcher = stage.launcher()
    hung = stage.order(launcher, 8)
    (other,) = launcher.submit(stage.request(8, resident="evaluate", indices=())).values()
    until(lambda: len(stage.served()) == 2)
    launcher.cancel([hung])
    assert (state(launcher, hung), state(launcher, other)) == (State.ENDED, State.RUNNING)
    assert launcher.find(f"{stage.owner}:") == {other.key: other}


def test_open_orders_are_found_and_done_ones_are_not(stage: Stage) -> None:
    launcher = stage.launcher()
    done = stage.order(launcher, 1)
    until(ended(launcher, done))
    assert launcher.find(f"{stage.owner}:") == {}, "an idle resident is no job"
    hung = stage.order(launcher, 8)
    assert launcher.find(f"{stage.owner}:") == {hung.key: hung}
    assert launcher.find("run-of-somebody-else:") == {}


def test_another_launcher_takes_over(stage: Stage) -> None:
    before = stage.launcher()
    done = stage.order(before, 1)
    until(ended(before, done))
    hung = stage.order(before, 8)
    until(lambda: len(stage.served()) == 2)
    after = stage.launcher()
    assert after.find(f"{stage.owner}:") == {hung.key: hung}
    assert (state(after, done), state(after, hung)) == (State.ENDED, State.RUNNING)
    queued = stage.order(after, 3)
    assert queued.id.rpartition("/")[0] == hung.id.rpartition("/")[0], "the same resident"
    assert queued.id.endswith("/0003")
    after.cancel([hung])
    assert state(after, queued) is State.ENDED, "it goes with its resident"


def test_close_lets_every_resident_go(stage: Stage) -> None:
    launcher = stage.launcher()
    jobs = [stage.order(launcher, 1), *launcher.submit(stage.request(1, resident="evaluate", indices=())).values()]
    until(lambda: all(sight.state is State.ENDED for sight in launcher.poll(jobs).values()))
    assert len(stage.pids()) > 0
    stage.launcher().close()
    assert stage.pids() == set()
    for name in ("rollout-s0000", "evaluate"):
        assert (stage.run / "residents" / name / "1" / ORDERS / "stop").exists()
    launcher.close()


def test_a_half_written_order_is_never_seen(stage: Stage) -> None:
    launcher = stage.launcher()
    job = stage.order(launcher, 8)
    folder = stage.run / "residents" / "rollout-s0000" / "1" / ORDERS
    (folder / ".0002").write_text('{"key": "to')  # left by a kill in the middle
    assert launcher.find(f"{stage.owner}:") == {job.key: job}
    assert stage.order(launcher, 1).id.endswith("/0002")
    assert json.loads((folder / "0002.json").read_text())["epoch"] == 1
