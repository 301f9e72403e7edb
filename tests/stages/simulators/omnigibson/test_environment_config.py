"""Every key of the config is one that OmniGibson reads, by tables of what its classes take."""

from __future__ import annotations

import dataclasses

import pytest

from stages.simulators.omnigibson import environment_config, launch, robot
from stages.simulators.omnigibson.dataset import ActivityFiles
from stages.simulators.omnigibson.options import Options, parse
from stages.simulators.omnigibson.tasks import Activity

# What the constructors of 3.7 take, and what of it 3.8 and 3.9 do not; unknown keys of env, scene and task, and in 3.7
# of robots, are dropped without a word.
ENV = {
    "action_frequency",
    "rendering_frequency",
    "physics_frequency",
    "device",
    "automatic_reset",
    "flatten_action_space",
    "flatten_obs_space",
    "initial_pos_z_offset",
    "external_sensors",
}
SCENE = {
    "type",
    "scene_model",
    "load_room_types",
    "load_room_instances",
    "include_robots",
    "scene_instance",
    "scene_file",
}
TASK = {
    "type",
    "activity_name",
    "activity_definition_id",
    "activity_instance_id",
    "predefined_problem",
    "online_object_sampling",
    "use_presampled_robot_pose",
    "randomize_presampled_pose",
    "sampling_whitelist",
    "sampling_blacklist",
    "highlight_task_relevant_objects",
    "termination_config",
    "reward_config",
    "include_obs",
}
ROBOT = {
    "name",
    "position",
    "orientation",
    "action_normalize",
    "self_collisions",
    "grasping_mode",
    "obs_modalities",
    "proprio_obs",
    "reset_joint_pos",
    "controller_config",
    "sensor_config",
    "scale",
    "default_reset_mode",
    "control_freq",
}
TABLES = {
    "B": {"env": ENV, "scene": SCENE, "task": TASK, "robots": ROBOT | {"type"}},
    "C": {
        "env": ENV - {"initial_pos_z_offset"},
        "scene": SCENE,
        "task": TASK - {"predefined_problem"},
        "robots": ROBOT | {"model"},
    },
}
CONTROLLERS = {
    "HolonomicBaseJointController": {
        "name", "motor_type", "vel_kp", "command_input_limits", "command_output_limits", "use_impedances",
    },
    "JointController": {
        "name", "motor_type", "pos_kp", "command_input_limits", "command_output_limits", "use_impedances",
        "use_delta_commands",
    },
    "NullJointController": {"name", "default_goal"},
    "InverseKinematicsController": {"name", "mode", "command_input_limits", "command_output_limits", "pos_kp"},
    "MultiFingerGripperController": {"name", "mode", "command_input_limits", "command_output_limits"},
}  # fmt: skip
ACTIVITY = Activity(0, "turning_on_radio", "Turn on the radio.")
START = {"position": [1.0, 2.0, 0.0], "orientation": [0.0, 0.0, 0.0, 1.0]}


def built(generation: str = "B", **options) -> dict:
    parsed = parse(options)
    limit = parsed.max_episode_steps or 2000
    files = ActivityFiles(ACTIVITY, "house_single_floor", None, parsed.activity_definition, (1,), (2,), limit, False)
    return environment_config.build(parsed, files, ["kitchen"], START, generation)


@pytest.mark.parametrize("generation", TABLES)
@pytest.mark.parametrize("options", [{}, {"action_mode": "joint_23"}, {"trunk": "joint_controller"}])
def test_every_key_is_read(generation, options):
    config = built(generation, **options)
    table = TABLES[generation]
    assert set(config) == {"env", "render", "scene", "robots", "objects", "task"}
    for block in ("env", "scene", "task"):
        assert set(config[block]) <= table[block], block
    [one] = config["robots"]
    assert set(one) <= table["robots"]
    assert set(config["task"]["termination_config"]) <= {"max_steps"}
    assert set(config["task"]["reward_config"]) <= {"r_potential"}
    assert list(one["controller_config"]) == list(robot.ORDER)
    for controller in one["controller_config"].values():
        assert set(controller) <= CONTROLLERS[controller["name"]]


@pytest.mark.parametrize(("build", "generation"), [("b", "B"), ("b_fork", "B"), ("c_vector", "C"), ("c", "C")])
def test_nothing_is_dropped(make, build, generation):
    simulator = make(build, 1, trunk="joint_controller")
    environment = simulator.worlds.environment
    [one] = [environment] if build == "c" else environment.envs
    assert one.dropped == []
    assert simulator.worlds.generation == generation


def test_what_the_demonstrations_were_made_with():
    config = built(max_episode_steps=2000)
    [one] = config["robots"]
    assert config["task"]["termination_config"] == {"max_steps": 1999}  # it is looked at before the step is counted
    assert one["action_normalize"] is False
    assert (one["grasping_mode"], one["self_collisions"]) == ("assisted", True)
    assert one["reset_joint_pos"] == [*[0.0] * 6, 1.025, -1.45, -0.47, 0.0, *[0.0] * 14, *[0.05] * 4]
    assert one["sensor_config"]["VisionSensor"] == {
        "modalities": ["rgb"],
        "sensor_kwargs": {
            "image_height": 224, "image_width": 224, "focal_length": 17.0, "horizontal_aperture": 20.995,
        },
    }  # fmt: skip
    arm = one["controller_config"]["arm_left"]
    limits = [[-0.05] * 3 + [-0.15] * 3, [0.05] * 3 + [0.15] * 3]
    assert (arm["mode"], arm["command_input_limits"]) == ("pose_delta_ori", "default")
    assert arm["command_output_limits"] == limits
    joint = built(action_mode="joint_23")["robots"][0]["controller_config"]["arm_left"]
    assert joint["use_delta_commands"] is False
    assert joint["command_input_limits"] is joint["command_output_limits"] is None


CHANGES = {
    "image_size": 64, "action_frequency": 60, "physics_frequency": 240, "rendering_frequency": 60,
    "max_episode_steps": 7, "action_mode": "joint_23", "position_limit": 0.1, "rotation_limit": 0.3,
    "trunk": "joint_controller", "proprio_keys": ["trunk_qpos"], "grasping_mode": "sticky", "activity_definition": 1,
    "viewport": True, "numpy_controllers": False, "flatcache": False, "gpu_dynamics": True, "transition_rules": False,
    "carb_threads": 2, "tbb_threads": 2,
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_an_option_changes_what_omnigibson_is_given(name):
    # Rates have to nest, so one is changed where all others still fit it.
    usual = {"rendering_frequency": 60, "action_frequency": 30} if name == "action_frequency" else {}

    def given(**options):
        parsed = parse(usual | options)
        return built(**usual | options), launch.macros(parsed), launch.thread_caps(parsed)

    assert given(**{name: CHANGES[name]}) != given()


def test_options_that_never_reach_the_config_are_tested_elsewhere():
    elsewhere = {
        # test_worlds.py
        "tasks", "reward", "reward_scale", "observe_every_step", "render_every_step", "train_instances",
        "evaluation_instances",
        # test_launch.py, test_rooms.py
        "base_mass", "renders_per_observation", "texture_budget", "numba_cache", "cache_directory", "step_timeout",
        "partial_scene", "room_types",
        # test_dataset.py
        "tasks_file", "scene_model", "instance_directory", "step_budget",
    }  # fmt: skip
    assert {field.name for field in dataclasses.fields(Options)} == elsewhere | set(CHANGES)
