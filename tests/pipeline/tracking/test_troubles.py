"""What goes wrong with trackers: a line each that names place and remedy, and nothing is lost."""

import contextlib
import sqlite3
import subprocess
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline.artifacts import MANIFEST
from pipeline.errors import UserError
from pipeline.tracking import installed, standing
from pipeline.tracking.writer import Writer
from tests.pipeline.tracking.runs_for_tests import command, make_run, picture, publish_all, publish_unit, store

OTHER = "set trainer.logger.mlflow.uri=sqlite:///OTHER.db and run the same command again"


def once_mended(run: Path, runs: Path, writer: Writer) -> None:
    """All is there, and nothing is complained about any more."""
    assert writer.catch_up() == []
    assert standing.troubles(run) == []
    assert len(store(runs).nested) == 10


def test_a_locked_database_is_written_once_it_is_free(runs):
    run = make_run(runs)
    publish_all(run)
    writer = Writer(run)
    with contextlib.closing(sqlite3.connect(runs / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        line = f"MLflow: another program holds {runs}/mlflow.db; it is written once that lets go of it"
        assert writer.catch_up() == [line]
        assert standing.troubles(run) == [line]
    once_mended(run, runs, writer)


def test_a_read_only_database_is_told(runs):
    run = make_run(runs)
    publish_all(run)
    database = runs / "mlflow.db"
    # A mount, because the permissions of a file do not stop root.
    frozen = f'mount --bind {database} {database} && mount -o remount,bind,ro {database} && exec "$@"'
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", frozen, "sh"]
    if subprocess.run([*inside, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets no one mount a file (unshare --user --mount): none can be made read-only")
    line = f"MLflow: {database} cannot be written to; make it writable, or {OTHER}"
    done = command(run, prefix=inside)
    output, _ = done.communicate(timeout=120)
    assert standing.troubles(run) == [line], output
    once_mended(run, runs, Writer(run))


@pytest.mark.parametrize(
    ("revision", "told"),
    [
        ("ffffffffffff", "was made by a newer MLflow (schema ffffffffffff); install that one here, or " + OTHER),
        (
            "451aebb31d03",
            "was made by an older MLflow (schema 451aebb31d03); back it up and run: mlflow db upgrade sqlite:///DATABASE",
        ),
    ],
)
def test_a_database_of_another_mlflow_is_told_and_left_alone(runs, revision, told):
    run = make_run(runs)
    publish_all(run)
    writer = Writer(run)
    database = runs / "mlflow.db"
    with contextlib.closing(sqlite3.connect(database)) as other:
        (right,) = other.execute("SELECT version_num FROM alembic_version").fetchone()
        other.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        other.commit()
    assert writer.catch_up() == [f"MLflow: {database} " + told.replace("DATABASE", str(database))]
    with contextlib.closing(sqlite3.connect(database)) as other:
        assert other.execute("SELECT version_num FROM alembic_version").fetchone() == (revision,)
        other.execute("UPDATE alembic_version SET version_num = ?", (right,))
        other.commit()
    once_mended(run, runs, writer)


def test_a_damaged_database_is_told_and_made_again_once_it_is_away(runs):
    run = make_run(runs)
    publish_all(run)
    writer = Writer(run)
    database = runs / "mlflow.db"
    database.write_bytes(b"not a database at all" * 100)
    assert writer.catch_up() == [
        f"MLflow: {database} is damaged (file is not a database); "
        "move it away: it is made again with all that is published"
    ]
    database.unlink()
    once_mended(run, runs, writer)


def test_a_run_directory_that_is_half_made_is_told(runs):
    run = make_run(runs)
    (run / "run.json").write_text('{"id": "pi')
    with pytest.raises(UserError, match="is not a whole run directory"):
        Writer(run)


def test_a_manifest_of_another_baton_costs_its_unit_alone(runs):
    run = make_run(runs)
    publish_all(run)
    path = run / "epochs/0001/update" / MANIFEST
    path.write_text(path.read_text().replace('"attempt"', '"try"'))
    (line,) = Writer(run).catch_up()
    assert line == (f"{path} cannot be read (Field required); move {path.parent} away and run the same command again")
    assert len(store(runs).nested) == 9


def test_what_an_older_baton_published_without_samples_is_shown(runs):
    run = make_run(runs)
    path = publish_unit(run, "e0000-sft", {"actor/loss": 1.0})
    manifest = path / MANIFEST
    (path / "usage.jsonl").unlink()
    text = manifest.read_text()
    begin = text.index('  "usage.jsonl"')
    manifest.write_text(text[:begin].rstrip().rstrip(",") + text[text.index("}", begin) + 1 :])
    assert Writer(run).catch_up() == []
    before = picture(runs)
    assert Writer(run).catch_up() == []
    assert picture(runs) == before
    assert store(runs).nested["e0000-sft"].info.start_time == 1767225600000  # 2026-01-01T00:00 UTC


def test_a_tracker_that_is_not_installed_is_told_with_the_command(runs, monkeypatch):
    monkeypatch.setattr(installed.importlib.util, "find_spec", lambda name: None if name == "wandb" else name)
    run = make_run(runs, logger={"wandb": {"enable": True}})
    with pytest.raises(UserError) as caught:
        Writer(run)
    assert str(caught.value) == (
        "trainer.logger.wandb.enable = true, but wandb is not installed: "
        "pip install 'baton-vla[tracking]', or set trainer.logger.wandb.enable=false"
    )


def test_a_deleted_experiment_is_the_users_to_restore(runs):
    run = make_run(runs)
    Writer(run).catch_up()
    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    client.delete_experiment(client.get_experiment_by_name("baton").experiment_id)
    assert Writer(run).catch_up() == [
        "trainer.logger.mlflow.experiment_name=baton was deleted in MLflow; restore it with "
        "`mlflow experiments restore -x 1`, or set another name"
    ]


def test_an_altered_metrics_file_is_not_written(runs):
    run = make_run(runs)
    path = publish_unit(run, "e0000-sft", {"actor/loss": 1.0}) / "metrics.jsonl"
    path.write_text(path.read_text().replace("actor", "other"))
    publish_unit(run, "e0000-evaluate", {"env/success_rate": 1.0}, at=1)
    line = f"{path} is not what e0000-sft published; to make it again: baton rerun RUN sft --epoch 0"
    assert Writer(run).catch_up() == [line]
    assert standing.troubles(run) == [line]
    assert list(store(runs).nested) == ["e0000-evaluate"]


def test_notes_that_cannot_be_read_are_told_and_written_anew(runs):
    run = make_run(runs)
    (run / standing.FILE).write_text("{")
    (line,) = standing.troubles(run)
    assert line.startswith(f"{run}/tracking.json cannot be read (")
    assert line.endswith(f"; it is written anew by: baton track {run}")
    assert Writer(run).catch_up() == []
    assert standing.troubles(run) == []
