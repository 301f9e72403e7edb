"""What tasks, expert and proprioception are functions of, read from the arrays of MuJoCo Warp: `Physics.read`."""

import numpy as np
import warp as wp

from stages.simulators.household.kit import Kit
from stages.simulators.household.physics import Physics
from stages.simulators.household.state import Snapshot

wp.set_module_options({"enable_backward": False})


@wp.struct
class Places:
    """Where things are in a scene's arrays, by their numbers in the kit; -1 where the scene does not have them.

    Attributes:
        body: [O] of an object.
        velocity: [O] address in qvel of an object.
        slide: [D] address in qpos of a drawer.
        site: [2] of a hand's grip point.
        finger: [2, 2] addresses in qpos of a hand's fingers.
        axis: [D] along which a drawer slides.
        handle: [D] where a shut drawer's handle is, in metres.
        inside: [D] where a shut drawer's inside is, in metres.
        still: [S] where the frames are that do not move, in metres.
    """

    body: wp.array[wp.int32]
    velocity: wp.array[wp.int32]
    slide: wp.array[wp.int32]
    site: wp.array[wp.int32]
    finger: wp.array2d[wp.int32]
    axis: wp.array[wp.vec3]
    handle: wp.array[wp.vec3]
    inside: wp.array[wp.vec3]
    still: wp.array[wp.vec3]


@wp.struct
class Sight:
    """A `Snapshot` of N worlds on the device, but for the frames, which follow from it."""

    hand_position: wp.array2d[wp.vec3]
    hand_rotation: wp.array2d[wp.mat33]
    opening: wp.array2d[wp.float32]
    object_position: wp.array2d[wp.vec3]
    object_rotation: wp.array2d[wp.mat33]
    object_speed: wp.array2d[wp.float32]
    drawer: wp.array2d[wp.float32]


_FIELDS = tuple(Sight.__annotations__)


def places(physics: Physics, kit: Kit) -> Places:
    """Look up where the things of a kit are in a scene, for the current device."""
    made = Places()
    for name, values in physics.addresses(len(kit.props), len(kit.drawers)).items():
        setattr(made, name, wp.array(values, dtype=wp.int32))
    for name, points in kit.frames().items():
        setattr(made, name, wp.array(points, dtype=wp.vec3))
    return made


def room(kit: Kit, count: int) -> Sight:
    """Room for what N = `count` worlds look like, on the current device."""
    made, blank = Sight(), kit.empty(count)
    for name in _FIELDS:
        kind = wp.vec3 if name.endswith("position") else wp.mat33 if name.endswith("rotation") else wp.float32
        setattr(made, name, wp.array(getattr(blank, name), dtype=kind))
    return made


def read(sight: Sight, kit: Kit, count: int) -> Snapshot:
    """Copy what the first `count` worlds look like to the host."""
    state = kit.empty(count)
    for name in _FIELDS:
        getattr(state, name)[:] = getattr(sight, name).numpy()[:count]
    kit.locate(state)
    return state


def write(sight: Sight, state: Snapshot) -> None:
    """Copy a state of the host to the device."""
    for name in _FIELDS:
        getattr(sight, name).assign(getattr(state, name).astype(np.float32))


@wp.kernel
def look(
    places: Places,
    ended: wp.array[wp.int32],
    qpos: wp.array2d[wp.float32],
    qvel: wp.array2d[wp.float32],
    xpos: wp.array2d[wp.vec3],
    xmat: wp.array2d[wp.mat33],
    site_xpos: wp.array2d[wp.vec3],
    site_xmat: wp.array2d[wp.mat33],
    sight: Sight,
) -> None:
    """Read what the worlds look like that have not ended."""
    row = wp.tid()
    if ended[row] != 0:
        return
    for side in range(2):
        sight.hand_position[row, side] = site_xpos[row, places.site[side]]
        sight.hand_rotation[row, side] = site_xmat[row, places.site[side]]
        sight.opening[row, side] = qpos[row, places.finger[side, 0]] + qpos[row, places.finger[side, 1]]
    for i in range(places.body.shape[0]):
        body = places.body[i]
        if body >= 0:
            sight.object_position[row, i] = xpos[row, body]
            sight.object_rotation[row, i] = xmat[row, body]
            at = places.velocity[i]
            sight.object_speed[row, i] = wp.length(wp.vec3(qvel[row, at], qvel[row, at + 1], qvel[row, at + 2]))
    for i in range(places.slide.shape[0]):
        if places.slide[i] >= 0:
            sight.drawer[row, i] = qpos[row, places.slide[i]]


@wp.func
def frame_position(places: Places, sight: Sight, row: int, frame: int) -> wp.vec3:
    """Where a frame of the kit is; see `Kit.locate`."""
    objects = places.body.shape[0]
    drawers = places.slide.shape[0]
    if frame < objects:
        return sight.object_position[row, frame]
    number = frame - objects
    if number < drawers:
        return places.handle[number] + sight.drawer[row, number] * places.axis[number]
    number -= drawers
    if number < drawers:
        return places.inside[number] + sight.drawer[row, number] * places.axis[number]
    return places.still[number - drawers]
