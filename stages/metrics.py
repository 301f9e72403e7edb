"""What a stage leaves behind while it works: metrics by step, progress, and seconds per phase.

Every line is written whole and at once, so a reader may look at any moment and a killed stage leaves at most one torn
line, which the next writer of the file cuts off. Numbers that are not finite are stored as null, because JSON has no
word for them; readers take null for NaN.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any


class MetricsLog:
    """Appends to a `metrics.jsonl`: lines `{"time": unix seconds, "step": int, "metrics": {name: float}}`."""

    def __init__(self, path: Path) -> None:
        """Open the log.

        Args:
            path: the file; created empty with its directory, continued where it exists.
        """
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        _cut_torn_line(path)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append the metrics of one step.

        Args:
            step: counts from 0 within the unit, e.g. the optimizer step.
            metrics: name -> number; whatever `float` takes, e.g. a tensor of one element.

        Raises:
            ValueError: a value is not a number.
        """
        _append(self.path, {"time": time.time(), "step": int(step), "metrics": plain(metrics)})


def write_progress(path: Path, done: int, total: int, metrics: Mapping[str, float] | None = None) -> None:
    """Replace `progress.json`, so that a reader sees the old one or the new one and never a part.

    Args:
        path: the file.
        done: what is finished, in the stage's own unit, e.g. episodes.
        total: what there is to do, in the same unit.
        metrics: name -> number so far, e.g. the success rate.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"done": int(done), "total": int(total), "metrics": plain(metrics or {})}
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(content) + "\n")
    os.replace(partial, path)


class Phases:
    """Adds up the seconds of each phase of a stage.

    `with phases("simulate"): ...` charges the time inside to `simulate`. A phase within a phase pauses the outer one,
    so the phases never sum to more than the total.
    """

    TOTAL = "total"

    def __init__(self, path: Path | None = None, turning: Callable[[], None] | None = None) -> None:
        """Start the clock of the total.

        Args:
            path: `phases.jsonl`, which gets a line `{"time", "phase"}` whenever another phase begins or goes on;
                None: no file.
            turning: called then.
        """
        self._path, self._turning = path, turning
        self._noted: str | None = None
        self._seconds: dict[str, float] = {}
        self._open: list[str] = []
        self._began = self._turned = time.monotonic()
        if path is not None:
            _cut_torn_line(path)

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Charge the time of the block to `phase`."""
        if phase == self.TOTAL:
            raise ValueError(f"a phase cannot be named {phase!r}: that is the sum of all")
        self._charge()
        self._open.append(phase)
        self._note()
        try:
            yield
        finally:
            self._charge()
            self._open.pop()
            if self._open:
                self._note()

    @property
    def seconds(self) -> dict[str, float]:
        """Phase -> seconds up to now, and `total`, the seconds since the start."""
        self._charge()
        return {**self._seconds, self.TOTAL: self._turned - self._began}

    def _charge(self) -> None:
        now = time.monotonic()
        if self._open:
            phase = self._open[-1]
            self._seconds[phase] = self._seconds.get(phase, 0.0) + now - self._turned
        self._turned = now

    def _note(self) -> None:
        if self._open[-1] == self._noted:  # a stage writes a thousand episodes one after another
            return
        self._noted = self._open[-1]
        if self._turning is not None:
            self._turning()
        if self._path is not None:
            _append(self._path, {"time": time.time(), "phase": self._noted})


def plain(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Metrics as JSON can hold them.

    Args:
        metrics: name -> whatever `float` takes.

    Returns:
        Name -> float, or None where the number is not finite.

    Raises:
        ValueError: a value is not a number.
    """
    numbers: dict[str, float | None] = {}
    for name, value in metrics.items():
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"metric {name} is {value!r}, which is not a number") from error
        numbers[name] = number if math.isfinite(number) else None
    return numbers


def _append(path: Path, line: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = (json.dumps(line, allow_nan=False) + "\n").encode()
    # Unbuffered: one write(2) a line, so nothing is lost when the stage is killed.
    with path.open("ab", buffering=0) as file:
        file.write(text)


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        if not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)
