"""Checks of the real ManiSkill on the machine they run on: `baton doctor --simulator maniskill`."""
