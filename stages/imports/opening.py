"""Which recorded demonstrations belong to which simulator."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import Config
from pipeline.errors import UserError
from stages.imports.source import Source


def open_source(path: Path, config: Config, turn: bool | None = None) -> Source:
    """Open recorded demonstrations for a config.

    Args:
        path: a directory or file, as `baton import` takes it.
        config: `simulator.name` decides what is expected there.
        turn: whether pictures of LIBERO are turned by 180 degrees; None: where the layout needs it.

    Raises:
        UserError: there are no imports for this simulator, or the config or the demonstrations do not do.
    """
    if config.simulator.name != "libero" and turn is not None:
        raise UserError(f"--turn and --no-turn are for pictures of libero, simulator.name is {config.simulator.name}")
    if config.simulator.name == "omnigibson":
        from stages.imports.behavior.demonstrations import Demonstrations as Behavior

        return Behavior(path, config)
    if config.simulator.name == "libero":
        from stages.imports.libero.demonstrations import Demonstrations as Libero

        return Libero(path, config, turn)
    raise UserError(
        f"simulator.name={config.simulator.name}: there are demonstrations to import for libero and omnigibson; name a "
        "config with one of them, e.g. configs/libero_object_small.yaml"
    )
