"""Proprioception: which numbers the robot feels, and where they stand in the challenge's vector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stages.simulators.interface import SimulatorConfigError
from stages.simulators.omnigibson.robot import ARMS, EE_DELTA


def _slices(sizes: Sequence[tuple[str, int]]) -> dict[str, tuple[int, int]]:
    found, begin = {}, 0
    for key, size in sizes:
        found[key] = (begin, begin + size)
        begin += size
    return found


def _arm(arm: str) -> list[tuple[str, int]]:
    return [
        *((f"arm_{arm}_{part}", 7) for part in ("qpos", "qpos_sin", "qpos_cos", "qvel")),
        (f"eef_{arm}_pos", 3),  # in the base's frame
        (f"eef_{arm}_quat", 4),  # xyzw
        (f"gripper_{arm}_qpos", 2),
        (f"gripper_{arm}_qvel", 2),
    ]


SLICES = _slices(
    [
        *((f"joint_{part}", 28) for part in ("qpos", "qpos_sin", "qpos_cos", "qvel", "qeffort")),
        *((f"robot_{part}", 3) for part in ("pos", "ori_cos", "ori_sin")),
        *((f"robot_2d_{part}", 1) for part in ("ori", "ori_cos", "ori_sin")),
        *((f"robot_{part}", 3) for part in ("lin_vel", "ang_vel")),
        *_arm("left"),
        *_arm("right"),
        ("trunk_qpos", 4),
        ("trunk_qvel", 4),
        *((f"base_{part}", 3) for part in ("qpos", "qpos_sin", "qpos_cos", "qvel")),
    ]
)
"""Key -> first and past the last of its places in the 256 numbers (PROPRIOCEPTION_INDICES["R1Pro"] of 3.7)."""

_KEYS_2026 = [
    "base_qvel",
    *(f"{key}_{arm}_{part}" for arm in ARMS for key, part in (
        ("arm", "qpos"), ("arm", "qvel"), ("eef", "pos"), ("eef", "quat"), ("gripper", "qpos"), ("gripper", "qvel"),
    )),
    "trunk_qpos",
    "trunk_qvel",
]  # fmt: skip
SLICES_2026 = _slices([(key, SLICES[key][1] - SLICES[key][0]) for key in _KEYS_2026])
"""The same for the 61 numbers of the 2026 challenge (3.9)."""

WIDTHS = {f"gripper_width_{arm}": f"gripper_{arm}_qpos" for arm in ARMS}
"""Key of ours -> the two finger positions that it is the sum of."""

PRESETS = {
    "arms": tuple(f"{key}_{arm}_{part}" for arm in ARMS for key, part in (
        ("eef", "pos"), ("eef", "quat"), ("gripper", "qpos"),
    )),
    # `behavior_policy.extract_state_from_proprio` of RLinf, which its checkpoints were trained on: grippers come last
    "joints_23": ("base_qvel", "trunk_qpos", "arm_left_qpos", "arm_right_qpos", *WIDTHS),
    "challenge": tuple(SLICES),
    "challenge_2026": tuple(SLICES_2026),
}  # fmt: skip
"""Lists of keys that have a name."""


def keys_of(value: str | Sequence[str] | None, action_mode: str) -> tuple[str, ...]:
    """The keys that a config's `proprio_keys` stands for.

    Args:
        value: name of a preset, or keys; None: what goes with the action mode.
        action_mode: `ee_delta_14` (arms) or `joint_23` (joints_23).

    Raises:
        SimulatorConfigError: there is no such preset or key.
    """
    if value is None:
        return PRESETS["arms" if action_mode == EE_DELTA else "joints_23"]
    if isinstance(value, str):
        if value not in PRESETS:
            raise SimulatorConfigError(
                f"omnigibson: proprio_keys is {value!r}; it must be one of {', '.join(PRESETS)} or a list of keys"
            )
        return PRESETS[value]
    unknown = [key for key in value if key not in SLICES and key not in WIDTHS]
    if unknown or not value:
        problem = f"has no {unknown[0]!r}" if unknown else "is empty"
        raise SimulatorConfigError(f"omnigibson: proprio_keys {problem}; valid: {', '.join([*SLICES, *WIDTHS])}")
    return tuple(value)


def sources(keys: Sequence[str]) -> tuple[str, ...]:
    """The robot's own keys that `keys` are made of, each once."""
    return tuple(dict.fromkeys(WIDTHS.get(key, key) for key in keys))


def size(keys: Sequence[str]) -> int:
    """P, how many numbers the keys have together."""
    return sum(1 if key in WIDTHS else SLICES[key][1] - SLICES[key][0] for key in keys)


def select(state: np.ndarray, keys: Sequence[str], slices: dict[str, tuple[int, int]] = SLICES) -> np.ndarray:
    """Take keys out of a vector.

    Args:
        state: floating point [..., S].
        keys: which, in which order.
        slices: where they stand in it.

    Returns:
        float32 [..., P].
    """
    parts = []
    for key in keys:
        begin, end = slices[WIDTHS.get(key, key)]
        part = state[..., begin:end]
        parts.append(part.sum(axis=-1, keepdims=True) if key in WIDTHS else part)
    return np.concatenate(parts, axis=-1).astype(np.float32)


class Selection:
    """Takes the configured keys out of what the robot tells when it is asked for their sources."""

    def __init__(self, keys: Sequence[str]) -> None:
        """Note where the keys stand."""
        self.keys = tuple(keys)
        self.asked = sources(keys)
        self._slices = _slices([(key, SLICES[key][1] - SLICES[key][0]) for key in self.asked])
        self._length = size(self.asked)

    def take(self, told: np.ndarray) -> np.ndarray:
        """The numbers of the keys.

        Args:
            told: floating point [S], the robot's proprioception.

        Returns:
            float32 [P].

        Raises:
            SimulatorConfigError: the robot tells another number of numbers.
        """
        if told.shape != (self._length,):
            raise SimulatorConfigError(
                f"omnigibson: the robot's proprioception has {told.size} numbers, expected {self._length} for "
                f"{', '.join(self.asked)}: this build of OmniGibson has other sizes; run `baton doctor`"
            )
        return select(told, self.keys, self._slices)
