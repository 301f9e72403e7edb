"""Where a run can be written to. A new tracker is one module with a `Sink` and one entry in `MODULES`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Protocol

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.tracking.installed import uninstalled
from pipeline.tracking.record import RunRecord

# Imported only by who writes to them: some take seconds to import, and not all are installed.
MODULES = {
    "mlflow": ("pipeline.tracking.mlflow_sink", "MlflowSink"),
    "tensorboard": ("pipeline.tracking.tensorboard_sink", "TensorboardSink"),
    "wandb": ("pipeline.tracking.wandb_sink", "WandbSink"),
}


class SinkError(Exception):
    """The tracker could not take what was written; the message is one line. Nothing is lost: it is written again."""


class Sink(Protocol):
    """A tracker."""

    address: str
    """what people open to look at it"""
    shows_live: bool
    """whether units that still work are shown"""

    def write(self, record: RunRecord) -> int:
        """Make the tracker show exactly this run.

        What is there already is left as it is, so that writing twice, or again after a kill, changes nothing.

        Returns:
            How many units were written now.

        Raises:
            SinkError: the tracker cannot be reached or refuses.
            UserError: what was published cannot be told.
        """

    def forget(self, record: RunRecord) -> None:
        """Remove all that the tracker has of this run.

        Raises:
            SinkError: the tracker cannot be reached or refuses.
        """

    def close(self) -> None:
        """Let go of files and connections; nothing is written any more.

        Raises:
            SinkError: the tracker did not take what was still to be sent.
        """


def sinks(run: Path, config: Config) -> dict[str, Sink]:
    """The trackers that a run's config enables, by name.

    Raises:
        UserError: one is not installed.
    """
    for line in uninstalled(config).values():
        raise UserError(line)
    found: dict[str, Sink] = {}
    for name in config.trainer.logger.enabled:
        module, kind = MODULES[name]
        found[name] = getattr(importlib.import_module(module), kind).of(run, config)
    return found
