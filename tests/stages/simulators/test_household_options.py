"""The household's config block: what it takes and what it says of what it does not."""

import pytest

from stages.simulators.household.options import Options, parse
from stages.simulators.interface import SimulatorConfigError


def test_an_empty_block_is_the_defaults():
    assert parse({}) == Options()


def test_values_arrive_in_the_types_of_their_fields():
    options = parse({"tasks": ["stack"], "spread": 1, "image_size": 64})
    assert options.tasks == ("stack",)
    assert isinstance(options.spread, float)
    assert options.image_size == 64


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"object_siz": 0.05}, "did you mean 'object_size'"),
        ({"tasks": ["stak"]}, "did you mean 'stack'"),
        ({"tasks": "stack"}, "must be a list"),
        ({"tasks": []}, "at least one task"),
        ({"tasks": ["stack", "stack"]}, "each once"),
        ({"renderer": "vulkan"}, "auto, egl, osmesa, raycast"),
        ({"reward": "shaped"}, "sparse, dense"),
        ({"arms": "left"}, "both, right"),
        ({"image_size": 16}, "from 32 to 1024"),
        ({"image_size": 64.5}, "an integer"),
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
