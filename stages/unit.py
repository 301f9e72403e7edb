"""One attempt at a unit in the hands of its stage: verified inputs, scratch, random streams, metrics, publication."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import time
import zlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from pydantic import ValidationError

from pipeline import artifacts
from pipeline.artifacts import Artifact, Unit
from pipeline.config import Config
from pipeline.errors import UserError
from stages import signals
from stages.devices import narrow_to_policy
from stages.kept import Kept
from stages.metrics import MetricsLog, Phases, write_progress
from stages.usage import sampled

if TYPE_CHECKING:
    import torch

PACKAGES = ("torch", "deepspeed", "transformers", "zarr", "numpy", "mujoco")
TELL_S = 5.0
PROGRESS_S = 0.2  # replacing a file takes a millisecond on a good file system, and a thousand episodes may end together


class Work:
    """One attempt at a unit, in the hands of its stage.

    Attributes:
        run: the run directory.
        config: the run's config.
        unit: what is being done.
        attempt: number of the attempt.
        directory: of this incarnation of the attempt; `scratch/<part>` below it is published.
        phases: seconds per phase.
        metrics: the log that becomes `metrics.jsonl` of the artifact.
        summary: metrics of the manifest.
        publishes: whether this process publishes the outputs; one process of a unit does.
        kept: what outlives the unit where the stage stays up.
    """

    def __init__(self, run: Path, config: Config, unit: Unit, attempt: int, kept: Kept) -> None:
        self.run, self.config, self.unit, self.attempt, self.kept = run, config, unit, attempt, kept
        self._attempt_directory = artifacts.attempt_directory(run, unit, attempt)
        restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        self.directory = artifacts.incarnation_directory(self._attempt_directory, restarts)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.started = artifacts.now()
        self.phases = Phases(self.directory / "phases.jsonl", self._write_progress)
        self.metrics = MetricsLog(self.directory / "metrics.jsonl")
        self._usage = MetricsLog(self.directory / "usage.jsonl")
        # By an earlier start under the same number.
        self._logged_before = {log.path: log.path.stat().st_size for log in (self.metrics, self._usage)}
        self._told = self._progressed = 0.0
        self._progress: tuple[int, int, dict[str, float] | None] | None = None  # not written yet
        self.summary: dict[str, float] = {}
        self.publishes = True
        self._inputs: dict[str, str] = {}
        self._give_way()

    def scratch(self, part: str) -> Path:
        """Directory of a part of the output, e.g. `policy`; made empty on first use."""
        path = self.directory / artifacts.SCRATCH / part
        path.mkdir(parents=True, exist_ok=True)
        return path

    def require(self, unit: Unit, part: str | None = None) -> Path:
        """A verified input; its digest goes into the manifest.

        Args:
            unit: the unit that made it.
            part: which of its outputs; None: the only or last one.

        Raises:
            UserError: it is not there or damaged.
        """
        relative = unit.marker if part is None else unit.outputs[part]
        artifact = artifacts.require_artifact(self.run / relative, unit)
        self._inputs[relative] = artifact.digest
        return artifact.path

    def require_imported(self, directory: str) -> list[Path]:
        """The verified shards of imported demonstrations; their digests go into the manifest.

        Raises:
            UserError: some are not there or damaged.
        """
        place = Path(directory).expanduser()
        shards = [artifacts.require_artifact(place / u.marker, u) for u in artifacts.imported_shards(place)]
        self._inputs |= {str(shard.path): shard.digest for shard in shards}
        return [shard.path for shard in shards]

    def policy(self, version_: int) -> Path:
        """The verified directory of a policy version."""
        return self.require(Unit(version_, "update" if version_ else "sft"), "policy")

    def stream(self, label: str, *indices: int) -> np.random.Generator:
        """A random stream of its own for everything that draws: same run seed, label and indices, same numbers."""
        return stream(self.config.seed, label, *indices)

    def progress(self, done: int, total: int, metrics: dict[str, float] | None = None) -> None:
        """Tell whoever watches how far the unit is; stop here if a library has swallowed the signal's exception.

        It is written at most every `PROGRESS_S`, at the end, and when the stage turns to another phase.
        """
        signals.check()
        self._progress = (done, total, metrics)
        if done == total or time.monotonic() - self._progressed >= PROGRESS_S:
            self._write_progress()

    def _write_progress(self) -> None:
        if self._progress is not None:
            write_progress(self.directory / "progress.json", *self._progress)
            self._progress, self._progressed = None, time.monotonic()

    def tell(self, done: int, total: int, metrics: dict[str, float]) -> None:
        """Tell how far the unit is, and every few seconds leave a point of a curve over what is done."""
        self.progress(done, total, metrics)
        if time.monotonic() - self._told >= TELL_S or done == total:
            self._told = time.monotonic()
            self.metrics.log(done, metrics)

    def measured(self, root: int | None = None) -> contextlib.AbstractContextManager[None]:
        """Sample what the unit takes of the machine, of the descendants of process `root` or of this one."""
        return sampled(self._usage, root)

    def publish(self) -> list[Artifact]:
        """Make the scratch directories artifacts, the marker last.

        Returns:
            The artifacts; none if another incarnation of this attempt published them meanwhile.
        """
        outputs, published = self.unit.outputs, list[Artifact]()
        if artifacts.open_artifact(self.run / self.unit.marker) is not None:
            return published
        for log, before in self._logged_before.items():
            (self.scratch(list(outputs)[-1]) / log.name).write_bytes(log.read_bytes()[before:])
        self._give_way()
        for relative in outputs.values():
            # A part without its marker was left by an attempt that died between its renames; nobody has read it.
            if not (self.run / self.unit.marker).exists():
                artifacts.supersede(self.run, relative, f"left by an attempt at {self.unit} that died while publishing")
        for part, relative in outputs.items():
            self._give_way()
            published.append(artifacts.publish(self.scratch(part), self.run / relative, self._describe(part)))
        return published

    def _give_way(self) -> None:
        """Stop if Slurm has started this job again: the node may have seemed dead, and only one may publish."""
        newest = artifacts.latest_incarnation(self._attempt_directory)
        if newest != self.directory:
            raise signals.Stopped(f"{newest}, which was started in its place")

    def _describe(self, part: str) -> dict[str, Any]:
        """What the manifest says beside the files."""
        return {
            "unit": str(self.unit),
            "part": part,
            "attempt": self.attempt,
            "inputs": self._inputs,
            "config_digest": hashlib.sha256((self.run / "config.yaml").read_bytes()).hexdigest(),
            "code_revision": os.environ.get("BATON_CODE_REVISION", "unknown"),
            "seed": self.config.seed,
            "metrics": self.summary,
            "seconds": self.phases.seconds,
            "started": self.started,
            "host": platform.node(),
            "job_id": os.environ.get("SLURM_JOB_ID") or str(os.getpid()),
            "versions": versions(),
        }


def prepare_torch(threads: int) -> torch.device:
    """Set torch up for a unit.

    Args:
        threads: CPU threads; sums are split over them, so they are part of the result on a CPU.

    Returns:
        The GPU of this process if there is one, else the CPU.
    """
    narrow_to_policy()
    import torch

    torch.set_num_threads(threads)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_config(run: Path) -> Config:
    """The resolved config of a run directory."""
    path = run / "config.yaml"
    try:
        return Config.model_validate(yaml.safe_load(path.read_text()))
    except FileNotFoundError:
        raise UserError(f"{run} is no run directory: it has no config.yaml; `baton run CONFIG` makes one") from None
    except (ValidationError, yaml.YAMLError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".lstrip(": ").replace("\n", " ")
        raise UserError(f"{path} was changed by hand and is not valid ({what}); put it back") from None


def named_unit(module: str, epoch: int, shard: int | None, config: Config) -> Unit:
    """The unit that a command line means.

    Raises:
        UserError: the run has no such unit.
    """
    if epoch < 0 or (module == "sft" and epoch != 0) or (module == "update" and epoch == 0):
        raise UserError(f"--epoch {epoch}: {module} has no such epoch (sft is epoch 0, updates begin at 1)")
    stage = "demonstrate" if module == "rollout" and epoch == 0 else module
    if stage not in artifacts.SHARDED_STAGES:
        if shard is not None:
            raise UserError(f"--shard {shard}: {stage} has no shards; leave it out")
        return Unit(epoch, stage)
    shards = config.demonstrate.shards if stage == "demonstrate" else config.rollout.shards
    if shard is None or not 0 <= shard < shards:
        raise UserError(f"--shard {shard}: {stage} of this run has the shards 0 to {shards - 1}; name one")
    return Unit(epoch, stage, shard)


def stream(seed: int, label: str, *indices: int) -> np.random.Generator:
    """The random stream named by a label and indices under a run's seed."""
    entropy = [seed, zlib.crc32(label.encode()), *indices]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))


def versions() -> dict[str, str]:
    """Versions of the interpreter and of the libraries that decide the numbers."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
