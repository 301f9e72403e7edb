"""The checks of OmniGibson's probe."""

from __future__ import annotations

# The ten, in the order in which they are made.
VERSIONS, START, ROBOT, OBSERVATIONS, PICTURES = "versions", "start", "robot", "observations", "pictures"
MOTION, LIMIT, INSTANCES, SPEED, END = "motion", "step limit", "instances", "speed", "end"
ORDER = (VERSIONS, START, ROBOT, OBSERVATIONS, PICTURES, MOTION, LIMIT, INSTANCES, SPEED, END)
