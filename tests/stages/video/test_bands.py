"""What is written over frames stays in its bands, and can be read there: also in the film that comes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from stages.video import Bands, VideoWriter
from stages.video.bands import FONT_SIZE
from stages.video.lettering import font
from tests.films import read_film

TOP, BOTTOM = 46, 26  # the tallest the bands get, pixels
INFO = {"instruction": "put the apple into the bowl", "task": "apple-in-bowl", "seed": 17}


def scene(shift: int = 0) -> np.ndarray:
    rows, columns = np.mgrid[0:448, 0:672]
    return np.stack([rows // 2, columns // 3, (rows + columns + shift) // 5], axis=2).astype(np.uint8)


def visibility(band: np.ndarray, text: str) -> float:
    """How well a text stands out at the best place of a band: brightness of its strokes less that around them."""
    face = font(FONT_SIZE)
    picture = Image.new("L", (int(face.getlength(text)) + 1, 24))
    ImageDraw.Draw(picture).text((0, 2), text, 255, face)
    ink = np.asarray(picture)
    rows = np.flatnonzero(ink.any(axis=1))
    ink = ink[rows[0] : rows[-1] + 1]
    views = np.lib.stride_tricks.sliding_window_view(band.mean(axis=2), ink.shape)
    return float((views[..., ink > 200].mean(axis=-1) - views[..., ink < 20].mean(axis=-1)).max())


def read(band: np.ndarray, candidates: list[str]) -> str:
    """Which of some texts stands in a band; it must stand out clearly."""
    seen = {text: visibility(band, text) for text in candidates}
    best = max(seen, key=lambda text: seen[text])
    assert seen[best] > 100, seen
    return best


@settings(max_examples=30, deadline=None)
@given(
    instruction=st.text(max_size=300),
    task=st.text(max_size=200),
    seed=st.integers(-1, 2**63),
    step=st.integers(0, 10**6),
    reward=st.floats(-1e6, 1e6),
    outcome=st.sampled_from(["", "success", "failure"]),
)
def test_only_the_bands_are_written_on(
    instruction: str, task: str, seed: int, step: int, reward: float, outcome: str
) -> None:
    frame = scene()
    written = Bands(instruction, task, seed).over(frame, step, reward, outcome)
    np.testing.assert_array_equal(written[TOP:-BOTTOM], frame[TOP:-BOTTOM])
    np.testing.assert_array_equal(frame, scene())
    assert (written[0] <= frame[0]).all()


def test_everything_can_be_read_from_the_film(tmp_path: Path) -> None:
    path, bands = tmp_path / "film.mp4", Bands(**INFO)
    with VideoWriter(path, fps=10) as writer:
        for step in range(1, 31):
            outcome = "success" if step == 30 else ""
            writer.write(bands.over(scene(20 * step), step, step / 8, outcome))
    film = read_film(path).frames
    for step in (1, 9, 30):
        above, below = film[step - 1][:BOTTOM], film[step - 1][-BOTTOM:]
        assert read(above, [f"put the {what} into the bowl" for what in ("apple", "maple", "pear")]) == (
            "put the apple into the bowl"
        )
        assert read(below, [f"step {number}" for number in (1, 7, 8, 9, 30, 36, 38, 80)]) == f"step {step}"
        rewards = ["reward 0.12", "reward 0.13", "reward 1.12", "reward 1.13", "reward 3.75", "reward 8.75"]
        assert read(below, rewards) == f"reward {step / 8:.2f}"
        assert read(below, ["seed 11", "seed 17", "seed 71"]) == "seed 17"
        assert read(below, ["apple-in-bowl", "apple-in-bowi", "pear-in-bowl"]) == "apple-in-bowl"
    assert read(film[29][-BOTTOM:], ["success", "failure"]) == "success"
    assert visibility(film[28][-BOTTOM:, -75:], "success") < 60, "not before it is one"


@pytest.mark.parametrize("outcome", ["success", "failure"])
def test_letters_stand_out_of_a_white_scene_as_the_web_guidelines_ask(outcome: str) -> None:
    def luminance(colour: np.ndarray) -> float:  # WCAG 2.1, "relative luminance"
        share = colour / 255
        return float(
            np.where(share <= 0.03928, share / 12.92, ((share + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)
        )

    white = np.full((448, 672, 3), 255, np.uint8)
    plain, told = (Bands("", "", 0).over(white, 0, 0.0, text)[-BOTTOM:] for text in ("", outcome))
    changed = told[(told != plain).any(axis=2)]
    brightest = changed[changed.sum(axis=1).argmax()].astype(float)
    paper = plain[0, 0].astype(float)
    assert paper.mean() > 50, "the scene shines through"
    assert (luminance(brightest) + 0.05) / (luminance(paper) + 0.05) > 4.5


def test_a_long_name_gives_way_to_the_seed_and_a_long_instruction_takes_two_lines() -> None:
    written = Bands("put the bowl " * 30, "a_task_with_a_name_" * 9, 2**31 + 5).over(scene(), 1234, -3.25, "failure")
    below = written[-BOTTOM:]
    assert read(below, ["seed 2147483653", "seed 2147483658"]) == "seed 2147483653"
    assert read(below, ["step 1234", "step 1284"]) == "step 1234"
    assert read(below, ["reward -3.25", "reward -3.26"]) == "reward -3.25"
    assert read(below, ["failure", "success"]) == "failure"
    assert (written[40] < scene()[40]).any(), "the second line's band"


def test_bands_grow_with_the_film() -> None:
    large = Bands(**INFO, height=896).over(np.zeros((896, 1344, 3), np.uint8), 3, 0.5, "success")
    small = Bands(**INFO).over(np.zeros((448, 672, 3), np.uint8), 3, 0.5, "success")
    shrunk = np.asarray(Image.fromarray(large).resize((672, 448), Image.Resampling.BOX))
    assert read(shrunk[-BOTTOM:], ["step 3", "step 8"]) == "step 3"
    assert np.abs(shrunk.mean(axis=(0, 1)) - small.mean(axis=(0, 1))).max() < 1
