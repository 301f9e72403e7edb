"""The process a simulator lives in: `python -m stages.simulators.worker SOCKET INCOMING OUTGOING`.

Started by `stages.simulators.pool` under the interpreter of the simulator's config, with three inherited file
descriptors. It builds the simulator it is told to, then answers one command after another until it is told to close or
the stage that started it is gone. What the simulator prints goes to the worker's log and never into the conversation.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

from stages.simulators import interface
from stages.simulators.channel import Channel, Message
from stages.simulators.interface import ChunkResult, Observation, Simulator, SimulatorConfigError

PR_SET_PDEATHSIG = 1
TRACEBACK_CHARACTERS = 20_000  # an answer must fit into the socket's buffer

Arrays = dict[str, np.ndarray]


def main(arguments: list[str]) -> int:
    """Serve a simulator until told to close.

    Args:
        arguments: file descriptors of the socket, of the memory to read and of the memory to write.

    Returns:
        The exit status: 0 when told to close, 1 when the simulator could not be built or the stage went away.
    """
    # A worker ends with its stage, not with a Ctrl-C or a warning that Slurm sends to every process of a job.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # even where the stage ignores it
    socket, incoming, outgoing = (int(argument) for argument in arguments)
    _end_with_parent(socket)
    channel = Channel(socket, outgoing=outgoing, incoming=incoming)
    try:
        simulator = _build(channel)
        if simulator is None:
            return 1
        _serve(channel, simulator)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return 1
    return 0


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


def _build(channel: Channel) -> Simulator | None:
    """Build the simulator that the first message asks for and introduce it; None when that failed and was reported."""
    order = channel.receive().fields
    try:
        simulator = interface.make(order["name"], order["num_envs"], order["options"])
    except SimulatorConfigError as error:
        channel.send("refused", {"message": str(error)})
        return None
    except Exception:  # whatever a simulator raises, its stage has to hear of it
        _report_failure(channel)
        return None
    channel.send("ready", {"spec": simulator.spec})
    return simulator


def _serve(channel: Channel, simulator: Simulator) -> None:
    verbs: dict[str, Callable[[Simulator, Message], Arrays]] = {
        "reset": _reset,
        "observe": _observe,
        "step": _step,
        "expert": _expert,
    }
    while (message := channel.receive()).verb != "close":
        try:
            arrays = verbs[message.verb](simulator, message)
        except SimulatorConfigError as error:
            channel.send("refused", {"message": str(error)})
        except Exception:  # as above
            _report_failure(channel)
        else:
            channel.send("done", {"peak_rss": peak_rss()}, arrays)
    simulator.close()


def _report_failure(channel: Channel) -> None:
    text = traceback.format_exc()
    print(text, file=sys.stderr, flush=True)
    channel.send("failed", {"traceback": text[-TRACEBACK_CHARACTERS:]})


def _reset(simulator: Simulator, message: Message) -> Arrays:
    slots = message.fields["slots"]
    simulator.reset(slots, message.fields["episodes"], message.fields["film"])
    return _observation_arrays(simulator, simulator.observe(slots), len(slots))


def _observe(simulator: Simulator, message: Message) -> Arrays:
    slots = message.fields["slots"]
    return _observation_arrays(simulator, simulator.observe(slots), len(slots))


def _step(simulator: Simulator, message: Message) -> Arrays:
    slots = message.fields["slots"]
    actions = message.arrays["actions"].copy()  # the memory is not the simulator's to keep
    result = simulator.step_chunk(slots, actions)
    return {**_result_arrays(result, actions.shape[:2]), **_look_again(simulator, slots, result)}


def _expert(simulator: Simulator, message: Message) -> Arrays:
    slots, length = message.fields["slots"], message.fields["length"]
    actions, clean, result = simulator.expert_chunk(slots, length)
    chunk = (len(slots), length)
    return {
        "actions": _checked("expert actions", actions, np.float32, (*chunk, simulator.spec.action_dim)),
        "clean": _checked("clean", clean, np.bool_, chunk),
        **_result_arrays(result, chunk),
        **_look_again(simulator, slots, result),
    }


def _look_again(simulator: Simulator, slots: list[int], result: ChunkResult) -> Arrays:
    """Observe the worlds after a chunk; those that ended by themselves show zeros, since no decision follows.

    Truncated worlds are observed: the value of their last state bootstraps the return.
    """
    watched = [row for row in range(len(slots)) if not result.terminated[row]]
    if len(watched) == len(slots):
        return _observation_arrays(simulator, simulator.observe(slots), len(slots))
    (height, width), proprio = simulator.spec.image_size, simulator.spec.proprio_dim
    arrays: Arrays = {
        "head": np.zeros((len(slots), 3, height, width), np.uint8),
        "wrist": np.zeros((len(slots), 2, 3, height, width), np.uint8),
        "proprio": np.zeros((len(slots), proprio), np.float32),
    }
    if watched:
        seen = simulator.observe([slots[row] for row in watched])
        for name, array in _observation_arrays(simulator, seen, len(watched)).items():
            arrays[name][watched] = array
    return arrays


def _observation_arrays(simulator: Simulator, observation: Observation, count: int) -> Arrays:
    (height, width), proprio = simulator.spec.image_size, simulator.spec.proprio_dim
    return {
        "head": _checked("head", observation.head, np.uint8, (count, 3, height, width)),
        "wrist": _checked("wrist", observation.wrist, np.uint8, (count, 2, 3, height, width)),
        "proprio": _checked("proprio", observation.proprio, np.float32, (count, proprio)),
    }


def _result_arrays(result: ChunkResult, chunk: tuple[int, ...]) -> Arrays:
    count = chunk[:1]
    arrays: Arrays = {
        "rewards": _checked("rewards", result.rewards, np.float32, chunk),
        "executed": _checked("executed", result.executed, np.bool_, chunk),
        "success": _checked("success", result.success, np.bool_, count),
        "terminated": _checked("terminated", result.terminated, np.bool_, count),
        "truncated": _checked("truncated", result.truncated, np.bool_, count),
    }
    for row, frames in enumerate(result.frames):
        if frames:
            arrays[f"frames/{row}"] = np.stack(frames)
    return arrays


def _checked(name: str, array: np.ndarray, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """Return `array`, holding the simulator to its interface."""
    if array.dtype != dtype or array.shape != shape:
        wanted = f"{np.dtype(dtype)} {list(shape)}"
        raise TypeError(f"the simulator returned {name} as {array.dtype} {list(array.shape)}, wanted {wanted}")
    return array


def peak_rss() -> int:
    """Return the most memory this process has held, in bytes.

    Read from /proc, because what getrusage tells includes the process that forked us.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status holds no VmHWM")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
