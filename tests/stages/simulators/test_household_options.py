"""The household's config block: what it takes and what it says of what it does not."""

import pytest

from stages.simulators.household import catalogue
from stages.simulators.household.options import Options, parse
from stages.simulators.interface import SimulatorConfigError


def test_an_empty_block_is_the_defaults():
    parsed = parse({})
    assert parsed == Options(tasks=parsed.tasks)


def test_values_arrive_in_the_types_of_their_fields():
    options = parse({"tasks": ["stack"], "spread": 1, "image_size": 64, "max_episode_steps": None})
    assert options.tasks == ("stack",)
    assert isinstance(options.spread, float)
    assert options.image_size == 64
    assert options.max_episode_steps is None


def test_a_suite_stands_for_its_tasks():
    assert parse({}).tasks == ("pick_onto_plate", "stack")
    assert parse({"tasks": ["object", "stack"]}).tasks == (*catalogue.suites()["object"], "stack")


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"object_siz": 0.05}, "did you mean 'object_size'"),
        ({"tasks": ["stak"]}, "did you mean 'stack'"),
        ({"tasks": ["objects"]}, "did you mean 'object'"),
        ({"tasks": ["flying"]}, "valid: practice, spatial, object"),
        ({"tasks": "stack"}, "must be a list"),
        ({"tasks": []}, "at least one task"),
        ({"tasks": ["stack", "stack"]}, "each once"),
        ({"tasks": ["stack", "practice"]}, "each once"),
        ({"tasks": [3]}, "has no 3"),
        ({"object_size": 0.05, "tasks": ["object"]}, "object_red_cube has no such option; it is the practice suite's"),
        ({"distractors": 1, "tasks": ["stack", "spatial_left_of_can"]}, "spatial_left_of_can has no such option"),
        ({"max_episode_steps": 0}, "an integer from 1"),
        ({"renderer": "vulkan"}, "auto, egl, osmesa, raycast"),
        ({"reward": "shaped"}, "sparse, dense"),
        ({"arms": "left"}, "both, right"),
        ({"image_size": 16}, "from 32 to 1024"),
        ({"image_size": 64.5}, "an integer"),
        ({"wrist_cameras": 3}, "from 0 to 2"),
        ({"distractors": True}, "an integer"),
        ({"object_size": "big"}, "a number"),
        ({"object_size": float("nan")}, "a number"),
        ({"expert_perturbation": 1.5}, "from 0 to 1"),
        ({"physics_frequency": 210}, "physics_frequency 210 is not a multiple of action_frequency 20"),
        ({"rendering_frequency": 15}, "action_frequency 20 is not a multiple of rendering_frequency 15"),
    ],
)
def test_a_mistake_is_told_in_one_line_with_what_is_valid(block, said):
    with pytest.raises(SimulatorConfigError) as mistake:
        parse(block)
    assert said in str(mistake.value)
    assert next(iter(block)) in str(mistake.value)
    assert "\n" not in str(mistake.value)
