"""Text in pictures: its font, and its lines."""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@functools.cache
def font(size: int) -> Font:
    """The font of all that is written, by its height in pixels."""
    return ImageFont.load_default(size)


@functools.lru_cache(maxsize=64)  # the same for every frame of an episode
def wrap(text: str, face: Font, width: float, most: int) -> list[str]:
    """Break a text into lines.

    Args:
        text: what to write.
        face: what it is written in.
        width: of a line, pixels.
        most: number of lines; the end of a longer text is replaced by dots.

    Returns:
        At least one line.
    """
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if face.getlength(longer) <= width or not lines[-1] or len(lines) == most:
            lines[-1] = longer
        else:
            lines.append(word)
    return [cut(line, face, width) for line in lines]


@functools.lru_cache(maxsize=64)
def cut(text: str, face: Font, width: float) -> str:
    """Return the text, its end replaced by dots where it is wider than `width` pixels."""
    if face.getlength(text) <= width:
        return text
    while text and face.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


@functools.lru_cache(maxsize=1024)  # a film's numbers are those of the film before
def inked(text: str, face: Font, colour: tuple[int, int, int], height: int) -> np.ndarray:
    """Draw a line of text on black.

    Args:
        text: what to write.
        face: what it is written in.
        colour: RGB.
        height: of the picture, pixels.

    Returns:
        uint8 [height, W, 3], as wide as the text; not to be changed.
    """
    picture = Image.new("RGB", (int(face.getlength(text)) + 1, height))
    ImageDraw.Draw(picture).text((0, 0), text, colour, face)
    return np.asarray(picture)
