"""What the jobs of a run will ask of Slurm: one entry a stage, and those that look after the run."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path

from pipeline import parent, resources
from pipeline.config import Config
from pipeline.doctor.check import count
from pipeline.jobs import History
from pipeline.plan import UnitPlan, make_plan
from pipeline.submission import Sender
from slurm.options import Options
from slurm.script import batch_script

SIMULATING = ("demonstrate", "rollout", "evaluate")


@dataclasses.dataclass(frozen=True)
class Ask:
    """What one kind of job asks for.

    Attributes:
        name: its stage, or `orchestrator` or `pilot`.
        options: what is asked of Slurm.
        nodes: machines.
        cpus: cores on each of them.
        gpus: GPUs on each of them.
        gpu_type: which kind.
        tasks: of the array; 0: it is none.
        script: its batch script.
        words: options of sbatch beside those in the script.
        environment: variables that its processes are given.
        simulates: whether simulators run in it.
        decides: whether a policy runs in it.
        optional: the run works without it.
    """

    name: str
    options: Options
    nodes: int
    cpus: int
    gpus: int
    gpu_type: str | None
    tasks: int
    script: str
    words: tuple[str, ...]
    environment: Mapping[str, str]
    simulates: bool
    decides: bool
    optional: bool = False

    @property
    def partitions(self) -> tuple[str, ...]:
        """Those it names, of which Slurm takes one; empty: the cluster's default."""
        return tuple(filter(None, (self.options.partition or "").split(",")))

    @property
    def gpu_words(self) -> str:
        """Its GPUs a node, for messages: `2 h100 GPUs`."""
        return count(self.gpus, f"{self.gpu_type} GPU" if self.gpu_type else "GPU")


def read(config: Config) -> list[Ask]:
    """The jobs of a run.

    Under schedule=pilot the stages are steps of one job and ask nothing of Slurm themselves.

    Args:
        config: the run's config.
    """
    plans = make_plan(config)
    schedule = config.slurm.schedule
    if schedule == "pilot":
        return [_parent(config, "pilot", plans)]
    # Later epochs ask for what the first one asks.
    begun = [plan for plan in plans if plan.unit.epoch <= 1]
    families: dict[str, list[UnitPlan]] = {}
    for (_, stage), group in itertools.groupby(begun, lambda plan: (plan.unit.epoch, plan.unit.stage)):
        families.setdefault(stage, list(group))
    return [*(_stage(config, family) for family in families.values()), _parent(config, "orchestrator", plans)]


def run_directory(config: Config) -> Path:
    """Where the run is or would be."""
    return Path(config.runs_dir).expanduser().absolute() / config.name


def environment(config: Config) -> dict[str, str]:
    """Variables of a process of ours."""
    return _sender(config).environment(resources.Share(1, 1, 0, 1))


def _sender(config: Config) -> Sender:
    return Sender(run_directory(config), f"{config.name}-00000000", "doctor")


def _stage(config: Config, family: list[UnitPlan]) -> Ask:
    request = _sender(config).request(config, family, 1, History())
    unattended = config.slurm.schedule == "chain" and config.slurm.requeue
    stage = family[0].unit.stage
    return Ask(
        stage,
        request.options,
        request.nodes,
        request.tasks // request.nodes * request.cpus,
        request.gpus,
        request.gpu_type,
        len(request.indices),
        batch_script(request, requeues_itself=unattended),
        (),
        request.environment,
        stage in SIMULATING,
        stage != "demonstrate",
    )


def _parent(config: Config, kind: parent.Kind, plans: tuple[UnitPlan, ...]) -> Ask:
    """The job that looks after the run; `slurm.schedule=chain` ends in one that asks for the same."""
    log = run_directory(config) / f"{kind}.log"
    pilot = kind == "pilot"
    nodes, cpus, gpus, gpu_type = parent.allocation(config, plans) if pilot else (1, 1, 0, None)
    return Ask(
        kind,
        resources.options(config, kind),
        nodes,
        cpus if pilot else config.slurm.orchestrator.cpus or 1,
        gpus,
        gpu_type,
        0,
        parent.SCRIPT.read_text(),
        tuple(parent.sbatch_options(config, kind, f"{config.name}-00000000:{kind}", log)),
        environment(config),
        pilot,
        pilot,
        config.slurm.schedule == "supervise",
    )
