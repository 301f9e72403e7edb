"""Puts a world into an instance of its activity: where the task's objects and the robot are.

As `load_task_instance` of OmniGibson's evaluation does, for a world that may stand beside others: the file tells poses
in the frame of the first scene.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.simulators.interface import SimulatorConfigError

SETTLING = 25  # physics steps in which everything is held still


def load(path: Path, simulator: Any, scene: Any, scope: Mapping[str, Any], robot: Any) -> None:
    """Load an instance and make it what resets go back to.

    Args:
        path: a tro_state file.
        simulator: `og.sim`.
        scene: the world's scene.
        scope: BDDL name -> the world's object.
        robot: the world's robot.

    Raises:
        SimulatorConfigError: the file names an object that the scene does not have, or no pose of this robot.
    """
    convert = importlib.import_module("omnigibson.utils.python_utils").recursively_convert_to_torch
    told = convert(json.loads(path.read_text(encoding="utf-8")))
    poses = told.pop("robot_poses", None)
    robot.reset()  # the file holds no joint angles, and what they are becomes the initial state
    for name, state in told.items():
        if scope.get(name) is None:
            raise SimulatorConfigError(
                f"omnigibson: {path}: {name} is not in the scene; with simulator.options.partial_scene the room it is "
                "in may be missing from room_types"
            )
        scope[name].load_state(_in_world(state, scene), serialized=False)
    if poses is not None:
        position, orientation = _pose_for_robot(poses, path)
        robot.set_position_orientation(position, orientation, frame="scene")
        scene.write_task_metadata(key="robot_poses", data=poses)
    if hasattr(simulator, "update_handles"):  # 3.9
        simulator.update_handles()
    robot.keep_still()
    robot.set_joint_positions(robot.get_joint_positions(), drive=False)  # else old goals would jerk it back
    for _ in range(SETTLING):
        simulator.step_physics()
        for entity in scope.values():
            _keep_still(entity)
    scene.update_initial_file()
    scene.reset()


def _in_world(state: Any, scene: Any) -> Any:
    if scene.idx == 0 or "root_link" not in state:
        return state
    link = state["root_link"]
    position, orientation = scene.convert_scene_relative_pose_to_world(link["pos"], link["ori"])
    return {**state, "root_link": {**link, "pos": position, "ori": orientation}}


def _pose_for_robot(poses: Mapping[str, Any], path: Path) -> tuple[Any, Any]:
    known = {key.lower(): value for key, value in poses.items()}  # 3.9 writes them small
    of_robot = known.get("robot", known.get("r1pro"))
    if not of_robot:
        told = ", ".join(poses) or "nothing"
        raise SimulatorConfigError(
            f"omnigibson: {path}: robot_poses is for {told}, not for R1Pro; choose other instances in "
            "simulator.options.train_instances or evaluation_instances"
        )
    return of_robot[0]["position"], of_robot[0]["orientation"]


def _keep_still(entity: Any) -> None:
    """Stop an object; a substance, or something that is yet to come into being, cannot be stopped."""
    if entity is None or getattr(entity, "is_system", False) or not getattr(entity, "exists", True):
        return
    if hasattr(entity, "keep_still"):
        entity.keep_still()
