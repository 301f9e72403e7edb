"""A row of the results table: a recipe carried out in sittings, success before and after RL, hours, and the command.

    python tests/benchmarks/results_table.py configs/household_object_gpu.yaml [--seeds 0,1,2] [--minutes 25] \\
        [--runs-dir runs] [--table results.md] [key=value ...]

Carries the recipe out once a seed. After so many minutes the run is stopped and the command ends with status 3; the
same command goes on from the run directory, here or on another machine that it was copied to. Once all seeds are done,
the row is printed and put into the table, in place of an earlier one of the same command. Not a test: it prints what
it measures.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BATON = [sys.executable, "-m", "pipeline.cli"]
TO_BE_CONTINUED = 3
COLUMNS = (
    *("recipe", "algorithm", "seed", "warm start", "after RL", "points"),
    *("episodes", "success by epoch", "seconds", "GPU-hours"),
)
HEAD = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--seeds", type=seeds, default=[0], metavar="SEED,...")
    parser.add_argument("--minutes", type=float, default=25.0, help="of a sitting")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    parser.add_argument("--table", type=Path, help="Markdown file that gets the row")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    asked = parser.parse_intermixed_args()
    deadline, rows = time.monotonic() + 60 * asked.minutes, []
    given = shlex.join([str(asked.recipe), "--seeds", ",".join(map(str, asked.seeds)), *asked.overrides])
    for seed in asked.seeds:
        values = dict(value.partition("=")[::2] for value in asked.overrides)
        algorithm = values.get("algorithm.name", "")
        run = asked.runs_dir / "-".join(filter(None, [asked.recipe.stem, algorithm, f"seed{seed}"]))
        chosen = [f"name={run.name}", f"runs_dir={run.parent}", f"seed={seed}", *asked.overrides]
        done = carry_out(["run", str(asked.recipe), *chosen], run, deadline)
        if run.is_dir():  # time may be up before there is one
            found = json.loads(baton("report", str(run), "--json"))
            config = json.loads(baton("config", str(asked.recipe), *chosen, "--json"))
            rows.append(row(asked.recipe.stem, found, config))
            print(rows[-1])
        if not done:
            print(f"{asked.minutes:g} minutes are over: the same command goes on from {run}")
            return TO_BE_CONTINUED
    text = entry(given, rows, found["simulator"])
    print(f"\n{HEAD}{text}")
    if asked.table is not None:
        put(asked.table, given, text)
    return 0


def seeds(text: str) -> list[int]:
    """Whole numbers between commas."""
    return [int(number) for number in text.split(",")]


def carry_out(command: list[str], run: Path, deadline: float) -> bool:
    """Carry a run out, or on; returns whether it is done, False when time is up.

    The units are stopped then: what is not published by that time is done again.
    """
    process = subprocess.Popen([*BATON, *command], cwd=Path.cwd(), env=environment())
    try:
        status = process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        process.wait()
        if run.is_dir():
            baton("cancel", str(run))
        return False
    if status:
        sys.exit(f"`baton {shlex.join(command)}` ended with status {status}")
    return True


def row(recipe: str, found: dict[str, Any], config: dict[str, Any]) -> str:
    """The row of a run, from what `baton report --json` says; half a run has half a row."""
    gain = found["gain"]
    curve = " → ".join(f"{100 * success:.0f}" for success in found["success_by_epoch"].values())
    cells = [
        recipe,
        config["algorithm"]["name"],
        str(config["seed"]),
        rate(found["warm_start"]),
        rate(found["rl"]),
        "" if gain is None else f"{100 * gain['value']:+.1f} [{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}]",
        str((found["rl"] or found["warm_start"] or {"episodes": ""})["episodes"]),
        curve,
        ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in found["seconds"].items()),
        f"{found['gpu_hours']:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def rate(found: dict[str, Any] | None) -> str:
    """Success with its 95 % interval, in percent."""
    if found is None:
        return ""
    return f"{100 * found['success']:.1f} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"


def entry(given: str, rows: list[str], simulator: dict[str, str]) -> str:
    """The rows of a command, and where they come from."""
    source = f"`python tests/benchmarks/results_table.py {given}`, {simulator['name']} {simulator['version']}"
    return "\n".join([*rows, "", f"({source}, {time.strftime('%Y-%m-%d')}; in brackets 95 % intervals)", ""])


def put(table: Path, given: str, text: str) -> None:
    """Put the rows of a command into a table file, in place of its earlier ones."""
    parts = table.read_text().split(HEAD) if table.exists() else []
    others = [part.strip("\n") for part in parts if part.strip() and f"results_table.py {given}`" not in part]
    table.write_text("\n".join(f"{HEAD}{part}\n" for part in [*others, text.strip("\n")]))


def baton(*arguments: str) -> str:
    """What a command of Baton prints."""
    done = subprocess.run([*BATON, *arguments], capture_output=True, text=True, env=environment())
    if done.returncode:
        sys.exit(f"`baton {shlex.join(arguments)}` ended with status {done.returncode}: {done.stderr}")
    return done.stdout


def environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


if __name__ == "__main__":
    sys.exit(main())
