"""The process that makes the checks: `python -m stages.simulators.libero.probe.inside ASKED`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from stages.simulators.libero import installed
from stages.simulators.libero.options import parse
from stages.simulators.libero.probe.order import ORDER, VERSIONS
from stages.simulators.probing import Broken, Finding, guarded, not_looked_at


def main() -> None:
    """Make the checks until one fails."""
    asked: dict[str, Any] = json.loads(sys.argv[1])
    finding = guarded("libero", VERSIONS, versions, installed.REMEDY)
    finding.tell()
    checks: dict[str, Callable[[], Finding]] = {}
    if finding.verdict == "pass":
        # Imported late: it needs what the first check has looked for.
        from stages.simulators.libero.probe.checks import Checks

        checks = Checks(parse(asked["options"]), asked["steps"]).all()
    for name in ORDER[1:]:
        if finding.verdict in ("fail", "skip"):
            finding = not_looked_at(name)
        else:
            finding = guarded("libero", name, checks[name], installed.REMEDY)
        finding.tell()


def versions() -> Finding:
    """Whether Baton can use what is installed here."""
    try:
        found = installed.versions()
    except ModuleNotFoundError as error:
        raise Broken(f"{error} in {sys.executable}", installed.REMEDY) from None
    return Finding(VERSIONS, "pass", ", ".join(f"{name} {version}" for name, version in found.items()))


if __name__ == "__main__":
    main()
