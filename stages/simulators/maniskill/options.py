"""ManiSkill's config block: its fields, their defaults and what is wrong with a bad one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from stages.simulators import options as checks
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


_NUMBERS: dict[str, checks.Bounds] = {
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
    checks.known("maniskill", options, [field.name for field in dataclasses.fields(Options)])
    values = {name: _checked(name, value) for name, value in options.items()}
    values["tasks"] = catalogue.expand(values.get("tasks", Options.tasks))
    parsed = Options(**values)
    checks.multiple("maniskill", parsed, "physics_frequency", "action_frequency")
    checks.multiple("maniskill", parsed, "action_frequency", "rendering_frequency")
    if parsed.backend == CUDA and len(parsed.tasks) > 1:
        raise SimulatorConfigError(
            f"maniskill: backend is {CUDA}, which has all worlds in one task, but tasks has {len(parsed.tasks)}; "
            f"name one, or set backend: {CPU}"
        )
    return parsed


def _checked(name: str, value: Any) -> Any:
    if name == "tasks":
        return checks.tasks("maniskill", value)
    if name == "max_episode_steps" and value is None:
        return None
    if name in _CHOICES:
        return checks.choice("maniskill", name, value, _CHOICES[name])
    return checks.number("maniskill", name, value, _NUMBERS[name])
