"""A scene: its robots, one thing to reach for, and the state that a reset goes back to."""

import json
import os
from pathlib import Path

import numpy as np

from fake_omnigibson import faults
from fake_omnigibson.robot import R1Pro

KEYS = {
    "scene_model", "load_room_types", "load_room_instances", "include_robots", "scene_instance", "scene_file",
    "scene_source", "trav_map_resolution", "default_erosion_radius", "trav_map_with_objects", "num_waypoints",
    "waypoint_resolution", "seg_map_resolution", "not_load_object_categories", "load_object_categories",
}  # fmt: skip


class Thing:
    """The task's object; its height is where the hands have to go."""

    exists, is_system, initialized = True, False, True

    def __init__(self, position):
        self.position = np.array(position, float)

    def load_state(self, state, serialized=False):
        assert not serialized
        if not faults.active("same_instances"):
            self.position = np.asarray(state["root_link"]["pos"], float)

    def get_position_orientation(self):
        return self.position, np.array([0.0, 0, 0, 1])

    def keep_still(self):
        pass

    def wake(self):
        pass


class Scene:
    def __init__(self, index, config):
        self.idx, self.scene_model = index, config["scene_model"]
        file = config["scene_file"] or _template(config)
        with open(file) as stream:
            self.template = json.load(stream)
        self.metadata = {"robot_poses": self.template["robot_poses"]}
        self.thing = Thing(self.template["radio"])
        self.robots = []
        self._initial = None

    def add_robot(self, config):
        self.robots.append(R1Pro(self, config))

    def write_task_metadata(self, key, data):
        self.metadata[key] = data

    def get_task_metadata(self, key):
        return self.metadata[key]

    def convert_scene_relative_pose_to_world(self, position, orientation):
        return np.asarray(position) + [20.0 * self.idx, 0, 0], orientation

    def update_initial_file(self):
        """What is now becomes what resets go back to, the posture of the arms and their goals with it."""
        robots = [(robot.pose, robot.q.copy(), robot.target.copy()) for robot in self.robots]
        self._initial = self.thing.position.copy(), robots

    def reset(self):
        self.thing.position = self._initial[0].copy()
        for robot, (pose, q, target) in zip(self.robots, self._initial[1]):  # noqa: B905
            robot.reset()
            robot.pose, robot.q, robot.target = pose, q.copy(), target.copy()


def _template(config):
    folder = Path(os.environ["OMNIGIBSON_DATA_PATH"], "2025-challenge-task-instances", "scenes", config["scene_model"])
    return folder / "json" / f"{config['scene_instance']}.json"
