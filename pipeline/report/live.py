"""The view of a run while it is driven: drawn in place on a terminal, a line a change elsewhere."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from rich.console import Console, RenderableType
from rich.console import Group as Lines
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.ledger import Snapshot
from pipeline.report import progress
from pipeline.report.progress import Group, duration, percent
from pipeline.report.status import failure

PLAIN_PAUSE = 3.0
RATES_SHOWN = 8


class View:
    """Shows snapshots; used as a context manager and called with each new one.

    Args:
        console: where to; a terminal is drawn on in place, anything else gets timestamped lines.
        pause: shortest time between two plain lines, seconds; of what changes in between the last state is shown.
    """

    def __init__(self, console: Console, pause: float = PLAIN_PAUSE) -> None:
        """Show nothing yet."""
        self._console, self._pause = console, pause
        self._begun = time.time()
        self._snapshot: Snapshot | None = None
        self._live = Live(console=console, refresh_per_second=2, get_renderable=self._draw)
        self._written, self._written_at = "", float("-inf")
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> View:
        """Take hold of the terminal."""
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Show what was held back, and let go of the terminal."""
        if self._console.is_terminal:
            self._live.stop()
        elif self._timer:
            self._timer.cancel()
            self._write()

    def __call__(self, snapshot: Snapshot) -> None:
        """Show how far the run is."""
        self._snapshot = snapshot
        if self._console.is_terminal:
            return  # it redraws by itself, because time passes between two snapshots
        wait = self._written_at + self._pause - time.monotonic()
        if wait <= 0:
            self._write()
        elif self._timer is None or not self._timer.is_alive():
            self._timer = threading.Timer(wait, self._write)
            self._timer.daemon = True
            self._timer.start()

    def _draw(self) -> RenderableType:
        elapsed = time.time() - self._begun
        return picture(self._snapshot, time.time(), elapsed) if self._snapshot else Text("reading the run")

    def _write(self) -> None:
        with self._lock:
            if self._snapshot is None or (line := sentence(self._snapshot)) == self._written:
                return
            left = progress.seconds_left(progress.groups(self._snapshot), time.time())
            about = f", about {duration(left)} left" if left and left >= 1 else ""
            self._console.print(Text(f"{time.strftime('%H:%M:%S')} {line}{about}"), soft_wrap=True)
            self._written, self._written_at = line, time.monotonic()


def sentence(snapshot: Snapshot) -> str:
    """The state of a run in one line, which changes only when a unit starts, ends or fails."""
    groups = progress.groups(snapshot)
    group = progress.current(groups)
    if group is None:
        return f"all {len(snapshot.units)} units are published"
    parts = [f"epoch {group.epoch} of {snapshot.config.epochs}", f"{group.stage} {group.status}"]
    if len(group.units) > 1:
        parts.append(f"shards {group.done}/{len(group.units)}")
    if group.attempts > len(group.units):
        parts.append(f"{group.attempts} attempts")
    parts += [f"{name} {percent(rate)}" for name, rate in _rates([each for each in groups if each.span()])[-2:]]
    if group.status == "failed":
        failed = next(state for state in group.units if state.status == "failed")
        parts.append(failure(snapshot.run, failed)[0])
    return ", ".join(parts)


def picture(snapshot: Snapshot, now: float, elapsed: float) -> Lines:
    """The state of a run in a few lines: where it is, success so far, time.

    Args:
        snapshot: the run.
        now: Unix time.
        elapsed: seconds since this command began.
    """
    groups = progress.groups(snapshot)
    group = progress.current(groups)
    left = progress.seconds_left(groups, now)
    table = Table.grid(padding=(0, 2))
    table.add_row("run", Text(f"{snapshot.run}", style="bold"))
    table.add_row("epoch", Text(f"{group.epoch if group else snapshot.config.epochs} of {snapshot.config.epochs}"))
    table.add_row("stage", Text(_stage(group) if group else "all units are published"))
    rates = _rates(groups)
    for name, rate in rates[:1] + rates[1:][-RATES_SHOWN:]:
        table.add_row("", Text(f"{name:<22}{percent(rate):>8}"))
    time_left = "estimating" if left is None else duration(left)
    table.add_row("time", Text(f"{duration(elapsed)} elapsed, {time_left} left"))
    failed = [state for state in snapshot.units if state.status == "failed"]
    lines = [Text(line, style="red") for state in failed for line in failure(snapshot.run, state)]
    return Lines(table, *lines)


def _stage(group: Group) -> str:
    parts = [f"{group.stage} {group.status}"]
    if len(group.units) > 1:
        parts.append(f"shards {group.done}/{len(group.units)}")
    if group.steps:
        parts.append(f"{group.steps[0]}/{group.steps[1]}")
    if group.attempts > len(group.units):
        parts.append(f"{group.attempts} attempts")
    return ", ".join(parts)


def _rates(groups: list[Group]) -> list[tuple[str, float]]:
    """What is known of success, in order: evaluations, and each epoch's rollouts."""
    names = {"rollout": "rollout of epoch {}", "evaluate": "evaluation of policy {}"}
    return [
        (names[group.stage].format(group.epoch) if group.epoch else "warm start", rate)
        for group in groups
        if group.stage in names and (rate := group.success) is not None
    ]
