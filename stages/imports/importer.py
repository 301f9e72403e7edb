"""Recorded demonstrations become a directory of shards, each published whole; what is there already stays.

    DIRECTORY/import.json                           what was asked for; the same command goes on from it
    DIRECTORY/epochs/0000/import/shard-0000/        an artifact like those of a run
    DIRECTORY/.importing/                           unfinished shards, and the locks of those who write them

Memory holds one episode's pictures at a time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import math
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline import artifacts
from pipeline.artifacts import IMPORT, IMPORT_NOTE, Artifact, imported_unit
from pipeline.config import Config
from pipeline.errors import UserError
from stages.imports.source import Source, choose, numbered
from stages.metrics import Phases
from stages.schedule import TRAINING, shard_range
from stages.trajectories import ShardAttributes, ShardWriter
from stages.unit import versions

EPISODES_A_SHARD = 8  # at most: an interruption costs no more than these
UNFINISHED = ".importing"
BEST_COMPRESSION = 10  # of zstd on rendered pictures; more is not to be hoped for

Tell = Callable[[int, str], None]


@dataclasses.dataclass(frozen=True)
class Done:
    """A shard that is there.

    Attributes:
        shard: its index.
        episodes: recorded ones that it was made of.
        artifact: the shard.
        fresh: whether this call made it.
    """

    shard: int
    episodes: int
    artifact: Artifact
    fresh: bool

    @property
    def bytes(self) -> int:
        """Its size."""
        return sum(record.size for record in self.artifact.manifest.files.values())


class Import:
    """An import that was asked for and can be carried out.

    Args:
        source: the demonstrations, opened with the same config.
        config: `demonstrate` says how many episodes, and where the shards go.
        only: indices of the shards to make; none: all.
        numbers: ranges of episode numbers; none: the first `demonstrate.episodes` of the tasks, in turn.

    Attributes:
        shards: how many there are in all.
        wanted: indices of those to make.
        parts: the episodes of each shard.
    """

    def __init__(self, source: Source, config: Config, only: Sequence[int] = (), numbers: Sequence[range] = ()) -> None:
        """Check everything that can be checked before the first episode is read.

        Raises:
            UserError: the config, the demonstrations, the directory or the disk does not do.
        """
        if config.demonstrate.imported is None:
            raise UserError(
                "demonstrate.imported is not set: name a directory for the shards there, e.g. "
                "demonstrate.imported=/data/behavior-shards; runs with the same value train on them"
            )
        self.directory = Path(config.demonstrate.imported).expanduser().absolute()
        self._config, self._source = config, source
        chosen = numbered(source, numbers) if numbers else choose(source, config.demonstrate.episodes)
        count = len(chosen)
        self.shards = min(count, max(config.demonstrate.shards, math.ceil(count / EPISODES_A_SHARD)))
        if wrong := [shard for shard in only if not 0 <= shard < self.shards]:
            raise UserError(f"--shard {wrong[0]}: this import has the shards 0 to {self.shards - 1}; name one of them")
        self.wanted = list(only) or list(range(self.shards))
        self.parts = [
            [chosen[place] for place in shard_range(count, self.shards, shard)] for shard in range(self.shards)
        ]
        self._check_disk()
        self._note([episode.number for episode in chosen] if numbers else count)

    def carry_out(self, tell: Tell = lambda number, task: None) -> Iterator[Done]:
        """Make the shards that are not there yet.

        Args:
            tell: called before each episode with its place in its shard and its task.

        Yields:
            Each wanted shard once it is there.

        Raises:
            UserError: a recorded file is missing or damaged, or no frame of a shard can be learnt from.
        """
        for shard in self.wanted:
            target, fresh = self._target(shard), False
            if artifacts.open_artifact(target) is None:
                with self._alone(shard) as scratch:
                    if artifacts.open_artifact(target) is None:  # nobody was faster
                        self._make(shard, scratch, tell)
                        fresh = True
            artifact = artifacts.open_artifact(target)
            assert artifact is not None
            yield Done(shard, len(self.parts[shard]), artifact, fresh)

    def _make(self, shard: int, scratch: Path, tell: Tell) -> None:
        """Write a shard and publish it."""
        started, phases, unit = artifacts.now(), Phases(), imported_unit(shard)
        total: dict[str, float] = {}
        with contextlib.ExitStack() as stack:
            writer: ShardWriter | None = None
            for number, episode in enumerate(self.parts[shard]):
                tell(number, episode.task)
                record, numbers = self._source.record(episode)
                total = {name: total.get(name, 0.0) + value for name, value in numbers.items()}
                if record is not None:
                    writer = writer or stack.enter_context(
                        ShardWriter(scratch, self._source.spec, self._attributes(shard))
                    )
                    writer.append(record)
        if writer is None:
            raise UserError(f"shard {shard}: {self._source.nothing_left(len(self.parts[shard]))}")
        describe = {
            "unit": str(unit),
            "part": IMPORT,
            "attempt": 1,
            "inputs": self._source.digests(),
            "config_digest": hashlib.sha256(self._config.model_dump_json().encode()).hexdigest(),
            "code_revision": os.environ.get("BATON_CODE_REVISION", "unknown"),
            "seed": self._config.seed,
            "metrics": total,
            "seconds": phases.seconds,
            "started": started,
            "host": platform.node(),
            "job_id": os.environ.get("SLURM_JOB_ID") or str(os.getpid()),
            "versions": versions(),
        }
        artifacts.publish(scratch, self._target(shard), describe)

    def _attributes(self, shard: int) -> ShardAttributes:
        return ShardAttributes(
            run=self._source.path.resolve().name,
            epoch=0,
            shard=shard,
            policy_version=None,
            simulator=self._config.simulator.name,
            simulator_version="recorded",
            renderer="recorded",
            tasks=tuple(self._source.instructions),
            instructions=tuple(self._source.instructions.values()),
            split=TRAINING,
        )

    def _target(self, shard: int) -> Path:
        return self.directory / imported_unit(shard).marker

    def _check_disk(self) -> None:
        """Refuse to begin what cannot fit even if pictures compress as well as can be."""
        missing = [shard for shard in self.wanted if artifacts.open_artifact(self._target(shard)) is None]
        episodes = [episode for shard in missing for episode in self.parts[shard]]
        decisions = sum(self._source.most_decisions(episode) for episode in episodes)
        picture = sum(math.prod(shape) for shape in self._source.spec.image_shapes().values())
        least = decisions * picture // BEST_COMPRESSION
        place = next(place for place in (self.directory, *self.directory.parents) if place.is_dir())
        free = shutil.disk_usage(place).free
        if least > free:
            raise UserError(
                f"demonstrate.imported={self.directory}: {len(episodes)} episodes take at least {least / 1e9:.1f} GB, "
                f"{free / 1e9:.1f} GB are free; lower demonstrate.episodes, raise demonstrate.stride or choose a "
                "larger disk"
            )

    def _note(self, episodes: list[int] | int) -> None:
        """Write down what is asked for, or check that it is what was asked for before."""
        asked: dict[str, Any] = {
            "source": str(self._source.path.resolve()),
            "sha256": self._source.digests(),
            "episodes": episodes,
            "shards": self.shards,
            **json.loads(json.dumps(self._source.recipe())),
        }
        note, key = self.directory / IMPORT_NOTE, f"demonstrate.imported={self.directory}"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            before = json.loads(note.read_bytes()) if note.exists() else None
        except (OSError, ValueError) as error:
            what = getattr(error, "strerror", None) or error
            raise UserError(f"{key}: cannot be used ({what}); choose another") from None
        if before is None:
            unfinished = f".{note.name}."  # what a full disk left of it
            names = sorted(path.name for path in self.directory.iterdir())
            if strangers := [name for name in names if not name.startswith(unfinished)]:
                raise UserError(f"{key} is no import: it holds {strangers[0]}, but no {note.name}; choose another")
            artifacts.write_synced(note, (json.dumps(asked, indent=1) + "\n").encode())
        elif before != asked:
            differing = [name for name in asked if before.get(name) != asked[name]]
            listing = "; ".join(f"{name}: it has {before.get(name)}, asked is {asked[name]}" for name in differing)
            raise UserError(f"{key} holds another import ({listing}); ask for the same, or choose another directory")

    @contextlib.contextmanager
    def _alone(self, shard: int) -> Iterator[Path]:
        """An empty scratch directory for a shard; whoever else writes the same one is waited for."""
        scratch = self.directory / UNFINISHED / f"shard-{shard:04d}"
        scratch.parent.mkdir(exist_ok=True)
        with scratch.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            shutil.rmtree(scratch, ignore_errors=True)
            yield scratch
