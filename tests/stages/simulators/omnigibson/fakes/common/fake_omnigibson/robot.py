"""The R1 Pro: 28 joints, six controllers, three cameras and 256 numbers of proprioception."""

import collections
import types

import numpy as np
import torch

from fake_omnigibson import faults

ARMS = ("left", "right")
LATENCY = 3  # renders until a camera shows what is there
ARM_JOINTS = {"left": list(range(10, 24, 2)), "right": list(range(11, 24, 2))}
FINGERS = {"left": [24, 25], "right": [26, 27]}
HOME = {"left": np.array([0.45, 0.25, 0.8]), "right": np.array([0.45, -0.25, 0.8])}
REACH = 0.1 * np.random.default_rng(0).normal(size=(3, 7))  # metres a radian, linear
KEYS = {
    "HolonomicBaseJointController": {
        "motor_type", "vel_kp", "command_input_limits", "command_output_limits", "use_impedances", "control_freq",
    },
    "JointController": {
        "motor_type", "pos_kp", "vel_kp", "pos_damping_ratio", "command_input_limits", "command_output_limits",
        "use_impedances", "use_delta_commands", "use_gravity_compensation", "control_freq",
    },
    "NullJointController": {"default_goal", "command_input_limits", "command_output_limits", "control_freq"},
    "InverseKinematicsController": {
        "mode", "smoothing_filter_size", "pos_kp", "command_input_limits", "command_output_limits", "control_freq",
    },
    "MultiFingerGripperController": {"mode", "command_input_limits", "command_output_limits", "control_freq"},
}  # fmt: skip
DIMS = {"HolonomicBaseJointController": 3, "NullJointController": 0, "InverseKinematicsController": 6}
ORDER = ("base", "trunk", "arm_left", "gripper_left", "arm_right", "gripper_right")


class Camera:
    """Shows what was there a few renders ago."""

    def __init__(self, robot, index, size, modalities):
        self.robot, self.index, self.size, self.modalities = robot, index, size, modalities
        self.horizontal_aperture = 20.995
        self._pictures = collections.deque(maxlen=LATENCY)

    def render(self):
        height, width = self.size
        picture = np.empty((height, width, 4), np.uint8)
        picture[..., 0] = np.linspace(40, 200, width, dtype=np.uint8)
        picture[..., 1] = np.linspace(30, 220, height, dtype=np.uint8)[:, None]
        hands = np.concatenate([self.robot.hand(arm) for arm in ARMS])
        picture[..., 2] = 60 * (self.index + 1)
        picture[:8, :, 2] = np.resize((hands * 1000).astype(np.int64) % 256, width)
        picture[..., 3] = 255
        self._pictures.append(picture * (0 if faults.active("black_frames") else 1))

    def get_obs(self):
        shown = torch.from_numpy((self._pictures[0] if self._pictures else np.zeros((*self.size, 4), np.uint8)).copy())
        return {"rgb": shown.float() / 255 if faults.active("float_images") else shown}, {}


class R1Pro:
    def __init__(self, scene, config):
        self.scene, self.name, self.model = scene, config.get("name", "robot_0"), "r1pro"
        self.mass = types.SimpleNamespace(mass=91.0)
        self.base_footprint_link = self.mass
        self._proprio_keys = list(config["proprio_obs"])
        self.reset_joint_pos = np.array(config["reset_joint_pos"], float)
        self.controllers = self._controllers(config["controller_config"], config.get("action_normalize", True))
        self.controller_order = [group for group in ORDER if group in self.controllers]
        if faults.active("controller_order"):
            self.controller_order = ["base", "trunk", "arm_right", "gripper_right", "arm_left", "gripper_left"]
        self.action_dim = sum(self.controllers[group].command_dim for group in self.controller_order)
        self.action_dim += faults.active("action_dim")
        sensor = config["sensor_config"]["VisionSensor"]["sensor_kwargs"]
        size = (sensor["image_height"], sensor["image_width"])
        links = ["left_realsense_link", "right_realsense_link", "zed_link"]
        if faults.active("missing_camera"):
            links.pop()
        self.sensors = {
            f"{self.name}:{link}:Camera:0": Camera(self, index, size, config["obs_modalities"])
            for index, link in enumerate(links)
        }
        self.pose = np.zeros(3), np.array([0.0, 0, 0, 1])
        self.reset()

    def _controllers(self, config, normalize):
        built = {}
        for group, given in config.items():
            if group not in ORDER:
                continue
            name = given["name"]
            unknown = set(given) - {"name"} - KEYS[name]
            if unknown:
                raise TypeError(f"{name}.__init__() got an unexpected keyword argument {unknown.pop()!r}")
            if group == "base":
                assert name == "HolonomicBaseJointController", "Base controller must be a HolonomicBaseJointController!"
            width = {"trunk": 4, "arm_left": 7, "arm_right": 7}.get(group, 1)
            limits = "default" if normalize else given.get("command_input_limits", "default")
            assert not (given.get("mode") == "absolute_pose" and limits is not None)
            built[group] = types.SimpleNamespace(**{**given, "command_dim": DIMS.get(name, width), "name": name})
        return built

    def reset(self):
        self.q, self.velocity = self.reset_joint_pos.copy(), np.zeros(3)
        self.rotation = {arm: np.eye(3) for arm in ARMS}
        self.base = np.zeros(3)
        self.target = self.q.copy()
        self.last_action = None

    def hand(self, arm):
        """Position relative to the base."""
        return HOME[arm] + REACH @ self.q[ARM_JOINTS[arm]]

    def apply_action(self, action):
        """The controllers set their goals; joint drives keep them until the next action."""
        action = np.asarray(action, float)
        assert action.shape == (self.action_dim,), f"Action must be dimension {self.action_dim}, got {action.shape}"
        self.last_action, index = action.copy(), 0
        for group in self.controller_order:
            controller = self.controllers[group]
            command = action[index : index + controller.command_dim]
            index += controller.command_dim
            kind, _, arm = group.partition("_")
            if group == "base":
                self.velocity = np.clip(command, -1, 1) * [0.75, 0.75, 1.0]
            elif controller.name == "JointController":
                self.target[list(range(6, 10)) if group == "trunk" else ARM_JOINTS[arm]] = command
            elif controller.name == "InverseKinematicsController":
                low, high = np.array(controller.command_output_limits)
                delta = low + (np.clip(command, -1, 1) + 1) / 2 * (high - low)
                step = delta[:3] * ([-1, 1, 1] if faults.active("mirrored") else 1)
                self.target[ARM_JOINTS[arm]] = self.q[ARM_JOINTS[arm]] + np.linalg.pinv(REACH) @ step
                self.rotation[arm] = _axis_angle(delta[3:]) @ self.rotation[arm]
            elif kind == "gripper":
                sign = -1 if faults.active("gripper_sign") else 1
                self.target[FINGERS[arm]] = (np.clip(sign * command[0], -1, 1) + 1) / 2 * 0.05

    def advance(self, dt):
        if faults.active("drift"):
            for arm in ARMS:
                self.target[ARM_JOINTS[arm]] += np.linalg.pinv(REACH) @ [0, 0, -0.01]
        self.q = self.target.copy()
        turn, (x, y, spin) = self.base[2], self.velocity
        self.base += dt * np.array([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn), spin])

    def keep_still(self):
        self.velocity = np.zeros(3)

    def get_joint_positions(self):
        return torch.tensor(np.concatenate([[*self.base[:2], 0, 0, 0, self.base[2]], self.q[6:]]), dtype=torch.float32)

    def set_joint_positions(self, positions, indices=None, drive=False):
        self.q = np.array(positions.tolist())
        self.target = self.q.copy()

    def set_position_orientation(self, position=None, orientation=None, frame="world"):
        self.velocity = np.ones(3)  # a teleport leaves speed behind until somebody stops it
        self.pose = np.asarray(position, float), np.asarray(orientation, float)

    def get_position_orientation(self, frame="world"):
        return tuple(torch.tensor(part, dtype=torch.float32) for part in self.pose)

    def get_relative_eef_pose(self, arm):
        rotation = self.rotation[arm]
        return torch.tensor(self.hand(arm), dtype=torch.float32), torch.tensor(_quaternion(rotation))

    def get_control_dict(self):
        return {f"eef_{arm}_pos_relative": self.hand(arm) for arm in ARMS}

    def proprioception(self):
        q = np.concatenate([[*self.base[:2], 0, 0, 0, self.base[2]], self.q[6:]])
        still = np.zeros(28)
        still[[0, 1, 5]] = self.velocity
        turn = self.base[2]
        parts = {
            "joint_qpos": q, "joint_qpos_sin": np.sin(q), "joint_qpos_cos": np.cos(q), "joint_qvel": still,
            "joint_qeffort": np.zeros(28), "robot_pos": self.pose[0] + [*self.base[:2], 0],
            "robot_ori_cos": np.cos([0, 0, turn]), "robot_ori_sin": np.sin([0, 0, turn]), "robot_2d_ori": [turn],
            "robot_2d_ori_cos": [np.cos(turn)], "robot_2d_ori_sin": [np.sin(turn)],
            "robot_lin_vel": [*self.velocity[:2], 0], "robot_ang_vel": [0, 0, self.velocity[2]],
            "trunk_qpos": q[6:10], "trunk_qvel": np.zeros(4), "base_qpos": self.base,
            "base_qpos_sin": np.sin(self.base), "base_qpos_cos": np.cos(self.base), "base_qvel": self.velocity,
        }  # fmt: skip
        for arm in ARMS:
            joints, fingers = q[ARM_JOINTS[arm]], q[FINGERS[arm]]
            parts |= {
                f"arm_{arm}_qpos": joints, f"arm_{arm}_qpos_sin": np.sin(joints), f"arm_{arm}_qpos_cos": np.cos(joints),
                f"arm_{arm}_qvel": np.zeros(7), f"eef_{arm}_pos": self.hand(arm),
                f"eef_{arm}_quat": _quaternion(self.rotation[arm]), f"gripper_{arm}_qpos": fingers,
                f"gripper_{arm}_qvel": np.zeros(2),
            }  # fmt: skip
        told = np.concatenate([np.asarray(parts[key], np.float32) for key in self._proprio_keys])
        return torch.from_numpy(np.append(told, np.float32(0)) if faults.active("proprio_size") else told)

    def get_obs(self):
        pictures = {name: camera.get_obs()[0] for name, camera in self.sensors.items()}
        return {**pictures, "proprio": self.proprioception()}, {name: {} for name in (*pictures, "proprio")}


def _axis_angle(vector):
    angle = np.linalg.norm(vector)
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _quaternion(rotation):
    """xyzw."""
    w = np.sqrt(max(0.0, 1 + np.trace(rotation))) / 2
    x, y, z = rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]
    return np.array([x, y, z, 4 * w * w]) / (4 * w) if w > 1e-6 else np.array([1.0, 0, 0, 0])
