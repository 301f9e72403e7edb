"""Which of a job's GPUs its simulators and its policy use.

The job finds its GPUs in CUDA_VISIBLE_DEVICES, as Slurm or the local launcher set it, and its cell in BATON_CELL:
"<simulator GPUs>+<policy GPUs>", e.g. "1+1", or "1+0" for the expert; or "shared:1". Without BATON_CELL nothing is
managed.

Devices are passed on as they are written: an index, the UUID of a GPU or that of a MIG instance. Renumbering would lose
UUIDs, and would name another card to whatever does not read CUDA_VISIBLE_DEVICES, as Isaac Sim's renderer does not.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping

from pipeline.errors import UserError

CELL = "BATON_CELL"
DEVICES = "CUDA_VISIBLE_DEVICES"
WHOLE = "BATON_JOB_DEVICES"
FORM = re.compile(r"shared:(?P<shared>[1-9]\d*)|(?P<env>[1-9]\d*)\+(?P<policy>\d+)")
NONE = ("", "-1", "NoDevFiles")  # CUDA sees no device from such an entry on; the last is Slurm's


def visible(devices: str, cell_env: int, cell_policy: int, shared: bool) -> tuple[list[str], str]:
    """Divide a job's GPUs; the simulators get the first ones.

    Args:
        devices: value of CUDA_VISIBLE_DEVICES.
        cell_env: GPUs of the simulators.
        cell_policy: GPUs of the policy.
        shared: the policy uses the simulators' GPUs.

    Returns:
        The device of each simulator GPU, and the policy's.

    Raises:
        UserError: the job has fewer GPUs than its cell.
    """
    here = list(itertools.takewhile(lambda device: device not in NONE, (part.strip() for part in devices.split(","))))
    needed = max(cell_env, cell_policy) if shared else cell_env + cell_policy
    if len(here) < needed:
        sum_ = f"{needed} shared" if shared else f"{cell_env} for simulators + {cell_policy} for the policy = {needed}"
        raise UserError(
            f"{DEVICES}={devices!r} gives {len(here)} GPUs and the job's cell takes {sum_}; give it {needed} GPUs"
        )
    policy = here[:cell_policy] if shared else here[cell_env:needed]
    return here[:cell_env], ",".join(policy)


def simulator_devices(workers: int) -> list[dict[str, str]]:
    """Give each simulator worker of this job one GPU, round robin.

    Args:
        workers: number of workers.

    Returns:
        What to set in the environment of each worker; nothing where no GPUs are managed.

    Raises:
        UserError: the job has fewer GPUs than its cell, or BATON_CELL is none.
    """
    divided = divide(os.environ)
    if divided is None:
        return [{} for _ in range(workers)]
    return [{DEVICES: divided[0][worker % len(divided[0])]} for worker in range(workers)]


def narrow_to_policy() -> None:
    """Leave this process the policy's GPU alone; to be called before CUDA is used.

    Raises:
        UserError: as `simulator_devices`.
    """
    divided = divide(os.environ)
    if divided is not None:
        # What the job has must still be known when the simulators are started, and by a stage that stays up.
        os.environ.setdefault(WHOLE, os.environ.get(DEVICES, ""))
        os.environ[DEVICES] = divided[1]


def divide(environment: Mapping[str, str]) -> tuple[list[str], str] | None:
    """The device of each simulator GPU of a job, and the policy's.

    Args:
        environment: the environment variables of the job.

    Returns:
        As `visible`; None where no GPUs are managed.

    Raises:
        UserError: the job has fewer GPUs than its cell, or BATON_CELL is none.
    """
    cell = environment.get(CELL)
    if cell is None:
        return None
    match = FORM.fullmatch(cell)
    if match is None:
        raise UserError(f"{CELL}={cell!r} is no cell; write e.g. 1+1 or shared:1, or unset it to manage no GPUs")
    shared = match["shared"] is not None
    env, policy = (int(match["shared"]), 1) if shared else (int(match["env"]), int(match["policy"]))
    return visible(environment.get(WHOLE, environment.get(DEVICES, "")), env, policy, shared)
