"""What LIBERO's data sets agree on and where they differ: the gripper's numbers, idle frames, the way pictures lie.

Shapes: T frames, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.errors import UserError

Gripper = Literal["robosuite", "openvla"]
"""robosuite: -1 opens, +1 closes; openvla: 1 opens, 0 closes, as Open X-Embodiment's transforms make it."""
ACTION_NUMBERS, STATE_NUMBERS = 7, 8
IDLE = 1e-4
MOST = 1 + 1e-4  # an action number; robosuite takes -1 to 1
FINGERS = slice(6, 8)
LEAST, MOST_APART = np.array([-0.01, -0.05]), np.array([0.05, 0.01])  # metres: 0.04 each, and what a push adds


def gripper_of(path: Path, columns: Iterable[np.ndarray]) -> Gripper:
    """Which numbers a data set has for the gripper.

    Args:
        path: of the data set, for messages.
        columns: the gripper's number in each frame, [T] an episode; they are looked at until one tells.

    Raises:
        UserError: none tells.
    """
    zeros = False
    for column in columns:
        if (column < -IDLE).any():
            return "robosuite"
        zeros |= bool((np.abs(column) <= IDLE).any())
    if zeros:
        return "openvla"
    raise UserError(
        f"{path}: the gripper's number is 1 in every frame of these episodes, which is closed to robosuite and open to "
        "Open X-Embodiment: choose more tasks or episodes"
    )


def convert_gripper(actions: np.ndarray, recorded: Gripper, wanted: Gripper) -> np.ndarray:
    """Actions with the gripper's numbers as the simulator is asked to take them.

    Args:
        actions: float32 [T, 7].
        recorded: what the last number is.
        wanted: what it is to be.

    Returns:
        float32 [T, 7].
    """
    if recorded == wanted:
        return actions
    gripper = actions[:, -1:]
    # To OpenVLA's numbers as its `libero_dataset_transform` does: clip to [0, 1], then turn round.
    other = 1 - np.clip(gripper, 0, 1) if wanted == "openvla" else 1 - 2 * gripper
    return np.concatenate([actions[:, :-1], other], axis=1)


def moves(actions: np.ndarray) -> np.ndarray:
    """Which frames do something.

    A frame is idle if its six motion numbers have a norm below 1e-4 and its gripper's number is that of the last frame
    that was kept: `is_noop` of openvla's `experiments/robot/libero/regenerate_libero_dataset.py`, by which the data
    sets called `no_noops` are made.

    Args:
        actions: float32 [T, 7].

    Returns:
        bool [T].
    """
    still = np.linalg.norm(actions[:, :-1], axis=1) < IDLE
    kept = np.ones(len(actions), bool)
    before = None
    for frame, gripper in enumerate(actions[:, -1].tolist()):
        kept[frame] = not (still[frame] and before in (None, gripper))
        if kept[frame]:
            before = gripper
    return kept


def check(place: str, actions: np.ndarray, states: np.ndarray) -> None:
    """Refuse numbers that are not LIBERO's.

    Args:
        place: of the episode, for messages.
        actions: [T, 7].
        states: [T, 8].

    Raises:
        UserError: one is not finite, an action is beyond robosuite's range, or the state does not end in two fingers.
    """
    for name, array in (("actions", actions), ("states", states)):
        if not np.isfinite(array).all():
            raise UserError(f"{place}: {name} are not finite in frame {_first(~np.isfinite(array))}; download it again")
    if (beyond := np.abs(actions) > MOST).any():
        frame = _first(beyond)
        raise UserError(
            f"{place}: an action number is {actions[frame][beyond[frame]][0]:g} in frame {frame}, robosuite's lie "
            "between -1 and 1: import a data set of relative, unscaled actions"
        )
    fingers = states[:, FINGERS]
    if (beyond := (fingers < LEAST) | (fingers > MOST_APART)).any():
        frame = _first(beyond)
        raise UserError(
            f"{place}: the state ends in {fingers[frame, 0]:g} and {fingers[frame, 1]:g} in frame {frame}, LIBERO's in "
            "the places of two fingers, 0 to 0.05 and -0.05 to 0 m: import a data set whose state is position, axis "
            "times angle, and fingers"
        )


def turned(pictures: np.ndarray) -> np.ndarray:
    """Pictures [n, H, W, 3] turned by 180 degrees, which is how the field shows what LIBERO renders."""
    return pictures[:, ::-1, ::-1]


def _first(bad: np.ndarray) -> int:
    return int(np.argwhere(bad)[0][0])
