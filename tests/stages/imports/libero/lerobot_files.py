"""Writes LeRobot sets of LIBERO in the layouts v2.1 and v3.0, with films or with pictures in the tables."""

import io
import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow
from PIL import Image
from pyarrow import parquet

RATE = 10
VIEWS = {"scene": "observation.images.image", "wrist": "observation.images.wrist_image"}


def write(path: Path, truths: list, version: str, films: bool) -> None:
    """The gripper's numbers are robosuite's in v2.1 and Open X-Embodiment's, 1 open and 0 closed, in v3.0."""
    (path / "meta").mkdir(parents=True)
    instructions = list(dict.fromkeys(truth.instruction for truth in truths))
    many = version == "v3.0"
    layout = {
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }
    if not many:
        layout = {
            "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
            "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        }
    size = truths[0].scene.shape[1]
    picture = {"dtype": "video" if films else "image", "shape": [3, size, size] if many else [size, size, 3]}
    features = {
        **dict.fromkeys(VIEWS.values(), picture),
        "observation.state": {"dtype": "float32", "shape": [8]},
        "action": {"dtype": "float32", "shape": [7]},
    }
    info = {"codebase_version": version, "robot_type": "panda", "fps": RATE, "chunks_size": 1000, **layout}
    (path / "meta/info.json").write_text(json.dumps(info | {"features": features}))
    rows = [table(number, truth, instructions, many, films) for number, truth in enumerate(truths)]
    if many:
        _write_v3(path, truths, rows, instructions, films)
        return
    tasks = [{"task_index": place, "task": text} for place, text in enumerate(instructions)]
    (path / "meta/tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    lines = []
    for number, (truth, part) in enumerate(zip(truths, rows, strict=True)):
        _write_table(path / f"data/chunk-000/episode_{number:06d}.parquet", part)
        lines.append({"episode_index": number, "tasks": [truth.instruction], "length": len(truth.actions)})
        if films:
            for field, view in VIEWS.items():
                write_film(path / f"videos/chunk-000/{view}/episode_{number:06d}.mp4", turned(truth, field))
    (path / "meta/episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _write_v3(path: Path, truths: list, rows: list, instructions: list[str], films: bool) -> None:
    """Two tables and two films a camera hold all episodes."""
    described, half = [], len(truths) // 2
    for file, places in enumerate((range(half), range(half, len(truths)))):
        _write_table(path / f"data/chunk-000/file-{file:03d}.parquet", pyarrow.concat_tables([rows[p] for p in places]))
        begin = 0
        for place in places:
            frames = len(truths[place].actions)
            row = {
                "episode_index": place,
                "tasks": [truths[place].instruction],
                "length": frames,
                "data/chunk_index": 0,
                "data/file_index": file,
                "dataset_from_index": 0,
                "dataset_to_index": frames,
            }
            for view in VIEWS.values() if films else ():
                row |= {f"videos/{view}/chunk_index": 0, f"videos/{view}/file_index": file}
                row |= {
                    f"videos/{view}/from_timestamp": begin / RATE,
                    f"videos/{view}/to_timestamp": (begin + frames) / RATE,
                }
            described.append(row)
            begin += frames
        for field, view in VIEWS.items() if films else ():
            shown = np.concatenate([turned(truths[place], field) for place in places])
            write_film(path / f"videos/{view}/chunk-000/file-{file:03d}.mp4", shown)
    _write_table(path / "meta/episodes/chunk-000/file-000.parquet", pyarrow.Table.from_pylist(described))
    tasks = pyarrow.table({"task_index": np.arange(len(instructions)), "__index_level_0__": instructions})
    _write_table(path / "meta/tasks.parquet", tasks)


def table(number: int, truth, instructions: list[str], openx: bool, films: bool) -> pyarrow.Table:
    frames = len(truth.actions)
    actions = truth.actions.astype(np.float32)
    if openx:
        actions[:, 6] = 1 - np.clip(actions[:, 6], 0, 1)
    columns = {
        "action": pyarrow.array(list(actions), pyarrow.list_(pyarrow.float32(), 7)),
        "observation.state": pyarrow.array(
            list(truth.states[:-1].astype(np.float32)), pyarrow.list_(pyarrow.float32(), 8)
        ),
        "frame_index": np.arange(frames),
        "episode_index": np.full(frames, number),
        "task_index": np.full(frames, instructions.index(truth.instruction)),
    }
    for field, view in {} if films else VIEWS.items():
        columns[view] = [
            {"bytes": png(shown), "path": f"frame_{i:06d}.png"} for i, shown in enumerate(turned(truth, field))
        ]
    return pyarrow.table(columns)


def turned(truth, field: str) -> np.ndarray:
    return getattr(truth, field)[:-1, ::-1, ::-1]


def png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def write_film(path: Path, shown: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(RATE))
        stream.height, stream.width = shown.shape[1:3]
        stream.pix_fmt, stream.options = "yuv420p", {"g": "10", "crf": "12"}
        for picture in shown:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())


def _write_table(path: Path, rows: pyarrow.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(rows, path)
