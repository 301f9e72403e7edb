"""Gives up a process in which a step does not come back.

The kernel's alarm ends it wherever it hangs, in C++ with Python's lock held as well, after a traceback of every thread
was written to its log. The pool then starts another one.
"""

from __future__ import annotations

import contextlib
import faulthandler
import signal
from collections.abc import Iterator


def arm() -> None:
    """Have the alarm write a traceback before it ends the process; to be called when everything has started."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    faulthandler.register(signal.SIGALRM, all_threads=True, chain=True)


@contextlib.contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Give the process up if the block takes longer."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
