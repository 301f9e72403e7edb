"""Where a stage's units come from: one from the command line, or one after another from a folder of orders.

`orders/0001.json`, `0002.json`, ... appear whole, one by one: {"epoch": 3, "shard": 2 or null, "attempt": 1}. When the
unit of an order is published, `orders/0001.done` is written. `orders/stop` ends the stage once nothing is left to do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipeline.artifacts import write_synced
from pipeline.errors import UserError
from stages import signals

if TYPE_CHECKING:
    from stages.training.ranks import Rank

LOG = "log.txt"
PAUSE_S = 0.02
REFRESH_S = 1.0


@dataclasses.dataclass(frozen=True)
class Order:
    """A unit to be done.

    Attributes:
        epoch: of the unit.
        shard: of the unit, where its stage has shards.
        attempt: number of the attempt; None: a new one.
    """

    epoch: int
    shard: int | None = None
    attempt: int | None = None


class Orders(Protocol):
    """Gives a stage its units."""

    def __iter__(self) -> Iterator[Order]:
        """The orders; the next is asked for when the last is finished."""

    def finish(self) -> None:
        """Note that the unit of the last order is published."""

    def output(self, directory: Path) -> contextlib.AbstractContextManager[None]:
        """Where the stage prints while it is at the last order, whose files go to `directory`."""


class Single:
    """The one order that the command line names."""

    def __init__(self, order: Order) -> None:
        """Take the order."""
        self._order = order

    def __iter__(self) -> Iterator[Order]:
        """The order."""
        yield self._order

    def finish(self) -> None:
        """All is done: signals come too late."""
        signals.finish()

    def output(self, directory: Path) -> contextlib.AbstractContextManager[None]:
        """Nothing changes."""
        return contextlib.nullcontext()


class Folder:
    """Orders that appear as files, for one process or for all ranks of a stage.

    Rank 0 alone looks at the folder and passes on what it takes up, and the end, as files of its own; else a stop, an
    idle time that is over or the cache of a network file system could be noticed by one rank and not by another.
    """

    def __init__(self, directory: Path, idle: float, rank: Rank | None = None) -> None:
        """Prepare.

        Args:
            directory: holds `orders`.
            idle: seconds without an order after which there will be no more.
            rank: who this process is; None: the only one.
        """
        self._directory, self._idle = directory, idle
        self._folder = directory / "orders"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._first = rank is None or rank.first
        self._followers = rank is not None and rank.size > 1
        self._launch = "" if rank is None else rank.launch
        self._number = 0

    def __iter__(self) -> Iterator[Order]:
        """The orders from 0001 on, without those that are done."""
        passed = itertools.count(1)
        for self._number in itertools.count(1):
            _let_go()
            if self._first and self._file("done").exists():
                continue
            hint = self._directory / f"order-{self._launch}-{next(passed):04d}.json"
            text = self._given() if self._first else self._wait_for(hint, None)
            if self._first and self._followers:
                write_synced(hint, (text or "null").encode())
            order = _parse(text, self._file("json")) if text else None
            if order is None:
                return
            yield order

    def finish(self) -> None:
        """Write that the order is done."""
        if self._first:
            write_synced(self._file("done"), b"0\n")

    @contextlib.contextmanager
    def output(self, directory: Path) -> Iterator[None]:
        """Print to the end of the unit's `log.txt`, and afterwards again where this process printed before."""
        before = os.dup(1), os.dup(2)
        log = os.open(directory / LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        _point(log, log)
        try:
            yield
        except signals.Stopped as stop:
            print(f"baton: stopped by {stop}", file=sys.stderr)
            raise
        finally:
            _point(*before)

    def _file(self, kind: str) -> Path:
        return self._folder / f"{self._number:04d}.{kind}"

    def _given(self) -> str | None:
        """The text of the next order once it is there; None when there will be none."""
        return self._wait_for(self._file("json"), self._folder / "stop")

    def _wait_for(self, file: Path, end: Path | None) -> str | None:
        """The text of a file once it is there; None if `end` is there instead, or nothing for the idle time."""
        begun = refreshed = time.monotonic()
        while True:
            # Looked for first: an order may have been written between the two looks.
            ended = end is not None and (os.path.exists(end) or time.monotonic() - begun > self._idle)
            if os.path.exists(file):
                return file.read_text()
            if ended:
                return None
            time.sleep(PAUSE_S)
            if time.monotonic() - refreshed > REFRESH_S:
                os.listdir(file.parent)  # NFS remembers that a file is not there, until its folder is opened
                refreshed = time.monotonic()


def _let_go() -> None:
    """Free what the last unit held: engines refer to themselves in circles, and their memory may be a GPU's."""
    gc.collect()
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _parse(text: str, file: Path) -> Order | None:
    try:
        content = json.loads(text)
        if content is None:
            return None
        return Order(int(content["epoch"]), content.get("shard"), content.get("attempt"))
    except (KeyError, TypeError, ValueError):
        raise UserError(f'{file} is no order: write {{"epoch": 3, "shard": 2, "attempt": 1}}') from None


def _point(stdout: int, stderr: int) -> None:
    """Let this process, and those it starts, print to other descriptors, which are closed here."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    for descriptor in {stdout, stderr}:
        os.close(descriptor)
