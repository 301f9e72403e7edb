"""Starts the process of the checks, passes on what it finds, and makes check 10: that it ends, with all it holds.

    python -m stages.simulators.omnigibson.probe '{"options": {...}, "num_envs": 1, "steps": 1000, "seconds": 1800}'

A line of JSON after `baton-check: ` for each of the ten checks; everything else is what Isaac Sim says.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from stages.simulators.omnigibson.probe import machine
from stages.simulators.omnigibson.probe.order import END, ORDER
from stages.simulators.probing import Finding, broken_off, listen, not_looked_at

POLITE_SECONDS = 60.0  # to shut down when asked
KILL_SECONDS = 30.0  # to be gone, with its graphics memory, once killed


def main() -> None:
    """Make the ten checks."""
    asked: dict[str, Any] = json.loads(sys.argv[1])
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "stages.simulators.omnigibson.probe.inside"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(asked) + "\n")
    process.stdin.flush()
    patience = threading.Timer(asked["seconds"], os.killpg, (process.pid, signal.SIGKILL))
    patience.start()
    made, said = listen(process, ORDER[:-1])
    late = not patience.is_alive()
    patience.cancel()
    missing = [name for name in ORDER[:-1] if name not in made]
    if missing:
        _kill(process)
        failed = next((finding for finding in made.values() if finding.verdict == "fail"), None)
        if failed is None:
            remedy = "see docs/behavior.md on hangs" if late else "start-up crashes often pass: give the command again"
            seconds = asked["seconds"] if late else None
            broken_off(missing.pop(0), process.returncode, seconds, said, remedy).tell()
        for name in missing:
            not_looked_at(name).tell()
        Finding(END, "skip", "there was nothing to end", "first mend what failed").tell()
    else:
        _end(process, asked.get("polite", POLITE_SECONDS)).tell()


def _end(process: subprocess.Popen[str], polite: float) -> Finding:
    """Check 10: it ends when asked, or at least when killed, and no process of it holds graphics memory."""
    family = _session(process.pid)
    begin = time.monotonic()
    assert process.stdin is not None
    process.stdin.close()
    process.stdin = None  # else `communicate` would flush it
    drain = threading.Thread(target=process.communicate, daemon=True)
    drain.start()
    drain.join(polite)
    asked = process.poll() is not None
    _kill(process)
    seconds = time.monotonic() - begin
    deadline = time.monotonic() + KILL_SECONDS
    while (left := _session(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.1)
    held = machine.gpu_memory(family)
    if left or held:
        what = f"processes {', '.join(map(str, sorted(left)))}" if left else f"{held:.0f} MiB of graphics memory"
        found = f"{what} of it are still there {KILL_SECONDS:g} s after SIGKILL"
        return Finding(END, "fail", found, "see `nvidia-smi`; ask who runs the site to reset the GPU")
    if not asked:
        found = f"it did not shut down within {polite:g} s of being asked, and was killed"
        return Finding(END, "warn", found, "none needed: Baton kills simulators that do not end")
    return Finding(END, "pass", f"it shut down within {seconds:.1f} s and holds nothing any more")


def _kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _session(leader: int) -> set[int]:
    """Processes of a session that are no zombies."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == leader and fields[0] not in "ZX":
                found.add(int(entry.name))
    return found


if __name__ == "__main__":
    main()
