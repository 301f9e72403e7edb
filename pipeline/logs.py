"""Prints logs of a run: of its units, of the jobs that look after it, and of tracking; once, or as they grow."""

from __future__ import annotations

import codecs
import collections
import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline import failures, follower, ledger
from pipeline.artifacts import STAGES, Unit, attempt_directory, latest_incarnation
from pipeline.errors import UserError
from pipeline.ledger import Snapshot, UnitState

OTHERS = ("orchestrator", "pilot", "chain", "tracking")
PAUSE_SECONDS = 0.2
LOOK_SECONDS = 1.0  # between two looks at the run directory while a log is followed
PIECE = 1 << 20


def print_logs(
    run: Path,
    what: str | None = None,
    epoch: int | None = None,
    shard: int | None = None,
    attempt: int | None = None,
    *,
    lines: int | None = None,
    follow: bool = False,
) -> None:
    """Print logs to stdout, and to stderr where they lie.

    Args:
        run: the run directory.
        what: a stage or one of `OTHERS`; None: the unit that matters now.
        epoch: of the unit.
        shard: of the unit; None: all that have a log.
        attempt: number of the attempt; None: the newest.
        lines: how many of the last lines; None: all.
        follow: go on printing until the units are published or will not be tried again.

    Raises:
        UserError: there is no such unit or attempt, or there is no log yet.
    """
    sources, states = _select(run, what, epoch, shard, attempt)
    present = [source for source in sources if source.find() is not None]
    if follow:
        _follow(sources, lambda: _over(run, [state.unit for state in states], attempt), lines)
    elif present:
        printer = _Printer(len(present) > 1)
        for source in present:
            printer.go_on(source, lines)
    else:
        raise _no_log(run, sources, states)


@dataclasses.dataclass(frozen=True)
class LogFile:
    """Where a log lies.

    Attributes:
        source: the unit, or one of `OTHERS`.
        attempt: the unit's attempt; None where it is no unit.
        path: of the file.
        bytes: its size.
    """

    source: str
    attempt: int | None
    path: str
    bytes: int


def find_logs(
    run: Path, what: str | None = None, epoch: int | None = None, shard: int | None = None, attempt: int | None = None
) -> list[LogFile]:
    """The files that `print_logs` prints, for the same arguments.

    Raises:
        UserError: as there.
    """
    sources, states = _select(run, what, epoch, shard, attempt)
    there = [(source.name, path) for source in sources if (path := source.find()) is not None]
    if not there:
        raise _no_log(run, sources, states)
    return [LogFile(name, _attempt(path), str(path), path.stat().st_size) for name, path in there]


def _select(
    run: Path, what: str | None, epoch: int | None, shard: int | None, attempt: int | None
) -> tuple[list[_Source], list[UnitState]]:
    """What is to be printed, and the units that it belongs to."""
    if what in OTHERS:
        if given := [f"--{k}" for k, v in (("epoch", epoch), ("shard", shard), ("attempt", attempt)) if v is not None]:
            raise UserError(f"{given[0]}: the log of {what} is no unit's; leave it out")
        return [_Source(what, lambda: _other(run, what))], []
    if what is None or what in STAGES:
        states = _having(run, choose(ledger.read(run), what, epoch, shard), attempt)
        return [_unit_source(run, state, attempt) for state in states], states
    raise UserError(f"{what!r} has no log: name a stage ({', '.join(STAGES)}) or {', '.join(OTHERS)}")


def _no_log(run: Path, sources: Sequence[_Source], states: Sequence[UnitState]) -> UserError:
    if states and states[0].error:
        return UserError(f"{states[0].unit} left no log; {states[0].error}")
    return UserError(f"{sources[0].name} has no log yet: `baton status {run}` shows how far the run is")


def choose(
    snapshot: Snapshot, stage: str | None = None, epoch: int | None = None, shard: int | None = None
) -> list[UnitState]:
    """The units whose logs are meant.

    Args:
        snapshot: the run.
        stage: only units of this stage, and all shards of one epoch; None: a single unit.
        epoch: only units of this epoch.
        shard: only this shard.

    Returns:
        In plan order, at least one: that which failed, else that which runs, else the newest; else the next.

    Raises:
        UserError: the run has no such unit.
    """
    matching = [
        state
        for state in snapshot.units
        if stage in (None, state.unit.stage) and epoch in (None, state.unit.epoch) and shard in (None, state.unit.shard)
    ]
    if not matching:
        raise UserError(f"{snapshot.run} has no such unit: `baton status {snapshot.run} --all` lists them")
    first = _most_urgent(snapshot.run, matching)
    if stage is None:
        return [first]
    return [s for s in matching if s.unit.epoch == first.unit.epoch and (s.attempts or s is first)]


def _most_urgent(run: Path, states: Sequence[UnitState]) -> UnitState:
    for state in states:
        if state.status == "failed":
            return state
    for state in states:
        if state.status == "running" and _log(run, state, None):
            return state
    for state in sorted(states, key=lambda state: state.started or 0.0, reverse=True):
        if state.attempts and _log(run, state, None):
            return state
    return next((state for state in states if state.status != "published"), states[-1])


@dataclasses.dataclass(frozen=True)
class _Source:
    """Something that has a log.

    Attributes:
        name: of it, as the user says it.
        find: gives the file that it writes to now; None if there is none yet.
    """

    name: str
    find: Callable[[], Path | None]


def _having(run: Path, states: list[UnitState], attempt: int | None) -> list[UnitState]:
    """The units that have such an attempt."""
    if attempt is None:
        return states
    if having := [state for state in states if attempt_directory(run, state.unit, attempt).is_dir()]:
        return having
    there = max(state.attempts for state in states)
    raise UserError(f"--attempt {attempt}: {states[0].unit} has no such attempt, there are {there}")


def _unit_source(run: Path, state: UnitState, attempt: int | None) -> _Source:
    return _Source(str(state.unit), lambda: _log(run, state, attempt))


def _log(run: Path, state: UnitState, attempt: int | None) -> Path | None:
    """The log of an attempt, of its last start that has one; None: there is none."""
    if attempt is None and state.status == "published":
        attempt = state.attempt
    if attempt is None:
        there = (run / "attempts" / str(state.unit)).glob("*")
        attempt = max((int(path.name) for path in there if path.name.isdigit()), default=None)
    if attempt is None:
        return None
    directory = attempt_directory(run, state.unit, attempt)
    paths = [failures.log_path(latest_incarnation(directory)), failures.log_path(directory)]
    return next((path for path in paths if path.exists()), None)


def _attempt(path: Path) -> int | None:
    """The number of the attempt that wrote a log; None where it belongs to no attempt."""
    below = path.parts[len(path.parts) - path.parts[::-1].index("attempts") :] if "attempts" in path.parts else ()
    return next((int(name) for name in below if name.isdigit()), None)


def _other(run: Path, what: str) -> Path | None:
    if what == "chain":
        folders = sorted((run / "attempts" / "chain").glob("*"), key=lambda path: int(path.name))
        paths = [failures.log_path(folder) for folder in reversed(folders)]
    else:
        paths = [run / (follower.LOG if what == "tracking" else f"{what}.log")]
    return next((path for path in paths if path.exists()), None)


def _over(run: Path, units: Sequence[Unit], attempt: int | None) -> bool:
    """Whether nothing more is to be expected of these units; without any, of the run."""
    states = [state for state in ledger.read(run).units if not units or state.unit in units]
    return all(
        state.status in ("published", "failed") or (attempt is not None and (state.attempt or 0) > attempt)
        for state in states
    )


def _follow(sources: Sequence[_Source], over: Callable[[], bool], lines: int | None) -> None:
    printer, looked, ended = _Printer(len(sources) > 1), float("-inf"), False
    for source in sources:
        if source.find() is None:
            print(f"{source.name} has no log yet; waiting for it", file=sys.stderr, flush=True)
    while True:
        if time.monotonic() - looked >= LOOK_SECONDS:
            ended, looked = over(), time.monotonic()
            if ended:
                time.sleep(PAUSE_SECONDS)  # the last words come after the publication
        for source in sources:
            if source.find() is not None:
                printer.go_on(source, lines)
        if ended:
            return
        lines = None  # of what comes later nothing is left out
        time.sleep(PAUSE_SECONDS)


class _Printer:
    """Writes what logs have got, with a header wherever another one goes on."""

    def __init__(self, headers: bool) -> None:
        self._headers = headers
        self._readers: dict[str, _Reader] = {}
        self._last: Path | None = None

    def go_on(self, source: _Source, lines: int | None) -> None:
        """Print what has not been printed of a source's newest log."""
        path = source.find()
        assert path is not None
        reader = self._readers.get(source.name)
        if reader is not None and reader.path != path:
            self._print(source, reader, None)  # what it said last before the next attempt began
        if reader is None or reader.path != path:
            print(f"log: {path}", file=sys.stderr, flush=True)
            self._headers |= reader is not None
            reader = self._readers[source.name] = _Reader(path)
            if self._headers:
                self._head(source, path)
        self._print(source, reader, lines)

    def _print(self, source: _Source, reader: _Reader, lines: int | None) -> None:
        while text := reader.more(lines):
            if self._headers and self._last != reader.path:
                self._head(source, reader.path)
            self._last = reader.path
            print(text, end="", flush=True)
            lines = None

    def _head(self, source: _Source, path: Path) -> None:
        attempt = _attempt(path)
        gap = "\n" if self._last else ""
        print(f"{gap}==> {source.name}" + (f", attempt {attempt}" if attempt else "") + " <==", flush=True)
        self._last = path


class _Reader:
    """What has been read of a file that grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def more(self, lines: int | None) -> str:
        """What has been added, a piece at a time; of the whole file only the last lines if so asked."""
        try:
            with self.path.open("rb") as file:
                if file.seek(0, 2) < self._read:
                    self._read = 0  # it was begun anew
                file.seek(self._read)
                added = file.read(PIECE) if lines is None else b"".join(collections.deque(file, lines))
                self._read = file.tell()
        except FileNotFoundError:
            return ""
        return self._decoder.decode(added)
