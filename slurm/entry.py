"""What a submitted job executes: a module by name, as `python -m` would."""

from __future__ import annotations

import runpy
import signal
import sys
from collections.abc import Sequence


def run_module(module: str, arguments: Sequence[str]) -> None:
    """Run a module as the main program of this process.

    Args:
        module: dotted name, found on PYTHONPATH.
        arguments: its command line.
    """
    # submitit ignores SIGTERM and answers USR2 by pickling; what a signal means is the module's own business.
    for number in (signal.SIGTERM, signal.SIGCONT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
