"""A film of any episode that was played: from its shard, by its actions once more, or by its policy."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.artifacts import Unit
from pipeline.commands.replay import check_published
from pipeline.errors import UserError
from stages.replay import Asked, replay
from stages.trajectories import read
from tests.films import read_film

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DEMONSTRATE, ROLLOUT, EVALUATE = Unit(0, "demonstrate", 0), Unit(1, "rollout", 1), Unit(0, "evaluate")


def command(run: Path, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`baton replay`, run in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "replay", str(run), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=200,
    )


def asked(run: Path, epoch: int, episode: int, **others: object) -> Asked:
    return Asked(run, epoch, episode, **{"stage": None, "simulate": False, "size": 448, "out": None, **others})


def films_of(run: Path, unit: Unit) -> list[Path]:
    return sorted((run / unit.marker / "videos").iterdir())


def extents(shard) -> tuple[list[int], list[int]]:
    """First decisions and numbers of decisions of a shard's episodes."""
    return shard.episodes.start.tolist(), shard.episodes.length.tolist()


def test_a_run_films_what_its_config_says_and_names_the_films(prepared):
    [rolled] = films_of(prepared.run, Unit(1, "rollout", 0))
    assert rolled.name.startswith("epoch-0001-rollout-pick_onto_plate-episode-0000-")
    [demonstration] = films_of(prepared.run, DEMONSTRATE)
    evaluated = films_of(prepared.run, EVALUATE)
    assert not (prepared.run / ROLLOUT.marker / "videos").exists(), "one an epoch"
    assert demonstration.name.startswith("epoch-0000-demonstrate-pick_onto_plate-episode-0000-")
    outcomes = [
        json.loads(line) for line in (prepared.run / EVALUATE.marker / "episodes.jsonl").read_text().splitlines()
    ]
    assert [film.name for film in evaluated] == [
        f"epoch-0000-evaluate-pick_onto_plate-episode-{i:04d}-{'success' if outcomes[i]['success'] else 'failure'}.mp4"
        for i in (0, 2)
    ]
    for film, i in zip(evaluated, (0, 2), strict=True):
        seen = read_film(film)
        assert (seen.codec, seen.pixels, seen.size, seen.fps) == ("h264", "yuv420p", (672, 448), 20)
        assert len(seen.frames) == outcomes[i]["steps"]
    manifest = json.loads((prepared.run / EVALUATE.marker / "manifest.json").read_text())
    assert {f"videos/{film.name}" for film in evaluated} <= set(manifest["files"])


@pytest.mark.parametrize("unit", [DEMONSTRATE, Unit(1, "rollout", 0), EVALUATE], ids=str)
def test_filming_changes_no_bit_of_what_a_unit_publishes(prepared, tmp_path, unit):
    tiny = prepared.copy(tmp_path, unit, video_cfg={"save_video": False})
    code, output = tiny.start(unit).end()
    assert code == 0, output
    usual = prepared.contents(unit)
    films = {name for name in usual if "/videos/" in name}
    assert films
    assert tiny.contents(unit) == {name: digest for name, digest in usual.items() if name not in films}


def test_from_the_shard_there_is_a_frame_a_decision(prepared, tmp_path):
    done = command(prepared.run, tmp_path, "--epoch", 1, "--episode", 6, "--out", "six.mp4")
    assert done.returncode == 0, done.stderr
    shard = read(prepared.run / ROLLOUT.marker)  # episodes 4 to 7
    start, length = int(shard.episodes.start[2]), int(shard.episodes.length[2])
    made = read_film(tmp_path / "six.mp4")
    assert made.size == (672, 448)
    assert made.fps == 20 / 8
    assert len(made.frames) == length + 1
    outcome = "success" if shard.episodes.success[2] else "failure"
    steps = int(shard.executed[start : start + length].sum())
    assert done.stdout == (
        f"six.mp4: {length + 1} frames, what was seen at each decision (--simulate shows every step); "
        f"{outcome} after {steps} steps\n"
    )
    head, _ = shard.images([start])
    middle = made.frames[0][112:336, 336:560].reshape(32, 7, 32, 7, 3).mean((1, 3))
    seen = np.kron(head[0].transpose(1, 2, 0), np.ones((14, 14, 1)))[112:336, 112:336].reshape(32, 7, 32, 7, 3)
    assert np.abs(middle - seen.mean((1, 3))).mean() < 8


@pytest.mark.parametrize("unit", [DEMONSTRATE, Unit(1, "rollout", 0)], ids=str)
def test_by_its_actions_once_more_it_is_the_film_that_was_made_then(prepared, tmp_path, monkeypatch, unit):
    [film] = films_of(prepared.run, unit)
    monkeypatch.chdir(tmp_path)
    said = replay(asked(prepared.run, unit.epoch, 0, simulate=True))
    assert said.startswith(f"{film.name}: {len(read_film(film).frames)} frames, every step, simulated again; ")
    assert (tmp_path / film.name).read_bytes() == film.read_bytes()


def test_rollouts_may_end_sooner_than_evaluations_and_are_shown_as_they_went(prepared, tmp_path, monkeypatch):
    unit = Unit(1, "rollout", 0)
    tiny = prepared.copy(tmp_path, unit, rollout={"max_episode_steps": 12})
    code, output = tiny.start(unit).end()
    assert code == 0, output
    shard = read(tiny.run / unit.marker)
    steps = [int(shard.executed[start : start + n].sum()) for start, n in zip(*extents(shard), strict=True)]
    usual = read(prepared.run / unit.marker)
    assert max(usual.episodes.length) == 3  # chunks of eight steps: 24 is everyone's limit
    assert max(steps) == 12
    assert [step == 12 for step in steps] == [bool(truncated) for truncated in shard.episodes.truncated]
    monkeypatch.chdir(tmp_path)
    assert " 12 frames, every step, simulated again; failure after 12 steps" in replay(
        asked(tiny.run, 1, int(np.argmax(shard.episodes.truncated)), simulate=True)
    )


def test_of_an_evaluation_the_policy_plays_again_and_it_can_be_large(prepared, tmp_path):
    done = command(prepared.run, tmp_path, "--epoch", 0, "--episode", 1, "--stage", "evaluate", "--size", 896)
    assert done.returncode == 0, done.stderr
    lines = (prepared.run / EVALUATE.marker / "episodes.jsonl").read_text().splitlines()
    made = read_film(tmp_path / done.stdout.split(":")[0])
    assert made.size == (1344, 896)
    assert len(made.frames) == json.loads(lines[1])["steps"]
    assert done.stdout.endswith(", as published\n")


def test_an_episode_that_does_not_repeat_is_not_shown_as_if_it_did(prepared, tmp_path):
    tiny = prepared.copy(tmp_path, simulator={"physics_frequency": 100})
    with pytest.raises(UserError) as caught:
        replay(asked(tiny.run, 0, 0, simulate=True, out=tmp_path / "film.mp4"))
    assert str(caught.value) == (
        "--simulate: decision 0 does not lead to where it led when the shard was written: the episode does not "
        "repeat on this machine; leave --simulate out"
    )
    assert not list(tmp_path.rglob("*film*.mp4"))


def test_one_that_is_stopped_leaves_nothing_half_made(prepared, tmp_path):
    words = ["replay", str(prepared.run), "--epoch", "1", "--episode", "4", "--simulate", "--size", "1792"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *words], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    try:
        deadline = time.monotonic() + 100
        while not list(tmp_path.iterdir()):
            assert process.poll() is None, "it ended before it could be stopped"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    finally:
        process.kill()
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_is_one_line_and_exit_code_2(prepared, tmp_path):
    done = command(prepared.run, tmp_path, "--epoch", 1, "--episode", 8)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "baton: --episode 8: rollout of epoch 1 has the episodes 0 to 7\n"


@pytest.mark.parametrize(
    ("stage", "epoch", "says"),
    [
        ("rollout", 7, "--epoch 7: published of rollout are epochs 1, 2"),
        ("evaluate", 2, "--epoch 2: published of evaluate is epoch 0"),
        ("demonstrate", 1, "--epoch 1: published of demonstrate is epoch 0"),
    ],
)
def test_an_epoch_that_is_not_there_is_told_with_those_that_are(prepared, stage, epoch, says):
    with pytest.raises(UserError, match=f"^{says}$"):
        check_published(prepared.run, stage, epoch)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"size": 450}, "--size 450: it must be a multiple of 4 from 224 to 1792 pixels"),
        ({"out": Path("nowhere/film.mp4")}, "--out nowhere/film.mp4: the folder nowhere is not there; make it first"),
        ({"stage": "demonstrate"}, "--epoch 1: demonstrations are of epoch 0"),
        ({"epoch": 0, "stage": "rollout"}, "--epoch 0: rollouts begin with epoch 1; demonstrations are of epoch 0"),
    ],
)
def test_what_cannot_be_shown_is_refused(prepared, settings, says):
    with pytest.raises(UserError) as caught:
        replay(asked(prepared.run, **{"epoch": 1, "episode": 0, **settings}))
    assert str(caught.value) == says


def test_a_freed_shard_is_told_with_its_films(prepared, tmp_path):
    tiny = prepared.copy(tmp_path)
    freed = tiny.run / "freed" / "e0001-rollout-s0000"
    shutil.copytree(tiny.run / "epochs/0001/rollout/shard-0000/videos", freed / "videos")
    shutil.rmtree(tiny.run / "epochs/0001")
    with pytest.raises(UserError) as caught:
        check_published(tiny.run, "rollout", 1)
    assert str(caught.value) == (
        f"--epoch 1: its shards were freed (keep.rollouts in {tiny.run / 'config.yaml'}); films that were made "
        f"lie in {freed}/videos; published of rollout is epoch 2"
    )


def test_a_damaged_shard_is_told(prepared, tmp_path):
    tiny = prepared.copy(tmp_path)
    with (tiny.run / ROLLOUT.marker / "rewards" / "c.0.0").open("ab") as file:
        file.write(b"!")
    with pytest.raises(UserError, match="is damaged: rewards/c.0.0 has .* bytes, its manifest says"):
        replay(asked(tiny.run, 1, 6))


def test_a_demonstration_that_failed_was_left_out(prepared, tmp_path):
    tiny = prepared.copy(tmp_path, demonstrate={"episodes": 9})  # more than were played, as if the last had failed
    with pytest.raises(UserError) as caught:
        replay(asked(tiny.run, 0, 8))
    assert str(caught.value) == ("--episode 8: the expert failed at it, and demonstrate.only_success left it out")


def test_a_shard_of_another_simulator_is_not_simulated_again(prepared, tmp_path, monkeypatch):
    def older(path: Path):
        shard = read(path)
        return dataclasses.replace(shard, sources=(dataclasses.replace(shard.sources[0], simulator_version="0.9"),))

    monkeypatch.setattr("stages.replay.read", older)
    with pytest.raises(UserError) as caught:
        replay(asked(prepared.run, 0, 0, simulate=True))
    here = read(prepared.run / DEMONSTRATE.marker).sources[0].simulator_version
    assert str(caught.value) == (
        f"--simulate: the episode was played in household 0.9, here is household {here}; leave --simulate out"
    )
