"""What is written over a frame: two dark, translucent bands, the instruction above and the episode's state below.

A frame is what a simulator films: the wrist cameras (224 x 224) one above the other on the left, the head camera
(448 x 448) on the right.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image, ImageDraw

from stages.video.lettering import cut, font, wrap

FRAME_SHAPE = (448, 672, 3)
FONT_SIZE = 14
LINE_HEIGHT = 20
MARGIN = 6
GAP = 18  # between the items of the lower band
MAX_LINES = 2  # of the instruction; the rest of a longer one is cut off
DIM = 0.45  # how much of the scene shines through a band
WHITE, GREEN = (255, 255, 255), (120, 255, 140)


@dataclasses.dataclass(frozen=True)
class Overlay:
    """What is told about a frame.

    Attributes:
        instruction: what the robot was asked to do.
        task: name of the task.
        seed: of the episode's initial state.
        step: steps executed so far.
        reward: sum of the rewards so far.
        success: the task is done.
    """

    instruction: str
    task: str
    seed: int
    step: int
    reward: float
    success: bool


def overlay(frame: np.ndarray, info: Overlay) -> np.ndarray:
    """Write `info` over a frame.

    Args:
        frame: uint8 [448, 672, 3], RGB; left as it is.
        info: what to write.

    Returns:
        A new frame, uint8 [448, 672, 3], which differs from `frame` in its bands only.
    """
    if frame.shape != FRAME_SHAPE or frame.dtype != np.uint8:
        raise ValueError(f"a frame is uint8 {list(FRAME_SHAPE)}, this is {frame.dtype} {list(frame.shape)}")
    written = frame.copy()
    face = font(FONT_SIZE)
    lines = wrap(info.instruction, face, FRAME_SHAPE[1] - 2 * MARGIN, MAX_LINES)
    top = _dim(written[: MARGIN + LINE_HEIGHT * len(lines)])
    pen = ImageDraw.Draw(top)
    for number, line in enumerate(lines):
        pen.text((MARGIN, MARGIN // 2 + number * LINE_HEIGHT), line, WHITE, face)
    written[: top.height] = np.asarray(top)

    bottom = _dim(written[-LINE_HEIGHT - MARGIN :])
    pen = ImageDraw.Draw(bottom)
    state = "success" if info.success else ""
    # What changes stands at fixed places, filled from the right, so that it can be read while the film runs.
    x = FRAME_SHAPE[1] - MARGIN
    for text, widest, colour in (
        (state, "success", GREEN),
        (f"reward {info.reward:.2f}", "reward -000.00", WHITE),
        (f"step {info.step}", "step 0000", WHITE),
    ):
        x -= int(max(face.getlength(text), face.getlength(widest)))
        pen.text((x, MARGIN // 2), text, colour, face)
        x -= GAP
    pen.text(
        (MARGIN, MARGIN // 2), cut(f"{' '.join(info.task.split())}   seed {info.seed}", face, x - MARGIN), WHITE, face
    )
    written[-bottom.height :] = np.asarray(bottom)
    return written


def _dim(band: np.ndarray) -> Image.Image:
    return Image.fromarray((band * np.float32(DIM)).astype(np.uint8))
