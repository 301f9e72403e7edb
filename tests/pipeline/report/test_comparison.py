"""Runs side by side."""

import json
import re

import pytest

from pipeline.commands.report import compare as command
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.report.comparison import compare
from pipeline.report.difference import paired, unpaired
from pipeline.report.side_by_side import verdict
from pipeline.resolve import resolve
from pipeline.rundir import create_or_resume
from tests.pipeline.report.conftest import into

STATES = {"open": "+---+---", "close": "++--++--"}
BETTER = {"open": "+++-++--", "close": "++--+++-"}


@pytest.fixture
def made(tmp_path):
    """Makes a run with an evaluation of its warm start and of epoch 2: `made("a", BETTER, seed=1)`."""

    def made(name, outcomes=None, *, first_seed=0, simulator=None, **changes):
        config = {
            "name": name,
            "epochs": 2,
            "simulator": {"name": "lab.worlds", "tasks": list(outcomes or STATES), **(simulator or {})},
            "rollout": {"shards": 2, "episodes": 24, "num_envs": 2},
            "evaluate": {"episodes": 16},
            "runs_dir": str(tmp_path / "runs"),
        }
        run = create_or_resume(resolve(Config.model_validate(config | changes)))
        for epoch, letters in ((0, STATES), (2, outcomes or {})):
            lines = [
                json.dumps({"task": task, "seed": first_seed + seed, "success": letter == "+"}) + "\n"
                for task, each in letters.items()
                for seed, letter in enumerate(each)
            ]
            if lines:
                into(run)("evaluate", epoch, files={"episodes.jsonl": "".join(lines)})
        for shard in (0, 1):
            into(run)("rollout", 1, shard, metrics={"rollout/episodes": 12.0, "rollout/success_rate": 0.5})
        into(run)("update", 1, metrics={"actor/loss": 0.5}, seconds=3600)
        return run

    return made


def outcomes(first, second):
    return [(a == "+", b == "+") for task in first for a, b in zip(first[task], second[task], strict=True)]


def test_runs_on_the_same_initial_states_are_paired(made):
    compared = compare([made("a", STATES), made("b", BETTER, seed=4)])
    (contest,) = compared.contests
    assert contest.difference == paired(outcomes(STATES, BETTER))
    assert (contest.first, contest.second, contest.tasks, contest.note) == ("a", "b", ("close", "open"), "")
    assert compared.differences == {"seed": (0, 4)}
    assert compared.tasks == {}
    assert [(entry.epochs, entry.training_episodes) for entry in compared.entries] == [(1, 24), (1, 24)]


def test_the_first_run_is_the_measure_of_all_others(made):
    compared = compare([made("a", STATES), made("b", BETTER), made("c", STATES)])
    assert [(contest.first, contest.second) for contest in compared.contests] == [("a", "b"), ("a", "c")]
    said = verdict(compared.contests[1])
    assert said.startswith("c against a: +0.0 points [")
    assert said.endswith("], p = 1.000, paired on 16 initial states")


def test_other_tasks_are_told_and_left_out(made):
    first, second = made("a", STATES), made("b", {"open": BETTER["open"], "fold": "++++"})
    compared = compare([first, second])
    assert compared.tasks == {"close": ("a",), "fold": ("b",)}
    (contest,) = compared.contests
    assert contest.tasks == ("open",)
    assert contest.difference == paired(outcomes({"open": STATES["open"]}, {"open": BETTER["open"]}))
    assert contest.note == "over the 1 task that both evaluated"


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        (
            {"simulator": {"options": {"size": 2}}},
            "simulator.options differ, so that a seed is not the same initial state",
        ),
        ({"first_seed": 100}, "no initial state in common"),
    ],
)
def test_other_initial_states_are_not_paired(made, changes, note):
    (contest,) = compare([made("a", STATES), made("b", BETTER, **changes)]).contests
    counts = [(sum("".join(each.values()).count("+") for each in [one]), 16) for one in (STATES, BETTER)]
    assert contest.difference == unpaired(*counts)
    assert contest.note == note
    assert verdict(contest).endswith(f", not paired; {note}")


def test_other_conditions_on_the_same_states_are_told(made):
    short = made("b", BETTER, simulator={"max_episode_steps": 20})
    (contest,) = compare([made("a", STATES), short]).contests
    assert contest.difference == paired(outcomes(STATES, BETTER))
    assert contest.note == "under other conditions: simulator.max_episode_steps differ"


def test_nothing_to_compare_yet(made, tmp_path):
    run = create_or_resume(resolve(Config.model_validate({"name": "new", "runs_dir": str(tmp_path / "runs")})))
    (contest,) = compare([made("a", STATES), run]).contests
    assert contest.difference is None
    assert verdict(contest) == "new against a: new: not evaluated yet"


def test_config_differences_are_those_of_values(made):
    compared = compare(
        [
            made("a", STATES),
            made("b", STATES, algorithm={"clip_ratio_low": 0.1}, simulator={"options": {"a.b": {"c": 1}}}),
            made("c", STATES, update={"optimizer": {"lr": 3e-4}}),
        ]
    )
    assert compared.differences == {
        "algorithm.clip_ratio_low": (0.2, 0.1, 0.2),
        "simulator.options.a.b.c": (None, 1, None),
        "update.optimizer.lr": (1e-4, 1e-4, 3e-4),
    }


def test_one_run_or_one_twice_is_refused(made):
    run = made("a", STATES)
    with pytest.raises(UserError) as refusal:
        compare([run])
    assert str(refusal.value) == "compare needs two runs or more: baton compare RUN RUN"
    with pytest.raises(UserError) as refusal:
        compare([run, run])
    assert str(refusal.value) == f"{run} is named twice; name each run once"


def test_the_terminal_shows_runs_side_by_side(made, capsys, monkeypatch):
    runs = [made(name, outcomes, seed=seed) for seed, (name, outcomes) in enumerate([("a", STATES), ("b", BETTER)])]
    monkeypatch.setenv("COLUMNS", "80")
    command([str(run) for run in runs])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[:-1])) <= 80
    rows = {name: cells for name, *cells in (re.split(r"\s{2,}", line.strip()) for line in lines)}
    assert rows["after RL"] == ["37.5 % [18.5, 61.4] of 16", "62.5 % [38.6, 81.5] of 16"]
    assert rows["seed"] == ["0", "1"]
    assert lines[-1].startswith("b against a: +25.0 points [")


def test_json_holds_the_numbers(made, capsys):
    runs = [made("a", STATES), made("b", BETTER)]
    command([str(run) for run in runs], as_json=True)
    record = json.loads(capsys.readouterr().out)
    compared = compare(runs)
    assert [one["label"] for one in record["runs"]] == ["a", "b"]
    assert record["runs"][1]["result"]["rl"]["success"] == compared.entries[1].result.rl.success
    assert record["contests"][0]["difference"]["p_value"] == compared.contests[0].difference.p_value
    assert record["config_differences"] == {}


def test_the_page_lays_curves_over_each_other(made, tab, tmp_path):
    runs = [made("a", STATES), made("b", BETTER, seed=7)]
    command([str(run) for run in runs], html=tmp_path / "page.html")
    tab.page.set_viewport_size({"width": 400, "height": 800})
    tab.page.goto((tmp_path / "page.html").as_uri())
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 400
    assert (tab.errors, tab.requests) == ([], [(tmp_path / "page.html").as_uri()])
    points = tab.page.locator("svg use > title").all_text_contents()
    for label, rate in (("a", "37.5 % [18.5 %, 61.4 %]"), ("b", "62.5 % [38.6 %, 81.5 %]")):
        assert f"{label}, epoch 2: {rate}" in points
    assert [row.split() for row in tab.page.locator(".differs tbody tr").all_inner_texts()] == [["seed", "0", "7"]]
    assert "b against a: +25.0 points" in tab.page.locator(".verdicts").inner_text()
