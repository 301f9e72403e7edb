"""A real `mlflow server`: what a database shows it shows, and its absence costs nothing but patience."""

import contextlib
import signal
import sys

import pytest

from pipeline.tracking import standing
from pipeline.tracking.writer import Writer
from tests.pipeline.tracking.runs_for_tests import (
    command,
    free_port,
    make_run,
    picture,
    publish_unit,
    serving,
    wait_until,
)


@contextlib.contextmanager
def server(database, port):
    """`mlflow server` on a database, with its artifacts beside it."""
    line = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        f"sqlite:///{database}",
        "--port",
        str(port),
    ]
    line += ["--artifacts-destination", str(database.parent / "served"), "--workers", "1"]
    with serving(line, port, database.parent / "server.log"):
        yield


@pytest.mark.slow
def test_a_server_that_is_away_is_caught_up_with_once_it_is_there(runs):
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    run = make_run(runs, uri=uri)
    publish_unit(run, "e0000-sft", {"actor/loss": 1.0})
    away = [f"MLflow: {uri} does not answer; start it, or set trainer.logger.mlflow.uri to where it is"]
    follower = command(run, "--follow", "--poll", "0.2")
    wait_until(lambda: standing.troubles(run) == away)
    with server(runs / "mlflow.db", port):
        wait_until(lambda: standing.troubles(run) == [])
        publish_unit(run, "e0000-evaluate", {"env/success_rate": 0.5}, videos=["a.mp4"], at=1)
        wait_until(lambda: (run / "tracking.log").read_text().count("1 units written") == 2)
        caught_up = picture(runs, uri)
        assert caught_up["runs"]["e0000-evaluate"][3][0] == "FINISHED"
        assert "videos/epoch-0000/evaluate/a.mp4" in caught_up["runs"]["pick"][4]
        writer = Writer(run)
        writer.forget()
        assert writer.catch_up() == []
        assert picture(runs, uri) == caught_up
    publish_unit(run, "e0001-update", {"actor/loss": 0.5}, at=2)  # the server was killed
    wait_until(lambda: standing.troubles(run) == away)
    follower.send_signal(signal.SIGTERM)
    output, _ = follower.communicate(timeout=60)
    assert (follower.returncode, output) == (1, "")
