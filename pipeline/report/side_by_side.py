"""A comparison of runs for the terminal: runs as columns, as many beside each other as fit."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.report.comparison import Comparison, Contest, Entry
from pipeline.report.difference import PAIRED
from pipeline.report.quantities import duration
from pipeline.report.results import Rate
from pipeline.report.terminal import trimmed

LABELS, COLUMN = 26, 26  # columns of the terminal that the names of rows, and a run, take at least


def show(comparison: Comparison, console: Console) -> None:
    """Print runs side by side, then what differs between their configs, then who is ahead.

    Args:
        comparison: the runs.
        console: where to.
    """
    beside = max(1, (console.width - LABELS) // COLUMN)
    for start in range(0, len(comparison.entries), beside):
        if start:
            console.print()
        trimmed(console, _table(comparison, start, start + beside))
    console.print()
    for task, labels in comparison.tasks.items():
        console.print(Text(f"not the same tasks: {task} only in {', '.join(labels)}"), soft_wrap=True)
    for each in comparison.contests:
        console.print(Text(verdict(each)), soft_wrap=True)


def verdict(contest: Contest) -> str:
    """Who is ahead, in a sentence."""
    of = contest.difference
    if of is None:
        return f"{contest.second} against {contest.first}: {contest.note}"
    sure = "" if of.p_value is None else f", p {'< 0.001' if of.p_value < 0.001 else f'= {of.p_value:.3f}'}"
    how = f"paired on {of.pairs} initial states" if of.method == PAIRED else "not paired"
    note = f"; {contest.note}" if contest.note else ""
    return (
        f"{contest.second} against {contest.first}: {100 * of.value:+.1f} points "
        f"[{100 * of.low:+.1f}, {100 * of.high:+.1f}]{sure}, {how}{note}"
    )


def plain(value: Any) -> str:
    """A value of a config on one line; empty where the config has none there."""
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _table(comparison: Comparison, start: int, end: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", overflow="fold")
    entries = comparison.entries[start:end]
    for entry in entries:
        table.add_column(Text(entry.label), overflow="fold")
    for name, of in (
        ("warm start", lambda entry: _rate(entry.result.warm_start)),
        ("after RL", lambda entry: _rate(entry.result.rl)),
        ("evaluated policy", lambda entry: "" if entry.result.rl is None else str(entry.result.policy_version)),
        ("epochs", lambda entry: f"{entry.epochs} of {entry.config.epochs}"),
        ("training episodes", lambda entry: f"{entry.training_episodes:,}"),
        ("from start to end", lambda entry: duration(entry.result.wall_seconds)),
        ("machine time", _hours),
        ("seed", lambda entry: str(entry.config.seed)),
    ):
        table.add_row(name, *(Text(of(entry)) for entry in entries))
    shown = {key: values for key, values in comparison.differences.items() if key not in ("epochs", "seed")}
    for key, values in shown.items():
        table.add_row(Text(key, style="dim"), *(Text(plain(value)) for value in values[start:end]))
    return table


def _rate(rate: Rate | None) -> str:
    if rate is None:
        return ""
    return f"{100 * rate.success:.1f} % [{100 * rate.low:.1f}, {100 * rate.high:.1f}] of {rate.episodes}"


def _hours(entry: Entry) -> str:
    result = entry.result
    return f"{result.gpu_hours:,.2f} GPU-hours" if result.gpu_hours else f"{result.core_hours:,.2f} core-hours"
