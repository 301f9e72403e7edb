"""Seven checks of the real LIBERO on the machine they run on: `baton doctor --simulator libero`."""
