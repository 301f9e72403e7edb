"""The checks of ManiSkill's probe, and the finding of one that was refused."""

from __future__ import annotations

from stages.simulators.probing import Finding

# In the order in which they are made.
VERSIONS, VULKAN, FILES, START, PICTURES = "versions", "Vulkan", "files", "start", "pictures"
MOTION, REPEATED, SPEED = "motion", "repeated", "speed"
ORDER = (VERSIONS, VULKAN, FILES, START, PICTURES, MOTION, REPEATED, SPEED)


def refused(name: str, message: str) -> Finding:
    """The finding of a check that ended with a message which says what is wrong and then, after `; `, what to do."""
    found, _, remedy = message.removeprefix("maniskill: ").partition("; ")
    return Finding(name, "fail", found, remedy or "baton env create maniskill")
