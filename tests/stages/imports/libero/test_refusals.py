"""What an import of LIBERO's demonstrations refuses, in one line each, before anything is published."""

import dataclasses
import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from pipeline.errors import UserError
from stages.imports import __main__ as process
from tests.stages.imports.libero import hdf5_files, lerobot_files, rlds_files
from tests.stages.imports.libero.conftest import SIZE, TASKS, work

FITTING = "import one of LIBERO's, e.g. lerobot/libero_object_image or HuggingFaceVLA/libero"


def refusal(path, composed, **asked):
    with pytest.raises(UserError) as refused:
        list(work(path, composed, **asked).carry_out())
    assert not list(Path(composed.demonstrate.imported).glob("epochs/*/*/*")), "nothing was published"
    return str(refused.value)


@pytest.fixture
def hdf5(tmp_path, truths):
    hdf5_files.write(tmp_path / "libero_object", truths, late=True)
    return tmp_path / "libero_object"


@pytest.fixture
def rlds(tmp_path, truths):
    rlds_files.write(tmp_path / "libero_object_no_noops", truths)
    return tmp_path / "libero_object_no_noops"


@pytest.fixture
def lerobot(tmp_path, truths):
    lerobot_files.write(tmp_path / "lerobot", truths, "v2.1", films=False)
    return tmp_path / "lerobot"


def test_a_directory_of_something_else(tmp_path, config):
    assert refusal(tmp_path / "nowhere", config()) == (
        f"{tmp_path}/nowhere holds no demonstrations of LIBERO: neither TASK_demo.hdf5 files, nor TFRecord files "
        "(NAME-train.tfrecord-00000-of-00016), nor meta/info.json of a LeRobot set; name the directory that does"
    )


def test_demonstrations_for_a_simulator_without_imports(hdf5, config):
    household = config("simulator={name: household, tasks: [stack]}", "policy.action_dim=14", "policy.options={}")
    assert refusal(hdf5, household) == (
        "simulator.name=household: there are demonstrations to import for libero and omnigibson; name a config with "
        "one of them, e.g. configs/libero_object_small.yaml"
    )


@pytest.mark.parametrize("layout", ["hdf5", "rlds", "lerobot"])
def test_tasks_that_are_not_there(layout, request, config):
    path, missing = request.getfixturevalue(layout), "pick_up_the_milk_and_place_it_in_the_basket"
    names = TASKS if layout == "hdf5" else [task.replace("_", " ") for task in TASKS]
    assert refusal(path, config(f"simulator.tasks=[{TASKS[0]},{missing}]")) == (
        f"{path}: it has no episode of {missing}; it has {'; '.join(names)}: set simulator.tasks to some of them"
    )


def test_pictures_smaller_than_asked(hdf5, config):
    assert refusal(hdf5, config("simulator.image_size=224")) == (
        f"simulator.image_size=224, but the pictures in {hdf5} have {SIZE} pixels a side: set it to {SIZE} or less, or "
        "import a set with larger ones"
    )


def test_fewer_episodes_than_asked(hdf5, config):
    assert refusal(hdf5, config("demonstrate.episodes=8")) == (
        f"{hdf5}: it has 3 episodes of {TASKS[0]}, but demonstrate.episodes=8 over 2 tasks needs 4: set "
        "demonstrate.episodes to 6 or less"
    )
    assert refusal(hdf5, config(), numbers=[range(900_000, 900_001)]).startswith(
        f"--episodes 900000: {hdf5} has no such episode of "
    )


def test_a_gripper_that_tells_nothing(truths, tmp_path, config):
    closed = [dataclasses.replace(truth, actions=np.abs(truth.actions)) for truth in truths]
    for truth in closed:
        truth.actions[:, 6] = 1
    hdf5_files.write(tmp_path / "closed", closed, late=True)
    assert refusal(tmp_path / "closed", config()) == (
        f"{tmp_path}/closed: the gripper's number is 1 in every frame of these episodes, which is closed to robosuite "
        "and open to Open X-Embodiment: choose more tasks or episodes"
    )


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (
            {"actions": (5, 1, 3.5)},
            "an action number is 3.5 in frame 5, robosuite's lie between -1 and 1: import a data set of relative, "
            "unscaled actions",
        ),
        (
            {"states": (6, 7, 0.5)},
            "the state ends in 0.03 and 0.5 in frame 6, LIBERO's in the places of two fingers, 0 to 0.05 and -0.05 to "
            "0 m: import a data set whose state is position, axis times angle, and fingers",
        ),
        ({"states": (2, 1, np.nan)}, "states are not finite in frame 2; download it again"),
    ],
)
def test_numbers_that_are_not_liberos(truths, tmp_path, config, spoil, problem):
    first = dataclasses.replace(truths[0], actions=truths[0].actions.copy(), states=truths[0].states.copy())
    first.states[6, 6] = 0.03
    ((field, (frame, column, value)),) = spoil.items()
    getattr(first, field)[frame, column] = value
    hdf5_files.write(tmp_path / "spoilt", [first, *truths[1:]], late=False)
    assert refusal(tmp_path / "spoilt", config()) == f"{tmp_path}/spoilt: episode 10000: {problem}"


def test_hdf5_files_that_are_damaged(hdf5, config):
    file = hdf5 / f"{TASKS[0]}_demo.hdf5"
    with h5py.File(file, "a") as opened:
        kept = opened["data/demo_0/obs/ee_pos"][()]
        del opened["data/demo_0/obs/ee_pos"]
    again = "download it again"
    assert refusal(hdf5, config()) == f"{file}: there is no data/demo_0/obs/ee_pos; {again}"
    with h5py.File(file, "a") as opened:
        opened["data/demo_0/obs/ee_pos"] = kept[:, :2]
    assert refusal(hdf5, config()) == (
        f"{file}: data/demo_0/obs/ee_pos has the shape [{len(kept)}, 2], expected [T, 3]; {again}"
    )
    with h5py.File(file, "a") as opened:
        del opened["data/demo_0/obs/ee_pos"]
        opened["data/demo_0/obs/ee_pos"] = kept[:-4]
    assert refusal(hdf5, config()) == (
        f"{file}: data/demo_0/obs/ee_pos has {len(kept) - 4} rows, its pictures {len(kept)}; {again}"
    )
    with h5py.File(file, "a") as opened:
        del opened["data"]
    assert refusal(hdf5, config()) == (
        f"{file}: there is no group data; name files of LIBERO's release, TASK_demo.hdf5"
    )
    file.write_bytes(file.read_bytes()[:100])
    assert refusal(hdf5, config()).startswith(f"{file} cannot be read (")


def test_a_demonstration_without_a_frame(hdf5, config):
    file = hdf5 / f"{TASKS[0]}_demo.hdf5"
    with h5py.File(file, "a") as opened:
        for name in ("agentview_rgb", "eye_in_hand_rgb"):
            del opened[f"data/demo_1/obs/{name}"]
            opened[f"data/demo_1/obs/{name}"] = np.zeros((0, SIZE, SIZE, 3), np.uint8)
    assert refusal(hdf5, config()) == f"{file}: data/demo_1 has no frames; download it again"


def test_a_file_of_something_else(tmp_path, config):
    (tmp_path / "notes.txt").write_text("mine")
    assert refusal(tmp_path / "notes.txt", config()) == (
        f"{tmp_path}/notes.txt is named after no task of LIBERO; name a file TASK_demo.hdf5 of one"
    )


def test_an_interpreter_that_is_not_there(hdf5, config):
    assert refusal(hdf5, config("simulator.python=/nowhere/python")) == (
        "simulator.python=/nowhere/python cannot be started (No such file or directory): name an interpreter that has "
        "LIBERO, or none; `baton env create libero` makes one"
    )


def test_what_the_system_refuses_is_one_line(hdf5, config, monkeypatch, capsys):
    path = hdf5 / ("x" * 300)  # longer than names may be
    monkeypatch.setattr(sys, "argv", ["", str(path), config().model_dump_json()])
    assert process.main() == UserError.EXIT_CODE
    assert capsys.readouterr().err == (
        f"baton: {path}/meta/info.json: File name too long; mend that, and the same command goes on\n"
    )


def test_a_directory_in_which_a_full_disk_left_half_a_note_is_gone_on_with(hdf5, config):
    directory = Path(config().demonstrate.imported)
    directory.mkdir()
    (directory / ".import.json.4711").write_text("{")
    assert [shard.fresh for shard in work(hdf5, config()).carry_out()] == [True, True]


def test_tfrecord_files_that_are_missing_or_damaged(rlds, config):
    first, second = sorted((rlds / "1.0.0").glob("*.tfrecord-*"))
    content = first.read_bytes()
    again = "download it again"
    second.rename(second.with_suffix(".part"))
    assert refusal(rlds, config()) == (f"{rlds}/1.0.0: 1 of 2 TFRecord files are there; download the others")
    second.with_suffix(".part").rename(second)
    first.write_bytes(content[:-10])
    last = last_record(content)
    assert refusal(rlds, config()) == f"{first} ends within the record at byte {last}; {again}"
    first.write_bytes(content[:5] + b"\xff" + content[6:])
    assert refusal(rlds, config()) == f"{first}: there is no record at byte 0; {again}"
    first.write_bytes(content[:last])
    assert refusal(rlds, config()) == f"{first} holds 3 records, dataset_info.json says 4; {again}"
    # A bit of a picture: nothing but the checksum tells.
    first.write_bytes(content[:20_000] + bytes([content[20_000] ^ 1]) + content[20_001:])
    assert refusal(rlds, config()) == f"{first}: the record at byte 0 is damaged: its checksum differs; {again}"
    (rlds / "1.0.0/dataset_info.json").unlink()
    first.write_bytes(content)
    assert refusal(rlds, config()) == f"{rlds}/1.0.0 is no set of TFDS: it has no dataset_info.json; {again}"


def last_record(content):
    place = following = 0
    while following < len(content):
        place, following = following, following + 16 + int.from_bytes(content[following : following + 8], "little")
    return place


def test_several_sets_of_tfrecord_files(truths, tmp_path, config):
    for name in ("libero_goal_no_noops", "libero_object_no_noops"):
        rlds_files.write(tmp_path / "sets" / name, truths[:1])
    assert refusal(tmp_path / "sets", config()) == (
        f"{tmp_path}/sets holds several sets of TFRecord files (libero_goal_no_noops/1.0.0, "
        "libero_object_no_noops/1.0.0); name the directory of one of them"
    )


def test_several_files_of_a_task(truths, tmp_path, config):
    for name in ("libero_object", "libero_object_no_noops"):
        hdf5_files.write(tmp_path / "datasets" / name, truths, late=True)
    assert refusal(tmp_path / "datasets", config()) == (
        f"{tmp_path}/datasets holds two files of {TASKS[0]}, libero_object/{TASKS[0]}_demo.hdf5 and "
        f"libero_object_no_noops/{TASKS[0]}_demo.hdf5; name the directory of one of them"
    )


def test_a_lerobot_set_of_something_else(lerobot, config):
    source = lerobot / "meta/info.json"
    info = json.loads(source.read_text())
    wrist = {"observation.images.wrist_image": {"dtype": "image", "shape": [64, 64, 3]}}
    for changes, problem in (
        ({"codebase_version": "v1.6"}, f"codebase_version is 'v1.6', v2.0, v2.1, v3.0 can be imported; {FITTING}"),
        (
            {"features": info["features"] | {"observation.state": {"dtype": "float32", "shape": [14]}}},
            f"observation.state has the shape [14], [8] can be imported; {FITTING}",
        ),
        (
            {"features": info["features"] | wrist},
            "observation.images.image and observation.images.wrist_image have the shapes [48, 48, 3] and [64, 64, 3], "
            f"square pictures of one size can be imported; {FITTING}",
        ),
        ({"features": {}}, f"there is no feature observation.images.image or image; {FITTING}"),
        (
            {"data_path": "data/{chunk_key}.parquet"},
            "data_path and video_path name 'chunk_key', which is not known; download it again",
        ),
    ):
        source.write_text(json.dumps(info | changes))
        assert refusal(lerobot, config()) == f"{source}: {problem}"


def test_a_table_of_lerobot_that_is_cut_short(lerobot, truths, config):
    table = lerobot / "data/chunk-000/episode_000000.parquet"
    whole = parquet.read_table(table)
    parquet.write_table(whole[:9], table)
    frames = len(truths[0].actions)
    assert refusal(lerobot, config()) == (
        f"{table}: it has 9 rows, meta/episodes.jsonl says {frames}; download it again"
    )
    view = "observation.images.image"
    broken = whole.set_column(
        whole.column_names.index(view), view, pyarrow.array([{"bytes": b"no picture", "path": ""}] * frames)
    )
    parquet.write_table(broken, table)
    assert refusal(lerobot, config()).startswith(f"{table}: a picture of {view} cannot be read (cannot identify image")
    table.unlink()
    assert refusal(lerobot, config()) == f"{table} is missing; download it, or lower demonstrate.episodes"
