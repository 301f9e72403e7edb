"""The config that OmniGibson is built with.

Every key is one that the classes of sections env, scene, robots and task read: what they do not read they drop without
a word, so `tests/stages/simulators/omnigibson/test_environment_config.py` holds this module to tables of them.
"""

from __future__ import annotations

from typing import Any

from stages.simulators.omnigibson import proprioception, robot
from stages.simulators.omnigibson.dataset import ActivityFiles
from stages.simulators.omnigibson.options import Options


def build(
    options: Options,
    files: ActivityFiles,
    rooms: list[str] | None,
    start: dict[str, Any],
    generation: str,
) -> dict[str, Any]:
    """Put together what `Environment` or `VectorEnvironment` takes.

    Args:
        options: what the user chose.
        files: of the activity.
        rooms: types of rooms to load, None: all.
        start: position and orientation of the robot while the scene is built; may be empty.
        generation: `B` (3.7) or `C` (3.8 and 3.9).

    Returns:
        Plain dicts, lists, texts and numbers.
    """
    env = {
        "action_frequency": options.action_frequency,
        "rendering_frequency": options.rendering_frequency,
        "physics_frequency": options.physics_frequency,
        "device": None,
        "automatic_reset": False,  # broken for callers in 3.7; episodes are begun by Baton
        "flatten_action_space": False,
        "flatten_obs_space": False,
        "external_sensors": None,  # an image of its own, drawn and thrown away
    }
    return {
        "env": env,
        "render": {"viewer_width": 1280, "viewer_height": 720},
        "scene": {
            "type": "InteractiveTraversableScene",
            "scene_model": files.scene_model,
            "load_room_types": rooms,
            "load_room_instances": None,
            "include_robots": False,
        },
        "robots": [_robot(options, start, generation)],
        "objects": [],
        "task": {
            "type": "BehaviorTask",
            "activity_name": files.activity.name,
            "activity_definition_id": files.definition,
            "activity_instance_id": 0,  # the only one that is stored as a whole scene
            "online_object_sampling": False,
            "use_presampled_robot_pose": True,
            # The timeout is looked at before the step is counted, so it comes at step max_steps + 1.
            "termination_config": {"max_steps": files.limit - 1},
            "reward_config": {"r_potential": 1.0},
            "include_obs": False,  # the poses of objects, which no policy may see
        },
    }


def _robot(options: Options, start: dict[str, Any], generation: str) -> dict[str, Any]:
    kind = {"type": "R1Pro"} if generation == "B" else {"model": "r1pro"}
    size = {"image_height": options.image_size, "image_width": options.image_size}
    lens = {"focal_length": robot.FOCAL_LENGTH, "horizontal_aperture": robot.APERTURE}
    return {
        **kind,
        "name": robot.NAME,
        **start,
        "action_normalize": False,  # true would turn every limit into [-1, 1], unlike all demonstrations
        "self_collisions": True,
        "grasping_mode": options.grasping_mode,
        "obs_modalities": ["rgb", "proprio"],
        "proprio_obs": list(proprioception.sources(options.proprio_keys)),
        "reset_joint_pos": list(robot.REST),
        "controller_config": robot.controllers(
            options.action_mode, options.trunk, options.position_limit, options.rotation_limit
        ),
        "sensor_config": {"VisionSensor": {"modalities": ["rgb"], "sensor_kwargs": size | lens}},
    }
