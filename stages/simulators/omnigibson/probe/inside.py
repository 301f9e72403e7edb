"""The process that builds the environment and makes checks 1 to 9; it then waits to be ended, which is check 10."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from stages.simulators.interface import SimulatorConfigError
from stages.simulators.omnigibson import generation, start
from stages.simulators.omnigibson.actions import ActionMapping
from stages.simulators.omnigibson.options import Options, parse
from stages.simulators.omnigibson.probe import machine
from stages.simulators.omnigibson.probe.checks import Subject, checks, of_start
from stages.simulators.omnigibson.probe.order import START
from stages.simulators.omnigibson.proprioception import PRESETS
from stages.simulators.probing import Finding

STEP_LIMIT = 64  # of the probe's own episodes


def main() -> None:
    """Make the checks that standard input asks for, and wait for its end."""
    asked: dict[str, Any] = json.loads(sys.stdin.readline())
    first = machine.versions()
    first.tell()
    if first.verdict == "fail":
        return
    try:
        options = _probed(parse(asked["options"]))
        begin = time.monotonic()
        with robot_unchecked():
            built = start.build(options, asked["num_envs"])
    except (SimulatorConfigError, ModuleNotFoundError) as error:
        found, _, remedy = str(error).removeprefix("omnigibson: ").rpartition("; ")
        Finding(START, "fail", found or str(error), remedy if found else "see docs/behavior.md").tell()
        return
    except Exception as error:  # whatever Isaac Sim raises has to reach the asker
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        Finding(START, "fail", said, "see the lines above it in the log, and docs/behavior.md").tell()
        return
    of_start(built, time.monotonic() - begin).tell()
    for finding in checks(Subject(built, options, asked["steps"])):
        finding.tell()
    sys.stdin.readline()  # until the asker wants it to end
    built.shut_down()


def _probed(options: Options) -> Options:
    """Episodes that end soon, and all of proprioception, whatever a run takes of it."""
    keys = PRESETS["challenge_2026" if generation.find() is generation.C else "challenge"]
    return dataclasses.replace(options, max_episode_steps=STEP_LIMIT, proprio_keys=keys)


@contextlib.contextmanager
def robot_unchecked() -> Iterator[None]:
    """Build even around a robot that is not as expected, so that it can be said which check it fails."""
    whole = ActionMapping.check
    setattr(ActionMapping, "check", lambda *told: None)  # noqa: B010
    try:
        yield
    finally:
        setattr(ActionMapping, "check", whole)  # noqa: B010


if __name__ == "__main__":
    main()
