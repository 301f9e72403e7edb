"""Imported shards: what they hold, that an interrupted import goes on, and that a run trains on them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.artifacts import Unit, imported_unit, open_artifact
from pipeline.errors import UserError
from pipeline.plan import make_plan
from stages.imports.__main__ import ranges
from stages.trajectories import concatenate, read
from tests.stages.imports.behavior.conftest import CAMERAS, grey, multiply, quaternion, work
from tests.stages.simulators.omnigibson.conftest import ROOT, data, machine, worker  # noqa: F401

JOINTS = ["simulator.options.action_mode=joint_23", "policy.action_dim=23"]
HANDS = ["simulator.options.action_mode=ee_delta_14", "policy.action_dim=14"]
CHOSEN = (10, 400010, 20, 400020)  # tasks take turns


def shards(config):
    return [Path(config.demonstrate.imported, imported_unit(shard).marker) for shard in range(2)]


def stored(config):
    return concatenate([read(path) for path in shards(config)])


def imported(made, config):
    assert [shard.fresh for shard in work(made, config).carry_out()] == [True, True]
    return stored(config)


def contents(config):
    found = [open_artifact(path) for path in shards(config)]
    return [artifact and artifact.verify().digest for artifact in found]


def test_the_recorded_numbers_as_they_are(made, config):
    whole = imported(made, config())
    assert whole.episodes.seed.tolist() == list(CHOSEN)
    assert whole.tasks == ("turning_on_radio", "make_microwave_popcorn")
    assert whole.instructions[0] == "Turning on radio: switch on the radio."
    for place, number in enumerate(CHOSEN):
        frames = len(made.actions[number])
        own = np.arange(whole.episodes.length[place]) + whole.episodes.start[place]
        assert len(own) == -(-frames // 4)
        for row, decision in enumerate(own):
            steps = np.arange(4 * row, 4 * row + 8)
            inside = steps < frames
            assert whole.executed[decision].tolist() == inside.tolist()
            assert np.array_equal(whole.actions[decision][inside], made.actions[number][steps[inside]])
            state = made.states[number][4 * row]
            felt = [state[253:256], state[236:240], state[158:165], state[197:204]]
            widths = [state[193:195].sum(), state[232:234].sum()]
            assert np.allclose(whole.proprio[decision], np.concatenate([*felt, widths]), atol=1e-6)
        head, wrist = whole.images(own)
        seen = dict(zip(CAMERAS, (head, wrist[:, 0], wrist[:, 1]), strict=True))
        for camera, pictures in seen.items():
            expected = np.array([grey(number, camera, 4 * row) for row in range(len(own))])
            assert np.abs(pictures.astype(int) - expected[:, None, None, None]).max() <= 2, camera
    assert whole.valid.sum() == whole.executed.sum()
    assert whole.episodes.success.all()
    assert whole.episodes.terminated.all()


def test_moves_of_the_hands_lead_from_each_recorded_pose_to_the_next(made, config):
    whole = imported(made, config(*HANDS))
    assert whole.proprio.shape[1] == 18
    checked = 0
    for decision in range(len(whole)):
        place = whole.episode_of_decision[decision]
        number = CHOSEN[place]
        first = 4 * (decision - whole.episodes.start[place])
        for k in np.flatnonzero(whole.valid[decision]):
            now, then = made.states[number][first + k : first + k + 2].astype(np.float64)
            for arm, (position, rotation, gripper) in enumerate(((186, 189, 14), (225, 228, 22))):
                action = whole.actions[decision][k][7 * arm : 7 * arm + 7]
                moved = now[position : position + 3] + 0.05 * action[:3]
                assert np.allclose(moved, then[position : position + 3], atol=1e-5)
                turned = multiply(quaternion(0.15 * action[3:6]), now[rotation : rotation + 4])
                assert abs(turned @ then[rotation : rotation + 4]) == pytest.approx(1, abs=1e-6)
                assert action[6] == made.actions[number][first + k][gripper]
            checked += 1
    frames = sum(len(made.actions[number]) for number in CHOSEN)
    assert checked == whole.valid.sum() > frames
    # The action of an episode's last frame leads nowhere.
    assert not whole.valid[:, -1][whole.ends_episode].any()


@pytest.mark.parametrize("moving", [slice(253, 256), slice(240, 244)], ids=["base", "trunk"])
def test_frames_in_which_base_or_trunk_moves_are_left_out(made, config, moving):
    number = CHOSEN[0]
    states = made.states[number].copy()
    states[10:16, moving] = 0.3
    made.write_table(number, made.actions[number], states)
    composed = config(*HANDS, "demonstrate.stride=2")
    done = list(work(made, composed).carry_out())
    whole = stored(composed)
    own = whole.episodes.length[0]
    frames = len(states)
    # From frame 9, whose action leads into the motion, to frame 15, whose next frame stands still again.
    still = [t for t in range(frames - 1) if not 9 <= t <= 15]
    starts = [t for t in range(0, frames, 2) if t in still]
    assert own == len(starts)
    for row, start in enumerate(starts):
        length = next(k for k in range(9) if k == 8 or start + k not in still)
        assert whole.valid[row].tolist() == [k < length for k in range(8)]
    assert done[0].artifact.manifest.metrics["import/frames_left_out"] == 7 + 1 + 1  # and the last of both episodes


def test_moves_beyond_the_limits_are_left_out(made, config):
    states = made.states[CHOSEN[0]].copy()
    states[20:, 186] += 0.2
    made.write_table(CHOSEN[0], made.actions[CHOSEN[0]], states)
    whole = imported(made, config(*HANDS))
    assert whole.valid[4].tolist() == [True] * 3 + [False] * 5  # frame 19 jumps
    assert np.abs(whole.actions).max() <= 1


def test_where_nothing_stands_still_nothing_is_written(made, config):
    for number in CHOSEN:
        states = made.states[number].copy()
        states[:, 253] = 0.5
        made.write_table(number, made.actions[number], states)
    composed = config(*HANDS)
    with pytest.raises(UserError) as refused:
        list(work(made, composed).carry_out())
    assert str(refused.value) == (
        "shard 0: base or trunk move in all frames of its 2 episodes, so that 14 numbers cannot say what the robot "
        "did; choose tasks that are done in one place, or 23 numbers: simulator.options.action_mode=joint_23 "
        "policy.action_dim=23"
    )
    assert contents(composed) == [None, None]


def command(made, config, *arguments, code=None):
    program = ["-m", "stages.imports"] if code is None else ["-c", code]
    return [sys.executable, *program, str(made.path), config.model_dump_json(), *arguments]


KILLED = """
import os, runpy, signal
from stages.imports.behavior import episode
decode, calls = episode.pictures, []
def pictures(*arguments):
    calls.append(arguments)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return decode(*arguments)
episode.pictures = pictures
runpy.run_module("stages.imports", run_name="__main__")
"""


def test_a_killed_import_goes_on_and_ends_in_the_same_bytes(made, config, tmp_path):
    composed = config()
    killed = subprocess.run(command(made, composed, code=KILLED), capture_output=True, text=True, timeout=100)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert killed.stdout.startswith("shard 0 of 2: 16 decisions, ")
    before = contents(composed)
    assert before[1] is None
    again = subprocess.run(command(made, composed), capture_output=True, text=True, timeout=100)
    assert again.returncode == 0, again.stderr
    first, second, last = again.stdout.splitlines()
    assert first.endswith(" MB, there already")
    assert second.endswith(" MB, written")
    frames = [len(made.actions[number]) for number in CHOSEN]
    decisions = sum(-(-count // 4) for count in frames)
    assert last.startswith(f"4 episodes, {decisions} decisions, 0.000 GB in ")
    assert last.endswith(f"; 0.0% of {sum(frames)} frames were left out")
    other = config(f"demonstrate.imported={tmp_path / 'undisturbed'}")
    imported(made, other)
    assert contents(composed) == contents(other)
    assert contents(composed)[0] == before[0]


def test_episodes_can_be_chosen_by_their_numbers(made, config, tmp_path):
    composed = config("demonstrate.shards=1")
    asked = work(made, composed, numbers=ranges("400020-409999,40, 10-15"))
    assert [[episode.number for episode in part] for part in asked.parts] == [[10, 40, 400020, 400040]]
    assert [shard.fresh for shard in asked.carry_out()] == [True]
    shard = read(shards(composed)[0])
    assert len(shard) == sum(-(-len(made.actions[number]) // 4) for number in (10, 40, 400020, 400040))
    with pytest.raises(UserError) as refused:
        work(made, composed)
    assert str(refused.value) == (
        f"demonstrate.imported={tmp_path / 'shards'} holds another import (episodes: it has [10, 40, 400020, 400040], "
        "asked is 4); ask for the same, or choose another directory"
    )


def test_shards_can_be_made_by_several_processes(made, config):
    composed = config()
    list(work(made, composed, only=[1]).carry_out())
    assert [found is None for found in contents(composed)] == [True, False]
    assert [shard.fresh for shard in work(made, composed).carry_out()] == [True, False]


@pytest.mark.slow
def test_baton_run_trains_on_imported_shards(made, config, tmp_path, worker, data):  # noqa: F811
    """The whole run: the warm start learns from them, and its policy plays in OmniGibson, or what stands in for it."""
    one = ["simulator.tasks=[turning_on_radio]", "simulator.max_episode_steps=8", "demonstrate.episodes=2"]
    one += ["evaluate.num_envs=1", "evaluate.num_workers=1"]
    composed = config(*one)
    list(work(made, composed).carry_out())
    assert [plan.unit for plan in make_plan(composed)] == [Unit(0, "sft"), Unit(0, "evaluate")]
    worker("b_fork")
    overrides = [f"runs_dir={tmp_path / 'runs'}", f"demonstrate.imported={tmp_path / 'shards'}", *one]
    command = [sys.executable, "-m", "pipeline.cli", "run", str(tmp_path / "tiny.yaml"), *overrides]
    path = os.pathsep.join((str(ROOT), os.environ["PYTHONPATH"]))
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs/tiny"
    artifact = open_artifact(run / "policies/0000")
    assert list(artifact.manifest.inputs.values()) == contents(composed)
    statistics = json.loads((artifact.path / "dataset_statistics.json").read_text())["omnigibson"]["action"]
    assert [place for place, normalised in enumerate(statistics["mask"]) if not normalised] == [14, 22]
    assert len(statistics["q01"]) == 23
    assert "env/success_rate" in open_artifact(run / "epochs/0000/evaluate").manifest.metrics
