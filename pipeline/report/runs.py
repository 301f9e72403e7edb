"""The runs of a directory at a glance: state, epoch, success and age of each."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline import ledger, rundir
from pipeline.errors import UserError
from pipeline.report import progress
from pipeline.report.curves import bars_of
from pipeline.report.quantities import percent
from pipeline.report.sparkline import sparkline
from pipeline.report.standing import watched
from pipeline.report.terminal import trimmed

State = Literal["finished", "driven", "open", "failed", "stopped", "unreadable"]
STYLES: dict[State, str] = {
    "finished": "green",
    "driven": "cyan",
    "open": "yellow",
    "failed": "red",
    "unreadable": "red",
}
CURVE = 12  # columns


@dataclasses.dataclass(frozen=True)
class Glance:
    """A run in a line.

    Attributes:
        run: its directory.
        state: `finished`; `driven` by a process; `open`: nobody drives it here, but jobs of it may be queued or run;
            `failed`: a unit needs its user; `stopped`; `unreadable`: `trouble` says why.
        epoch: that it is at; None where it cannot be read.
        epochs: its last.
        success: of the newest evaluation; None before the first.
        successes: of every evaluation, oldest first.
        changed: Unix time at which its last unit was submitted, ended or published, or it was made.
        trouble: why it cannot be read.
    """

    run: Path
    state: State
    epoch: int | None = None
    epochs: int | None = None
    success: float | None = None
    successes: tuple[float, ...] = ()
    changed: float | None = None
    trouble: str | None = None


def runs_of(folder: Path) -> list[Path]:
    """The run directories in a directory, by name."""
    return sorted(path.parent for path in folder.glob(f"*/{rundir.CONFIG}") if (path.parent / "run.json").exists())


def glance(run: Path) -> Glance:
    """Look at a run; no scheduler is asked.

    Args:
        run: the run directory.
    """
    try:
        snapshot = ledger.read(run)
        groups = progress.groups(watched(snapshot))
    except UserError as error:
        return Glance(run, "unreadable", changed=_changed(run), trouble=str(error).splitlines()[0])
    group, statuses = progress.current(groups), {state.status for state in snapshot.units}
    rates = [rate for each in groups if each.stage == "evaluate" and (rate := each.success) is not None]
    state: State = "stopped"
    if statuses == {"published"}:
        state = "finished"
    elif snapshot.driver:
        state = "driven"
    elif "failed" in statuses:
        state = "failed"
    elif "running" in statuses:
        state = "open"
    return Glance(
        run,
        state,
        group.epoch if group else snapshot.config.epochs,
        snapshot.config.epochs,
        rates[-1] if rates else None,
        tuple(rates),
        _changed(run),
    )


def runs_table(glances: Sequence[Glance], console: Console) -> None:
    """Print a line for each run, and what is wrong with those that cannot be read.

    Args:
        glances: of the runs.
        console: where to.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("run", overflow="fold")
    for heading in ("state", "epoch", "success", "evaluations", "changed"):
        table.add_column(heading, justify="left" if heading in ("state", "evaluations") else "right", no_wrap=True)
    for one in glances:
        epoch = "" if one.epoch is None else f"{one.epoch}/{one.epochs}"
        curve = sparkline(one.successes, CURVE, low=0.0, high=1.0, bars=bars_of(console))
        table.add_row(
            Text(one.run.name),
            Text(one.state, style=STYLES.get(one.state, "")),
            epoch,
            percent(one.success),
            Text(curve, style="green"),
            "" if one.changed is None else age(time.time() - one.changed),
        )
    trimmed(console, table)
    for one in glances:
        if one.trouble:
            console.print(Text(one.trouble, style="red"), soft_wrap=True)


def age(seconds: float) -> str:
    """How long ago: 12 s, 5 min, 3 h, 4 d."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _changed(run: Path) -> float | None:
    times = [path.stat().st_mtime for name in ("jobs.jsonl", "run.json") if (path := run / name).exists()]
    return max(times, default=None)
