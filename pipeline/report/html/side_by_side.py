"""Makes the page that shows runs side by side: their results, their curves over each other, what differs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline import tasks
from pipeline.report.comparison import Comparison, Entry
from pipeline.report.course import Series
from pipeline.report.html.drawings import CURVES, SMALL, Drawing, rate_line, wide_drawing
from pipeline.report.html.page import render
from pipeline.report.html.plots import SERIES, Line, Plot, curves
from pipeline.report.html.thinning import rule, thin
from pipeline.report.results import Rate
from pipeline.report.side_by_side import verdict
from pipeline.shards import EPISODES


def write(comparison: Comparison, target: Path) -> None:
    """Write the page of a comparison.

    Args:
        comparison: the runs.
        target: the HTML file, written whole or not at all.
    """
    entries = comparison.entries
    instructions = {
        task.task_name: task.task
        for name in dict.fromkeys(entry.config.simulator.name for entry in entries)
        for task in tasks.catalogue(name) or ()
    }
    newest = [entry.result.rl or entry.result.warm_start for entry in entries]
    names = sorted({task for evaluation in newest if evaluation for task in evaluation.tasks})
    rows: list[tuple[str, str, list[Rate | None]]] = [
        (task, instructions.get(task, ""), [one.tasks.get(task) if one else None for one in newest]) for task in names
    ]
    if len(names) > 1:
        rows.append(("All tasks of the run" if comparison.tasks else "All tasks", "", list(newest)))
    context = {
        "entries": entries,
        "colors": [index % len(SERIES) for index in range(len(entries))],
        "verdicts": [verdict(contest) for contest in comparison.contests],
        "differences": comparison.differences,
        "uneven": comparison.tasks,
        "rows": rows,
        "success": _success(entries),
        "curves": _curves(entries),
    }
    render("compare.html.jinja", target, context)


def _success(entries: Sequence[Entry]) -> list[Drawing]:
    evaluations = [
        rate_line(entry.label, entry.result.success_by_epoch, entry.result.episodes_by_epoch, index)
        for index, entry in enumerate(entries)
    ]
    success = "rollout/success_rate"
    rollouts = [
        rate_line(entry.label, _series(entry, "rollout", success), _series(entry, "rollout", EPISODES), index)
        for index, entry in enumerate(entries)
    ]
    drawings = [
        wide_drawing("evaluations", "Success of evaluations", "env/success_rate", evaluations, percent=True),
        wide_drawing("rollouts", "Success of rollouts in training", success, rollouts, percent=True),
    ]
    return [drawing for drawing in drawings if drawing is not None]


def _curves(entries: Sequence[Entry]) -> list[Drawing]:
    drawings = []
    for number, (stage, metric, title, share) in enumerate(CURVES):
        series = [thin(_series(entry, stage, metric)) for entry in entries]
        lines = tuple(
            Line(entry.label, points, index)
            for index, (entry, points) in enumerate(zip(entries, series, strict=True))
            if points
        )
        if lines:
            each = max(points.each for points in series)
            notes = (rule(each, "epochs"),) if each > 1 else ()
            plot = Plot(f"curve{number}", title, lines, share)
            drawings.append(Drawing(title, metric, curves(plot, *SMALL), notes=notes))
    return drawings


def _series(entry: Entry, stage: str, metric: str) -> Series:
    return entry.measured.get(stage, {}).get(metric, {})
