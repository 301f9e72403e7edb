"""Slurm's commands: sbatch, squeue, sacct, scancel, sinfo, with what they say in types.

Every call has a time limit, and errors come in three kinds: it will not do, it may do later, and no answer, which
leaves open whether anything happened.
"""

from __future__ import annotations

import dataclasses
import datetime
import getpass
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from slurm.launcher import LaunchError, TryLater

SECONDS = 60.0
SEPARATOR = "\x1f"
# What a job inherits from the job it is submitted from would bind it to that one; SLURM_CONF says which cluster.
INHERITED = ("SLURM_", "SLURMD_", "SRUN_", "SBATCH_", "SUBMITIT_")
NO_ANSWER = re.compile(
    r"timed out|unable to contact|connection refused|connect failure|connection failure|temporarily unable"
    r"|zero bytes|temporarily unavailable|standby mode|transport endpoint|connection reset|protocol version",
    re.IGNORECASE,
)
LIMIT = re.compile(r"(Max|Grp)(Submit|Jobs|JobCount)\w*|job submit limit reached", re.IGNORECASE)
UNKNOWN_TIMES = ("", "N/A", "Unknown", "NONE", "None")


class Unanswered(Exception):
    """Slurm did not answer, so it is not known what it did."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A job, or a task of an array, as squeue shows it.

    Attributes:
        id: `1234`, or `1234_5` for task 5 of an array.
        index: of the task in its array; None outside arrays.
        state: Slurm's long name.
        reason: why it waits, in Slurm's word.
        nodes: where it runs or ran.
        comment: what it was submitted with.
        submitted: Unix time.
        started: Unix time, also the expected one of a job that waits; None if unknown.
        ended: Unix time, also the latest one of a job that runs; None if unknown.
    """

    id: str
    index: int | None
    state: str
    reason: str
    nodes: str
    comment: str
    submitted: float | None
    started: float | None
    ended: float | None


# squeue's letters for the fields of `Entry`, in its order.
FORMAT = SEPARATOR.join(("%i", "%K", "%T", "%r", "%N", "%k", "%V", "%S", "%e"))


def configured() -> bool:
    """Whether this machine has Slurm's commands and knows a cluster.

    Raises:
        Unanswered: it should know one, and its configuration is not to be had.
    """
    if shutil.which("sbatch") is None:
        return False
    try:
        # Without a cluster's configuration even this fails.
        run(["sbatch", "--version"], seconds=10)
    except LaunchError:
        return False
    return True


def run(command: Sequence[str], *, seconds: float = SECONDS, variables: Mapping[str, str] | None = None) -> str:
    """Run one of Slurm's commands.

    Args:
        command: the command line.
        seconds: how long it may take.
        variables: environment variables, beside those of this process.

    Returns:
        What it wrote to stdout.

    Raises:
        Unanswered: it was not answered in time or not at all.
        TryLater: a limit on the number of jobs is reached.
        LaunchError: it was refused; the reason in Slurm's words.
    """
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=seconds,
            env={**environment(), **(variables or {})},
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise Unanswered(f"{command[0]} did not answer within {seconds:.0f} s") from None
    except FileNotFoundError:
        raise LaunchError(
            f"there is no {command[0]} on this machine; slurm.launcher=local runs without Slurm"
        ) from None
    if done.returncode == 0:
        return done.stdout
    complaint = [line.partition("error: ")[2] or line for line in done.stderr.strip().splitlines()]
    reason = "; ".join(dict.fromkeys(complaint)) or f"exit code {done.returncode}"
    if NO_ANSWER.search(reason):
        raise Unanswered(f"{command[0]}: {reason}")
    if LIMIT.search(reason):
        raise TryLater(f"{command[0]}: {reason}")
    raise LaunchError(f"{command[0]}: {reason}")


def sbatch(
    script: Path,
    options: Sequence[str] = (),
    arguments: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
) -> str:
    """Submit a script.

    Args:
        script: the batch script.
        options: further options of sbatch, before those in the script.
        arguments: the script's own command line.
        variables: environment variables of the job, beside those of this process.

    Returns:
        The job's id; of an array its base.
    """
    answer = run(["sbatch", "--parsable", *options, str(script), *arguments], variables=variables).strip()
    return answer.splitlines()[-1].partition(";")[0]


def queue() -> list[Entry]:
    """All jobs of this user that Slurm still knows, tasks of arrays one by one, ended ones for some minutes.

    Raises:
        Unanswered: it did not say.
    """
    command = ["squeue", "--noheader", "--array", "--states=all", f"--user={getpass.getuser()}", f"--format={FORMAT}"]
    try:
        text = run(command)
    except (LaunchError, TryLater) as error:
        raise Unanswered(str(error)) from None  # whatever it complains of, it has said nothing of any job
    return [_entry(line) for line in text.split("\n") if line]


def ended_state(job: str, since: float) -> str | None:
    """The state in which a job ended that squeue has forgotten, from accounting.

    Args:
        job: its id.
        since: Unix time of its submission on this machine; ids are used again after years or a reset.

    Returns:
        Slurm's long name; None where accounting is off, does not answer or does not know the job.
    """
    begin = datetime.datetime.fromtimestamp(since - 600).strftime("%Y-%m-%dT%H:%M:%S")
    fields = "--format=State,Submit"
    command = ["sacct", "--jobs", job, "--allocations", "--noheader", "--parsable2", f"--starttime={begin}", fields]
    try:
        lines = run(command, seconds=20).split("\n")
    except (Unanswered, LaunchError, TryLater):
        return None
    states = [line.split("|")[0] for line in lines if line]
    return states[-1] if states else None


def cancel(ids: Sequence[str], *options: str) -> None:
    """Cancel jobs, tasks of arrays or steps; those that are gone are no mistake."""
    for begin in range(0, len(ids), 200):  # a command line has an end
        try:
            run(["scancel", *options, *ids[begin : begin + 200]])
        except LaunchError as error:
            if not re.search(r"invalid job id|already completing|completed", str(error), re.IGNORECASE):
                raise


def environment() -> dict[str, str]:
    """This process's environment without what a surrounding job has put there."""
    return {k: v for k, v in os.environ.items() if not k.startswith(INHERITED) or k == "SLURM_CONF"}


def _entry(line: str) -> Entry:
    id_, index, state, reason, nodes, comment, submitted, started, ended = line.split(SEPARATOR)
    return Entry(
        id=id_,
        index=int(index) if index.isdigit() else None,
        state=state,
        reason="" if reason == "None" else reason.strip("()"),
        nodes=nodes,
        comment="" if comment == "(null)" else comment,
        submitted=_time(submitted),
        started=_time(started),
        ended=_time(ended),
    )


def _time(text: str) -> float | None:
    return None if text in UNKNOWN_TIMES else datetime.datetime.fromisoformat(text).timestamp()
