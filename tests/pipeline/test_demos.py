"""`baton demos`: only the expert's shards are made, what is told of them is in them, and the run goes on from them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline import cli, ledger, orchestrator
from pipeline.artifacts import Unit, now, publish
from pipeline.commands.arguments import console
from pipeline.compose import compose
from pipeline.report.demonstrations import demonstrations, demonstrations_table
from pipeline.rundir import create_or_resume

RECIPE = """
epochs: 1
simulator: {tasks: [practice], image_size: 32, options: {renderer: raycast}}
demonstrate: {episodes: 6, shards: 2, num_envs: 3, stride: 8, max_episode_steps: 60, only_success: false}
sft: {threads: 1}
rollout: {episodes: 4}
update: {threads: 1}
slurm: {launcher: local}
trainer: {logger: {mlflow: {enable: false}}}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    return Path("tiny.yaml")


@pytest.fixture
def put():
    """Publishes a demonstration shard with the given metrics."""

    def put(run: Path, shard: int, metrics: dict[str, float]) -> None:
        unit = Unit(0, "demonstrate", shard)
        scratch = run / "attempts" / str(unit) / "1" / "scratch"
        scratch.mkdir(parents=True)
        (scratch / "content").write_text("x")
        described = {"unit": str(unit), "part": "demonstrate", "attempt": 1, "inputs": {}, "config_digest": ""}
        described |= {"code_revision": "", "seed": 0, "metrics": metrics, "seconds": {}, "started": now()}
        publish(scratch, run / unit.marker, described | {"host": "", "job_id": "", "versions": {}})

    return put


def rows(text: str) -> dict[str, list[str]]:
    """The numbers of the table by the first word of their line."""
    return {line.split()[0]: re.split(r" {2,}", line.strip()) for line in text.splitlines() if line.strip()}


@pytest.mark.slow
def test_shards_of_the_expert_and_nothing_else(recipe):
    def demos() -> str:
        command = [sys.executable, "-m", "pipeline.cli", "demos", str(recipe)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=200, env={"PYTHONPATH": str(Path(cli.__file__).parents[1])}
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    printed = demos()
    run = Path("runs/tiny").absolute()
    published = {state.unit: state.attempts for state in ledger.read(run).units if state.status == "published"}
    assert [(unit.stage, unit.shard) for unit in published] == [("demonstrate", 0), ("demonstrate", 1)]

    from stages import trajectories

    shards = [trajectories.read(run / unit.marker) for unit in published]
    whole = trajectories.concatenate(shards)
    told = rows(printed)
    # Steps behind the stride are in the next window as well.
    steps = np.add.reduceat(whole.executed[:, :8].sum(axis=1), whole.episodes.start)
    for number, task in enumerate(whole.tasks):
        own = whole.episodes.task == number
        success = f"{100 * whole.episodes.success[own].mean():.1f} %"
        assert told[task] == [task, str(own.sum()), success, f"{steps[own].mean():.1f}"]
    assert told["all"][:2] == ["all tasks", "6"]
    for unit, shard in zip(published, shards, strict=True):
        (line,) = [each for each in printed.splitlines() if each.endswith(f"runs/tiny/{unit.marker}")]
        assert line.split()[0] == str(len(shard.episodes))
    assert "to train on them: baton run tiny.yaml" in printed

    table = printed.index("task  ")
    assert demos().endswith(printed[table:]), "again it shows the same"
    assert {state.unit: state.attempts for state in ledger.read(run).units if state.status == "published"} == published


def test_means_are_weighted_by_episodes_and_older_shards_still_shown(recipe, put):
    run = create_or_resume(compose(recipe))
    first = {
        "rollout/played": 4.0,
        "rollout/episodes": 3.0,
        "rollout/success_rate": 0.75,
        "rollout/episode_length": 20.0,
        "rollout/played/stack": 4.0,
        "rollout/episodes/stack": 3.0,
        "rollout/success_rate/stack": 0.75,
        "rollout/episode_length/stack": 20.0,
    }
    other = {**first, "rollout/played/stack": 1.0, "rollout/episodes/stack": 0.0, "rollout/success_rate/stack": 0.0}
    del other["rollout/episode_length/stack"]
    put(run, 0, first)
    put(run, 1, other)
    terminal = console()
    with terminal.capture() as captured:
        terminal.print(demonstrations_table(demonstrations(run)), soft_wrap=True)
    told = rows(captured.get())
    assert told["stack"] == ["stack", "3", "60.0 %", "20.0"]
    assert told["pick_onto_plate"] == ["pick_onto_plate", "0"]


def test_ctrl_c_says_how_to_go_on(recipe, monkeypatch, capsys):
    def interrupted(run, show, **rest):
        assert rest["stages"] == ("demonstrate",)
        raise KeyboardInterrupt

    monkeypatch.setattr(orchestrator, "drive", interrupted)
    monkeypatch.setattr(sys, "argv", ["baton", "demos", str(recipe), "seed=3"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130
    assert "until you reattach: baton demos tiny.yaml seed=3" in capsys.readouterr().err


@pytest.mark.parametrize("schedule", ["chain", "pilot", "supervise"])
def test_any_schedule_is_carried_out_by_a_loop(recipe, monkeypatch, capsys, tmp_path, schedule):
    commands = tmp_path / "commands"
    commands.mkdir()
    (commands / "sbatch").write_text("#!/bin/sh\n")
    (commands / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:/usr/bin:/bin")
    used = []
    monkeypatch.setattr(orchestrator, "drive", lambda run, show, **rest: used.append(type(rest["launcher"]).__name__))
    arguments = ["slurm.launcher=slurm", f"slurm.schedule={schedule}"]
    monkeypatch.setattr(sys, "argv", ["baton", "demos", str(recipe), *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert used == ["SlurmLauncher"]
    assert "pick_onto_plate" in capsys.readouterr().out
