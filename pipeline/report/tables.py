"""Tables for the terminal: what a run will do, how far it is, and what it came to."""

from __future__ import annotations

import dataclasses
import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.console import Group as Lines
from rich.table import Table
from rich.text import Text

from pipeline.artifacts import STAGES, attempt_directory, write_synced
from pipeline.config import Config
from pipeline.ledger import Snapshot, UnitState
from pipeline.plan import UnitPlan
from pipeline.report import progress
from pipeline.report.progress import duration, percent
from pipeline.report.results import Rate, Result, write_result

TABLE = "result.txt"
WIDTH = 100
LOGS = ("*_log.out", "log.txt", "*_log.err")


def status_table(snapshot: Snapshot) -> RenderableType:
    """Stages by epoch with shards, attempts, seconds and success; below, what failed and where its log lies.

    Epochs in which nothing has begun share one line.
    """
    groups = progress.groups(snapshot)
    begun = [group for group in groups if group.status != "waiting"]
    ahead = sorted({group.epoch for group in groups} - {group.epoch for group in begun})
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("epoch", "stage", "state", "done", "attempts", "seconds", "success"):
        table.add_column(heading, justify="left" if heading in ("stage", "state") else "right", no_wrap=True)
    for group in groups:
        if group.epoch in ahead:
            continue
        table.add_row(
            str(group.epoch),
            group.stage,
            Text(group.status, style={"failed": "red", "running": "cyan", "published": "green"}.get(group.status, "")),
            f"{group.done}/{len(group.units)}",
            str(group.attempts or ""),
            f"{group.seconds:.1f}" if group.seconds else "",
            percent(group.success),
        )
    driver = f"driven by {snapshot.driver}" if snapshot.driver else "nobody drives it"
    lines: list[RenderableType] = [Text(f"{snapshot.run}: {driver}", style="bold"), table]
    if ahead:
        # One line, because a run of a hundred epochs has a hundred of these.
        span = f"epoch {ahead[0]}" if len(ahead) == 1 else f"epochs {ahead[0]} to {ahead[-1]}"
        lines.append(Text(f"{span}: waiting"))
    for state in snapshot.units:
        if state.status == "failed":
            lines += [Text(line) for line in failure(snapshot.run, state)]
    return Lines(*lines)


def failure(run: Path, state: UnitState) -> list[str]:
    """A failed unit in two lines: its error, and where to read on."""
    first = f"{state.unit} failed after {state.attempts} attempts: {state.error or 'it left no error line'}"
    if state.attempt is None:
        return [first]
    return [first, f"  log: {log_path(attempt_directory(run, state.unit, state.attempt))}"]


def log_path(attempt: Path) -> Path:
    """The file with what an attempt printed, or its directory where there is none (yet)."""
    return next((path for pattern in LOGS for path in sorted(attempt.glob(pattern))), attempt)


def status_json(snapshot: Snapshot) -> dict[str, Any]:
    """What `status_table` shows and more, for programs: a record for every unit."""
    units = [{**dataclasses.asdict(state), "unit": str(state.unit)} for state in snapshot.units]
    for record, state in zip(units, snapshot.units, strict=True):
        record |= {"epoch": state.unit.epoch, "stage": state.unit.stage, "shard": state.unit.shard}
    return {"run": str(snapshot.run), "driver": snapshot.driver, "units": units}


def plan_table(config: Config, plans: Sequence[UnitPlan], cores: int) -> RenderableType:
    """What a run will do: its units by epoch and stage, what each waits for and takes of the machine.

    Args:
        config: the run's config.
        plans: its units.
        cores: cores of this machine.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("epoch", "stage", "units", "processes x threads", "simulators", "cores", "needs"):
        table.add_column(heading, justify="left" if heading in ("stage", "needs") else "right")
    grouped: dict[tuple[int, str], list[UnitPlan]] = defaultdict(list)
    for plan in plans:
        grouped[plan.unit.epoch, plan.unit.stage].append(plan)
    for (epoch, stage), shards in grouped.items():
        one = shards[0]
        needs = dict.fromkeys(f"{unit.stage} {unit.epoch}" for plan in shards for unit in plan.needs)
        table.add_row(
            str(epoch),
            stage,
            str(len(shards)),
            f"{one.processes} x {one.threads}",
            str(one.simulator_workers or ""),
            str(one.cores),
            ", ".join(needs),
        )
    directory = Path(config.runs_dir) / config.name
    total = f"{len(plans)} units into {directory} on {cores} cores; a dry run: nothing was written"
    return Lines(table, Text(""), Text(total))


def write_report(run: Path) -> None:
    """Write a run's result as `result.json` and, for people, as `result.txt`."""
    result = write_result(run)
    text = io.StringIO()
    Console(file=text, width=WIDTH).print(final_table(run, result), soft_wrap=True)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    write_synced(run / TABLE, ("\n".join(lines) + "\n").encode())


def final_table(run: Path, result: Result) -> RenderableType:
    """Success of warm start and RL policy with intervals, seconds by stage, and where everything lies."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("success", overflow="fold")
    columns = [("warm start", result.warm_start), (f"after RL, epoch {result.policy_version}", result.rl)]
    shown = [(heading, evaluation) for heading, evaluation in columns if evaluation is not None]
    for heading, _ in shown:
        table.add_column(heading, justify="right")
    for task in sorted({task for _, evaluation in shown for task in evaluation.tasks}):
        table.add_row(Text(task), *(_cell(evaluation.tasks.get(task)) for _, evaluation in shown))
    table.add_row(Text("all tasks"), *(_cell(evaluation) for _, evaluation in shown), style="bold")
    lines: list[RenderableType] = [table if shown else Text("nothing is evaluated yet"), Text("")]
    if result.warm_start and result.rl:
        gain = 100 * (result.rl.success - result.warm_start.success)
        states = "the same held-out initial states" if result.same_initial_states else "DIFFERENT initial states"
        lines.append(Text(f"{gain:+.1f} percentage points on {states}; in brackets 95 % Wilson intervals"))
    if result.seconds:
        lines += [Text(""), _seconds(result), Text("")]
    lines += [Text(line) for line in _places(run, result)]
    return Lines(*lines)


def _cell(rate: Rate | None) -> Text:
    if rate is None:
        return Text("")
    return Text(f"{100 * rate.success:.1f} % [{100 * rate.low:.1f}, {100 * rate.high:.1f}] of {rate.episodes}")


def _seconds(result: Result) -> Text:
    stages: Sequence[str] = [stage for stage in STAGES if stage in result.seconds]
    each = ", ".join(f"{stage} {result.seconds[stage]:.1f}" for stage in stages)
    return Text(f"seconds: {each}; from start to end {duration(result.wall_seconds)}")


def _policy(result: Result) -> str | None:
    return None if result.policy_version is None else f"policies/{result.policy_version:04d}"


def _places(run: Path, result: Result) -> list[str]:
    folders = sorted({str((run / video).parent) for video in result.videos})
    return [
        *(f"simulator: {s['name']} {s['version']}, rendered by {s['renderer']}" for s in [result.simulator] if s),
        f"results:   {run / 'result.json'}",
        *(f"evaluated: {run / path}" for path in result.evaluations),
        *(f"videos:    {folder}" for folder in folders),
        *(f"policy:    {run / path}" for path in [_policy(result)] if path),
        f"watch:     baton ui {run}",
    ]
