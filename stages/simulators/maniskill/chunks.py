"""The outcome of a chunk before anything was done."""

from __future__ import annotations

import numpy as np

from stages.simulators.interface import ChunkResult


def blank(count: int, length: int) -> ChunkResult:
    """The result of n = `count` worlds that have not made any of K = `length` steps."""
    return ChunkResult(
        rewards=np.zeros((count, length), np.float32),
        executed=np.zeros((count, length), bool),
        success=np.zeros(count, bool),
        terminated=np.zeros(count, bool),
        truncated=np.zeros(count, bool),
        frames=[[] for _ in range(count)],
    )
