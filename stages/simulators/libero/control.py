"""A control step of robosuite 1.4: its operational space controller and its physics, without what nobody looks at.

robosuite computes forward dynamics three times a physics step and asks its observables each time. Forward dynamics have
no memory, so once is enough: the controller reads what MuJoCo's first half step has computed (positions, velocities,
Jacobians, inertia, bias forces), and the second half integrates. Numbers stay the same to the last bit.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

SUBSTEPS = 25
STATE = mujoco.mjtState.mjSTATE_INTEGRATION
# By the arm's controller: what it is after, what it has seen of the arm, and whether it has to look again.
REMEMBERED = (
    *("goal_pos", "goal_ori", "initial_joint", "ee_pos", "ee_ori_mat", "ee_pos_vel", "ee_ori_vel"),
    *("joint_pos", "joint_vel", "J_pos", "J_ori", "J_full", "mass_matrix", "new_update"),
)


class Control:
    """The robot of a robosuite environment, from one reset of the environment to the next.

    Attributes:
        before: MuJoCo's state in front of the last physics step: what poses of bodies, contacts and images come from,
            which robosuite leaves a physics step behind the joints.
    """

    def __init__(self, environment: Any) -> None:
        """Take over from the environment, which has just been reset."""
        from robosuite.utils import control_utils

        self._formulas = control_utils
        self._model, self._data = environment.sim.model._model, environment.sim.data._data
        self._robot = robot = environment.robots[0]
        self._arm, self._gripper = robot.controller, robot.gripper
        self._arm.update = self._look
        self._gripper.current_action = np.zeros(self._gripper.dof)
        self._site = environment.sim.model.site_name2id(self._arm.eef_name)
        self._motors, self._limits = robot._ref_joint_actuator_indexes, robot.torque_limits
        self._fingers = robot._ref_joint_gripper_actuator_indexes
        low, high = self._model.actuator_ctrlrange[self._fingers].T
        self._finger_middle, self._finger_reach = 0.5 * (high + low), 0.5 * (high - low)
        nv = self._model.nv
        self._moving, self._turning, self._inertia = np.zeros((3, nv)), np.zeros((3, nv)), np.zeros((nv, nv))
        self.before = np.empty(mujoco.mj_stateSize(self._model, STATE))

    def step(self, action: np.ndarray) -> None:
        """Carry out an action.

        Args:
            action: float64 [7], robosuite's own.
        """
        model, data = self._model, self._data
        for substep in range(SUBSTEPS):
            mujoco.mj_step1(model, data)
            if substep == 0:
                self._arm.set_goal(action[:-1])
            self._look()
            data.ctrl[self._motors] = np.clip(self._torques(), *self._limits)
            data.ctrl[self._fingers] = self._finger_middle + self._finger_reach * self._gripper.format_action(
                action[-1:]
            )
            if substep == SUBSTEPS - 1:
                mujoco.mj_getState(model, data, self.before, STATE)
            mujoco.mj_step2(model, data)

    def save(self) -> dict[str, np.ndarray]:
        """What robosuite remembers from one step to the next."""
        arm = {name: np.array(getattr(self._arm, name)) for name in REMEMBERED}
        return {**arm, "gripper": np.array(self._gripper.current_action)}

    def restore(self, remembered: dict[str, np.ndarray]) -> None:
        """Put back what robosuite remembered."""
        for name in REMEMBERED:
            # Copied as they lie in memory: numba's linear algebra rounds by the order of rows and columns.
            setattr(self._arm, name, np.array(remembered[name]))
        self._gripper.current_action = np.array(remembered["gripper"])

    def _look(self) -> None:
        """See where the arm is: robosuite's Controller.update.

        As there, the first look after a reset is that of the reset itself, before the robot is put anywhere else.
        """
        arm, data = self._arm, self._data
        if not arm.new_update:
            return
        mujoco.mj_jacSite(self._model, data, self._moving, self._turning, self._site)
        mujoco.mj_fullM(self._model, data, self._inertia)
        arm.ee_pos = np.array(data.site_xpos[self._site])
        arm.ee_ori_mat = np.array(data.site_xmat[self._site].reshape(3, 3))
        arm.ee_pos_vel, arm.ee_ori_vel = np.dot(self._moving, data.qvel), np.dot(self._turning, data.qvel)
        arm.joint_pos, arm.joint_vel = data.qpos[arm.qpos_index], data.qvel[arm.qvel_index]
        arm.J_pos = np.array(self._moving[:, arm.qvel_index])
        arm.J_ori = np.array(self._turning[:, arm.qvel_index])
        arm.J_full = np.vstack([arm.J_pos, arm.J_ori])
        arm.mass_matrix = self._inertia[arm.qvel_index, :][:, arm.qvel_index]
        arm.new_update = False

    def _torques(self) -> np.ndarray:
        """Torques [7] of the arm: robosuite's OperationalSpaceController.run_controller, operation by operation.

        Khatib, "A unified approach for motion and force control of robot manipulators", 1987, with position and
        orientation decoupled and a null space that holds the joints near where they began.
        """
        arm, formulas = self._arm, self._formulas
        turn = formulas.orientation_error(arm.goal_ori, arm.ee_ori_mat)
        force = (arm.goal_pos - arm.ee_pos) * arm.kp[:3] + -arm.ee_pos_vel * arm.kd[:3]
        torque = turn * arm.kp[3:] + -arm.ee_ori_vel * arm.kd[3:]
        _, mass, moment, null_space = formulas.opspace_matrices(arm.mass_matrix, arm.J_full, arm.J_pos, arm.J_ori)
        wrench = np.concatenate([np.dot(mass, force), np.dot(moment, torque)])
        torques: np.ndarray = np.dot(arm.J_full.T, wrench) + self._data.qfrc_bias[arm.qvel_index]
        arm.new_update = True
        return torques + formulas.nullspace_torques(
            arm.mass_matrix, null_space, arm.initial_joint, arm.joint_pos, arm.joint_vel
        )
