"""What a config's `simulator` may hold by the simulator's name, so that a mistake is told before a job is submitted.

The simulators check their options themselves; what they need for it cannot be imported here. Tests hold these tables
to theirs.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Number:
    """A number within bounds.

    Attributes:
        least: the smallest that is possible.
        most: the largest.
        whole: whether it is an integer.
    """

    least: float
    most: float
    whole: bool = False

    def takes(self, value: Any) -> bool:
        """Whether a value is such a number."""
        fits = isinstance(value, int if self.whole else (int, float)) and not isinstance(value, bool)
        return fits and self.least <= value <= self.most

    def __str__(self) -> str:
        """In words."""
        if self.least == self.most:
            return f"{self.least:g}"
        return f"{'an integer' if self.whole else 'a number'} from {self.least:g} to {self.most:g}"


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of some texts.

    Attributes:
        texts: which.
    """

    texts: tuple[str, ...]

    def takes(self, value: Any) -> bool:
        """Whether a value is one of them."""
        return value in self.texts

    def __str__(self) -> str:
        """In words."""
        return " or ".join(self.texts)


class Switch:
    """True or false."""

    def takes(self, value: Any) -> bool:
        """Whether a value is either."""
        return isinstance(value, bool)

    def __str__(self) -> str:
        """In words."""
        return "true or false"


SWITCH = Switch()
FIELDS: dict[str, dict[str, Number]] = {
    "household": {
        "image_size": Number(32, 1024, whole=True),
        "action_frequency": Number(5, 100, whole=True),
        "physics_frequency": Number(100, 2000, whole=True),
        "rendering_frequency": Number(1, 100, whole=True),
        "max_episode_steps": Number(1, 100_000, whole=True),
    },
    "omnigibson": {
        "image_size": Number(32, 1440, whole=True),
        "action_frequency": Number(1, 240, whole=True),
        "physics_frequency": Number(30, 1000, whole=True),
        "rendering_frequency": Number(1, 240, whole=True),
        "max_episode_steps": Number(1, 1_000_000, whole=True),
    },
    "libero": {
        "image_size": Number(32, 1024, whole=True),
        "action_frequency": Number(20, 20, whole=True),
        "physics_frequency": Number(500, 500, whole=True),
        "rendering_frequency": Number(1, 20, whole=True),
        "max_episode_steps": Number(1, 100_000, whole=True),
    },
    "maniskill": {
        "image_size": Number(32, 1024, whole=True),
        "action_frequency": Number(5, 100, whole=True),
        "physics_frequency": Number(50, 2000, whole=True),
        "rendering_frequency": Number(1, 100, whole=True),
        "max_episode_steps": Number(1, 100_000, whole=True),
    },
}
"""Simulator -> fields of the config's block -> what it takes of them."""
OPTIONS: dict[str, dict[str, Number | Choice | Switch | None]] = {
    "household": {
        "backend": Choice(("auto", "mujoco", "mujoco_warp")),
        "renderer": Choice(("auto", "egl", "osmesa", "raycast", "mujoco_warp")),
        "images_on_gpu": SWITCH,
        "wrist_cameras": Number(0, 2, whole=True),
        "reward": Choice(("sparse", "dense")),
        "object_size": Number(0.02, 0.06),
        "plate_radius": Number(0.05, 0.1),
        "spread": Number(0, 1),
        "arms": Choice(("both", "right")),
        "distractors": Number(0, 3, whole=True),
        "expert_perturbation": Number(0, 1),
    },
    "omnigibson": {
        "action_mode": Choice(("ee_delta_14", "joint_23")),
        "position_limit": Number(0.001, 0.5),
        "rotation_limit": Number(0.001, 1.5),
        "trunk": Choice(("null_controller", "joint_controller")),
        "proprio_keys": None,
        "grasping_mode": Choice(("assisted", "physical", "sticky")),
        "base_mass": Number(1, 10_000),
        "reward": Choice(("potential", "sparse")),
        "reward_scale": Number(0, 1000),
        "tasks_file": None,
        "scene_model": None,
        "activity_definition": Number(0, 1000, whole=True),
        "train_instances": None,
        "evaluation_instances": None,
        "instance_directory": None,
        "step_budget": Number(0.1, 100),
        "viewport": SWITCH,
        "observe_every_step": SWITCH,
        "render_every_step": SWITCH,
        "renders_per_observation": Number(1, 20, whole=True),
        "carb_threads": Number(1, 256, whole=True),
        "tbb_threads": Number(1, 256, whole=True),
        "numba_cache": SWITCH,
        "texture_budget": Number(0.01, 1),
        "partial_scene": SWITCH,
        "room_types": None,
        "numpy_controllers": SWITCH,
        "flatcache": SWITCH,
        "gpu_dynamics": SWITCH,
        "transition_rules": SWITCH,
        "step_timeout": Number(1, 86_400),
        "cache_directory": None,
    },
    "libero": {
        "renderer": Choice(("auto", "egl", "osmesa")),
        "gripper": Choice(("robosuite", "openvla")),
        "wrist_cameras": Number(0, 1, whole=True),
        "settling_steps": Number(0, 50, whole=True),
        "egl_device": Number(0, 63, whole=True),
        "kept_scenes": Number(1, 130, whole=True),
        "expert_perturbation": Number(0, 1),
    },
    "maniskill": {
        "backend": Choice(("physx_cpu", "physx_cuda")),
        "renderer": Choice(("auto", "gpu", "cpu")),
        "reward": Choice(("sparse", "dense")),
        "expert_perturbation": Number(0, 1),
    },
}
"""Simulator -> its options beside the fields of the config's block -> what they take; None: it is left to itself."""


def check(simulator: str, options: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
    """Refuse options that a simulator does not have, and values that it does not take.

    Args:
        simulator: its name; a module elsewhere is left alone.
        options: what is asked of it; null is left to it.
        fields: the config's block with its values, null where a value is left to the simulator.

    Raises:
        ValueError: one is unknown, misplaced or out of range.
    """
    known = OPTIONS.get(simulator)
    if known is None:
        return
    for name, bounds in FIELDS[simulator].items():
        _hold(simulator, name, fields[name], bounds)
    for name, value in options.items():
        if name in fields:
            raise ValueError(f"options.{name} has a field of its own: set simulator.{name}")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            meant = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise ValueError(f"options.{name} is no option of {simulator}: {meant}")
        _hold(simulator, f"options.{name}", value, known[name])


def _hold(simulator: str, name: str, value: Any, kind: Number | Choice | Switch | None) -> None:
    if kind is not None and value is not None and not kind.takes(value):
        raise ValueError(f"{name}={value} is not possible in {simulator}: set it to {kind}")
