"""Policies look at as many cameras as they are made for, and say so where a robot has fewer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from stages.policies import interface as policies
from stages.policies.interface import Observation, Policy, PolicyInputError
from stages.policies.statistics import Statistics

SIDE = 32
SIZES: dict[str, dict[str, Any]] = {
    "openvla_oft": {"preset": "tiny", "precision": "fp32", "image_size": SIDE, "dims_per_position": 7},
    "pi0": {"preset": "tiny", "precision": "fp32"},
}


def policy(name: str, images: int) -> Policy:
    """Of a robot like LIBERO's: seven numbers an action, eight of proprioception."""
    rng = np.random.default_rng(0)
    statistics = Statistics.of(rng.uniform(-1, 1, (64, 7)), rng.uniform(-1, 1, (64, 8)), (6,))
    options = {**SIZES[name], "chunk": 4, "action_dim": 7, "proprio_dim": 8, "images": images}
    return policies.make(name, options, statistics, seed=0).eval()


def seen(wrists: int) -> Observation:
    rng = np.random.default_rng(1)
    head, wrist = (rng.integers(0, 256, (3, *shape), np.uint8) for shape in ((3, SIDE, SIDE), (2, 3, SIDE, SIDE)))
    return Observation.from_arrays(head, wrist[:, :wrists].copy(), np.zeros((3, 8), np.float32), ["go"] * 3)


@pytest.mark.parametrize("name", list(SIZES))
@pytest.mark.parametrize("images", [1, 2])
def test_cameras_that_are_not_looked_at_make_no_difference(name, images):
    acting = policy(name, images)
    actions = [acting.act(seen(wrists), None, 1.0).actions for wrists in range(images - 1, 3)]
    assert actions[0].shape == (3, 4, 7)
    assert all(torch.equal(actions[0], other) for other in actions[1:])


@pytest.mark.parametrize("name", list(SIZES))
def test_a_policy_that_looks_at_more_than_there_is_says_so(name):
    for images, wrists, cameras in (
        (2, 0, "1 camera, none at a wrist: set policy.options.images=1"),
        (3, 0, "1 camera, none at a wrist: set policy.options.images=1"),
        (3, 1, "2 cameras, 1 at a wrist: set policy.options.images=2"),
    ):
        with pytest.raises(PolicyInputError) as refused:
            policy(name, images).act(seen(wrists), None, 1.0)
        assert str(refused.value) == (
            f"the policy looks at {images} images, the simulator has {cameras}, or start from another policy.checkpoint"
        )
