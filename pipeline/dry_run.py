"""What a run would do, before it does it: the scripts, the sbatch lines, and the most that it can cost."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

from pipeline import resources
from pipeline.config import Config
from pipeline.jobs import History
from pipeline.memory import estimate
from pipeline.plan import UnitPlan, make_plan
from pipeline.submission import Sender
from slurm import placement
from slurm.launcher import Request
from slurm.script import batch_script


@dataclasses.dataclass(frozen=True)
class DryRun:
    """Scripts of a run that has not begun.

    Attributes:
        folder: where they lie.
        lines: the sbatch lines, in order; an epoch's stand for those of all later ones.
        gpu_hours: what all units take if each runs to its time limit.
        core_hours: the same for CPU cores.
        placement: what runs where, in lines.
        memory: what each stage will need of a GPU, in lines.
    """

    folder: Path
    lines: tuple[str, ...]
    gpu_hours: float
    core_hours: float
    placement: tuple[str, ...]
    memory: tuple[str, ...]


def dry_run(config: Config) -> DryRun:
    """Write the scripts beside where the run would be, `<name>.dry-run/`; nothing is submitted.

    Args:
        config: of the run.
    """
    runs = Path(config.runs_dir).expanduser().absolute()
    folder = runs / f"{config.name}.dry-run"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.sbatch"):
        old.unlink()
    plans = make_plan(config)
    lines = []
    for (epoch, stage), group in itertools.groupby(plans, lambda plan: (plan.unit.epoch, plan.unit.stage)):
        family = list(group)
        script = folder / f"e{epoch:04d}-{stage}.sbatch"
        script.write_text(batch_script(_request(config, runs / config.name, family)))
        if epoch <= 1:
            lines.append(f"sbatch {script}")
    hours = [(plan, resources.options(config, plan.unit.stage, plan.share).time / 60) for plan in plans]
    return DryRun(
        folder,
        tuple(lines),
        sum(time * plan.share.gpu_count for plan, time in hours),
        sum(time * plan.share.cores for plan, time in hours),
        tuple(placement.describe(resources.place(config))),
        tuple(str(stage) for stage in estimate(config)),
    )


def _request(config: Config, run: Path, family: list[UnitPlan]) -> Request:
    sender = Sender(run, f"{config.name}-00000000", "dry-run")
    return sender.request(config, family, 1, History())
