"""result.json and the final table, from artifacts alone."""

import io
import json

import pytest
from rich.console import Console

from pipeline.errors import UserError
from pipeline.report.results import collect, write_result
from pipeline.report.tables import final_table
from pipeline.report.wilson import interval

WARM = {"open": "+---", "close": "++--"}
LATER = {"open": "+++-", "close": "+++-"}


def printed(renderable, width=80):
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(renderable, soft_wrap=True)
    return out.getvalue()


def test_result_of_a_whole_run(run, put, evaluate):
    put("demonstrate", 0, 0, start=0, seconds=5)
    put("sft", 0, start=10, seconds=20)
    evaluate(0, WARM, start=30, seconds=4)
    for shard in (0, 1):
        put("rollout", 1, shard, start=40, seconds=3)
    put("update", 1, start=50, seconds=6)
    evaluate(2, LATER, start=100, seconds=4)
    assert write_result(run) == collect(run)

    result = json.loads((run / "result.json").read_text())
    low, high = interval(3, 8)
    assert result["warm_start"]["success"] == 3 / 8
    assert (result["warm_start"]["low"], result["warm_start"]["high"]) == (low, high)
    assert result["warm_start"]["tasks"]["close"] == dict(
        zip(("success", "episodes", "low", "high"), (0.5, 4, *interval(2, 4)), strict=True)
    )
    assert (result["rl"]["success"], result["rl"]["episodes"], result["policy_version"]) == (0.75, 8, 2)
    assert result["same_initial_states"] is True
    assert result["success_by_epoch"] == {"0": 3 / 8, "2": 0.75}
    assert result["seconds"] == {"demonstrate": 5, "sft": 20, "rollout": 6, "update": 6, "evaluate": 8}
    assert result["evaluations"] == ["epochs/0000/evaluate", "epochs/0002/evaluate"]
    assert result["videos"] == [f"epochs/000{epoch}/evaluate/videos/open-0000.mp4" for epoch in (0, 2)]
    assert 3600 <= result["wall_seconds"] < 4200


def test_result_before_any_rl(run, evaluate):
    evaluate(0, WARM)
    result = write_result(run)
    assert result.warm_start is not None
    assert (result.rl, result.policy_version, result.same_initial_states) == (None, 0, None)
    assert "after RL" not in printed(final_table(run, result))


def test_result_of_a_run_that_has_published_nothing(run):
    result = collect(run)
    assert (result.warm_start, result.policy_version, result.wall_seconds, result.seconds) == (None, None, 0.0, {})
    assert "nothing is evaluated yet" in printed(final_table(run, result))


def test_different_initial_states_are_told(run, evaluate):
    evaluate(0, WARM)
    evaluate(2, LATER, first_seed=100)
    result = collect(run)
    assert result.same_initial_states is False
    assert "DIFFERENT initial states" in printed(final_table(run, result))


def test_final_table_shows_rates_intervals_seconds_and_places(run, put, evaluate):
    put("sft", 0, seconds=20)
    evaluate(0, WARM)
    evaluate(2, LATER)
    text = printed(final_table(run, collect(run)))
    assert "after RL, epoch 2" in text
    line = next(line for line in text.splitlines() if line.startswith("all tasks"))
    assert "37.5 % [13.7, 69.4] of 8" in line
    assert "75.0 % [40.9, 92.9] of 8" in line
    assert len(line) <= 80
    assert "+37.5 percentage points on the same held-out initial states" in text
    assert "sft 20.0, evaluate 20.0" in text
    for place in ("result.json", "epochs/0002/evaluate/videos", "policies/0002"):
        assert str(run / place) in text
    assert f"baton ui {run}" in text


def test_a_damaged_evaluation_is_refused_with_the_way_out(run, evaluate):
    artifact = evaluate(2, LATER)
    (artifact.path / "episodes.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=rf"baton rerun {run} evaluate --epoch 2"):
        collect(run)


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"episodes.jsonl": '{"task": "open", "seed": 1}\n'}, r"episodes.jsonl:1: .*rerun .*made evaluate --epoch 0"),
        ({"episodes.jsonl": ""}, "holds no episodes"),
        ({"metrics.jsonl": ""}, "lists no episodes.jsonl"),
    ],
)
def test_an_evaluation_without_readable_episodes_is_refused(run, put, files, complaint):
    put("evaluate", 0, files=files)
    with pytest.raises(UserError, match=complaint):
        collect(run)
