"""What `jobs.jsonl` says of attempts: when each was submitted, how long those before it took, and which ones go on."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from pipeline.artifacts import Unit
from pipeline.errors import UserError
from pipeline.jobs import FILE


class Attempts:
    """Reads the file on as it grows, so that a run of a thousand epochs is not read anew at every look."""

    def __init__(self, run: Path) -> None:
        """Nothing is read yet.

        Args:
            run: the run directory.
        """
        self._path = run / FILE
        self._offset = self._lines = 0
        self._submitted: dict[Unit, dict[int, float]] = defaultdict(dict)
        self._took: dict[Unit, dict[int, float]] = defaultdict(dict)
        self._open: dict[Unit, int] = {}

    def refresh(self) -> None:
        """Read what was added.

        Raises:
            UserError: a line cannot be read.
        """
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            whole = file.read().rpartition(b"\n")[0]
        for line in whole.split(b"\n") if whole else ():
            self._offset += len(line) + 1
            self._lines += 1
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError) as error:
                raise UserError(f"{self._path}, line {self._lines} cannot be read ({error}): delete it") from None

    def queued(self, unit: Unit, attempt: int, started: int) -> float | None:
        """Seconds from the submission of an attempt until its stage worked, at `started` Unix milliseconds."""
        submitted = self._submitted[unit].get(attempt)
        return None if submitted is None else max(0.0, started / 1000 - submitted)

    def seconds_before(self, unit: Unit, attempt: int) -> float:
        """Seconds that jobs of earlier attempts ran."""
        return sum(seconds for number, seconds in self._took[unit].items() if number < attempt)

    def open(self) -> Iterator[tuple[Unit, int]]:
        """Units submitted last and not ended, each with the number of that attempt."""
        yield from self._open.items()

    def _take(self, line: dict[str, object]) -> None:
        event = line["event"]
        if event not in ("submit", "ended"):
            return
        unit, attempt = Unit.parse(str(line["unit"])), int(str(line["attempt"]))
        if event == "submit":
            self._submitted[unit][attempt] = float(str(line["time"]))
            self._open[unit] = attempt
            return
        self._took[unit][attempt] = float(str(line.get("seconds") or 0)) - float(str(line.get("queued") or 0))
        self._open.pop(unit, None)
