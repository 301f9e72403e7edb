"""The household, but it cannot be reset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stages.simulators import interface
from stages.simulators.interface import Episode, Simulator


def make(num_envs: int, options: Mapping[str, Any]) -> Simulator:
    simulator = interface.make("household", num_envs, options)

    def reset(slots: Sequence[int], episodes: Sequence[Episode], film: Sequence[bool]) -> None:
        raise RuntimeError("the cupboard is bewitched")

    setattr(simulator, "reset", reset)  # noqa: B010
    return simulator
