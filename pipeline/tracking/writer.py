"""Brings the trackers of a run up to date, as often as it is asked to, and goes on while one of them is away."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import UserError
from pipeline.tracking import standing
from pipeline.tracking.record import Fingerprint, Reader, RunRecord
from pipeline.tracking.sink import Sink, SinkError, sinks

FIRST_PAUSE = 3.0
LONGEST_PAUSE = 60.0
LOCK_SECONDS = 60.0
LIVE_SECONDS = 10.0

log = logging.getLogger("baton.tracking")


@dataclasses.dataclass
class _Tracker:
    """A tracker and how far it is.

    Attributes:
        sink: writes to it.
        written: what it shows.
        live: units that work as it shows them.
        lived: when they were shown last, by the monotonic clock.
        pause: seconds to leave it alone after a failure, the next one.
        not_before: when to try again.
        trouble: why it could not be written to the last time.
    """

    sink: Sink
    written: Fingerprint | None = None
    live: frozenset[tuple[str, int]] = frozenset()
    lived: float = -math.inf
    pause: float = FIRST_PAUSE
    not_before: float = -math.inf
    trouble: str | None = None


class Writer:
    """Writes a run to all its trackers, each at its own pace."""

    def __init__(self, run: Path) -> None:
        """Open the trackers that the run's config enables.

        Args:
            run: the run directory.

        Raises:
            UserError: it is no run directory, or a tracker is not installed.
        """
        self.run = run
        self._reader = Reader(run)
        self._trackers = {name: _Tracker(sink) for name, sink in sinks(run, self._reader.read().config).items()}

    @property
    def addresses(self) -> list[str]:
        """What people open to look at the run."""
        return [tracker.sink.address for tracker in self._trackers.values()]

    def catch_up(self, now: float = math.inf) -> list[str]:
        """Write what is new; costs a look at the run directory where nothing is.

        Args:
            now: monotonic seconds; trackers that failed a short time before it are left alone.

        Returns:
            A line for each thing that is not as it should be.

        Raises:
            UserError: the run directory cannot be read.
            OSError: a file cannot be read, or another writer does not come to an end.
        """
        record = self._reader.read()
        due = [tracker for tracker in self._trackers.values() if self._is_due(tracker, record, now)]
        if due:
            with locked(self.run.resolve().parent / ".tracking.lock", LOCK_SECONDS):
                for tracker in due:
                    self._write(tracker, record)
        lines = {name: [t.trouble] for name, t in self._trackers.items() if t.trouble is not None}
        troubles = lines | ({"run": list(record.damaged)} if record.damaged else {})
        standing.write(self.run, troubles)
        return [line for those in troubles.values() for line in those]

    def forget(self) -> None:
        """Remove what the trackers have of this run.

        Raises:
            SinkError: one cannot be reached or refuses.
        """
        record = self._reader.read()
        with locked(self.run.resolve().parent / ".tracking.lock", LOCK_SECONDS):
            for tracker in self._trackers.values():
                tracker.sink.forget(record)
                tracker.written = None

    def close(self) -> None:
        """Let go of everything.

        Raises:
            SinkError: a tracker did not take what was still to be sent; it is written again the next time.
        """
        with contextlib.ExitStack() as each:
            for tracker in self._trackers.values():
                each.callback(tracker.sink.close)

    def _is_due(self, tracker: _Tracker, record: RunRecord, now: float) -> bool:
        if now < tracker.not_before:
            return False
        if tracker.written != record.fingerprint or tracker.trouble is not None:
            return True
        rested = time.monotonic() - tracker.lived >= LIVE_SECONDS
        return tracker.sink.shows_live and (_live(record) != tracker.live or (bool(record.live) and rested))

    def _write(self, tracker: _Tracker, record: RunRecord) -> None:
        began = time.monotonic()
        try:
            units = tracker.sink.write(record)
        except (SinkError, UserError) as error:
            again = time.monotonic() + tracker.pause
            if str(error) != tracker.trouble:
                log.warning("%s; tried again every %.0f s or less", error, LONGEST_PAUSE)
            tracker.trouble, tracker.not_before = str(error), again
            tracker.pause = min(2 * tracker.pause, LONGEST_PAUSE)
            return
        tracker.written, tracker.live, tracker.lived = record.fingerprint, _live(record), time.monotonic()
        if units or tracker.trouble is not None:
            log.info("%d units written to %s in %.2f s", units, tracker.sink.address, time.monotonic() - began)
        tracker.trouble, tracker.pause, tracker.not_before = None, FIRST_PAUSE, -math.inf


def _live(record: RunRecord) -> frozenset[tuple[str, int]]:
    return frozenset((str(live.unit), live.began) for live in record.live)


@contextlib.contextmanager
def locked(path: Path, seconds: float) -> Iterator[None]:
    """Hold the lock that all writers below one runs directory share.

    Args:
        path: the lock file.
        seconds: how long to wait for another writer.

    Raises:
        TimeoutError: the other writer is still at it.
    """
    deadline = time.monotonic() + seconds
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{path} has been held by another writer for {seconds:.0f} s") from None
                time.sleep(0.1)
        yield
