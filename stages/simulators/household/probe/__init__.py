"""Checks of the household on the machine they run on, MuJoCo Warp above all: `baton doctor --simulator household`."""
