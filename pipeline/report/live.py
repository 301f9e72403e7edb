"""The view of a run while it is driven: drawn in place on a terminal, a line a change elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from types import TracebackType

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.artifacts import Unit
from pipeline.ledger import Snapshot
from pipeline.report import progress, steps
from pipeline.report.curves import bars_of, curve_table, curves
from pipeline.report.progress import Group
from pipeline.report.quantities import duration, percent
from pipeline.report.sparkline import sparkline
from pipeline.report.standing import Overview, Standing, watched
from pipeline.report.status import standing_line, title, tracking_lines
from pipeline.report.units import COLORS, alike, failure, metric_words, name_of, said

PLAIN_PAUSE = 3.0
UNITS_SHOWN = 6  # of one stage in one epoch, one by one
FAILURES_SHOWN = 3
NEXT_SHOWN = 2  # groups that wait
STEPS_SHOWN = 10  # columns of the sparkline of a unit's steps
LOSS = "actor/loss"


class View:
    """Shows snapshots; used as a context manager and called with each new one.

    Args:
        console: where to; one that can be drawn on is drawn on in place, anything else gets timestamped lines.
        pause: shortest time between two plain lines, seconds; of what changes in between the last state is shown.
    """

    def __init__(self, console: Console, pause: float = PLAIN_PAUSE) -> None:
        """Show nothing yet."""
        self._console, self._pause = console, pause
        self._begun = time.time()
        self._snapshot: Snapshot | None = None
        self._picture: Picture | None = None
        # Lines for people go above the picture, but where stderr is a file, into that.
        mixed = sys.stderr.isatty()
        self._live = Live(console=console, refresh_per_second=2, get_renderable=self._draw, redirect_stderr=mixed)
        self._written, self._written_at = "", float("-inf")
        self._troubles: list[str] = []
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> View:
        """Take hold of the terminal."""
        if self._console.is_interactive:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Show what was held back, and let go of the terminal."""
        if self._console.is_interactive:
            self._live.stop()
        elif self._timer:
            self._timer.cancel()
            self._write()

    def __call__(self, snapshot: Snapshot) -> None:
        """Show how far the run is."""
        self._snapshot = snapshot
        if self._console.is_interactive:
            self._picture = Picture(watched(snapshot), self._begun)
            self._live.refresh()  # between two snapshots it redraws by itself, because time passes
            return
        wait = self._written_at + self._pause - time.monotonic()
        if wait <= 0:
            self._write()
        elif self._timer is None or not self._timer.is_alive():
            self._timer = threading.Timer(wait, self._write)
            self._timer.daemon = True
            self._timer.start()

    def _draw(self) -> Picture | Text:
        return self._picture or Text("reading the run")

    def _write(self) -> None:
        with self._lock:
            if self._snapshot is None:
                return
            overview = watched(self._snapshot)
            troubles = [text.plain for text in tracking_lines(overview)]
            for trouble in troubles:
                if trouble not in self._troubles:
                    self._say(trouble)
            self._troubles = troubles
            if (line := sentence(overview)) == self._written:
                return
            left = progress.seconds_left(progress.groups(overview), time.time())
            about = f", about {duration(left)} left" if left and left >= 1 else ""
            self._say(f"{line}{about}")
            self._written, self._written_at = line, time.monotonic()

    def _say(self, line: str) -> None:
        self._console.print(Text(f"{time.strftime('%H:%M:%S')} {line}"), soft_wrap=True)


def sentence(overview: Overview) -> str:
    """The state of a run in one line, which changes only when a unit starts, ends or fails."""
    groups = progress.groups(overview)
    group = progress.current(groups)
    if group is None:
        return f"all {len(overview.units)} units are published"
    parts = [f"epoch {group.epoch} of {overview.snapshot.config.epochs}", f"{group.stage} {group.status}"]
    if len(group.units) > 1:
        parts.append(f"shards {group.done}/{len(group.units)}")
    if group.attempts > len(group.units):
        parts.append(f"{group.attempts} attempts")
    parts += [f"{name} {percent(rate)}" for name, rate in _rates([each for each in groups if each.span()])[-2:]]
    if group.status == "failed":
        failed = next(unit.state for unit in group.units if unit.status == "failed")
        parts.append(failure(overview.snapshot.run, failed)[0])
    return ", ".join(parts)


class Picture:
    """A run on a terminal: how far it is, its curves, what runs and how far, what waits for what.

    Args:
        overview: the run.
        begun: Unix time at which this command began.
    """

    def __init__(self, overview: Overview, begun: float) -> None:
        """Gather what does not change while time passes."""
        self._overview, self._begun = overview, begun
        self._groups = progress.groups(overview)
        self._curves = curves(self._groups, overview.snapshot.config.epochs)
        run, running = overview.snapshot.run, [unit for unit in overview.units if unit.status == "running"]
        self._losses = {unit.unit: steps.recent(run, unit.state, LOSS) for unit in running}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it for a terminal of some width at this moment."""
        now, run = time.time(), self._overview.snapshot.run.absolute()
        shown = run.relative_to(Path.cwd()) if run.is_relative_to(Path.cwd()) else run
        words = f"{duration(now - self._begun)} elapsed, {standing_line(self._overview, self._groups, now)}"
        yield from (Text.assemble((line.plain, "bold")) for line in title(shown, words, console.width))
        if not self._overview.driver.startswith(("process", "nobody")):
            yield Text(self._overview.driver)
        yield from tracking_lines(self._overview)
        if self._curves:
            yield Text("")
            yield curve_table(self._curves, console)
        yield Text("")
        yield self._units(console, now)
        failed = [unit.state for unit in self._overview.units if unit.status == "failed"]
        for state in failed[:FAILURES_SHOWN]:
            yield from (Text(line, style="red", overflow="fold") for line in failure(shown, state))
        if any(unit.status in ("running", "queued") for unit in self._overview.units):
            yield Text("Ctrl-C detaches: jobs go on, and the same command takes them up again", style="dim")

    def _units(self, console: Console, now: float) -> Table:
        """A line for each open unit; bars for those that tell how far they are."""
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True, overflow="crop")
        bar = min(max(console.width // 5, 8), 40)
        table.add_column(no_wrap=True, width=bar)
        table.add_column(overflow="fold")
        waiting = 0
        for group in self._groups:
            open_ = sorted(alike(group), key=lambda members: members[0].status != "running")
            if group.status in ("waiting", "begun"):
                waiting += bool(open_)
                if waiting > NEXT_SHOWN:
                    continue
            for members in open_[:UNITS_SHOWN]:
                standing = members[0]
                table.add_row(name_of(members), *self._cells(standing, console, bar, now))
            if len(open_) > UNITS_SHOWN:
                table.add_row(str(Unit(group.epoch, group.stage)), "", f"and {_counts(open_[UNITS_SHOWN:])}")
        return table

    def _cells(self, standing: Standing, console: Console, bar: int, now: float) -> tuple[ProgressBar | Text, Text]:
        state = Text(standing.status, style=COLORS.get(standing.status, ""))
        if standing.status != "running":
            return state, Text(said(standing))
        told, parts = standing.state.progress, [standing.state.phase]
        if standing.began is not None:
            parts.append(duration(now - standing.began))
        if told:
            metrics = metric_words(told["metrics"])
            losses = self._losses[standing.unit]
            if len(losses) > 1:
                bars = sparkline(losses, STEPS_SHOWN, bars=bars_of(console))
                metrics = [word.replace("loss ", f"loss {bars} ") for word in metrics]
            parts = [f"{told['done']}/{told['total']}", *parts, *metrics]
        if standing.job and "." not in standing.job:
            parts.append(f"job {standing.job}" + (f" on {standing.node}" if standing.node else ""))
        if standing.state.attempts > 1:
            parts.append(f"attempt {standing.state.attempt}")
        words = Text(", ".join(filter(None, parts)))
        return (ProgressBar(told["total"], told["done"], width=bar) if told else state), words


def _counts(of: list[list[Standing]]) -> str:
    """`3 more running, 53 more queued`."""
    units = [unit.status for members in of for unit in members]
    return ", ".join(f"{units.count(status)} more {status}" for status in dict.fromkeys(units))


def _rates(groups: list[Group]) -> list[tuple[str, float]]:
    """What is known of success, in order: evaluations, and each epoch's rollouts."""
    names = {"rollout": "rollout of epoch {}", "evaluate": "evaluation of policy {}"}
    return [
        (names[group.stage].format(group.epoch) if group.epoch else "warm start", rate)
        for group in groups
        if group.stage in names and (rate := group.success) is not None
    ]
