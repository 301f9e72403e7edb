"""From the policy's 14 or 23 numbers to those that the robot takes, and what it takes to hold still."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stages.simulators.interface import SimulatorConfigError
from stages.simulators.omnigibson import robot
from stages.simulators.omnigibson.robot import ARM_JOINTS, ARMS, EE_DELTA, FINGER_JOINTS, FINGER_RANGE, TRUNK_JOINTS

# Where the policy's numbers stand: what is not among them is held.
_POLICY = {
    EE_DELTA: ("arm_left", "gripper_left", "arm_right", "gripper_right"),
    robot.JOINT: robot.ORDER,
}


class ActionMapping:
    """Lays out action vectors for a robot whose controllers are as expected."""

    def __init__(self, action_mode: str, trunk: str) -> None:
        """Work out where everything stands.

        Args:
            action_mode: `ee_delta_14` or `joint_23`.
            trunk: what holds the trunk in ee_delta_14.
        """
        self._mode = action_mode
        self._dims = robot.command_dims(action_mode, trunk)
        self._robot = _places(robot.ORDER, self._dims)
        self._policy = _places(_POLICY[action_mode], self._dims)
        self.policy_dim = robot.ACTION_DIM[action_mode]
        self.robot_dim = sum(self._dims.values())

    def check(self, order: Sequence[str], dims: Mapping[str, int], action_dim: int) -> None:
        """Hold the robot to what is expected of it.

        Args:
            order: its controllers.
            dims: how many numbers each takes.
            action_dim: how many numbers it takes.

        Raises:
            SimulatorConfigError: it differs; a policy would drive the wrong joints.
        """
        found = ", ".join(f"{group} {dims.get(group, '?')}" for group in order)
        wanted = ", ".join(f"{group} {self._dims[group]}" for group in robot.ORDER)
        if (found, action_dim) != (wanted, self.robot_dim):
            remedy = "set simulator.options.trunk=joint_controller" if self._dims["trunk"] == 0 else "use a 3.7 build"
            raise SimulatorConfigError(
                f"omnigibson: the robot takes {action_dim} numbers ({found}), expected {self.robot_dim} ({wanted}) "
                f"for action_mode {self._mode}: {remedy}, or run `baton doctor --simulator omnigibson CONFIG`"
            )

    def command(self, action: np.ndarray) -> np.ndarray:
        """What the robot takes for a policy's action; base and trunk are held where the policy has no number for them.

        Args:
            action: [A].

        Returns:
            float32 [robot_dim].
        """
        command = np.zeros(self.robot_dim, np.float32)
        command[self._robot["trunk"]] = self._trunk_at_rest()
        for group, place in self._policy.items():
            command[self._robot[group]] = action[place]
        return command

    def hold(self, joints: np.ndarray, grippers: np.ndarray) -> np.ndarray:
        """What the robot takes to stay as it is. In joint_23 zeros would drive trunk and arms to 0 rad.

        Args:
            joints: [28], where the joints are.
            grippers: [2], the commands that hold what the hands hold.

        Returns:
            float32 [robot_dim].
        """
        command = np.zeros(self.robot_dim, np.float32)
        command[self._robot["trunk"]] = self._trunk_at_rest() if self._mode == EE_DELTA else joints[TRUNK_JOINTS]
        for arm, gripper in zip(ARMS, grippers, strict=True):
            if self._mode != EE_DELTA:
                command[self._robot[f"arm_{arm}"]] = joints[ARM_JOINTS[arm]]
            command[self._robot[f"gripper_{arm}"]] = gripper
        return command

    def _trunk_at_rest(self) -> np.ndarray:
        """Angles of the trunk where resets put it; none where a controller without numbers holds it."""
        return np.asarray(robot.REST[TRUNK_JOINTS])[: self._dims["trunk"]]

    def grippers(self, action: np.ndarray) -> np.ndarray:
        """The gripper commands [2] of a policy's action [A]."""
        return np.array([action[self._policy[f"gripper_{arm}"]][0] for arm in ARMS])


def gripper_commands(joints: np.ndarray) -> np.ndarray:
    """The commands [2] that the fingers' positions amount to: 1 open, -1 closed.

    Args:
        joints: [28].
    """
    opening = np.array([joints[FINGER_JOINTS[arm]].mean() for arm in ARMS])
    return np.clip(opening / FINGER_RANGE * 2 - 1, -1, 1)


def _places(groups: Sequence[str], dims: Mapping[str, int]) -> dict[str, slice]:
    ends = np.cumsum([dims[group] for group in groups]).tolist()
    return {group: slice(end - dims[group], end) for group, end in zip(groups, ends, strict=True)}
