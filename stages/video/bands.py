"""What is written over a frame: two dark, translucent bands, the instruction above and the episode's state below."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from stages.video.layout import HEIGHT
from stages.video.lettering import cut, font, wrap

# Pixels in a frame of HEIGHT.
FONT_SIZE, LINE_HEIGHT, MARGIN = 15, 20, 6
GAP = 12  # between the items of the lower band
MAX_LINES = 2  # of the instruction; the rest of a longer one is cut off
DIM = (np.arange(256) * 0.3).astype(np.uint8)  # how much of the scene shines through a band
WHITE, GREEN, RED = (255, 255, 255), (120, 255, 140), (255, 170, 150)
COLOURS = {"": WHITE, "success": GREEN, "failure": RED}


class Bands:
    """The bands over the frames of one episode; what does not change is drawn once.

    Args:
        instruction: what the robot was asked to do.
        task: name of the task.
        seed: of the episode's initial state.
        height: S of the frames.
    """

    def __init__(self, instruction: str, task: str, seed: int, height: int = HEIGHT) -> None:
        scale = height / HEIGHT
        self._face, self._width = font(round(FONT_SIZE * scale)), height * 3 // 2
        self._margin, self._gap, line = round(MARGIN * scale), round(GAP * scale), round(LINE_HEIGHT * scale)
        lines = wrap(instruction, self._face, self._width - 2 * self._margin, MAX_LINES)
        above = Image.new("RGB", (self._width, self._margin + line * len(lines)))
        pen = ImageDraw.Draw(above)
        for number, text in enumerate(lines):
            pen.text((self._margin, self._margin // 2 + number * line), text, WHITE, self._face)
        self._above = np.asarray(above)
        # What changes stands at fixed places, filled from the right, so that it can be read while the film runs.
        widths = [int(self._face.getlength(widest)) + 1 for widest in ("success", "reward 00.00", "step 0000")]
        ends = self._width - self._margin - np.cumsum([0, *(width + self._gap for width in widths)])
        self._places = [int(end) - width for end, width in zip(ends[:-1], widths, strict=True)]
        self._below = Image.new("RGB", (self._width, self._margin + line))
        origin = f"seed {seed}"
        space = int(ends[-1]) - self._margin - self._face.getlength(origin) - self._gap
        name = cut(" ".join(task.split()), self._face, max(0.0, space))
        pen, y = ImageDraw.Draw(self._below), self._margin // 2
        pen.text((self._margin, y), name, WHITE, self._face)
        pen.text((self._margin + self._face.getlength(name) + self._gap, y), origin, WHITE, self._face)

    def over(self, frame: np.ndarray, step: int, reward: float, outcome: str) -> np.ndarray:
        """Write over a frame.

        Args:
            frame: uint8 [S, 1.5 S, 3], RGB; left as it is.
            step: steps executed so far.
            reward: sum of the rewards so far.
            outcome: how the episode ended, `success` or `failure`; empty while it lasts.

        Returns:
            A new frame, which differs from `frame` in its bands only.
        """
        below = self._below.copy()
        pen = ImageDraw.Draw(below)
        for x, text in zip(self._places, (outcome, f"reward {reward:.2f}", f"step {step}"), strict=True):
            pen.text((x, self._margin // 2), text, COLOURS[outcome if text == outcome else ""], self._face)
        written = frame.copy()
        for band, ink in ((written[: len(self._above)], self._above), (written[-below.height :], np.asarray(below))):
            np.maximum(DIM[band], ink, out=band)
        return written
