"""Units of work and the immutable directories they publish.

A unit writes into its attempt's scratch. `publish` syncs every file, reads it back, writes `manifest.json` last and
renames the directory into place, never over something. Whoever opens an artifact trusts only what its manifest lists,
and checks it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import hashlib
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import UserError

MANIFEST = "manifest.json"
SCRATCH, CLAIM, RESTART = "scratch", "claim", "restart-"
SHARDED_STAGES = ("demonstrate", "rollout")
STAGES = ("demonstrate", "sft", "rollout", "update", "evaluate")
IMPORT, IMPORT_NOTE = "import", "import.json"


@dataclasses.dataclass(frozen=True, order=True)
class Unit:
    """A piece of work done exactly once.

    Attributes:
        epoch: 0 is the warm start.
        stage: one of `STAGES`.
        shard: index of the shard where the stage is sharded, else None.
    """

    epoch: int
    stage: str
    shard: int | None = None

    def __str__(self) -> str:
        """Its name in attempts, logs and job names; sorts by epoch."""
        tail = "" if self.shard is None else f"-s{self.shard:04d}"
        return f"e{self.epoch:04d}-{self.stage}{tail}"

    @classmethod
    @functools.lru_cache(maxsize=65536)
    def parse(cls, name: str) -> Unit:
        """The unit with the name that `str` gives."""
        epoch, stage, *shard = name.split("-")
        return cls(int(epoch[1:]), stage, int(shard[0][1:]) if shard else None)

    @property
    def outputs(self) -> dict[str, str]:
        """Part -> directory it is published as, relative to the run; the last one published marks the unit as done."""
        epoch = f"epochs/{self.epoch:04d}"
        if self.stage == "sft":
            return {"policy": "policies/0000", "sft": f"{epoch}/sft"}
        if self.stage == "update":
            return {"policy": f"policies/{self.epoch:04d}", "engine": f"{epoch}/engine", "update": f"{epoch}/update"}
        if self.shard is not None:
            return {self.stage: f"{epoch}/{self.stage}/shard-{self.shard:04d}"}
        return {self.stage: f"{epoch}/{self.stage}"}

    @property
    def marker(self) -> str:
        """The directory whose presence means that the unit is done, relative to the run."""
        return list(self.outputs.values())[-1]


class FileRecord(BaseModel):
    """A file of an artifact."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    size: int
    sha256: str


class Manifest(BaseModel):
    """What an artifact is, where it came from, and every file it holds."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")
    unit: str
    part: str
    attempt: int
    inputs: dict[str, str]
    config_digest: str
    code_revision: str
    seed: int
    files: dict[str, FileRecord]
    metrics: dict[str, float]
    seconds: dict[str, float]
    started: str
    published: str
    host: str
    job_id: str
    versions: dict[str, str]

    def to_bytes(self) -> bytes:
        """The text of manifest.json."""
        return (self.model_dump_json(indent=1) + "\n").encode()


@dataclasses.dataclass(frozen=True)
class Artifact:
    """A published directory whose manifest has been read."""

    path: Path
    manifest: Manifest

    @property
    def digest(self) -> str:
        """Digest of the files alone: two attempts with the same content have the same one."""
        listing = {name: record.sha256 for name, record in sorted(self.manifest.files.items())}
        return hashlib.sha256(json.dumps(listing, sort_keys=True).encode()).hexdigest()

    def verify(self) -> Artifact:
        """Compare every file with the manifest.

        Returns:
            Itself.

        Raises:
            UserError: a file is missing, surplus, cut short or altered.
        """
        found = {str(p.relative_to(self.path)) for p in self.path.rglob("*") if p.is_file()} - {MANIFEST}
        listed = self.manifest.files
        for name in sorted(found ^ set(listed)):
            raise self._damaged(f"{name} is {'not in its manifest' if name in found else 'missing'}")
        for name, record in sorted(listed.items()):
            size = (self.path / name).stat().st_size
            if size != record.size:
                raise self._damaged(f"{name} has {size} bytes, its manifest says {record.size}")
            if checksum(self.path / name) != record.sha256:
                raise self._damaged(f"the content of {name} is not what was published")
        return self

    def _damaged(self, what: str) -> UserError:
        unit = Unit.parse(self.manifest.unit)
        if unit.stage == IMPORT:
            return UserError(f"{self.path} is damaged: {what}; remove it and give the same `baton import` again")
        shard = "" if unit.shard is None else f" --shard {unit.shard}"
        run = self.path.parents[len(Path(unit.outputs[self.manifest.part]).parts) - 1]
        return UserError(
            f"{self.path} is damaged: {what}; to make it again: "
            f"baton rerun {run} {unit.stage} --epoch {unit.epoch}{shard}"
        )


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_artifact(path: Path) -> Artifact | None:
    """Read the manifest of a published directory; its files are not checked yet.

    Returns:
        The artifact, or None where nothing is published.

    Raises:
        UserError: a manifest is there but cannot be read.
    """
    manifest = path / MANIFEST
    try:
        text = manifest.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return Artifact(path, Manifest.model_validate_json(text))
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(
            f"{manifest} cannot be read ({first['msg']}); move {path} away and run the same command again"
        ) from None


def require_artifact(path: Path, unit: Unit) -> Artifact:
    """Open and verify an artifact that must be there.

    Raises:
        UserError: it is not published, or damaged.
    """
    artifact = open_artifact(path)
    if artifact is None:
        raise UserError(f"{path} is not published yet: the unit {unit} has to run first")
    return artifact.verify()


def imported_unit(shard: int) -> Unit:
    """What makes a shard of imported demonstrations; its marker is relative to the directory of the import."""
    return Unit(0, IMPORT, shard)


def imported_shards(directory: Path) -> tuple[Unit, ...]:
    """The shards of a directory of imported demonstrations.

    Raises:
        UserError: it is no such directory, or shards of it are missing.
    """
    again = "`baton import` with this config fills it"
    try:
        units = tuple(map(imported_unit, range(json.loads((directory / IMPORT_NOTE).read_bytes())["shards"])))
    except (OSError, ValueError, KeyError):
        raise UserError(f"demonstrate.imported={directory} holds no imported demonstrations; {again}") from None
    there = sum((directory / unit.marker / MANIFEST).exists() for unit in units)
    if there < len(units):
        raise UserError(f"demonstrate.imported={directory} holds {there} of {len(units)} shards; {again}")
    return units


def publish(scratch: Path, target: Path, describe: dict[str, Any]) -> Artifact:
    """Make a finished scratch directory the artifact at `target`.

    Args:
        scratch: directory with the finished files, on the file system of `target`.
        target: where it appears, whole, by one rename.
        describe: the fields of `Manifest` other than `files` and `published`.

    Returns:
        The artifact at `target`.

    Raises:
        UserError: `target` holds an artifact already.
        OSError: a file could not be written through to disk.
    """
    files = {}
    for path in sorted(p for p in scratch.rglob("*") if p.is_file() and p.name != MANIFEST or p.is_symlink()):
        sync(path)
        files[str(path.relative_to(scratch))] = FileRecord(size=path.stat().st_size, sha256=checksum(path))
    manifest = Manifest(files=files, published=now(), **describe)
    write_synced(scratch / MANIFEST, manifest.to_bytes())
    for directory in sorted((p for p in scratch.rglob("*") if p.is_dir()), reverse=True):
        sync(directory)
    sync(scratch)
    target.parent.mkdir(parents=True, exist_ok=True)
    # rename(2) replaces an empty directory silently, and refuses one with files: both mean that somebody was here.
    if target.exists():
        raise UserError(f"{target} is published already; nothing was overwritten")
    try:
        os.rename(scratch, target)
    except OSError as error:
        if target.exists():
            raise UserError(f"{target} is published already; nothing was overwritten") from error
        raise
    sync(target.parent)
    return Artifact(target, manifest)


def supersede(run: Path, relative: str, reason: str) -> Path | None:
    """Move a published directory out of the way, keeping it under `superseded/`.

    Returns:
        Where it is now, or None if nothing was there.
    """
    source = run / relative
    if not source.exists():
        return None
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S.%f")
    target = run / "superseded" / f"{stamp}-{relative.replace('/', '-')}"
    target.parent.mkdir(parents=True, exist_ok=True)
    os.rename(source, target)
    write_synced(target.with_suffix(".reason"), (reason + "\n").encode())
    return target


def new_attempt(run: Path, unit: Unit) -> int:
    """Create the directory of the next attempt at a unit.

    Returns:
        Its number, from 1.
    """
    base = run / "attempts" / str(unit)
    base.mkdir(parents=True, exist_ok=True)
    number = 1 + max((int(p.name) for p in base.iterdir() if p.name.isdigit()), default=0)
    while True:
        try:
            attempt_directory(run, unit, number).mkdir()
            return number
        except FileExistsError:
            number += 1


def attempt_directory(run: Path, unit: Unit, number: int) -> Path:
    """Scratch, logs and metrics of one attempt."""
    return run / "attempts" / str(unit) / str(number)


def incarnation_directory(attempt: Path, restarts: int) -> Path:
    """Where one start of an attempt's job works.

    Slurm may start a job again while its former incarnation still runs on a node that only seemed dead, so that no two
    incarnations may write the same files.

    Args:
        attempt: the attempt's directory.
        restarts: how often Slurm has started the job again, SLURM_RESTART_COUNT.

    Returns:
        The attempt's directory for the first incarnation, `restart-<n>` in it for a later one.
    """
    return attempt / f"{RESTART}{restarts}" if restarts else attempt


def latest_incarnation(attempt: Path) -> Path:
    """The directory of the newest incarnation that has begun, for its logs and what it tells of itself."""
    return incarnation_directory(attempt, max(_restarts(attempt), default=0))


def _restarts(attempt: Path) -> list[int]:
    numbers = (path.name.removeprefix(RESTART) for path in attempt.glob(f"{RESTART}*"))
    return [int(number) for number in numbers if number.isdigit()]


def claim(attempt: Path, job: str) -> str:
    """Take an attempt for a job: a submission that seemed to fail and was repeated must not be carried out twice.

    Args:
        attempt: the attempt's directory; made if need be.
        job: id of the job that asks, the same for all its processes and incarnations.

    Returns:
        Id of the job that the attempt belongs to from now on: `job`, or that of one that came first.
    """
    attempt.mkdir(parents=True, exist_ok=True)
    partial = attempt / f".{CLAIM}.{uuid.uuid4().hex}"
    partial.write_text(job + "\n")
    with contextlib.suppress(FileExistsError):
        os.link(partial, attempt / CLAIM)  # unlike a file that is created and then written, never seen half
    partial.unlink()
    return (attempt / CLAIM).read_text().strip()


def clear_scratch(attempt: Path) -> None:
    """Delete the unpublished files of all incarnations of an attempt, none of which runs; logs and metrics stay."""
    for restarts in (0, *_restarts(attempt)):
        discard_scratch(incarnation_directory(attempt, restarts))


def discard_scratch(incarnation: Path) -> None:
    """Delete the unpublished files of one incarnation."""
    shutil.rmtree(incarnation / SCRATCH, ignore_errors=True)


def write_synced(path: Path, content: bytes) -> None:
    """Write a whole file so that it is either old, absent or complete after a crash."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Force a file or directory to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat()
