"""Tables for the terminal: what a run will do, what it came to, and what a robot can be asked to do."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, RenderableType
from rich.console import Group as Lines
from rich.table import Table
from rich.text import Text

from pipeline.artifacts import STAGES, write_synced
from pipeline.config import Config
from pipeline.dry_run import DryRun
from pipeline.plan import UnitPlan
from pipeline.report.quantities import duration
from pipeline.report.results import Rate, Result, write_result
from pipeline.tasks import Task, by_suite

TABLE = "result.txt"
WIDTH = 80
PLAN_EPOCHS_SHOWN = 3  # the first ones, and the last


def plan_table(config: Config, plans: Sequence[UnitPlan]) -> RenderableType:
    """What a run will do: its units by epoch and stage, what each waits for and takes of a machine.

    Args:
        config: the run's config.
        plans: its units.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    headings = ["epoch", "stage", "units", "processes x threads", "simulators", "cores", "needs"]
    gpus = any(plan.share.gpus for plan in plans)
    if gpus:
        headings.insert(6, "nodes x GPUs")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("stage", "needs") else "right")
    grouped: dict[tuple[int, str], list[UnitPlan]] = defaultdict(list)
    for plan in plans:
        grouped[plan.unit.epoch, plan.unit.stage].append(plan)
    skipped = range(PLAN_EPOCHS_SHOWN, config.epochs)
    for (epoch, stage), shards in grouped.items():
        if len(skipped) > 1 and epoch in skipped:
            if epoch == skipped[0] and stage == "rollout":
                table.add_row(f"{skipped[0]}-{skipped[-1]}", "and so on")
            continue
        one = shards[0].share
        needs = dict.fromkeys(f"{unit.stage} {unit.epoch}" for plan in shards for unit in plan.needs)
        table.add_row(
            str(epoch),
            stage,
            str(len(shards)),
            f"{one.processes} x {one.threads}",
            str(one.simulator_workers or ""),
            str(one.cores),
            *([f"{one.nodes} x {one.gpus} {one.gpu_type or ''}".strip() if one.gpus else ""] if gpus else []),
            ", ".join(needs),
        )
    return Lines(table, Text(""), Text(f"{len(plans)} units into {Path(config.runs_dir) / config.name}"))


def dry_run_lines(dry: DryRun) -> RenderableType:
    """The placement, the sbatch lines and the cost of a run on Slurm."""
    hours = f"at most {dry.gpu_hours:,.1f} GPU-hours" if dry.gpu_hours else f"at most {dry.core_hours:,.1f} core-hours"
    return Lines(
        *map(Text, dry.placement),
        Text(""),
        Text("memory, a GPU:" if dry.gpu_hours else "memory, a process:"),
        *(Text(f"  {line}") for line in dry.memory),
        Text(""),
        *map(Text, dry.lines),
        Text(f"and so on, epoch by epoch; the scripts of all units lie in {dry.folder}"),
        Text(f"{hours}, if every unit ran to its time limit; a dry run: nothing was submitted"),
    )


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
        lines.append(Text(f"{gain:+.1f} percentage points on {states}"))
        lines.append(Text("in brackets: 95 % Wilson intervals"))
    if result.seconds:
        lines += [Text(""), *_seconds(result), Text("")]
    lines += [Text(line) for line in _places(run, result)]
    return Lines(*lines)


def task_table(simulator: str, listed: Sequence[Task]) -> RenderableType:
    """The tasks of a simulator, suite by suite.

    Args:
        simulator: its name in a config.
        listed: its tasks.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("suite", no_wrap=True)
    table.add_column("index", justify="right")
    table.add_column("task", overflow="fold")
    table.add_column("instruction", overflow="fold")
    for suite, members in by_suite(listed).items():
        for task in members:
            name = Text("" if task.task_index else suite, style="bold")
            table.add_row(name, str(task.task_index), Text(task.task_name), Text(task.task))
    return Lines(Text(f"simulator.name: {simulator}", style="bold"), table)


def _cell(rate: Rate | None) -> Text:
    if rate is None:
        return Text("")
    return Text(f"{100 * rate.success:.1f} % [{100 * rate.low:.1f}, {100 * rate.high:.1f}] of {rate.episodes}")


def _seconds(result: Result) -> list[Text]:
    stages: Sequence[str] = [stage for stage in STAGES if stage in result.seconds]
    each = ", ".join(f"{stage} {result.seconds[stage]:.1f}" for stage in stages)
    return [Text(f"seconds: {each}"), Text(f"from start to end: {duration(result.wall_seconds)}")]


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
