"""Units that still work: seen while they do, gone if they come to nothing, and no different once they are published."""

import shutil

from pipeline import jobs
from pipeline.artifacts import Unit, attempt_directory
from pipeline.tracking import writer
from pipeline.tracking.writer import Writer
from tests.pipeline.tracking.runs_for_tests import (
    history,
    make_run,
    picture,
    publish_unit,
    store,
    submit,
    write_log,
    write_logs,
)

UPDATE = "e0001-update"
LOGS = ("metrics.jsonl", "usage.jsonl")


def attempt(run, number=1):
    return attempt_directory(run, Unit.parse(UPDATE), number)


def test_a_unit_is_seen_while_it_works_and_is_the_same_afterwards(runs, monkeypatch, empty_database):
    monkeypatch.setattr(writer, "LIVE_SECONDS", 0.0)
    run = make_run(runs)
    follower = Writer(run)
    submit(run, UPDATE)
    assert follower.catch_up() == []
    assert store(runs).nested == {}  # it has not begun
    write_logs(attempt(run), lines=3, at=20)
    assert follower.catch_up() == []
    shown = store(runs)
    unit = shown.nested[UPDATE]
    assert unit.info.status == "RUNNING"
    assert history(shown, unit, "actor/loss") == [(0, 20), (1, 21), (2, 22)]
    assert history(shown, unit, "system/memory_gb") == [(0, 4.0), (1, 3.0), (2, 2.0)]
    assert "actor/loss" not in shown.parent.data.metrics

    write_log(attempt(run) / "metrics.jsonl", 4, 21, actor__loss=lambda step: 100.0 + step)
    text = (attempt(run) / "metrics.jsonl").read_text().splitlines(keepends=True)
    (attempt(run) / "metrics.jsonl").write_text("".join(text[:3] + text[6:]))  # step 3 and what is left out before it
    assert follower.catch_up() == []
    assert history(store(runs), store(runs).nested[UPDATE], "actor/loss")[-1] == (3, 103.0)
    Writer(run).catch_up()  # another writer, as after a kill
    publish_unit(run, UPDATE, {"actor/loss": 0.5}, at=20, logs=LOGS)
    assert follower.catch_up() == []
    published = store(runs).nested[UPDATE]
    assert (published.info.run_id, published.info.status) == (unit.info.run_id, "FINISHED")
    before = picture(runs)
    (runs / "mlflow.db").write_bytes(empty_database)
    Writer(run).catch_up()
    assert picture(runs) == before


def test_a_start_that_came_to_nothing_leaves_nothing(runs, monkeypatch, empty_database):
    monkeypatch.setattr(writer, "LIVE_SECONDS", 0.0)
    run = make_run(runs)
    follower = Writer(run)
    submit(run, UPDATE)
    write_logs(attempt(run), lines=9, at=20)
    assert follower.catch_up() == []
    parent = store(runs).parent.info.run_id
    jobs.append(run, "ended", unit=UPDATE, attempt=1, outcome="failed", seconds=5.0)
    assert follower.catch_up() == []
    assert store(runs).nested == {}
    submit(run, UPDATE, 2)
    write_logs(attempt(run, 2), lines=2, at=40)
    assert follower.catch_up() == []
    assert history(store(runs), store(runs).nested[UPDATE], "actor/loss") == [(0, 40), (1, 41)]
    publish_unit(run, UPDATE, {"actor/loss": 0.5}, at=40, attempt=2, lines=2)
    assert follower.catch_up() == []
    assert store(runs).parent.info.run_id == parent
    before = picture(runs)
    (runs / "mlflow.db").write_bytes(empty_database)
    Writer(run).catch_up()
    assert picture(runs) == before


def test_a_job_that_is_started_again_shows_its_last_start_alone(runs, monkeypatch):
    monkeypatch.setattr(writer, "LIVE_SECONDS", 0.0)
    run = make_run(runs)
    follower = Writer(run)
    submit(run, UPDATE)
    write_logs(attempt(run), lines=9, at=20)
    assert follower.catch_up() == []
    write_logs(attempt(run), lines=2, at=40)  # under the same number, behind what the first one wrote
    assert follower.catch_up() == []
    shown = store(runs)
    assert history(shown, shown.nested[UPDATE], "actor/loss") == [(0, 40), (1, 41)]
    shutil.rmtree(attempt(run))
    write_logs(attempt(run) / "restart-1", lines=2, at=60)
    assert follower.catch_up() == []
    shown = store(runs)
    assert history(shown, shown.nested[UPDATE], "actor/loss") == [(0, 60), (1, 61)]
