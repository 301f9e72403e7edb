"""The contact sheet shows what the head camera sees before and after the expert's success."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import UserError
from stages.simulators import interface
from stages.video import contact_sheet
from stages.video.contact_sheet import MARGIN, PICTURE, RENDERED, TITLE_HEIGHT, WIDTH, Shot, draw, shoot

ROOT = Path(__file__).parents[3]
TASKS = {"pick_onto_plate": "practice", "stack": "practice"}


@pytest.fixture(scope="module")
def simulator():
    options = {"tasks": list(TASKS), "image_size": RENDERED, "renderer": "raycast"}
    made = interface.make("household", 1, options)
    yield made
    made.close()


def plain(shade: int) -> np.ndarray:
    return np.full((RENDERED, RENDERED, 3), shade, np.uint8)


def test_the_expert_is_shown_before_and_after(simulator):
    shots = list(shoot(simulator, TASKS, seed=0))
    assert [shot.suite for shot in shots] == ["practice", "practice"]
    assert [shot.instruction for shot in shots] == [task.instruction for task in simulator.spec.tasks]
    for shot in shots:
        assert shot.before.shape == shot.after.shape == (RENDERED, RENDERED, 3)
        moved = (np.abs(shot.before.astype(int) - shot.after).max(axis=2) > 40).mean()
        assert 0.005 < moved < 0.5, "an arm and an object are elsewhere, the table is where it was"
    simulator.reset([0], [interface.Episode("stack", 0)], [False])
    np.testing.assert_array_equal(shots[1].before, simulator.observe([0]).head[0].transpose(1, 2, 0))


def test_a_task_that_the_expert_cannot_do_is_told(simulator, monkeypatch):
    monkeypatch.setattr(contact_sheet, "_solve", lambda simulator: False)
    with pytest.raises(UserError, match="did not solve pick_onto_plate from the states 7 to 11"):
        list(shoot(simulator, TASKS, seed=7))


def test_pictures_stand_in_rows_under_the_heading_of_their_suite():
    shots = [Shot("one", "put the cup on the plate " * 9, plain(10 * i), plain(10 * i + 5)) for i in range(5)]
    shots += [Shot("two", "push the drawer shut", plain(200), plain(210))]
    sheet = draw(shots)
    assert sheet.width == WIDTH
    pixels = np.asarray(sheet)
    top, half = MARGIN + TITLE_HEIGHT, PICTURE // 2
    row = pixels[top + half, :, 0]
    assert [int(row[x]) for x in range(MARGIN + half, WIDTH, (WIDTH - MARGIN) // 4)] == [0, 10, 20, 30]
    assert row[MARGIN + PICTURE + half] == 5
    for shade in (40, 45, 200, 210):
        assert (pixels[top + PICTURE :, :, 0] == shade).sum() > 0.9 * PICTURE**2
    assert (pixels[:, -MARGIN:] == 255).all(), "nothing reaches into the margin"


def test_a_sheet_of_a_suite_is_written_from_the_command_line(tmp_path):
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "stages.video.contact_sheet", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=ROOT)

    out = tmp_path / "sheet.png"
    done = run(out, "--suite", "practice", "--options", '{"renderer": "raycast"}')
    assert done.returncode == 0, done.stderr
    with Image.open(out) as written:
        assert written.width == WIDTH
        assert len(written.getcolors() or []) > 20
    assert out.stat().st_size < 100_000
    for wrong, says in (
        (("--suite", "garage"), "--suite garage: household has practice"),
        (("--suite", "practice", "--options", '{"renderer": "crayon"}'), "crayon"),
        (("--simulator", "garage"), "--simulator garage: "),
    ):
        refused = run(tmp_path / "other.png", *wrong)
        assert refused.returncode == 2
        assert says in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
    assert not (tmp_path / "other.png").exists()
