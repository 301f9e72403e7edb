"""Suites stand for their tasks, in configs and for people; what names neither is told in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import cli, tasks
from pipeline.compose import compose
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.rundir import create_or_resume, load
from pipeline.tasks import by_suite, catalogue, expand, read
from pipeline.validation import dump, parse

SUITES = {"fruit": ["apple_in_bowl", "pear_in_bowl"], "doors": ["open_left", "open_right", "close_both"]}
CONFIGS = Path(__file__).parents[2] / "configs"


def line(index: int, name: str, suite: str, text: str = "do it") -> str:
    return json.dumps({"task_index": index, "task_name": name, "task": text, "suite": suite})


@pytest.fixture
def kitchen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The list of a simulator called kitchen, among simulators of which others have none."""
    folder = tmp_path / "simulators" / "kitchen"
    folder.mkdir(parents=True)
    (folder.parent / "bare").mkdir()
    rows = [line(i, name, suite) for suite, names in SUITES.items() for i, name in enumerate(names)]
    (folder / "tasks.jsonl").write_text("\n".join(rows) + "\n")
    monkeypatch.setattr(tasks, "SIMULATORS", folder.parent)
    return folder / "tasks.jsonl"


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[[str], Path]:
    def write(names: str, simulator: str = "kitchen") -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(
            f"simulator:\n  name: {simulator}\n  tasks: {names}\nrollout: {{episodes: 60}}\nruns_dir: {tmp_path}/runs\n"
        )
        return path

    return write


def test_a_suite_stands_for_its_tasks_in_order(kitchen, recipe):
    assert compose(recipe("[doors]")).simulator.tasks == SUITES["doors"]
    mixed = compose(recipe("[doors, pear_in_bowl]"))
    assert mixed.simulator.tasks == [*SUITES["doors"], "pear_in_bowl"]
    assert compose(recipe("[fruit]"), ["simulator.tasks=[doors, fruit]"]).simulator.tasks == [
        *SUITES["doors"],
        *SUITES["fruit"],
    ]


def test_a_resolved_config_names_tasks_and_composes_to_itself(kitchen, recipe, tmp_path):
    config = compose(recipe("[fruit]"))
    text = dump(config)
    assert "apple_in_bowl" in text
    (tmp_path / "again.yaml").write_text(text)
    assert compose(tmp_path / "again.yaml") == config
    assert parse(text) == config


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([*SUITES, *SUITES["fruit"], *SUITES["doors"]])))
def test_expanding_again_changes_nothing(names):
    with pytest.MonkeyPatch.context() as patch:
        listed = tuple(
            tasks.Task(task_index=i, task_name=name, task="do it", suite=suite)
            for suite, members in SUITES.items()
            for i, name in enumerate(members)
        )
        patch.setattr(tasks, "catalogue", lambda simulator: listed)
        once = expand("kitchen", names)
    assert set(once) <= {task.task_name for task in listed}
    assert len(once) == sum(len(SUITES.get(name, [name])) for name in names)


def test_a_run_goes_on_with_suite_or_tasks_and_however_the_list_has_changed(kitchen, recipe):
    run = create_or_resume(compose(recipe("[fruit]")))
    stored = (run / "config.yaml").read_text()
    assert create_or_resume(compose(recipe("[apple_in_bowl, pear_in_bowl]"))) == run
    kitchen.write_text(line(0, "peel_orange", "fruit") + "\n")
    assert load(run).simulator.tasks == SUITES["fruit"]
    assert (run / "config.yaml").read_text() == stored
    with pytest.raises(UserError, match=r'simulator.tasks: the run has \["apple_in_bowl"'):
        create_or_resume(compose(recipe("[fruit]")))


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("[frut]", ["recipe.yaml:3: simulator.tasks: kitchen has no task or suite 'frut'; did you mean fruit?"]),
        ("[fruit, open_lift]", ["'open_lift'; did you mean open_left?"]),
        ("[42nd]", ["'42nd'; Suites: fruit (2 tasks), doors (3 tasks); `baton tasks kitchen` lists all"]),
        ("[fruit, pear_in_bowl]", ["simulator.tasks names a task twice: pear_in_bowl"]),
        ("[doors, doors]", ["names a task twice: open_left, open_right, close_both"]),
        ("fruit", ["recipe.yaml:3: simulator.tasks = 'fruit': must be a valid list"]),
        ("[[fruit]]", ["recipe.yaml:3: simulator.tasks = [['fruit']]: must be a valid string"]),
        ("[]", ["recipe.yaml:3: simulator.tasks = []: must have at least 1 item"]),
    ],
)
def test_what_is_no_task_is_told_in_one_line(kitchen, recipe, names, says):
    with pytest.raises(UserError) as caught:
        compose(recipe(names))
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for part in says:
        assert part in message


def test_several_unknown_tasks_get_a_line_each_at_their_override(kitchen, recipe):
    with pytest.raises(UserError) as caught:
        compose(recipe("[fruit]"), ["simulator.tasks=[frut, dors]"])
    lines = str(caught.value).splitlines()
    assert [each.split("?")[0].rpartition(" ")[2] for each in lines] == ["fruit", "doors"]
    assert all(each.startswith("override simulator.tasks=[frut, dors]: ") for each in lines)


@pytest.mark.parametrize("simulator", ["bare", "nowhere", "lab.kitchen", "'../simulators/kitchen'"])
def test_simulators_without_a_list_take_names_as_they_are(kitchen, recipe, simulator):
    assert compose(recipe("[fruit, anything]", simulator)).simulator.tasks == ["fruit", "anything"]


def test_episodes_that_do_not_split_over_a_suite_name_the_next_that_do(kitchen, recipe):
    path = recipe("[doors]")
    with pytest.raises(UserError, match=r"rollout.episodes=64 is not a multiple of 6, which is tasks \(3\)") as caught:
        compose(path, ["rollout.episodes=64", "rollout.shards=2"])
    assert str(caught.value).endswith("set it to 60 or 66")
    with pytest.raises(UserError, match="set it to 6$"):
        compose(path, ["rollout.episodes=4", "rollout.shards=2"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "tasks.jsonl: it lists no task"),
        ("{}\n", "tasks.jsonl:1: task_index Field required"),
        (line(0, "a", "s") + "\nnonsense\n", "tasks.jsonl:2: Invalid JSON"),
        (line(0, "a", "s") + "\n\n", "tasks.jsonl:2: Invalid JSON"),
        (line(1, "a", "s"), "tasks.jsonl:1: task_index is 1, but 0 tasks of s come before it"),
        (line(0, "a", "s") + "\n" + line(1, "a", "s"), "tasks.jsonl:2: a is listed before"),
        (line(0, "a", "s") + "\n" + line(0, "s", "t"), "tasks.jsonl: s is both a suite and a task"),
        (line(0, "a", ""), "tasks.jsonl:1: suite "),
        (line(0, "a", "s").replace("}", ', "colour": 3}'), "tasks.jsonl:1: colour "),
        (b"\xff\xfe", "tasks.jsonl: 'utf-8' codec"),
    ],
)
def test_a_broken_list_is_told_with_its_line(kitchen, recipe, text, says):
    kitchen.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as caught:
        compose(recipe("[fruit]"))
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_household_lists_four_suites_and_practice():
    listed = catalogue("household")
    assert listed is not None
    sizes = {suite: len(members) for suite, members in by_suite(listed).items()}
    assert set(sizes) == {"practice", "spatial", "object", "goal", "long"}
    assert all(size >= 10 for suite, size in sizes.items() if suite != "practice")
    assert catalogue("household") == read(tasks.SIMULATORS / "household" / "tasks.jsonl")


BENCHMARK = ["spatial", "object", "goal", "long"]


@pytest.mark.parametrize("suite", BENCHMARK)
def test_the_household_recipe_takes_each_suite(suite):
    config = compose(CONFIGS / "household.yaml", [f"simulator.tasks=[{suite}]"])
    assert config.simulator.tasks == [task.task_name for task in by_suite(catalogue("household"))[suite]]
    assert (config.simulator.image_size, config.simulator.max_episode_steps) == (224, None)


def test_the_household_recipe_takes_all_suites_at_once():
    listed = by_suite(catalogue("household"))
    count = sum(len(listed[suite]) for suite in BENCHMARK)
    chosen = [f"simulator.tasks=[{', '.join(BENCHMARK)}]", f"rollout.episodes={2 * count}"]
    assert len(compose(CONFIGS / "household.yaml", chosen).simulator.tasks) == count


def test_the_defaults_are_tasks_of_the_household():
    simulator = Config(name="a").simulator
    assert expand(simulator.name, simulator.tasks) == simulator.tasks


def test_the_command_lists_suites_tasks_and_instructions(kitchen, monkeypatch, capsys):
    def baton(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["baton", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return ended.value.code or 0, printed.out, printed.err

    code, out, _ = baton("tasks")
    assert code == 0
    for name in (*SUITES, *SUITES["fruit"], *SUITES["doors"], "do it", "kitchen"):
        assert name in out
    code, out, _ = baton("tasks", "kitchen", "--json")
    records = json.loads(out)["tasks"]
    assert [each["task_name"] for each in records] == [*SUITES["fruit"], *SUITES["doors"]]
    assert records[0] == {
        "simulator": "kitchen",
        "task_index": 0,
        "task_name": "apple_in_bowl",
        "task": "do it",
        "suite": "fruit",
    }
    code, _, err = baton("tasks", "garage")
    assert (code, err.splitlines()) == (2, ["baton: 'garage' lists no tasks; simulators that do: kitchen"])
