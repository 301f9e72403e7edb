"""Starts the process of the checks and passes on what it finds, whatever becomes of it.

    python -m stages.simulators.libero.probe '{"options": {...}, "num_envs": 1, "steps": 1000, "seconds": 1500}'

A line of JSON after `baton-check: ` for each of the checks; everything else is what LIBERO says.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import Any

from stages.simulators.libero.probe.finding import ORDER, Finding, told


def main() -> None:
    """Make the seven checks."""
    asked: dict[str, Any] = json.loads(sys.argv[1])
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "stages.simulators.libero.probe.inside", sys.argv[1]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    patience = threading.Timer(asked["seconds"], process.kill)
    patience.start()
    made, said = set[str](), ""
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        finding = told(line)
        if finding is not None:
            made.add(finding.name)
        elif line.strip():
            said = line.strip()
    status, late = process.wait(), not patience.is_alive()
    patience.cancel()
    missing = [name for name in ORDER if name not in made]
    if missing:
        why = f"it took longer than {asked['seconds']:g} s" if late else f"the process ended with status {status}"
        Finding(missing[0], "fail", f"{why}; it said last: {said or 'nothing'}", "baton env create libero").tell()
    for name in missing[1:]:
        Finding(name, "skip", "not looked at", "first mend what failed").tell()


if __name__ == "__main__":
    main()
