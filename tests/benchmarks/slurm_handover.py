"""How long nothing happens between one unit and the next, against Slurm's own chain of jobs that do nothing.

    python tests/benchmarks/slurm_handover.py [--epochs 15] [--rounds 3]

Starts a cluster of its own on this machine. A hand-over is from the moment at which a unit is published to the first
line of the next one's batch script; where stages stay up, to the next one's begin in the stage itself. Of a bare
`afterok` chain of `sleep 0` jobs it is from the last line of one script to the first of the next.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from slurm_null import null_run, test_cluster

from pipeline import chain
from pipeline.artifacts import Unit, open_artifact
from pipeline.launchers import PILOT_VARIABLE
from pipeline.ledger import published, read
from pipeline.orchestrator import drive
from slurm import client
from slurm.states import State, state_of

CLOCK = 'echo "$(date +%s.%N) $SLURM_JOB_NAME" >> '
POLL = 0.1


def bare(folder: Path, count: int) -> list[float]:
    """Hand-overs of a chain of jobs that do nothing."""
    script, log = folder / "bare.sh", folder / "bare.log"
    script.write_text(f"#!/bin/bash\n#SBATCH --output=/dev/null\ndate +%s.%N >> {log}\nsleep 0\ndate +%s.%N >> {log}\n")
    last = ""
    for _ in range(count):
        last = client.sbatch(script, [f"--dependency=afterok:{last}"] if last else [])
    wait()
    times = [float(line) for line in log.read_text().split()]
    log.unlink()
    return [start - end for end, start in zip(times[1:-1:2], times[2::2], strict=True)]


def supervised(folder: Path, epochs: int) -> list[float]:
    """Hand-overs under the supervising loop."""
    clock = folder / "supervised.log"
    run = null_run(folder, f"supervised-{time.time_ns()}", epochs, poll_seconds=POLL, setup=[f"{CLOCK}{clock}"])
    drive(run, lambda snapshot: None, stages_package="fake_stages")
    return links(run, epochs, batch_starts(clock))


def chained(folder: Path, epochs: int) -> list[float]:
    """Hand-overs under a chain submitted ahead."""
    clock = folder / "chained.log"
    name = f"chained-{time.time_ns()}"
    run = null_run(folder, name, epochs, schedule="chain", setup=[f"{CLOCK}{clock}"])
    chain.extend(run, stages_package="fake_stages")
    wait()
    return links(run, epochs, batch_starts(clock))


def held(folder: Path, epochs: int) -> list[float]:
    """Hand-overs inside one allocation, with stages that stay up."""
    run = null_run(folder, f"held-{time.time_ns()}", epochs, schedule="pilot", follow=True, poll_seconds=POLL / 4)
    program = (
        "import sys; from pathlib import Path; from pipeline.orchestrator import drive; "
        "drive(Path(sys.argv[1]), lambda s: None, stages_package='fake_stages')"
    )
    script = folder / "held.sh"
    script.write_text(
        f'#!/bin/bash\n#SBATCH --cpus-per-task=8 --output={run}/pilot.log\nexec {sys.executable} -c "{program}" {run}\n'
    )
    client.sbatch(script, variables={PILOT_VARIABLE: "1"})
    wait()
    begun = {
        name: when
        for when, what, name, _ in map(json.loads, (run / "fake.log").read_text().splitlines())
        if what == "start"
    }
    # The first of each stage starts the process that then stays up.
    return links(run, epochs, begun)[2:]


def batch_starts(clock: Path) -> dict[str, float]:
    """Unit -> first line of its batch script."""
    found = {}
    for line in clock.read_text().splitlines():
        moment, name = line.split()
        _, epoch, stage = name.rsplit("-", 2)
        unit = Unit(int(epoch[1:]), stage, 0 if stage in ("rollout", "demonstrate") else None)
        found[str(unit)] = float(moment)
    clock.unlink()
    return found


def links(run: Path, epochs: int, started: dict[str, float]) -> list[float]:
    """Seconds from the publication of each rollout and update to the start of what follows it."""
    order = [unit for epoch in range(1, epochs + 1) for unit in (Unit(epoch, "rollout", 0), Unit(epoch, "update"))]
    assert all(state.status == "published" for state in read(run).units), f"{run} is not finished"
    return [started[str(after)] - publication(run, before) for before, after in zip(order, order[1:], strict=False)]


def publication(run: Path, unit: Unit) -> float:
    artifact = published(run, unit) or open_artifact(run / unit.marker)
    assert artifact is not None
    return datetime.datetime.fromisoformat(artifact.manifest.published).timestamp()


def wait() -> None:
    """Until the queue is empty."""
    while any(state_of(entry.state) is not State.ENDED for entry in client.queue()):
        time.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    found: dict[str, list[float]] = {"bare afterok chain": [], "chain": [], "supervise": [], "pilot --follow": []}
    with test_cluster(), tempfile.TemporaryDirectory(prefix="baton-bench-") as name:
        folder = Path(name)
        version = subprocess.run(["sbatch", "--version"], capture_output=True, text=True, check=True).stdout.strip()
        for _ in range(asked.rounds):  # all in every round, so that whatever else the machine does meets all alike
            found["bare afterok chain"] += bare(folder, 2 * asked.epochs)
            found["chain"] += chained(folder, asked.epochs)
            found["supervise"] += supervised(folder, asked.epochs)
            found["pilot --follow"] += held(folder, asked.epochs)
    floor = statistics.median(found["bare afterok chain"])
    print(f"{'hand-over, seconds':22}{'median':>8}{'p95':>8}{'links':>7}{'to bare':>9}")
    for kind, values in found.items():
        middle, high = statistics.median(values), statistics.quantiles(values, n=20)[-1]
        print(f"{kind:22}{middle:8.2f}{high:8.2f}{len(values):7}{middle - floor:+9.2f}")
    processor = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line)
    print(f"{os.cpu_count()} cores, {processor.partition(': ')[2]}, {version}, {datetime.date.today()}")


if __name__ == "__main__":
    main()
