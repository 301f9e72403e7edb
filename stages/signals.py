"""What a stage does when told to stop: it drops what it is at, closes, and says "start me again" by its exit code.

Slurm sends SIGTERM when a job is preempted or cancelled or its node is drained, and SIGUSR2 when its time limit or a
preemption is near. Both raise `Stopped` in the main thread, wherever it is, except in a block that must be finished.
A thread of its own sees to it that the process ends even if the main thread is held in a collective operation that
cannot finish, or if a library swallowed the exception.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType

STOPPED = 75  # exit code, EX_TEMPFAIL: the same command does what is left

REASONS = {
    signal.SIGTERM: "SIGTERM (preempted, cancelled, or its node is drained)",
    signal.SIGUSR2: "SIGUSR2 (its time limit or a preemption is near)",
}
CLOSING_S = 15.0  # Slurm kills 30 s after SIGTERM unless it is told otherwise
TICK_S = 0.1


class Stopped(BaseException):
    """The stage is to end now and to be started again. No `except Exception` takes it for a failure."""


class _State:
    installed: bool = False
    arrived: str = ""  # what asked the stage to stop first
    shields: int = 0
    over: bool = False  # nothing is left that a signal could stop


def install() -> None:
    """Let the two signals stop this process, whose main thread calls this."""
    _State.installed = True
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # The interpreter writes a signal's number there at once, even while the main thread is away in a library.
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in REASONS:
        signal.signal(number, _stop)
    threading.Thread(target=_end_in_any_case, args=(reader,), name="stop", daemon=True).start()


class shielded:
    """`with shielded():` a block that a signal does not cut short; `Stopped` is raised at its end instead."""

    def __enter__(self) -> None:
        """Hold signals back."""
        _State.shields += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop now if a signal came meanwhile; an exception of the block itself goes first."""
        _State.shields -= 1
        if kind is None:
            check()


def check(within: float = 0.0) -> None:
    """Stop if a signal has come, or comes soon.

    Args:
        within: seconds to wait for one. When a whole job is ended, what its other processes leave behind, e.g. a closed
            connection, may be noticed before the signal that ended them.

    Raises:
        Stopped: it has.
    """
    deadline = time.monotonic() + within
    while True:
        if _State.arrived and not _State.shields and not _State.over:
            raise Stopped(_State.arrived)
        if time.monotonic() >= deadline:
            return
        time.sleep(TICK_S)


def finish() -> None:
    """Take no more notice of signals: the process is done and about to end."""
    if _State.installed:
        _State.over = True
        for number in REASONS:
            signal.signal(number, signal.SIG_IGN)


def _stop(number: int, frame: FrameType | None) -> None:
    if not _State.arrived:  # a second signal has nothing to add, and must not disturb the closing
        _State.arrived = REASONS[signal.Signals(number)]
        check()


def _end_in_any_case(reader: int) -> None:
    """Wait for a signal, give the main thread time to close, then end the process; the kernel ends its children."""
    while os.read(reader, 1)[0] not in REASONS:
        continue
    left = CLOSING_S
    while left > 0:
        time.sleep(TICK_S)
        left = CLOSING_S if _State.shields else left - TICK_S
    if not _State.over:
        os.write(2, f"baton: it did not close within {CLOSING_S:g} s and ends without\n".encode())
        os._exit(STOPPED)
