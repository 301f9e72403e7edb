"""The tracking process beside an orchestrator: started with it, told to finish with it, never in its way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline import rundir
from pipeline.config import Config

LOG = "tracking.log"
FINISH_SECONDS = 120.0


@contextmanager
def following(run: Path, config: Config, say: Callable[[str], None]) -> Iterator[None]:
    """Track the run while the block is carried out.

    Whatever goes wrong with tracking is one line to the user: the run itself goes on.

    Args:
        run: the run directory.
        config: its config, which says whether to track.
        say: shows one line to the user.
    """
    if not config.trainer.logger.enabled:
        yield
        return
    child = _start(run, "--follow")
    try:
        yield
    except KeyboardInterrupt:
        child.terminate()  # it catches up and ends by itself; the user wants the terminal back now
        raise
    except BaseException:
        _finish(child, run, say)
        raise
    _finish(child, run, say)


def _start(run: Path, *options: str) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(filter(None, (str(rundir.package_root()), os.environ.get("PYTHONPATH"))))
    # The child inherits the mask: a SIGTERM that comes before it is up waits until it takes signals.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        with (run / LOG).open("ab") as log:
            # A session of its own: Ctrl-C is for the orchestrator, which then tells it to catch up.
            return subprocess.Popen(
                [sys.executable, "-m", "pipeline.tracking", str(run), *options],
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _finish(child: subprocess.Popen[bytes], run: Path, say: Callable[[str], None]) -> None:
    child.terminate()
    if _wait(child):
        say(f"tracking is incomplete (see {run / LOG}): `baton track {run}` writes what is missing")


def _wait(child: subprocess.Popen[bytes]) -> int:
    try:
        return child.wait(FINISH_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()
