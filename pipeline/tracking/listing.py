"""Finds the manifests that mark units as done; directories that have not changed are not read again."""

from __future__ import annotations

import os
import time
from pathlib import Path

from pipeline.artifacts import MANIFEST, SHARDED_STAGES, STAGES, Unit
from pipeline.ledger import FREED

# A directory may change once more within the same tick of the file system's clock.
SETTLED_NS = 2_000_000_000

Identity = tuple[int, int]
Found = dict[Unit, tuple[Path, Identity]]
Entries = dict[str, Identity | None]


class Listing:
    """The published units of a run, for one who asks every few seconds and for a thousand epochs."""

    def __init__(self, run: Path) -> None:
        """Nothing is read yet.

        Args:
            run: the run directory.
        """
        self._run = run
        self._known: dict[str, tuple[int, Entries]] = {}
        self._epochs: dict[str, tuple[list[Entries], Found]] = {}

    def read(self) -> Found:
        """Unit -> directory that says it is done, and which file its manifest is; data that was freed left one too."""
        found: Found = {}
        for name, identity in self._entries(f"{self._run}/{FREED}").items():
            if identity and not name.startswith("."):
                found[Unit.parse(name)] = (self._run / FREED / name, identity)
        epochs = f"{self._run}/epochs"
        for epoch in self._entries(epochs):
            if epoch.isdigit():
                found.update(self._epoch(f"{epochs}/{epoch}", int(epoch)))
        return found

    def _epoch(self, directory: str, epoch: int) -> Found:
        entries = self._entries(directory)
        shards = {stage: self._entries(f"{directory}/{stage}") for stage in SHARDED_STAGES if stage in entries}
        parts = [entries, *shards.values()]
        known = self._epochs.get(directory)
        if known is not None and list(map(id, known[0])) == list(map(id, parts)):  # nothing was read again
            return known[1]
        found: Found = {
            Unit(epoch, stage): (Path(directory, stage), identity)
            for stage, identity in entries.items()
            if identity and stage in STAGES and stage not in SHARDED_STAGES
        }
        for stage, of_stage in shards.items():
            for shard, identity in of_stage.items():
                number = shard.removeprefix("shard-")
                if identity and number != shard and number.isdigit():
                    found[Unit(epoch, stage, int(number))] = (Path(directory, stage, shard), identity)
        self._epochs[directory] = (parts, found)
        return found

    def _entries(self, directory: str) -> Entries:
        """Name of each entry -> its manifest's inode and time, None without one."""
        try:
            changed = os.stat(directory).st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            return {}
        known = self._known.get(directory)
        if known is not None and known[0] == changed:
            return known[1]
        entries = {name: _identity(f"{directory}/{name}/{MANIFEST}") for name in _names(directory)}
        if time.time_ns() - changed > SETTLED_NS:
            self._known[directory] = (changed, entries)
        return entries


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _identity(manifest: str) -> Identity | None:
    try:
        status = os.stat(manifest)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_ino, status.st_mtime_ns
