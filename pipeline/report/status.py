"""What `baton status` shows of a run: curves, epochs and stages in a table, open units one by one, and what to do."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.artifacts import Unit
from pipeline.report.curves import curve_table, curves
from pipeline.report.progress import Group, current, groups, seconds_left
from pipeline.report.quantities import duration, percent
from pipeline.report.standing import Overview
from pipeline.report.terminal import trimmed
from pipeline.report.units import COLORS, alike, failure, name_of, said

EPOCHS_SHOWN = 5  # the newest that have begun; older ones share a row where all is published
QUEUED_SHOWN = 2  # the first that only wait in the queue
UNITS_SHOWN = 8  # of one stage in one epoch, one by one
WIDE = 110  # columns from which jobs and nodes fit beside the rest
NARROW = 76  # below it the numbers of attempts and the time in the queue do not fit
LEFT = ("stage", "state", "result", "jobs", "nodes")


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
    run, rows = overview.snapshot.run, groups(overview)
    path, *words = title(run, overview.driver, console.width)
    console.print(path, style="bold", soft_wrap=True)
    console.print(*words, style="bold", end="\n" if words else "")
    if overview.trouble:
        console.print(Text(f"{overview.trouble}; this is what the run directory shows", style="red"))
    for trouble in tracking_lines(overview):
        console.print(trouble)
    console.print(Text(standing_line(overview, rows, time.time())))
    if known := curves(rows, overview.snapshot.config.epochs):
        console.print()
        trimmed(console, curve_table(known, console))
    folds = _Folds() if every else _fold(rows)
    shown = [row for row in rows if row.epoch not in folds.ahead]
    console.print()
    if shown:
        trimmed(console, _table(shown, folds.old, console.width))
    for status, epochs in itertools.groupby(sorted(folds.ahead), folds.ahead.__getitem__):
        console.print(f"{_span(list(epochs))}: {status}")
    first = next((row for row in rows if row.status != "published"), None)  # speaks for the epochs ahead
    telling = [row for row in rows if row is first or row.epoch not in (folds.old | folds.ahead.keys())]
    if lines := list(_open_lines(telling, every)):
        console.print()
        trimmed(console, _open_table(lines))
    failed = [unit.state for unit in overview.units if unit.status == "failed"]
    if failed:
        console.print()
    for state in failed if every else failed[:UNITS_SHOWN]:
        error, *log = failure(run, state)
        console.print(Text(error, style="red"))
        for line in log:
            console.print(Text(line), soft_wrap=True)
    if not every and len(failed) > UNITS_SHOWN:
        console.print(f"and {len(failed) - UNITS_SHOWN} more failed: --all")
    console.print()
    for what, command in advice(overview):
        console.print(Text.assemble((f"{what + ':':<14}", "dim"), command), soft_wrap=True)


def title(run: Path, words: str, width: int) -> list[Text]:
    """The first line of what is shown of a run; two where its path is long, because a path is not broken by choice.

    Args:
        run: its directory.
        words: about it.
        width: columns there are.
    """
    line = f"{run}: {words}"
    return [Text(line)] if len(line) <= width else [Text(f"{run}:"), Text(words)]


def tracking_lines(overview: Overview) -> list[Text]:
    """What is wrong with the trackers of a run; it goes on without them.

    Args:
        overview: the run.
    """
    return [Text(f"tracking: {line}", style="yellow", overflow="fold") for line in overview.tracking]


def standing_line(overview: Overview, rows: Sequence[Group], now: float) -> str:
    """Epoch, units published, and the time left.

    Args:
        overview: the run.
        rows: its groups.
        now: Unix time.
    """
    config, units, group = overview.snapshot.config, overview.units, current(rows)
    done = sum(unit.status == "published" for unit in units)
    if group is None:
        return f"all {len(units)} units are published"
    parts = [f"epoch {group.epoch} of {config.epochs}", f"{done} of {len(units)} units published"]
    if (left := seconds_left(rows, now)) is not None and left >= 1:
        parts.append(f"about {duration(left)} left")
    return ", ".join(parts)


def advice(overview: Overview) -> list[tuple[str, str]]:
    """What one may want to do now, and the command that does it.

    Args:
        overview: the run.
    """
    run, statuses = overview.snapshot.run, {unit.status for unit in overview.units}
    lines = []
    if failed := next((unit.unit for unit in overview.units if unit.status == "failed"), None):
        shard = "" if failed.shard is None else f" --shard {failed.shard}"
        lines.append(("to see why", f"baton logs {run} {failed.stage} --epoch {failed.epoch}{shard}"))
    if "running" in statuses:
        lines.append(("to watch", f"baton logs {run} --follow"))
    if overview.again:
        lines.append(("to continue", overview.again))
    if statuses & {"running", "queued"}:
        lines.append(("to stop", f"baton cancel {run}"))
    if any(unit.status == "published" and unit.unit.stage == "evaluate" for unit in overview.units):
        lines.append(("results", f"baton report {run}"))
    return lines


def _fold(rows: Sequence[Group]) -> _Folds:
    """Decide which epochs are not shown one by one: a run of a thousand must fit on a screen."""
    statuses: dict[int, set[str]] = {}
    for row in rows:
        statuses.setdefault(row.epoch, set()).add(row.status)
    begun, ahead = [], {}
    for epoch, there in statuses.items():
        if there <= {"queued", "waiting"}:
            ahead[epoch] = "queued" if "queued" in there else "waiting"
        else:
            begun.append(epoch)
    for epoch in [epoch for epoch, status in ahead.items() if status == "queued"][:QUEUED_SHOWN]:
        del ahead[epoch]
    return _Folds({epoch for epoch in begun[:-EPOCHS_SHOWN] if statuses[epoch] == {"published"}}, ahead)


def _table(rows: Sequence[Group], old: set[int], width: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    headings = ["epoch", "stage", "state", "done", "attempts", "queued", "ran", "result"]
    headings += ["jobs", "nodes"] if width >= WIDE else []
    headings = [heading for heading in headings if width >= NARROW or heading not in ("attempts", "queued")]
    for heading in headings:
        table.add_column(heading, justify="left" if heading in LEFT else "right", no_wrap=True, overflow="crop")
    for folded, part in itertools.groupby(rows, lambda row: row.epoch in old):
        for cells in [_folded(list(part))] if folded else map(_cells, part):
            table.add_row(*(Text(*cells.get(heading, ("",))) for heading in headings))
    return table


def _folded(rows: Sequence[Group]) -> dict[str, tuple[str, ...]]:
    ends = dict.fromkeys((rows[0].epoch, rows[-1].epoch))
    rates = [rate for row in rows if (rate := row.success) is not None]
    return {
        "epoch": ("-".join(map(str, ends)),),
        "stage": ("all",),
        "state": ("published", COLORS["published"]),
        "done": (str(sum(len(row.units) for row in rows)),),
        "attempts": (str(sum(row.attempts for row in rows)),),
        "result": (f"success {percent(rates[-1])}" if rates else "",),
    }


def _cells(row: Group) -> dict[str, tuple[str, ...]]:
    # A process of this machine has no name that anybody would look for.
    jobs = dict.fromkeys(unit.job.partition("_")[0] for unit in row.units if unit.job and "." not in unit.job)
    result = f"success {percent(row.success)}" if row.success is not None else ""
    if not result and row.loss is not None:
        result = f"loss {row.loss:.4g}"
    return {
        "epoch": (str(row.epoch),),
        "stage": (row.stage,),
        "state": (row.status, COLORS.get(row.status, "")),
        "done": (f"{row.done}/{len(row.units)}",),
        "attempts": (str(row.attempts or ""),),
        "queued": (_clock([unit.queued for unit in row.units]),),
        "ran": (_clock([unit.seconds for unit in row.units]),),
        "result": (result,),
        "jobs": (",".join(jobs),),
        "nodes": (",".join(dict.fromkeys(unit.node for unit in row.units if unit.node)),),
    }


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


def _open_lines(rows: Sequence[Group], every: bool) -> Iterator[tuple[str, str, str]]:
    """Name, state and what there is to say of each unit that is open; those that wait for the same together."""
    for row in rows:
        lines = alike(row)
        for members in lines if every else lines[:UNITS_SHOWN]:
            yield name_of(members), members[0].status, said(members[0])
        if not every and len(lines) > UNITS_SHOWN:
            yield f"{Unit(row.epoch, row.stage)}", "", f"and {len(lines) - UNITS_SHOWN} more: --all"


def _open_table(lines: Sequence[tuple[str, str, str]]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for wrap in (False, False, True):
        table.add_column(no_wrap=not wrap, overflow="fold")
    for name, status, text in lines:
        table.add_row(name, Text(status, style=COLORS.get(status, "")), Text(text))
    return table


def _span(epochs: Sequence[int]) -> str:
    return f"epoch {epochs[0]}" if len(epochs) == 1 else f"epochs {epochs[0]} to {epochs[-1]}"
