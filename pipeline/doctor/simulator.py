"""Whether the real simulator does what its adapter takes for granted: its own probe, run where its workers will run."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline import launchers
from pipeline.config import Config
from pipeline.doctor import asks
from pipeline.doctor.canary import tiny_job
from pipeline.doctor.check import Check, Verdict, failed
from pipeline.doctor.nodes import NOT_STARTED
from pipeline.errors import UserError
from pipeline.rundir import package_root
from pipeline.tasks import SIMULATORS
from slurm import client
from slurm.launcher import LaunchError, TryLater

MARK = "baton-check: "  # what a line of the probe's begins with
EXEC = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"
STEPS = 1000
OVERHEAD_SECONDS = 900.0  # for the checks, once the simulator is up
GUIDES = {"omnigibson": "see docs/behavior.md", "household": "leave simulator.python out"}
VERDICTS: dict[str, Verdict] = {"pass": "pass", "warn": "warn", "fail": "fail", "skip": "skip"}


def examine(config: Config, name: str, wait: float, say: Callable[[str], None], steps: int = STEPS) -> Iterator[Check]:
    """Run the probe of a simulator.

    Args:
        config: the run's config; it says which interpreter, which options, and whether Slurm starts it.
        name: of the simulator.
        wait: seconds that a job of it may wait in the queue.
        say: shows one line to the user while they wait.
        steps: how many to measure speed and memory over.

    Yields:
        Its checks as they are made.

    Raises:
        UserError: the simulator has no probe, or the config is of another one.
    """
    probes = sorted(path.parent.name for path in SIMULATORS.glob("*/probe"))
    if name not in probes:
        raise UserError(f"--simulator {name}: it has no probe of its own; simulators with one: {', '.join(probes)}")
    if config.simulator.name != name:
        other = config.simulator.name
        raise UserError(f"--simulator {name}: this config has simulator.name={other}; give one that has {name}")
    seconds = config.simulator.start_timeout + OVERHEAD_SECONDS
    question = {
        "options": _options(config),
        "num_envs": max(1, config.rollout.num_envs // config.rollout.num_workers),
        "steps": steps,
        "seconds": seconds,
    }
    python = config.simulator.python or sys.executable
    probe = [python, "-u", "-m", f"stages.simulators.{name}.probe", json.dumps(question)]
    minutes = int(seconds / 60) + 2
    if launchers.where(config) == "local":
        command, here = probe, True
    else:
        try:
            ask = next(ask for ask in asks.read(config) if ask.simulates and ask.name in ("rollout", "pilot"))
        except (client.Unanswered, LaunchError, TryLater) as error:
            yield failed("Slurm", str(error), "wait until `sinfo` answers, or set slurm.launcher=local")
            return
        # By way of slurm.python, which may lead into a container.
        by = f"{ask.options.python or shlex.quote(sys.executable)} -c {shlex.quote(EXEC)} {shlex.join(probe)}"
        command, here = tiny_job(ask, by, wait, minutes, min(1, ask.gpus), ask.cpus), False
    say(f"starting {name} {'here' if here else 'in a job'}: this takes minutes")
    yield from _listen(command, wait + 60 * minutes, wait, GUIDES.get(name, f"baton env create {name}"))


def _options(config: Config) -> dict[str, Any]:
    """The config's block as the simulator takes it; see `stages.simulation.simulator_options`."""
    simulator = config.simulator
    names = ("image_size", "action_frequency", "physics_frequency", "rendering_frequency", "max_episode_steps")
    return {"tasks": simulator.tasks, **{name: getattr(simulator, name) for name in names}, **simulator.options}


def _listen(command: list[str], seconds: float, wait: float, guide: str) -> Iterator[Check]:
    """Read checks until the process has ended; `guide` says what to do where it makes none."""
    path = os.pathsep.join(filter(None, (str(package_root()), os.environ.get("PYTHONPATH"))))
    try:
        process = subprocess.Popen(
            command,
            env={**client.environment(), "PYTHONPATH": path},
            cwd=Path.cwd(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        remedy = "set simulator.python to an interpreter that has the simulator, or `baton env create` it"
        yield failed("simulator", f"{command[0]} does not run: {error.strerror}", remedy)
        return
    timer = threading.Timer(seconds, os.killpg, (process.pid, signal.SIGKILL))
    timer.start()
    found, said = 0, list[str]()
    assert process.stdout is not None
    try:
        for line in process.stdout:
            _, mark, text = line.partition(MARK)
            if mark:
                told = json.loads(text)
                found += 1
                yield Check(f"simulator: {told['name']}", VERDICTS[told["verdict"]], told["found"], told["remedy"])
            elif line.strip():
                said = [*said[-2:], line.strip()]
        process.wait()
    finally:
        timer.cancel()
        if process.poll() is None:  # after Ctrl-C
            process.terminate()
            process.wait()
    if found == 0:
        words = "; ".join(said) or f"exit code {process.returncode}"
        if busy := NOT_STARTED.search(words):
            words = f"no job started within {wait:.0f} s ({busy[1] or busy[2]}); let it wait longer: --wait 600"
        yield failed("simulator", f"its probe did not answer: {words}", guide)
