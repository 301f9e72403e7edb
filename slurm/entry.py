"""What a submitted job executes: a module by name, as `python -m` would.

    python -m slurm.entry 1,3 stages.rollout RUN --epoch 3

runs it on two of the GPUs that are shown, counted from 0. Slurm calls them as their node does unless it confines them.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from collections.abc import Sequence

from slurm.launcher import LaunchError
from slurm.visible import DEVICES, named


def main() -> int:
    """Run the module that the command line names, on its GPUs."""
    gpus, module, *arguments = sys.argv[1:]
    try:
        os.environ[DEVICES] = named([int(gpu) for gpu in gpus.split(",")], os.environ.get(DEVICES))
    except LaunchError as error:
        print(f"baton: {error}", file=sys.stderr)
        return 2
    run_module(module, arguments)
    return 0


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


if __name__ == "__main__":
    sys.exit(main())
