"""Where a run can be written to. A new tracker is one module with a `Sink` and one line in `sinks`."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from pipeline.config import Config
from pipeline.tracking.record import RunRecord


class SinkError(Exception):
    """The tracker could not take what was written; the message is one line. Nothing is lost: it is written again."""


class Sink(Protocol):
    """A tracker."""

    address: str
    """what people open to look at it"""

    def write(self, record: RunRecord) -> int:
        """Make the tracker show exactly this run.

        What is there already is left as it is, so that writing twice, or again after a kill, changes nothing.

        Returns:
            How many units were written now.

        Raises:
            SinkError: the tracker cannot be reached or refuses.
        """


def sinks(run: Path, config: Config) -> list[Sink]:
    """The trackers that a run's config enables."""
    found: list[Sink] = []
    if config.trainer.logger.mlflow.enable:
        # MLflow takes seconds to import: only who writes to it pays.
        from pipeline.tracking.mlflow_sink import MlflowSink

        found.append(MlflowSink.of(run, config.trainer.logger.mlflow))
    return found
