"""What a run leans on beside Slurm: its directory, MLflow, checkpoint, demonstrations, the simulator's interpreter."""

from __future__ import annotations

import os
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from pipeline import checkpoints, environments, lease, rundir
from pipeline.artifacts import imported_shards
from pipeline.config import Config
from pipeline.doctor.asks import run_directory
from pipeline.doctor.check import Check, count, failed, passed, skipped, warned
from pipeline.doctor.space import existing, mount
from pipeline.errors import UserError

HTTP_SECONDS = 5.0
PYTHON_SECONDS = 60.0
# File systems of other machines, on which sqlite's locks are not to be relied on.
NETWORKED = (
    "nfs",
    "nfs4",
    "lustre",
    "gpfs",
    "beegfs",
    "cephfs",
    "ceph",
    "cifs",
    "smb3",
    "9p",
    "wekafs",
    "panfs",
    "afs",
)
MLFLOW = "trainer.logger.mlflow"


def run_place(config: Config) -> Iterator[Check]:
    """Whether the run can begin in its directory, or go on.

    Args:
        config: the run's config.
    """
    run = run_directory(config)
    place = existing(run)
    if not os.access(place, os.W_OK | os.X_OK):
        yield failed("run directory", f"{place} cannot be written to", "set runs_dir to another directory")
    elif not (run / rundir.CONFIG).is_file():
        strangers = sorted(path.name for path in run.iterdir() if not path.name.startswith(".")) if run.is_dir() else []
        if strangers := [name for name in strangers if name != rundir.IDENTITY]:
            found = f"{run} is there and is no run: it holds {strangers[0]}, but no {rundir.CONFIG}"
            yield failed("run directory", found, "set another name=..., or move it")
        else:
            yield passed("run directory", f"{run} will be made")
    else:
        yield _known_run(config, run)


def _known_run(config: Config, run: Path) -> Check:
    try:
        changed = [key for key, _, _ in rundir.differences(rundir.load(run), config)]
        driver = lease.holder(run)
    except UserError as error:
        return failed("run directory", str(error))
    fixed = [key for key in changed if not rundir.changeable(key, config)]
    if fixed:
        found = f"{run} was made with another {', '.join(fixed[:5])}{', ...' if len(fixed) > 5 else ''}"
        return failed("run directory", found, "set the run's values again, or another name=...")
    if driver:
        found = f"{run} is driven by {driver}" + (f", and {', '.join(changed)} would change" if changed else "")
        return warned("run directory", found, "stop that process first; units that run go on")
    later = f"; {', '.join(changed)} will be changed" if changed else ""
    return passed("run directory", f"{run} is a run with this config and will be continued{later}")


def mlflow(config: Config) -> Check:
    """Whether MLflow can be written to.

    Args:
        config: the run's config.
    """
    settings = config.trainer.logger.mlflow
    if not settings.enable:
        return skipped("MLflow", f"{MLFLOW}.enable=false")
    uri = settings.uri or f"sqlite:///{run_directory(config).parent / 'mlflow.db'}"
    address = urllib.parse.urlsplit(uri)
    if address.scheme in ("http", "https"):
        return _server(uri)
    if address.scheme in ("sqlite", "file", ""):
        return _database(uri, Path(address.path.removeprefix("/") if address.scheme == "sqlite" else address.path))
    return skipped("MLflow", f"{MLFLOW}.uri={uri}: only http, sqlite and directories are looked at")


def _server(uri: str) -> Check:
    remedy = f"start it, set {MLFLOW}.uri to where it is, or {MLFLOW}.enable=false"
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=HTTP_SECONDS) as answer:
            return passed("MLflow", f"{uri} answers {answer.status}")
    except urllib.error.HTTPError as error:
        found = f"{uri} answers {error.code} {error.reason} to /health"
        return warned("MLflow", found, "see that it is MLflow, and that MLFLOW_TRACKING_USERNAME or _TOKEN is set")
    except (OSError, ValueError) as error:  # URLError is an OSError, as is a timeout
        return failed("MLflow", f"{uri} does not answer: {getattr(error, 'reason', error)}", remedy)


def _database(uri: str, path: Path) -> Check:
    place = existing(path.expanduser().absolute().parent)
    kind = mount(place)[1]
    if not os.access(place, os.W_OK):
        return failed(
            "MLflow", f"{uri}: {place} cannot be written to", f"set {MLFLOW}.uri or runs_dir to another place"
        )
    if kind in NETWORKED or kind.startswith("fuse."):
        found = f"{uri} lies on a network file system ({kind}), where sqlite's locks may fail"
        return warned("MLflow", found, f"run `mlflow server` somewhere and set {MLFLOW}.uri=http://HOST:5000")
    return passed("MLflow", f"{uri} can be written to")


def checkpoint(config: Config) -> Iterator[Check]:
    """Whether the policy to start from is there, where one is named.

    Args:
        config: the run's config.
    """
    if config.policy.checkpoint is None:
        return
    path = Path(config.policy.checkpoint)
    needed = ("config.json", "*.safetensors") if config.policy.name == "openvla_oft" else ("*.safetensors",)
    lacking = [pattern for pattern in needed if not any(path.glob(pattern))]
    if not path.is_dir():
        yield failed("checkpoint", f"policy.checkpoint={path} is no directory", "name one in Hugging Face layout")
    elif lacking:
        found = f"policy.checkpoint={path} holds no {' and no '.join(lacking)}"
        yield failed("checkpoint", found, "name a directory that a policy was saved to")
    else:
        try:
            checkpoints.check(config)
        except UserError as error:
            found, _, remedy = str(error).rpartition(": ")
            yield failed("checkpoint", found, remedy)
        else:
            yield passed("checkpoint", f"{path} holds a policy")


def demonstrations(config: Config) -> Iterator[Check]:
    """Whether imported demonstrations are there, where a run is to learn from some.

    Args:
        config: the run's config.
    """
    if config.demonstrate.imported is None or not config.sft.steps:
        return
    place = Path(config.demonstrate.imported).expanduser()
    try:
        shards = imported_shards(place)
    except UserError as error:
        found, _, remedy = str(error).rpartition("; ")
        yield failed("demonstrations", found, remedy)
    else:
        yield passed("demonstrations", f"{count(len(shards), 'imported shard')} in {place}")


def interpreter(config: Config, on_nodes: bool) -> Iterator[Check]:
    """Whether the simulator's interpreter runs on this machine, where one is named.

    Args:
        config: the run's config.
        on_nodes: it has to run on other machines, and need not on this one.
    """
    python, name = config.simulator.python, config.simulator.name
    if python is None:
        if name in environments.names():
            found = f"no environment of {name} is built in {environments.root()}, and simulator.python is not set"
            yield failed("interpreter", found, f"baton env create {name}, or set simulator.python")
        return
    try:
        told = subprocess.run([python, "--version"], capture_output=True, text=True, timeout=PYTHON_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        found = f"simulator.python={python} does not run here: {getattr(error, 'strerror', None) or error}"
        if on_nodes:
            yield warned("interpreter", found, "none needed if nodes have it: see the checks of the simulator")
        else:
            yield failed("interpreter", found, "name a Python in which the simulator is installed")
    else:
        yield passed("interpreter", f"{python} is {(told.stdout or told.stderr).strip()}")
