"""Activities, scenes, instances and step limits from the data folder."""

from __future__ import annotations

import json
import shutil

import pytest

from stages.simulators.interface import HELD_OUT, Episode, SimulatorConfigError
from stages.simulators.omnigibson import dataset, rooms, tasks
from stages.simulators.omnigibson.options import parse

RADIO = "turning_on_radio"
INSTANCES = "2025-challenge-task-instances"


@pytest.fixture
def copy(machine, data, tmp_path):
    """A data folder that may be spoilt."""
    shutil.copytree(data, tmp_path / "copy")
    machine.setenv("OMNIGIBSON_DATA_PATH", str(tmp_path / "copy"))
    return tmp_path / "copy" / INSTANCES


def files(**options):
    parsed = parse(options)
    [activity] = tasks.chosen([RADIO], parsed.tasks_file)
    return dataset.files_of(activity, parsed, newest=False)


def test_the_challenges_split(machine):
    found = files()
    assert (found.train, found.evaluation, found.shared) == ((1, 2, 3, 4, 5, 6), (7, 8, 9), False)
    assert found.scene_model == "house_single_floor"
    assert [found.instance_of(Episode(RADIO, seed)) for seed in (0, 5, 6)] == [1, 6, 1]
    assert [found.instance_of(Episode(RADIO, HELD_OUT + index)) for index in (0, 2, 3)] == [7, 9, 7]
    assert found.file_of(3).name == "house_single_floor_task_turning_on_radio_0_3_template-tro_state.json"


def test_chosen_instances(machine):
    found = files(train_instances=[2, 4], evaluation_instances=[4])
    assert (found.train, found.evaluation, found.shared) == ((2, 4), (4,), True)


def test_the_limit_is_twice_what_people_took(machine, copy):
    assert files().limit == 2 * 1350
    assert files(step_budget=1.5).limit == 2025
    assert files(max_episode_steps=80).limit == 80
    shutil.rmtree(copy / "metadata")
    assert files().limit == 2000


def test_without_the_challenges_lists_every_tenth_file_is_held_out(copy):
    shutil.rmtree(copy / "metadata")
    found = files()
    assert (found.train, found.evaluation, found.shared) == ((1, 2, 3, 4, 5, 6, 7, 8), (9,), False)
    for file in found.directory.iterdir():
        file.unlink()
    found = files()
    assert (found.train, found.evaluation, found.shared) == ((0,), (0,), True)


def test_an_instance_without_a_file_is_named(copy):
    directory = files(train_instances=[0]).directory  # the scene as it is stored
    for chosen, instance in (({"train_instances": [1, 12]}, 12), ({"evaluation_instances": [0, 3]}, 0)):
        with pytest.raises(SimulatorConfigError) as caught:
            files(**chosen)
        path = directory / f"house_single_floor_task_turning_on_radio_0_{instance}_template-tro_state.json"
        assert str(caught.value) == (
            f"omnigibson: turning_on_radio has no instance {instance}: {path} is not there (first of those that are: "
            "1, 2, 3, 4, 5, 6, 7, 8, 9); choose others in simulator.options.train_instances or evaluation_instances"
        )


def test_an_activity_without_a_scene_is_named(copy):
    template = copy / "scenes/house_single_floor/json/house_single_floor_task_turning_on_radio_0_0_template.json"
    other = copy / "scenes/house_double_floor_lower/json"
    other.mkdir(parents=True)
    shutil.copy(template, other / "house_double_floor_lower_task_turning_on_radio_0_0_template.json")
    looked = (
        "looked for scenes/*/json/*_task_turning_on_radio_0_0_template.json below "
        f"{copy}; set simulator.options.scene_model, or complete the data: `baton env create omnigibson` downloads the "
        "data, docs/behavior.md says how by hand"
    )
    with pytest.raises(SimulatorConfigError) as caught:
        files()
    several = "house_double_floor_lower, house_single_floor"
    assert str(caught.value) == f"omnigibson: turning_on_radio is stored for several scenes ({several}): {looked}"
    assert files(scene_model="house_single_floor").scene_model == "house_single_floor"
    template.unlink()
    shutil.rmtree(other)
    with pytest.raises(SimulatorConfigError) as caught:
        files()
    assert str(caught.value) == f"omnigibson: turning_on_radio is stored for no scene: {looked}"


def test_tasks_of_a_file(tmp_path):
    path = tmp_path / "behavior_task.jsonl"
    lines = [
        {"task_index": 3, "task_name": "dance", "task": "Dance."},
        {"task_index": 4, "task_name": "sit", "task": "Sit."},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    assert tasks.chosen(["sit"], str(path)) == (tasks.Activity(4, "sit", "Sit."),)
    with pytest.raises(SimulatorConfigError) as caught:
        tasks.chosen(["dense"], str(path))
    assert str(caught.value) == (
        f"omnigibson: no activity 'dense' in {path}; did you mean dance? `baton tasks omnigibson` lists the "
        "challenge's, simulator.options.tasks_file names a file of others"
    )
    path.write_text('{"task_name": "dance"}\n')
    with pytest.raises(SimulatorConfigError) as caught:
        tasks.chosen(["dance"], str(path))
    assert str(caught.value) == (
        f"omnigibson: {path}:1: every line is a JSON object with task_index, task_name and task"
    )


def test_the_challenges_tasks_are_in_its_order():
    listed = tasks.read(tasks.CATALOGUE)
    assert [activity.index for activity in listed] == list(range(50))
    assert (listed[0].name, listed[40].name) == (RADIO, "make_microwave_popcorn")


def test_rooms(install, capsys):
    install("b")
    house = "house_single_floor"
    assert rooms.rooms_of(RADIO, house, parse({})) == ["dining_room", "kitchen", "living_room"]
    assert rooms.rooms_of(RADIO, house, parse({"room_types": ["kitchen", "bathroom"]})) == ["bathroom", "kitchen"]
    assert rooms.rooms_of(RADIO, house, parse({"partial_scene": False})) is None
    assert rooms.start_of(RADIO) == {"position": [1.0, 2.0, 0.0], "orientation": [0.0, 0.0, 0.0, 1.0]}
    assert rooms.start_of("dance") == {}
    assert capsys.readouterr().out == ""
    assert rooms.rooms_of(RADIO, "Rs_int", parse({})) is None
    assert capsys.readouterr().out == "omnigibson: the whole house is loaded: JoyLo's tables do not know Rs_int\n"


def test_rooms_without_joylo(capsys):
    assert rooms.rooms_of(RADIO, "house_single_floor", parse({})) is None
    assert capsys.readouterr().out.startswith("omnigibson: the whole house is loaded, which takes longer")
    assert rooms.start_of(RADIO) == {}


def test_an_instance_that_needs_another_room_says_so(make, tmp_path, data):
    simulator = make("b_fork", 1)
    path = simulator.worlds.files.file_of(1)
    told = json.loads(path.read_text())
    told["sofa.n.01_1"] = told["radio.n.01_1"]
    (tmp_path / path.name).write_text(json.dumps(told))
    simulator = make("b_fork", 1, instance_directory=str(tmp_path), train_instances=[1])
    with pytest.raises(
        SimulatorConfigError,
        match=r"^omnigibson: .*: sofa\.n\.01_1 is not in the scene; with simulator\.options\.partial_scene",
    ):
        simulator.reset([0], [Episode(RADIO, 0)], [False])
