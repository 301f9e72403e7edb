"""What a config says of its simulator: rates and limits by the simulator's name, and OmniGibson's recipes."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

import pytest

from pipeline.compose import compose
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.simulator_config import OWN_DEFAULTS, Simulator
from pipeline.simulator_options import FIELDS, OPTIONS, SWITCH, Choice, Number

CONFIGS = Path(__file__).parents[2] / "configs"
RATES = ("action_frequency", "physics_frequency", "rendering_frequency")


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


def rates(simulator: Simulator) -> tuple[int, ...]:
    return tuple(getattr(simulator, name) for name in RATES)


def test_defaults_are_those_of_the_simulator(tmp_path):
    recipe = "simulator: {name: omnigibson}\nsft: {steps: 0}\npolicy: {checkpoint: somewhere}\n"
    found = compose(written(tmp_path, recipe)).simulator
    assert rates(found) == (30, 120, 30)
    assert {name: getattr(found, name) for name in OWN_DEFAULTS["omnigibson"]} == OWN_DEFAULTS["omnigibson"]
    assert rates(compose(written(tmp_path, "simulator: {name: household}\n")).simulator) == (20, 200, 10)
    assert rates(compose(written(tmp_path, recipe), ["simulator.action_frequency=15"]).simulator) == (15, 120, 30)
    plain = {"name": "x", "simulator": {"name": "omnigibson"}, "demonstrate": {"imported": "shards"}}
    assert rates(Config.model_validate(plain).simulator) == (30, 120, 30)
    assert rates(Simulator()) == rates(Simulator(name="fakesim.counting")) == (20, 200, 10)


@pytest.mark.parametrize(
    ("simulator", "message"),
    [
        ("{name: omnigibson, rendering_frequency: 20}",
         "rendering_frequency 20 is not a multiple of action_frequency 30"),
        ("{name: omnigibson, physics_frequency: 100}",
         "physics_frequency 100 is not a multiple of rendering_frequency 30"),
        ("{name: omnigibson, action_frequency: 15, rendering_frequency: 45, physics_frequency: 90}",
         "action_frequency 15 and rendering_frequency 45: OmniGibson would draw 2 frames a step, not 3, because of "
         "rounding; set rendering_frequency to 15"),
        ("{name: libero, action_frequency: 10}", "action_frequency=10 is not possible in libero: set it to 20"),
        ("{name: libero, physics_frequency: 1000}", "physics_frequency=1000 is not possible in libero: set it to 500"),
        ("{name: maniskill, action_frequency: 200, physics_frequency: 200}",
         "action_frequency=200 is not possible in maniskill: set it to an integer from 5 to 100"),
        ("{physics_frequency: 201}", "physics_frequency 201 is not a multiple of action_frequency 20"),
        ("{rendering_frequency: 40}", "action_frequency 20 is not a multiple of rendering_frequency 40"),
    ],
)  # fmt: skip
def test_rates_that_do_not_nest_are_refused(tmp_path, simulator, message):
    with pytest.raises(UserError) as caught:
        compose(written(tmp_path, f"simulator: {simulator}\nsft: {{steps: 0}}\npolicy: {{checkpoint: x}}\n"))
    assert str(caught.value).endswith(f"run.yaml:1: {message}")


def test_tasks_of_a_file_are_left_to_the_simulator(tmp_path):
    path = written(
        tmp_path,
        "simulator: {name: omnigibson, tasks: [dance], options: {tasks_file: mine.jsonl}}\n"
        "sft: {steps: 0}\npolicy: {checkpoint: x}\n",
    )
    assert compose(path).simulator.tasks == ["dance"]
    path.write_text(path.read_text().replace(", options: {tasks_file: mine.jsonl}", ""))
    with pytest.raises(UserError, match="omnigibson has no task or suite 'dance'"):
        compose(path)


def test_several_tasks_take_a_process_a_world(tmp_path):
    recipe = (
        "simulator: {name: omnigibson, tasks: [turning_on_radio, picking_up_trash]}\nsft: {steps: 0}\n"
        "policy: {checkpoint: x}\nrollout: {num_envs: 4, num_workers: 4}\nevaluate: {num_envs: 4, num_workers: 2}\n"
    )
    with pytest.raises(UserError) as caught:
        compose(written(tmp_path, recipe))
    assert str(caught.value) == (
        f"{tmp_path / 'run.yaml'}: evaluate.num_envs=4 with evaluate.num_workers=2: a process of omnigibson simulates "
        "one task at a time, and simulator.tasks names 2: set both to the same number, or name one task"
    )
    assert len(compose(tmp_path / "run.yaml", ["evaluate.num_workers=4"]).simulator.tasks) == 2


@pytest.mark.parametrize("stage", ["rollout", "evaluate"])
def test_a_process_belongs_to_one_group_of_the_pipeline(stage, tmp_path):
    path = written(
        tmp_path,
        "simulator: {name: omnigibson}\nsft: {steps: 0}\npolicy: {checkpoint: x}\n"
        f"{stage}: {{num_envs: 4, num_workers: 1, pipeline_stage_num: 2}}\n",
    )
    with pytest.raises(UserError) as caught:
        compose(path)
    assert str(caught.value) == (
        f"{path}: {stage}.pipeline_stage_num=2 with {stage}.num_workers=1: the worlds of a process of omnigibson are "
        f"stepped together, so it belongs to one group: set {stage}.num_workers to 2 or more"
    )
    assert getattr(compose(path, [f"{stage}.num_workers=2"]), stage).num_workers == 2


@pytest.mark.parametrize("stage", ["rollout", "evaluate"])
def test_groups_of_the_pipeline_are_equal(stage, tmp_path):
    path = written(tmp_path, f"{stage}: {{num_envs: 5, pipeline_stage_num: 2}}\n")
    with pytest.raises(UserError, match=f"{stage}.num_envs=5 does not split into {stage}.pipeline_stage_num=2 equal"):
        compose(path)


# The mission's own snippets: its placements, the rollout's pipeline, films and Weights & Biases.
PLACEMENTS = {
    "env,rollout,actor: all": (2, 16),
    "{env: 0-7, rollout: 8-15, actor: 0-15}": (2, 16),
    "{env: 0-3, rollout: 4-7, actor: 8-15}": (2, 8),
}
SNIPPET = """
extends: {recipe}
cluster:
  num_nodes: {nodes}
  component_placement:
    {placement}
rollout:
  pipeline_stage_num: 2
video_cfg:
  save_video: true
  info_on_video: true
  video_base_dir: films
trainer:
  logger:
    wandb:
      enable: {wandb}
      project_name: behavior
      experiment_name: turning-on-radio
"""


@pytest.mark.parametrize("recipe", ["omnigibson_ppo_openvlaoft.yaml", "omnigibson_grpo_openvlaoft.yaml"])
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_missions_snippets_paste_into_the_recipes(tmp_path, recipe, placement):
    nodes, ranks = PLACEMENTS[placement]
    wandb = "false"  # the package is an optional one; the keys are what is pasted
    text = SNIPPET.format(
        recipe=CONFIGS / recipe, nodes=nodes, placement=placement.strip("{}").replace(", ", "\n    "), wandb=wandb
    )
    config = compose(written(tmp_path, text))
    assert config.update.processes == ranks
    assert (config.rollout.pipeline_stage_num, config.video_cfg.video_base_dir) == (2, "films")
    assert config.trainer.logger.wandb.project_name == "behavior"
    assert config.trainer.logger.wandb.experiment_name == "turning-on-radio"


@pytest.mark.parametrize("recipe", ["omnigibson_ppo_openvlaoft.yaml", "omnigibson_grpo_openvlaoft.yaml"])
def test_the_recipes_options_are_options(recipe):
    from stages.simulation import simulator_options
    from stages.simulators.omnigibson.options import parse

    config = compose(CONFIGS / recipe)
    options = parse(simulator_options(config.simulator))
    assert options.action_dim == config.policy.action_dim
    assert (options.max_episode_steps, options.action_frequency) == (2000, 30)
    assert config.rollout.num_workers % config.rollout.pipeline_stage_num == 0  # a process belongs to one group


@pytest.mark.parametrize(
    ("simulator", "message"),
    [
        ("{options: {object_sise: 0.05}}", "options.object_sise is no option of household: did you mean object_size?"),
        ("{options: {spread: 2}}", "options.spread=2 is not possible in household: set it to a number from 0 to 1"),
        ("{options: {image_size: 64}}", "options.image_size has a field of its own: set simulator.image_size"),
        ("{name: omnigibson, options: {grasping_mode: sticks}}",
         "options.grasping_mode=sticks is not possible in omnigibson: set it to assisted or physical or sticky"),
        ("{name: omnigibson, options: {carb_threads: 2.5}}",
         "options.carb_threads=2.5 is not possible in omnigibson: set it to an integer from 1 to 256"),
        ("{name: omnigibson, options: {flatcache: 1}}",
         "options.flatcache=1 is not possible in omnigibson: set it to true or false"),
        ("{name: libero, image_size: 1025}",
         "image_size=1025 is not possible in libero: set it to an integer from 32 to 1024"),
        ("{name: maniskill, image_size: 2048}",
         "image_size=2048 is not possible in maniskill: set it to an integer from 32 to 1024"),
        ("{image_size: 1441}", "image_size=1441 is not possible in household: set it to an integer from 32 to 1024"),
        ("{name: omnigibson, image_size: 1441}",
         "image_size=1441 is not possible in omnigibson: set it to an integer from 32 to 1440"),
        ("{name: maniskill, max_episode_steps: 100001}",
         "max_episode_steps=100001 is not possible in maniskill: set it to an integer from 1 to 100000"),
    ],
)  # fmt: skip
def test_options_are_checked_before_anything_is_submitted(tmp_path, simulator, message):
    with pytest.raises(UserError) as caught:
        compose(written(tmp_path, f"simulator: {simulator}\nsft: {{steps: 0}}\npolicy: {{checkpoint: x}}\n"))
    assert str(caught.value).endswith(f"run.yaml:1: {message}")


def test_a_simulator_without_an_expert_needs_other_demonstrations(tmp_path):
    path = written(tmp_path, "simulator: {name: omnigibson}\nsft: {steps: 20}\n")
    with pytest.raises(UserError) as caught:
        compose(path)
    assert str(caught.value) == (
        f"{path}: sft.steps=20 needs demonstrations, and omnigibson has no scripted expert: set demonstrate.imported "
        "to what `baton import` writes, or sft.steps=0 and policy.checkpoint"
    )
    assert compose(path, [f"demonstrate.imported={tmp_path}"]).sft.steps == 20


def test_options_of_a_simulator_elsewhere_and_what_may_be_left_out_are_left_alone(tmp_path):
    rest = "sft: {steps: 0}\npolicy: {checkpoint: x}\n"
    path = written(tmp_path, f"simulator: {{name: lab.worlds, tasks: [a], options: {{x: 1}}}}\n{rest}")
    assert compose(path).simulator.options == {"x": 1}
    path.write_text(f"simulator: {{name: omnigibson, options: {{texture_budget: null}}}}\n{rest}")
    assert compose(path).simulator.options == {"texture_budget": None}


@pytest.mark.parametrize("name", list(FIELDS))
def test_the_table_of_fields_is_that_of_the_simulators(name):
    theirs = importlib.import_module(f"stages.simulators.{name}.options")
    assert FIELDS[name] == {
        field: Number(least, most, whole=number is int)
        for field, (number, least, most) in theirs._NUMBERS.items()
        if field in Simulator.model_fields
    }


@pytest.mark.parametrize("name", list(OPTIONS))
def test_the_tables_of_options_are_those_of_the_simulators(name):
    theirs = importlib.import_module(f"stages.simulators.{name}.options")
    fields = {field.name: field for field in dataclasses.fields(theirs.Options)}
    assert set(OPTIONS[name]) == set(fields) - set(Simulator.model_fields)
    for option, kind in OPTIONS[name].items():
        if option in theirs._NUMBERS:
            number, least, most = theirs._NUMBERS[option]
            assert kind == Number(least, most, whole=number is int)
        elif option in theirs._CHOICES:
            assert kind == Choice(tuple(theirs._CHOICES[option]))
        else:
            assert kind is (SWITCH if isinstance(fields[option].default, bool) else None)
