"""The checks of LIBERO's probe."""

from __future__ import annotations

# The seven, in the order in which they are made.
VERSIONS, ASSETS, RENDERER, STEP, IMAGES, SPEED, MEMORY = (
    *("versions", "assets", "renderer", "one step"),
    *("images", "speed", "memory"),
)
ORDER = (VERSIONS, ASSETS, RENDERER, STEP, IMAGES, SPEED, MEMORY)
