"""LIBERO's config block: its fields, their defaults and what is wrong with a bad one."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from stages.simulators.interface import SimulatorConfigError
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
        wrist_camera: whether the camera of the hand is observed; a policy that looks at one image needs no other drawn.
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
    wrist_camera: bool = True
    settling_steps: int = 10
    kept_scenes: int = 2
    expert_perturbation: float = 0.0


# field: (type, least, most)
_NUMBERS: dict[str, tuple[type, float, float]] = {
    "image_size": (int, 32, 1024),
    "action_frequency": (int, ACTION_FREQUENCY, ACTION_FREQUENCY),
    "physics_frequency": (int, PHYSICS_FREQUENCY, PHYSICS_FREQUENCY),
    "rendering_frequency": (int, 1, ACTION_FREQUENCY),
    "max_episode_steps": (int, 1, 100_000),
    "egl_device": (int, 0, 63),
    "settling_steps": (int, 0, 50),
    "kept_scenes": (int, 1, 130),
    "expert_perturbation": (float, 0.0, 1.0),
}
_CHOICES = {"renderer": RENDERERS, "gripper": (ROBOSUITE, OPENVLA)}
_SWITCHES = ("wrist_camera",)
_MAY_BE_NONE = ("max_episode_steps", "egl_device")


def parse(options: Mapping[str, Any]) -> Options:
    """Check a config block and fill in its defaults.

    Args:
        options: field names of Options and their values.

    Raises:
        SimulatorConfigError: a field is unknown or its value is out of range; the message says what is possible.
    """
    known = [field.name for field in dataclasses.fields(Options)]
    for name in options:
        if name not in known:
            raise SimulatorConfigError(f"libero: no option {name!r}{_nearest(name, known)}; valid: {', '.join(known)}")
    values = {name: _checked(name, value) for name, value in options.items()}
    values["tasks"] = catalogue.expand(values.get("tasks", Options.tasks))
    parsed = Options(**values)
    if parsed.action_frequency % parsed.rendering_frequency:
        raise SimulatorConfigError(
            f"libero: action_frequency {parsed.action_frequency} is not a multiple of rendering_frequency "
            f"{parsed.rendering_frequency}; choose one that is"
        )
    return parsed


def _checked(name: str, value: Any) -> Any:
    if name == "tasks":
        return _tasks(value)
    if value is None and name in _MAY_BE_NONE:
        return None
    if name in _CHOICES:
        return _choice(name, value)
    if name in _SWITCHES:
        if not isinstance(value, bool):
            raise SimulatorConfigError(f"libero: {name} is {value!r}; it must be true or false")
        return value
    kind, least, most = _NUMBERS[name]
    accepted = (int,) if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, accepted) or not least <= value <= most:
        noun = "an integer" if kind is int else "a number"
        possible = f"{least:g}" if least == most else f"{noun} from {least:g} to {most:g}"
        raise SimulatorConfigError(f"libero: {name} is {value!r}; it must be {possible}")
    return kind(value)


def _tasks(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise SimulatorConfigError(f"libero: tasks is {value!r}; it must be a list of names of tasks or suites")
    return tuple(value)


def _choice(field: str, value: Any) -> str:
    valid = _CHOICES[field]
    if value not in valid:
        hint = _nearest(str(value), valid)
        raise SimulatorConfigError(f"libero: {field} has no {value!r}{hint}; valid: {', '.join(valid)}")
    return str(value)


def _nearest(name: str, valid: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(valid), n=1)
    return f", did you mean {close[0]!r}?" if close else ""
