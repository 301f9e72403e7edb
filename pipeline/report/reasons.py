"""Why a job waits: Slurm's reasons in words."""

from __future__ import annotations

import re

# The first that matches counts.
REASONS = (
    ("Resources", "nothing that fits is free yet; it is next"),
    ("Priority", "jobs of higher priority come first"),
    ("DependencyNeverSatisfied", "a job before it failed, so it never starts"),
    ("Dependency", "for {needs}"),
    ("JobArrayTaskLimit", "as many shards run as slurm.{stage}.array_throttle allows"),
    ("(QOS|Assoc|Max|Grp).*(Job|Submit)", "the QOS or account has as many jobs as it may"),
    ("QOS|Assoc|Max|Grp", "the QOS or account has as much as it may"),
    ("ReqNodeNotAvail|Nodes.required|NodeDown", "the nodes it needs are down, drained or reserved"),
    ("JobHeldUser", "it is held; to let it go: scontrol release {job}"),
    ("JobHeldAdmin", "an administrator holds it"),
    ("launch.failed|JobHoldMaxRequeue", "it failed to start and is held; to let it go: scontrol release {job}"),
    ("PartitionTimeLimit", "its partition gives less time: lower slurm.{stage}.time"),
    ("PartitionNodeLimit", "its partition gives fewer nodes: lower slurm.{stage}.nodes"),
    ("Partition", "its partition starts no jobs at present"),
    ("BeginTime", "its begin time has not come; a job that was put back into the queue gets one"),
    ("Licenses", "the licenses it asks for are in use"),
    ("Reservation", "its reservation has not begun or is full"),
    ("BadConstraints", "no node has what slurm.{stage} asks for"),
)


def words(detail: str, stage: str, job: str, needs: str) -> str:
    """What Slurm says of a waiting job, e.g. `PENDING (Priority)`, in words.

    Args:
        detail: as `Sight.detail` has it.
        stage: of its unit.
        job: its id.
        needs: the units its unit needs.
    """
    reason = detail.partition(" (")[2].removesuffix(")")
    if not reason:
        return ""
    said = next((text for pattern, text in REASONS if re.match(pattern, reason)), None)
    return f"{said.format(stage=stage, job=job, needs=needs or 'jobs before it')} ({reason})" if said else reason


def job_name(job: str) -> str:
    """A job as people call it: Slurm's id, or the process on this machine."""
    return f"process {job.partition('.')[0]}" if "." in job else f"job {job}"
