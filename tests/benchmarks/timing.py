"""How benchmarks of policies measure: sides in turn, medians, the GPU's own peak of memory."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable

import torch


def alternate(calls: list[Callable[[], object]], repeats: int) -> list[float]:
    """Median seconds of each call, taken in turn, after calls that do not count."""
    for call in calls * 3:
        call()
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for times, call in zip(taken, calls, strict=True):
            synchronise()
            begun = time.perf_counter()
            call()
            synchronise()
            times.append(time.perf_counter() - begun)
    return [statistics.median(times) for times in taken]


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak() -> float:
    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else float("nan")


def machine() -> str:
    if not torch.cuda.is_available():
        return f"CPU, {torch.get_num_threads()} threads"
    return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
