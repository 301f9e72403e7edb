"""Which of the trackers that a config enables nobody installed here."""

from __future__ import annotations

import importlib.util

from pipeline.config import Config

INSTALL = "pip install 'baton-vla[tracking]'"


def uninstalled(config: Config) -> dict[str, str]:
    """Trackers that cannot be written to from here.

    Args:
        config: of a run.

    Returns:
        Name under `trainer.logger` -> a line for the user.
    """
    return {
        name: f"trainer.logger.{name}.enable = true, but {name} is not installed: "
        f"{INSTALL}, or set trainer.logger.{name}.enable=false"
        for name in config.trainer.logger.enabled
        if importlib.util.find_spec(name) is None
    }
