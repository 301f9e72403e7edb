"""Choices of an import of LIBERO's demonstrations, and what becomes of an interrupted one."""

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline import cli
from pipeline.artifacts import imported_unit, open_artifact
from pipeline.errors import UserError
from stages.imports import __main__ as process
from stages.imports.importer import Import
from stages.imports.libero.tasks import ByInstruction
from stages.imports.opening import open_source
from stages.simulators.libero.catalogue import entries
from stages.trajectories import concatenate, read
from tests.stages.imports.libero import hdf5_files, rlds_files
from tests.stages.imports.libero.conftest import SIZE, TASKS, work

ONE_TASK = [f"simulator.tasks=[{TASKS[0]}]", "demonstrate.episodes=3", "demonstrate.shards=1"]


@pytest.fixture
def hdf5(tmp_path, truths):
    hdf5_files.write(tmp_path / "libero_object", truths, late=False)
    return tmp_path / "libero_object"


def stored(config, shards=1):
    return concatenate([read(shard_path(config, shard)) for shard in range(shards)])


def shard_path(config, shard):
    return Path(config.demonstrate.imported, imported_unit(shard).marker)


def test_the_gripper_turns_round_where_the_config_says_so(hdf5, config):
    composed = config(*ONE_TASK, "simulator.options.gripper=openvla")
    list(work(hdf5, composed).carry_out())
    gripper = stored(composed).actions[..., 6]
    recorded = config(*ONE_TASK, "demonstrate.imported=" + composed.demonstrate.imported + "-robosuite")
    list(work(hdf5, recorded).carry_out())
    whole = stored(recorded)
    assert set(np.unique(whole.actions[..., 6])) == {-1, 1}
    assert np.array_equal(gripper, (1 - whole.actions[..., 6]) / 2), "1 opens, 0 closes"


def test_pictures_are_averaged_down(hdf5, truths, config):
    composed = config(*ONE_TASK, f"simulator.image_size={SIZE - 16}")
    list(work(hdf5, composed).carry_out())
    head, wrist = stored(composed).images(np.arange(1))
    assert head.shape == (1, 3, SIZE - 16, SIZE - 16)
    rendered = truths[0].wrist[1]  # in frame 0 nothing is done
    assert wrist[0, 0, :, 0, 0].tolist() == rendered[-1, -1].tolist()
    assert wrist[0, 0, :, -1, -1].tolist() == rendered[0, 0].tolist()


def test_pictures_that_lie_otherwise_can_be_said_to(hdf5, truths, config):
    composed = config(*ONE_TASK)
    list(Import(open_source(hdf5, composed, turn=False), composed).carry_out())
    head, _ = stored(composed).images(np.arange(1))
    assert np.array_equal(head[0], truths[0].scene[1].transpose(2, 0, 1))


def test_files_that_robosuite_rendered_upright_are_turned_as_well(truths, tmp_path, config):
    upright = [
        dataclasses.replace(truth, scene=truth.scene[:, ::-1], wrist=truth.wrist[:, ::-1]) for truth in truths[:3]
    ]
    hdf5_files.write(tmp_path / "upright", upright, late=False)
    with h5py.File(tmp_path / "upright" / f"{TASKS[0]}_demo.hdf5", "a") as file:
        file["data"].attrs["macros_image_convention"] = "opencv"
    composed = config(*ONE_TASK)
    list(work(tmp_path / "upright", composed).carry_out())
    head, _ = stored(composed).images(np.arange(1))
    assert np.array_equal(head[0], truths[0].scene[1, ::-1, ::-1].transpose(2, 0, 1))


def test_episodes_that_missed_their_goal_are_left_out(truths, tmp_path, config):
    hdf5_files.write(tmp_path / "missed", truths, late=True)
    with h5py.File(tmp_path / "missed" / f"{TASKS[0]}_demo.hdf5", "a") as file:
        file["data/demo_1/rewards"][()] = 0
    composed = config(*ONE_TASK)
    (done,) = work(tmp_path / "missed", composed).carry_out()
    first = 1000 * list(entries()).index(TASKS[0])
    assert stored(composed).episodes.seed.tolist() == [first, first + 2]
    metrics = done.artifact.manifest.metrics
    assert metrics["import/episodes"] == 2
    assert metrics["import/frames_left_out"] == len(truths[1].actions) - 1 + 2 * len((7, 8))


def test_episodes_that_begin_from_an_evaluation_state_are_left_out(truths, tmp_path, config):
    """LIBERO is stood in for by an interpreter that finds a folder with initial states."""
    suite = tmp_path / "site/libero/libero/init_files/libero_object"
    suite.mkdir(parents=True)
    (tmp_path / "site/libero/__init__.py").write_text("")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path}/site exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    rng = np.random.default_rng(0)
    states = rng.uniform(-0.3, 0.3, (3, 1 + 9 + 7 * 3 + 9 + 6 * 3))  # three free objects
    for at in (13, 20, 27):
        states[:, at : at + 4] /= np.linalg.norm(states[:, at : at + 4], axis=1, keepdims=True)
    begun = [dataclasses.replace(truth) for truth in truths[:3]]
    for place, truth in enumerate(begun):
        simulator = np.tile(states[place], (len(truth.actions) + 1, 1))
        simulator[:, 1:8] = truth.simulator[:, 1:8]
        truth.simulator = simulator
    kept = states[1:2].copy()
    kept[:, 12] += 0.01  # it falls a little until the first frame that is stored
    np.savez(suite / f"{TASKS[0]}.pruned_init.npz", states=np.concatenate([kept, kept + 0.05]))
    hdf5_files.write(tmp_path / "demos", begun, late=False)
    composed = config(*ONE_TASK, f"simulator.python={python}")
    (done,) = work(tmp_path / "demos", composed).carry_out()
    first = 1000 * list(entries()).index(TASKS[0])
    assert stored(composed).episodes.seed.tolist() == [first, first + 2]
    assert done.artifact.manifest.metrics["import/held_out"] == 1
    note = json.loads(Path(composed.demonstrate.imported, "import.json").read_text())
    assert note["initial_states"] == "the data set's own; those of the benchmark's 50 a task are left out"


def test_rlds_episodes_without_their_source_are_told_by_instruction(truths, tmp_path, config):
    folder = tmp_path / "set"
    rlds_files.write(folder, truths)
    for file in folder.glob("1.0.0/*.tfrecord-*"):
        file.unlink()
    info = folder / "1.0.0/dataset_info.json"
    info.write_text(info.read_text().replace('["4", "5"]', '["9"]'))
    records = [rlds_files.record(rlds_files.example(truth, source=False)) for truth in truths]
    (folder / "1.0.0/x-train.tfrecord-00000-of-00001").write_bytes(b"".join(records))
    composed = config(*ONE_TASK)
    list(work(folder, composed).carry_out())
    assert stored(composed).episodes.seed.tolist() == [0, 1, 2]


def test_an_instruction_of_several_tasks_is_told_by_the_others():
    goal, scene = "turn_on_the_stove", "KITCHEN_SCENE3_turn_on_the_stove"
    stove, plate, soup = "Turn on the stove.", "put the bowl on the plate", "close the microwave"
    assert entries()["put_the_bowl_on_the_plate"].suite == "libero_goal"
    assert ByInstruction(Path("set"), [stove, plate], [goal])(stove) == goal
    assert ByInstruction(Path("set"), [stove, soup], [goal])(stove) is None, "this one is of LIBERO-90"
    with pytest.raises(UserError) as refused:
        ByInstruction(Path("set"), [stove, soup], [scene])(stove)
    assert str(refused.value) == (
        f"set: 'Turn on the stove.' may be {scene} or KITCHEN_SCENE9_turn_on_the_stove, and nothing else in this "
        f"layout tells: leave {scene} out of simulator.tasks, or import the original HDF5 files"
    )
    assert ByInstruction(Path("set"), [stove], [goal])("fly to the moon") is None


def test_a_missing_package_is_named(hdf5, config, monkeypatch, capsys):
    found = process.importlib.util.find_spec
    monkeypatch.setattr(process.importlib.util, "find_spec", lambda name: None if name == "h5py" else found(name))
    monkeypatch.setattr(sys, "argv", ["stages.imports", str(hdf5), config().model_dump_json()])
    assert process.main() == 2
    assert capsys.readouterr().err == "baton: imports need h5py: pip install 'baton-vla[import]'\n"


def test_the_command_passes_on_how_pictures_lie(hdf5, config, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("os.execv", lambda program, words: asked.append(words))
    config()
    for word, passed in (("--no-turn", ["--no-turn"]), ("--turn", ["--turn"]), ("seed=1", [])):
        monkeypatch.setattr(sys, "argv", ["baton", "import", str(hdf5), str(tmp_path / "tiny.yaml"), word])
        with pytest.raises(SystemExit):
            cli.main()
        assert asked.pop()[5:] == passed


KILLED = """
import os, runpy, signal
from stages.imports.libero.hdf5 import Hdf5
pictures, calls = Hdf5.pictures, []
def killing(*arguments):
    calls.append(arguments)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return pictures(*arguments)
Hdf5.pictures = killing
runpy.run_module("stages.imports", run_name="__main__")
"""


def test_a_killed_import_goes_on_and_ends_in_the_same_bytes(hdf5, config, tmp_path):
    composed = config()
    command = [sys.executable, "-c", KILLED, str(hdf5), composed.model_dump_json()]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [open_artifact(shard_path(composed, shard)) is None for shard in range(2)] == [False, True]
    assert [shard.fresh for shard in work(hdf5, composed).carry_out()] == [False, True]
    other = config(f"demonstrate.imported={tmp_path / 'undisturbed'}")
    list(work(hdf5, other).carry_out())
    digests = [
        [open_artifact(shard_path(made, shard)).verify().digest for shard in range(2)] for made in (composed, other)
    ]
    assert digests[0] == digests[1]
