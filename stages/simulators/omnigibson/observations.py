"""From OmniGibson's nested observations to pictures and proprioception in Baton's shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stages.simulators.interface import SimulatorConfigError
from stages.simulators.omnigibson.robot import CAMERAS

LEAST_CONTRAST = 2  # between the brightest and the darkest number of a picture that shows something


class BlackFrames(RuntimeError):
    """The cameras show nothing."""


def to_numpy(value: Any) -> np.ndarray:
    """A tensor on whatever device, or an array, as an array."""
    return np.asarray(value.cpu() if hasattr(value, "cpu") else value)


def robot_part(observation: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the one robot of a world observes: sensors by name, and `proprio`."""
    robots = [part for name, part in observation.items() if name not in ("task", "external")]
    if len(robots) != 1:
        raise SimulatorConfigError(f"omnigibson: {len(robots)} robots observe in a world, expected 1")
    part: Mapping[str, Any] = robots[0]
    return part


def pictures(observation: Mapping[str, Any], size: int) -> np.ndarray:
    """The head's picture and the wrists', found by what the names of their sensors end with.

    Args:
        observation: of one world.
        size: H and W that they should have.

    Returns:
        uint8 [3, 3, H, W], RGB: head, left wrist, right wrist.

    Raises:
        SimulatorConfigError: a camera is missing, or its picture has another form.
    """
    part = robot_part(observation)
    planes = np.empty((len(CAMERAS), 3, size, size), np.uint8)
    for i, camera in enumerate(CAMERAS):
        names = [name for name in part if name.endswith(camera)]
        if len(names) != 1:
            raise SimulatorConfigError(
                f"omnigibson: no camera ...:{camera} among the robot's sensors ({', '.join(part)}): this build names "
                "them otherwise, or lost its cameras; run `baton doctor --simulator omnigibson CONFIG`"
            )
        rgba = to_numpy(part[names[0]]["rgb"])
        if rgba.dtype != np.uint8 or rgba.shape not in ((size, size, 4), (size, size, 3)):
            raise SimulatorConfigError(
                f"omnigibson: camera {names[0]} gives {rgba.dtype} {list(rgba.shape)}, expected uint8 "
                f"[{size}, {size}, 4]"
            )
        planes[i] = rgba[..., :3].transpose(2, 0, 1)
    return planes


def proprioception(observation: Mapping[str, Any]) -> np.ndarray:
    """The robot's numbers, float32 [S], in the order of `proprio_obs`."""
    return to_numpy(robot_part(observation)["proprio"]).astype(np.float32)


def refuse_black(planes: np.ndarray, what: str) -> None:
    """Refuse pictures of a world's start that show nothing at all.

    Args:
        planes: uint8 [3, 3, H, W], of the three cameras.
        what: the world, in words.

    Raises:
        BlackFrames: the head's picture is of one colour, or all three are.
    """
    contrast = planes.reshape(len(planes), 3, -1)
    flat = (contrast.max(axis=2).astype(int) - contrast.min(axis=2)).max(axis=1) < LEAST_CONTRAST
    if flat[0] or flat.all():
        colour = planes[0].reshape(3, -1)[:, 0].tolist()
        raise BlackFrames(
            f"the head camera of {what} shows nothing but the colour {colour}: rendering has failed; see this "
            "worker's log for Vulkan or HydraEngine errors, and docs/behavior.md for what the image must hold"
        )


def frame(planes: np.ndarray) -> np.ndarray:
    """What a world looks like to an audience: wrists on the left, the head, twice as large, on the right.

    Args:
        planes: uint8 [3, 3, H, H], as `pictures` gives them.

    Returns:
        uint8 [2 H, 3 H, 3], RGB.
    """
    head, left, right = planes.transpose(0, 2, 3, 1)
    large = head.repeat(2, axis=0).repeat(2, axis=1)
    return np.concatenate([np.concatenate([left, right], axis=0), large], axis=1)
