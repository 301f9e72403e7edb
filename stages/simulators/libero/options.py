"""LIBERO's config block: its fields, their defaults and what is wrong with a bad one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from stages.simulators import options as checks
from stages.simulators.libero import catalogue

RENDERERS = ("auto", "egl", "osmesa")
ROBOSUITE, OPENVLA = "robosuite", "openvla"
ACTION_FREQUENCY, PHYSICS_FREQUENCY = 20, 500  # of robosuite 1.4 and of every demonstration


@dataclasses.dataclass(frozen=True)
class Options:
    """What can be chosen about LIBERO.

    Attributes:
        tasks: what the robot is asked to do: names of tasks and of suites (tasks.jsonl); a suite stands for its tasks.
        image_size: height and width of every observed camera, in pixels.
        action_frequency: control steps a second; 20.
        physics_frequency: physics steps a second; 500.
        rendering_frequency: filmed frames a second; divides the action frequency, in between a frame is repeated.
        max_episode_steps: step limit of an episode; None: that of the task's suite.
        renderer: what draws the images; auto takes the first of egl and osmesa that works.
        egl_device: which of EGL's devices draws, counted from 0; None: the card that CUDA_VISIBLE_DEVICES names.
        gripper: what the last action number means. robosuite: -1 opens, 1 closes, as in the demonstrations; openvla:
            1 opens, 0 closes, as published OpenVLA checkpoints have it.
        wrist_cameras: 1 or 0, whether the camera of the hand is observed; a policy of one image needs no other drawn.
        settling_steps: steps after a reset that the robot waits for what falls to come to rest.
        kept_scenes: how many scenes, one a task, a process keeps in memory; more while its worlds are in more tasks.
        expert_perturbation: probability a step that a burst of random motion starts in the expert's actions.
    """

    tasks: tuple[str, ...] = ("libero_object",)
    image_size: int = 224
    action_frequency: int = ACTION_FREQUENCY
    physics_frequency: int = PHYSICS_FREQUENCY
    rendering_frequency: int = 20
    max_episode_steps: int | None = None
    renderer: str = "auto"
    egl_device: int | None = None
    gripper: str = ROBOSUITE
    wrist_cameras: int = 1
    settling_steps: int = 10
    kept_scenes: int = 2
    expert_perturbation: float = 0.0


_NUMBERS: dict[str, checks.Bounds] = {
    "image_size": (int, 32, 1024),
    "action_frequency": (int, ACTION_FREQUENCY, ACTION_FREQUENCY),
    "physics_frequency": (int, PHYSICS_FREQUENCY, PHYSICS_FREQUENCY),
    "rendering_frequency": (int, 1, ACTION_FREQUENCY),
    "max_episode_steps": (int, 1, 100_000),
    "egl_device": (int, 0, 63),
    "wrist_cameras": (int, 0, 1),
    "settling_steps": (int, 0, 50),
    "kept_scenes": (int, 1, 130),
    "expert_perturbation": (float, 0.0, 1.0),
}
_CHOICES = {"renderer": RENDERERS, "gripper": (ROBOSUITE, OPENVLA)}
_MAY_BE_NONE = ("max_episode_steps", "egl_device")


def parse(options: Mapping[str, Any]) -> Options:
    """Check a config block and fill in its defaults.

    Args:
        options: field names of Options and their values.

    Raises:
        SimulatorConfigError: a field is unknown or its value is out of range; the message says what is possible.
    """
    checks.known("libero", options, [field.name for field in dataclasses.fields(Options)])
    values = {name: _checked(name, value) for name, value in options.items()}
    values["tasks"] = catalogue.expand(values.get("tasks", Options.tasks))
    parsed = Options(**values)
    checks.multiple("libero", parsed, "action_frequency", "rendering_frequency")
    return parsed


def _checked(name: str, value: Any) -> Any:
    if name == "tasks":
        return checks.tasks("libero", value)
    if value is None and name in _MAY_BE_NONE:
        return None
    if name in _CHOICES:
        return checks.choice("libero", name, value, _CHOICES[name])
    return checks.number("libero", name, value, _NUMBERS[name])
