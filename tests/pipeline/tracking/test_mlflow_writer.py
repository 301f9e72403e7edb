import contextlib
import json
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient

from pipeline import rundir
from pipeline.artifacts import Unit, publish, supersede
from pipeline.config import Config
from pipeline.tracking import mlflow_sink, record
from pipeline.tracking.__main__ import Writer, follow, locked, main
from pipeline.tracking.sink import SinkError

ROOT = Path(__file__).parents[3]
CLOSED_PORT = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory):
    """MLflow's tables; making them takes seconds, so the tests copy them."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    path.with_name("mlflow.db.new").write_bytes(b"left by a writer that was killed")
    mlflow_sink.create_database(path)
    return path.read_bytes()


@pytest.fixture
def runs(tmp_path, empty_database):
    directory = tmp_path / "runs"
    directory.mkdir()
    (directory / "mlflow.db").write_bytes(empty_database)
    return directory


def make_run(runs: Path, uri: str | None = None, **values) -> Path:
    config = {
        "name": "pick",
        "runs_dir": str(runs),
        "epochs": 2,
        "rollout": {"shards": 2, "episodes": 64},
        "trainer": {"logger": {"mlflow": {"uri": uri}}},
    }
    return rundir.create_or_resume(Config.model_validate(config | values))


def publish_unit(run: Path, name: str, metrics: dict, lines=3, attempt=1, videos=(), series="actor/loss", at=0) -> Path:
    """Publish a unit with `lines` lines of metrics, as a stage would; `at` makes numbers differ between units."""
    unit = Unit.parse(name)
    scratch = run / "attempts" / name / str(attempt) / "scratch" / unit.stage
    scratch.mkdir(parents=True)
    with (scratch / "metrics.jsonl").open("w") as file:
        for step in range(lines):
            line = {
                "time": 1.7e9 + at + step / 8,
                "step": step,
                "metrics": {series: step + at, "actor/grad_norm": None},
            }
            file.write(json.dumps(line) + "\n")
    for video in videos:
        (scratch / "videos").mkdir(exist_ok=True)
        (scratch / "videos" / video).write_bytes(video.encode() * 100)
    described = {
        "unit": name, "part": unit.stage, "attempt": attempt, "inputs": {}, "config_digest": "c", "code_revision": "r1",
        "seed": 0, "metrics": metrics, "seconds": {"simulate": 2.0, "total": 3.0}, "host": "node1", "job_id": "77",
        "started": f"2026-01-01T00:{at:02d}:00+00:00", "versions": {},
    }  # fmt: skip
    publish(scratch, run / unit.marker, described)
    return run / unit.marker


def publish_all(run: Path, lines=3) -> None:
    """The units of two epochs with two rollout shards each."""
    publish_unit(run, "e0000-demonstrate-s0000", {"rollout/success_rate": 0.9, "rollout/episodes": 10}, lines, at=1)
    publish_unit(run, "e0000-sft", {"actor/loss": 2.5}, lines, at=2)
    publish_unit(run, "e0000-evaluate", {"env/success_rate": 0.25}, lines, videos=["a.mp4", "b.mp4"], at=3)
    for epoch in (1, 2):
        for shard, (success, episodes) in enumerate([(0.5, 48), (0.1, 16)]):
            summary = {
                "rollout/success_rate": success, "rollout/episodes": episodes, "rollout/reward_mean": success * epoch,
                "env/step_reward": 0.1, "env/success_rate": 9.0,
            }  # fmt: skip
            publish_unit(run, f"e{epoch:04d}-rollout-s{shard:04d}", summary, lines, at=10 * epoch + shard)
        publish_unit(run, f"e{epoch:04d}-update", {"actor/loss": 1 / epoch, "actor/lr": 1e-4}, lines, at=10 * epoch + 5)
    summary = {"env/success_rate": 0.75, "env/success_rate/pick_onto_plate": 0.75, "env/step_reward": 5.0}
    publish_unit(run, "e0002-evaluate", summary, lines, videos=["a.mp4"], at=30)


def store(runs: Path) -> SimpleNamespace:
    """Everything MLflow shows of the experiment: parent, nested runs by name, client."""
    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    found = client.search_runs([client.get_experiment_by_name("baton").experiment_id], max_results=1000)
    parents = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    nested = {run.info.run_name: run for run in found if "mlflow.parentRunId" in run.data.tags}
    assert len(nested) == len(found) - 1
    assert {run.data.tags["mlflow.parentRunId"] for run in nested.values()} <= {parents[0].info.run_id}
    return SimpleNamespace(client=client, parent=parents[0], nested=nested)


def history(shown: SimpleNamespace, run, name: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in shown.client.get_metric_history(run.info.run_id, name)]


def files(shown: SimpleNamespace, folder: str | None = None) -> dict[str, int]:
    found = {}
    for file in shown.client.list_artifacts(shown.parent.info.run_id, folder):
        found |= files(shown, file.path) if file.is_dir else {file.path: file.file_size}
    return found


def picture(runs: Path) -> dict:
    """All of it as plain values, but for the ids that MLflow invents."""
    shown = store(runs)
    seen = {}
    for run in [shown.parent, *shown.nested.values()]:
        tags = {key: value for key, value in run.data.tags.items() if key != "mlflow.parentRunId"}
        series = {
            name: sorted(
                (m.step, m.timestamp, repr(m.value)) for m in shown.client.get_metric_history(run.info.run_id, name)
            )
            for name in run.data.metrics
        }
        times = (run.info.status, run.info.start_time, run.info.end_time)
        seen[run.info.run_name] = (tags, run.data.params, series, times)
    return {"runs": seen, "files": files(shown)}


def command(run: Path, *arguments: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "pipeline.tracking", str(run), *arguments]
    return subprocess.Popen(line, cwd=run, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_until(condition, seconds=30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def units_written(runs: Path) -> int:
    """How many nested runs are finished; asks the database itself, which is cheap while a writer is at work."""
    with contextlib.closing(sqlite3.connect(runs / "mlflow.db")) as database:
        return database.execute("SELECT count(*) FROM runs WHERE status = 'FINISHED'").fetchone()[0]


def test_a_run_is_a_parent_with_a_nested_run_for_each_unit(runs):
    run = make_run(runs)
    publish_all(run)
    Writer(run).catch_up()
    shown = store(runs)

    assert shown.parent.info.run_name == "pick"
    assert shown.parent.info.status == "FINISHED"
    assert shown.parent.info.end_time == record.read(run).ended
    assert shown.parent.data.tags["baton.run_id"] == rundir.identity(run)["id"]
    assert shown.parent.data.params["rollout.shards"] == "2"
    assert shown.parent.data.params["policy.checkpoint"] == "null"
    assert shown.parent.data.params["simulator.options"] == "{}"
    assert len(shown.nested) == 10
    unit = shown.nested["e0002-rollout-s0001"]
    assert unit.info.status == "FINISHED"
    assert unit.info.start_time == 1767226860000  # 2026-01-01T00:21 UTC
    expected = {
        "stage": "rollout", "epoch": "2", "shard": "1", "attempt": "1", "policy_version": "1", "job_id": "77",
        "host": "node1", "run_id": rundir.identity(run)["id"],
    }  # fmt: skip
    assert {key: unit.data.tags[f"baton.{key}"] for key in expected} == expected
    assert "baton.policy_version" not in shown.nested["e0000-demonstrate-s0000"].data.tags


def test_a_unit_shows_its_steps_and_one_step_behind_them_its_summary(runs):
    run = make_run(runs)
    publish_unit(run, "e0001-update", {"actor/loss": 0.5}, lines=3)
    Writer(run).catch_up()
    shown = store(runs)
    unit = shown.nested["e0001-update"]
    assert history(shown, unit, "actor/loss") == [(0, 0), (1, 1), (2, 2), (3, 0.5)]
    assert history(shown, unit, "time/simulate") == [(3, 2.0)]
    assert all(math.isnan(value) for _, value in history(shown, unit, "actor/grad_norm"))


def test_the_parent_shows_one_number_an_epoch(runs):
    run = make_run(runs)
    publish_all(run)
    Writer(run).catch_up()
    shown = store(runs)
    course = {name: history(shown, shown.parent, name) for name in shown.parent.data.metrics}
    assert course["actor/loss"] == [(0, 2.5), (1, 1.0), (2, 0.5)]
    assert course["rollout/success_rate"] == [(1, pytest.approx(0.4)), (2, pytest.approx(0.4))]
    assert course["rollout/episodes"] == [(1, 64), (2, 64)]
    assert course["env/success_rate"] == [(0, 0.25), (2, 0.75)]
    assert course["env/success_rate/pick_onto_plate"] == [(2, 0.75)]
    assert course["env/step_reward"] == [(1, pytest.approx(0.1)), (2, pytest.approx(0.1))]
    assert course["time/rollout"] == [(1, 6.0), (2, 6.0)]
    assert course["time/demonstrate"] == [(0, 3.0)]


def test_an_epoch_waits_for_all_its_shards(runs):
    run = make_run(runs)
    writer = Writer(run)
    publish_unit(run, "e0001-rollout-s0001", {"rollout/success_rate": 0.0, "rollout/episodes": 1})
    writer.catch_up()
    assert "rollout/success_rate" not in store(runs).parent.data.metrics
    assert store(runs).parent.info.status == "RUNNING"
    publish_unit(run, "e0001-rollout-s0000", {"rollout/success_rate": 1.0, "rollout/episodes": 3})
    writer.catch_up()
    shown = store(runs)
    assert history(shown, shown.parent, "rollout/success_rate") == [(1, 0.75)]


def test_videos_config_and_result_are_artifacts(runs):
    run = make_run(runs)
    publish_all(run)
    writer = Writer(run)
    writer.catch_up()
    (run / "result.json").write_text("{}\n")
    writer.catch_up()
    shown = store(runs)
    sizes = files(shown)
    assert set(sizes) == {
        "config.yaml", "run.json", "result.json",
        "videos/epoch-0000/a.mp4", "videos/epoch-0000/b.mp4", "videos/epoch-0002/a.mp4",
    }  # fmt: skip
    assert sizes["videos/epoch-0002/a.mp4"] == 500
    assert sizes["config.yaml"] == (run / "config.yaml").stat().st_size
    assert (runs / "mlartifacts").is_dir()


def test_twice_is_the_same_as_once(runs):
    run = make_run(runs)
    publish_all(run)
    Writer(run).catch_up()
    before = picture(runs)
    Writer(run).catch_up()
    assert picture(runs) == before


def test_piece_by_piece_and_anew_into_an_empty_store_are_the_same(runs, empty_database):
    run = make_run(runs)
    writer = Writer(run)
    writer.catch_up()
    publish_all(run)
    for name in ("e0002-evaluate", "e0001-rollout-s0001"):  # leaves and comes back between two passes
        marker = run / Unit.parse(name).marker
        marker.rename(run / "aside")
        writer.catch_up()
        (run / "aside").rename(marker)
    writer.catch_up()
    before = picture(runs)
    (runs / "mlflow.db").write_bytes(empty_database)
    Writer(run).catch_up()
    assert picture(runs) == before


def test_a_superseded_unit_leaves_no_trace(runs, empty_database):
    run = make_run(runs)
    publish_all(run)
    writer = Writer(run)
    writer.catch_up()
    supersede(run, Unit.parse("e0002-update").marker, "rerun")
    publish_unit(run, "e0002-update", {"actor/loss": 0.125}, attempt=2, at=40)
    writer.catch_up()
    shown = store(runs)
    assert history(shown, shown.parent, "actor/loss") == [(0, 2.5), (1, 1.0), (2, 0.125)]
    assert shown.nested["e0002-update"].data.tags["baton.attempt"] == "2"
    before = picture(runs)
    (runs / "mlflow.db").write_bytes(empty_database)
    Writer(run).catch_up()
    assert picture(runs) == before


def test_more_epochs_are_shown_as_a_parameter(runs):
    run = make_run(runs, epochs=2)
    publish_all(run)
    Writer(run).catch_up()
    units = {name: found.info.run_id for name, found in store(runs).nested.items()}
    make_run(runs, epochs=5)
    Writer(run).catch_up()
    shown = store(runs)
    assert shown.parent.data.params["epochs"] == "5"
    assert shown.parent.info.status == "RUNNING"
    assert history(shown, shown.parent, "env/success_rate") == [(0, 0.25), (2, 0.75)]
    assert {name: found.info.run_id for name, found in shown.nested.items()} == units


def test_doubles_that_a_late_server_made_are_removed(runs):
    run = make_run(runs)
    publish_unit(run, "e0000-sft", {"actor/loss": 1.0})
    Writer(run).catch_up()
    before = picture(runs)
    shown = store(runs)
    for found in (shown.parent, shown.nested["e0000-sft"]):
        tags = {key: value for key, value in found.data.tags.items() if key != "mlflow.runName"}
        shown.client.create_run(found.info.experiment_id, found.info.start_time, tags, found.info.run_name)
    Writer(run).catch_up()
    assert picture(runs) == before


def test_two_runs_share_a_store(runs):
    for name in ("one", "two"):
        run = make_run(runs, name=name)
        publish_unit(run, "e0000-sft", {"actor/loss": 1.0})
        Writer(run).catch_up()
    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    found = client.search_runs([client.get_experiment_by_name("baton").experiment_id])
    assert sorted(run.info.run_name for run in found) == ["e0000-sft", "e0000-sft", "one", "two"]


@pytest.mark.slow
def test_killed_at_any_moment_and_again_is_the_same_as_once(runs, empty_database):
    run = make_run(runs)
    publish_all(run, lines=60)
    Writer(run).catch_up()
    expected = picture(runs)

    seed = random.randrange(10**6)
    print(f"seed {seed}")  # shown where the test fails
    generator = random.Random(seed)
    (runs / "mlflow.db").write_bytes(empty_database)
    killed = 0
    for enough in (1, 5):
        writer = command(run)
        wait_until(lambda writer=writer, enough=enough: writer.poll() is not None or units_written(runs) >= enough)
        time.sleep(generator.uniform(0, 0.05))
        writer.send_signal(signal.SIGKILL)
        killed += writer.wait() == -signal.SIGKILL
        writer.stdout.close()
    assert killed, "the writer was done before it could be killed"
    Writer(run).catch_up()
    assert picture(runs) == expected


@pytest.mark.parametrize(
    ("call", "carried_out"),
    [(1, True), (3, False), (8, True), (10, True), (13, False)],
)
def test_a_connection_lost_at_any_call_loses_nothing(runs, empty_database, monkeypatch, call, carried_out):
    run = make_run(runs)
    publish_unit(run, "e0000-sft", {"actor/loss": 1.0})
    publish_unit(run, "e0000-evaluate", {"env/success_rate": 0.5}, videos=["a.mp4"], at=1)
    Writer(run).catch_up()
    expected = picture(runs)
    (runs / "mlflow.db").write_bytes(empty_database)

    calls = iter(range(1000))
    with monkeypatch.context() as patch:
        for name in ("create_experiment", "create_run", "log_batch", "log_artifact", "set_tag", "set_terminated"):
            patch.setattr(MlflowClient, name, losing_the_connection(name, calls, call, carried_out))
        with pytest.raises(SinkError, match="connection lost"):
            Writer(run).catch_up()
    Writer(run).catch_up()
    assert picture(runs) == expected


def losing_the_connection(name, calls, broken, carried_out):
    """The client's method; at the call with number `broken` the connection is lost, before or after it took effect."""
    method = getattr(MlflowClient, name)

    def wrapped(*arguments, **keywords):
        loses = next(calls) == broken
        answer = method(*arguments, **keywords) if carried_out or not loses else None
        if loses:
            raise mlflow_sink.MlflowException("connection lost")
        return answer

    return wrapped


@pytest.mark.slow
def test_a_server_that_is_down_costs_an_exit_code_and_nothing_else(runs):
    run = make_run(runs, uri=CLOSED_PORT)
    publish_all(run)
    writer = command(run)
    output, _ = writer.communicate(timeout=30)
    assert writer.returncode == 1
    assert "could not be written" in output
    assert "Traceback" not in output
    assert len(output.splitlines()) == 1
    assert f"MLflow at {CLOSED_PORT}" in (run / "tracking.log").read_text()
    make_run(runs)  # trainer may change: back to the database
    Writer(run).catch_up()
    assert len(store(runs).nested) == 10


@pytest.mark.slow
def test_follow_writes_what_appears_and_catches_up_at_sigterm(runs):
    run = make_run(runs)
    writer = command(run, "--follow", "--poll", "0.2")
    publish_unit(run, "e0000-sft", {"actor/loss": 1.0})
    wait_until(lambda: units_written(runs) == 1)
    publish_unit(run, "e0000-evaluate", {"env/success_rate": 1.0}, at=1)
    writer.send_signal(signal.SIGTERM)
    output, _ = writer.communicate(timeout=30)
    assert (writer.returncode, output) == (0, "")
    assert units_written(runs) == 2


def test_follow_ends_with_1_when_the_server_stays_down(runs, caplog):
    run = make_run(runs, uri=CLOSED_PORT)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        signal.raise_signal(signal.SIGTERM)
        assert follow(Writer(run), 0.1, os.getppid()) == 1
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert "next try in 0.2 s" in caplog.records[0].getMessage()
    assert "nothing is lost" in caplog.records[-1].getMessage()


@pytest.mark.slow
def test_follow_ends_when_its_parent_was_killed(runs):
    run = make_run(runs, trainer={"logger": {"mlflow": {"enable": False}}})  # MLflow's import would only cost time
    line = [sys.executable, "-m", "pipeline.tracking", str(run), "--follow", "--poll", "0.2"]
    code = (
        f"import subprocess, time\nchild = subprocess.Popen({line!r})\nprint(child.pid, flush=True)\ntime.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, text=True)
    child = int(parent.stdout.readline())
    wait_until((run / "tracking.log").exists)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: not Path(f"/proc/{child}").exists() or "State:\tZ" in Path(f"/proc/{child}/status").read_text())
    assert "is gone" in (run / "tracking.log").read_text()


def test_a_second_writer_waits_for_the_first(tmp_path):
    path = tmp_path / "lock"
    with locked(path, 0), pytest.raises(TimeoutError, match="another writer"), locked(path, 0.2):
        pass
    with locked(path, 0):
        pass


def test_a_deleted_experiment_is_the_users_to_restore(runs):
    run = make_run(runs)
    Writer(run).catch_up()
    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    client.delete_experiment(client.get_experiment_by_name("baton").experiment_id)
    with pytest.raises(mlflow_sink.UserError, match="mlflow experiments restore"):
        Writer(run).catch_up()


def test_an_altered_metrics_file_is_not_written(runs):
    run = make_run(runs)
    path = publish_unit(run, "e0000-sft", {"actor/loss": 1.0}) / "metrics.jsonl"
    path.write_text(path.read_text().replace("actor", "other"))
    with pytest.raises(mlflow_sink.UserError, match="metrics.jsonl is not what e0000-sft published"):
        Writer(run).catch_up()


def test_several_shards_must_say_their_episodes(runs):
    run = make_run(runs)
    for shard in (0, 1):
        publish_unit(run, f"e0001-rollout-s000{shard}", {"rollout/success_rate": 0.0})
    with pytest.raises(mlflow_sink.UserError, match="has no rollout/episodes"):
        Writer(run).catch_up()


def test_no_run_directory_is_one_line_and_exit_code_2(tmp_path, capfd):
    assert main([str(tmp_path)]) == 2
    assert capfd.readouterr().err == f"baton: {tmp_path} is not a run directory: it has no config.yaml\n"


def test_a_run_without_trackers_is_not_written(runs):
    run = make_run(runs, trainer={"logger": {"mlflow": {"enable": False}}})
    assert Writer(run).sinks == []
