"""What the probes of all simulators share: findings, and a process that makes the checks and may die over them."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Sequence

from stages.simulators.interface import SimulatorConfigError

MARK = "baton-check: "


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a check came to.

    Attributes:
        name: of the check.
        verdict: `pass`, `warn`, `fail` or `skip`.
        found: what was found.
        remedy: what to do about it; empty where nothing is to be done.
    """

    name: str
    verdict: str
    found: str
    remedy: str = ""

    def tell(self) -> None:
        """Print it as a line of its own."""
        print(MARK + json.dumps(dataclasses.asdict(self)), flush=True)


class Broken(Exception):
    """What a check looked at is broken: what was found, and what to do about it."""


def told(line: str) -> Finding | None:
    """The finding in a line, where there is one."""
    _, mark, text = line.partition(MARK)
    return Finding(**json.loads(text)) if mark else None


def guarded(simulator: str, name: str, check: Callable[[], Finding], remedy: str) -> Finding:
    """Make a check; whatever it meets becomes its finding.

    Args:
        simulator: its name.
        name: of the check.
        check: makes it.
        remedy: of a refusal that names none.
    """
    try:
        return check()
    except Broken as error:
        found, remedy = error.args
        return Finding(name, "fail", found, remedy)
    except SimulatorConfigError as error:
        found, _, own = str(error).removeprefix(f"{simulator}: ").rpartition("; ")
        return Finding(name, "fail", found or own, own if found else remedy)
    except Exception as error:  # of a foreign library, which may raise anything
        return Finding(name, "fail", f"{type(error).__name__}: {error}".splitlines()[0], "see the lines above it")


def not_looked_at(name: str) -> Finding:
    """The finding of a check behind one that failed."""
    return Finding(name, "skip", "not looked at", "first mend what failed")


def listen(
    process: subprocess.Popen[str], enough: Collection[str] | None = None
) -> tuple[dict[str, Finding], list[str]]:
    """Pass on all that a process says.

    Args:
        process: the one that makes the checks.
        enough: checks after which to listen no longer; None: until the process has ended.

    Returns:
        The findings by check, and the last lines that were none.
    """
    made: dict[str, Finding] = {}
    said: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        finding = told(line)
        if finding is not None:
            made[finding.name] = finding
        elif line.strip():
            said = [*said[-2:], line.strip()]
        if enough is not None and all(name in made for name in enough):
            break
    return made, said


def broken_off(name: str, ended: int | None, late: float | None, said: Sequence[str], remedy: str) -> Finding:
    """The check at which a process died or had to be killed.

    Args:
        name: of the check.
        ended: the process's exit status, negative for a signal.
        late: seconds after which it was killed; None where it was not.
        said: its last lines.
        remedy: what to do about it.
    """
    if late is not None:
        found = f"nothing for {late:g} s; the process was killed"
    else:
        how = signal.Signals(-ended).name if ended is not None and ended < 0 else f"exit code {ended}"
        found = f"the process died ({how})"
    return Finding(name, "fail", f"{found}: {'; '.join(said) or 'it printed nothing'}", remedy)


def run(module: str, order: Sequence[str], remedy: str) -> None:
    """Have a process of its own make the checks that the first argument asks for, and tell of those it did not get to.

    Args:
        module: what the process runs, with the same argument.
        order: the checks.
        remedy: what to do where the process dies.
    """
    seconds: float = json.loads(sys.argv[1])["seconds"]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", module, sys.argv[1]],
        stdin=subprocess.DEVNULL,  # a prompt would wait for ever
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    patience = threading.Timer(seconds, os.killpg, (process.pid, signal.SIGKILL))
    patience.start()
    made, said = listen(process)
    ended, late = process.wait(), not patience.is_alive()
    patience.cancel()
    missing = [name for name in order if name not in made]
    if missing and not any(finding.verdict == "fail" for finding in made.values()):
        broken_off(missing.pop(0), ended, seconds if late else None, said, remedy).tell()
    for name in missing:
        not_looked_at(name).tell()
