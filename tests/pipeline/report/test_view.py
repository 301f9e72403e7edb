"""Live view, plan table and the time left, from snapshots made by hand."""

import dataclasses
import io
import json
import time
from pathlib import Path

import pytest
from rich.console import Console

from pipeline import jobs, ledger, rundir
from pipeline.artifacts import Unit, attempt_directory
from pipeline.config import Config
from pipeline.ledger import Snapshot, UnitState
from pipeline.plan import make_plan
from pipeline.report import progress, quantities
from pipeline.report.live import Picture, View, sentence
from pipeline.report.standing import watched
from pipeline.report.tables import plan_table
from pipeline.report.units import failure
from pipeline.resolve import resolve
from pipeline.tracking import standing
from slurm.launcher import Sight
from slurm.states import State

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


def snapshot(run=Path("runs/made"), **changes):
    """Epoch 1 is updated, the rest waits; changes: `e0002_rollout_s0000={"status": "running", ...}`."""
    states = {plan.unit: UnitState(plan.unit, "waiting") for plan in make_plan(CONFIG)}
    for unit, (started, seconds) in DONE.items():
        states[unit] = UnitState(unit, "published", 1, 1, float(started), float(seconds), SUCCESS.get(unit, {}))
    for name, fields in changes.items():
        unit = Unit.parse(name.replace("_", "-"))
        states[unit] = dataclasses.replace(states[unit], **fields)
    return Snapshot(run, CONFIG, tuple(states.values()))


def groups(of):
    return progress.groups(watched(of))


def drawn(of, width=80, begun=None):
    return printed(Picture(watched(of), time.time() if begun is None else begun), width)


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
    assert progress.seconds_left(groups(now), 153.0) == pytest.approx(45)


def test_time_left_is_unknown_while_a_stage_ahead_has_never_ended():
    waiting = {"status": "waiting", "started": None, "seconds": None}
    assert progress.seconds_left(groups(snapshot(e0001_update=waiting)), 150.0) is None
    text = drawn(snapshot(e0001_update=waiting), begun=time.time() - 61)
    assert "1:01 min elapsed, epoch 1 of 3, 5 of 13 units published" in text
    assert "left" not in text


def test_time_left_of_a_first_unit_follows_its_own_report():
    halfway = running(140, done=2)
    left = progress.seconds_left(groups(snapshot(e0001_update=halfway)), 146.0)
    assert left is None  # the updates of epochs 2 and 3 are still unknown
    only = [group for group in groups(snapshot(e0001_update=halfway)) if group.epoch == 1]
    assert progress.seconds_left(only, 146.0) == pytest.approx(6)


def test_success_of_shards_is_weighted_by_episodes():
    begun = snapshot(
        e0002_rollout_s0000=running(150, done=3, rate=1.0), e0002_rollout_s0001=running(150, done=1, rate=0.0)
    )
    rates = {(group.epoch, group.stage): group.success for group in groups(begun)}
    assert rates[1, "rollout"] == 0.5
    assert rates[2, "rollout"] == 0.75
    assert rates[3, "rollout"] is None


def test_a_rate_that_is_not_known_yet_is_none():
    begun = snapshot(e0002_rollout_s0000=running(150, done=0, rate=None))
    assert next(group for group in groups(begun) if group.epoch == 2).success is None


def test_picture_has_the_epoch_curves_bars_and_the_time_left(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 153.0)
    text = drawn(snapshot(e0002_rollout_s0000=running(150, done=2, rate=0.5)), begun=148.0)
    lines = [line.split() for line in text.splitlines()]
    assert " ".join(lines[0]) == "runs/made: 5 s elapsed, epoch 2 of 3, 6 of 13 units published, about 45 s left"
    assert next(line for line in lines if "env/success_rate" in line)[-2:] == ["50.0", "%"]
    assert next(line for line in lines if "rollout/success_rate" in line)[1] == "▅▅"
    bar = next(line for line in lines if "e0002-rollout-s0000" in line)
    assert (set(bar[1]) <= set("━╸╺"), bar[2:]) == (True, ["2/4,", "3", "s,", "success", "50.0", "%"])
    assert next(line for line in lines if "e0002-rollout-s0001" in line)[1:] == ["waiting", "for", "room"]
    assert next(line for line in lines if "e0002-update" in line)[1:3] == ["waiting", "for"]


def test_sentence_does_not_change_with_progress_alone():
    first = sentence(watched(snapshot(e0002_rollout_s0000=running(150, done=1, rate=1.0))))
    assert first == sentence(watched(snapshot(e0002_rollout_s0000=running(150, done=3, rate=0.0))))
    assert "epoch 2 of 3, rollout running, shards 0/2, warm start 50.0 %, rollout of epoch 1 50.0 %" in first
    assert first != sentence(watched(snapshot()))


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
    assert "e0002-rollout x 2" in out.getvalue()
    assert "\x1b[" in out.getvalue()


def test_what_waits_in_the_queue_is_not_called_running(tmp_path):
    """As the scheduler says, whatever an earlier start of the job left in its attempt."""
    run = rundir.create_or_resume(resolve(CONFIG.model_copy(update={"runs_dir": str(tmp_path)})))
    for shard in (0, 1):
        unit = f"e0002-rollout-s000{shard}"
        jobs.append(run, "submit", unit=unit, attempt=1, key=f"r-1:{unit}:1", host="login")
        jobs.append(run, "submitted", unit=unit, attempt=1, key=f"r-1:{unit}:1", job=f"7_{shard}", host="slurm")
    began, keys = time.time() - 3, [f"r-1:e0002-rollout-s000{shard}:1" for shard in (0, 1)]
    submitted = snapshot(run, e0002_rollout_s0000=running(began, 1), e0002_rollout_s0001=running(began, 2))
    waiting = Sight(State.WAITING, "PENDING (Resources)", queued=65.0)
    queued = submitted.seen({keys[0]: waiting, keys[1]: waiting})
    assert "rollout queued" in sentence(watched(queued))
    text = drawn(queued, 200)
    assert "e0002-rollout-s0001  queued" in text
    assert "job 7_1 for 1:05 min: nothing that fits is free yet; it is next (Resources)" in text
    assert "2/4" not in text
    half = submitted.seen({keys[0]: Sight(State.RUNNING, "RUNNING", "sim0", 1.0, 3.0), keys[1]: waiting})
    assert "rollout running" in sentence(watched(half))
    text = drawn(half, 200)
    assert "1/4, 3 s, job 7_0 on sim0" in text
    assert "e0002-rollout-s0001  queued" in text
    assert half != queued  # so that it is shown
    assert half == submitted.seen({keys[0]: Sight(State.RUNNING, "RUNNING", "sim0", 1.0, 9.0), keys[1]: waiting})
    # Before the scheduler was asked, a job of the cluster counts as waiting; a process of this machine runs at once.
    assert "rollout queued" in sentence(watched(submitted))


def test_loss_comes_from_what_the_attempt_logs(tmp_path):
    attempt = attempt_directory(tmp_path, Unit(2, "update"), 1)
    attempt.mkdir(parents=True)
    steps = [{"time": 0, "step": step, "metrics": {"actor/loss": 8.0 - step, "actor/lr": 1.0}} for step in range(8)]
    (attempt / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps) + '{"torn')
    progress = {"done": 8, "total": 9, "metrics": steps[-1]["metrics"]}
    told = {**running(time.time() - 3), "progress": progress, "phase": "train"}
    text = drawn(snapshot(tmp_path, e0002_update=told), 120)
    assert "8/9, train, 3 s, loss █▇▆▅▄▃▂▁ 1, lr 1" in text


def test_what_publishes_is_told_with_all_that_it_did(tmp_path, monkeypatch):
    """The stage may go on while it is read: then its phase is the older one, and no bar stays short of its end."""
    run = rundir.create_or_resume(resolve(CONFIG.model_copy(update={"runs_dir": str(tmp_path)})))
    unit = Unit(0, "demonstrate", 0)
    jobs.append(run, "submit", unit=str(unit), attempt=1, key="k", host="here")
    attempt = attempt_directory(run, unit, 1)
    attempt.mkdir(parents=True)
    (attempt / "phases.jsonl").write_text('{"time": 0, "phase": "simulate"}\n{"torn')
    progress = '{"done": 51, "total": 64, "metrics": {}}'
    (attempt / "progress.json").write_text(progress)
    read_text = Path.read_text

    def read_and_go_on(path, *arguments, **keywords):
        text = read_text(path, *arguments, **keywords)
        if path.name == "progress.json":
            path.write_text(progress.replace("51", "64"))
            (attempt / "phases.jsonl").write_text('{"time": 1, "phase": "publish"}\n')
        return text

    monkeypatch.setattr(Path, "read_text", read_and_go_on)
    seen = [next(state for state in ledger.read(run).units if state.unit == unit) for _ in range(2)]
    assert [(state.progress["done"], state.phase) for state in seen] == [(51, "simulate"), (64, "publish")]


def test_trackers_in_trouble_are_a_line_of_the_view_and_one_in_a_pipe(tmp_path):
    standing.write(tmp_path, {"wandb": ["W&B: no API key"]})
    assert "\ntracking: W&B: no API key\n" in drawn(snapshot(tmp_path))
    out = io.StringIO()
    with View(Console(file=out, width=200), pause=0.0) as view:
        view(snapshot(tmp_path))
        view(snapshot(tmp_path, e0001_update=running(150)))
    lines = [line[9:] for line in out.getvalue().splitlines()]
    assert [line.startswith("tracking") for line in lines] == [True, False, False]


def test_many_shards_do_not_fill_the_screen():
    many = CONFIG.model_copy(update={"rollout": CONFIG.rollout.model_copy(update={"shards": 64, "episodes": 128})})
    states = [UnitState(plan.unit, "published", 1, 1, 1.0, 1.0) for plan in make_plan(many)]
    began = running(time.time(), 1)
    states = [dataclasses.replace(s, **began) if s.unit.stage == "rollout" else s for s in states]
    text = drawn(Snapshot(Path("runs/made"), many, tuple(states)))
    assert len(text.splitlines()) < 32
    assert "and 58 more running" in text


def test_a_failed_unit_is_two_lines(tmp_path):
    failed = {"status": "failed", "attempt": 3, "attempts": 3, "error": "ValueError: [bad] number"}
    state = snapshot(tmp_path, e0002_rollout_s0001=failed)
    lines = failure(tmp_path, next(unit for unit in state.units if unit.status == "failed"))
    assert lines[0] == "e0002-rollout-s0001 failed after 3 attempts: ValueError: [bad] number"
    assert lines[1].endswith(str(tmp_path / "attempts" / "e0002-rollout-s0001" / "3" / "log.txt"))
    assert "failed" in sentence(watched(state))
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
    assert quantities.duration(seconds) == text
