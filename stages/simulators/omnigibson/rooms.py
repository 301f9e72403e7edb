"""Which rooms of a house an activity needs: JoyLo's tables, where that package is installed."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from stages.simulators.omnigibson.options import Options

MODULES = ("gello.robots.sim_robot.og_teleop_utils", "gello.utils.og_teleop_utils")  # 3.7, 3.9


def rooms_of(activity: str, scene_model: str, options: Options) -> list[str] | None:
    """The rooms to load.

    Args:
        activity: name of an activity.
        scene_model: the house.
        options: `partial_scene` and `room_types`.

    Returns:
        Types of rooms, sorted so that every process loads them in one order; None: the whole house.
    """
    if not options.partial_scene:
        return None
    if options.room_types is not None:
        return sorted(options.room_types)
    tables = _tables()
    if tables is None:
        print(
            "omnigibson: the whole house is loaded, which takes longer and more memory: JoyLo (gello) is not installed "
            "to say which rooms the task needs; install it or set simulator.options.room_types",
            flush=True,
        )
        return None
    rooms = tables.get_task_relevant_room_types(activity_name=activity)
    try:
        return sorted(tables.augment_rooms(rooms, scene_model, activity))
    except KeyError:
        print(f"omnigibson: the whole house is loaded: JoyLo's tables do not know {scene_model}", flush=True)
        return None


def start_of(activity: str) -> dict[str, Any]:
    """Where the robot stands when the scene is built, as robot config; empty where JoyLo does not say."""
    tables = _tables()
    known = {} if tables is None else tables.load_available_tasks()
    if activity not in known:
        return {}
    told = known[activity][0]
    return {"position": told["robot_start_position"], "orientation": told["robot_start_orientation"]}


def _tables() -> ModuleType | None:
    for name in MODULES:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    return None
