"""The household simulator's config block: its fields, their defaults and what is wrong with a bad one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from stages.simulators import options as checks
from stages.simulators.household import catalogue
from stages.simulators.household.scene import CAMERAS
from stages.simulators.interface import SimulatorConfigError

BACKENDS = ("auto", "mujoco", "mujoco_warp")
RENDERERS = ("auto", "egl", "osmesa", "raycast", "mujoco_warp")
REWARDS = ("sparse", "dense")
ARMS = ("both", "right")
PRACTICE = "practice"
# What only the practice suite lets you choose.
PRACTICE_ONLY = ("object_size", "plate_radius", "arms", "distractors")


@dataclasses.dataclass(frozen=True)
class Options:
    """What can be chosen about the household.

    Attributes:
        tasks: what the robot is asked to do: names of tasks and of suites (tasks.jsonl); a suite stands for its tasks.
        backend: what moves the worlds; mujoco_warp is made for a GPU and a thousand worlds, and takes the packages of
            the extra `warp`; auto takes it where there are a GPU, those packages and at least 64 worlds a process.
        image_size: height and width of every observed camera, in pixels.
        wrist_cameras: how many of the hands' cameras are drawn, observed and recorded beside the head's: both, the left
            one or none.
        action_frequency: control steps a second; divides the physics frequency.
        physics_frequency: physics steps a second.
        rendering_frequency: filmed frames a second; divides the action frequency, in between a frame is repeated.
        max_episode_steps: step limit of an episode; None is the task's own.
        renderer: what draws the images; auto takes mujoco_warp where that moves the worlds on a GPU, else the first of
            egl, osmesa and raycast that works.
        images_on_gpu: images that mujoco_warp draws stay on the GPU if the policy decides there too; false passes them
            through main memory, as is done anyway where the GPUs differ.
        reward: sparse pays 1 at the step that succeeds; dense adds a potential difference to every step.
        object_size: edge of a cube of the practice suite, in metres.
        plate_radius: radius of the practice suite's plate, in metres.
        spread: scales the randomisation of the layout, 0 is the nominal layout, 1 the whole one.
        arms: both puts the practice suite's target on either side, right always on the right arm's side.
        distractors: how many cubes a task of the practice suite does not speak of.
        expert_perturbation: probability a step that a burst of random motion starts in the expert's actions.
    """

    tasks: tuple[str, ...] = (PRACTICE,)
    backend: str = "auto"
    image_size: int = 224
    wrist_cameras: int = 2
    action_frequency: int = 20
    physics_frequency: int = 200
    rendering_frequency: int = 10
    max_episode_steps: int | None = None
    renderer: str = "auto"
    images_on_gpu: bool = True
    reward: str = "sparse"
    object_size: float = 0.04
    plate_radius: float = 0.08
    spread: float = 1.0
    arms: str = "both"
    distractors: int = 1
    expert_perturbation: float = 0.0

    @property
    def substeps(self) -> int:
        """Physics steps in a control step."""
        return self.physics_frequency // self.action_frequency

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras that are drawn, the head's first."""
        return CAMERAS[: 1 + self.wrist_cameras]


# A bound says what the scene and its physics were made for.
_NUMBERS: dict[str, checks.Bounds] = {
    "image_size": (int, 32, 1024),
    "wrist_cameras": (int, 0, 2),
    "action_frequency": (int, 5, 100),
    "physics_frequency": (int, 100, 2000),
    "rendering_frequency": (int, 1, 100),
    "max_episode_steps": (int, 1, 100_000),
    "object_size": (float, 0.02, 0.06),
    "plate_radius": (float, 0.05, 0.1),
    "spread": (float, 0.0, 1.0),
    "distractors": (int, 0, 3),
    "expert_perturbation": (float, 0.0, 1.0),
}
_CHOICES = {"backend": BACKENDS, "renderer": RENDERERS, "reward": REWARDS, "arms": ARMS}


def parse(options: Mapping[str, Any]) -> Options:
    """Check a config block and fill in its defaults.

    Args:
        options: field names of Options and their values.

    Raises:
        SimulatorConfigError: a field is unknown or its value is out of range; the message says what is possible.
    """
    checks.known("household", options, [field.name for field in dataclasses.fields(Options)])
    values = {name: _checked(name, value) for name, value in options.items()}
    values["tasks"] = catalogue.expand(values.get("tasks", Options.tasks))
    others = [name for name in values["tasks"] if catalogue.entries()[name].suite != PRACTICE]
    for name in PRACTICE_ONLY:
        if name in values and others:
            raise SimulatorConfigError(
                f"household: {name} is {values[name]!r}, but {others[0]} has no such option; it is the practice suite's"
            )
    parsed = Options(**values)
    checks.multiple("household", parsed, "physics_frequency", "action_frequency")
    checks.multiple("household", parsed, "action_frequency", "rendering_frequency")
    return parsed


def _checked(name: str, value: Any) -> Any:
    if name == "tasks":
        return checks.tasks("household", value)
    if name == "max_episode_steps" and value is None:
        return None
    if name == "images_on_gpu":
        return checks.switch("household", name, value)
    if name in _CHOICES:
        return checks.choice("household", name, value, _CHOICES[name])
    return checks.number("household", name, value, _NUMBERS[name])
