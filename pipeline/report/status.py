"""What `baton status` shows: epochs and stages in a table, open units one by one, and the whole for programs."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.artifacts import Unit, attempt_directory
from pipeline.failures import log_path
from pipeline.ledger import UnitState
from pipeline.report.progress import SUCCESS, Group, duration, groups, percent
from pipeline.report.standing import Overview, Standing, job_name

EPOCHS_SHOWN = 5  # the newest that have begun; older ones share a row where all is published
QUEUED_SHOWN = 2  # the first that only wait in the queue
UNITS_SHOWN = 8  # of one stage in one epoch, one by one
METRICS_SHOWN = 3
WIDE = 110  # columns from which jobs and nodes fit beside the rest
COLORS = {"failed": "red", "running": "cyan", "queued": "yellow", "published": "green"}
LEFT = ("stage", "state", "result", "jobs", "nodes")


@dataclasses.dataclass(frozen=True)
class _Row:
    """Units of one stage in one epoch."""

    group: Group
    units: tuple[Standing, ...]

    @property
    def status(self) -> str:
        """What matters most of its units."""
        there = {unit.status for unit in self.units}
        for status in ("failed", "running", "queued"):
            if status in there:
                return status
        return "published" if there == {"published"} else "begun" if "published" in there else "waiting"

    @property
    def result(self) -> str:
        """Success, or loss where that is what the stage lowers."""
        if self.group.success is not None:
            return f"success {percent(self.group.success)}"
        metrics = [unit.state.metrics or (unit.state.progress or {}).get("metrics", {}) for unit in self.units]
        losses = [one["actor/loss"] for one in metrics if one.get("actor/loss") is not None]
        return f"loss {losses[-1]:.4g}" if losses else ""


@dataclasses.dataclass(frozen=True)
class _Folds:
    """Epochs that are not shown one by one: all published, and with what they will begin with, not begun."""

    old: set[int] = dataclasses.field(default_factory=set)
    ahead: dict[int, str] = dataclasses.field(default_factory=dict)


def show(overview: Overview, console: Console, *, every: bool = False) -> None:
    """Print how far a run is.

    Args:
        overview: the run.
        console: where to.
        every: show each epoch and each unit.
    """
    run, rows = overview.snapshot.run, _rows(overview)
    console.print(Text(f"{run}: {overview.driver}", style="bold"), soft_wrap=True)
    if overview.trouble:
        console.print(Text(f"{overview.trouble}; this is what the run directory shows", style="red"), soft_wrap=True)
    folds = _Folds() if every else _fold(rows)
    shown = [row for row in rows if row.group.epoch not in folds.ahead]
    if shown:
        console.print(_table(shown, folds.old, console.width >= WIDE))
    for status, epochs in itertools.groupby(sorted(folds.ahead), folds.ahead.__getitem__):
        console.print(f"{_span(list(epochs))}: {status}")
    first = next((row for row in rows if row.status != "published"), None)  # speaks for the epochs ahead
    telling = [row for row in rows if row is first or row.group.epoch not in (folds.old | folds.ahead.keys())]
    if lines := list(_open_lines(telling, every)):
        console.print()
        console.print(_open_table(lines))
    failed = [unit.state for unit in overview.units if unit.status == "failed"]
    for state in failed if every else failed[:UNITS_SHOWN]:
        for line in failure(run, state):
            console.print(Text(line), soft_wrap=True)
    if not every and len(failed) > UNITS_SHOWN:
        console.print(f"and {len(failed) - UNITS_SHOWN} more failed: --all")


def failure(run: Path, state: UnitState) -> list[str]:
    """A failed unit in two lines: its error, and where to read on."""
    first = f"{state.unit} failed after {state.attempts} attempts: {state.error or 'it left no error line'}"
    if state.attempt is None:
        return [first]
    return [first, f"  log: {log_path(attempt_directory(run, state.unit, state.attempt))}"]


def status_json(overview: Overview) -> dict[str, Any]:
    """What `show` prints and more, for programs: a record for every unit."""
    return {
        "run": str(overview.snapshot.run),
        "driver": overview.snapshot.driver,
        "summary": overview.driver,
        "trouble": overview.trouble,
        "units": [_record(unit) for unit in overview.units],
    }


def _record(standing: Standing) -> dict[str, Any]:
    state, unit = standing.state, standing.unit
    return {
        "unit": str(unit),
        "epoch": unit.epoch,
        "stage": unit.stage,
        "shard": unit.shard,
        "status": standing.status,
        "attempt": state.attempt,
        "attempts": state.attempts,
        "job": standing.job,
        "node": standing.node,
        "started": state.started,
        "queued": standing.queued,
        "seconds": standing.seconds,
        "why": standing.why,
        "starts_at": standing.starts_at,
        "metrics": state.metrics,
        "progress": state.progress,
        "error": state.error,
    }


def _rows(overview: Overview) -> list[_Row]:
    by_group: dict[tuple[int, str], list[Standing]] = {}
    for unit in overview.units:
        by_group.setdefault((unit.unit.epoch, unit.unit.stage), []).append(unit)
    return [_Row(group, tuple(by_group[group.epoch, group.stage])) for group in groups(overview.snapshot)]


def _fold(rows: Sequence[_Row]) -> _Folds:
    """Decide which epochs are not shown one by one: a run of a thousand must fit on a screen."""
    statuses: dict[int, set[str]] = {}
    for row in rows:
        statuses.setdefault(row.group.epoch, set()).add(row.status)
    begun, ahead = [], {}
    for epoch, there in statuses.items():
        if there <= {"queued", "waiting"}:
            ahead[epoch] = "queued" if "queued" in there else "waiting"
        else:
            begun.append(epoch)
    for epoch in [epoch for epoch, status in ahead.items() if status == "queued"][:QUEUED_SHOWN]:
        del ahead[epoch]
    return _Folds({epoch for epoch in begun[:-EPOCHS_SHOWN] if statuses[epoch] == {"published"}}, ahead)


def _table(rows: Sequence[_Row], old: set[int], wide: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    headings = ["epoch", "stage", "state", "done", "attempts", "queued", "ran", "result"]
    for heading in [*headings, *(["jobs", "nodes"] if wide else [])]:
        table.add_column(heading, justify="left" if heading in LEFT else "right", no_wrap=True)
    for folded, part in itertools.groupby(rows, lambda row: row.group.epoch in old):
        if folded:
            table.add_row(*_folded(list(part)))
            continue
        for row in part:
            table.add_row(*_cells(row), *(_places(row) if wide else []))
    return table


def _folded(rows: Sequence[_Row]) -> list[Text]:
    ends = dict.fromkeys((rows[0].group.epoch, rows[-1].group.epoch))
    units, rates = sum(len(row.units) for row in rows), [r for row in rows if (r := row.group.success) is not None]
    return [
        Text("-".join(map(str, ends))),
        Text("all"),
        Text("published", style=COLORS["published"]),
        Text(str(units)),
        Text(str(sum(row.group.attempts for row in rows))),
        Text(""),
        Text(""),
        Text(f"success {percent(rates[-1])}" if rates else ""),
    ]


def _cells(row: _Row) -> list[Text]:
    return [
        Text(str(row.group.epoch)),
        Text(row.group.stage),
        Text(row.status, style=COLORS.get(row.status, "")),
        Text(f"{row.group.done}/{len(row.units)}"),
        Text(str(row.group.attempts or "")),
        Text(_clock([unit.queued for unit in row.units])),
        Text(_clock([unit.seconds for unit in row.units])),
        Text(row.result),
    ]


def _places(row: _Row) -> list[Text]:
    names = dict.fromkeys(unit.job.partition("_")[0] for unit in row.units if unit.job)
    jobs = [job_name(job).removeprefix("job ") for job in names]
    nodes = dict.fromkeys(unit.node for unit in row.units if unit.node)
    return [Text(",".join(jobs)), Text(",".join(nodes))]


def _clock(seconds: Sequence[float | None]) -> str:
    """The longest time, as Slurm writes it: 0:42, 2:05:00, 1-02:05:00."""
    known = [each for each in seconds if each is not None]
    if not known:
        return ""
    minutes, rest = divmod(round(max(0.0, *known)), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d}"
    days, hours = divmod(minutes // 60, 24)
    return (f"{days}-{hours:02d}" if days else f"{hours}") + f":{minutes % 60:02d}:{rest:02d}"


def _open_lines(rows: Sequence[_Row], every: bool) -> Iterator[tuple[str, str, str]]:
    """Name, state and what there is to say of each unit that is open; those that wait for the same together."""
    for row in rows:
        units = [unit for unit in row.units if unit.status not in ("published", "failed")]
        # Those with a job have more to say than what they wait for.
        told = ((unit.why if unit.status == "waiting" else unit.unit, unit) for unit in units)
        lines = [[unit for _, unit in group] for _, group in itertools.groupby(told, lambda pair: pair[0])]
        for members in lines if every else lines[:UNITS_SHOWN]:
            yield _name(members), members[0].status, _said(members[0])
        if not every and len(lines) > UNITS_SHOWN:
            yield f"{Unit(row.group.epoch, row.group.stage)}", "", f"and {len(lines) - UNITS_SHOWN} more: --all"


def _open_table(lines: Sequence[tuple[str, str, str]]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for wrap in (False, False, True):
        table.add_column(no_wrap=not wrap, overflow="fold")
    for name, status, text in lines:
        table.add_row(name, Text(status, style=COLORS.get(status, "")), Text(text))
    return table


def _name(members: Sequence[Standing]) -> str:
    first = members[0].unit
    return str(first) if len(members) == 1 else f"{dataclasses.replace(first, shard=None)} x {len(members)}"


def _said(standing: Standing) -> str:
    state, parts = standing.state, []
    if standing.status == "waiting":
        return standing.why
    if standing.job:
        place = f"{job_name(standing.job)} on {standing.node}" if standing.node else job_name(standing.job)
        since = standing.seconds if standing.status == "running" else standing.queued
        parts.append(place + (f" for {duration(since)}" if since is not None else ""))
    if state.attempts > 1:
        parts.append(f"attempt {state.attempt}")
    if standing.status == "running" and state.progress:
        parts += [f"{state.progress['done']}/{state.progress['total']}", *_metrics(state.progress["metrics"])]
    if standing.starts_at and standing.starts_at > time.time():
        parts.append(f"expected to start {_moment(standing.starts_at)}")
    return ": ".join(filter(None, (", ".join(parts), standing.why)))


def _metrics(metrics: dict[str, float | None]) -> list[str]:
    known = {name: value for name, value in metrics.items() if value is not None}
    return [
        f"success {percent(value)}" if name in SUCCESS else f"{name.rpartition('/')[2]} {value:.4g}"
        for name, value in list(known.items())[:METRICS_SHOWN]
    ]


def _moment(unix: float) -> str:
    moment = datetime.datetime.fromtimestamp(unix)
    today = moment.date() == datetime.date.today()
    return moment.strftime("at %H:%M" if today else "on %b %d at %H:%M")


def _span(epochs: Sequence[int]) -> str:
    return f"epoch {epochs[0]}" if len(epochs) == 1 else f"epochs {epochs[0]} to {epochs[-1]}"
