import json
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipeline import jobs, retention, rundir
from pipeline.artifacts import Unit, checksum, open_artifact, supersede
from pipeline.plan import make_plan
from pipeline.tracking import record
from pipeline.tracking.writer import Writer
from tests.pipeline.tracking.runs_for_tests import (
    BEGAN,
    files,
    history,
    make_run,
    models,
    picture,
    publish_all,
    publish_unit,
    store,
    submit,
)

CLOSED_PORT = "http://127.0.0.1:9"


def test_a_run_is_a_parent_with_a_nested_run_for_each_unit(runs):
    run = make_run(runs)
    publish_all(run)
    Writer(run).catch_up()
    shown = store(runs)

    assert shown.parent.info.run_name == "pick"
    assert shown.parent.info.status == "FINISHED"
    assert shown.parent.info.end_time == record.Reader(run).read().ended
    assert shown.parent.data.tags["baton.run_id"] == rundir.identity(run)["id"]
    assert shown.parent.data.params["rollout.shards"] == "2"
    assert shown.parent.data.params["policy.checkpoint"] == "null"
    assert shown.parent.data.params["simulator.options"] == "{}"
    assert len(shown.nested) == 10
    unit = shown.nested["e0002-rollout-s0001"]
    assert unit.info.status == "FINISHED"
    assert unit.info.start_time == round(1000 * (BEGAN + 21))  # its first sample
    expected = {
        "stage": "rollout", "epoch": "2", "shard": "1", "attempt": "1", "policy_version": "1", "job_id": "77",
        "node": "node1", "run_id": rundir.identity(run)["id"],
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
    assert [str(value) for _, value in history(shown, unit, "actor/grad_norm")] == ["nan"] * 3
    assert history(shown, unit, "system/memory_gb") == [(0, 4.0), (1, 3.0), (2, 2.0)]


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
        "config.yaml", "run.json", "result.json", "success.csv", "videos/epoch-0000/evaluate/a.mp4",
        "videos/epoch-0000/evaluate/b.mp4", "videos/epoch-0002/evaluate/a.mp4",
    }  # fmt: skip
    assert sizes["videos/epoch-0002/evaluate/a.mp4"] == 500
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
    for relative in Unit.parse("e0002-update").outputs.values():
        supersede(run, relative, "rerun")
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


CHANGES = (
    "create_experiment", "create_run", "log_batch", "log_artifact", "log_text", "set_tag", "set_terminated",
    "create_registered_model", "create_model_version", "set_model_version_tag", "set_registered_model_alias",
)  # fmt: skip


@pytest.mark.parametrize(
    ("call", "carried_out"),
    [(1, True), (4, False), (8, True), (11, True), (13, False), (15, True), (16, False), (18, True), (22, False)],
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
        for name in CHANGES:
            patch.setattr(MlflowClient, name, losing_the_connection(name, calls, call, carried_out))
        assert Writer(run).catch_up() == [f"MLflow at sqlite:///{runs}/mlflow.db: connection lost"]
    Writer(run).catch_up()
    assert picture(runs) == expected


def losing_the_connection(name, calls, broken, carried_out):
    """The client's method; at the call with number `broken` the connection is lost, before or after it took effect."""
    method = getattr(MlflowClient, name)

    def wrapped(*arguments, **keywords):
        loses = next(calls) == broken
        answer = method(*arguments, **keywords) if carried_out or not loses else None
        if loses:
            raise MlflowException("connection lost")
        return answer

    return wrapped


def test_a_policy_is_a_model_version_with_its_lineage(runs):
    run = make_run(runs)
    publish_all(run)
    Writer(run).catch_up()
    shown = store(runs)
    registered = models(shown)
    assert sorted(registered) == [0, 1, 2]
    assert registered[2]["run"] == "e0002-update"
    assert registered[2]["name"] == rundir.identity(run)["id"]
    tags = registered[2]["tags"]
    assert tags["baton.trained_on"] == "epochs/0002/rollout/shard-0000 epochs/0002/rollout/shard-0001"
    assert (tags["baton.epoch"], tags["baton.parent_version"]) == ("2", "1")
    assert tags["baton.manifest"] == checksum(run / "policies/0002/manifest.json")
    assert tags["baton.digest"] == open_artifact(run / "policies/0002").digest
    assert "baton.parent_version" not in registered[0]["tags"]
    assert [registered[version]["tags"].get("baton.success_rate") for version in (0, 1, 2)] == ["0.25", None, "0.75"]
    assert [registered[version]["aliases"] for version in (0, 1, 2)] == [[], [], ["best"]]
    best = shown.client.get_model_version_by_alias(registered[2]["name"], "best")
    lineage = shown.client.download_artifacts(best.run_id, "policy/lineage.json", str(run))
    told = json.loads(Path(lineage).read_text())
    assert told["path"] == str(run / "policies/0002")
    assert told["inputs"] == {"epochs/0002/rollout/shard-0000": "d0", "epochs/0002/rollout/shard-0001": "d1"}


def test_what_was_freed_is_still_shown(runs):
    run = make_run(runs, keep={"rollouts": 1})
    publish_all(run)
    writer = Writer(run)
    writer.catch_up()
    before = picture(runs)
    done = {unit.unit for unit in record.Reader(run).read().units}
    assert retention.free(run, rundir.load(run), make_plan(rundir.load(run)), done) == [
        f"epochs/0001/rollout/shard-000{shard}" for shard in (0, 1)
    ]
    writer.catch_up()
    Writer(run).catch_up()
    assert picture(runs) == before


def test_queue_and_gpu_hours_come_from_the_jobs(runs, monkeypatch):
    run = make_run(
        runs, cluster={"num_nodes": 1, "gpus_per_node": 2, "component_placement": {"actor,rollout,env": "all"}}
    )
    for attempt in (1, 2):
        submit(run, "e0000-sft", attempt)
        if attempt == 1:
            jobs.append(run, "ended", unit="e0000-sft", attempt=1, outcome="failed", seconds=3700.0, queued=100.0)
    submitted = json.loads((run / "jobs.jsonl").read_text().splitlines()[-1])["time"]
    publish_unit(run, "e0000-sft", {"actor/loss": 1.0}, attempt=2, at=int(submitted - BEGAN) + 8)
    Writer(run).catch_up()
    shown = store(runs)
    unit = shown.nested["e0000-sft"]
    wait = int(submitted - BEGAN) + 8 + BEGAN - submitted
    assert history(shown, unit, "time/queue") == [(3, pytest.approx(wait, abs=1e-3))]
    assert history(shown, unit, "system/gpu_hours") == [(3, pytest.approx(2 * 3603 / 3600))]
    assert history(shown, shown.parent, "system/gpu_hours") == [(0, pytest.approx(2 * 3603 / 3600))]
    assert history(shown, shown.parent, "time/queue/sft") == [(0, pytest.approx(wait, abs=1e-3))]
    assert history(shown, shown.parent, "system/memory_gb/sft") == [(0, 4.0)]


def test_a_rebuild_forgets_everything_first(runs):
    run = make_run(runs)
    publish_all(run)
    Writer(run).catch_up()
    before, shown = picture(runs), store(runs)
    shown.client.log_metric(shown.parent.info.run_id, "stray", 1.0)
    Writer(run).forget()
    Writer(run).catch_up()
    assert picture(runs) == before
    assert store(runs).parent.info.run_id != shown.parent.info.run_id
