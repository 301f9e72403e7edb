"""Two easy tasks to try things with: cubes and a plate, sizes as the config says."""

from __future__ import annotations

from stages.simulators.household import shapes
from stages.simulators.household.expert.skills import put
from stages.simulators.household.goals import Placed, on
from stages.simulators.household.kit import Scene
from stages.simulators.household.layouts import EITHER_SIDE, RIGHT_SIDE, Layout, Put
from stages.simulators.household.options import Options
from stages.simulators.household.props import Prop
from stages.simulators.household.suites.definition import Definition

# The order in the scene: the target, what it is stacked on, then distractors.
_COLOURS = {
    "red": "0.9 0.08 0.08 1",
    "blue": "0.1 0.2 0.95 1",
    "green": "0.1 0.7 0.15 1",
    "yellow": "0.95 0.8 0.05 1",
    "purple": "0.6 0.1 0.75 1",
}
_STEP_LIMIT = 80

# Nominal place and half range, (x, y) in metres; y is on the target's side where positive.
_TARGET_SPOT = ((-0.05, 0.19), (0.06, 0.06))
_PLATE_SPOT = ((-0.06, 0.0), (0.03, 0.03))
_BLUE_SPOT = ((-0.04, 0.0), (0.04, 0.04))
_DISTRACTOR_SPOTS = (
    ((0.11, 0.02), (0.03, 0.10)),
    ((-0.02, -0.22), (0.05, 0.03)),
    ((0.12, -0.20), (0.03, 0.04)),
)


def define(options: Options) -> dict[str, Definition]:
    """The suite's tasks by name."""
    size = options.object_size
    colours = list(_COLOURS)[: 2 + options.distractors]
    cubes = [shapes.cube(f"practice_{name}", _COLOURS[name], size) for name in colours]
    plate = shapes.plate("practice_plate", options.plate_radius)
    red, blue, *others = cubes
    scene = Scene((*cubes, plate))
    return {
        "pick_onto_plate": _task(
            scene, on(red, plate, options.plate_radius), plate, _PLATE_SPOT, [blue, *others], options
        ),
        "stack": _task(scene, on(red, blue, 0.6 * size), blue, _BLUE_SPOT, others, options),
    }


def _task(scene: Scene, goal: Placed, support: Prop, spot: tuple, spare: list[Prop], options: Options) -> Definition:
    puts = [Put(goal.item, *_TARGET_SPOT), Put(support, *spot)]
    distractors = zip(spare, _DISTRACTOR_SPOTS[: options.distractors], strict=False)
    puts += [Put(prop, *spot) for prop, spot in distractors]
    mirrored = RIGHT_SIDE if options.arms == "right" else EITHER_SIDE
    # Whether it is solved is for the episode to tell: the expert starts over as long as that goes on.
    plan = (put(goal, unless=(), patience=25),)
    return Definition(scene, Layout(tuple(puts), mirrored=mirrored), (goal,), plan, _STEP_LIMIT)
