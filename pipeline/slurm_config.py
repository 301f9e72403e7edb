"""The blocks of the config that say where a run's units go: `cluster`, its GPUs, and `slurm`, what its jobs ask for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from pipeline.block import Block, Count, Index, Positive
from slurm.options import megabytes, minutes


class NodeGroup(Block):
    """Nodes that are alike."""

    label: str
    """name of the group, for `node_group` in component_placement"""
    node_ranks: str | int
    """its nodes, counted from 0 over cluster.num_nodes, e.g. 0-1"""
    gpus_per_node: Count | None = None
    """GPUs on each of its nodes; null: cluster.gpus_per_node"""
    gpu_type: str | None = None
    """kind of GPU as Slurm names it, e.g. h100"""
    partition: str | None = None
    """partition of its jobs; null: the stage's"""


class Cluster(Block):
    """The GPUs, in the mission's syntax."""

    num_nodes: Count = 1
    """nodes of the cluster that a run may use"""
    gpus_per_node: Count | None = None
    """GPUs on each node; null: as many as the indices need, and none where all that is said is `all`"""
    component_placement: dict[str, str | int | dict[str, str | int]] = {"env,rollout,actor": "all"}
    """GPU indices of env (simulators), rollout (policy) and actor (training): 0-3, 0,2, all, 0-1:0-3"""
    node_groups: list[NodeGroup] = []
    """nodes with a partition and a GPU type of their own"""


class SlurmOptions(Block):
    """What a stage's jobs ask of Slurm; null: what `slurm` says for all stages, else the cluster's default."""

    partition: str | None = None
    """where the jobs run"""
    account: str | None = None
    """who pays"""
    qos: str | None = None
    """quality of service"""
    constraint: str | None = None
    """features that the nodes must have"""
    reservation: str | None = None
    """reserved nodes to use"""
    nodelist: str | None = None
    """nodes a job must have"""
    exclude: str | None = None
    """nodes a job must not have"""
    gres: str | None = None
    """generic resources a node, beside the GPUs of cluster.component_placement"""
    nodes: Count | None = None
    """machines that the ranks of a training stage are spread over; null: what the placement says, or 1"""
    cpus: Count | None = None
    """CPU cores a task; null: threads and simulator processes of the stage"""
    mem: str | None = None
    """memory a node, e.g. 64G"""
    time: int | str | None = None
    """time limit: minutes, HH:MM:SS or D-HH:MM:SS"""
    array_throttle: Count | None = None
    """shards of an epoch that run at once; null: as many as there are cells, or all"""
    mail_user: str | None = None
    """who gets mail"""
    mail_type: str | None = None
    """upon what, e.g. FAIL"""
    setup: list[str] | None = None
    """shell lines before the command, e.g. module load cuda"""
    python: str | None = None
    """words that run Python on the node, e.g. apptainer exec --nv image.sif python; null: this Python"""
    extra: dict[str, str | int | float | bool] | None = None
    """further sbatch options by their long names"""

    @field_validator("time")
    @classmethod
    def time_is_a_time(cls, value: int | str | None) -> int | str | None:
        """Refuse what Slurm would not read as a time limit."""
        if value is not None:
            minutes(value)
        return value

    @field_validator("mem")
    @classmethod
    def mem_is_memory(cls, value: str | None) -> str | None:
        """Refuse what Slurm would not read as an amount of memory."""
        if value is not None:
            megabytes(value)
        return value


class Slurm(SlurmOptions):
    """How units reach a machine."""

    launcher: Literal["auto", "slurm", "local"] = "auto"
    """where units run; auto: on Slurm where sbatch answers, else as processes of this machine"""
    schedule: Literal["supervise", "chain", "pilot"] = "supervise"
    """who submits what comes next: a loop that stays; afterok dependencies; a loop inside one allocation"""
    follow: bool = False
    """rollout, update and evaluate stay up from epoch to epoch; on this machine and under pilot"""
    poll_seconds: Positive = 0.2
    """pause between two looks at the run directory"""
    query_seconds: Positive = 30.0
    """shortest time between two questions to Slurm's controller"""
    time: int | str | None = "4:00:00"
    """time limit of a unit: minutes, HH:MM:SS or D-HH:MM:SS"""
    gpu_option: Literal["gres", "gpus-per-node"] = "gres"
    """the sbatch option that asks for GPUs; sites differ"""
    requeue: bool = True
    """whether Slurm itself starts a job again after a preemption or the loss of a node"""
    max_requeues: Index = 20
    """tries at a unit that preemption or lost nodes may take, beside max_attempts"""
    signal_seconds: Count = 90
    """how long before its time limit a stage is told to stop"""
    mem_growth: Annotated[float, Field(ge=1)] = 1.0
    """factor on a unit's memory after it ran out of it"""
    time_growth: Annotated[float, Field(ge=1)] = 1.0
    """factor on a unit's time limit after it ran into it"""
    chain_epochs: Count | None = None
    """chain: epochs submitted ahead; null: all; between two sections `keep` is applied and the run is tracked"""
    demonstrate: SlurmOptions = SlurmOptions()
    """demonstrations"""
    sft: SlurmOptions = SlurmOptions()
    """the warm start"""
    rollout: SlurmOptions = SlurmOptions()
    """rollouts"""
    update: SlurmOptions = SlurmOptions()
    """updates"""
    evaluate: SlurmOptions = SlurmOptions()
    """evaluations"""
    orchestrator: SlurmOptions = SlurmOptions(time="1-00:00:00", cpus=1, mem="2G")
    """the job that supervises the run: `baton submit`"""
    pilot: SlurmOptions = SlurmOptions(time="12:00:00")
    """the allocation that is held under schedule=pilot"""
