"""The delta-pose controller: action numbers move target poses, damped least squares turns those into joint targets.

All functions work on arrays with a leading world axis N and an arm axis of two (left, right).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from stages.simulators.household import arm

ACTION_DIM = 14
MAX_SPEED = 0.8  # metres a second at action 1: 4 cm a step at 20 Hz
MAX_TURN = 5.0  # radians a second at action 1: 0.25 rad a step at 20 Hz
MAX_TURNED = 0.5  # radians from pointing straight down, fingers sideways: further, the wrist meets its joint limits

# Where the grip points may be sent, [2, 3] each: either hand reaches a little over the middle. The far corners are
# beyond `arm.reaches`: there targets stop where the arms do.
WORKSPACE_LOW = np.array([[-0.20, -0.16, 0.012], [-0.20, -0.34, 0.012]])
WORKSPACE_HIGH = np.array([[0.14, 0.34, 0.30], [0.14, 0.16, 0.30]])

HAND_DOWN = np.diag([1.0, -1.0, -1.0])
FINGER_OPEN = 0.05
FINGER_CLOSED = -0.01  # beyond touching, so that the actuator keeps squeezing what it holds

DAMPING = 0.03**2
POSTURE_GAIN = 0.1
ITERATIONS = 2
# Joints stay this close to their posture: within it an arm cannot fold over into another branch of its solutions.
JOINT_ROOM = np.array([1.2, 1.5, 1.0, 2.0, 1.2, 1.4, 1.4])
# Metres and radians off the target pose, along any axis, at which it counts as out of reach.
STUCK = np.array([0.02, 0.02, 0.02, 0.12, 0.12, 0.12])
LONGEST_STEP = 0.25  # radians a joint an iteration: near a singularity the linear model holds no further


@dataclasses.dataclass
class Targets:
    """Where the controller wants the arms to be.

    Attributes:
        position: [N, 2, 3] grip points, in metres.
        orientation: [N, 2, 3, 3] rotation matrices.
        joints: [N, 2, 7] joint angles, the command to the position actuators.
        finger: [N, 2] finger positions, in metres from touching.
        reached: [N, 2, 3] grip points at those joint angles, in metres.
        turned: [N, 2, 3, 3] rotation matrices at those joint angles.
        jacobian: [N, 2, 6, 7] at those joint angles.
    """

    position: np.ndarray
    orientation: np.ndarray
    joints: np.ndarray
    finger: np.ndarray
    reached: np.ndarray
    turned: np.ndarray
    jacobian: np.ndarray

    def take(self, rows: np.ndarray) -> Targets:
        """A copy of some worlds' targets."""
        return Targets(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))

    def put(self, rows: np.ndarray, values: Targets) -> None:
        """Overwrite some worlds' targets."""
        for field in dataclasses.fields(self):
            getattr(self, field.name)[rows] = getattr(values, field.name)


def home(count: int, joints: np.ndarray) -> Targets:
    """Targets that hold arms where they are, grippers open.

    Args:
        count: N.
        joints: [2, 7] joint angles.
    """
    all_joints = np.tile(joints, (count, 1, 1))
    pose = arm.forward(all_joints)
    position, orientation, _ = pose
    return Targets(position.copy(), orientation.copy(), all_joints, np.full((count, 2), FINGER_OPEN), *pose)


def in_workspace(position: np.ndarray) -> np.ndarray:
    """Which hands can be brought over points: bool [N, 2] for [N, 3] in metres; heights do not matter."""
    place = np.repeat(position[:, None], 2, axis=1)
    place[..., 2] = np.clip(place[..., 2], WORKSPACE_LOW[:, 2], WORKSPACE_HIGH[:, 2])
    within = (place >= WORKSPACE_LOW) & (place <= WORKSPACE_HIGH)
    return np.all(within, axis=-1) & arm.reaches(place)


def move(targets: Targets, actions: np.ndarray, period: float, posture: np.ndarray) -> Targets:
    """Carry out one control step's actions.

    Args:
        targets: N worlds.
        actions: [N, 14]; per arm three numbers of position, three of rotation vector (world axes), and the gripper's,
            which opens it above zero and closes it below.
        period: seconds a control step.
        posture: [2, 7] joint angles that the redundant degree of freedom leans towards.

    Returns:
        The new targets.
    """
    parts = np.clip(actions.astype(np.float64), -1, 1).reshape(-1, 2, 7)
    position = targets.position + parts[..., :3] * (MAX_SPEED * period)
    position = np.minimum(np.maximum(position, WORKSPACE_LOW), WORKSPACE_HIGH)
    turned = rotation_of(parts[..., 3:6] * (MAX_TURN * period)) @ targets.orientation
    orientation = _within_turn(turned)
    command = parts[..., 6]
    finger = np.where(command > 0, FINGER_OPEN, np.where(command < 0, FINGER_CLOSED, targets.finger))
    joints, pose = targets.joints, (targets.reached, targets.turned, targets.jacobian)
    for _ in range(ITERATIONS):
        joints = _solve(joints, pose, position, orientation, posture)
        pose = arm.forward(joints)
    # A pose out of reach becomes the one reached, so that targets never run away from the arms.
    now, turned, _ = pose
    missed = np.concatenate([position - now, _axis(orientation @ np.swapaxes(turned, -1, -2))], axis=-1)
    astray = (np.abs(missed) > STUCK).any(axis=-1)
    position = np.where(astray[..., None], now, position)
    orientation = np.where(astray[..., None, None], turned, orientation)
    return Targets(position, orientation, joints, finger, *pose)


def _solve(
    joints: np.ndarray,
    pose: tuple[np.ndarray, np.ndarray, np.ndarray],
    position: np.ndarray,
    orientation: np.ndarray,
    posture: np.ndarray,
) -> np.ndarray:
    """One damped least squares step towards a pose: dq = J+ e + (1 - J+ J) k (posture - q), J+ = J' (J J' + d^2)^-1.

    Args:
        joints: [N, 2, 7].
        pose: what `arm.forward` says of them.
        position: [N, 2, 3].
        orientation: [N, 2, 3, 3].
        posture: [2, 7].

    Returns:
        [N, 2, 7], within the room around the posture.
    """
    now, turned, jacobian = pose
    error = np.concatenate([position - now, _axis(orientation @ np.swapaxes(turned, -1, -2))], axis=-1)
    lean = POSTURE_GAIN * (posture - joints)
    low = np.maximum(arm.JOINT_LOW, posture - JOINT_ROOM)
    high = np.minimum(arm.JOINT_HIGH, posture + JOINT_ROOM)
    step = _damped(jacobian, error, lean)
    blocked = (joints + step < low) | (joints + step > high)
    if blocked.any():
        # Joints at their limits stay there; the others make up for them where they can.
        step = _damped(np.where(blocked[..., None, :], 0.0, jacobian), error, np.where(blocked, 0.0, lean))
    step *= np.minimum(1.0, LONGEST_STEP / np.maximum(np.abs(step).max(axis=-1, keepdims=True), 1e-9))
    solved: np.ndarray = np.minimum(np.maximum(joints + step, low), high)
    return solved


def _damped(jacobian: np.ndarray, error: np.ndarray, lean: np.ndarray) -> np.ndarray:
    """Joint steps [N, 2, 7] for pose errors [N, 2, 6] that otherwise follow `lean` [N, 2, 7]."""
    transposed = np.swapaxes(jacobian, -1, -2)
    wanted = error - np.squeeze(jacobian @ lean[..., None], -1)
    solved = np.linalg.solve(jacobian @ transposed + DAMPING * np.eye(6), wanted[..., None])
    step: np.ndarray = np.squeeze(transposed @ solved, -1) + lean
    return step


def rotation_of(vector: np.ndarray) -> np.ndarray:
    """Rotation matrices [..., 3, 3] of rotation vectors [..., 3] in radians (Rodrigues' formula)."""
    angle = np.sqrt(np.sum(vector * vector, axis=-1))[..., None, None]
    cross = np.zeros((*vector.shape, 3))
    x, y, z = vector[..., 0], vector[..., 1], vector[..., 2]
    cross[..., 0, 1], cross[..., 0, 2], cross[..., 1, 2] = -z, y, -x
    cross[..., 1, 0], cross[..., 2, 0], cross[..., 2, 1] = z, -y, x
    safe = np.maximum(angle, 1e-9)
    sinc = np.sin(safe) / safe
    half = 2 * (np.sin(safe / 2) / safe) ** 2  # (1 - cos) / angle^2 without cancellation
    result: np.ndarray = np.eye(3) + sinc * cross + half * (cross @ cross)
    return result


def rotation_vector(matrix: np.ndarray) -> np.ndarray:
    """Rotation vectors [..., 3] in radians of rotation matrices [..., 3, 3], for angles well below pi."""
    axis = _axis(matrix)
    sine = np.sqrt(np.sum(axis * axis, axis=-1))
    cosine = 0.5 * (matrix[..., 0, 0] + matrix[..., 1, 1] + matrix[..., 2, 2] - 1)
    angle = np.arctan2(sine, cosine)
    # angle / sine tends to one for small angles.
    scale = np.where(sine > 1e-9, angle / np.maximum(sine, 1e-9), 1.0)
    result: np.ndarray = scale[..., None] * axis
    return result


def _axis(matrix: np.ndarray) -> np.ndarray:
    """Rotation axes [..., 3] scaled by the sine of the angle: close to the rotation vector while that is short."""
    axis = np.empty(matrix.shape[:-1])
    for i, (row, column) in enumerate(((2, 1), (0, 2), (1, 0))):
        np.subtract(matrix[..., row, column], matrix[..., column, row], out=axis[..., i])
    axis *= 0.5
    return axis


def _within_turn(orientation: np.ndarray) -> np.ndarray:
    """Pull orientations [..., 3, 3] back to within MAX_TURNED of the home orientation."""
    vector = rotation_vector(orientation @ HAND_DOWN.T)
    angle = np.sqrt(np.sum(vector * vector, axis=-1, keepdims=True))
    # Rebuilding the matrix each step also keeps it orthonormal.
    return rotation_of(vector * np.minimum(1.0, MAX_TURNED / np.maximum(angle, 1e-9))) @ HAND_DOWN
