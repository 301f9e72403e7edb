"""How fast shards are written and read: `python tests/benchmarks/shards.py`, one line a kind of image and size.

MB are those of the images as the policy sees them. Written: from the first append to a closed and verified shard, in
MB/s and in milliseconds a decision, of the clock and of the processor (all threads; it stays true on a busy machine).
Read: all images at once, and 32 decisions drawn at random.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from stages.trajectories import EpisodeRecord, ShardAttributes, ShardSpec, ShardWriter, read

EPISODE = 32
CHUNK, ACTIONS = 8, 14


def images(kind: str, count: int, pixels: int) -> np.ndarray:
    """Draw a camera's images, uint8 [count, 3, pixels, pixels]; textured ones carry noise like a ray tracer's."""
    rng = np.random.default_rng(0)
    row, column = np.mgrid[0:pixels, 0:pixels] / pixels
    phase = rng.uniform(0, 6, (count, 3, 1, 1))
    waves = 128 + 60 * np.sin(6 * row + phase) + 60 * np.cos(5 * column + 2 * phase)
    if kind == "textured":
        waves += rng.normal(0, 6, (count, 3, pixels, pixels))
    return np.clip(waves, 0, 255).astype(np.uint8)


def episodes(kind: str, decisions: int, pixels: int) -> list[EpisodeRecord]:
    """Make whole episodes of `EPISODE` decisions each."""
    views = images(kind, EPISODE * 3, pixels)
    rng = np.random.default_rng(1)
    numbers = (EPISODE, CHUNK, ACTIONS)
    return [
        EpisodeRecord(
            task="task",
            seed=seed,
            success=False,
            terminated=False,
            truncated=True,
            head=views[:EPISODE],
            wrist=views[EPISODE:].reshape(EPISODE, 2, 3, pixels, pixels),
            proprio=rng.standard_normal((EPISODE, 32)).astype(np.float32),
            actions=rng.standard_normal(numbers).astype(np.float32),
            rewards=np.zeros((EPISODE, CHUNK), np.float32),
            executed=np.ones((EPISODE, CHUNK), bool),
            tokens=rng.integers(0, 256, numbers, dtype=np.int16),
            log_probs=rng.standard_normal(numbers).astype(np.float32),
            values=np.zeros(EPISODE, np.float32),
        )
        for seed in range(decisions // EPISODE)
    ]


def measure(kind: str, decisions: int, pixels: int) -> list[float]:
    """Write and read one shard: the numbers of a line."""
    records = episodes(kind, decisions, pixels)
    megabytes = sum(record.head.nbytes + record.wrist.nbytes for record in records) / 1e6
    spec = ShardSpec("tokens", (pixels, pixels), 32, CHUNK, ACTIONS)
    origin = ShardAttributes("benchmark", 1, 0, 0, "none", "0", "none", ("task",), ("do it",), "train")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "shard"
        begin, begin_cpu = time.perf_counter(), time.process_time()
        writer = ShardWriter(path, spec, origin)
        for record in records:
            writer.append(record)
        writer.close()
        written, written_cpu = time.perf_counter(), time.process_time()
        shard = read(path)
        shard.load_images()
        loaded, loaded_cpu = time.perf_counter(), time.process_time()
        batch = np.random.default_rng(2).permutation(decisions)[:32]
        shard.images(batch)
        drawn = time.perf_counter()
        stored = sum(file.stat().st_size for file in path.rglob("c.*")) / 1e6
    return [
        megabytes / (written - begin),
        1e3 * (written - begin) / decisions,
        1e3 * (written_cpu - begin_cpu) / decisions,
        megabytes / (loaded - written),
        1e3 * (loaded - written) / decisions,
        1e3 * (loaded_cpu - written_cpu) / decisions,
        1e3 * (drawn - loaded),
        megabytes / stored,
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--decisions", type=int, default=256, help="decisions a shard, a multiple of 32")
    parser.add_argument("--repeats", type=int, default=3, help="the median of so many is printed")
    options = parser.parse_args()
    head = ("write MB/s", "ms/decision", "cpu ms", "read MB/s", "ms/decision", "cpu ms", "32 drawn ms", "ratio")
    print(f"{'images':9} {'px':>3}", *(f"{name:>11}" for name in head))
    for pixels in (64, 224):
        for kind in ("smooth", "textured"):
            runs = [measure(kind, options.decisions, pixels) for _ in range(options.repeats)]
            medians = [statistics.median(column) for column in zip(*runs, strict=True)]
            print(f"{kind:9} {pixels:3}", *(f"{number:11.2f}" for number in medians))


if __name__ == "__main__":
    main()
