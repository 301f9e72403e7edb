"""Interpreters of the public simulators, built once a machine by the command a user builds them with."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import environments

BUILD_SECONDS = 900


@pytest.fixture(scope="session")
def libero_python() -> str:
    """The interpreter of LIBERO's environment."""
    return interpreter("libero")


@pytest.fixture(scope="session")
def maniskill_python() -> str:
    """The interpreter of ManiSkill's environment."""
    return interpreter("maniskill")


def interpreter(name: str) -> str:
    """The interpreter of a simulator's environment, which is built where it is missing or out of date.

    Args:
        name: of the simulator.
    """
    environment = environments.find(name)
    environment.path.parent.mkdir(parents=True, exist_ok=True)
    with Path(environment.path.parent / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers of one pytest ask at once
        if not environment.current:
            command = [sys.executable, "-m", "pipeline.cli", "env", "create", name]
            made = subprocess.run(
                command, capture_output=True, text=True, timeout=BUILD_SECONDS, stdin=subprocess.DEVNULL, env=os.environ
            )
            assert made.returncode == 0, made.stdout + made.stderr
    return str(environment.python)
