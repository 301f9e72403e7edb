"""Starts the process of the checks and passes on what it finds, also where that process dies.

    python -m stages.simulators.maniskill.probe '{"options": {...}, "num_envs": 1, "steps": 1000, "seconds": 600}'

A line of JSON after `baton-check: ` for each check; everything else is what SAPIEN says.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

from stages.simulators.maniskill.probe.finding import ORDER, Finding, told


def main() -> None:
    """Have the checks made."""
    seconds: float = json.loads(sys.argv[1])["seconds"]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "stages.simulators.maniskill.probe.inside", sys.argv[1]],
        stdin=subprocess.DEVNULL,  # a prompt would wait for ever
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    patience = threading.Timer(seconds, os.killpg, (process.pid, signal.SIGKILL))
    patience.start()
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
    code = process.wait()
    late = not patience.is_alive()
    patience.cancel()
    missing = [name for name in ORDER if name not in made]
    if missing and not any(finding.verdict == "fail" for finding in made.values()):
        how = f"nothing for {seconds:g} s" if late else signal.Signals(-code).name if code < 0 else f"exit code {code}"
        found = f"the process died ({how}): {'; '.join(said) or 'it printed nothing'}"
        Finding(missing.pop(0), "fail", found, "a driver may be broken: try simulator.options.renderer=cpu").tell()
    for name in missing:
        Finding(name, "skip", "not looked at", "first mend what failed").tell()


if __name__ == "__main__":
    main()
