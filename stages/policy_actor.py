"""A policy that acts in the simulators."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from stages.gallery import gallery
from stages.lineup import Planned
from stages.metrics import Phases
from stages.play import Sent
from stages.policies import interface as policies
from stages.simulators.interface import Observation
from stages.simulators.pool import SimulatorPool, Start, Stepped


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
        self._gallery = gallery(pool, policy.device)
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
            if self._gallery is not None:
                self._gallery.fetch(slots)
            images = _images(seen) if self._gallery is None else self._gallery.look(slots)
            observation = self._observation(*images, seen, planned)
            decision = self._policy.act(observation, self._noise(planned), self._temperature)
            decided = {
                "actions": decision.actions.cpu().numpy(),
                **{name: stored(taken) for name, taken in decision.taken.items()},
                "log_probs": decision.log_probs.cpu().numpy(),
                "values": decision.values.cpu().numpy(),
            }
            kept = None if self._gallery is None else self._gallery.keep(seen)

        def note(stepped: Stepped) -> dict[str, np.ndarray]:
            if kept is not None:
                kept.result()
            return decided

        return Sent(self._pool.step_async(slots, decided["actions"], then), note)

    def judge(self, seen: Observation, planned: Sequence[Planned]) -> list[float]:
        """See Actor.judge."""
        with self._phases("policy"):
            decision = self._policy.act(self._observation(*_images(seen), seen, planned), None, self._temperature)
            return [float(value) for value in decision.values.cpu()]

    def _noise(self, planned: Sequence[Planned]) -> torch.Tensor | None:
        if planned[0].noise is None:
            return None
        rows = [self._policy.draw_noise(each.noise, self._coherent) for each in planned if each.noise is not None]
        return torch.from_numpy(np.stack(rows)).to(self._policy.device)

    def _observation(
        self, head: torch.Tensor, wrist: torch.Tensor, seen: Observation, planned: Sequence[Planned]
    ) -> policies.Observation:
        instructions = [self._instructions[each.task] for each in planned]
        proprio = torch.from_numpy(seen.proprio)
        return policies.Observation(head, wrist, proprio, instructions).to(self._policy.device)


def _images(seen: Observation) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(seen.head), torch.from_numpy(seen.wrist)


def stored(taken: torch.Tensor) -> np.ndarray:
    """What was taken as a shard takes it: whole numbers as int16."""
    array = taken.cpu().numpy()
    return array if array.dtype == np.float32 else array.astype(np.int16)
