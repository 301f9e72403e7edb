"""ManiSkill's config block: its fields, their defaults and what is wrong with a bad one."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from stages.simulators.interface import SimulatorConfigError
from stages.simulators.maniskill import catalogue

CPU, CUDA = "physx_cpu", "physx_cuda"


@dataclasses.dataclass(frozen=True)
class Options:
    """What can be chosen about ManiSkill.

    Attributes:
        tasks: names of tasks, which are ManiSkill's, and of suites (tasks.jsonl); a suite stands for its tasks.
        image_size: height and width of every observed camera, in pixels.
        action_frequency: control steps a second; divides the physics frequency.
        physics_frequency: physics steps a second.
        rendering_frequency: filmed frames a second; divides the action frequency, in between a frame is repeated.
        max_episode_steps: step limit of an episode; None is the task's own.
        backend: physx_cpu steps worlds one by one, physx_cuda all together on a GPU.
        renderer: what draws the images: gpu, cpu (Mesa's lavapipe), or auto, a GPU where Vulkan shows one.
        reward: sparse pays 1 at the step that succeeds, dense is the task's normalized dense reward, at most 1 a step.
        expert_perturbation: probability a step that a burst of random motion starts in the expert's actions.
    """

    tasks: tuple[str, ...] = ("TwoRobotPickCube-v1",)
    image_size: int = 224
    action_frequency: int = 20
    physics_frequency: int = 100
    rendering_frequency: int = 20
    max_episode_steps: int | None = None
    backend: str = CPU
    renderer: str = "auto"
    reward: str = "sparse"
    expert_perturbation: float = 0.0

    @property
    def arms(self) -> tuple[str, ...]:
        """The robots of all tasks, from left to right."""
        return catalogue.entries()[self.tasks[0]].arms


# field: (type, least, most)
_NUMBERS: dict[str, tuple[type, float, float]] = {
    "image_size": (int, 32, 1024),
    "action_frequency": (int, 5, 100),
    "physics_frequency": (int, 50, 2000),
    "rendering_frequency": (int, 1, 100),
    "max_episode_steps": (int, 1, 100_000),
    "expert_perturbation": (float, 0.0, 1.0),
}
_CHOICES = {"backend": (CPU, CUDA), "renderer": ("auto", "gpu", "cpu"), "reward": ("sparse", "dense")}


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
            raise SimulatorConfigError(
                f"maniskill: no option {name!r}{_nearest(name, known)}; valid: {', '.join(known)}"
            )
    values = {name: _checked(name, value) for name, value in options.items()}
    values["tasks"] = catalogue.expand(values.get("tasks", Options.tasks))
    parsed = Options(**values)
    _check_multiple(parsed, "physics_frequency", "action_frequency")
    _check_multiple(parsed, "action_frequency", "rendering_frequency")
    if parsed.backend == CUDA and len(parsed.tasks) > 1:
        raise SimulatorConfigError(
            f"maniskill: backend is {CUDA}, which has all worlds in one task, but tasks has {len(parsed.tasks)}; "
            f"name one, or set backend: {CPU}"
        )
    return parsed


def _checked(name: str, value: Any) -> Any:
    if name == "tasks":
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise SimulatorConfigError(f"maniskill: tasks is {value!r}; it must be a list of names of tasks or suites")
        return tuple(value)
    if name == "max_episode_steps" and value is None:
        return None
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            hint = _nearest(str(value), _CHOICES[name])
            raise SimulatorConfigError(f"maniskill: {name} has no {value!r}{hint}; valid: {', '.join(_CHOICES[name])}")
        return value
    kind, least, most = _NUMBERS[name]
    accepted = (int,) if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, accepted) or not least <= value <= most:
        noun = "an integer" if kind is int else "a number"
        raise SimulatorConfigError(f"maniskill: {name} is {value!r}; it must be {noun} from {least:g} to {most:g}")
    return kind(value)


def _nearest(name: str, valid: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(valid), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _check_multiple(options: Options, larger: str, smaller: str) -> None:
    a, b = getattr(options, larger), getattr(options, smaller)
    if a % b:
        raise SimulatorConfigError(f"maniskill: {larger} {a} is not a multiple of {smaller} {b}; choose one that is")
