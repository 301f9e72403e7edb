"""Writes what OMNIGIBSON_DATA_PATH holds, in the layout of the 2025 challenge."""

import json
from pathlib import Path

SCENE, ACTIVITIES = "house_single_floor", {"turning_on_radio": 0, "picking_up_trash": 1}
TRAIN, TEST = range(1, 7), range(7, 10)
HOME_HEIGHT = 0.8


def height(instance: int) -> float:
    """Where the hands have to go in an instance; 0 is the template."""
    return HOME_HEIGHT + 0.06 + 0.02 * (instance % 5)


def write(path: Path) -> Path:
    """Write scenes, instances and metadata; returns the path."""
    instances = path / "2025-challenge-task-instances"
    folder = instances / "scenes" / SCENE / "json"
    pose = {"R1Pro": [{"position": [1.0, 2.0, 0.0], "orientation": [0.0, 0.0, 0.0, 1.0]}]}
    for activity in ACTIVITIES:
        name = f"{SCENE}_task_{activity}"
        (folder / f"{name}_instances").mkdir(parents=True)
        template = {"radio": [0.6, 0.1, height(0)], "robot_poses": pose}
        (folder / f"{name}_0_0_template.json").write_text(json.dumps(template))
        for instance in (*TRAIN, *TEST):
            link = {"pos": [0.6, 0.1, height(instance)], "ori": [0.0, 0.0, 0.0, 1.0]}
            still = {"lin_vel": [0.0] * 3, "ang_vel": [0.0] * 3}
            state = {"radio.n.01_1": {"root_link": link | still, "joints": {}, "non_kin": {}}}
            moved = {"R1Pro": [{"position": [1.0 + instance / 10, 2.0, 0.0], "orientation": [0.0, 0.0, 0.0, 1.0]}]}
            told = {"agent.n.01_1": {}} | state | {"robot_poses": moved}
            file = folder / f"{name}_instances" / f"{name}_0_{instance}_template-tro_state.json"
            file.write_text(json.dumps({key: value for key, value in told.items() if value}))
    metadata = instances / "metadata"
    metadata.mkdir()
    with (metadata / "episodes.jsonl").open("w") as file:
        for task in ACTIVITIES.values():
            for instance in TRAIN:
                episode = {"episode_index": task * 10_000 + instance * 10, "length": 1000 + 100 * instance}
                file.write(json.dumps(episode | {"tasks": [], "distance_traveled": 1.0}) + "\n")
    rows = ["task_index,task_name,instance_ids"]
    rows += [f'{index},{name},"{", ".join(map(str, TEST))}"' for name, index in ACTIVITIES.items()]
    (metadata / "test_instances.csv").write_text("\n".join(rows) + "\n")
    return path
