"""The rows of the report's tables: success by suite and task, success over epochs, and where the time went."""

from __future__ import annotations

import dataclasses
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime

from pipeline import jobs
from pipeline.artifacts import STAGES, Artifact, Unit
from pipeline.report.course import Series, by_task
from pipeline.report.html.thinning import thin
from pipeline.report.results import Rate, Result

CELLS = 60  # columns of a heat map
PHASES, LEAST = 6, 0.005  # phases of a stage told apart, and the least share of one that is; the rest is one


@dataclasses.dataclass(frozen=True)
class Row:
    """Success of the warm start and after RL.

    Attributes:
        kind: all, suite or task.
        label: which.
        instruction: of a task, in words; empty where the simulator lists none.
        before: of the warm start.
        after: of the newest evaluated policy.
    """

    kind: str
    label: str
    instruction: str
    before: Rate | None
    after: Rate | None

    @property
    def gain(self) -> float | None:
        """Difference of the two, a fraction."""
        return self.after.success - self.before.success if self.before and self.after else None


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a heat map: the epochs it stands for, and the mean success in them; None: nothing is known."""

    span: str
    value: float | None


@dataclasses.dataclass(frozen=True)
class Heat:
    """Success by task over epochs.

    Attributes:
        title: what is counted.
        rows: task -> its cells, first to last epoch.
        each: epochs a cell stands for.
        first: first epoch.
        last: last epoch.
    """

    title: str
    rows: dict[str, tuple[Cell, ...]]
    each: int
    first: int
    last: int


@dataclasses.dataclass(frozen=True)
class StageTime:
    """Where the time of a stage went.

    Attributes:
        stage: which.
        units: published ones.
        seconds: of all its units, which may have run side by side.
        median: of a unit.
        phases: name -> share of `seconds`, the longest first; what no phase accounts for is `other`.
        queue: median and longest wait in the queue, seconds; None where no launcher told.
    """

    stage: str
    units: int
    seconds: float
    median: float
    phases: dict[str, float]
    queue: tuple[float, float] | None


def success_rows(
    result: Result, order: Sequence[str], suites: Mapping[str, str], instructions: Mapping[str, str]
) -> list[Row]:
    """Each suite followed by its tasks, then tasks of no suite, then all tasks together.

    Args:
        result: of the run.
        order: tasks as the config has them; others come after them.
        suites: task -> suite.
        instructions: task -> what the policy is told.
    """
    before, after = result.warm_start, result.rl
    shown = [evaluation for evaluation in (before, after) if evaluation is not None]
    if not shown:
        return []

    def row(kind: str, label: str) -> Row:
        rates = [
            None if evaluation is None else (evaluation.suites if kind == "suite" else evaluation.tasks).get(label)
            for evaluation in (before, after)
        ]
        return Row(kind, label, instructions.get(label, "") if kind == "task" else "", rates[0], rates[1])

    rows = []
    evaluated = sorted({task for evaluation in shown for task in evaluation.tasks})
    tasks = sorted(evaluated, key=lambda task: order.index(task) if task in order else len(order))
    named = dict.fromkeys(suites[task] for task in tasks if task in suites)
    several = len({suites.get(task) for task in tasks}) > 1
    for suite in [*named, None]:
        members = [task for task in tasks if suites.get(task) == suite]
        if suite is not None and several:
            rows.append(row("suite", suite))
        rows += [row("task", task) for task in members]
    return rows if len(tasks) == 1 else [*rows, Row("all", "All tasks", "", before, after)]


def heat_map(title: str, metrics: Mapping[str, Series], prefix: str, order: Sequence[str]) -> Heat | None:
    """Success by task over epochs; None where there are no two tasks and two epochs.

    Args:
        title: what is counted.
        metrics: of a stage, as `course` has them.
        prefix: of the metrics of single tasks, e.g. `rollout/success_rate`.
        order: tasks as the config has them; others come after them.
    """
    tasks = by_task(metrics, prefix)
    epochs = sorted({epoch for series in tasks.values() for epoch in series})
    if len(tasks) < 2 or len(epochs) < 2:
        return None
    grid = thin({index: 0.0 for index in range(len(epochs))}, CELLS).each
    bins = [epochs[start : start + grid] for start in range(0, len(epochs), grid)]
    rows = {}
    for task in sorted(tasks, key=lambda task: order.index(task) if task in order else len(order)):
        series = tasks[task]
        cells = []
        for one in bins:
            known = [series[epoch] for epoch in one if epoch in series]
            span = f"{one[0]:g}" if len(one) == 1 else f"{one[0]:g}-{one[-1]:g}"
            cells.append(Cell(span, sum(known) / len(known) if known else None))
        rows[task] = tuple(cells)
    return Heat(title, rows, grid, int(epochs[0]), int(epochs[-1]))


def stage_times(artifacts: Mapping[Unit, Artifact], ends: list[jobs.Record]) -> list[StageTime]:
    """Where the time of each stage went, in the order of the stages.

    Args:
        artifacts: the published units.
        ends: of attempts, which know how long they were queued.
    """
    queued: dict[str, list[float]] = defaultdict(list)
    for record in ends:
        if record.queued is not None:
            queued[Unit.parse(record.unit).stage].append(record.queued)
    rows = []
    for stage in STAGES:
        spent = [artifact.manifest.seconds for unit, artifact in artifacts.items() if unit.stage == stage]
        if not spent:
            continue
        totals, phases = [one["total"] for one in spent], defaultdict[str, float](float)
        for one in spent:
            for phase, seconds in one.items():
                if phase != "total":
                    phases[phase] += seconds
        whole = sum(totals)
        told = [phase for phase in phases if phases[phase] >= LEAST * whole]
        longest = sorted(told, key=lambda name: (-phases[name], name))[:PHASES]
        shares = {phase: phases[phase] / whole for phase in longest} if whole else {}
        if (rest := 1 - sum(shares.values())) >= LEAST:
            shares["other"] = rest
        waits = queued[stage]
        queue = (statistics.median(waits), max(waits)) if waits else None
        rows.append(StageTime(stage, len(spent), whole, statistics.median(totals), shares, queue))
    return rows


def spans(artifacts: Mapping[Unit, Artifact]) -> dict[str, Series]:
    """Seconds by stage and epoch from the start of its first unit to the publishing of its last."""
    times: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for unit, artifact in artifacts.items():
        times[unit.stage, unit.epoch].append(_times(artifact))
    found: dict[str, Series] = defaultdict(dict)
    for (stage, epoch), units in times.items():
        found[stage][epoch] = max(end for _, end in units) - min(begin for begin, _ in units)
    return {stage: found[stage] for stage in STAGES if stage in found}


def busy_seconds(artifacts: Mapping[Unit, Artifact]) -> float:
    """Seconds in which at least one unit that was published was at work."""
    busy, until = 0.0, float("-inf")
    for begin, end in sorted(map(_times, artifacts.values())):
        busy += max(0.0, end - max(begin, until))
        until = max(until, end)
    return busy


def _times(artifact: Artifact) -> tuple[float, float]:
    manifest = artifact.manifest
    begin, end = (datetime.fromisoformat(text).timestamp() for text in (manifest.started, manifest.published))
    return begin, end
