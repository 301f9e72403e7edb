"""The challenge's tasks as a list that simulators and configs read: generated from BDDL, or the public file's."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterable
from pathlib import Path

from pipeline.behavior.english import Speaker
from pipeline.errors import UserError

SUITE = "challenge-2025"
# In the order of their indices; upper case counts.
ACTIVITIES = (
    "turning_on_radio",
    "picking_up_trash",
    "putting_away_Halloween_decorations",
    "cleaning_up_plates_and_food",
    "can_meat",
    "setting_mousetraps",
    "hiding_Easter_eggs",
    "picking_up_toys",
    "rearranging_kitchen_furniture",
    "putting_up_Christmas_decorations_inside",
    "set_up_a_coffee_station_in_your_kitchen",
    "putting_dishes_away_after_cleaning",
    "preparing_lunch_box",
    "loading_the_car",
    "carrying_in_groceries",
    "bringing_in_wood",
    "moving_boxes_to_storage",
    "bringing_water",
    "tidying_bedroom",
    "outfit_a_basic_toolbox",
    "sorting_vegetables",
    "collecting_childrens_toys",
    "putting_shoes_on_rack",
    "boxing_books_up_for_storage",
    "storing_food",
    "clearing_food_from_table_into_fridge",
    "assembling_gift_baskets",
    "sorting_household_items",
    "getting_organized_for_work",
    "clean_up_your_desk",
    "setting_the_fire",
    "clean_boxing_gloves",
    "wash_a_baseball_cap",
    "wash_dog_toys",
    "hanging_pictures",
    "attach_a_camera_to_a_tripod",
    "clean_a_patio",
    "clean_a_trumpet",
    "spraying_for_bugs",
    "spraying_fruit_trees",
    "make_microwave_popcorn",
    "cook_cabbage",
    "chop_an_onion",
    "slicing_vegetables",
    "chopping_wood",
    "cook_hot_dogs",
    "cook_bacon",
    "freeze_pies",
    "canning_food",
    "make_pizza",
)


def generated() -> list[str]:
    """A line of `tasks.jsonl` for each task, its instruction made of its goal.

    Raises:
        UserError: bddl is not installed, or does not know an activity.
    """
    try:
        from bddl.activity import Conditions
    except ModuleNotFoundError:
        raise UserError("behavior-tasks reads goals with bddl: pip install 'baton-vla[behavior]'") from None
    instructions = []
    for activity in ACTIVITIES:
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it complains of a stray sign in one definition
                conditions = Conditions(activity, 0, simulator_name="omnigibson")
        except FileNotFoundError:
            raise UserError(f"behavior-tasks: this bddl has no activity {activity}; pip install bddl==3.6.0") from None
        rooms = {fact[1]: fact[2] for fact in conditions.parsed_initial_conditions if fact[0] == "inroom"}
        speaker = Speaker(conditions.parsed_objects, rooms)
        instructions.append(speaker.instruct(activity, conditions.parsed_goal_conditions))
    return _lines(zip(ACTIVITIES, instructions, strict=True))


def public(path: Path) -> list[str]:
    """A line of `tasks.jsonl` for each task of a public file, which has `task_index`, `task_name` and `task`.

    Args:
        path: the file, e.g. `meta/tasks.jsonl` of the demonstrations.

    Raises:
        UserError: it cannot be read, or its indices do not count from 0.
    """
    pairs: list[tuple[str, str]] = []
    try:
        for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            line = json.loads(text)
            if line["task_index"] != len(pairs):
                raise UserError(f"{path}:{number}: task_index is {line['task_index']}, expected {len(pairs)}")
            pairs.append((str(line["task_name"]), str(line["task"])))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        what = "a line is a JSON object with task_index, task_name and task"
        raise UserError(f"{path}:{len(pairs) + 1}: {what}") from None
    if not pairs:
        raise UserError(f"{path}: it lists no task")
    return _lines(pairs)


def _lines(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return [
        json.dumps({"task_index": index, "task_name": name, "task": instruction, "suite": SUITE}, ensure_ascii=False)
        for index, (name, instruction) in enumerate(pairs)
    ]
