"""What is known of the simulators is held against a config before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import simulator_facts, tasks
from pipeline.compose import compose
from pipeline.config import Config
from pipeline.environments import VARIABLE
from pipeline.errors import UserError
from pipeline.flow_sizes import flow_dimensions
from pipeline.simulator_facts import (
    EXPERTS,
    HELD_OUT_STATES,
    ISOLATED,
    ROBOTS,
    UNLIKE_WORLDS,
    Robot,
    require_environment,
    robot,
)
from pipeline.sizes import dimensions

OBJECT, SPATIAL, GOAL = "[libero_object]", "[libero_spatial]", "[libero_goal]"


def refused(tmp_path: Path, text: str) -> str:
    """What is said of a config, without its place."""
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        compose(path)
    return str(caught.value).removeprefix(f"{path}: ")


def config(simulator: str, **policy: object) -> Config:
    return Config.model_validate({"name": "x", "simulator": {"name": simulator}, "policy": policy})


def test_every_simulator_with_a_list_of_tasks_is_known():
    assert set(ROBOTS) == set(tasks.catalogues())
    assert set(EXPERTS) | set(HELD_OUT_STATES) | set(ISOLATED) <= set(ROBOTS)


@pytest.mark.parametrize(
    ("simulator", "message"),
    [
        ("{name: libero}",
         "policy.action_dim=14, but libero takes 7 numbers an action: set policy.action_dim=7"),
        ("{name: maniskill, tasks: [single_arm]}",
         "policy.action_dim=14, but maniskill takes 7 numbers an action: set policy.action_dim=7"),
        ("{name: maniskill, tasks: [two_robot, PickCube-v1]}",
         "simulator.tasks: the tasks are of two_robot and single_arm, whose robots differ: name tasks of one of them"),
        ("{name: household}\npolicy: {action_dim: 7}",
         "policy.action_dim=7, but household takes 14 numbers an action: set policy.action_dim=14"),
        ("{options: {wrist_cameras: 1}}\npolicy: {options: {images: 3}}",
         "policy.options.images=3, but household has 2 cameras, 1 of them at a wrist: "
         "set policy.options.images to 2 or less"),
        ("{name: omnigibson, options: {action_mode: joint_23}}\nsft: {steps: 0}",
         "policy.action_dim=14, but omnigibson takes 23 numbers an action by simulator.options.action_mode=joint_23: "
         "set policy.action_dim=23"),
        ("{name: libero}\npolicy: {action_dim: 7, options: {images: 3}}",
         "policy.options.images=3, but libero has 2 cameras, 1 of them at a wrist: set policy.options.images to 2 or "
         "less"),
        ("{name: libero, tasks: [libero_object, libero_goal]}\npolicy: {action_dim: 7}",
         "sft.steps=1000 needs demonstrations, and libero has no scripted expert for "
         "open_the_middle_drawer_of_the_cabinet, only for libero_spatial, libero_object: set "
         "demonstrate.imported to what `baton import` writes, or sft.steps=0 and policy.checkpoint"),
        ("{name: maniskill, tasks: [PickCube-v1, RollBall-v1]}\npolicy: {action_dim: 7}",
         "sft.steps=1000 needs demonstrations, and maniskill has no scripted expert for RollBall-v1, only for "
         "two_robot, PickCube-v1, StackCube-v1, PushCube-v1, PullCube-v1: set "
         "demonstrate.imported to what `baton import` writes, or sft.steps=0 and policy.checkpoint"),
        ("{name: libero, tasks: [libero_object]}\npolicy: {action_dim: 7}\nrollout: {episodes: 80}\n"
         "evaluate: {episodes: 501}",
         "evaluate.episodes=501, but libero holds 50 initial states a task out for evaluation, 500 in all: set "
         "evaluate.episodes to 500 or less"),
        ("{name: maniskill, tasks: [two_robot], options: {backend: physx_cuda}}",
         "simulator.tasks names 2 tasks, but with simulator.options.backend=physx_cuda all worlds are in one: name "
         "one, or set simulator.options.backend=physx_cpu"),
        ("{name: maniskill, tasks: [PegInsertionSide-v1], options: {backend: physx_cuda}}\nsft: {steps: 0}\n"
         "policy: {action_dim: 7, checkpoint: somewhere}",
         "simulator.tasks names PegInsertionSide-v1, but with simulator.options.backend=physx_cuda its worlds differ "
         "from each other, whatever their seeds: name another, or set simulator.options.backend=physx_cpu"),
        ("{name: maniskill, options: {backend: physx_cuda, renderer: cpu}}",
         "simulator.options.renderer=cpu, but with simulator.options.backend=physx_cuda a GPU draws: set "
         "simulator.options.renderer=gpu, or set simulator.options.backend=physx_cpu"),
        ("{name: maniskill, options: {backend: physx_cuda}}\nsft: {steps: 0}\n"
         "rollout: {num_envs: 512, pipeline_stage_num: 2}",
         "rollout.pipeline_stage_num=2 with rollout.num_workers=1: the worlds of a process of maniskill are stepped "
         "together, so it belongs to one group: set rollout.num_workers to 2 or more"),
        ("{name: maniskill}\nsft: {mirror: true}",
         "sft.mirror=true needs two arms that are each other's mirror images, which is known of household, not of "
         "maniskill: set sft.mirror=false"),
        ("{options: {wrist_cameras: 1}}\nsft: {mirror: true}",
         "sft.mirror=true makes the left wrist's camera the right one's, but there is only one: set "
         "simulator.options.wrist_cameras to 2 or 0, or sft.mirror=false"),
        ("{}\nrollout: {max_episode_steps: 100001}",
         "rollout.max_episode_steps=100001 is not possible in household: set it to an integer from 1 to 100000"),
        ("{}\ndemonstrate: {max_episode_steps: 100001}",
         "demonstrate.max_episode_steps=100001 is not possible in household: set it to an integer from 1 to 100000"),
    ],
)  # fmt: skip
def test_what_a_simulator_cannot_do_is_refused(tmp_path, simulator, message):
    rollout = "" if "rollout" in simulator else "rollout: {episodes: 9360}\n"
    checkpoint = "" if "policy" in simulator else "policy: {checkpoint: somewhere}\n"
    assert refused(tmp_path, f"simulator: {simulator}\n{rollout}{checkpoint}") == message


def test_experts_and_states_are_those_of_the_simulators():
    from stages.simulators.libero import catalogue
    from stages.simulators.libero import expert as of_libero
    from stages.simulators.maniskill import expert as of_maniskill

    assert set(EXPERTS["libero"]) == set(of_libero.SUITES)
    two = {task.task_name for task in tasks.catalogue("maniskill") or () if task.suite == "two_robot"}
    assert {*two, *EXPERTS["maniskill"]} - {"two_robot"} == of_maniskill.TASKS
    assert HELD_OUT_STATES["libero"] == catalogue.STATES


def test_the_tasks_whose_worlds_differ_on_a_gpu_are_those_of_the_simulator():
    from stages.simulators.maniskill import parallel

    assert parallel._UNLIKE_WORLDS == UNLIKE_WORLDS


def test_an_imported_set_takes_the_experts_place(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "simulator: {name: libero, tasks: [libero_goal]}\npolicy: {action_dim: 7}\nrollout: {episodes: 80}\n"
    )
    assert compose(path, [f"demonstrate.imported={tmp_path}"]).sft.steps == 1000


@pytest.mark.parametrize(("name", "cameras"), [("household", 3), ("libero", 2), ("maniskill", 3), ("lab.worlds", 3)])
def test_a_policy_that_begins_afresh_has_the_simulators_cameras(name, cameras):
    assert dimensions(config(name)).images == cameras
    assert flow_dimensions(config(name, name="pi0")).images == cameras
    assert dimensions(config(name, options={"images": 1})).images == 1
    assert dimensions(config(name, checkpoint="x", preset="7b")).images == 3, "the checkpoint's own, unknown here"


def test_a_robot_goes_by_its_mode_or_by_its_suite():
    def of(**simulator: object) -> Robot | None:
        return robot(Config.model_validate({"name": "x", "simulator": simulator}).simulator)

    assert of(name="omnigibson", options={"action_mode": "joint_23"}) == Robot(23, 2)
    assert of(name="maniskill", tasks=["PickCube-v1"]) == ROBOTS["maniskill"]["single_arm"]
    assert of(name="maniskill") == ROBOTS["maniskill"]["two_robot"]
    assert of(name="lab.worlds", tasks=["x"]) is None


@pytest.mark.parametrize(
    ("name", "options", "wrists"),
    [
        ("household", {"wrist_cameras": 1}, 1),
        ("household", {"wrist_cameras": 0}, 0),
        ("libero", {"wrist_cameras": 0}, 0),
        ("libero", {"wrist_cameras": 1}, 1),
    ],
)
def test_a_robot_has_the_cameras_that_were_chosen(name, options, wrists):
    simulator = {"name": name, "options": options}
    chosen = Config.model_validate({"name": "x", "simulator": simulator})
    assert robot(chosen.simulator).wrist_cameras == wrists
    assert dimensions(chosen).images == 1 + wrists


@pytest.mark.parametrize("name", ISOLATED)
def test_a_simulator_whose_environment_is_not_built_is_told_with_the_command_that_builds_it(
    name, tmp_path, monkeypatch
):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(UserError) as caught:
        require_environment(config(name))
    assert str(caught.value) == (
        f"simulator.python: the environment of {name} is not built, there is no {tmp_path / name}: run `baton env "
        f"create {name}`, or name an interpreter that has it"
    )
    named = config(name)
    require_environment(named.model_copy(update={"simulator": named.simulator.model_copy(update={"python": "/x"})}))
    require_environment(config("household"))
    require_environment(config("omnigibson"))


def test_libero_is_evaluated_on_every_held_out_state_of_every_task_once():
    from stages import schedule

    names = [f"task {index}" for index in range(10)]
    made = Config.model_validate(
        {"name": "x", "simulator": {"name": "libero", "tasks": names}, "rollout": {"episodes": 80}}
    )
    made = made.model_copy(update={"evaluate": made.evaluate.model_copy(update={"episodes": 500})})
    met = [(each.task, each.seed - schedule.HELD_OUT) for each in schedule.evaluations(made)]
    states = range(simulator_facts.HELD_OUT_STATES["libero"])
    assert sorted(met) == sorted((name, state) for name in names for state in states)
