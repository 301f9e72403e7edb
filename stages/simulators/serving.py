"""What a worker does for its stage: build the simulator it is told to, then carry out one command after another.

What the simulator prints goes to the worker's log and never into the conversation. Every answer is held to the
interface, so that a simulator's mistake is told where it is made.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from stages.simulators import interface
from stages.simulators.channel import Channel, MemoryShortage, Message
from stages.simulators.interface import ChunkResult, Observation, Simulator, SimulatorConfigError
from stages.simulators.replay import Start

TRACEBACK_CHARACTERS = 8_000  # an answer must fit into one write to the socket
ENVIRONMENTS = Path(__file__).resolve().parents[2] / "configs" / "envs"  # of simulators that have one of their own

Arrays = dict[str, np.ndarray]


def serve(socket: int, commands: int, answers: Sequence[int]) -> int:
    """Build a simulator and serve it until told to close.

    Args:
        socket: file descriptor of the line to the stage.
        commands: that of the memory the stage writes.
        answers: those of the memories the stage reads.

    Returns:
        The exit status: 0 when told to close, 1 when the simulator could not be built or the stage went away.
    """
    channel = Channel(socket, outgoing=answers, incoming=[commands])
    try:
        simulator = _build(channel)
        if simulator is None:
            return 1
        _obey(channel, simulator)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return 1
    return 0


def _build(channel: Channel) -> Simulator | None:
    """Build the simulator that the first message asks for and introduce it; None when that failed and was reported."""
    order = channel.receive().fields
    try:
        simulator = interface.make(order["name"], order["num_envs"], order["options"])
    except SimulatorConfigError as error:
        channel.send("refused", {"message": str(error)})
        return None
    except ModuleNotFoundError as error:
        name = order["name"]
        lacks = f"simulator.python: {sys.executable} lacks what simulator {name} needs ({error})"
        get = f"run `baton env create {name}`" if (ENVIRONMENTS / name).is_dir() else "install it there"
        channel.send("refused", {"message": f"{lacks}; {get}, or name another interpreter"})
        return None
    except Exception as error:  # whatever a simulator raises, its stage has to hear of it
        _report_failure(channel, error)
        return None
    channel.send("ready", {"spec": simulator.spec, "peak_rss": peak_rss()})
    return simulator


def _obey(channel: Channel, simulator: Simulator) -> None:
    verbs: dict[str, Callable[[Simulator, Message], Arrays]] = {
        "reset": _reset,
        "observe": _observe,
        "step": _step,
        "expert": _expert,
        "borrow": _borrow,
    }
    while (message := channel.receive()).verb != "close":
        try:
            channel.send("done", {"peak_rss": peak_rss()}, verbs[message.verb](simulator, message))
        except SimulatorConfigError as error:
            channel.send("refused", {"message": str(error), "peak_rss": peak_rss()})
        except (BrokenPipeError, ConnectionResetError):
            raise
        except MemoryShortage as error:
            channel.send("failed", {"reason": str(error), "traceback": ""})
        except Exception as error:  # as above
            _report_failure(channel, error)
    simulator.close()


def _report_failure(channel: Channel, error: Exception) -> None:
    traceback.print_exc()  # for the log
    told = "".join(traceback.format_exception(type(error), error, error.__traceback__))[-TRACEBACK_CHARACTERS:]
    line = traceback.format_exception_only(type(error), error)[-1].strip()
    channel.send("failed", {"reason": line, "traceback": told.strip()})


# ----------------------------------------------------------------------------------------------------------------------
# The commands


def _reset(simulator: Simulator, message: Message) -> Arrays:
    slots, starts = message.fields["slots"], message.fields["starts"]
    _begin(simulator, slots, starts)
    return {} if message.fields["blind"] else _looks(simulator, slots)


def _observe(simulator: Simulator, message: Message) -> Arrays:
    return _looks(simulator, message.fields["slots"])


def _step(simulator: Simulator, message: Message) -> Arrays:
    slots, actions = message.fields["slots"], message.arrays["actions"].copy()  # shared memory is not the simulator's
    result = simulator.step_chunk(slots, actions)
    return _outcome(simulator, message, result, actions.shape[1])


def _expert(simulator: Simulator, message: Message) -> Arrays:
    slots, length = message.fields["slots"], message.fields["length"]
    actions, clean, result = simulator.expert_chunk(slots, length)
    chunk = (len(slots), length)
    return {
        "actions": _checked("expert actions", actions, np.float32, (*chunk, simulator.spec.action_dim)),
        "clean": _checked("clean", clean, np.bool_, chunk),
        **_outcome(simulator, message, result, length),
    }


def _borrow(simulator: Simulator, message: Message) -> Arrays:
    simulator.borrow(message.fields["gallery"])
    return {}


def _begin(simulator: Simulator, slots: Sequence[int], starts: Sequence[Start]) -> None:
    simulator.reset(slots, [start.episode for start in starts], [start.film for start in starts])


def _outcome(simulator: Simulator, message: Message, result: ChunkResult, length: int) -> Arrays:
    """Tell how a chunk went, begin the episodes that follow, and look at what a decision will be made on.

    A truncated world is looked at once more before that: the value of its last state bootstraps the return.
    """
    slots, then = message.fields["slots"], message.fields["then"]
    arrays = _result_arrays(result, (len(slots), length))
    if message.fields["blind"]:
        return arrays
    over = result.terminated | result.truncated
    cut = np.flatnonzero(result.truncated & ~result.terminated).tolist()
    for row, last in zip(cut, _rows(_pictured(simulator, [slots[row] for row in cut])) if cut else (), strict=True):
        # Copied: the simulator's arrays last until it is looked at again.
        arrays |= {f"last/{row}/{name}": array.copy() for name, array in last.items()}
    follow = {row: start for row, start in enumerate(then) if start is not None and over[row]}
    if follow:
        _begin(simulator, [slots[row] for row in follow], list(follow.values()))
    arrays["restarted"] = np.zeros(len(slots), np.bool_)
    arrays["restarted"][list(follow)] = True
    return arrays | _looks_of_some(simulator, slots, arrays["restarted"] | ~over)


def _looks_of_some(simulator: Simulator, slots: Sequence[int], seen: np.ndarray) -> Arrays:
    """Observe the worlds of the rows that are flagged; the others show zeros."""
    rows = np.flatnonzero(seen).tolist()
    if len(rows) == len(slots):
        return _looks(simulator, slots)
    looks = simulator.spec.looks()
    names = ("proprio",) if simulator.borrows else tuple(looks)
    arrays: Arrays = {name: np.zeros((len(slots), *looks[name][1]), looks[name][0]) for name in names}
    if rows:
        for name, array in _looks(simulator, [slots[row] for row in rows]).items():
            arrays[name][rows] = array
    return arrays


def _looks(simulator: Simulator, slots: Sequence[int]) -> Arrays:
    """What worlds look like; where a gallery was lent the images hang there."""
    if not simulator.borrows:
        return _pictured(simulator, slots)
    dtype, shape = simulator.spec.looks()["proprio"]
    return {"proprio": _checked("proprio", simulator.hang(slots), dtype, (len(slots), *shape))}


def _pictured(simulator: Simulator, slots: Sequence[int]) -> Arrays:
    observation: Observation = simulator.observe(slots)
    return {
        name: _checked(name, getattr(observation, name), dtype, (len(slots), *shape))
        for name, (dtype, shape) in simulator.spec.looks().items()
    }


def _rows(arrays: Arrays) -> list[Arrays]:
    count = len(arrays["proprio"])
    return [{name: array[row] for name, array in arrays.items()} for row in range(count)]


def _result_arrays(result: ChunkResult, chunk: tuple[int, int]) -> Arrays:
    count = chunk[:1]
    arrays: Arrays = {
        "rewards": _checked("rewards", result.rewards, np.float32, chunk),
        "executed": _checked("executed", result.executed, np.bool_, chunk),
        "success": _checked("success", result.success, np.bool_, count),
        "terminated": _checked("terminated", result.terminated, np.bool_, count),
        "truncated": _checked("truncated", result.truncated, np.bool_, count),
    }
    if result.scores is not None:
        arrays["scores"] = _checked("scores", result.scores, np.float32, count)
    if result.broken is not None:
        arrays["broken"] = _checked("broken", result.broken, np.bool_, count)
    for row, frames in enumerate(result.frames):
        if frames:
            arrays[f"frames/{row}"] = np.stack(frames)
    return arrays


def _checked(name: str, array: np.ndarray, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """Return `array`, holding the simulator to its interface."""
    given = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
    wanted = f"{np.dtype(dtype)} {list(shape)}"
    if given != wanted:
        raise TypeError(f"the simulator returned {name} as {given}, wanted {wanted}")
    return array


def peak_rss() -> int:
    """Return the most memory this process has held, in bytes.

    Read from /proc, because what getrusage tells includes the process that forked us.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status holds no VmHWM")
