"""Ten checks of the real OmniGibson on the machine they run on: `baton doctor --simulator omnigibson`."""
