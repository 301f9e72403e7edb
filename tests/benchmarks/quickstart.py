"""The figures of a recipe: success before and after RL, seconds, memory, and the share of time spent on shards.

    python tests/benchmarks/quickstart.py [--seeds 0 1 2] [--runs-dir DIR] [key=value ...]
    python tests/benchmarks/quickstart.py --recipe configs/household_ppo_pi0.yaml

Runs `baton run` with the quickstart's recipe or another once a seed, in a fresh run directory, and samples the memory
of the whole tree of processes (proportional set size, so that shared pages count once). Not a test: it prints what it
measures.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import psutil

RECIPE = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--runs-dir", type=Path, default=None, help="default: a temporary directory")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_args()
    runs = arguments.runs_dir or Path(tempfile.mkdtemp(prefix="baton-benchmark-"))
    machine = f"{psutil.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}"
    print(f"{time.strftime('%Y-%m-%d')}, {machine}")
    print(f"installed environment: {directory_size(Path(sys.prefix)) / 1e9:.2f} GB\n")
    print("seed  warm start  after RL  points  minutes  peak memory  writing shards  reading shards")
    for seed in arguments.seeds:
        run = runs / f"seed-{seed}"
        minutes, peak = carry_out(arguments.recipe, run, seed, arguments.overrides)
        result = json.loads((run / "result.json").read_text())
        before, after = result["warm_start"]["success"], result["rl"]["success"]
        written, read = shard_shares(run)
        points = 100 * (after - before)
        print(f"{seed:4d}  {before:9.0%}  {after:8.0%}  {points:+6.0f}  {minutes:7.1f}", end="")
        print(f"  {peak / 1e9:8.2f} GB  {written:>14}  {read:>14}")
        print(f"      seconds a stage: {', '.join(f'{stage} {s:.1f}' for stage, s in result['seconds'].items())}")
        print(f"      simulator: {result['simulator']}", flush=True)


def carry_out(recipe: Path, run: Path, seed: int, overrides: list[str]) -> tuple[float, float]:
    """Run a recipe; returns minutes on the clock and peak bytes of its whole tree of processes."""
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", "run", str(recipe)]
    started, peak = time.monotonic(), 0
    with Path(f"{run}.log").open("w") if run.parent.is_dir() else tempfile.TemporaryFile("w") as log:
        process = subprocess.Popen(
            [*command, f"name={run.name}", f"runs_dir={run.parent}", f"seed={seed}", *overrides], stdout=log, stderr=log
        )
        while process.poll() is None:
            peak = max(peak, tree_memory(process.pid, str(run)))
            time.sleep(1.0)
    if process.returncode:
        sys.exit(f"the run of seed {seed} ended with {process.returncode}: see {run}.log")
    return (time.monotonic() - started) / 60, peak


def tree_memory(root: int, run: str) -> int:
    """Bytes of a process, its descendants, and of the run's units, which live in sessions of their own."""
    seen: dict[int, int] = {}
    for process in psutil.process_iter():
        try:
            if process.pid == root or run in " ".join(process.cmdline()):
                for each in [process, *process.children(recursive=True)]:
                    if each.pid not in seen:
                        seen[each.pid] = each.memory_full_info().pss
        except psutil.Error:
            continue
    return sum(seen.values())


def shard_shares(run: Path) -> tuple[str, str]:
    """Share of the rollouts' and the updates' seconds that writing and reading shards took, with MB/s of file size."""
    seconds: dict[str, float] = defaultdict(float)
    bytes_written = 0
    for manifest in run.glob("epochs/*/rollout/*/manifest.json"):
        record = json.loads(manifest.read_text())
        seconds["rollout"] += record["seconds"]["total"]
        seconds["write"] += record["seconds"]["write"]
        bytes_written += sum(file["size"] for file in record["files"].values())
    for manifest in run.glob("epochs/*/update/manifest.json"):
        record = json.loads(manifest.read_text())
        seconds["update"] += record["seconds"]["total"]
        seconds["read"] += record["seconds"]["read shards"]
    return (
        f"{seconds['write'] / seconds['rollout']:.1%}, {bytes_written / seconds['write'] / 1e6:.0f} MB/s",
        f"{seconds['read'] / seconds['update']:.1%}, {bytes_written / seconds['read'] / 1e6:.0f} MB/s",
    )


def directory_size(path: Path) -> int:
    """Bytes of the files below a directory."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink())


if __name__ == "__main__":
    main()
