"""What a unit takes of its machine while it works: memory and cores of its processes, its GPUs, a sample now and then.

A thread looks every few seconds and appends to `usage.jsonl`, which is published beside `metrics.jsonl`. Where several
ranks work on one machine, it is their common parent whose processes are counted; machines of other ranks are not seen.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping

import psutil

from stages.devices import DEVICES, WHOLE
from stages.metrics import MetricsLog

SECONDS = 10.0
GIGABYTE = 1e9
ASK_SECONDS = 10.0
JOIN_SECONDS = 2.0  # a stage that is being stopped has little time


@contextlib.contextmanager
def sampled(log: MetricsLog, root: int | None = None, seconds: float = SECONDS) -> Iterator[None]:
    """Sample what processes use while the block is carried out: at once, every `seconds`, and at its end.

    Args:
        log: gets the samples, whose step counts them: `system/memory_gb` and `system/cpu_cores` of the processes;
            `system/gpu_utilization`, percent, a mean over the unit's GPUs, and `system/gpu_memory_gb` of the fullest
            one, other programs' included, where nvidia-smi knows them.
        root: process id of those counted, its descendants included; None: this process.
        seconds: between two samples.
    """
    over = threading.Event()

    def work() -> None:
        meter = Meter(os.getpid() if root is None else root)
        step, last = 0, False
        with contextlib.suppress(OSError):  # a full disk: the stage itself will say so
            while not last:
                last = over.wait(seconds if step else 0.0)
                log.log(step, meter.read())
                step += 1

    thread = threading.Thread(target=work, name="usage", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(JOIN_SECONDS)


class Meter:
    """Reads what a process and its descendants use."""

    def __init__(self, root: int) -> None:
        """Begin to count.

        Args:
            root: its process id.
        """
        self._root = root
        self._devices = devices(os.environ)
        self._asks = shutil.which("nvidia-smi") is not None and self._devices != []
        self._spent: dict[int, float] = {}
        self._read = time.monotonic()

    def read(self) -> dict[str, float]:
        """Metric -> number; memory now, cores busy since the last call (since their start, of processes of then)."""
        memory, shared, spent = 0, 0, dict[int, float]()
        for process in _family(self._root):
            with contextlib.suppress(psutil.Error):  # it ended meanwhile
                found = process.memory_info()
                times = process.cpu_times()
                # What is shared, libraries and the images of simulators, is in every process but in memory once.
                memory += found.rss - found.shared
                shared = max(shared, found.shared)
                spent[process.pid] = times.user + times.system
        now = time.monotonic()
        busy = sum(max(0.0, seconds - self._spent.get(pid, 0.0)) for pid, seconds in spent.items())
        metrics = {"system/memory_gb": (memory + shared) / GIGABYTE}
        if self._spent:
            metrics["system/cpu_cores"] = busy / max(now - self._read, 1e-3)
        self._spent, self._read = spent, now
        return metrics | self._gpus()

    def _gpus(self) -> dict[str, float]:
        found = gpus(self._devices) if self._asks else []
        used = [gpu[0] for gpu in found if gpu[0] is not None]
        filled = [gpu[1] for gpu in found if gpu[1] is not None]
        metrics = {"system/gpu_utilization": sum(used) / len(used)} if used else {}
        if filled:
            metrics["system/gpu_memory_gb"] = max(filled)
        self._asks = bool(metrics)  # no driver, or GPUs it does not know, as parts of one
        return metrics


def devices(environment: Mapping[str, str]) -> list[str] | None:
    """The job's GPUs as its environment names them; None where it does not."""
    named = environment.get(WHOLE, environment.get(DEVICES))
    return None if named is None else [name for name in named.split(",") if name.strip()]


def gpus(names: list[str] | None) -> list[tuple[float | None, float | None]]:
    """Ask nvidia-smi.

    Args:
        names: indices or UUIDs; None: all.

    Returns:
        Utilisation in percent and used memory in gigabytes of each; None where it does not know, as the first of a GPU
        that is shared out in parts (MIG) and the second of one that has no memory of its own.
    """
    command = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
    if names is not None:
        command.append(f"--id={','.join(names)}")
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=ASK_SECONDS)
        rows = [line.split(",") for line in asked.stdout.splitlines()] if asked.returncode == 0 else []
        return [(_number(used), _number(mebibytes, 2**20 / GIGABYTE)) for used, mebibytes in rows]
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return []


def _number(text: str, unit: float = 1.0) -> float | None:
    """What nvidia-smi says; None where it says in brackets why not: `[N/A]`, `[Not Supported]`, `[Unknown Error]`."""
    return None if text.strip().startswith("[") else float(text) * unit


def _family(root: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(root)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
