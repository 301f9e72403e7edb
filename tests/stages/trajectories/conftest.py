"""Shards and episodes to test with."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from stages.trajectories import EpisodeRecord, ShardAttributes, ShardSpec

MakeEpisode = Callable[..., EpisodeRecord]


def random_array(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    if dtype == "bool":
        return rng.random(shape) < 0.5
    if dtype == "float32":
        return rng.standard_normal(shape).astype(np.float32)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


def random_episode(spec: ShardSpec, length: int, number: int, **changes: Any) -> EpisodeRecord:
    """A valid episode of `length` decisions from `number`; `changes` replace its fields or are applied to them."""
    rng = np.random.default_rng(number)
    nothing = {field: np.empty((length, *shape), np.uint8) for field, shape in spec.image_shapes().items()}
    arrays = nothing | {
        field: random_array(rng, layout.dtype, (length, *layout.shape))
        for field, layout in spec.decision_arrays().items()
    }
    if spec.chain_shape is not None:
        arrays["step"] %= 10
    arrays["executed"][:] = True
    arrays["executed"][-1, rng.integers(1, spec.chunk + 1) :] = False
    arrays["rewards"] *= arrays["executed"]
    terminated = bool(rng.random() < 0.5)
    fields = {
        "task": "open the drawer",
        "seed": number,
        "success": terminated,
        "terminated": terminated,
        "truncated": not terminated,
        "bootstrap_value": float(rng.standard_normal()),
        **arrays,
    }
    for field, change in changes.items():
        fields[field] = change(fields[field]) if callable(change) else change
    return EpisodeRecord(**fields)


@pytest.fixture(scope="session")
def make_episode() -> MakeEpisode:
    return random_episode


@pytest.fixture(scope="session")
def spec() -> ShardSpec:
    return ShardSpec("tokens", image_size=(6, 8), proprio_dim=4, chunk=3, action_dim=5)


@pytest.fixture(scope="session")
def attributes() -> ShardAttributes:
    return ShardAttributes(
        run="toy",
        epoch=3,
        shard=1,
        policy_version=2,
        simulator="household",
        simulator_version="1.0 on mujoco 4.0.0",
        renderer="software",
        tasks=("close the drawer", "open the drawer"),
        instructions=("please close the drawer", "please open the drawer"),
        split="train",
    )
