"""The scripted expert that acts in the simulators, and what is made of its episodes: windows of K actions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stages.lineup import Planned
from stages.play import Played, Sent
from stages.simulators.interface import Observation
from stages.simulators.pool import Demonstrated, SimulatorPool, Start
from stages.trajectories import EpisodeRecord


class ExpertActor:
    """The scripted expert acts by itself, `stride` steps a turn; its episodes have no values.

    Args:
        pool: the simulators.
        stride: K, actions between two observations.
    """

    def __init__(self, pool: SimulatorPool, stride: int) -> None:
        assert pool.lent is None, "images of demonstrations pass through main memory"
        self._pool, self._stride = pool, stride

    def act(
        self,
        slots: Sequence[int],
        seen: Observation,
        planned: Sequence[Planned],
        then: Sequence[Start | None],
    ) -> Sent:
        """See Actor.act."""

        def note(acted: Demonstrated) -> dict[str, np.ndarray]:
            return {"actions": acted.actions, "clean": acted.clean}

        return Sent(self._pool.expert_async(slots, self._stride, then), note)

    def judge(self, seen: Observation, planned: Sequence[Planned]) -> list[float]:
        """See Actor.judge."""
        return [0.0] * len(planned)


def windows(played: Played, chunk: int) -> EpisodeRecord:
    """Turn an episode of pieces of `stride` steps into decisions of `chunk` actions, which overlap if they are longer.

    Args:
        played: an episode of the expert.
        chunk: K, at least `stride`.

    Returns:
        The episode. A reward stands in the first window that holds its step; past the end nothing is executed.
    """
    pieces, stride = played.executed.shape
    steps = {
        name: part.reshape(pieces * stride, *part.shape[2:])
        for name, part in {**played.acted, "executed": played.executed}.items()
    }
    index = np.arange(pieces)[:, None] * stride + np.arange(chunk)[None]
    inside = index < pieces * stride
    index = np.minimum(index, pieces * stride - 1)
    executed = steps["executed"][index] & inside
    # An action after a burst corrects what this observation cannot show: nothing behind the first burst is imitated.
    clean = np.logical_and.accumulate(steps["clean"][index] | ~executed, axis=1)
    rewards = np.zeros(executed.shape, np.float32)
    rewards[:, :stride] = played.rewards
    return EpisodeRecord(
        task=played.planned.task,
        seed=played.planned.seed,
        group=played.planned.group,
        success=played.success,
        terminated=played.terminated,
        truncated=played.truncated,
        head=played.head,
        wrist=played.wrist,
        proprio=played.proprio,
        actions=steps["actions"][index],
        rewards=rewards,
        executed=executed,
        clean=clean,
    )
