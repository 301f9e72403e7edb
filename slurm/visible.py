"""Which GPUs CUDA_VISIBLE_DEVICES shows to a process, and what a job of some of them is to have in it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from slurm.launcher import LaunchError

DEVICES = "CUDA_VISIBLE_DEVICES"
NONE = ("", "-1", "NoDevFiles")  # CUDA sees no device from such an entry on; the last is Slurm's


def shown(value: str) -> list[str]:
    """The GPUs that a value of CUDA_VISIBLE_DEVICES shows, as it calls them: indices or UUIDs."""
    return list(itertools.takewhile(lambda name: name not in NONE, (name.strip() for name in value.split(","))))


def named(gpus: Sequence[int], value: str | None) -> str:
    """CUDA_VISIBLE_DEVICES of a job.

    Args:
        gpus: its GPUs, counted from 0 among those that are shown here.
        value: CUDA_VISIBLE_DEVICES here; None: not set, and all GPUs of the machine are shown.

    Returns:
        The same GPUs as they are called here.

    Raises:
        LaunchError: fewer are shown.
    """
    if value is None:
        return ",".join(map(str, gpus))
    names = shown(value)
    if len(names) <= max(gpus):
        raise LaunchError(
            f"{DEVICES}={value!r} shows {len(names)} GPUs and a job is to have number {max(gpus)}, counted from 0: "
            f"unset {DEVICES}, name more GPUs in it, or set cluster.gpus_per_node={len(names) or 'null'}"
        )
    return ",".join(names[gpu] for gpu in gpus)
