"""One ManiSkill environment as a row of b worlds of a task: torch tensors with a leading world axis, on its device.

ManiSkill runs one world on the CPU (physx_cpu, b = 1) or all of them together on a GPU (physx_cuda); this is the same
code for both.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from stages.simulators.maniskill import arms, expert

State = dict[str, dict[str, torch.Tensor]]  # of actors and of articulations, by their names: [b, D]


@dataclasses.dataclass
class Outcome:
    """What a step brought to b worlds.

    Attributes:
        reward: float32 [b].
        success: bool [b].
        failure: bool [b], the episode cannot succeed any more.
    """

    reward: torch.Tensor
    success: torch.Tensor
    failure: torch.Tensor


class Worlds:
    """The b worlds of `env`, which are all in one task."""

    def __init__(self, env: Any, task: str) -> None:
        """Wrap ManiSkill's `BaseEnv` of a task."""
        self.env, self.task = env, task
        self.count: int = env.num_envs
        self.device: torch.device = env.device

    def reset(self, row: int, seed: int) -> None:
        """Put one world at the start of an episode; the others stay where they are.

        ManiSkill seeds all worlds of a reset by the first one's seed, so worlds are reset one after the other: only
        then does an episode begin the same way whatever else is reset with it.
        """
        env = self.env
        theirs = self._start_joints()
        with self._seeded(seed):
            env._episode_rng = env._batched_episode_rng.rngs[row] = np.random.RandomState(seed)
            env.reset(options={"env_idx": torch.tensor([row], device=self.device)})
        if theirs is not None:
            theirs[row] = self._start_joints()[row]
            env.left_init_qpos = theirs

    def step(self, actions: torch.Tensor) -> Outcome:
        """Let all worlds act.

        Args:
            actions: float32 [b, A] in [-1, 1], on the worlds' device.
        """
        _, reward, _, _, told = self.env.step(arms.split(self.env, actions))
        nobody = torch.zeros(self.count, dtype=torch.bool, device=self.device)
        return Outcome(reward.reshape(-1).float(), told.get("success", nobody), told.get("fail", nobody))

    def state(self) -> State:
        """Where everything is and how it moves."""
        told: Mapping[str, Mapping[str, torch.Tensor]] = self.env.get_state_dict()
        return {kind: {name: each.clone() for name, each in told[kind].items()} for kind in ("actors", "articulations")}

    def put(self, rows: Sequence[int], state: State) -> None:
        """Put worlds to where they were when `state` [b, D] was taken; the others stay where they are.

        It is exact to single precision. PhysX keeps to itself the forces that it starts its next solution from, so a
        world that goes on from here does so in a slightly other way.
        """
        chosen = torch.tensor(sorted(rows), device=self.device)
        part = {kind: {name: each[chosen] for name, each in named.items()} for kind, named in state.items()}
        self.env.set_state_dict(part, chosen)

    def look(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What the cameras show: uint8 head [b, 3, H, W] and wrist [b, V, 3, H, W]."""
        from stages.simulators.maniskill import pictures  # which loads ManiSkill

        return pictures.draw(self.env)

    def proprioception(self) -> torch.Tensor:
        """What the robots feel of themselves, float32 [b, P]."""
        return arms.proprioception(self.env)

    def sight(self) -> expert.Sight:
        """What the task's expert sees."""
        return expert.look(self.env, self.task)

    def close(self) -> None:
        """Free ManiSkill's scene."""
        self.env.close()

    def _seeded(self, seed: int) -> contextlib.AbstractContextManager[Any]:
        """Torch's random numbers, on the CPU and the worlds' device, are those of a seed."""
        devices = [self.device] if self.device.type == "cuda" else []
        stack = contextlib.ExitStack()
        stack.enter_context(torch.random.fork_rng(devices))
        torch.manual_seed(seed)
        return stack

    def _start_joints(self) -> Any:
        """Where TwoRobotPickCube noted that the left arm began; a reset of one world overwrites it for all of them."""
        noted = getattr(self.env, "left_init_qpos", None)
        return None if noted is None else noted.clone()


def rows_of(state: State, rows: Sequence[int]) -> dict[str, dict[str, np.ndarray]]:
    """Some worlds' part of a state, as numpy arrays."""
    return {
        kind: {name: each[list(rows)].cpu().numpy() for name, each in named.items()} for kind, named in state.items()
    }
