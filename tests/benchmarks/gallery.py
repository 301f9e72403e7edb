"""Images that stay on the GPU against images that come with the answers: are they the same, and how long do they take?

    python tests/benchmarks/gallery.py [--size 64] [--worlds 64] [--workers 2]

Needs a GPU and the extra `warp`. Looks at the same worlds in both ways, at all of them, at half and at scattered ones,
and again after a worker was killed, whose worlds come back near to where they were. Ends with status 1 where the
images of the same worlds differ.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from stages.gallery import Gallery, gallery
from stages.simulators.interface import Episode, Observation
from stages.simulators.pool import SimulatorPool

CHUNK, ACTIONS, REPEATS = 8, 14, 7


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="height and width of images, pixels")
    parser.add_argument("--worlds", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("there is no GPU here that images could stay on")
    device = torch.device("cuda:0")
    print(f"{time.strftime('%Y-%m-%d')}, {torch.cuda.get_device_name(device)}, {platform.platform()}")
    options = {"tasks": ["spatial"], "backend": "mujoco_warp", "image_size": asked.size}
    slots, same = list(range(asked.worlds)), True
    with SimulatorPool("household", options, asked.worlds, asked.workers) as pool:
        names = [task.name for task in pool.spec.tasks]
        pool.reset(slots, [Episode(names[slot % len(names)], slot) for slot in slots])
        pool.step(slots, np.random.default_rng(0).uniform(-1, 1, (asked.worlds, CHUNK, ACTIONS)).astype(np.float32))
        told = pool.observe(slots)
        through_memory = milliseconds(lambda: pool.observe(slots))
        hung = gallery(pool, device)
        if hung is None:
            sys.exit(f"the simulators draw on {pool.gpu}, and not on {device}")
        for name, rows in {"all": slots, "half": slots[len(slots) // 2 :], "scattered": slots[::3]}.items():
            off = difference(pool, hung, told, rows)
            print(f"{name}: {off} levels of 255 apart")
            same &= off == 0
        print(f"an observation of {asked.worlds} worlds: {milliseconds(lambda: pool.observe(slots)):.2f} ms")
        print(f"through main memory: {through_memory:.2f} ms")
        os.kill(pool.pids[0], signal.SIGKILL)
        print(f"after a worker was killed: {difference(pool, hung, told, slots)} levels apart, {pool.restarts} restart")
    return 0 if same else 1


def difference(pool: SimulatorPool, hung: Gallery, told: Observation, rows: Sequence[int]) -> int:
    """How far images of worlds in the gallery, and what is kept of them, are from those that came with the answers."""
    seen = pool.observe(rows)
    head, wrist = (part.cpu().numpy() for part in hung.look(rows))
    hung.fetch(rows)
    hung.keep(seen).result()
    pairs = [(head, told.head[rows]), (wrist, told.wrist[rows]), (seen.head, head), (seen.wrist, wrist)]
    return max(int(np.abs(one.astype(int) - other.astype(int)).max()) for one, other in pairs)


def milliseconds(call: Callable[[], object]) -> float:
    """How long a call takes: the median of some."""
    spent = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        call()
        spent.append(1000 * (time.perf_counter() - began))
    return statistics.median(spent)


if __name__ == "__main__":
    sys.exit(main())
