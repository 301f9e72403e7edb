"""LIBERO's demonstrations become the same shards whichever layout they come in."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.artifacts import imported_unit
from stages.trajectories import concatenate, read
from tests.stages.imports.libero.conftest import CHUNK, CLOSING, IDLE, LAYOUTS, SIZE, STRIDE, TASKS, work

CHOSEN = [(TASKS[0], 0), (TASKS[1], 0), (TASKS[0], 1), (TASKS[1], 1)]  # tasks take turns
LOSSY = 6  # levels of grey that JPEG and H.264 change at most in pictures as simple as these


def stored(config):
    return concatenate([read(Path(config.demonstrate.imported, imported_unit(shard).marker)) for shard in range(2)])


def expected_frames(truth, late):
    """Frames of the episode that are kept: of a file that stores what follows an action the first is not known."""
    return [frame for frame in range(int(late), len(truth.actions)) if frame not in IDLE]


@pytest.mark.parametrize("made", LAYOUTS, indirect=True)
def test_what_was_recorded_is_what_is_stored(made, truths, config):
    composed = config()
    done = list(work(made, composed).carry_out())
    assert [shard.fresh for shard in done] == [True, True]
    whole, late = stored(composed), made.name == "hdf5_late"
    assert whole.tasks == TASKS[:2]
    assert whole.instructions == tuple(task.replace("_", " ") for task in TASKS[:2])
    first = {task: next(p for p, truth in enumerate(truths) if truth.task == task) for task in TASKS}
    for place, (task, number) in enumerate(CHOSEN):
        truth = truths[first[task] + number]
        frames = expected_frames(truth, late)
        assert CLOSING in frames, "the gripper's closing is something"
        own = np.arange(whole.episodes.length[place]) + whole.episodes.start[place]
        assert whole.tasks[whole.episodes.task[place]] == task
        assert len(own) == -(-len(frames) // STRIDE)
        for row, decision in enumerate(own):
            following = frames[STRIDE * row : STRIDE * row + CHUNK]
            inside = len(following)
            assert whole.executed[decision].tolist() == [True] * inside + [False] * (CHUNK - inside)
            assert np.allclose(whole.actions[decision][:inside], truth.actions[following], atol=1e-6)
            assert np.allclose(whole.proprio[decision], truth.states[following[0]], atol=1e-6)
        seen = frames[::STRIDE]
        head, wrist = whole.images(own)
        assert head.shape == (len(own), 3, SIZE, SIZE)
        assert wrist.shape == (len(own), 1, 3, SIZE, SIZE)
        for pictures, rendered in ((head, truth.scene), (wrist[:, 0], truth.wrist)):
            shown = rendered[seen][:, ::-1, ::-1].transpose(0, 3, 1, 2).astype(int)
            apart = np.abs(pictures - shown)
            inner = np.delete(np.delete(apart, [SIZE // 2 - 1, SIZE // 2], axis=2), [SIZE // 2 - 1, SIZE // 2], axis=3)
            assert inner.max() <= (0 if made.name.startswith("hdf5") or "pictures" in made.name else LOSSY)
        total = whole.rewards[own].sum()
        assert total == 1, "reached at the last step"
    assert whole.episodes.success.all()
    assert whole.episodes.terminated.all()
    numbers = [shard.artifact.manifest.metrics for shard in done]
    left_out = sum(each["import/frames_left_out"] for each in numbers)
    assert left_out == 4 * len([frame for frame in IDLE if frame >= late])
    note = json.loads(Path(composed.demonstrate.imported, "import.json").read_text())
    assert note["format"] == made.name.split("_")[0]
