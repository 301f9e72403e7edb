"""Writes files as LIBERO's create_dataset.py and OpenVLA's regenerate_libero_dataset.py do."""

import json
from pathlib import Path

import h5py
import numpy as np


def write(path: Path, truths: list, late: bool) -> None:
    """`late`: the original release, which stores what is seen after each action, and more attributes."""
    path.mkdir(parents=True)
    for task in dict.fromkeys(truth.task for truth in truths):
        with h5py.File(path / f"{task}_demo.hdf5", "w") as file:
            data = file.create_group("data")
            if late:
                data.attrs["problem_info"] = json.dumps({"language_instruction": task.replace("_", " ")})
                data.attrs["bddl_file_name"] = f"chiliocosm/bddl_files/libero_object/{task}.bddl"
                data.attrs["macros_image_convention"] = "opengl"
            for place, truth in enumerate(each for each in truths if each.task == task):
                write_demonstration(data.create_group(f"demo_{place}"), truth, late)


def write_demonstration(group: h5py.Group, truth, late: bool) -> None:
    frames = len(truth.actions)
    seen = slice(1, None) if late else slice(0, frames)
    endings = np.zeros(frames, np.uint8)
    endings[-1] = 1
    for name, array in {
        "actions": truth.actions,
        "states": truth.simulator[:frames],
        "robot_states": np.zeros((frames, 9)),
        "rewards": endings,
        "dones": endings,
        "obs/agentview_rgb": truth.scene[seen],
        "obs/eye_in_hand_rgb": truth.wrist[seen],
        "obs/ee_states": truth.states[seen, :6],
        "obs/ee_pos": truth.states[seen, :3],
        "obs/ee_ori": truth.states[seen, 3:6],
        "obs/gripper_states": truth.states[seen, 6:],
        "obs/joint_states": truth.simulator[seen, 1:8],
    }.items():
        group[name] = array
    if late:
        group.attrs["num_samples"] = frames
        group.attrs["init_state"] = truth.simulator[0]
