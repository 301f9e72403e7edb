"""The one process that writes a run to its trackers: `python -m pipeline.tracking RUN [--follow] [--rebuild]`.

Once, it catches up and exits. With `--follow` it goes on until SIGTERM or Ctrl-C, upon which it catches up a last time,
or until the process that started it is gone. What it and the trackers' libraries have to say goes to
`RUN/tracking.log`.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Literal, TextIO

from pipeline import rundir
from pipeline.errors import UserError
from pipeline.tracking.sink import SinkError
from pipeline.tracking.writer import LONGEST_PAUSE, Writer, log

POLL_SECONDS = 3.0
ENDS = {signal.SIGTERM, signal.SIGINT}


def follow(writer: Writer, poll: float, parent: int) -> int:
    """Write what is published until SIGTERM or SIGINT comes or the parent process is gone.

    Both have to be blocked by the caller: they are taken between two passes and never interrupt one.

    Args:
        writer: of the run.
        poll: seconds between two looks; after a look that failed the pause doubles, up to `LONGEST_PAUSE`.
        parent: process id of who started this.

    Returns:
        Exit code: 0, or 1 where the last pass failed.
    """
    pause = poll
    while True:
        try:
            writer.catch_up(time.monotonic())
            pause = poll
        except (UserError, OSError) as error:
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
        Exit code: 0, or 1 where something is missing, with a line in the log for each.
    """
    try:
        problems = writer.catch_up()
    except OSError as error:
        problems = [str(error)]
    for problem in problems:
        log.error("%s; nothing is lost: run `baton track %s` once that is mended", problem, writer.run)
    return 1 if problems else 0


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
    parser.add_argument("--rebuild", action="store_true", help="remove what the trackers have of the run first")
    parser.add_argument("--poll", type=float, default=POLL_SECONDS, metavar="SECONDS", help="pause between two looks")
    arguments = parser.parse_args(argv)
    terminal: TextIO = os.fdopen(os.dup(2), "w", buffering=1)
    if arguments.follow:
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
        os.nice(10)
    try:
        rundir.load(arguments.run)
        _log_to(arguments.run / "tracking.log")
        writer = Writer(arguments.run)
        try:
            return _write(writer, arguments, parent, terminal)
        finally:
            writer.close()
    except (UserError, SinkError) as error:
        log.error("%s", error)
        print(f"baton: {error}", file=terminal)
        return UserError.EXIT_CODE
    except Exception:
        log.exception("tracking broke off")
        print(_failed(arguments.run), file=terminal)
        return 1


def _write(writer: Writer, arguments: argparse.Namespace, parent: int, terminal: TextIO) -> int:
    if arguments.rebuild:
        writer.forget()
    where = ", ".join(writer.addresses) or "nowhere: trainer.logger enables no tracker"
    if arguments.follow:
        if os.isatty(terminal.fileno()):
            print(f"{arguments.run} is written to {where}; Ctrl-C ends it", file=terminal)
        return follow(writer, arguments.poll, parent)
    code = once(writer)
    print(f"{arguments.run}: written to {where}" if code == 0 else _failed(arguments.run), file=terminal)
    return code


def _wait(seconds: float, parent: int) -> Literal["told", "orphaned", "pause is over"]:
    """Wait for a signal, but not longer than given, nor much longer than the parent lives."""
    deadline = time.monotonic() + seconds
    while True:
        orphaned = os.getppid() != parent  # looked up first: who says SIGTERM and goes is still heard
        left = 0.0 if orphaned else max(0.0, deadline - time.monotonic())
        if signal.sigtimedwait(ENDS, min(left, POLL_SECONDS)) is not None:
            return "told"
        if orphaned:
            return "orphaned"
        if left == 0.0:
            return "pause is over"


def _failed(run: Path) -> str:
    return f"baton: {run} could not be written to its trackers; the reason is in {run / 'tracking.log'}"


def _log_to(path: Path) -> None:
    """Send the log, and whatever libraries print, to a file; nobody is asked anything."""
    logging.basicConfig(filename=path, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    log.setLevel(logging.INFO)
    with path.open("a") as file, open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


if __name__ == "__main__":
    sys.exit(main())
