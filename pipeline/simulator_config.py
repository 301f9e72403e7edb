"""What a run says of its simulator."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from pipeline import simulator_options
from pipeline.block import Block, Count, Index, Positive

OWN_DEFAULTS: dict[str, dict[str, Any]] = {
    "omnigibson": {
        "tasks": ["turning_on_radio"],
        "action_frequency": 30,
        "physics_frequency": 120,
        "rendering_frequency": 30,
        "timeout": 600.0,
        "start_timeout": 1800.0,
    },
    "libero": {
        "tasks": ["libero_object"],
        "physics_frequency": 500,
        "timeout": 300.0,
        "start_timeout": 600.0,
    },
    "maniskill": {
        "tasks": ["TwoRobotPickCube-v1"],
        "physics_frequency": 100,
        "timeout": 300.0,
        "start_timeout": 900.0,
    },
}
"""Defaults of fields by the simulator's name, where they are not those of the household."""

NESTED = {"omnigibson": (("physics_frequency", "rendering_frequency"), ("rendering_frequency", "action_frequency"))}
"""Which rates have to be multiples of which others; OmniGibson renders within a step, others at most once a step."""


class Simulator(Block):
    """The simulator and its tasks."""

    name: str = "household"
    """folder under stages/simulators"""
    python: str | None = None
    """interpreter of the simulator's processes; null: of the environment `baton env create` built, else Baton's own"""
    tasks: Annotated[list[str], Field(min_length=1)] = ["pick_onto_plate"]
    """tasks to train and evaluate on, and suites, each for all its tasks; episodes are spread over them evenly"""
    image_size: Annotated[int, Field(ge=32)] = 224
    """height and width of every camera image, pixels"""
    action_frequency: Count = 20
    """actions a second; in omnigibson 30, in libero always 20"""
    physics_frequency: Count = 200
    """physics steps a second, a multiple of action_frequency; omnigibson 120, libero 500, maniskill 100"""
    rendering_frequency: Count = 10
    """frames a second of films, a divisor of action_frequency; in omnigibson 30, a multiple of it"""
    max_episode_steps: Count | None = None
    """actions after which an episode is cut off; null: the task's own limit, in omnigibson twice what people took"""
    options: dict[str, Any] = {}
    """what only this simulator knows, e.g. object sizes; passed to it as it is"""
    timeout: Positive = 120.0
    """seconds a worker may take for one command before it counts as hung; omnigibson 600, libero and maniskill 300"""
    start_timeout: Positive = 300.0
    """seconds a worker may take to come up; in omnigibson 1800, in maniskill 900, in libero 600"""
    max_restarts: Index = 10
    """how often a unit may replace a lost worker before it gives up"""
    recycle_episodes: Count | None = None
    """episodes after which a worker process is replaced, for simulators that leak memory; null: never"""

    @model_validator(mode="before")
    @classmethod
    def own_defaults(cls, values: Any) -> Any:
        """Fill in what is left out and is not as in the household."""
        if isinstance(values, dict) and isinstance(values.get("name"), str):
            return OWN_DEFAULTS.get(values["name"], {}) | values
        return values

    @model_validator(mode="after")
    def options_are_known(self) -> Simulator:
        """Refuse options that the simulator does not have, and values that it does not take."""
        simulator_options.check(self.name, self.options, dict(self))
        return self

    @model_validator(mode="after")
    def frequencies_divide(self) -> Simulator:
        """Refuse rates that do not divide, and that OmniGibson's arithmetic rounds down."""
        usual = (("physics_frequency", "action_frequency"), ("action_frequency", "rendering_frequency"))
        for larger, smaller in NESTED.get(self.name, usual):
            if getattr(self, larger) % getattr(self, smaller):
                raise ValueError(
                    f"{larger} {getattr(self, larger)} is not a multiple of {smaller} {getattr(self, smaller)}"
                )
        if self.name == "omnigibson":
            meant = self.rendering_frequency // self.action_frequency
            drawn = int((1 / self.action_frequency) // (1 / self.rendering_frequency))
            if drawn != meant:
                raise ValueError(
                    f"action_frequency {self.action_frequency} and rendering_frequency {self.rendering_frequency}: "
                    f"OmniGibson would draw {drawn} frames a step, not {meant}, because of rounding; "
                    f"set rendering_frequency to {self.action_frequency}"
                )
        return self
