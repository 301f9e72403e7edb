"""The door every stage goes through: from a unit's name to its published artifacts.

`python -m stages.rollout RUN --epoch 3 --shard 2` does the same as the orchestrator's job: it opens an attempt, checks
the inputs, works in scratch and publishes.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import os
import platform
import sys
import zlib
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml
from pydantic import ValidationError

from pipeline import artifacts
from pipeline.artifacts import Artifact, Unit
from pipeline.config import Config
from pipeline.errors import UserError
from stages.metrics import MetricsLog, Phases, write_progress

if TYPE_CHECKING:
    import torch

    from stages.training.ranks import Rank

PACKAGES = ("torch", "deepspeed", "transformers", "zarr", "numpy", "mujoco")


class Work:
    """One attempt at a unit, in the hands of its stage.

    Attributes:
        run: the run directory.
        config: the run's config.
        unit: what is being done.
        attempt: number of the attempt.
        directory: the attempt's directory; `scratch/<part>` below it is published.
        phases: seconds per phase.
        metrics: the log that becomes `metrics.jsonl` of the artifact.
        summary: metrics of the manifest.
        publishes: whether this process publishes the outputs; one process of a unit does.
    """

    def __init__(self, run: Path, config: Config, unit: Unit, attempt: int) -> None:
        self.run, self.config, self.unit, self.attempt = run, config, unit, attempt
        self.directory = artifacts.attempt_directory(run, unit, attempt)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.started = artifacts.now()
        self.phases = Phases(self.directory / "phases.jsonl")
        self.metrics = MetricsLog(self.directory / "metrics.jsonl")
        self.summary: dict[str, float] = {}
        self.publishes = True
        self._inputs: dict[str, str] = {}

    def scratch(self, part: str) -> Path:
        """Directory of a part of the output, e.g. `policy`; made empty on first use."""
        path = self.directory / "scratch" / part
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

    def policy(self, version_: int) -> Path:
        """The verified directory of a policy version."""
        return self.require(Unit(version_, "update" if version_ else "sft"), "policy")

    def stream(self, label: str, *indices: int) -> np.random.Generator:
        """A random stream of its own for everything that draws: same run seed, label and indices, same numbers."""
        return stream(self.config.seed, label, *indices)

    def progress(self, done: int, total: int, metrics: dict[str, float] | None = None) -> None:
        """Tell whoever watches how far the unit is."""
        write_progress(self.directory / "progress.json", done, total, metrics)

    def publish(self) -> list[Artifact]:
        """Make the scratch directories artifacts, the marker last."""
        outputs = self.unit.outputs
        marker = list(outputs)[-1]
        (self.scratch(marker) / "metrics.jsonl").write_bytes((self.directory / "metrics.jsonl").read_bytes())
        for relative in outputs.values():
            # A part without its marker was left by an attempt that died between its renames; nobody has read it.
            if not (self.run / self.unit.marker).exists():
                artifacts.supersede(self.run, relative, f"left by an attempt at {self.unit} that died while publishing")
        return [
            artifacts.publish(
                self.scratch(part),
                self.run / relative,
                {
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
                },
            )
            for part, relative in outputs.items()
        ]


def run_stage(stage: str, do: Callable[[Work], None], argv: list[str] | None = None) -> int:
    """Carry out one unit of a stage and publish it.

    Args:
        stage: name of the stage's module.
        do: the work; it reads inputs through `Work.require` and writes into `Work.scratch`.
        argv: command line without the program; None: the process's own.

    Returns:
        Exit code: 0 published (now or before), 2 a user's mistake, told in one line on stderr and in the attempt.
    """
    parser = argparse.ArgumentParser(prog=f"python -m stages.{stage}", description=sys.modules["__main__"].__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("--epoch", type=int, required=True, help="epoch of the unit; 0 is the warm start")
    parser.add_argument("--shard", type=int, help="shard of the unit, where the stage has shards")
    parser.add_argument("--attempt", type=int, help="number of the attempt; default: a new one")
    arguments = parser.parse_args(argv)
    directory: Path | None = None
    try:
        config = load_config(arguments.run)
        unit = named_unit(stage, arguments.epoch, arguments.shard, config)
        marker = arguments.run / unit.marker
        if artifacts.open_artifact(marker) is not None:
            print(f"{unit} is published already: {marker}")
            return 0
        number = arguments.attempt or artifacts.new_attempt(arguments.run, unit)
        work = Work(arguments.run, config, unit, number)
        directory = work.directory
        artifacts.clear_scratch(directory)
        do(work)
        if work.publishes:
            with work.phases("publish"):
                for artifact in work.publish():
                    print(f"published {artifact.path}")
        return 0
    except UserError as error:
        message = str(error)
    except Exception as error:
        place = directory or arguments.run
        if not disk_full(error, place):
            raise
        message = f"the disk is full: nothing more can be written to {place}; free space and run the same command again"
    if directory is not None:
        artifacts.clear_scratch(directory)
        try:
            (directory / "error.txt").write_text(message + "\n")
        except OSError as error:  # a full disk must not hide the message
            print(f"could not write {directory / 'error.txt'}: {error.strerror}", file=sys.stderr)
    print(f"baton: {message}", file=sys.stderr)
    return UserError.EXIT_CODE


def run_ranked_stage(stage: str, do: Callable[[Work, Rank, torch.device], None]) -> int:
    """Carry out one unit of a training stage on its data-parallel ranks.

    Started as one process where the config asks for several, this starts the ranks on this machine and waits; started
    as a rank (by itself, srun or torchrun), it does the rank's share, and rank 0 publishes.

    Args:
        stage: name of the stage's module.
        do: the work of one rank, on its device.

    Returns:
        Exit code, as `run_stage`.
    """

    def share(work: Work) -> None:
        from stages.training.ranks import join, leave, rank_from_environment, run_ranks

        layout = getattr(work.config, stage)
        rank = rank_from_environment()
        if rank.size == 1 and layout.processes > 1:
            work.publishes = False
            arguments = [str(work.run), "--epoch", str(work.unit.epoch), "--attempt", str(work.attempt)]
            code = run_ranks(
                layout.processes, [sys.executable, "-m", f"stages.{stage}", *arguments], threads=layout.threads
            )
            if code:
                sys.exit(code)
            return
        if rank.size != layout.processes:
            raise UserError(
                f"{work.run / 'config.yaml'}: {stage}.processes={layout.processes}, "
                f"but {rank.size} ranks were started; start {layout.processes}"
            )
        work.publishes = rank.first
        prepare_torch(layout.threads)
        device = join(rank, work.directory)
        try:
            do(work, rank, device)
        finally:
            leave()

    return run_stage(stage, share)


def prepare_torch(threads: int) -> torch.device:
    """Set torch up for a unit.

    Args:
        threads: CPU threads; sums are split over them, so they are part of the result on a CPU.

    Returns:
        The GPU of this process if there is one, else the CPU.
    """
    import torch

    torch.set_num_threads(threads)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def disk_full(error: Exception, place: Path) -> bool:
    """Whether an error came of a full disk; writers in C++ and Rust do not tell, so the disk itself is asked too.

    Args:
        error: what was raised.
        place: where the unit writes.

    Returns:
        True if there was no space for it, by the error's number or because not a block is left.
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return place.exists() and os.statvfs(place).f_bavail == 0


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
