"""W&B online: what arrives at a server is what MLflow shows, each row once, whatever was stopped on the way."""

import re
import signal

import pytest

from pipeline.tracking import wandb_sink
from pipeline.tracking.sink import SinkError
from pipeline.tracking.wandb_sink import SETTINGS
from pipeline.tracking.writer import Writer
from tests.pipeline.tracking.readers_for_tests import in_mlflow, in_rows
from tests.pipeline.tracking.runs_for_tests import command, free_port, make_run, publish_all, publish_unit, wait_until
from tests.pipeline.tracking.test_other_trackers import ALONE, same
from tests.pipeline.tracking.wandb_server import WandbServer, serving_wandb

ONLINE = {"enable": True, "mode": "online"}


@pytest.fixture
def port(tmp_path, monkeypatch):
    """Of the server that W&B's client is told of."""
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("HOME", str(tmp_path))
    port = free_port()
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    return port


def numbers(server: WandbServer) -> dict:
    [rows] = server.history.values()
    return in_rows(rows)


@pytest.mark.slow
def test_the_server_has_what_mlflow_shows(runs, port):
    run = make_run(runs, logger={"wandb": ONLINE})
    publish_all(run)
    with serving_wandb(port) as server:
        writer = command(run)
        output, _ = writer.communicate(timeout=120)
        assert writer.returncode == 0, output
    assert same(numbers(server), in_mlflow(runs))


@pytest.mark.slow
def test_a_killed_writer_and_a_server_that_was_away_cost_no_row_and_double_none(tmp_path, port, monkeypatch):
    told = f"W&B: http://127.0.0.1:{port} does not answer or refuses; without a network set {SETTINGS}.mode=offline"
    run = make_run(tmp_path / "runs", logger=ALONE | {"wandb": ONLINE})
    publish_unit(run, "e0000-sft", {"actor/loss": 2.5}, at=2)
    with serving_wandb(port) as server:
        first = command(run)
        output, _ = first.communicate(timeout=120)
        assert first.returncode == 0, output
        assert numbers(server)["run", "actor/loss", 0] == 2.5
        publish_unit(run, "e0000-evaluate", {"env/success_rate": 0.5}, at=3)
        follower = command(run, "--follow", "--poll", "0.2")
        wait_until(lambda: "e0000-evaluate" in next(tmp_path.glob("runs/wandb/baton-*.json")).read_text())
        follower.send_signal(signal.SIGKILL)
        follower.communicate()
    monkeypatch.setattr(wandb_sink, "INIT_SECONDS", 2.0)
    monkeypatch.setattr(wandb_sink, "FINISH_SECONDS", 2.0)
    writer = Writer(run)
    assert writer.catch_up() == [told]
    with serving_wandb(port, server):
        assert writer.catch_up() == []
    with pytest.raises(SinkError, match=re.escape(told)):
        writer.close()  # W&B's own process has rows that the server has not
    with serving_wandb(port, server):
        again = Writer(run)
        assert again.catch_up() == []
        again.close()
    found = numbers(server)  # which refuses what is there twice
    assert (found["run", "actor/loss", 0], found["run", "env/success_rate", 0]) == (2.5, 0.5)
