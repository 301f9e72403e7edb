"""What an import refuses, in one line each, before anything is published."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from pipeline import cli, rundir
from pipeline.artifacts import Unit
from pipeline.errors import UserError
from stages.demonstrations import gather
from stages.imports import __main__ as process
from stages.imports import importer
from stages.kept import Kept
from stages.unit import Work
from tests.stages.imports.behavior.conftest import work

REVISION = "get its revision v2.1 (huggingface.co/datasets/behavior-1k/2025-challenge-demos has one)"
FIRST = 10


def refusal(made, config, *overrides):
    composed = config(*overrides)
    with pytest.raises(UserError) as refused:
        list(work(made, composed).carry_out())
    assert not list(Path(composed.demonstrate.imported).glob("epochs/*/*/*")), "nothing was published"
    return str(refused.value)


def test_what_is_no_data_set(made, config):
    (made.path / "meta/info.json").unlink()
    assert refusal(made, config) == (
        f"{made.path} is not a LeRobot data set: it has no meta/info.json; name the directory that holds meta, data "
        "and videos"
    )


def test_damaged_metadata(made, config):
    (made.path / "meta/info.json").write_text("{")
    assert refusal(made, config).startswith(f"{made.path}/meta/info.json cannot be read (")


@pytest.mark.parametrize("version", ["v3.0", "v2.0", None])
def test_another_version_of_the_layout(made, config, version):
    made.rewrite_info(codebase_version=version)
    assert refusal(made, config) == (
        f"{made.path}/meta/info.json: codebase_version is {version!r}, v2.1 can be imported; {REVISION}"
    )


def test_features_that_are_missing_or_of_another_shape(made, config):
    features = json.loads((made.path / "meta/info.json").read_text())["features"]
    other = {**features, "observation.state": {"dtype": "float32", "shape": [61]}}
    made.rewrite_info(features=other)
    assert refusal(made, config) == (
        f"{made.path}/meta/info.json: observation.state has the shape [61], [256] can be imported; {REVISION}"
    )
    del features["observation.images.rgb.head"]
    made.rewrite_info(features=features)
    assert refusal(made, config) == (
        f"{made.path}/meta/info.json: there is no feature observation.images.rgb.head, which BEHAVIOR's layout has; "
        f"{REVISION}"
    )


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"data_path": "data/{chunk_key}.parquet"}, "data_path and video_path name 'chunk_key', which is not known"),
        ({"chunks_size": None}, "chunks_size is None, which does not fit"),
    ],
)
def test_info_that_does_not_say_where_things_lie(made, config, changes, problem):
    made.rewrite_info(**changes)
    remedy = REVISION if "data_path" in changes else "download it again"
    assert refusal(made, config) == f"{made.path}/meta/info.json: {problem}; {remedy}"


def test_tasks_and_episodes_that_there_are_not(made, config):
    assert refusal(made, config, "simulator.tasks=[cook_bacon]", "demonstrate.num_envs=1") == (
        f"{made.path}: it has no task 'cook_bacon'; it has attach_a_camera_to_a_tripod, make_microwave_popcorn, "
        "turning_on_radio: set simulator.tasks to some of them"
    )
    assert refusal(made, config, "demonstrate.episodes=8") == (
        f"{made.path}: it has 3 episodes of turning_on_radio, but demonstrate.episodes=8 over 2 tasks needs 4: set "
        "demonstrate.episodes to 6 or less"
    )


@pytest.mark.parametrize("text", ["ten", "20-10", "10-", "-3", "1-2-3"])
def test_numbers_of_episodes_that_are_none(text):
    with pytest.raises(UserError) as refused:
        process.ranges(f"5,{text}")
    assert str(refused.value) == f"--episodes {text}: it is no number and no range of them; say e.g. 10,40-90"


def test_numbers_of_episodes_that_there_are_not(made, config):
    for text in ("11", "350000-359999"):  # a number between two, and those of another task
        with pytest.raises(UserError) as refused:
            work(made, config(), numbers=process.ranges(f"10,{text}"))
        assert str(refused.value) == (
            f"--episodes {text}: {made.path} has no such episode of turning_on_radio, make_microwave_popcorn (it has "
            "10 to 400040): name others, or set simulator.tasks to their tasks"
        )


def test_a_table_that_is_missing_cut_short_or_of_another_shape(made, config):
    table, again = made.table(FIRST), "download it again"
    whole = table.read_bytes()
    table.unlink()
    assert refusal(made, config) == f"{table} is missing; download it, or lower demonstrate.episodes"
    table.write_bytes(whole[: len(whole) // 2])
    assert refusal(made, config).startswith(f"{table} cannot be read (")
    made.write_table(FIRST, made.actions[FIRST][:, :14], made.states[FIRST])
    assert refusal(made, config) == f"{table}: a row of action has 14 numbers, expected 23; {again}"
    made.write_table(FIRST, made.actions[FIRST][:9], made.states[FIRST][:9])
    frames = len(made.actions[FIRST])
    assert refusal(made, config) == f"{table}: it has 9 rows, meta/episodes.jsonl says {frames}; {again}"
    states = made.states[FIRST].copy()
    states[3, 7] = np.nan
    made.write_table(FIRST, made.actions[FIRST], states)
    assert refusal(made, config) == f"{table}: observation.state is not finite in row 3; {again}"
    parquet.write_table(pyarrow.table({"action": [[0.0] * 23]}), table)
    assert refusal(made, config) == f"{table}: there is no column observation.state; {again}"


def test_a_film_that_is_missing_cut_short_or_of_another_length(made, config):
    film = made.film(FIRST, "left_wrist")
    whole = film.read_bytes()
    film.unlink()
    assert refusal(made, config) == f"{film} is missing; download it, or lower demonstrate.episodes"
    film.write_bytes(whole[: len(whole) // 3])
    assert refusal(made, config).startswith(f"{film} cannot be decoded (")
    made.write_film(FIRST, "left_wrist", 12)
    frames = len(made.actions[FIRST])
    assert refusal(made, config) == f"{film}: it has 12 frames, meta/episodes.jsonl says {frames}; download it again"


def test_configs_that_do_not_fit(made, config, tmp_path):
    assert refusal(made, config, "policy.chunk=2") == (
        "demonstrate.stride=4 is more than policy.chunk=2, and actions between two observations would be lost; set it "
        "to 2 or less"
    )
    assert refusal(made, config, "simulator.options.proprio_keys=[feelings]").startswith(
        "simulator: omnigibson: proprio_keys has no 'feelings'; valid: "
    )
    with pytest.raises(UserError) as refused:
        work(made, config("demonstrate.imported=null", "sft.steps=0", "policy.checkpoint=trained"))
    assert str(refused.value) == (
        "demonstrate.imported is not set: name a directory for the shards there, e.g. "
        "demonstrate.imported=/data/behavior-shards; runs with the same value train on them"
    )
    with pytest.raises(UserError) as refused:
        work(made, config(), only=[7])
    assert str(refused.value) == "--shard 7: this import has the shards 0 to 1; name one of them"


def test_too_little_room(made, config, monkeypatch, tmp_path):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(importer.shutil, "disk_usage", lambda place: usage._replace(free=1000))
    assert refusal(made, config) == (
        f"demonstrate.imported={tmp_path / 'shards'}: 4 episodes take at least 0.0 GB, 0.0 GB are free; lower "
        "demonstrate.episodes, raise demonstrate.stride or choose a larger disk"
    )


def test_a_directory_of_something_else(made, config, tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "thesis.tex").write_text("")
    assert refusal(made, config) == (
        f"demonstrate.imported={tmp_path / 'shards'} is no import: it holds thesis.tex, but no import.json; choose "
        "another"
    )


def test_a_directory_of_another_import(made, config, tmp_path):
    list(work(made, config()).carry_out())
    with pytest.raises(UserError) as refused:
        work(made, config("simulator.image_size=64"))
    assert str(refused.value) == (
        f"demonstrate.imported={tmp_path / 'shards'} holds another import (image_size: it has 32, asked is 64); ask "
        "for the same, or choose another directory"
    )


def demonstrated(composed):
    """What the warm start says that is to learn from them."""
    run = rundir.create_or_resume(composed)
    with pytest.raises(UserError) as refused:
        gather(Work(run, composed, Unit(0, "sft"), 1, Kept()))
    return run, str(refused.value)


def test_a_run_refuses_what_is_not_there_or_does_not_fit(made, config, tmp_path):
    shards, remedy = tmp_path / "shards", "`baton import` with this config fills it"
    none = demonstrated(config("name=none"))[1]
    assert none == f"demonstrate.imported={shards} holds no imported demonstrations; {remedy}"
    list(work(made, config(), only=[0]).carry_out())
    assert demonstrated(config("name=part"))[1] == f"demonstrate.imported={shards} holds 1 of 2 shards; {remedy}"
    list(work(made, config()).carry_out())
    run, said = demonstrated(config("name=other", "policy.chunk=4"))
    assert said == (
        f"{run}/config.yaml: policy.chunk=4, but the shards in demonstrate.imported={shards} were imported with 8: set "
        "policy.chunk=8, or import again into another directory"
    )
    damaged = shards / "epochs/0000/import/shard-0001/clean/c.0.0"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    assert demonstrated(config("name=damaged"))[1] == (
        f"{shards}/epochs/0000/import/shard-0001 is damaged: the content of clean/c.0.0 is not what was published; "
        "remove it and give the same `baton import` again"
    )


def test_the_command_says_so_in_one_line(made, config, tmp_path, monkeypatch, capsys):
    made.rewrite_info(codebase_version="v3.0")
    asked = []
    monkeypatch.setattr("os.execv", lambda program, words: asked.append(words))
    arguments = ["import", str(made.path), str(tmp_path / "tiny.yaml")]
    config()
    monkeypatch.setattr(
        sys,
        "argv",
        ["baton", *arguments, f"demonstrate.imported={tmp_path / 'shards'}", "--shard", "1", "--episodes", "10"],
    )
    with pytest.raises(SystemExit):
        cli.main()
    (words,) = asked
    assert words[1:3] == ["-m", "stages.imports"]
    assert words[-4:] == ["--episodes", "10", "--shard", "1"]
    monkeypatch.setattr(sys, "argv", ["stages.imports", *words[3:]])
    assert process.main() == 2
    assert capsys.readouterr().err == (
        f"baton: {made.path}/meta/info.json: codebase_version is 'v3.0', v2.1 can be imported; {REVISION}\n"
    )


def test_demos_are_not_for_imported_ones(config, tmp_path, monkeypatch, capsys):
    config()
    arguments = ["baton", "demos", str(tmp_path / "tiny.yaml"), f"demonstrate.imported={tmp_path / 'shards'}"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code, capsys.readouterr().err) == (
        2,
        f"baton: {tmp_path / 'tiny.yaml'}: demonstrate.imported is set: `baton import` writes these demonstrations\n",
    )
