"""The door every stage goes through: command line, signals, ranks and exit codes, around one unit or many in a row.

`python -m stages.rollout RUN --epoch 3 --shard 2` does the same as the orchestrator's job: it opens an attempt, checks
the inputs, works in scratch and publishes. With `--follow DIRECTORY` the stage stays up and takes orders
(`stages.orders`), so that libraries stay loaded and simulators warm.

Exit codes: 0 published, now or before; 2 a user's mistake, told in one line; 75 stopped by a signal, start it again;
1 anything else, with its traceback or the last words of a simulator.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import artifacts
from pipeline.artifacts import Unit
from pipeline.errors import UserError
from stages import signals
from stages.kept import Kept
from stages.orders import Folder, Order, Orders, Single
from stages.signals import STOPPED, Stopped
from stages.simulators.pool import SimulatorLost
from stages.unit import Work, load_config, named_unit, prepare_torch

if TYPE_CHECKING:
    import torch

    from stages.training.ranks import Rank

IDLE_S = 600.0
PATIENCE_S = 1.0  # between what the end of other processes does to this one and the signal that ends it too


@dataclasses.dataclass(frozen=True)
class Asked:
    """The command line of a stage.

    Attributes:
        stage: name of its module.
        run: the run directory.
        order: the unit; None: take orders.
        follow: directory of the orders.
        idle: seconds to wait for an order.
        program: whether the process is this stage's, which signals may end.
    """

    stage: str
    run: Path
    order: Order | None
    follow: Path
    idle: float
    program: bool

    def orders(self, rank: Rank | None = None) -> Orders:
        """What is to be done, by one of several ranks if need be."""
        return Folder(self.follow, self.idle, rank) if self.order is None else Single(self.order)


def run_stage(stage: str, do: Callable[[Work], None], argv: Sequence[str] | None = None) -> int:
    """Carry out units of a stage and publish them.

    Args:
        stage: name of the stage's module.
        do: the work; it reads inputs through `Work.require` and writes into `Work.scratch`.
        argv: command line without the program; None: the process's own, which then is ended by signals.

    Returns:
        Exit code.
    """
    asked = _asked(stage, argv)

    def measured(work: Work) -> None:
        with work.measured():
            do(work)

    return _guarded(asked, lambda kept: _work_through(asked, measured, asked.orders(), kept))


def run_ranked_stage(
    stage: str, do: Callable[[Work, Rank, torch.device], None], argv: Sequence[str] | None = None
) -> int:
    """Carry out units of a training stage on its data-parallel ranks.

    Started as one process where the config asks for several, this starts the ranks on this machine and waits; started
    as a rank (by itself, srun or torchrun), it does the rank's share, and rank 0 publishes.

    Args:
        stage: name of the stage's module.
        do: the work of one rank, on its device.
        argv: as in `run_stage`.

    Returns:
        Exit code.
    """
    asked = _asked(stage, argv)

    def body(kept: Kept) -> int:
        from stages.training.ranks import joined, rank_from_environment, run_ranks

        rank = rank_from_environment()
        layout = getattr(load_config(asked.run), stage)
        processes = layout.processes or rank.size
        alone = rank.size == 1 < processes
        program = [sys.executable, "-m", f"stages.{stage}", str(asked.run)]

        def start_ranks(work: Work) -> None:
            work.publishes = False
            unit = ["--epoch", str(work.unit.epoch), "--attempt", str(work.attempt)]
            try:
                code = run_ranks(processes, [*program, *unit], threads=layout.threads)
                if code and not _is_published(work.run, work.unit):
                    sys.exit(code)
            except Stopped:
                if not _is_published(work.run, work.unit):  # rank 0 finishes a publication that a signal meets
                    raise
            finally:
                artifacts.discard_scratch(work.directory)

        def share(work: Work) -> None:
            if rank.size != processes:
                raise UserError(
                    f"{work.run / 'config.yaml'}: {stage}.processes={processes}, "
                    f"but {rank.size} ranks were started; start {processes}"
                )
            work.publishes = rank.first
            prepare_torch(layout.threads)
            meeting = work.directory if asked.order else asked.follow
            device = kept.take("ranks", rank.launch, lambda: joined(rank, meeting))
            together = os.getppid() if rank.local_size > 1 else None
            with work.measured(together) if rank.first else contextlib.nullcontext():
                do(work, rank, device)
            if asked.order:
                kept.close()  # together with the other ranks, which do not wait until this one has published

        if alone and asked.order is None:
            follow = ["--follow", str(asked.follow), "--idle", str(asked.idle)]
            return run_ranks(processes, [*program, *follow], threads=layout.threads)
        return _work_through(asked, start_ranks if alone else share, asked.orders(rank), kept)

    return _guarded(asked, body)


def _asked(stage: str, argv: Sequence[str] | None) -> Asked:
    parser = argparse.ArgumentParser(prog=f"python -m stages.{stage}", description=sys.modules["__main__"].__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("--epoch", type=int, help="epoch of the unit; 0 is the warm start")
    parser.add_argument("--shard", type=int, help="shard of the unit, where the stage has shards")
    parser.add_argument("--attempt", type=int, help="number of the attempt; default: a new one")
    parser.add_argument(
        "--follow", type=Path, metavar="DIRECTORY", help="stay up and take orders from DIRECTORY/orders"
    )
    parser.add_argument("--idle", type=float, default=IDLE_S, help="seconds to wait for an order; default: %(default)g")
    given = parser.parse_args(argv)
    if (given.epoch is None) == (given.follow is None):
        parser.error("name a unit by --epoch, or a directory of orders by --follow")
    order = None if given.epoch is None else Order(given.epoch, given.shard, given.attempt)
    return Asked(stage, given.run, order, given.follow or Path(), given.idle, argv is None)


def _work_through(asked: Asked, do: Callable[[Work], None], orders: Orders, kept: Kept) -> int:
    """Do one order after another until there are none or one fails; returns the exit code."""
    for order in orders:
        config = load_config(asked.run)
        unit = named_unit(asked.stage, order.epoch, order.shard, config)
        if _is_published(asked.run, unit):
            print(f"{unit} is published already: {asked.run / unit.marker}", flush=True)
            orders.finish()
            continue
        attempt = order.attempt or artifacts.new_attempt(asked.run, unit)
        if job := os.environ.get("SLURM_JOB_ID"):
            owner = artifacts.claim(artifacts.attempt_directory(asked.run, unit, attempt), job)
            if owner != job:
                print(f"attempt {attempt} at {unit} belongs to job {owner}", flush=True)
                return 0
        work = Work(asked.run, config, unit, attempt, kept)
        with orders.output(work.directory):
            code = _carry_out(work, do, orders)
        if code:
            return code
    return 0


def _is_published(run: Path, unit: Unit) -> bool:
    return artifacts.open_artifact(run / unit.marker) is not None


def _carry_out(work: Work, do: Callable[[Work], None], orders: Orders) -> int:
    """One unit, from its empty scratch to its published artifacts; returns the exit code."""
    artifacts.discard_scratch(work.directory)
    try:
        do(work)
        with signals.shielded():
            if work.publishes:
                with work.phases("publish"):
                    for artifact in work.publish():
                        print(f"published {artifact.path}", flush=True)
            orders.finish()
        return 0
    except Exception as error:
        failure = error
    finally:
        if work.publishes:
            artifacts.discard_scratch(work.directory)
    return _explain(failure, work.directory, work.directory / "error.txt")


def _guarded(asked: Asked, body: Callable[[Kept], int]) -> int:
    """Do something with what is kept meanwhile, and turn whatever ends it early into an exit code."""
    try:
        if asked.program and threading.current_thread() is threading.main_thread():
            signals.install()
        with Kept() as kept:
            try:
                return body(kept)
            except Exception as error:
                return _explain(error, asked.run)
    except Stopped as stop:
        print(f"baton: {asked.stage} was stopped by {stop}; start it again", file=sys.stderr)
        return STOPPED
    finally:
        signals.finish()


def _explain(error: Exception, place: Path, note: Path | None = None) -> int:
    """Tell what went wrong.

    Args:
        error: what was raised.
        place: where the stage writes.
        note: file for the line that a user is told.

    Returns:
        Exit code.

    Raises:
        Stopped: it went wrong because the whole job is being stopped.
    """
    message = str(error)
    if not isinstance(error, UserError):
        signals.check(within=PATIENCE_S)
        if isinstance(error, SimulatorLost):  # where it went wrong is told in it, and is not in this process
            print(f"{error.details}\nbaton: {error}".strip(), file=sys.stderr)
            return 1
        if not disk_full(error, place):
            traceback.print_exception(error)
            return 1
        message = f"the disk is full: nothing more can be written to {place}; free space and run the same command again"
    if note is not None:
        try:
            note.write_text(message + "\n")
        except OSError as failure:  # a full disk must not hide the message
            print(f"could not write {note}: {failure.strerror}", file=sys.stderr)
    print(f"baton: {message}", file=sys.stderr)
    return UserError.EXIT_CODE


def disk_full(error: Exception, place: Path) -> bool:
    """Whether an error came of a full disk; writers in C++ and Rust do not tell, so the disk itself is asked too.

    Args:
        error: what was raised.
        place: where the unit writes.

    Returns:
        True if there was no space for it, by the error's number or because not a block is left.
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return place.exists() and os.statvfs(place).f_bavail == 0
