"""Answers calls in ManiSkill's own interpreter: pickled (name, arguments) on its input, pickled outcomes on its output.

Not a test itself, because pytest is not installed there. A name is a method of the simulator that `make` built, or one
of the functions below.
"""

import importlib
import os
import pickle
import sys

from stages.simulators import interface
from stages.simulators.interface import SimulatorConfigError


class Served:
    """A simulator, and what the tests ask beside it."""

    def __init__(self):
        self.simulator = None
        self.pictures = 0

    def make(self, num_envs, options):
        self.simulator = interface.make("maniskill", num_envs, options)
        camera = importlib.import_module("mani_skill.sensors.camera").Camera
        capture = camera.capture

        def counted(this):
            self.pictures += 1
            capture(this)

        camera.capture = counted
        return self.simulator.spec

    def taken(self):
        """Pictures taken since the last question."""
        taken, self.pictures = self.pictures, 0
        return taken

    def refusal(self, tasks, reward):
        """What is said of tasks that ManiSkill has."""
        environment = importlib.import_module("stages.simulators.maniskill.environment")
        try:
            environment.check(tasks, reward)
        except SimulatorConfigError as error:
            return str(error)
        return ""

    def probe(self, steps):
        """The findings of the probe about these worlds."""
        checks = importlib.import_module("stages.simulators.maniskill.probe.worlds").checks
        return [(finding.name, finding.verdict, finding.found) for finding in checks(self.simulator, steps)]

    def answer(self, name, arguments):
        try:
            return None, getattr(self if hasattr(self, name) else self.simulator, name)(*arguments)
        except Exception as error:
            return error, None


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever SAPIEN prints is no answer
    served = Served()
    while True:
        try:
            call = pickle.load(sys.stdin.buffer)
        except EOFError:
            break
        pickle.dump(served.answer(*call), answers)
        answers.flush()
