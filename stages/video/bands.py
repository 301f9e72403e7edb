"""What is written over a frame: two dark, translucent bands, the instruction above and the episode's state below."""

from __future__ import annotations

import numpy as np

from stages.video.layout import HEIGHT
from stages.video.lettering import cut, font, inked, wrap

# Pixels in a frame of HEIGHT.
FONT_SIZE, LINE_HEIGHT, MARGIN = 15, 20, 6
GAP = 12  # between the items of the lower band
MAX_LINES = 2  # of the instruction; the rest of a longer one is cut off
DIM = 2  # bits by which the scene is darkened under a band: a quarter shines through
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
        self._face, width = font(round(FONT_SIZE * scale)), height * 3 // 2
        self._margin, gap, self._line = round(MARGIN * scale), round(GAP * scale), round(LINE_HEIGHT * scale)
        lines = wrap(instruction, self._face, width - 2 * self._margin, MAX_LINES)
        self._above = np.zeros((self._margin + self._line * len(lines), width, 3), np.uint8)
        for number, text in enumerate(lines):
            self._write(self._above, self._margin, text, WHITE, number)
        # What changes stands at fixed places, filled from the right, so that it can be read while the film runs.
        widths = [int(self._face.getlength(widest)) + 1 for widest in ("success", "reward 00.00", "step 0000")]
        ends = width - self._margin - np.cumsum([0, *(width + gap for width in widths)])
        self._places = [int(end) - width for end, width in zip(ends[:-1], widths, strict=True)]
        self._below = np.zeros((self._margin + self._line, width, 3), np.uint8)
        origin = f"seed {seed}"
        space = int(ends[-1]) - self._margin - self._face.getlength(origin) - gap
        name = cut(" ".join(task.split()), self._face, max(0.0, space))
        self._write(self._below, self._margin, name, WHITE)
        self._write(self._below, self._margin + int(self._face.getlength(name)) + gap, origin, WHITE)

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
        for x, text in zip(self._places, (outcome, f"reward {reward:.2f}", f"step {step}"), strict=True):
            self._write(below, x, text, COLOURS[outcome if text == outcome else ""])
        written = frame.copy()
        for band, ink in ((written[: len(self._above)], self._above), (written[-len(below) :], below)):
            np.maximum(band >> DIM, ink, out=band)
        return written

    def _write(self, band: np.ndarray, x: int, text: str, colour: tuple[int, int, int], line: int = 0) -> None:
        """Put a line of text, `x` pixels from the left, on a band; what does not fit is cut off."""
        y = self._margin // 2 + line * self._line
        room = band[y : y + self._line, x:]
        ink = inked(text, self._face, colour, self._line)[: len(room), : room.shape[1]]
        np.maximum(room[:, : ink.shape[1]], ink, out=room[:, : ink.shape[1]])
