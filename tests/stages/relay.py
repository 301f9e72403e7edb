"""A run of a public simulator at a small size, from demonstrations to the evaluation of what was learnt from them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from pipeline import compose, rundir
from pipeline.artifacts import Unit, open_artifact
from stages.simulators.interface import HELD_OUT
from stages.trajectories import read
from tests.stages.conftest import Tiny

RECIPE = """
epochs: 1
simulator: {{name: {name}, tasks: [{task}], image_size: 32, max_episode_steps: 16}}
policy: {{precision: fp32, chunk: 8, action_dim: {actions}, options: {{dims_per_position: {actions}}}}}
demonstrate: {{episodes: 2, num_envs: 2, stride: 8, max_episode_steps: 24, only_success: false}}
sft: {{steps: 2, batch: 4, threads: 1, processes: 1}}
rollout: {{episodes: 4, group_size: 2, num_envs: 2, pipeline_stage_num: 2}}
algorithm: {{name: grpo, entropy_coef: 0.01}}
update: {{minibatch: 4, threads: 1, processes: 1}}
evaluate: {{episodes: 2, num_envs: 2, threads: 1}}
video_cfg: {{episodes: {films}, rollout_episodes: 0, demonstration_episodes: 0}}
trainer: {{logger: {{mlflow: {{enable: false}}}}}}
"""
UNITS = (Unit(0, "demonstrate", 0), Unit(0, "sft"), Unit(1, "rollout", 0), Unit(1, "update"), Unit(1, "evaluate"))


def relay(folder: Path, name: str, task: str, actions: int, python: str | None, films: int, *overrides: str) -> Tiny:
    """Carry a run out, unit by unit.

    Args:
        folder: where the run goes.
        name: of the simulator.
        task: the run's only one.
        actions: numbers of an action.
        python: the simulator's interpreter; None: as the config has it.
        films: of the evaluation's two episodes.
        overrides: of the config.
    """
    (folder / f"{name}.yaml").write_text(RECIPE.format(name=name, task=task, actions=actions, films=films))
    values = [f"runs_dir={folder}", *([f"simulator.python={python}"] if python else []), *overrides]
    run = Tiny(rundir.create_or_resume(compose.compose(folder / f"{name}.yaml", values)))
    for unit in UNITS:
        code, output = run.start(unit).end(timeout=300)
        assert code == 0, output
    return run


def another_version(folder: Path, package: str, version: str) -> dict[str, str]:
    """What makes an interpreter find another version of a package first."""
    told = folder / f"{package}-{version}.dist-info"
    told.mkdir()
    (told / "METADATA").write_text(f"Name: {package}\nVersion: {version}\n")
    return {"PYTHONPATH": f"{Path(__file__).parents[2]}:{folder}"}


def metrics(run: Tiny, unit: Unit) -> dict[str, float]:
    """What a unit measured."""
    artifact = open_artifact(run.run / unit.marker)
    assert artifact is not None
    return artifact.verify().manifest.metrics


def check(run: Tiny, name: str, actions: int, proprio: int, wrists: int) -> None:
    """Hold what the units published to what they were to do.

    Args:
        run: whose units are done.
        name: of the simulator.
        actions: numbers of an action.
        proprio: numbers of proprioception.
        wrists: cameras at the wrists.
    """
    sizes = {"image_size": (32, 32), "action_dim": actions, "proprio_dim": proprio, "wrist_cameras": wrists}
    demonstrated, played = (read(run.run / unit.marker) for unit in (UNITS[0], UNITS[2]))
    for shard, episodes, limit in ((demonstrated, 2, 24), (played, 4, 16)):
        assert {field: getattr(shard.spec, field) for field in sizes} == sizes
        assert (shard.sources[0].simulator, shard.sources[0].split) == (name, "train")
        assert len(shard.episodes) == episodes
        steps = np.add.reduceat(shard.executed[:, :8].sum(1), shard.episodes.start)
        assert ((steps == limit) | shard.episodes.success).all()
        head, wrist = shard.load_images()
        assert (head.shape[1:], wrist.shape[1:]) == ((3, 32, 32), (wrists, 3, 32, 32))
        for picture in (*head, *wrist.reshape(-1, 3, 32, 32)):
            assert picture.std() > 5, "a camera that looks at something"
    first = played.proprio[played.episodes.start], played.load_images()[0][played.episodes.start]
    for seen in first:
        np.testing.assert_array_equal(seen[0], seen[1])  # a group starts from one state
    assert not np.array_equal(first[1][0], first[1][2])
    config = json.loads((run.run / "policies/0001/config.json").read_text())["baton"]["config"]
    assert (config["images"], config["action_dim"], config["proprio_dim"]) == (1 + wrists, actions, proprio)
    learnt = metrics(run, UNITS[3])
    assert np.isfinite(learnt["actor/loss"])
    assert learnt["actor/grad_norm"] > 0
    folder = run.run / UNITS[4].marker
    lines = [json.loads(line) for line in (folder / "episodes.jsonl").read_text().splitlines()]
    assert [line["seed"] for line in lines] == [HELD_OUT, HELD_OUT + 1]
    assert json.loads((folder / "simulator.json").read_text())["split"] == "evaluation"
    for film in (folder / "videos").glob("*.mp4"):
        assert film.stat().st_size > 10_000
