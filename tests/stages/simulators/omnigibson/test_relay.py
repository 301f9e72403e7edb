"""A run on OmniGibson: a trained policy is adopted, plays, is updated by PPO on what it played, and is evaluated."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from pipeline import compose, rundir
from pipeline.artifacts import Unit, open_artifact
from stages.policies import interface as policies
from stages.policies.statistics import Statistics
from stages.trajectories import read
from tests.stages.conftest import Tiny

from .conftest import FAKES, ROOT

pytestmark = pytest.mark.slow

CHUNK, LIMIT = 4, 10
RECIPE = f"""
epochs: 1
simulator:
  name: omnigibson
  image_size: 32
  max_episode_steps: {LIMIT}
policy: {{precision: fp32, chunk: {CHUNK}, action_dim: 14}}
sft: {{steps: 0}}
rollout: {{episodes: 6, num_envs: 4, num_workers: 2, pipeline_stage_num: 2}}
update: {{minibatch: 8, passes: 1, processes: 1, threads: 1}}
evaluate: {{episodes: 2, num_envs: 2, threads: 1}}
video_cfg: {{episodes: 1, rollout_episodes: 0}}
trainer: {{logger: {{mlflow: {{enable: false}}}}}}
"""


@pytest.fixture(scope="module")
def relay(tmp_path_factory, data):
    """The four units in their order, on the build of RLinf's fork; the evaluation on 3.9."""
    folder = tmp_path_factory.mktemp("relay")
    rng = np.random.default_rng(0)
    sizes = {"chunk": CHUNK, "action_dim": 14, "proprio_dim": 18, "image_size": 32}
    statistics = Statistics.of(rng.uniform(-1, 1, (64, 14)), rng.uniform(-1, 1, (64, 18)))
    (folder / "trained").mkdir()
    policies.make("openvla_oft", {"preset": "tiny", "precision": "fp32", **sizes}, statistics, 0).save(
        folder / "trained"
    )
    (folder / "omnigibson.yaml").write_text(RECIPE)
    overrides = [f"runs_dir={folder}", f"policy.checkpoint={folder / 'trained'}"]
    tiny = Tiny(rundir.create_or_resume(compose.compose(folder / "omnigibson.yaml", overrides)))
    for unit, build in (
        (Unit(0, "sft"), "b_fork"),
        (Unit(1, "rollout", 0), "b_fork"),
        (Unit(1, "update"), "b_fork"),
        (Unit(1, "evaluate"), "c"),
    ):
        path = os.pathsep.join(map(str, (ROOT, FAKES / "common", FAKES / build)))
        variables = {"OMNIGIBSON_DATA_PATH": str(data), "BATON_OMNIGIBSON_ANY_PYTHON": "1", "PYTHONPATH": path}
        code, output = tiny.start(unit, TMPDIR=str(folder), **variables).end()
        assert code == 0, output
    return tiny


def manifest(relay, unit):
    artifact = open_artifact(relay.run / unit.marker)
    assert artifact is not None
    return artifact.verify().manifest


def test_rollouts_are_published(relay):
    shard = read(relay.run / Unit(1, "rollout", 0).marker)
    [source] = shard.sources
    assert (source.simulator, source.simulator_version, source.split) == ("omnigibson", "3.7.2", "train")
    assert shard.tasks == ("turning_on_radio",)
    assert "radio" in shard.instructions[0]
    episodes = shard.episodes
    assert len(episodes) == 6
    assert shard.proprio.shape == (len(shard), 18)
    head, wrist = shard.load_images()
    assert (head.shape[1:], wrist.shape[1:]) == ((3, 32, 32), (2, 3, 32, 32))
    for index in range(6):
        mine = shard.episode_of_decision == index
        steps, gained = shard.executed[mine].sum(), shard.rewards[mine].sum()
        assert episodes.success[index] or (episodes.truncated[index] and steps == LIMIT)
        assert episodes.success[index] == (gained == pytest.approx(1.0))  # the potential of both hands


def test_the_update_learns_from_them(relay):
    metrics = manifest(relay, Unit(1, "update")).metrics
    assert np.isfinite([metrics["actor/loss"], metrics["actor/value_loss"], metrics["actor/grad_norm"]]).all()
    assert metrics["actor/grad_norm"] > 0


def test_the_evaluation_plays_held_out_instances_and_scores_them(relay):
    folder = relay.run / Unit(1, "evaluate").marker
    lines = [json.loads(line) for line in (folder / "episodes.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    assert all(0 <= line["q_score"] <= 1 and (line["q_score"] == 1) == line["success"] for line in lines)
    assert len(list((folder / "videos").glob("*.mp4"))) == 1
    about = json.loads((folder / "simulator.json").read_text())
    assert (about["name"], about["version"], about["split"]) == ("omnigibson", "3.9.2", "evaluation")
    metrics = manifest(relay, Unit(1, "evaluate")).metrics
    assert metrics["env/q_score"] == pytest.approx(np.mean([line["q_score"] for line in lines]))
