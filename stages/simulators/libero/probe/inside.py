"""The process that makes the checks: `python -m stages.simulators.libero.probe.inside ASKED`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from stages.simulators.interface import SimulatorConfigError
from stages.simulators.libero import installed
from stages.simulators.libero.options import parse
from stages.simulators.libero.probe.order import ORDER, VERSIONS, Broken
from stages.simulators.probing import Finding, not_looked_at


def main() -> None:
    """Make the checks until one fails."""
    asked: dict[str, Any] = json.loads(sys.argv[1])
    finding = guarded(VERSIONS, versions)
    finding.tell()
    checks: dict[str, Callable[[], Finding]] = {}
    if finding.verdict == "pass":
        # Imported late: it needs what the first check has looked for.
        from stages.simulators.libero.probe.checks import Checks

        checks = Checks(parse(asked["options"]), asked["steps"]).all()
    for name in ORDER[1:]:
        finding = not_looked_at(name) if finding.verdict in ("fail", "skip") else guarded(name, checks[name])
        finding.tell()


def versions() -> Finding:
    """Whether Baton can use what is installed here."""
    try:
        found = installed.versions()
    except ModuleNotFoundError as error:
        raise Broken(f"{error} in {sys.executable}", installed.REMEDY) from None
    return Finding(VERSIONS, "pass", ", ".join(f"{name} {version}" for name, version in found.items()))


def guarded(name: str, check: Callable[[], Finding]) -> Finding:
    """A check; whatever it meets becomes its finding."""
    try:
        return check()
    except Broken as error:
        found, remedy = error.args
        return Finding(name, "fail", found, remedy)
    except SimulatorConfigError as error:
        found, _, remedy = str(error).removeprefix("libero: ").rpartition("; ")
        return Finding(name, "fail", found or remedy, remedy if found else installed.REMEDY)
    except Exception as error:  # of a foreign library, which may raise anything
        return Finding(name, "fail", f"{type(error).__name__}: {error}".splitlines()[0], "see the lines above it")


if __name__ == "__main__":
    main()
