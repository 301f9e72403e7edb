"""A policy that acts in the simulators."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from stages.lineup import Planned
from stages.metrics import Phases
from stages.play import Sent
from stages.policies import interface as policies
from stages.simulators.interface import Observation
from stages.simulators.pool import SimulatorPool, Start


class PolicyActor:
    """A policy decides for all worlds of a group at once.

    Args:
        pool: the simulators.
        policy: decides.
        temperature: of the distribution that actions are drawn from.
        coherent: one draw a dimension, shared by the steps of a chunk.
        phases: where the seconds of the policy are counted.
    """

    def __init__(
        self, pool: SimulatorPool, policy: policies.Policy, *, temperature: float, coherent: bool, phases: Phases
    ) -> None:
        self._pool, self._policy = pool, policy
        self._temperature, self._coherent, self._phases = temperature, coherent, phases
        self._instructions = {task.name: task.instruction for task in pool.spec.tasks}

    def act(
        self,
        slots: Sequence[int],
        seen: Observation,
        planned: Sequence[Planned],
        then: Sequence[Start | None],
    ) -> Sent:
        """See Actor.act."""
        with self._phases("policy"):
            decision = self._policy.act(self._observation(seen, planned), self._noise(planned), self._temperature)
            decided = {
                "actions": decision.actions.cpu().numpy(),
                **{name: stored(taken) for name, taken in decision.taken.items()},
                "log_probs": decision.log_probs.cpu().numpy(),
                "values": decision.values.cpu().numpy(),
            }
        return Sent(self._pool.step_async(slots, decided["actions"], then), lambda _: decided)

    def judge(self, seen: Observation, planned: Sequence[Planned]) -> list[float]:
        """See Actor.judge."""
        with self._phases("policy"):
            decision = self._policy.act(self._observation(seen, planned), None, self._temperature)
            return [float(value) for value in decision.values.cpu()]

    def _noise(self, planned: Sequence[Planned]) -> torch.Tensor | None:
        if planned[0].noise is None:
            return None
        rows = [self._policy.draw_noise(each.noise, self._coherent) for each in planned if each.noise is not None]
        return torch.from_numpy(np.stack(rows)).to(self._policy.device)

    def _observation(self, seen: Observation, planned: Sequence[Planned]) -> policies.Observation:
        instructions = [self._instructions[each.task] for each in planned]
        arrays = seen.head, seen.wrist, seen.proprio
        return policies.Observation.from_arrays(*arrays, instructions).to(self._policy.device)


def stored(taken: torch.Tensor) -> np.ndarray:
    """What was taken as a shard takes it: whole numbers as int16."""
    array = taken.cpu().numpy()
    return array if array.dtype == np.float32 else array.astype(np.int16)
