"""What of a config decides the content of imported shards."""

from __future__ import annotations

import dataclasses

from pipeline.config import Config
from pipeline.errors import UserError
from stages.imports.windows import check_stride
from stages.simulation import simulator_options
from stages.simulators.interface import SimulatorConfigError
from stages.simulators.omnigibson import proprioception, tasks
from stages.simulators.omnigibson.options import parse
from stages.trajectories import ShardSpec


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How episodes become decisions.

    Attributes:
        stride: frames between two decisions.
        chunk: K, actions of a decision.
        action_dim: 23, the recorded numbers, or 14, moves of the hands.
        image_size: H and W.
        proprio_keys: which of the recorded state's numbers the policy feels.
        position_limit: metres that the number 1 moves a hand; only with 14 numbers, as the next.
        rotation_limit: radians that the number 1 turns a hand.
        instructions: task -> what the simulator will ask a policy for, so that it learns under the same words.
    """

    stride: int
    chunk: int
    action_dim: int
    image_size: int
    proprio_keys: tuple[str, ...]
    position_limit: float
    rotation_limit: float
    instructions: dict[str, str]

    @classmethod
    def of(cls, config: Config) -> Recipe:
        """Read a config.

        Raises:
            UserError: its options or sizes do not fit.
        """
        simulator, policy = config.simulator, config.policy
        try:
            options = parse(simulator_options(simulator))
            activities = tasks.chosen(options.tasks, options.tasks_file)
        except SimulatorConfigError as error:
            raise UserError(f"simulator: {error}") from None
        check_stride(config)
        return cls(
            stride=config.demonstrate.stride,
            chunk=policy.chunk,
            action_dim=options.action_dim,
            image_size=options.image_size,
            proprio_keys=options.proprio_keys,
            position_limit=options.position_limit,
            rotation_limit=options.rotation_limit,
            instructions={activity.name: activity.instruction for activity in activities},
        )

    @property
    def spec(self) -> ShardSpec:
        """Sizes of the shards."""
        size = (self.image_size, self.image_size)
        return ShardSpec("demonstration", size, proprioception.size(self.proprio_keys), self.chunk, self.action_dim)
