"""Messages between a rollout stage and its simulator workers: small things over a socket, arrays through shared memory.

The two sides take turns (a command, then its answer), so a piece of memory is written from its start for every message.
Of answers there are two pieces, used in turn: while the stage copies one, the worker is at the next. The memory is a
memfd: it has no name in any file system and the kernel frees it when the last process that holds it is gone. Arrays
never pass through pickle, since the two sides may run different numpy versions.
"""

from __future__ import annotations

import dataclasses
import mmap
import os
import pickle
import socket
import struct
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

ALIGNMENT = 64  # bytes: a cache line, so that no array starts in the middle of one
GROWTH = 1 << 20  # bytes: memory is taken in steps of this size, so that messages a little longer need no new mapping
PICKLE_PROTOCOL = 4  # known to every Python a simulator may need


@dataclasses.dataclass
class Message:
    """What one side tells the other.

    Attributes:
        verb: what to do, or how it went.
        fields: plain Python values.
        arrays: views of the shared memory, overwritten by a later message that comes the same way: the next one where
            there is one piece of memory, the one after that where there are two.
    """

    verb: str
    fields: dict[str, Any]
    arrays: dict[str, np.ndarray]


class MemoryShortage(Exception):
    """There is no memory for what has to be passed on; the message says how much."""


class SharedMemory:
    """Memory of a file descriptor, mapped into this process; it grows as messages need it and never shrinks."""

    def __init__(self, descriptor: int) -> None:
        """Take over `descriptor`, a memfd that may still be empty."""
        self._descriptor = descriptor
        self._map: mmap.mmap | None = None

    def hold(self, size: int) -> None:
        """Make the first `size` bytes usable on this side, growing the file where it is shorter.

        Raises:
            MemoryShortage: the machine, or the job's share of it, has no more memory.
        """
        if self._map is not None and len(self._map) >= size:
            return
        try:
            length = os.fstat(self._descriptor).st_size
            if length < size:
                length = -(-size // GROWTH) * GROWTH
                # Pages are taken here, where a lack of them is an error, not at the first write, where it is a SIGBUS.
                os.posix_fallocate(self._descriptor, 0, length)
            # The former mapping goes away with the last array that looks into it.
            self._map = mmap.mmap(self._descriptor, length)
        except OSError as error:
            raise MemoryShortage(
                f"{size / 1e6:.0f} MB of shared memory cannot be had for the simulator's arrays ({error.strerror}): "
                "give the job more memory or a worker fewer environments"
            ) from error

    def array(self, dtype: str, shape: tuple[int, ...], offset: int) -> np.ndarray:
        """Return the array that lies `offset` bytes into the memory."""
        assert self._map is not None
        return np.ndarray(shape, dtype, self._map, offset)

    def close(self) -> None:
        """Give the file descriptor back."""
        os.close(self._descriptor)
        self._map = None


class Channel:
    """One end of the line between a stage and a worker."""

    def __init__(self, socket: int, outgoing: Sequence[int], incoming: Sequence[int]) -> None:
        """Take over file descriptors.

        Args:
            socket: one end of a stream socket pair.
            outgoing: memfds this side writes, in turn.
            incoming: memfds the other side writes, in turn.
        """
        self.connection = Connection(socket)
        self._outgoing = [SharedMemory(descriptor) for descriptor in outgoing]
        self._incoming = [SharedMemory(descriptor) for descriptor in incoming]
        self._sent = 0

    def limit(self, seconds: float) -> None:
        """Let `send` and `receive` of this side fail when the other side stops for so long amid a message."""
        whole, part = divmod(seconds, 1)
        period = struct.pack("ll", int(whole), int(part * 1e6))  # a timeval
        with socket.socket(fileno=os.dup(self.connection.fileno())) as line:
            for direction in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
                line.setsockopt(socket.SOL_SOCKET, direction, period)

    def send(self, verb: str, fields: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> None:
        """Send a message; the other side must be done with what this one's memory held.

        Args:
            verb: what to do, or how it went.
            fields: plain Python values, pickled.
            arrays: numbers of any shape, copied into the shared memory.

        Raises:
            BrokenPipeError: the other side is gone.
            BlockingIOError: the other side has stopped, see `limit`.
            MemoryShortage: there is no memory for the arrays; nothing was sent.
        """
        arrays, turn = arrays or {}, self._sent % len(self._outgoing)
        memory, layout, size = self._outgoing[turn], [], 0
        for name, array in arrays.items():
            layout.append((name, array.dtype.str, array.shape, size))
            size += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
        if size:
            memory.hold(size)
        for (_, dtype, shape, offset), array in zip(layout, arrays.values(), strict=True):
            if array.size:
                memory.array(dtype, shape, offset)[...] = array
        self.connection.send_bytes(pickle.dumps((verb, dict(fields), turn, layout), PICKLE_PROTOCOL))
        self._sent += 1

    def receive(self) -> Message:
        """Wait for the next message.

        Raises:
            EOFError: the other side is gone.
            BlockingIOError: the other side has stopped, see `limit`.
            MemoryShortage: the arrays cannot be mapped.
        """
        verb, fields, turn, layout = pickle.loads(self.connection.recv_bytes())
        arrays, memory = {}, self._incoming[turn]
        for name, dtype, shape, offset in layout:
            empty = np.empty(shape, dtype)
            if empty.size:
                memory.hold(offset + empty.nbytes)
                arrays[name] = memory.array(dtype, shape, offset)
            else:
                arrays[name] = empty
        return Message(verb, fields, arrays)

    def close(self) -> None:
        """Hang up."""
        self.connection.close()
        for memory in (*self._outgoing, *self._incoming):
            memory.close()
