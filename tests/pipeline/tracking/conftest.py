"""Fixtures of the tests of tracking."""

import pytest

from pipeline.tracking import mlflow_store


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """MLflow's tables; making them takes seconds, so the tests copy them."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    path.with_name("mlflow.db.new").write_bytes(b"left by a writer that was killed")
    mlflow_store.create_database(path)
    return path.read_bytes()


@pytest.fixture
def runs(tmp_path, empty_database):
    """A directory of runs with a store that has nothing in it."""
    directory = tmp_path / "runs"
    directory.mkdir()
    (directory / "mlflow.db").write_bytes(empty_database)
    return directory
