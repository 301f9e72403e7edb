"""What the update makes of a shard: advantages and returns."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from pipeline.config import Algorithm
from stages.trajectories import EpisodeRecord, ShardAttributes, ShardSpec, ShardWriter, Trajectories, read
from stages.update import Targets, prepare, that_teach

SPEC = ShardSpec("tokens", image_size=(4, 4), proprio_dim=2, chunk=2, action_dim=3)
ORIGIN = ShardAttributes("toy", 1, 0, 0, "household", "", "", ("stack",), ("stack them",), "train")


def played(path: Path, bootstrap_value: float, terminated: bool) -> Trajectories:
    """A shard of one episode of three decisions, without rewards, each valued a half."""
    arrays = {field: np.zeros((3, *layout.shape), layout.dtype) for field, layout in SPEC.decision_arrays().items()}
    arrays["executed"][:] = True
    arrays["values"][:] = 0.5
    with ShardWriter(path, SPEC, ORIGIN) as writer:
        writer.append(
            EpisodeRecord(
                task="stack",
                seed=0,
                success=False,
                terminated=terminated,
                truncated=not terminated,
                bootstrap_value=bootstrap_value,
                **arrays,
            )
        )
    return read(path)


@pytest.mark.parametrize(
    ("time_limit", "terminated", "beyond"), [("end", False, 0.0), ("bootstrap", False, 0.8), ("bootstrap", True, 0.0)]
)
def test_what_lies_beyond_the_step_limit(
    tmp_path: Path, time_limit: Literal["end", "bootstrap"], terminated: bool, beyond: float
) -> None:
    algorithm = Algorithm(time_limit=time_limit, gamma=0.9, gae_lambda=1.0)
    targets = prepare(algorithm, played(tmp_path / "shard", 0.8, terminated))
    assert targets.returns.tolist() == pytest.approx([beyond * 0.9**3, beyond * 0.9**2, beyond * 0.9])


def masked(mask: list[list[bool]]) -> Targets:
    """Decisions of which only the mask says anything."""
    nothing = torch.zeros(len(mask))
    return Targets({}, nothing[:, None, None], nothing, nothing, nothing, torch.tensor(mask))


def test_decisions_that_no_step_counts_of_are_left_out() -> None:
    mask = [[True, True], [False, False], [True, False], [False, False], [False, True]]
    assert that_teach(masked(mask), ranks=2).tolist() == [0, 2, 4]


def test_every_rank_has_something_to_do() -> None:
    few = that_teach(masked([[False], [True], [True], [False]]), ranks=5)
    assert {len(few[rank::5]) for rank in range(5)} == {1}
    assert set(few.tolist()) == {1, 2}
    assert that_teach(masked([[False]] * 3), ranks=2).tolist() == [0, 1, 2]
