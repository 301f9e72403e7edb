"""Live view, plan table and the time left, from snapshots made by hand."""

import dataclasses
import io
import time

import pytest
from rich.console import Console

from pipeline.artifacts import Unit
from pipeline.config import Config
from pipeline.ledger import Snapshot, UnitState
from pipeline.plan import make_plan
from pipeline.report import progress
from pipeline.report.live import View, picture, sentence
from pipeline.report.status import failure
from pipeline.report.tables import plan_table
from pipeline.resolve import resolve

CONFIG = Config.model_validate(
    {
        "name": "made",
        "epochs": 3,
        "rollout": {"shards": 2, "episodes": 8, "num_envs": 2},
        "evaluate": {"episodes": 10},
    }
)
DONE = {
    Unit(0, "demonstrate", 0): (0, 10),
    Unit(0, "sft"): (10, 100),
    Unit(0, "evaluate"): (110, 20),
    Unit(1, "rollout", 0): (130, 8),
    Unit(1, "rollout", 1): (131, 9),
    Unit(1, "update"): (140, 4),
}
SUCCESS = {
    Unit(0, "evaluate"): {"env/success_rate": 0.5},
    Unit(1, "rollout", 0): {"rollout/success_rate": 0.25},
    Unit(1, "rollout", 1): {"rollout/success_rate": 0.75},
}


def snapshot(run="runs/made", **changes):
    """Epoch 1 is updated, the rest waits; changes: `e0002_rollout_s0000={"status": "running", ...}`."""
    states = {plan.unit: UnitState(plan.unit, "waiting") for plan in make_plan(CONFIG)}
    for unit, (started, seconds) in DONE.items():
        states[unit] = UnitState(unit, "published", 1, 1, float(started), float(seconds), SUCCESS.get(unit, {}))
    for name, fields in changes.items():
        unit = Unit.parse(name.replace("_", "-"))
        states[unit] = dataclasses.replace(states[unit], **fields)
    return Snapshot(run, CONFIG, tuple(states.values()))


def running(started, done=None, total=4, rate=None):
    metrics = {"rollout/success_rate": rate}
    report = None if done is None else {"done": done, "total": total, "metrics": metrics}
    return {"status": "running", "attempt": 1, "attempts": 1, "started": float(started), "progress": report}


def printed(renderable, width=80):
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(renderable)
    return out.getvalue()


def test_time_left_is_the_median_of_each_stage_less_what_has_run():
    now = snapshot(e0002_rollout_s0000=running(150), e0002_rollout_s0001=running(150))
    # epoch 1: rollouts from 130 to 140, update 4 s; evaluation 20 s. Ahead: 2 x (10 + 4) + 20, 3 s of which are over.
    assert progress.seconds_left(progress.groups(now), 153.0) == pytest.approx(45)


def test_time_left_is_unknown_while_a_stage_ahead_has_never_ended():
    waiting = {"status": "waiting", "started": None, "seconds": None}
    assert progress.seconds_left(progress.groups(snapshot(e0001_update=waiting)), 150.0) is None
    text = printed(picture(snapshot(e0001_update=waiting), 150.0, 61.0))
    assert "1:01 min elapsed, estimating left" in text


def test_time_left_of_a_first_unit_follows_its_own_report():
    halfway = running(140, done=2)
    left = progress.seconds_left(progress.groups(snapshot(e0001_update=halfway)), 146.0)
    assert left is None  # the updates of epochs 2 and 3 are still unknown
    only = [group for group in progress.groups(snapshot(e0001_update=halfway)) if group.epoch == 1]
    assert progress.seconds_left(only, 146.0) == pytest.approx(6)


def test_success_of_shards_is_weighted_by_episodes():
    begun = snapshot(
        e0002_rollout_s0000=running(150, done=3, rate=1.0), e0002_rollout_s0001=running(150, done=1, rate=0.0)
    )
    rates = {(group.epoch, group.stage): group.success for group in progress.groups(begun)}
    assert rates[1, "rollout"] == 0.5
    assert rates[2, "rollout"] == 0.75
    assert rates[3, "rollout"] is None


def test_a_rate_that_is_not_known_yet_is_none():
    begun = snapshot(e0002_rollout_s0000=running(150, done=0, rate=None))
    assert next(group for group in progress.groups(begun) if group.epoch == 2).success is None


def test_picture_names_epoch_stage_shards_success_and_time():
    text = printed(picture(snapshot(e0002_rollout_s0000=running(150, done=2, rate=0.5)), 153.0, 5.0))
    assert "2 of 3" in text
    assert "rollout running, shards 0/2, 2/4" in text
    for line in ("warm start", "rollout of epoch 1", "rollout of epoch 2"):
        assert any(line in shown and "50.0 %" in shown for shown in text.splitlines())
    assert "5 s elapsed, 45 s left" in text


def test_sentence_does_not_change_with_progress_alone():
    first = sentence(snapshot(e0002_rollout_s0000=running(150, done=1, rate=1.0)))
    assert first == sentence(snapshot(e0002_rollout_s0000=running(150, done=3, rate=0.0)))
    assert "epoch 2 of 3, rollout running, shards 0/2, warm start 50.0 %, rollout of epoch 1 50.0 %" in first
    assert first != sentence(snapshot())


def test_plain_lines_are_few_and_end_with_the_last_state():
    out = io.StringIO()
    states = [snapshot(), *(snapshot(e0002_rollout_s0000=running(150, done=n)) for n in range(3))]
    with View(Console(file=out), pause=60) as view:
        for state in states:
            view(state)
        assert len(out.getvalue().splitlines()) == 1
    first, last = out.getvalue().splitlines()
    assert "rollout waiting" in first
    assert "rollout running" in last
    assert last[2] == ":"
    assert "\x1b" not in out.getvalue()


def test_a_plain_line_held_back_comes_without_another_change():
    out = io.StringIO()
    with View(Console(file=out), pause=0.05) as view:
        view(snapshot())
        view(snapshot(e0002_rollout_s0000=running(150)))
        deadline = time.monotonic() + 10
        while "rollout running" not in out.getvalue():
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert len(out.getvalue().splitlines()) == 2


def test_terminal_is_drawn_in_place():
    out = io.StringIO()
    with View(Console(file=out, force_terminal=True, width=80)) as view:
        view(snapshot())
    assert "rollout waiting" in out.getvalue()
    assert "\x1b[" in out.getvalue()


def test_a_failed_unit_is_two_lines(tmp_path):
    failed = {"status": "failed", "attempt": 3, "attempts": 3, "error": "ValueError: [bad] number"}
    state = snapshot(tmp_path, e0002_rollout_s0001=failed)
    lines = failure(tmp_path, next(unit for unit in state.units if unit.status == "failed"))
    assert lines[0] == "e0002-rollout-s0001 failed after 3 attempts: ValueError: [bad] number"
    assert lines[1].endswith(str(tmp_path / "attempts" / "e0002-rollout-s0001" / "3" / "log.txt"))
    assert "failed" in sentence(state)
    assert failure(tmp_path, UnitState(Unit(1, "update"), "failed")) == [
        "e0001-update failed after 0 attempts: it left no error line"
    ]


def test_plan_table_shows_needs_and_cores():
    text = printed(plan_table(CONFIG, make_plan(CONFIG)), width=100)
    row = next(line.split() for line in text.splitlines() if line.split()[:2] == ["2", "update"])
    assert row == ["2", "update", "1", "1", "x", "2", "2", "rollout", "2,", "update", "1"]
    assert "13 units into runs/made" in text
    assert "GPUs" not in text


def test_plan_table_shows_gpus_where_there_are_any():
    placed = {"num_nodes": 2, "component_placement": {"env,rollout": "0-3", "actor": "4-7"}, "gpus_per_node": 4}
    config = resolve(Config.model_validate({"name": "made", "epochs": 1, "cluster": placed, "rollout": {"shards": 4}}))
    text = printed(plan_table(config, make_plan(config)), width=120)
    row = next(line.split() for line in text.splitlines() if line.split()[:2] == ["1", "update"])
    assert row[-7:-4] == ["1", "x", "4"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1:00 min"), (192, "3:12 min"), (7500, "2:05:00 h")]
)
def test_durations(seconds, text):
    assert progress.duration(seconds) == text
