"""Where the cameras stand in a frame: the wrists one above the other on the left, the head beside them.

As BEHAVIOR's own evaluation films it: left wrist above right wrist, 224 x 224 each, and the head 448 x 448. A frame of
height S is 1.5 S wide. A single wrist camera stands at the left top; without one the head is in the middle.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

HEIGHT = 448
FRAME_SHAPE = (HEIGHT, HEIGHT * 3 // 2, 3)


def compose(head: np.ndarray, wrist: np.ndarray, height: int = HEIGHT) -> np.ndarray:
    """Put the pictures of an observation into a frame.

    Args:
        head: uint8 [3, H, W], RGB.
        wrist: uint8 [V, 3, H, W], V from 0 to 2.
        height: S of the frame, a multiple of 4.

    Returns:
        uint8 [S, 1.5 S, 3]; what no picture covers is black.
    """
    frame = np.zeros((height, height * 3 // 2, 3), np.uint8)
    half = height // 2
    left = half if len(wrist) else half // 2
    frame[:, left : left + height] = _square(head, height)
    for place, picture in enumerate(wrist):
        frame[place * half : (place + 1) * half, :half] = _square(picture, half)
    return frame


def fit(frame: np.ndarray, height: int = HEIGHT) -> np.ndarray:
    """Bring a frame to another size.

    Args:
        frame: uint8 [2h, 3h, 3], RGB, of any h.
        height: S, a multiple of 4.

    Returns:
        uint8 [S, 1.5 S, 3]; the frame itself where it has that size.

    Raises:
        ValueError: it is no frame.
    """
    if frame.ndim != 3 or frame.dtype != np.uint8 or frame.shape[2] != 3 or frame.shape[0] * 3 != frame.shape[1] * 2:
        raise ValueError(f"a frame is uint8 {list(FRAME_SHAPE)}, this is {frame.dtype} {list(frame.shape)}")
    if frame.shape[0] == height:
        return frame
    return np.asarray(Image.fromarray(frame).resize((height * 3 // 2, height), _filter(frame.shape[0], height)))


def _square(picture: np.ndarray, size: int) -> np.ndarray:
    """A picture [3, H, W] in a square [size, size, 3]."""
    image = Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)))
    return np.asarray(ImageOps.pad(image, (size, size), _filter(max(picture.shape[1:]), size)))


def _filter(before: int, after: int) -> Image.Resampling:
    """Lanczos keeps most when shrinking; enlarging, it rings around edges, which bicubic hardly does."""
    return Image.Resampling.LANCZOS if after < before else Image.Resampling.BICUBIC
