"""Who this process is among the ranks of a unit, how ranks find each other, and how to start them on one machine."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed import HashStore, Store, TCPStore  # type: ignore[attr-defined]

from pipeline.errors import UserError
from stages import signals
from stages.signals import STOPPED

LAUNCH = "BATON_LAUNCH"
PR_SET_PDEATHSIG = 1
GRACE_S = 60.0  # a rank that is publishing may take its time; the others end within `signals.CLOSING_S`
PAUSE_S = 0.05
STOPS = (STOPPED, *(-number for number in signals.REASONS))  # a rank that is still importing dies of the signal


@dataclass(frozen=True)
class Rank:
    """One process among the ranks of a unit.

    Attributes:
        index: rank over all machines.
        size: number of ranks.
        local_index: rank on this machine.
        local_size: number of ranks on this machine.
        launch: names this start of the ranks, so that a retry never meets its predecessor's rendezvous.
    """

    index: int = 0
    size: int = 1
    local_index: int = 0
    local_size: int = 1
    launch: str = "single"

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which alone writes what all share."""
        return self.index == 0


def rank_from_environment(environment: Mapping[str, str] = os.environ) -> Rank:
    """Read this process's rank from whoever started it: `run_ranks`, torchrun, srun, submitit's local executor, no one.

    Args:
        environment: the environment variables.

    Returns:
        The rank; a single one where nothing tells otherwise. A batch script's own shell has a SLURM_PROCID but is no
        task of a step: it is single too.

    Raises:
        UserError: a variable is missing or makes no sense.
    """
    sources = {
        "RANK": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", (LAUNCH, "TORCHELASTIC_RUN_ID")),
        "SLURM_STEP_NUM_TASKS": (
            "SLURM_PROCID",
            "SLURM_STEP_NUM_TASKS",
            "SLURM_LOCALID",
            None,
            ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"),
        ),
        "SUBMITIT_LOCAL_GLOBALID": (
            "SUBMITIT_LOCAL_GLOBALID",
            "SUBMITIT_LOCAL_NTASKS",
            "SUBMITIT_LOCAL_LOCALID",
            "SUBMITIT_LOCAL_NTASKS",
            ("SUBMITIT_LOCAL_JOB_ID",),
        ),
    }
    for sign, (index, size, local_index, local_size, launch) in sources.items():
        if sign in environment:
            return _checked(
                Rank(
                    _number(environment, index),
                    _number(environment, size),
                    _number(environment, local_index),
                    _slurm_local_size(environment) if local_size is None else _number(environment, local_size),
                    "-".join(environment[name] for name in launch if name in environment) or "launch",
                )
            )
    return Rank()


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name, "")
    if not value.isdigit():
        raise UserError(f"environment: {name}={value!r} is no number; start ranks with srun, torchrun or the pipeline")
    return int(value)


def _slurm_local_size(environment: Mapping[str, str]) -> int:
    """Tasks on this node from a list like `4(x2),1`, in the order of the step's nodes."""
    counts: list[int] = []
    for part in environment.get("SLURM_STEP_TASKS_PER_NODE", environment["SLURM_STEP_NUM_TASKS"]).split(","):
        tasks, _, times = part.rstrip(")").partition("(x")
        counts += [int(tasks)] * int(times or 1)
    node = int(environment.get("SLURM_NODEID", "0"))
    return counts[min(node, len(counts) - 1)]


def _checked(rank: Rank) -> Rank:
    if not (0 <= rank.index < rank.size and 0 <= rank.local_index < rank.local_size <= rank.size):
        raise UserError(f"environment: {rank} is no rank; start ranks with srun, torchrun or the pipeline")
    return rank


def join(rank: Rank, rendezvous: Path, *, timeout_s: float = 1800.0) -> torch.device:
    """Connect this process to the others: NCCL where there are GPUs, otherwise gloo.

    Rank 0 opens a port that the system chooses and writes its address to a file; the others wait for it. No port is
    ever agreed on beforehand, so units on one machine cannot collide. A single rank opens no port at all.

    Args:
        rank: who this process is.
        rendezvous: a directory that all ranks see, the attempt's own.
        timeout_s: how long to wait for the others, now and in each collective operation.

    Returns:
        The device to work on.

    Raises:
        TimeoutError: rank 0 wrote no address in time.
    """
    device = _device(rank)
    if rank.local_size == rank.size and sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # a laptop's host name need not resolve
    store: Store = HashStore()
    host, port = "127.0.0.1", 0
    if rank.size > 1:
        host, port, store = _meet(rank, rendezvous, timeout_s)
    # DeepSpeed looks for MPI unless all five are there, even though the group exists.
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    values = (rank.index, rank.size, device.index or 0, host, port)
    os.environ.update({name: str(value) for name, value in zip(names, values, strict=True)})
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=store,
        rank=rank.index,
        world_size=rank.size,
        timeout=timedelta(seconds=timeout_s),
        device_id=device if device.type == "cuda" else None,
    )
    return device


def leave() -> None:
    """Disconnect; the counterpart of `join`, to be called by all ranks."""
    if dist.is_initialized():
        dist.destroy_process_group()


@contextlib.contextmanager
def joined(rank: Rank, rendezvous: Path) -> Iterator[torch.device]:
    """`join` and, at the end of the block, `leave`."""
    device = join(rank, rendezvous)
    try:
        yield device
    finally:
        leave()


def _device(rank: Rank) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    visible = torch.cuda.device_count()
    # With one GPU visible the scheduler has given each task its own.
    device = torch.device("cuda", 0 if visible == 1 else rank.local_index)
    if visible != 1 and rank.local_index >= visible:
        raise UserError(f"{rank.local_size} ranks on a machine with {visible} GPUs: ask for one GPU a rank")
    torch.cuda.set_device(device)
    return device


def _meet(rank: Rank, rendezvous: Path, timeout_s: float) -> tuple[str, int, Store]:
    file = rendezvous / f"rendezvous-{rank.launch}"
    timeout = timedelta(seconds=timeout_s)
    if rank.first:
        host = "127.0.0.1" if rank.local_size == rank.size else socket.gethostname()
        store = TCPStore(host, 0, rank.size, is_master=True, timeout=timeout, wait_for_workers=False)
        part = file.with_suffix(".part")
        part.write_text(f"{host}:{store.port}\n")
        part.replace(file)
        return host, store.port, store
    deadline = time.monotonic() + timeout_s
    while not file.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"rank {rank.index}: no {file} after {timeout_s:.0f} s; rank 0 did not start, see its log"
            )
        time.sleep(PAUSE_S)
    host, _, port = file.read_text().strip().rpartition(":")
    return host, int(port), TCPStore(host, int(port), rank.size, is_master=False, timeout=timeout)


def mean_over_ranks(values: Mapping[str, float | torch.Tensor], device: torch.device) -> dict[str, float]:
    """Average numbers over all ranks in one collective operation.

    Args:
        values: scalars under the same names on every rank.
        device: this rank's device.

    Returns:
        Their means, as plain numbers.
    """
    names = sorted(values)
    scalars = [torch.as_tensor(values[name], device=device).detach().to(torch.float64) for name in names]
    if not scalars:
        return {}
    stacked = torch.stack(scalars)
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(stacked)
        stacked /= dist.get_world_size()
    return dict(zip(names, stacked.tolist(), strict=True))


def run_ranks(count: int, argv: Sequence[str], *, threads: int | None = None) -> int:
    """Run a command as ranks on this machine and wait for them.

    The first rank that fails or is stopped ends the others: asked to at first, killed after a minute. If this process
    dies, the kernel kills them all (Linux; call it from the main thread, whose death is the one that counts).

    Args:
        count: number of ranks.
        argv: the command; every rank runs the same.
        threads: CPU threads of each rank, as OMP_NUM_THREADS; None leaves the environment as it is.

    Returns:
        0, or the exit code of the rank that failed first; 128 + n where signal n ended it. `STOPPED` where a signal
        stopped one, even if another failed for want of it.

    Raises:
        Stopped: a signal came for this process; the ranks have ended.
    """
    launch = f"{socket.gethostname()}-{os.getpid()}-{time.time_ns()}"
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), LAUNCH: launch}
    if threads is not None:
        shared["OMP_NUM_THREADS"] = str(threads)
    ranks: list[subprocess.Popen[bytes]] = []
    try:
        for index in range(count):
            environment = {**os.environ, **shared, "RANK": str(index), "LOCAL_RANK": str(index)}
            ranks.append(subprocess.Popen(argv, env=environment, preexec_fn=_die_with_parent()))
        while True:
            codes = [process.poll() for process in ranks]
            if any(code in STOPS for code in codes):
                return STOPPED
            failed = next((code for code in codes if code), None)
            if failed is not None:
                return failed if failed > 0 else 128 - failed
            if all(code == 0 for code in codes):
                return 0
            time.sleep(PAUSE_S)
    finally:
        with signals.shielded():
            _end(ranks)


def _die_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    libc, parent = ctypes.CDLL(None, use_errno=True), os.getpid()  # loaded before the fork, where importing is unsafe

    def in_child() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return in_child


def _end(ranks: list[subprocess.Popen[bytes]]) -> None:
    for process in ranks:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + GRACE_S
    for process in ranks:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
