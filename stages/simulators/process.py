"""The stage's side of one worker process: start it, talk to it, see it fail, end it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stages.simulators.channel import Channel, MemoryShortage, Message
from stages.simulators.interface import SimulatorConfigError

PACKAGE_ROOT = Path(__file__).resolve().parents[2]
TAIL_LINES, TAIL_BYTES = 20, 1 << 16
REAP_SECONDS = 10.0  # a killed process can linger in a driver call; past this it is left to the kernel
HANGUP_SECONDS = 5.0  # from closing its socket to being dead
MESSAGE_SECONDS = 60.0  # from the first to the last byte of a message; they take microseconds

# Many workers share a node, so each keeps to one thread. LP_NUM_THREADS is for llvmpipe, Mesa's software renderer, and
# counts threads beside the one that calls it.
ONE_THREAD = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"),
    "LP_NUM_THREADS": "0",
}

CAUSES: dict[int, str] = {
    signal.SIGKILL: ", as the kernel does when memory runs out",
    signal.SIGALRM: ": a step of its simulator did not come back in time",
}

CUDA_DEVICES, EGL_DEVICE = "CUDA_VISIBLE_DEVICES", "MUJOCO_EGL_DEVICE_ID"


class WorkerFault(Exception):
    """A worker died, hung, failed or returned what is not a number; another one can take its place.

    Attributes:
        traceback: of the simulator, where the worker itself told what went wrong; else empty.
    """

    def __init__(self, reason: str, traceback: str = "") -> None:
        """Keep the reason, in words and in one line."""
        super().__init__(reason)
        self.traceback = traceback


@dataclasses.dataclass(frozen=True)
class WorkerOrder:
    """How to start a worker.

    Attributes:
        name: simulator, as `stages.simulators.interface.make` takes it.
        options: the simulator's own options.
        num_envs: worlds in this worker.
        python: interpreter to run it with.
        environment: variables set for it, over those of the stage.
        log: file its stdout and stderr are appended to; None leaves them where the stage's go.
    """

    name: str
    options: Mapping[str, Any]
    num_envs: int
    python: str
    environment: Mapping[str, str]
    log: Path | None


class WorkerProcess:
    """A running worker. It leads a session and process group of its own, so a terminal's Ctrl-C does not reach it."""

    def __init__(self, order: WorkerOrder) -> None:
        """Start the process and tell it what to build; its first answer is that it has.

        Raises:
            SimulatorConfigError: the interpreter cannot be run.
        """
        self._killed = False
        self._log = order.log
        self._log_start = order.log.stat().st_size if order.log is not None and order.log.exists() else 0
        ours, theirs = socket.socketpair()
        commands, *answers = (os.memfd_create(f"baton-{name}") for name in ("commands", "answers", "answers"))
        inherited = (theirs.fileno(), commands, *answers)
        try:
            self.process = _spawn(order, inherited)
        except OSError as error:
            ours.close()
            for memory in (commands, *answers):
                os.close(memory)
            raise SimulatorConfigError(
                f"simulator.python: {order.python!r} cannot be run ({error.strerror}); "
                "name a Python interpreter in which the simulator is installed"
            ) from error
        finally:
            theirs.close()
        self.channel = Channel(ours.detach(), outgoing=[commands], incoming=answers)
        self.channel.limit(MESSAGE_SECONDS)
        with contextlib.suppress(WorkerFault):  # one that is gone already is noticed when its answer is waited for
            self.send("make", {"name": order.name, "num_envs": order.num_envs, "options": dict(order.options)})

    def send(self, verb: str, fields: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> None:
        """Send a command.

        Raises:
            WorkerFault: the worker is gone or has stopped, or there is no memory for the arrays.
        """
        try:
            self.channel.send(verb, fields, arrays)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise WorkerFault(self._end()) from error
        except BlockingIOError as error:
            raise WorkerFault(f"it took no command for {MESSAGE_SECONDS:g} s") from error
        except MemoryShortage as error:
            raise WorkerFault(str(error)) from error

    def receive(self) -> Message:
        """Take an answer that has begun to arrive.

        Raises:
            SimulatorConfigError: the simulator refuses what was asked.
            WorkerFault: the worker is gone or has stopped, its simulator failed, or there is no memory.
        """
        try:
            message = self.channel.receive()
        except (EOFError, ConnectionResetError) as error:
            raise WorkerFault(self._end()) from error
        except BlockingIOError as error:
            raise WorkerFault(f"its answer was not whole after {MESSAGE_SECONDS:g} s") from error
        except MemoryShortage as error:
            raise WorkerFault(str(error)) from error
        if message.verb == "refused":
            raise SimulatorConfigError(message.fields["message"])
        if message.verb == "failed":
            raise WorkerFault(message.fields["reason"], message.fields["traceback"])
        return message

    def running(self) -> bool:
        """Return whether the process has not ended."""
        return self._exit() is None

    def kill(self) -> None:
        """End the process and everything it started, at once; may be called twice."""
        if self._killed:
            return
        self._killed = True
        # The group keeps its number until `wait` reaps the leader, so this cannot hit a stranger.
        os.killpg(self.process.pid, signal.SIGKILL)
        # A process stuck in the kernel dies when it comes back; waiting longer would hang the stage as well.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(REAP_SECONDS)
        self.channel.close()

    def tail(self) -> str:
        """Return the last lines it printed, empty where they went to the stage's own output."""
        if self._log is None:
            return ""
        with self._log.open("rb") as file:
            file.seek(max(self._log_start, self._log.stat().st_size - TAIL_BYTES))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-TAIL_LINES:])

    def _end(self) -> str:
        """Return how the process ended, which its hanging up has announced."""
        deadline = time.monotonic() + HANGUP_SECONDS
        while (exit_ := self._exit()) is None:
            if time.monotonic() > deadline:
                return "it hung up"
            time.sleep(0.005)
        if exit_.si_code == os.CLD_EXITED:
            return f"it exited with status {exit_.si_status}"
        cause = CAUSES.get(exit_.si_status, "")
        return f"it was killed by signal {exit_.si_status} ({signal.strsignal(exit_.si_status)}){cause}"

    def _exit(self) -> os.waitid_result | None:
        """Return how the process ended, None while it runs; it is not reaped, so its number stays its own."""
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)


def _spawn(order: WorkerOrder, inherited: tuple[int, ...]) -> subprocess.Popen[bytes]:
    search_path = [str(PACKAGE_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    inherited_environment = dict(os.environ)
    if CUDA_DEVICES in order.environment:
        # EGL draws on the worker's own card by itself; a number chosen for other cards would lead it to another.
        inherited_environment.pop(EGL_DEVICE, None)
    environment = {
        **inherited_environment,
        **ONE_THREAD,
        "PYTHONPATH": os.pathsep.join(search_path),
        "PYTHONFAULTHANDLER": "1",  # a segmentation fault leaves a traceback in the log
        "PYTHONUNBUFFERED": "1",
        **order.environment,
    }
    command = [order.python, "-m", "stages.simulators.worker", *(str(descriptor) for descriptor in inherited)]
    log = None if order.log is None else order.log.open("ab")
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            pass_fds=inherited,
            start_new_session=True,
        )
    finally:
        if log is not None:
            log.close()
