"""The delta-pose controller as a Warp kernel: `controller.move`, a thread for each arm of each world."""

import numpy as np
import warp as wp

from stages.simulators.household import arm, controller, robot
from stages.simulators.household.controller import Targets
from stages.simulators.household.warp import kinematics
from stages.simulators.household.warp.kinematics import Error, Jacobian, Joints

# Unrolled loops take long to compile and run no faster.
wp.set_module_options({"enable_backward": False, "max_unroll": 1})

# What a row of targets holds of an arm: position 3, orientation 9 row by row, joints 7, finger 1.
WIDTH = 20
_JOINT, _FINGER = 12, 19
_FINGERS = 2  # actuators of a hand, after those of its arm

_ARM = wp.constant(arm.JOINTS)
_CONTROLS = wp.constant(arm.JOINTS + _FINGERS)
_AT_JOINT, _AT_FINGER = wp.constant(_JOINT), wp.constant(_FINGER)
_ZERO, _ONE = wp.constant(wp.float64(0.0)), wp.constant(wp.float64(1.0))
_TINY = wp.constant(wp.float64(1e-9))
_DAMPING = wp.constant(wp.float64(controller.DAMPING))
_POSTURE_GAIN = wp.constant(wp.float64(controller.POSTURE_GAIN))
_ITERATIONS = wp.constant(controller.ITERATIONS)
_LONGEST_STEP = wp.constant(wp.float64(controller.LONGEST_STEP))
_OPEN, _CLOSED = (wp.constant(wp.float64(value)) for value in (controller.FINGER_OPEN, controller.FINGER_CLOSED))
_MAX_TURNED = wp.constant(wp.float64(controller.MAX_TURNED))
_STUCK = wp.constant(Error(*controller.STUCK))
_DOWN = wp.constant(wp.mat33d(*controller.HAND_DOWN.ravel()))


@wp.struct
class Arms:
    """What the two arms are, and what the controller may do with them; an entry an arm unless said otherwise.

    Attributes:
        links: [7], poses of the links, the same for both arms.
        grip: of the grip point on the last link.
        base: where the arm stands, in metres.
        posture: joint angles that it leans towards.
        low: least joint angles.
        high: greatest joint angles.
        nearest: the workspace's low corner, in metres.
        farthest: its high corner.
        move: metres at action 1.
        turn: radians at action 1.
    """

    links: wp.array[wp.mat44d]
    grip: wp.mat44d
    base: wp.array[wp.vec3d]
    posture: wp.array[Joints]
    low: wp.array[Joints]
    high: wp.array[Joints]
    nearest: wp.array[wp.vec3d]
    farthest: wp.array[wp.vec3d]
    move: wp.float64
    turn: wp.float64


def arms(period: float) -> Arms:
    """Write down the two arms for control steps of `period` seconds, on the current device."""
    made = Arms()
    made.links = wp.array(arm.LINKS, dtype=wp.mat44d)
    made.grip = wp.mat44d(*arm.GRIP.ravel())
    made.base = wp.array(arm.BASES, dtype=wp.vec3d)
    made.posture = wp.array(robot.HOME_JOINTS, dtype=Joints)
    made.low = wp.array(np.maximum(arm.JOINT_LOW, robot.HOME_JOINTS - controller.JOINT_ROOM), dtype=Joints)
    made.high = wp.array(np.minimum(arm.JOINT_HIGH, robot.HOME_JOINTS + controller.JOINT_ROOM), dtype=Joints)
    made.nearest = wp.array(controller.WORKSPACE_LOW, dtype=wp.vec3d)
    made.farthest = wp.array(controller.WORKSPACE_HIGH, dtype=wp.vec3d)
    made.move = controller.MAX_SPEED * period
    made.turn = controller.MAX_TURN * period
    return made


def packed(targets: Targets) -> np.ndarray:
    """Targets as rows: float64 [N, 2, WIDTH]."""
    orientation = targets.orientation.reshape(*targets.orientation.shape[:2], 9)
    return np.concatenate([targets.position, orientation, targets.joints, targets.finger[..., None]], axis=-1)


def unpacked(rows: np.ndarray) -> Targets:
    """Targets of rows [N, 2, WIDTH]; what follows from the joint angles is computed."""
    joints = rows[..., _JOINT:_FINGER]
    orientation = rows[..., 3:_JOINT].reshape(*rows.shape[:2], 3, 3)
    return Targets(rows[..., :3], orientation, joints, rows[..., _FINGER], *arm.forward(joints))


@wp.func
def _error(position: wp.vec3d, orientation: wp.mat33d, now: wp.vec3d, turned: wp.mat33d) -> Error:
    """From a pose to the wanted one: metres, then radians."""
    away = position - now
    angle = kinematics.axis_of(orientation * wp.transpose(turned))
    return Error(away[0], away[1], away[2], angle[0], angle[1], angle[2])


@wp.func
def _damped(jacobian: Jacobian, error: Error, lean: Joints) -> Joints:
    """See `controller._damped`."""
    square = jacobian * wp.transpose(jacobian)
    for i in range(6):
        square[i, i] += _DAMPING
    return wp.transpose(jacobian) * kinematics.solve(square, error - jacobian * lean) + lean


@wp.func
def _step(joints: Joints, jacobian: Jacobian, error: Error, posture: Joints, low: Joints, high: Joints) -> Joints:
    """See `controller._solve`."""
    lean = _POSTURE_GAIN * (posture - joints)
    step = _damped(jacobian, error, lean)
    blocked = wp.int32(0)
    for i in range(_ARM):
        if joints[i] + step[i] < low[i] or joints[i] + step[i] > high[i]:
            blocked += 1
            lean[i] = _ZERO
            for row in range(6):
                jacobian[row, i] = _ZERO
    if blocked > 0:
        step = _damped(jacobian, error, lean)
    longest = wp.max(wp.max(step), -wp.min(step))
    step = step * wp.min(_ONE, _LONGEST_STEP / wp.max(longest, _TINY))
    for i in range(_ARM):
        step[i] = wp.clamp(joints[i] + step[i], low[i], high[i])
    return step


@wp.kernel
def move(
    arms: Arms,
    actions: wp.array3d[wp.float32],
    step: wp.array[wp.int32],
    ended: wp.array[wp.int32],
    targets: wp.array3d[wp.float64],
    ctrl: wp.array2d[wp.float32],
) -> None:
    """Carry out a step's actions [N, K, 14] in the worlds that have not ended: new targets and servo commands."""
    row, side = wp.tid()
    if ended[row] != 0:
        return
    position = wp.vec3d()
    turn = wp.vec3d()
    orientation = wp.mat33d()
    for i in range(3):
        push = wp.clamp(wp.float64(actions[row, step[0], side * 7 + i]), -_ONE, _ONE) * arms.move
        position[i] = wp.clamp(targets[row, side, i] + push, arms.nearest[side][i], arms.farthest[side][i])
        turn[i] = wp.clamp(wp.float64(actions[row, step[0], side * 7 + 3 + i]), -_ONE, _ONE) * arms.turn
        for j in range(3):
            orientation[i, j] = targets[row, side, 3 + 3 * i + j]
    vector = kinematics.rotation_vector(kinematics.rotation_of(turn) * orientation * wp.transpose(_DOWN))
    shorter = wp.min(_ONE, _MAX_TURNED / wp.max(wp.length(vector), _TINY))
    orientation = kinematics.rotation_of(shorter * vector) * _DOWN
    grip = actions[row, step[0], side * 7 + 6]
    finger = targets[row, side, _AT_FINGER]
    if grip > 0.0:
        finger = _OPEN
    elif grip < 0.0:
        finger = _CLOSED
    joints = Joints()
    for i in range(_ARM):
        joints[i] = targets[row, side, _AT_JOINT + i]
    now, turned, jacobian = kinematics.forward(joints, arms.links, arms.grip, arms.base[side])
    for _ in range(_ITERATIONS):
        error = _error(position, orientation, now, turned)
        joints = _step(joints, jacobian, error, arms.posture[side], arms.low[side], arms.high[side])
        now, turned, jacobian = kinematics.forward(joints, arms.links, arms.grip, arms.base[side])
    missed = _error(position, orientation, now, turned)
    astray = wp.int32(0)
    for i in range(6):
        if wp.abs(missed[i]) > _STUCK[i]:
            astray += 1
    if astray > 0:
        position = now
        orientation = turned
    for i in range(3):
        targets[row, side, i] = position[i]
        for j in range(3):
            targets[row, side, 3 + 3 * i + j] = orientation[i, j]
    for i in range(_ARM):
        targets[row, side, _AT_JOINT + i] = joints[i]
        ctrl[row, side * _CONTROLS + i] = wp.float32(joints[i])
    targets[row, side, _AT_FINGER] = finger
    for i in range(_CONTROLS - _ARM):
        ctrl[row, side * _CONTROLS + _ARM + i] = wp.float32(finger)
