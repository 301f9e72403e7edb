"""Rooms and robot poses of the challenge's tasks."""


def load_available_tasks():
    pose = {"robot_start_position": [1.0, 2.0, 0.0], "robot_start_orientation": [0.0, 0.0, 0.0, 1.0]}
    return {name: [{"scene_model": "house_single_floor", **pose}] for name in ("turning_on_radio", "picking_up_trash")}


def get_task_relevant_room_types(activity_name):
    return ["living_room"]


def augment_rooms(relevant_rooms, scene_model, task_name):
    """As in the original, an unknown scene is a KeyError."""
    extra = {"house_single_floor": {"living_room": ["dining_room", "kitchen"]}, "house_double_floor_upper": {}}
    rooms = set(relevant_rooms)
    for room in relevant_rooms:
        rooms |= set(extra[scene_model].get(room, []))
    return list(rooms)
