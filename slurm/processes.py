"""Processes of this machine: which one a pid means, which carry a mark in their environment, and ending them."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

PROC = Path("/proc")


@functools.cache
def boot_id() -> str:
    """Changes with every start of the machine."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()[:8]


def identity(pid: int) -> str | None:
    """Name a process so that a later one with the same pid has another name.

    Args:
        pid: process id on this machine.

    Returns:
        `<pid>.<clock ticks from boot to its start>.<boot>`, or None if it is gone or a zombie. The ticks do not move
        when the clock is set.
    """
    fields = _stat(pid)
    # proc_pid_stat(5): state is field 3, starttime field 22.
    return None if fields is None or fields[0] in "ZX" else f"{pid}.{fields[19]}.{boot_id()}"


def alive(name: str) -> bool:
    """Whether the process that `identity` named is still there."""
    return identity(int(name.split(".")[0])) == name


def session_members(leader: int) -> set[int]:
    """Pids of the session that the process `leader` founded."""
    return {pid for pid in _pids() if (fields := _stat(pid)) and int(fields[3]) == leader and fields[0] not in "ZX"}


def marked(variable: str, prefix: str) -> dict[int, str]:
    """Find processes of this user by an environment variable.

    Args:
        variable: name of the variable.
        prefix: what its value starts with.

    Returns:
        Pid -> value, without this process.
    """
    wanted, found = f"{variable}={prefix}".encode(), {}
    for pid in _pids() - {os.getpid()}:
        for entry in _environment(pid).split(b"\0"):
            if entry.startswith(wanted) and identity(pid):
                found[pid] = entry.split(b"=", 1)[1].decode()
    return found


def parent(pid: int) -> int | None:
    """Pid of the parent of a process, None if the process is gone."""
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def end(find: Callable[[], set[int]], grace: float) -> None:
    """End processes, and those they start meanwhile: SIGTERM first, SIGKILL after a while.

    Args:
        find: gives the pids still to be ended.
        grace: seconds between the two signals.
    """
    deadline = time.monotonic() + grace
    sent: set[int] = set()
    while remaining := find():
        late = time.monotonic() > deadline
        for pid in remaining if late else remaining - sent:
            try:
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
            except ProcessLookupError:
                continue
        sent |= remaining
        time.sleep(0.02)


def _environment(pid: int) -> bytes:
    """A process's environment; empty if it is gone, another user's or the kernel's own."""
    for _ in range(20):
        try:
            if environment := (PROC / str(pid) / "environ").read_bytes():
                return environment
            os.readlink(PROC / str(pid) / "exe")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return b""
        time.sleep(0.001)  # it is just turning into another program
    return b""


def _pids() -> set[int]:
    return {int(entry) for entry in os.listdir(PROC) if entry.isdigit()}


def _stat(pid: int) -> list[str] | None:
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command's name, in parentheses, may itself hold spaces and parentheses.
    return text.rpartition(")")[2].split()
