"""What a job asks of Slurm: partition, time, memory and the rest of an sbatch header."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Literal

_FORMS = re.compile(r"(?:(?P<days>\d+)-)?(?P<clock>\d+(?::\d+){0,2})")


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of one job; what is None or empty is left to the cluster's defaults.

    Attributes:
        time: limit in minutes.
        partition: where the job runs.
        account: who pays.
        qos: quality of service.
        constraint: features that its nodes must have.
        reservation: reserved nodes to use.
        nodelist: nodes it must have.
        exclude: nodes it must not have.
        gres: generic resources a node, e.g. `gpu:h100:2`.
        gpu_option: the option by which the placement's GPUs are asked for; sites differ.
        mem: memory a node, e.g. `64G`.
        array_throttle: tasks of an array that run at once.
        mail_user: who gets mail.
        mail_type: upon what, e.g. `FAIL`.
        requeue: whether Slurm starts the job again after a preemption or the loss of a node.
        signal_seconds: how long before its time limit it gets USR2.
        setup: shell lines before the command, e.g. `module load cuda`.
        extra: further sbatch options by their long names.
        python: shell words that run Python on the node.
    """

    time: int
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    reservation: str | None = None
    nodelist: str | None = None
    exclude: str | None = None
    gres: str | None = None
    gpu_option: Literal["gres", "gpus-per-node"] = "gres"
    mem: str | None = None
    array_throttle: int | None = None
    mail_user: str | None = None
    mail_type: str | None = None
    requeue: bool = True
    signal_seconds: int = 90
    setup: tuple[str, ...] = ()
    extra: Mapping[str, str | int | float | bool] = dataclasses.field(default_factory=dict)
    python: str | None = None


def minutes(time: str | int) -> int:
    """Read a time limit in any of Slurm's forms.

    Args:
        time: minutes, or `MM:SS`, `HH:MM:SS`, `D-HH`, `D-HH:MM`, `D-HH:MM:SS`.

    Returns:
        Whole minutes, rounded up.

    Raises:
        ValueError: it is none of these, or no time at all.
    """
    found = _FORMS.fullmatch(str(time))
    if found is None:
        raise ValueError(f"{time!r} is no time limit: write minutes, HH:MM:SS or D-HH:MM:SS")
    parts = [int(part) for part in found["clock"].split(":")]
    if found["days"] is not None:
        hours, minutes_, seconds = (*parts, 0, 0)[:3]
        hours += 24 * int(found["days"])
    else:
        hours, minutes_, seconds = {1: (0, *parts, 0), 2: (0, *parts), 3: tuple(parts)}[len(parts)]
    total = 60 * hours + minutes_ + -(-seconds // 60)
    if total < 1:
        raise ValueError(f"{time!r} is no time at all: give at least a minute")
    return total


def megabytes(memory: str) -> int:
    """Read an amount of memory in Slurm's form.

    Args:
        memory: a number with K, M, G or T; without a letter megabytes.

    Returns:
        Whole megabytes, rounded up.

    Raises:
        ValueError: it is no amount of memory.
    """
    found = re.fullmatch(r"(\d+)([KMGT]?)B?", memory, flags=re.IGNORECASE)
    if found is None:
        raise ValueError(f"{memory!r} is no amount of memory: write a number with K, M, G or T, e.g. 64G")
    return -(-int(found[1]) * 1024 ** "KMGT".index(found[2].upper() or "M") // 1024)
