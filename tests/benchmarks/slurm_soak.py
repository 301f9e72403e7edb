"""Whether a long run costs the login node and Slurm's controller more and more: epochs of stages that do nothing.

    python tests/benchmarks/slurm_soak.py [--epochs 1000] [--query-seconds 30]

Starts a cluster of its own on this machine, drives one run under the supervising loop, and samples the orchestrator:
CPU time, memory, open files, and every call of a Slurm command. Then `baton status` is timed on the run.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
from slurm_null import null_run, test_cluster

COMMANDS = ("sbatch", "squeue", "sacct", "scancel", "sinfo", "scontrol")
PROGRAM = (
    "import sys; from pathlib import Path; from pipeline.orchestrator import drive; "
    "drive(Path(sys.argv[1]), lambda s: None, stages_package='fake_stages')"
)
SAMPLE_SECONDS = 5.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--query-seconds", type=float, default=30.0)
    parser.add_argument("--parts", type=int, default=5, help="rows of the table")
    asked = parser.parse_args()
    with test_cluster(), tempfile.TemporaryDirectory(prefix="baton-bench-") as name:
        folder = Path(name)
        calls = counted(folder / "bin", folder / "calls.log")
        run = null_run(folder, "soak", asked.epochs, query_seconds=asked.query_seconds)
        began = time.monotonic()
        environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
        driver = subprocess.Popen([sys.executable, "-c", PROGRAM, str(run)], env=environment)
        samples = sample(driver, run, calls)
        if driver.returncode:
            sys.exit(f"the orchestrator ended with code {driver.returncode}")
        print_table(samples, asked.parts)
        print(f"{asked.epochs} epochs in {(time.monotonic() - began) / 60:.1f} minutes; {calls_by_name(calls)}")
        print(f"baton status: {status_seconds(run):.2f} s, median of five")
    processor = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line)
    print(f"{os.cpu_count()} cores, {processor.partition(': ')[2]}, {datetime.date.today()}")


def counted(folder: Path, log: Path) -> Path:
    """Put commands that write down each call before the real ones."""
    folder.mkdir()
    log.touch()
    for command in COMMANDS:
        if real := shutil.which(command):
            path = folder / command
            path.write_text(f'#!/bin/bash\necho {command} >> {log}\nexec {real} "$@"\n')
            path.chmod(0o755)
    return log


def sample(driver: subprocess.Popen[bytes], run: Path, calls: Path) -> list[tuple[float, ...]]:
    """Seconds, epoch, CPU seconds of the orchestrator and its commands, MiB, open files, calls; until it has ended."""
    found = []
    process, began = psutil.Process(driver.pid), time.monotonic()
    while driver.poll() is None:
        try:
            times = process.cpu_times()
            cpu = times.user + times.system + times.children_user + times.children_system
            row = (cpu, process.memory_info().rss / 2**20, float(process.num_fds()))
        except psutil.Error:
            break
        queries = calls.read_text().splitlines()
        epochs = len(list((run / "epochs").glob("*/update")))
        found.append(
            (time.monotonic() - began, float(epochs), *row, float(queries.count("squeue") + queries.count("sacct")))
        )
        time.sleep(SAMPLE_SECONDS)
    driver.wait()
    return found


def print_table(samples: list[tuple[float, ...]], parts: int) -> None:
    """One row for each part of the run."""
    print(f"{'epochs':>12}{'CPU s a minute':>16}{'CPU s an epoch':>16}{'MiB':>7}{'files':>7}{'queries a minute':>18}")
    bounds = [samples[i * (len(samples) - 1) // parts] for i in range(parts + 1)]
    for first, last in zip(bounds, bounds[1:], strict=False):
        minutes, epochs = (last[0] - first[0]) / 60, max(last[1] - first[1], 1)
        cpu = last[2] - first[2]
        span = f"{first[1]:.0f}-{last[1]:.0f}"
        queries = (last[5] - first[5]) / minutes
        print(f"{span:>12}{cpu / minutes:16.2f}{cpu / epochs:16.3f}{last[3]:7.0f}{last[4]:7.0f}{queries:18.1f}")


def calls_by_name(calls: Path) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(Counter(calls.read_text().split()).items()))


def status_seconds(run: Path) -> float:
    """Median time of `baton status`, as a user waits for it."""
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", "status", str(run), "--json"]
    seconds = []
    for arguments in (command, command[:-1], command[:-1], command[:-1], command):
        began = time.monotonic()
        done = subprocess.run(arguments, capture_output=True, text=True, check=True)
        seconds.append(time.monotonic() - began)
        if "--json" in arguments:
            json.loads(done.stdout)
    return sorted(seconds)[2]


if __name__ == "__main__":
    main()
