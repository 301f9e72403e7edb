"""What is told of a shard of demonstrations."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Config
from pipeline.errors import UserError
from stages.demonstrations import Attempt, gather, metrics
from stages.simulators.interface import HELD_OUT, split_of
from stages.trajectories import ShardAttributes, ShardSpec, ShardWriter
from tests.stages.trajectories.conftest import random_episode

attempts = st.builds(
    lambda task, success, only, steps: Attempt(task, success, success or not only, -(-steps // 4), steps),
    st.sampled_from(["open", "close", "stack"]),
    st.booleans(),
    st.booleans(),
    st.integers(1, 100),
)


@given(st.lists(attempts, min_size=1).filter(lambda them: any(each.kept for each in them)))
def test_the_numbers_of_the_tasks_add_up_to_the_whole(them):
    told = metrics(them)
    tasks = {each.task for each in them}
    assert {name.rpartition("/")[2] for name in told if name.count("/") == 2} == tasks
    assert told["rollout/decisions"] == sum(each.decisions for each in them if each.kept)
    for name in ("rollout/played", "rollout/episodes"):
        assert told[name] == sum(told[f"{name}/{task}"] for task in tasks)
    for name, weight in (("success_rate", "played"), ("episode_length", "episodes")):
        parts = [(told.get(f"rollout/{name}/{task}", 0.0), told[f"rollout/{weight}/{task}"]) for task in tasks]
        values, weights = zip(*parts, strict=True)
        assert told[f"rollout/{name}"] == pytest.approx(np.average(values, weights=weights))


def test_a_task_of_which_nothing_was_kept_has_no_mean():
    told = metrics([Attempt("open", True, True, 3, 12), Attempt("close", False, False, 20, 80)])
    assert told["rollout/episode_length"] == told["rollout/episode_length/open"] == 12
    assert "rollout/episode_length/close" not in told
    assert (told["rollout/success_rate/close"], told["rollout/played/close"]) == (0, 1)


def imported(folder: Path, seed: int) -> Any:
    """A unit that learns from an imported shard of one episode, which begins from the state of this seed."""
    spec = ShardSpec("demonstration", image_size=(6, 6), proprio_dim=8, chunk=8, action_dim=7, wrist_cameras=1)
    about = ShardAttributes("set", 0, 0, None, "libero", "1", "films", ("open the drawer",), ("open",), split_of(seed))
    with ShardWriter(folder / "shard", spec, about) as writer:
        writer.append(random_episode(spec, 3, 1, seed=seed))
    (folder / "import.json").write_text('{"shards": 1, "gripper": "robosuite"}')
    blocks = {
        "demonstrate": {"imported": str(folder)},
        "policy": {"action_dim": 7},
        "simulator": {"name": "lab.libero", "image_size": 32},
    }
    config = Config.model_validate({"name": "x", **blocks})
    config = config.model_copy(update={"simulator": config.simulator.model_copy(update={"image_size": 6})})
    return SimpleNamespace(config=config, run=folder, require_imported=lambda _: [folder / "shard"])


def test_demonstrations_from_states_that_are_held_out_are_refused(tmp_path):
    (tmp_path / "training").mkdir()
    assert len(gather(imported(tmp_path / "training", HELD_OUT - 1))) == 3
    with pytest.raises(UserError) as refused:
        gather(imported(tmp_path, HELD_OUT + 7))
    assert str(refused.value) == (
        f"{tmp_path / 'config.yaml'}: demonstrate.imported={tmp_path} holds episodes from the initial states that are "
        "held out for evaluation: import others into another directory and name that"
    )


def test_demonstrations_whose_gripper_opens_the_other_way_are_refused(tmp_path):
    work = imported(tmp_path, 1)
    (tmp_path / "import.json").write_text('{"shards": 1, "gripper": "openvla"}')
    with pytest.raises(UserError) as refused:
        gather(work)
    assert str(refused.value) == (
        f"{tmp_path / 'config.yaml'}: simulator.options.gripper=robosuite, but the shards in demonstrate.imported="
        f"{tmp_path} were imported with openvla: set simulator.options.gripper=openvla, or import again into another "
        "directory"
    )
