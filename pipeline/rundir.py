"""A run directory's identity: its config, and which code made it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import uuid
from pathlib import Path
from typing import Any

from pipeline import checkpoints, lease, validation
from pipeline.artifacts import now, write_synced
from pipeline.config import CHANGEABLE, Config
from pipeline.errors import UserError
from pipeline.simulator_config import NESTED

CONFIG, IDENTITY = "config.yaml", "run.json"
PACKAGES = ("pipeline", "slurm", "stages")
SOURCES = ("*.py", "*.jsonl")  # lists of tasks decide what a policy is told
LIBRARIES = ("torch", "transformers", "deepspeed", "zarr", "numpy", "mujoco", "submitit", "pydantic", "mlflow")


def create_or_resume(config: Config) -> Path:
    """Make the run directory of a config, or check that the config fits the one that is there.

    Args:
        config: what the user asks for now.

    Returns:
        The run directory, absolute.

    Raises:
        UserError: the run was made with another config, its checkpoint does not fit, the directory is no run, or
            somebody else drives it now.
    """
    run = Path(config.runs_dir).expanduser().absolute() / config.name
    if re.search(r"%\d*a", str(run)):
        raise UserError(f"runs_dir={config.runs_dir}: %a stands for the number of a shard in paths; choose another")
    if (run / CONFIG).exists():
        _resume(run, config)
        return run
    checkpoints.require(config)
    strangers = sorted(p.name for p in run.iterdir() if p.name not in (CONFIG, IDENTITY)) if run.is_dir() else []
    strangers = [
        name for name in strangers if not name.startswith(f".{CONFIG}") and not name.startswith(f".{IDENTITY}")
    ]
    if strangers:
        raise UserError(
            f"{run} exists and is not a run (it holds {strangers[0]} but no {CONFIG}): "
            f"choose another name=..., or move it"
        )
    try:
        run.mkdir(parents=True, exist_ok=True)
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise UserError(f"runs_dir={config.runs_dir}: cannot make {run} ({error.strerror}); choose another") from None
    identity = {
        "id": f"{config.name}-{uuid.uuid4().hex[:8]}",
        "name": config.name,
        "code": code_identity(),
        "versions": _versions(),
        "created": now(),
        "host": socket.gethostname(),
    }
    write_synced(run / IDENTITY, (json.dumps(identity, indent=1) + "\n").encode())
    write_synced(run / CONFIG, validation.dump(config).encode())  # last: its presence says that the run exists
    return run


def load(run: Path) -> Config:
    """Read the config of a run.

    Args:
        run: the run directory.

    Returns:
        Its resolved config; parsed again only after a change.

    Raises:
        UserError: there is no run, or its config cannot be read.
    """
    path = run / CONFIG
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{run} is not a run directory: it has no {CONFIG}") from None
    return _load(path, status.st_ino, status.st_mtime_ns)


def identity(run: Path) -> dict[str, Any]:
    """Read `run.json`: id, name, code, versions, created, host.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        found: dict[str, Any] = json.loads((run / IDENTITY).read_text())
    except (FileNotFoundError, json.JSONDecodeError) as error:
        raise UserError(f"{run / IDENTITY} cannot be read ({error}): {run} is not a whole run directory") from None
    return found


def package_root() -> Path:
    """Directory that holds the packages; first on PYTHONPATH of every stage."""
    return Path(__file__).resolve().parent.parent


def code_identity() -> dict[str, str | None]:
    """Which code this is.

    Returns:
        `revision`: the git commit, None outside a checkout or without git; `digest`: SHA-256 over the source files.
    """
    root, revision = package_root(), None
    if (root / ".git").exists() and (git := shutil.which("git")):
        answer = subprocess.run(
            [git, "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        )
        revision = answer.stdout.strip() if answer.returncode == 0 else None
    digest = hashlib.sha256()
    for path in sorted(p for package in PACKAGES for kind in SOURCES for p in (root / package).rglob(kind)):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return {"revision": revision, "digest": digest.hexdigest()}


def differences(old: Config, new: Config) -> list[tuple[str, Any, Any]]:
    """Compare two configs.

    Returns:
        (dotted key, old value, new value) of every value that differs, sorted by key.
    """
    before, after = flat(old), flat(new)
    keys = sorted(before.keys() | after.keys())
    return [(key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]


def flat(config: Config) -> dict[str, Any]:
    """Dotted key -> value, e.g. `rollout.num_envs` -> 16; an empty block stands for itself."""
    return _flat(config.model_dump(mode="json"))


def changeable(key: str, config: Config) -> bool:
    """Whether a run may be continued with another value at a dotted key of its config."""
    if key == "simulator.rendering_frequency":
        return config.simulator.name not in NESTED  # there it is part of how a world goes on, elsewhere of films alone
    return key in CHANGEABLE or key.split(".")[0] in CHANGEABLE


def _resume(run: Path, config: Config) -> None:
    found = load(run)
    changed = differences(found, config)
    fixed = [entry for entry in changed if not changeable(entry[0], config)]
    if fixed:
        listing = "; ".join(f"{key}: the run has {_show(old)}, asked is {_show(new)}" for key, old, new in fixed)
        raise UserError(
            f"{run} was made with another config ({listing}); set the run's values again, or give another name=..."
        )
    if not changed:
        return
    if driver := lease.holder(run):
        raise UserError(
            f"{run} is driven by {driver}: stop it before changing {', '.join(key for key, _, _ in changed)} "
            f"(units that run go on)"
        )
    write_synced(run / CONFIG, validation.dump(config).encode())


@functools.lru_cache(maxsize=16)
def _load(path: Path, _inode: int, _modified: int) -> Config:
    try:
        return validation.parse(path.read_text(), str(path))
    except UserError as error:
        raise UserError(
            f"{error}\n{path} was changed by hand or written by another version of Baton: put it back, or use the "
            f"version that {path.with_name(IDENTITY)} names under code"
        ) from None


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _show(value: Any) -> str:
    return json.dumps(value)


def _versions() -> dict[str, str]:
    """Versions of the interpreter and of those libraries that are installed."""
    found = {}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return {"python": platform.python_version(), **found, "system": os.uname().release}
