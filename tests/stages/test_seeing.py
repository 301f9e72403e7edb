"""Decisions look alike whether their images are held in memory or read from disk."""

from __future__ import annotations

import numpy as np
import torch

from stages.seeing import observer
from stages.trajectories import ShardAttributes, ShardSpec, ShardWriter, read
from tests.stages.trajectories.conftest import random_episode


def test_decisions_look_alike_from_memory_and_from_disk(tmp_path):
    spec = ShardSpec("demonstration", image_size=(6, 8), proprio_dim=4, chunk=3, action_dim=5)
    about = ShardAttributes("toy", 0, 0, None, "household", "1", "software", ("open the drawer",), ("open",), "train")
    with ShardWriter(tmp_path / "shard", spec, about) as writer:
        for number, length in enumerate((70, 5)):
            writer.append(random_episode(spec, length, number))
    shard = read(tmp_path / "shard")
    rows = np.array([74, 3, 3, 66, 0])
    held, fetched = (observer(shard, most)(rows) for most in (75 * 9 * 6 * 8, 75 * 9 * 6 * 8 - 1))
    for name in ("head", "wrist", "proprio"):
        assert torch.equal(getattr(held, name), getattr(fetched, name))
    assert list(held.instructions) == list(fetched.instructions) == ["open"] * 5
    assert not torch.equal(held.head[0], held.head[1])
