"""ManiSkill's worlds in a process of its own interpreter, called as if they were here."""

import os
import pickle
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]


class Remote:
    """A simulator elsewhere: `remote.reset(...)` is called there; `send` and `receive` are its two halves."""

    def __init__(self, python):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [python, "-W", "ignore", str(Path(__file__).with_name("inside.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )

    def send(self, name, *arguments):
        pickle.dump((name, arguments), self._process.stdin)
        self._process.stdin.flush()

    def receive(self):
        error, outcome = pickle.load(self._process.stdout)
        if error is not None:
            raise error
        return outcome

    def __getattr__(self, name):
        def call(*arguments):
            self.send(name, *arguments)
            return self.receive()

        return call

    def end(self):
        self._process.kill()  # it takes long to leave by itself
        self._process.communicate()


@pytest.fixture(scope="module")
def remote(maniskill_python):
    """`remote()`: a process without a simulator yet."""
    started = []

    def start():
        started.append(Remote(maniskill_python))
        return started[-1]

    yield start
    for one in started:
        one.end()
