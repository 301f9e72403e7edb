"""The process a simulator lives in: `python -m stages.simulators.worker SOCKET COMMANDS ANSWERS...`.

Started by `stages.simulators.process` under the interpreter of the simulator's config, with inherited file
descriptors. Until it knows that this interpreter is fit to serve, nothing but the standard library is imported.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import select
import signal
import sys
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection

PR_SET_PDEATHSIG = 1
OLDEST_PYTHON = (3, 10)
PICKLE_PROTOCOL = 4  # as the channel's


def main(arguments: Sequence[str]) -> int:
    """Serve a simulator until told to close.

    Args:
        arguments: file descriptors of the socket, of the memory to read and of the memories to write.

    Returns:
        The exit status: 0 when told to close, 1 when the simulator could not be built or the stage went away.
    """
    # A worker ends with its stage, not with a Ctrl-C or a warning that Slurm sends to every process of a job.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # even where the stage ignores it
    socket, commands, *answers = (int(argument) for argument in arguments)
    _end_with_parent(socket)
    if sys.version_info < OLDEST_PYTHON:
        _refuse(
            socket, f"is Python {sys.version.split()[0]}; name one of {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} or later"
        )
        return 1
    try:
        from stages.simulators import serving
    except ImportError as error:
        _refuse(socket, f"cannot run a worker ({error}); install numpy there, or name another interpreter")
        return 1
    return serving.serve(socket, commands, answers)


def _refuse(socket: int, why: str) -> None:
    """Tell the stage that this interpreter will not do, in the form of a channel's message."""
    message: tuple[str, dict[str, str], int, list[object]] = (
        "refused",
        {"message": f"simulator.python: {sys.executable} {why}"},
        0,
        [],
    )
    Connection(socket).send_bytes(pickle.dumps(message, PICKLE_PROTOCOL))


def _end_with_parent(socket: int) -> None:
    """See to it that this process, and what it started, dies when the stage does, however it dies.

    The kernel's parent-death signal works even while the simulator holds Python's lock for good. Watching the socket
    covers the rest: a shell script between the stage and us, a stage that died before the call below, grandchildren.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")

    def watch() -> None:
        hangup = select.poll()
        hangup.register(socket, 0)  # only a hang-up wakes us, not the commands
        hangup.poll()
        os.killpg(0, signal.SIGKILL)  # the stage made us the leader of a session of our own

    threading.Thread(target=watch, name="hangup", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
