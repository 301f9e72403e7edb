"""The cameras' pictures stand where they belong, whatever their size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.video import FRAME_SHAPE, compose, fit


def plain(shade: int, height: int, width: int) -> np.ndarray:
    return np.full((3, height, width), shade, np.uint8)


@settings(max_examples=20, deadline=None)
@given(size=st.integers(32, 600), film=st.sampled_from([224, 448, 900]))
def test_head_right_wrists_left(size: int, film: int) -> None:
    frame = compose(plain(200, size, size), np.stack([plain(50, size, size), plain(100, size, size)]), film)
    assert frame.shape == (film, film * 3 // 2, 3)
    half = film // 2
    for part, shade in ((frame[:, half:], 200), (frame[:half, :half], 50), (frame[half:, :half], 100)):
        assert (part == shade).all()


def test_one_wrist_stands_at_the_left_top_and_none_leaves_the_head_in_the_middle() -> None:
    random = np.random.default_rng(0)
    head, wrist = (random.integers(1, 256, shape, np.uint8) for shape in ((3, 448, 448), (1, 3, 224, 224)))
    one = compose(head, wrist)
    np.testing.assert_array_equal(one[:, 224:], head.transpose(1, 2, 0))
    np.testing.assert_array_equal(one[:224, :224], wrist[0].transpose(1, 2, 0))
    assert not one[224:, :224].any()
    alone = compose(head, wrist[:0])
    assert alone.shape == FRAME_SHAPE
    np.testing.assert_array_equal(alone[:, 112:-112], head.transpose(1, 2, 0))
    assert not alone[:, :112].any()
    assert not alone[:, -112:].any()


def test_pictures_of_the_right_size_are_taken_as_they_are() -> None:
    random = np.random.default_rng(0)
    head, wrist = (random.integers(0, 256, shape, np.uint8) for shape in ((3, 448, 448), (2, 3, 224, 224)))
    frame = compose(head, wrist)
    assert frame.shape == FRAME_SHAPE
    np.testing.assert_array_equal(frame[:, 224:], head.transpose(1, 2, 0))
    np.testing.assert_array_equal(frame[:224, :224], wrist[0].transpose(1, 2, 0))
    np.testing.assert_array_equal(frame[224:, :224], wrist[1].transpose(1, 2, 0))
    assert fit(frame) is frame


def test_what_is_not_square_keeps_its_shape_between_black_bars() -> None:
    frame = compose(plain(200, 240, 320), np.stack([plain(50, 240, 320)] * 2))
    head = frame[:, 224:]
    assert (head[:56] == 0).all()
    assert (head[-56:] == 0).all()
    assert (head[56:-56] == 200).all()


def test_a_small_picture_is_enlarged_without_steps() -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8), (3, 64, 64))
    shown = compose(ramp, np.stack([ramp, ramp]))[200, 224:, 0].astype(int)
    assert np.abs(np.diff(shown)).max() <= 2, "a step of the ramp is four shades, seven pixels wide"


def test_frames_of_other_sizes_are_scaled_and_anything_else_is_refused() -> None:
    assert fit(np.full((96, 144, 3), 7, np.uint8)).tolist() == np.full(FRAME_SHAPE, 7).tolist()
    for wrong in (np.zeros((224, 224, 3), np.uint8), np.zeros((448, 672), np.uint8), np.zeros(FRAME_SHAPE, np.float32)):
        with pytest.raises(ValueError, match=r"^a frame is uint8 \[448, 672, 3\], this is "):
            fit(wrong)
