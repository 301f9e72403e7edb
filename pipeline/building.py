"""Building the environment of a simulator: what the machine lacks, the steps, the checks.

A step is done again when its own text or that of a file it names has changed, and so are all behind it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pipeline.artifacts import now, write_synced
from pipeline.environments import BUILT, VARIABLE, Environment, Step
from pipeline.errors import UserError

STEPS, LOG, LOCK = "steps.json", "build.log", ".lock"
# Over what an interrupted build or another version of Python left.
EMPTY = 'rm -rf "$ENVIRONMENT"/{bin,lib,lib64,include,pyvenv.cfg}; "$BASE" -m venv "$ENVIRONMENT"'
LOOK_SECONDS = 120.0
TAIL = 12


def missing(environment: Environment, python: str | None = None) -> list[str]:
    """What the machine lacks: a line each, with its remedy.

    Args:
        environment: what is to be built.
        python: an interpreter to build with; None: one is looked for.
    """
    lines, definition = [], environment.definition
    try:
        interpreter(definition.python, python)
    except UserError as error:
        lines.append(str(error))
    place = next(path for path in (environment.path, *environment.path.parents) if path.is_dir())
    free = shutil.disk_usage(place).free / 1e9
    if not environment.built and free < definition.disk_gb:
        lines.append(
            f"disk: {free:.1f} GB free in {place}, {definition.disk_gb:g} GB are needed; set {VARIABLE} to a larger "
            "disk"
        )
    for need in definition.needs:
        if _look(environment, need.test).returncode:
            lines.append(f"{need.name}: not here; {need.remedy}")
    return lines


def interpreter(version: str, given: str | None = None) -> str:
    """A Python of a version that can make environments.

    Args:
        version: e.g. "3.10".
        given: the one to take; None: the first of that version on PATH, or the one this runs in.

    Raises:
        UserError: there is none.
    """
    candidates = [given] if given else [shutil.which(f"python{version}"), sys.executable]
    test = "import sys, venv, ensurepip; print('.'.join(map(str, sys.version_info[:2])))"
    for candidate in filter(None, candidates):
        try:
            told = subprocess.run([candidate, "-c", test], capture_output=True, text=True, timeout=LOOK_SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if told.returncode == 0 and told.stdout.strip() == version:
            return candidate
    here = f"{given} is not one with venv and ensurepip" if given else f"no python{version} with venv on PATH"
    raise UserError(
        f"Python {version}: {here}; install it (apt-get install python{version}-venv, module load, or conda create -n "
        f"py{version.replace('.', '')} python={version}) and name it: --python PATH"
    )


def create(
    environment: Environment, tell: Callable[[str], contextlib.AbstractContextManager[Any]], python: str | None = None
) -> bool:
    """Build an environment, or go on where building was interrupted.

    Args:
        environment: what to build.
        tell: called with a line for each piece of work; the work is done inside what it returns.
        python: interpreter to build with; None: one is looked for.

    Returns:
        Whether anything was to be done.

    Raises:
        UserError: the machine lacks something (a line each), another process builds it, or a step failed.
    """
    if environment.current:
        return False
    if lines := missing(environment, python):
        raise UserError("\n".join([f"{environment.name} cannot be built here:", *lines]))
    base = {"BASE": interpreter(environment.definition.python, python)}
    with _alone(environment) as lock:
        (environment.path / BUILT).unlink(missing_ok=True)
        work = (Step(name=f"Python {environment.definition.python}", run=EMPTY), *environment.definition.steps)
        keys, done = environment.keys(), _done(environment)
        same = next((n for n, key in enumerate(keys) if n >= len(done) or done[n] != key), len(keys))
        for number in range(same, len(work)):
            with tell(f"step {number + 1} of {len(work)}: {work[number].name}"):
                _carry_out(environment, work[number], base, lock)
            write_synced(environment.path / STEPS, json.dumps(keys[: number + 1]).encode())
        for check in environment.definition.checks:
            with tell(f"check: {check.name}"):
                _carry_out(environment, check, base, lock)
        note = {"name": environment.name, "definition": keys[-1], "built": now(), "host": os.uname().nodename}
        write_synced(environment.path / BUILT, (json.dumps(note, indent=1) + "\n").encode())
    return True


def check(environment: Environment) -> list[tuple[str, str | None]]:
    """Carry out the checks of a built environment.

    Returns:
        Each check with what went wrong, None where nothing did.

    Raises:
        UserError: it is not built.
    """
    if not environment.built:
        raise UserError(f"{environment.name} is not built in {environment.path}: baton env create {environment.name}")
    found = []
    for step in environment.definition.checks:
        tried = _look(environment, step.run)
        said = (tried.stderr.strip() or tried.stdout.strip() or f"exit code {tried.returncode}").splitlines()[-1]
        found.append((step.name, said if tried.returncode else None))
    return found


def _done(environment: Environment) -> Sequence[str]:
    path = environment.path / STEPS
    done: list[str] = json.loads(path.read_text()) if path.is_file() else []
    return done


def _variables(environment: Environment, more: Mapping[str, str] = {}) -> dict[str, str]:
    own = {
        "PYTHON": str(environment.python),
        "ENVIRONMENT": str(environment.path),
        "VIRTUAL_ENV": str(environment.path),
        "DEFINITION": str(environment.folder),
        "PATH": f"{environment.path / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_CACHE_DIR": os.environ.get("PIP_CACHE_DIR", str(environment.path.parent / ".cache")),
    }
    foreign = ("PYTHONPATH", "PYTHONHOME")
    return {key: value for key, value in os.environ.items() if key not in foreign} | own | dict(more)


def _look(environment: Environment, command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["bash", "-c", command],
            capture_output=True,
            text=True,
            timeout=LOOK_SECONDS,
            stdin=subprocess.DEVNULL,
            env=_variables(environment),
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"no answer within {LOOK_SECONDS:g} s")


def _carry_out(environment: Environment, step: Step, more: Mapping[str, str], lock: int) -> None:
    """Run a step to its end, its output into the log; it holds the lock too, lest it goes on beside the next build.

    Raises:
        UserError: it failed; with the end of what it said.
    """
    log = environment.path / LOG
    with log.open("ab") as file:
        file.write(f"\n--- {step.name}: {now()}\n".encode())
        file.flush()
        begin = file.tell()
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", step.run],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=environment.path,
            env=_variables(environment, more),
            pass_fds=(lock,),
        ).returncode
    if ended:
        said = log.read_bytes()[begin:].decode(errors="replace").strip().splitlines()[-TAIL:]
        raise UserError(
            "\n".join(
                [
                    f"{environment.name}: {step.name!r} failed with exit code {ended}; mend it, and the same command "
                    f"goes on from there; all it said: {log}",
                    *(f"  {line}" for line in said),
                ]
            )
        )


@contextlib.contextmanager
def _alone(environment: Environment) -> Iterator[int]:
    environment.path.mkdir(parents=True, exist_ok=True)
    with (environment.path / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{environment.path} is being built by another process: wait for it") from None
        yield lock.fileno()
