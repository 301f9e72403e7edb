"""The checks of LIBERO's probe, and how one says that what it looked at is broken."""

from __future__ import annotations

# The seven, in the order in which they are made.
VERSIONS, ASSETS, RENDERER, STEP, IMAGES, SPEED, MEMORY = (
    *("versions", "assets", "renderer", "one step"),
    *("images", "speed", "memory"),
)
ORDER = (VERSIONS, ASSETS, RENDERER, STEP, IMAGES, SPEED, MEMORY)


class Broken(Exception):
    """What a check looked at is broken: what was found, and what to do about it."""
