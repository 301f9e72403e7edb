"""The true state of N worlds, and what the robot feels of it."""

from __future__ import annotations

import dataclasses

import numpy as np

PROPRIO_DIM = 16
_CENTRE = np.array([[-0.04, 0.13, 0.15], [-0.04, -0.13, 0.15]])
_HALF_EXTENT = np.array([0.24, 0.27, 0.15])
_FULL_OPENING = 0.1


@dataclasses.dataclass
class Snapshot:
    """What goals, expert and proprioception are functions of; O objects and D drawers are those of the config's kit.

    Attributes:
        hand_position: [N, 2, 3] grip points of the left and the right hand, in metres.
        hand_rotation: [N, 2, 3, 3].
        opening: [N, 2] distance between a hand's fingers, in metres.
        object_position: [N, O, 3] origins, in metres; of an object that a world does not have, far away.
        object_rotation: [N, O, 3, 3].
        object_speed: [N, O] in metres a second.
        drawer: [N, D] openings, in metres; zero where a world does not have the drawer.
        frame_position: [N, F, 3] of the kit's frames, in metres.
        frame_rotation: [N, F, 3, 3].
    """

    hand_position: np.ndarray
    hand_rotation: np.ndarray
    opening: np.ndarray
    object_position: np.ndarray
    object_rotation: np.ndarray
    object_speed: np.ndarray
    drawer: np.ndarray
    frame_position: np.ndarray
    frame_rotation: np.ndarray

    def take(self, rows: np.ndarray) -> Snapshot:
        """Some worlds of it."""
        return Snapshot(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))

    def put(self, rows: np.ndarray, values: Snapshot) -> None:
        """Overwrite some worlds of it."""
        for field in dataclasses.fields(self):
            getattr(self, field.name)[rows] = getattr(values, field.name)


def proprioception(state: Snapshot) -> np.ndarray:
    """What the robot feels of itself, every number of order one.

    Args:
        state: N worlds.

    Returns:
        float32 [N, 16], per arm: grip point scaled to the workspace (3), first column of the hand's rotation (3), the
        rotation's last diagonal number plus one (0 when the hand points down), finger opening from -1 shut to 1 open.
    """
    position = (state.hand_position - _CENTRE) / _HALF_EXTENT
    heading = state.hand_rotation[..., :, 0]
    tilt = state.hand_rotation[..., 2, 2:] + 1
    opening = state.opening[..., None] / _FULL_OPENING * 2 - 1
    parts = np.concatenate([position, heading, tilt, opening], axis=-1)
    return parts.reshape(len(parts), -1).astype(np.float32)
