"""What a running unit logs while it works: the step metrics of its attempt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.artifacts import attempt_directory, latest_incarnation
from pipeline.ledger import UnitState

TAIL = 1 << 16  # bytes: a hundred steps and more


def recent(run: Path, state: UnitState, metric: str) -> list[float | None]:
    """The last values of a metric.

    Args:
        run: the run directory.
        state: of the unit.
        metric: its name.

    Returns:
        In the order of the steps; None where it was not finite; empty before the first.
    """
    every = (line["metrics"] for line in _tail(run, state))
    return [metrics[metric] for metrics in every if metric in metrics]


def _tail(run: Path, state: UnitState) -> list[dict[str, Any]]:
    """The last lines that the unit's newest start has logged."""
    if state.attempt is None:
        return []
    path = latest_incarnation(attempt_directory(run, state.unit, state.attempt)) / "metrics.jsonl"
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL))
            lines = file.read().split(b"\n")[size > TAIL : -1]  # the first is cut, the last may be torn
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]
