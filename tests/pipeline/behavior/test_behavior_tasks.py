"""`baton behavior-tasks`: instructions in words, made of the goals of the challenge's activities."""

import json
import re
import sys

import pytest

from pipeline import cli, tasks
from pipeline.behavior import challenge
from pipeline.behavior.english import Speaker
from pipeline.behavior.nouns import noun, plural, with_article
from pipeline.compose import compose
from pipeline.errors import UserError


@pytest.fixture(scope="module")
def lines():
    return [json.loads(line) for line in challenge.generated()]


def baton(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["baton", "behavior-tasks", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr()
    return ended.value.code or 0, told.out, told.err


def test_the_list_that_baton_ships_is_what_the_command_makes(lines, tmp_path, monkeypatch, capsys):
    shipped = tasks.SIMULATORS / "omnigibson" / tasks.CATALOGUE
    assert baton(monkeypatch, capsys, "--out", str(tmp_path / "tasks.jsonl"))[:2] == (
        0,
        f"50 tasks in {tmp_path / 'tasks.jsonl'}\n",
    )
    assert (tmp_path / "tasks.jsonl").read_text() == shipped.read_text()
    assert [(line["task_index"], line["suite"]) for line in lines] == [(i, "challenge-2025") for i in range(50)]
    assert tasks.expand("omnigibson", ["challenge-2025"]) == list(challenge.ACTIVITIES)


def test_every_object_of_a_goal_is_spoken_of(lines):
    from bddl.activity import Conditions

    for line in lines:
        goal = Conditions(line["task_name"], 0, simulator_name="omnigibson").parsed_goal_conditions
        spoken = line["task"].lower()
        for synset in set(re.findall(r"'\??([a-z_]+\.n\.\d+)", str(goal))):
            name = noun(synset).lower()
            assert name in spoken or plural(name) in spoken, f"{line['task_name']} does not say {name}: {spoken}"


def test_instructions_are_english(lines):
    for line in lines:
        sentence = line["task"]
        assert re.fullmatch(r"[A-Z][^:]*: [a-z].*[a-z]\.", sentence), sentence
        assert not re.search(r"[_?*\[\]]|\.n\.| {2}|\ba [aeiou]|\bNone\b|nodes?\b\d", sentence), sentence


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("turning_on_radio", "Turning on radio: switch on the radio."),
        (
            "putting_dishes_away_after_cleaning",
            "Putting dishes away after cleaning: put all plates into one cabinet; and close all cabinets.",
        ),
        (
            "assembling_gift_baskets",
            "Assembling gift baskets: put one candle, one swiss cheese, one butter cookie and one bow into each wicker "
            "basket.",
        ),
        (
            "sorting_vegetables",
            "Sorting vegetables: put all the bok choy and all onions into one mixing bowl; put both leeks and all the "
            "broccoli into one mixing bowl; and put all the sweet corn into one mixing bowl.",
        ),
        ("bringing_in_wood", "Bringing in wood: put all the plywood on the floor in the corridor."),
        ("chopping_wood", "Chopping wood: make eight half logs."),
        ("setting_mousetraps", "Setting mousetraps: put all mousetraps on one floor; and put two mousetraps under or "
         "next to one sink."),
    ],
    ids=lambda value: value if "_" in value else "",
)  # fmt: skip
def test_some_word_for_word(lines, name, sentence):
    assert next(line["task"] for line in lines if line["task_name"] == name) == sentence


def test_words():
    assert noun("can__of__soda.n.01") == "can of soda"
    assert plural("can of soda") == "cans of soda"
    assert plural("toy box") == "toy boxes"
    assert plural("candy") == "candies"
    assert plural("toy") == "toys"
    assert noun("half__apple_pie.n.01") == "half apple pie"
    assert with_article("onion") == "an onion"
    speaker = Speaker(
        {"cup.n.01": ["cup.n.01_1", "cup.n.01_2"]}, {"cup.n.01_1": "kitchen_0", "cup.n.01_2": "bathroom_0"}
    )
    goal = [["not", ["open", "cup.n.01_2"]], ["or", ["cooked", "cup.n.01_1"], ["and", ["frozen", "cup.n.01_1"]]]]
    assert speaker.instruct("do_it", goal) == (
        "Do it: close the cup in the bathroom; and either cook the cup in the kitchen, or freeze the cup in the "
        "kitchen."
    )


PUBLIC = [
    {"task_index": 0, "task_name": "turning_on_radio", "task": "Turn on the radio receiver."},
    {"task_index": 1, "task_name": "picking_up_trash", "task": "Pick up the trash."},
]


def test_a_public_list_by_path(tmp_path, monkeypatch, capsys):
    source, out = tmp_path / "behavior_task.jsonl", tmp_path / "own.jsonl"
    source.write_text("\n".join(map(json.dumps, PUBLIC)))
    assert baton(monkeypatch, capsys, "--from", str(source), "--out", str(out))[0] == 0
    assert [task.task for task in tasks.read(out)] == [line["task"] for line in PUBLIC]
    (tmp_path / "run.yaml").write_text(
        "simulator: {name: omnigibson, tasks: [picking_up_trash], options: {tasks_file: own.jsonl}}\n"
        "policy: {action_dim: 14, checkpoint: trained}\nsft: {steps: 0}\n"
    )
    assert compose(tmp_path / "run.yaml").simulator.tasks == ["picking_up_trash"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "{path}: it lists no task"),
        ('{"task_index": 1, "task_name": "a", "task": "b"}', "{path}:1: task_index is 1, expected 0"),
        ("{", "{path}:1: a line is a JSON object with task_index, task_name and task"),
        (None, "{path} cannot be read: No such file or directory"),
    ],
    ids=["empty", "order", "damaged", "missing"],
)
def test_wrong_lists_are_refused(tmp_path, monkeypatch, capsys, text, message):
    path = tmp_path / "list.jsonl"
    if text is not None:
        path.write_text(text)
    code, _, err = baton(monkeypatch, capsys, "--from", str(path))
    assert (code, err) == (2, f"baton: {message.format(path=path)}\n")


def test_without_bddl(monkeypatch):
    monkeypatch.setitem(sys.modules, "bddl.activity", None)
    with pytest.raises(UserError) as refused:
        challenge.generated()
    assert str(refused.value) == "behavior-tasks reads goals with bddl: pip install 'baton-vla[behavior]'"
