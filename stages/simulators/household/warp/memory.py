"""How much of a GPU's memory worlds take, and whether they fit: known before anything is allocated."""

from __future__ import annotations

import dataclasses

import mujoco
import mujoco_warp as mjw
import warp as wp

from stages.simulators.household.warp.device import Device
from stages.simulators.interface import SimulatorConfigError

# What a physics step allocates for itself while a graph is captured is at most so many times what a world's data take.
_TEMPORARIES = 4.5
SPARED = 0.9  # the share of the free memory that may be taken
_PIXEL = 4 + 3  # bytes: packed as the renderer makes it, and spread over the planes of an image
_BOUNDS = 256  # bytes a geom takes in the tree that rays are followed through


def check(
    device: Device,
    described: mujoco.MjModel,
    worlds: int,
    contacts: int,
    constraints: int,
    cameras: int,
    image_size: int,
) -> None:
    """Make sure that worlds fit.

    Args:
        device: where they are to be.
        described: their scene.
        worlds: how many.
        contacts: room for a world's contacts.
        constraints: room for its constraint rows.
        cameras: images of a world.
        image_size: height and width of images drawn there, in pixels; 0: none are.

    Raises:
        SimulatorConfigError: they do not; the message says how many do.
    """
    free = device.free_memory()
    if free is None:
        return
    each = of_world(described, contacts, constraints) + of_images(described, cameras, image_size)
    fit = int(SPARED * free / each)
    if worlds > fit:
        raise SimulatorConfigError(
            f"household: {worlds} worlds of a scene take {worlds * each / 1e9:.1f} GB on {device.name}, which has "
            f"{free / 1e9:.1f} GB free: {fit} fit; ask for fewer (num_envs), or spread them over more GPUs"
        )


def of_world(described: mujoco.MjModel, contacts: int, constraints: int) -> int:
    """Bytes that a world of a scene takes, with room for so many contacts and constraint rows."""
    with wp.ScopedDevice("cpu"):
        one, two = (
            _bytes_of(mjw.make_data(described, nworld=count, nconmax=contacts, njmax=constraints)) for count in (1, 2)
        )
    return int((1 + _TEMPORARIES) * (two - one))


def of_images(described: mujoco.MjModel, cameras: int, image_size: int) -> int:
    """Bytes that the images of a world take, and the tree of its geoms; nothing where none are drawn."""
    return cameras * image_size**2 * _PIXEL + described.ngeom * _BOUNDS if image_size else 0


def _bytes_of(data: object) -> int:
    """Bytes of all arrays in a dataclass and in the dataclasses in it."""
    if isinstance(data, wp.array):
        return int(data.capacity)
    if not dataclasses.is_dataclass(data):
        return 0
    return sum(_bytes_of(getattr(data, field.name)) for field in dataclasses.fields(data))
