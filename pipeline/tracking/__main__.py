"""The one process that writes a run to its trackers: `python -m pipeline.tracking RUN [--follow]`.

Once, it catches up and exits. With `--follow` it goes on until SIGTERM, upon which it catches up a last time, or until
the process that started it is gone. What it and the trackers' libraries have to say goes to `RUN/tracking.log`.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TextIO

from pipeline.errors import UserError
from pipeline.tracking.record import fingerprint, read
from pipeline.tracking.sink import Sink, SinkError, sinks

POLL_SECONDS = 3.0
LONGEST_PAUSE = 60.0
LOCK_SECONDS = 60.0

log = logging.getLogger("baton.tracking")


class Writer:
    """Brings the trackers of a run up to date, as often as it is asked to."""

    def __init__(self, run: Path) -> None:
        """Open the trackers that the run's config enables.

        Args:
            run: the run directory.

        Raises:
            UserError: it is no run directory.
        """
        self.run = run
        self.sinks: list[Sink] = sinks(run, read(run).config)
        self._written: dict[str, frozenset[tuple[str, int, int]]] = {}

    def catch_up(self) -> None:
        """Write what is new; costs a few `stat` where nothing is.

        Raises:
            SinkError: a tracker cannot be reached; the others have been written.
            UserError: the run directory is damaged.
            OSError: a file cannot be read, or another writer does not come to an end.
        """
        now = fingerprint(self.run)
        late = [sink for sink in self.sinks if self._written.get(sink.address) != now]
        if not late:
            return
        failures = []
        with locked(self.run.resolve().parent / ".tracking.lock", LOCK_SECONDS):
            record = read(self.run)
            for sink in late:
                began = time.monotonic()
                try:
                    units = sink.write(record)
                except SinkError as error:
                    failures.append(str(error))
                    continue
                self._written[sink.address] = now
                log.info("%d units written to %s in %.2f s", units, sink.address, time.monotonic() - began)
        if failures:
            raise SinkError("; ".join(failures))


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


def follow(writer: Writer, poll: float, parent: int) -> int:
    """Write what is published until SIGTERM comes or the parent process is gone.

    SIGTERM has to be blocked by the caller: it is taken between two passes and never interrupts one.

    Args:
        writer: of the run.
        poll: seconds between two looks; after a failure the pause doubles, up to `LONGEST_PAUSE`.
        parent: process id of who started this.

    Returns:
        Exit code: 0, or 1 where the last pass failed.
    """
    pause = poll
    while True:
        try:
            writer.catch_up()
            pause = poll
        except (SinkError, UserError, OSError) as error:
            pause = min(2 * pause, LONGEST_PAUSE)
            log.warning("%s; next try in %.1f s", error, pause)
        match _wait(pause, parent):
            case "told":
                return once(writer)
            case "orphaned":
                log.info("the process that started this one is gone")
                return 0


def once(writer: Writer) -> int:
    """Catch up once.

    Returns:
        Exit code: 0, or 1 where it failed, with a line in the log.
    """
    try:
        writer.catch_up()
    except (SinkError, OSError) as error:
        log.error("%s; nothing is lost: run `baton track %s` once that is mended", error, writer.run)
        return 1
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments; None: those of the process.

    Returns:
        Exit code: 0, 1 where a tracker could not be brought up to date, 2 for a user's mistake.
    """
    parent = os.getppid()
    parser = argparse.ArgumentParser(prog="python -m pipeline.tracking", description="Write a run to its trackers.")
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("--follow", action="store_true", help="go on until SIGTERM or the end of the parent process")
    parser.add_argument("--poll", type=float, default=POLL_SECONDS, metavar="SECONDS", help="pause between two looks")
    arguments = parser.parse_args(argv)
    terminal: TextIO = os.fdopen(os.dup(2), "w", buffering=1)
    if arguments.follow:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the orchestrator, which then ends this process
        os.nice(10)
    try:
        read(arguments.run)
        _log_to(arguments.run / "tracking.log")
        if arguments.follow:
            terminal = sys.stderr  # the log by now: the terminal is the orchestrator's
        writer = Writer(arguments.run)
        if arguments.follow:
            return follow(writer, arguments.poll, parent)
        code = once(writer)
        where = ", ".join(sink.address for sink in writer.sinks) or "nowhere: trainer.logger enables no tracker"
        print(f"{arguments.run}: written to {where}" if code == 0 else _failed(arguments.run), file=terminal)
        return code
    except UserError as error:
        log.error("%s", error)
        print(f"baton: {error}", file=terminal)
        return UserError.EXIT_CODE
    except Exception:
        log.exception("tracking broke off")
        print(_failed(arguments.run), file=terminal)
        return 1


def _wait(seconds: float, parent: int) -> Literal["told", "orphaned", "pause is over"]:
    """Wait for SIGTERM, but not longer than given, nor much longer than the parent lives."""
    deadline = time.monotonic() + seconds
    while True:
        orphaned = os.getppid() != parent  # looked up first: who says SIGTERM and goes is still heard
        left = 0.0 if orphaned else max(0.0, deadline - time.monotonic())
        if signal.sigtimedwait({signal.SIGTERM}, min(left, POLL_SECONDS)) is not None:
            return "told"
        if orphaned:
            return "orphaned"
        if left == 0.0:
            return "pause is over"


def _failed(run: Path) -> str:
    return f"baton: {run} could not be written to its trackers; the reason is in {run / 'tracking.log'}"


def _log_to(path: Path) -> None:
    """Send the log, and whatever libraries print, to a file."""
    logging.basicConfig(filename=path, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    log.setLevel(logging.INFO)
    with path.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


if __name__ == "__main__":
    sys.exit(main())
