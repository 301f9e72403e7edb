"""An evaluation plays the same held-out episodes however many groups take turns."""

import json

import pytest

from pipeline.artifacts import Unit

EVALUATE = Unit(0, "evaluate")

pytestmark = pytest.mark.slow


def test_groups_that_take_turns_play_the_same_episodes(prepared, tmp_path):
    run = prepared.copy(tmp_path / "groups", EVALUATE, evaluate={"pipeline_stage_num": 2})
    code, output = run.start(EVALUATE).end()
    assert code == 0, output
    once, in_turn = (
        [json.loads(line) for line in (each.run / "epochs/0000/evaluate/episodes.jsonl").open()]
        for each in (prepared, run)
    )
    assert [(line["task"], line["seed"]) for line in in_turn] == [(line["task"], line["seed"]) for line in once]
    films = [
        {film.name.rpartition("-")[0] for film in each.run.glob("epochs/0000/evaluate/videos/*.mp4")}
        for each in (prepared, run)
    ]
    assert films[0] == films[1]
    assert len(films[0]) == 2
