"""Which codec a shard's images deserve: size, write and read speed of candidates on what the household really shows.

    python tests/benchmarks/codecs.py [--decisions 128] [--repeats 3]

Images are those of the household's expert (head and two wrist cameras, every eighth step, tasks of all suites in turn)
and the noisy ones of `shards.py`. They are written as the shard writer writes them, a file of decisions at a time, and
read back whole. MB are those of the images; ms are a decision's, of the clock and of the processor (all threads; it
stays true on a busy machine). Printed are medians.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, ZstdCodec
from zarr.codecs.numcodecs import Delta
from zarr.errors import ZarrUserWarning

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from shards import images as drawn

from stages.simulators import interface
from stages.simulators.household import catalogue
from stages.simulators.interface import Episode
from stages.trajectories.schema import IMAGES, ShardSpec

STRIDE = 8

Images = dict[str, np.ndarray]  # head [D, 3, H, W] and wrist [D, 2, 3, H, W], uint8


def same(images: np.ndarray) -> np.ndarray:
    return images


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A way to store images.

    Attributes:
        compressor: zarr's, None for none.
        filters: zarr's.
        sharded: many chunks a file, as shards are; else a file a chunk.
        forward: what is stored instead of the images.
        backward: finds the images again.
    """

    compressor: Any = None
    filters: tuple[Any, ...] = ()
    sharded: bool = True
    forward: Callable[[np.ndarray], np.ndarray] = same
    backward: Callable[[np.ndarray], np.ndarray] = same


def above(images: np.ndarray) -> np.ndarray:
    """Each pixel less the one above it."""
    less = images.copy()
    less[..., 1:, :] -= images[..., :-1, :]
    return less


def under(less: np.ndarray) -> np.ndarray:
    return np.cumsum(less, axis=-2, dtype=np.uint8)


def beside_green(images: np.ndarray) -> np.ndarray:
    """Red and blue less green, all less the pixel above."""
    less = images.copy()
    less[..., ::2, :, :] -= images[..., 1:2, :, :]
    return above(less)


def with_green(less: np.ndarray) -> np.ndarray:
    images = under(less)
    images[..., ::2, :, :] += images[..., 1:2, :, :]
    return images


def zstd(level: int) -> ZstdCodec:
    return ZstdCodec(level=level, checksum=True)


def blosc(name: Any, level: int, shuffle: Any) -> BloscCodec:
    return BloscCodec(cname=name, clevel=level, shuffle=shuffle, typesize=1)


warnings.simplefilter("ignore", ZarrUserWarning)  # Delta is numcodecs' own and not in zarr's specification
CANDIDATES = {
    "none": Candidate(),
    "zstd 1": Candidate(zstd(1)),
    "zstd 1, a file a chunk": Candidate(zstd(1), sharded=False),
    "zstd 3": Candidate(zstd(3)),
    "blosc lz4 1": Candidate(blosc("lz4", 1, "noshuffle")),
    "blosc lz4 5": Candidate(blosc("lz4", 5, "noshuffle")),
    "blosc lz4 5, bits shuffled": Candidate(blosc("lz4", 5, "bitshuffle")),
    "blosc zstd 1": Candidate(blosc("zstd", 1, "noshuffle")),
    "blosc zstd 1, bits shuffled": Candidate(blosc("zstd", 1, "bitshuffle")),
    "less left, zstd 1": Candidate(zstd(1), (Delta(dtype="|u1"),)),
    "less above, zstd 1": Candidate(zstd(1), forward=above, backward=under),
    "less green and above, zstd 1": Candidate(zstd(1), forward=beside_green, backward=with_green),
    "less green and above, lz4 1": Candidate(blosc("lz4", 1, "noshuffle"), forward=beside_green, backward=with_green),
}


def household(decisions: int, pixels: int) -> tuple[str, Images]:
    """What the expert sees, and what drew it."""
    tasks = [names[0] for names in catalogue.suites().values()]
    simulator = interface.make("household", 1, {"tasks": tasks, "image_size": pixels})
    seen: list[Any] = []
    episode = 0
    while len(seen) < decisions:
        simulator.reset([0], [Episode(tasks[episode % len(tasks)], episode)], [False])
        over = False
        while not over:
            seen.append(simulator.observe([0]))
            _, _, result = simulator.expert_chunk([0], STRIDE)
            over = bool(result.terminated[0] or result.truncated[0])
        episode += 1
    simulator.close()
    return simulator.spec.renderer, {
        name: np.concatenate([getattr(each, name) for each in seen[:decisions]]) for name in IMAGES
    }


def textured(decisions: int, pixels: int) -> Images:
    views = drawn("textured", decisions * 3, pixels)
    return {"head": views[:decisions], "wrist": views[decisions:].reshape(decisions, 2, 3, pixels, pixels)}


def measure(candidate: Candidate, images: Images, pixels: int) -> list[float]:
    """Write and read the images once: the numbers of a line."""
    layouts = ShardSpec("tokens", (pixels, pixels), 1, 1, 1).decision_arrays()
    decisions = len(images["head"])
    megabytes = sum(part.nbytes for part in images.values()) / 1e6
    with tempfile.TemporaryDirectory() as directory:
        root = zarr.open_group(directory, mode="a", zarr_format=3)
        begin = np.array([time.perf_counter(), time.process_time()])
        for name, part in images.items():
            layout = layouts[name]
            array = root.create_array(
                name,
                shape=part.shape,
                dtype=part.dtype,
                chunks=(layout.chunk_rows, *layout.shape),
                shards=(layout.rows_per_file, *layout.shape) if candidate.sharded else None,
                filters=candidate.filters,
                compressors=candidate.compressor,
            )
            for first in range(0, decisions, layout.rows_per_file):
                rows = slice(first, first + layout.rows_per_file)
                array[rows] = candidate.forward(part[rows])
        written = np.array([time.perf_counter(), time.process_time()])
        read = {name: candidate.backward(np.asarray(zarr.open_array(f"{directory}/{name}")[:])) for name in images}
        loaded = np.array([time.perf_counter(), time.process_time()])
        assert all((read[name] == part).all() for name, part in images.items())
        stored = sum(file.stat().st_size for file in Path(directory).rglob("*") if file.is_file())
    write, load = written - begin, loaded - written
    return [
        stored / decisions,
        megabytes * 1e6 / stored,
        megabytes / write[0],
        *(1e3 * write / decisions),
        megabytes / load[0],
        *(1e3 * load / decisions),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decisions", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    for pixels in (224, 64):
        renderer, seen = household(options.decisions, pixels)
        for kind, images in ((f"household, {renderer}", seen), ("textured", textured(options.decisions, pixels))):
            print(f"\n{kind}, 3 x {pixels} pixels, {options.decisions} decisions")
            head = ("B/decision", "ratio", "write MB/s", "ms", "cpu ms", "read MB/s", "ms", "cpu ms")
            print(f"{'':30}", *(f"{name:>10}" for name in head))
            rounds = [
                {name: measure(candidate, images, pixels) for name, candidate in CANDIDATES.items()}
                for _ in range(options.repeats)
            ]
            for name in CANDIDATES:
                size, *rest = (statistics.median(column) for column in zip(*(r[name] for r in rounds), strict=True))
                print(f"{name:30} {size:10.0f}", *(f"{number:10.2f}" for number in rest))


if __name__ == "__main__":
    main()
