"""MLflow's store: its settings, its sqlite database made whole or not at all, and its complaints in plain words."""

from __future__ import annotations

import functools
import os
import re
import sqlite3
from pathlib import Path

# Read by MLflow when it is imported. Requests are not repeated blindly: a POST that timed out may have been carried
# out. The caller looks what is there and tries again later.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

import requests
import sqlalchemy.exc
from alembic.script import ScriptDirectory
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from pipeline.tracking.mlflow_pages import SQLITE
from pipeline.tracking.sink import SinkError

FAILURES = (MlflowException, requests.RequestException, sqlalchemy.exc.SQLAlchemyError)
LOCK_SECONDS = 1.0
URI = "trainer.logger.mlflow.uri"


def connect(uri: str, own: Path | None) -> MlflowClient:
    """Open a store.

    Args:
        uri: MLflow's tracking URI.
        own: its sqlite file, if that is ours to create.

    Raises:
        SinkError: the database cannot be written to.
    """
    if own is not None and not own.exists():
        create_database(own)
    check_database(uri)
    return MlflowClient(tracking_uri=uri)


def create_database(database: Path) -> None:
    """Create MLflow's sqlite database under another name and rename it, so that it is whole or not there."""
    partial = database.with_name(f"{database.name}.new")
    try:
        for leftover in database.parent.glob(f"{partial.name}*"):
            leftover.unlink()
        partial.touch()
    except OSError as error:
        raise SinkError(f"MLflow: {database} cannot be made ({error.strerror}); {_elsewhere()}") from None
    store = SqlAlchemyStore(f"{SQLITE}{partial}", (database.parent / "mlartifacts").as_uri())
    store._dispose_engine()
    os.replace(partial, database)


def check_database(uri: str) -> None:
    """See that a sqlite database can be written to and is of this MLflow's version; it would else try for minutes.

    Raises:
        SinkError: in plain words, why not.
    """
    if not uri.startswith(SQLITE) or not (path := Path(uri.removeprefix(SQLITE))).exists():
        return
    try:
        database = sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None)
        try:
            database.execute("BEGIN IMMEDIATE")
            revision = _revision(database)
            database.execute("ROLLBACK")
        finally:
            database.close()
    except sqlite3.Error as error:
        raise SinkError(explain(error, uri)) from None
    if revision is not None and revision != _revisions()[0]:
        raise SinkError(_other_version(uri, revision))


def explain(error: Exception, uri: str) -> str:
    """What went wrong and what to do about it, in one line.

    Args:
        error: what MLflow, sqlite or the network raised.
        uri: of the store.
    """
    text = " ".join(str(error).split())
    file = uri.removeprefix(SQLITE)
    if "database is locked" in text:
        return f"MLflow: another program holds {file}; it is written once that lets go of it"
    if "readonly database" in text or "unable to open database file" in text:
        return f"MLflow: {file} cannot be written to; make it writable, or {_elsewhere()}"
    if "not a database" in text or "malformed" in text:
        return f"MLflow: {file} is damaged ({text}); move it away: it is made again with all that is published"
    if match := re.search(r"out-of-date database schema \(found version (\w+)", text):
        return _other_version(uri, match[1])
    if isinstance(error.__context__, requests.ConnectionError) or isinstance(error, requests.ConnectionError):
        return f"MLflow: {uri} does not answer; start it, or set {URI} to where it is"
    if "403" in text and "Invalid Host" in text:
        return f"MLflow: {uri} refuses this host name: start `mlflow server` with --allowed-hosts"
    return f"MLflow at {uri}: {text[:500]}"


def _other_version(uri: str, revision: str) -> str:
    if revision in _revisions()[1]:
        return (
            f"MLflow: {uri.removeprefix(SQLITE)} was made by an older MLflow (schema {revision}); "
            f"back it up and run: mlflow db upgrade {uri}"
        )
    return (
        f"MLflow: {uri.removeprefix(SQLITE)} was made by a newer MLflow (schema {revision}); "
        f"install that one here, or {_elsewhere()}"
    )


def _elsewhere() -> str:
    return f"set {URI}=sqlite:///OTHER.db and run the same command again"


def _revision(database: sqlite3.Connection) -> str | None:
    try:
        row = database.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError:  # no table: MLflow has not been here yet
        return None
    return None if row is None else str(row[0])


@functools.cache
def _revisions() -> tuple[str, frozenset[str]]:
    """The schema of this MLflow, and all that it knows."""
    scripts = ScriptDirectory.from_config(_get_alembic_config(""))
    (head,) = scripts.get_heads()
    return head, frozenset(script.revision for script in scripts.walk_revisions())
