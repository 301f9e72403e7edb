"""The checks of the household's probe."""

from __future__ import annotations

VERSIONS, DEVICE, KERNELS, MEMORY = "versions", "device", "kernels", "memory"
START, STEP, IMAGES = "start", "one step", "images"
ORDER = (VERSIONS, DEVICE, KERNELS, MEMORY, START, STEP, IMAGES)
"""In the order in which they are made."""
