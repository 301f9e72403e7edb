"""A recipe that fits the test cluster, and the doctor's checks by name."""

import pytest

from pipeline.compose import compose

# Simulators on the rtx nodes, training on the h100 nodes.
RECIPE = """\
epochs: 2
simulator: {image_size: 64}
demonstrate: {episodes: 4, num_envs: 2}
sft: {steps: 2, threads: 1}
rollout: {episodes: 4, shards: 2, num_envs: 2}
update: {threads: 1}
evaluate: {episodes: 2, num_envs: 2}
cluster:
  num_nodes: 2
  gpus_per_node: 2
  component_placement: {"env,rollout": {node_group: sims, placement: 0-1}, actor: {node_group: trains, placement: 0-1}}
  node_groups:
    - {label: sims, node_ranks: "0", gpu_type: rtx, partition: sim}
    - {label: trains, node_ranks: "1", gpu_type: h100, partition: train}
"""
# The same without GPUs, where no schedule or machine minds.
PLAIN = RECIPE.partition("cluster:")[0]


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def make(recipe, tmp_path):
    """Composes the recipe: `config = make("slurm.time=10")`; with `gpus=False` the one for CPU cores."""

    def make(*overrides, gpus=True):
        recipe.write_text(RECIPE if gpus else PLAIN)
        return compose(recipe, [f"runs_dir={tmp_path / 'runs'}", *overrides])

    return make


@pytest.fixture
def by_name():
    return lambda checks: {check.name: check for check in checks}
