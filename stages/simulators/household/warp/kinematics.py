"""The arm's kinematics and rotations as Warp functions: `arm.forward` and what `controller` does with rotations.

They compute in float64 as the originals do, so that both backends send the hands to the same places.
"""

import warp as wp

from stages.simulators.household import arm

JOINTS = wp.constant(arm.JOINTS)


class Joints(wp.types.vector(length=arm.JOINTS, dtype=wp.float64)):
    """Angles of an arm's joints, in radians."""


class Error(wp.types.vector(length=6, dtype=wp.float64)):
    """From one pose to another: metres, then radians."""


class Jacobian(wp.types.matrix(shape=(6, arm.JOINTS), dtype=wp.float64)):
    """How joints move a grip point: linear velocity, then angular velocity."""


class Square(wp.types.matrix(shape=(6, 6), dtype=wp.float64)):
    """What a pose error is solved with."""


class Columns(wp.types.matrix(shape=(3, arm.JOINTS), dtype=wp.float64)):
    """A vector a joint."""


_HALF, _ONE, _TWO = (wp.constant(wp.float64(value)) for value in (0.5, 1.0, 2.0))
_TINY = wp.constant(wp.float64(1e-9))


@wp.func
def forward(
    joints: Joints, links: wp.array[wp.mat44d], grip: wp.mat44d, base: wp.vec3d
) -> tuple[wp.vec3d, wp.mat33d, Jacobian]:
    """Position, orientation and Jacobian of a grip point at joint angles; see `arm.forward`."""
    frame = wp.identity(n=4, dtype=wp.float64)
    axes = Columns()
    origins = Columns()
    for i in range(JOINTS):
        link = links[i]
        turned = links[i]
        cos = wp.cos(joints[i])
        sin = wp.sin(joints[i])
        for row in range(4):
            turned[row, 0] = link[row, 0] * cos + link[row, 1] * sin
            turned[row, 1] = link[row, 1] * cos - link[row, 0] * sin
        frame = frame * turned
        for row in range(3):
            axes[row, i] = frame[row, 2]
            origins[row, i] = frame[row, 3]
    end = frame * grip
    tip = wp.vec3d(end[0, 3], end[1, 3], end[2, 3])
    orientation = wp.mat33d(
        end[0, 0], end[0, 1], end[0, 2], end[1, 0], end[1, 1], end[1, 2], end[2, 0], end[2, 1], end[2, 2]
    )
    jacobian = Jacobian()
    for i in range(JOINTS):
        axis = wp.vec3d(axes[0, i], axes[1, i], axes[2, i])
        moved = wp.cross(axis, tip - wp.vec3d(origins[0, i], origins[1, i], origins[2, i]))
        for row in range(3):
            jacobian[row, i] = moved[row]
            jacobian[row + 3, i] = axis[row]
    return tip + base, orientation, jacobian


@wp.func
def rotation_of(vector: wp.vec3d) -> wp.mat33d:
    """See `controller.rotation_of`."""
    angle = wp.max(wp.length(vector), _TINY)
    cross = wp.skew(vector)
    sinc = wp.sin(angle) / angle
    root = wp.sin(angle / _TWO) / angle
    return wp.identity(n=3, dtype=wp.float64) + sinc * cross + (_TWO * root * root) * (cross * cross)


@wp.func
def axis_of(matrix: wp.mat33d) -> wp.vec3d:
    """The rotation axis, scaled by the sine of the angle."""
    return _HALF * wp.vec3d(matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1])


@wp.func
def rotation_vector(matrix: wp.mat33d) -> wp.vec3d:
    """See `controller.rotation_vector`."""
    axis = axis_of(matrix)
    sine = wp.length(axis)
    cosine = _HALF * (matrix[0, 0] + matrix[1, 1] + matrix[2, 2] - _ONE)
    scale = _ONE
    if sine > _TINY:
        scale = wp.atan2(sine, cosine) / sine
    return scale * axis


@wp.func
def solve(matrix: Square, right: Error) -> Error:
    """Solve A x = b for a symmetric positive definite A (Cholesky)."""
    lower = Square()
    for i in range(6):
        for j in range(i + 1):
            rest = matrix[i, j]
            for k in range(j):
                rest -= lower[i, k] * lower[j, k]
            if i == j:
                lower[i, i] = wp.sqrt(rest)
            else:
                lower[i, j] = rest / lower[j, j]
    x = right
    for i in range(6):
        for k in range(i):
            x[i] -= lower[i, k] * x[k]
        x[i] /= lower[i, i]
    for back in range(6):
        i = 5 - back
        for k in range(i + 1, 6):
            x[i] -= lower[k, i] * x[k]
        x[i] /= lower[i, i]
    return x
