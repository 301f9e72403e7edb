"""What units share where they are processes of one machine or steps of one allocation: cores and GPUs."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from pipeline import ledger, resources
from pipeline.artifacts import STAGES
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.launchers import where
from pipeline.plan import UnitPlan
from pipeline.resources import Share


@dataclasses.dataclass(frozen=True)
class Machine:
    """Cores and GPUs to share out.

    Attributes:
        cores: CPU cores; None: a scheduler shares them out, and everything fits.
        gpus: number of GPUs.
    """

    cores: int | None = None
    gpus: int = 0

    @classmethod
    def of(cls, run: Path, config: Config, cores: int | None = None, stages: Collection[str] = STAGES) -> Machine:
        """What there is for a run's units.

        Args:
            run: the run directory.
            config: its config.
            cores: of this machine; None: those that this process may use.
            stages: those whose units must fit.

        Raises:
            UserError: a unit would never fit.
        """
        plans = ledger.run_plan(run, config, stages)
        place = where(config)
        if place == "slurm":
            return cls()
        if place == "allocation":
            machine = _allocation()
            for plan in plans:
                if not machine.fits(plan.share, []) or plan.share.gpu_count > machine.gpus:
                    raise UserError(
                        f"{plan.unit} takes {plan.share.cores} cores and {plan.share.gpu_count} GPUs, the allocation "
                        f"has {machine.cores} and {machine.gpus}: raise slurm.pilot"
                    )
            return machine
        machine = cls(cores or resources.machine_cores(), resources.machine_gpus())
        shares = [(plan.unit.stage, plan.share) for plan in plans]
        resources.check_machine(config, shares, machine.cores or 0, machine.gpus)
        return machine

    def fit(self, ready: Iterable[UnitPlan], running: Sequence[Share]) -> list[UnitPlan]:
        """Those of the units that fit beside what runs.

        Args:
            ready: units, the most urgent first.
            running: what is taken already.
        """
        taken, fitting = list(running), []
        for plan in ready:
            if not self.fits(plan.share, taken):
                break  # nothing less urgent slips past, or this one might wait for ever
            fitting.append(plan)
            taken.append(plan.share)
        return fitting

    def fits(self, share: Share, taken: Sequence[Share]) -> bool:
        """Whether there is room for one more."""
        if self.cores is None:
            return True
        if share.cores > self.cores - sum(other.cores for other in taken):
            return False
        return not any(set(share.places) & set(other.places) for other in taken)


def _allocation() -> Machine:
    """Cores and GPUs of the allocation that this process runs in, e.g. `8(x2),4` cores a node."""
    cores = 0
    for part in os.environ["SLURM_JOB_CPUS_PER_NODE"].split(","):
        count, _, times = part.rstrip(")").partition("(x")
        cores += int(count) * int(times or 1)
    nodes = int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))
    return Machine(cores, nodes * int(os.environ.get("SLURM_GPUS_ON_NODE", "0")))
