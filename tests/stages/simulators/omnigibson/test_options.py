"""The config block: nothing reaches OmniGibson that was not checked, and every field has an effect."""

from __future__ import annotations

import dataclasses

import pytest

from stages.simulators.interface import SimulatorConfigError
from stages.simulators.omnigibson.options import Options, parse
from stages.simulators.omnigibson.proprioception import PRESETS, size

VALID = ", ".join(field.name for field in dataclasses.fields(Options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_sise": 64}, f"no option 'image_sise', did you mean 'image_size'?; valid: {VALID}"),
        ({"self_collision": False}, f"no option 'self_collision'; valid: {VALID}"),
        ({"image_size": 16}, "image_size is 16; it must be an integer from 32 to 1440"),
        ({"image_size": True}, "image_size is True; it must be an integer from 32 to 1440"),
        ({"position_limit": "far"}, "position_limit is 'far'; it must be a number from 0.001 to 0.5"),
        ({"action_mode": "joint"},
         "action_mode has no 'joint', did you mean 'joint_23'?; valid: ee_delta_14, joint_23"),
        ({"flatcache": 1}, "flatcache is 1; it must be true or false"),
        ({"tasks": "turning_on_radio"}, "tasks is 'turning_on_radio'; it must be a list of names"),
        ({"tasks": []}, "tasks is []; it must be a list of names"),
        ({"train_instances": [1, -1]}, "train_instances is [1, -1]; it must be a list of instance numbers from 0"),
        ({"scene_model": ""}, "scene_model is ''; it must be a text"),
        ({"physics_frequency": 100}, "physics_frequency 100 is not a multiple of rendering_frequency 30"),
        ({"rendering_frequency": 40}, "rendering_frequency 40 is not a multiple of action_frequency 30"),
        ({"proprio_keys": "everything"},
         f"proprio_keys is 'everything'; it must be one of {', '.join(PRESETS)} or a list of keys"),
        ({"expert_perturbation": 0.0},
         "there is no scripted expert to demonstrate with; bring demonstrations in with `baton import PATH`, "
         "or start from a trained policy with sft.steps=0 and policy.checkpoint"),
    ],
)  # fmt: skip
def test_a_bad_option_is_refused_in_one_line(options, message):
    with pytest.raises(SimulatorConfigError) as caught:
        parse(options)
    assert str(caught.value) == f"omnigibson: {message}"


def test_defaults_are_those_of_the_demonstrations():
    options = parse({})
    assert (options.action_frequency, options.physics_frequency, options.rendering_frequency) == (30, 120, 30)
    assert (options.action_mode, options.action_dim, options.grasping_mode) == ("ee_delta_14", 14, "assisted")
    assert options.proprio_keys == PRESETS["arms"]
    assert size(options.proprio_keys) == 18
    joints = parse({"action_mode": "joint_23"})
    assert (joints.action_dim, size(joints.proprio_keys)) == (23, 23)


@pytest.mark.parametrize("name", ["texture_budget", "carb_threads", "tbb_threads", "base_mass", "train_instances"])
def test_what_may_be_left_to_omnigibson_may_be_null(name):
    assert getattr(parse({name: None}), name) is None
