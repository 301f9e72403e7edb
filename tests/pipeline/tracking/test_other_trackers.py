"""TensorBoard and W&B: the same numbers as MLflow, each once, whatever was killed on the way."""

import math
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipeline.artifacts import Unit, supersede
from pipeline.compose import compose
from pipeline.tracking import standing
from pipeline.tracking.writer import Writer
from tests.pipeline.tracking.readers_for_tests import in_mlflow, in_tensorboard, in_wandb
from tests.pipeline.tracking.runs_for_tests import command, make_run, publish_all, publish_unit, wait_until

OFFLINE = {"enable": True, "mode": "offline"}
BOARD = {"enable": True}
ALONE = {"mlflow": {"enable": False}}


@pytest.fixture
def bare(tmp_path):
    """A directory of runs without MLflow's store."""
    return tmp_path / "runs"


def same(one, other, digits=np.float64) -> bool:
    return one.keys() == other.keys() and all(
        digits(one[key]) == digits(other[key]) or (math.isnan(one[key]) and math.isnan(other[key])) for key in one
    )


def written(run: Path) -> Writer:
    writer = Writer(run)
    assert writer.catch_up() == []
    return writer


def test_all_three_show_the_same_numbers(runs):
    run = make_run(runs, logger={"tensorboard": BOARD, "wandb": OFFLINE})
    publish_all(run)
    written(run).close()
    expected = in_mlflow(runs)
    assert len(expected) > 200
    assert same(in_wandb(runs / "wandb"), expected)
    assert same(in_tensorboard(runs / "tensorboard/pick"), expected, np.float32)


def test_wandb_piece_by_piece_and_killed_is_the_same_as_at_once(bare):
    run = make_run(bare, logger=ALONE | {"wandb": OFFLINE})
    publish_unit(run, "e0000-sft", {"actor/loss": 2.5}, at=2)
    follower = command(run, "--follow", "--poll", "0.2")
    wait_until(lambda: list(bare.glob("wandb/offline-run-*/*.wandb")))
    publish_unit(run, "e0000-evaluate", {"env/success_rate": 0.5}, at=3)
    wait_until(lambda: "e0000-evaluate" in next(bare.glob("wandb/baton-*.json")).read_text())
    follower.send_signal(signal.SIGKILL)
    follower.wait()
    follower.stdout.close()
    publish_unit(run, "e0001-rollout-s0000", {"rollout/success_rate": 0.5, "rollout/episodes": 8}, at=11)
    written(run).close()
    pieces = in_wandb(bare / "wandb")
    writer = Writer(run)
    writer.forget()
    assert list(bare.glob("wandb/offline-run-*")) == []
    assert writer.catch_up() == []
    writer.close()
    assert same(in_wandb(bare / "wandb"), pieces)


def test_a_superseded_unit_begins_a_new_wandb_run(bare):
    run = make_run(bare, logger=ALONE | {"wandb": OFFLINE})
    publish_unit(run, "e0000-sft", {"actor/loss": 2.5}, at=2)
    writer = written(run)
    for relative in Unit.parse("e0000-sft").outputs.values():
        supersede(run, relative, "rerun")
    publish_unit(run, "e0000-sft", {"actor/loss": 0.5}, attempt=2, at=5)
    assert writer.catch_up() == []
    writer.close()
    newest = max(bare.glob("wandb/offline-run-*"), key=lambda path: path.stat().st_mtime_ns)
    folder = bare / "newest"
    folder.mkdir()
    newest.rename(folder / newest.name)
    assert in_wandb(folder)["run", "actor/loss", 0] == 0.5


def test_wandb_online_without_a_key_is_one_line(bare, monkeypatch, tmp_path):
    told = "W&B: no API key; run `wandb login` or set WANDB_API_KEY, or trainer.logger.wandb.mode=offline"
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    run = make_run(bare, logger=ALONE | {"wandb": {"enable": True}, "tensorboard": BOARD})
    publish_unit(run, "e0000-sft", {"actor/loss": 2.5}, at=2)
    began = time.monotonic()
    writer = command(run)
    output, _ = writer.communicate(timeout=120)
    assert time.monotonic() - began < 60
    assert (writer.returncode, len(output.splitlines())) == (1, 1)
    assert standing.troubles(run) == [told]
    assert (run / "tracking.log").read_text().count(f"{told};") == 2  # when it happened, and at the end
    assert in_tensorboard(bare / "tensorboard/pick")["run", "actor/loss", 0] == 2.5


def test_wandb_disabled_is_as_if_it_were_off(bare):
    run = make_run(bare, logger=ALONE | {"wandb": {"enable": True, "mode": "disabled"}})
    assert written(run).addresses == []


def test_the_missions_snippet_pastes_in(tmp_path):
    snippet = {"logger": {"wandb": {"enable": True, "project_name": "vla", "experiment_name": "first"}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"trainer": snippet}))
    config = compose(tmp_path / "mine.yaml")
    assert config.trainer.logger.wandb.project_name == "vla"
    assert config.trainer.logger.enabled == ("mlflow", "wandb")


def board(run: Path) -> Path:
    return run.parent / "tensorboard" / run.name


def contents(run: Path) -> dict[str, list[bytes]]:
    """Bytes of the event files, by directory."""
    files = [path for path in board(run).rglob("events.out.tfevents.*") if path.stat().st_size]
    return {str(path.parent.relative_to(board(run))): path.read_bytes() for path in files}


def test_tensorboard_piece_by_piece_is_the_same_as_at_once(bare):
    run = make_run(bare, logger=ALONE | {"tensorboard": BOARD})
    writer = Writer(run)
    publish_unit(run, "e0000-sft", {"actor/loss": 2.5}, at=2)
    assert writer.catch_up() == []
    publish_unit(run, "e0001-update", {"actor/loss": 1.5}, at=20)
    assert writer.catch_up() == []
    pieces = contents(run)
    assert len(pieces) == 3
    writer.forget()
    assert contents(run) == {}
    written(run)
    assert contents(run) == pieces


@pytest.mark.parametrize("damage", ["torn", "doubled", "foreign"])
def test_tensorboard_files_that_a_killed_writer_left_are_mended(bare, damage):
    run = make_run(bare, logger=ALONE | {"tensorboard": BOARD})
    publish_unit(run, "e0000-sft", {"actor/loss": 2.5}, at=2)
    written(run)
    before, values = contents(run), in_tensorboard(board(run))
    for folder in (board(run), board(run) / "e0000-sft"):
        (path,) = folder.glob("events*")
        content = path.read_bytes()
        path.write_bytes({"torn": content[:-5], "doubled": content * 2, "foreign": b"x" * 99}[damage])
        (folder / "baton.written").unlink(missing_ok=True)
    written(run)
    assert contents(run) == before
    assert in_tensorboard(board(run)) == pytest.approx(values, nan_ok=True)


def test_a_tensorboard_that_looks_on_forgets_what_was_superseded(bare):
    run = make_run(bare, logger=ALONE | {"tensorboard": BOARD})
    publish_unit(run, "e0000-sft", {"actor/loss": 2.5}, at=2)
    publish_unit(run, "e0001-update", {"actor/loss": 1.5}, at=3)
    writer = written(run)
    events = EventAccumulator(str(board(run))).Reload()
    assert [(event.step, event.value) for event in events.Scalars("actor/loss")] == [(0, 2.5), (1, 1.5)]
    for relative in Unit.parse("e0001-update").outputs.values():
        supersede(run, relative, "rerun")
    publish_unit(run, "e0001-update", {"actor/loss": 0.5}, attempt=2, at=5)
    assert writer.catch_up() == []
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("actor/loss")] == [(0, 2.5), (1, 0.5)]
