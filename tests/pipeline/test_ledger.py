"""What a run directory says about its units."""

from __future__ import annotations

import gc
import json
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline import jobs
from pipeline.artifacts import Unit, attempt_directory, publish, supersede
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.ledger import UnitState, published, read, run_plan
from pipeline.plan import make_plan
from pipeline.retention import free, removable
from pipeline.rundir import create_or_resume

SFT = Unit(0, "sft")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return create_or_resume(Config(name="run", runs_dir=str(tmp_path), epochs=2, max_attempts=2))


def release(run: Path, unit: Unit, metrics: dict[str, float] | None = None) -> None:
    for part, relative in unit.outputs.items():
        scratch = attempt_directory(run, unit, 1) / "scratch"
        scratch.mkdir(parents=True)
        (scratch / "metrics.jsonl").write_text("{}\n")
        (scratch / "data.bin").write_bytes(b"data")
        describe: dict[str, Any] = {
            "unit": str(unit),
            "part": part,
            "attempt": 1,
            "inputs": {},
            "config_digest": "",
            "code_revision": "",
            "seed": 0,
            "metrics": metrics or {},
            "seconds": {},
            "started": "2026-01-01T00:00:00+00:00",
            "host": "",
            "job_id": "",
            "versions": {},
        }
        publish(scratch, run / relative, describe)


def state(run: Path, unit: Unit) -> UnitState:
    return next(found for found in read(run).units if found.unit == unit)


def submit(run: Path, unit: Unit, attempt: int) -> None:
    jobs.append(run, "submit", unit=str(unit), attempt=attempt, key=f"k{attempt}")
    jobs.append(run, "submitted", unit=str(unit), attempt=attempt, key=f"k{attempt}", job="1.1.boot")


def end(run: Path, unit: Unit, attempt: int, outcome: str, error: str = "why") -> None:
    jobs.append(run, "ended", unit=str(unit), attempt=attempt, outcome=outcome, error=error, seconds=1.0)


def test_a_new_run_waits(run: Path) -> None:
    snapshot = read(run)
    assert [found.unit for found in snapshot.units] == [plan.unit for plan in make_plan(snapshot.config)]
    assert {found.status for found in snapshot.units} == {"waiting"}
    assert snapshot.driver is None


def test_running_shows_progress_and_published_shows_the_summary(run: Path) -> None:
    submit(run, SFT, 1)
    attempt_directory(run, SFT, 1).mkdir(parents=True)
    (attempt_directory(run, SFT, 1) / "progress.json").write_text('{"done": 3, "total": 9, "metrics": {}}')
    found = state(run, SFT)
    assert (found.status, found.attempt, found.seconds) == ("running", 1, None)
    assert found.progress == {"done": 3, "total": 9, "metrics": {}}
    release(run, SFT, {"actor/loss": 0.5})
    found = state(run, SFT)
    assert (found.status, found.attempts, found.metrics) == ("published", 1, {"actor/loss": 0.5})
    assert found.seconds is not None
    assert found.started == 1767225600.0


def test_only_the_artifact_makes_a_unit_published(run: Path) -> None:
    submit(run, SFT, 1)
    end(run, SFT, 1, "published")
    assert state(run, SFT).status == "waiting"
    release(run, SFT)
    assert state(run, SFT).status == "published"
    supersede(run, SFT.marker, "test")
    assert state(run, SFT).status == "waiting"


def test_failures_add_up_until_a_new_session(run: Path) -> None:
    for attempt, status in ((1, "waiting"), (2, "failed")):
        submit(run, SFT, attempt)
        end(run, SFT, attempt, "failed", f"crash {attempt}")
        assert (state(run, SFT).status, state(run, SFT).error) == (status, f"crash {attempt}")
    jobs.append(run, "session")
    found = state(run, SFT)
    assert (found.status, found.attempts, found.error) == ("waiting", 2, None)


@pytest.mark.parametrize(
    ("cause", "limit"),
    [("crash", 2), ("memory", 2), ("timeout", 2), ("cancelled", 2), ("preempted", 4), ("node", 4)],
)
def test_each_cause_has_its_own_limit(run: Path, cause: str, limit: int) -> None:
    create_or_resume(
        Config.model_validate(
            {"name": "run", "runs_dir": str(run.parent), "epochs": 2, "max_attempts": 2, "slurm": {"max_requeues": 4}}
        )
    )
    # Whatever else went wrong before leaves this cause its tries.
    others = [other for other in ("crash", "timeout", "preempted") if other != cause]
    for attempt, other in enumerate([*others, *[cause] * limit], 1):
        assert state(run, SFT).status == "waiting"
        submit(run, SFT, attempt)
        jobs.append(run, "ended", unit=str(SFT), attempt=attempt, outcome="failed", cause=other, error=other)
    assert (state(run, SFT).status, state(run, SFT).error) == ("failed", cause)


def test_progress_is_that_of_the_start_that_runs_now(run: Path) -> None:
    submit(run, SFT, 1)
    for folder, done in ((".", 8), ("restart-1", 3)):
        path = attempt_directory(run, SFT, 1) / folder
        path.mkdir(parents=True, exist_ok=True)
        (path / "progress.json").write_text(json.dumps({"done": done, "total": 9, "metrics": {}}))
    progress = state(run, SFT).progress
    assert progress is not None
    assert progress["done"] == 3


@pytest.mark.parametrize(
    ("outcome", "status"), [("refused", "failed"), ("cancelled", "waiting"), ("unsubmitted", "waiting")]
)
def test_what_one_end_means(run: Path, outcome: str, status: str) -> None:
    submit(run, SFT, 1)
    end(run, SFT, 1, outcome)
    assert state(run, SFT).status == status


def test_a_torn_last_line_is_dropped_by_the_next(run: Path) -> None:
    submit(run, SFT, 1)
    with (run / jobs.FILE).open("a") as file:
        file.write('{"event":"ended","unit":"e0000-sft","att')
    assert state(run, SFT).status == "running"
    end(run, SFT, 1, "failed")
    assert [json.loads(line)["event"] for line in (run / jobs.FILE).read_text().splitlines()] == [
        "submit",
        "submitted",
        "ended",
    ]


def test_a_damaged_line_is_named(run: Path) -> None:
    (run / jobs.FILE).write_text('{"event":"session","time":1}\nnonsense\n')
    with pytest.raises(UserError, match=r"jobs\.jsonl, line 2"):
        read(run)


def test_an_evaluation_that_is_no_longer_asked_for_stays_in_sight(run: Path) -> None:
    release(run, Unit(2, "evaluate"))
    create_or_resume(Config(name="run", runs_dir=str(run.parent), epochs=4, max_attempts=2))
    assert state(run, Unit(2, "evaluate")).status == "published"


def test_a_thousand_epochs_are_read_in_a_moment(tmp_path: Path) -> None:
    run = create_or_resume(Config(name="run", runs_dir=str(tmp_path), epochs=1000))
    for epoch in range(1, 101):
        submit(run, Unit(epoch, "update"), 1)
    assert len(read(run).units) > 2000
    gc.freeze()  # looking through what other tests of this process have left behind is no part of it
    try:
        start = time.process_time()
        for _ in range(5):
            read(run)
        assert (time.process_time() - start) / 5 < 0.1
    finally:
        gc.unfreeze()


def test_retention_frees_what_nobody_needs_and_forgets_nothing(tmp_path: Path) -> None:
    run = create_or_resume(
        Config.model_validate(
            {
                "name": "run",
                "runs_dir": str(tmp_path),
                "epochs": 4,
                "evaluate": {"interval": 2},
                "keep": {"optimizer_states": 1, "policies": 1, "rollouts": 1},
            }
        )
    )
    config, plans = read(run).config, run_plan(run, read(run).config)
    done = {plan.unit for plan in plans if plan.unit.epoch <= 3}
    for unit in sorted(done):
        release(run, unit)
    film = "videos/epoch-0001-rollout-a-episode-0000-success.mp4"
    (run / "epochs/0001/rollout/shard-0000/videos").mkdir()
    (run / "epochs/0001/rollout/shard-0000" / film).write_bytes(b"film")
    gone = free(run, config, plans, done)
    assert sorted(gone) == [
        "epochs/0001/engine",
        "epochs/0001/rollout/shard-0000",
        "epochs/0002/engine",
        "epochs/0002/rollout/shard-0000",
        "policies/0001",
    ]
    assert all(published(run, unit) for unit in done), "a freed unit is still done"
    assert (run / "freed/e0001-rollout-s0000/metrics.jsonl").is_file()
    assert (run / "freed/e0001-rollout-s0000" / film).read_bytes() == b"film"
    assert free(run, config, plans, done) == []


def test_nothing_that_is_still_needed_goes() -> None:
    config = Config.model_validate({"name": "r", "epochs": 3, "keep": {"optimizer_states": 1, "policies": 1}})
    plans = make_plan(config)
    done = {plan.unit for plan in plans if plan.unit.epoch <= 2} - {Unit(2, "update")}
    # update(2) still reads the optimizer state of update(1), and its policy.
    assert removable(config, plans, done) == []
