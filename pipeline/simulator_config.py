"""What a run says of its simulator."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from pipeline.block import Block, Count, Index, Positive


class Simulator(Block):
    """The simulator and its tasks."""

    name: str = "household"
    """folder under stages/simulators"""
    python: str | None = None
    """interpreter of the simulator's worker processes; null: the one Baton runs in"""
    tasks: Annotated[list[str], Field(min_length=1)] = ["pick_onto_plate"]
    """tasks to train and evaluate on, and suites, each for all its tasks; episodes are spread over them evenly"""
    image_size: Annotated[int, Field(ge=32)] = 224
    """height and width of every camera image, pixels"""
    action_frequency: Count = 20
    """actions a second"""
    physics_frequency: Count = 200
    """physics steps a second, a multiple of action_frequency"""
    rendering_frequency: Count = 20
    """frames a second of filmed episodes, a divisor of action_frequency"""
    max_episode_steps: Count | None = None
    """actions after which an episode is cut off; null: each task's own limit"""
    options: dict[str, Any] = {}
    """what only this simulator knows, e.g. object sizes; passed to it as it is"""
    timeout: Positive = 120.0
    """seconds a worker may take for one command before it counts as hung"""
    start_timeout: Positive = 300.0
    """seconds a worker may take to come up"""
    max_restarts: Index = 10
    """how often a unit may replace a lost worker before it gives up"""
    recycle_episodes: Count | None = None
    """episodes after which a worker process is replaced, for simulators that leak memory; null: never"""

    @model_validator(mode="after")
    def frequencies_divide(self) -> Simulator:
        """Refuse frequencies that do not divide."""
        if self.physics_frequency % self.action_frequency:
            raise ValueError(
                f"physics_frequency {self.physics_frequency} is not a multiple of "
                f"action_frequency {self.action_frequency}"
            )
        if self.action_frequency % self.rendering_frequency:
            raise ValueError(
                f"rendering_frequency {self.rendering_frequency} does not divide "
                f"action_frequency {self.action_frequency}"
            )
        return self
