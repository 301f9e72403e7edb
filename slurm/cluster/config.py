"""What the cluster is: its nodes, its ports, and the texts of its configuration files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

NAME = "baton"
"""Of the cluster and of its default account."""

NODES = {"sim0": "rtx", "sim1": "rtx", "train0": "h100", "train1": "h100"}
"""Node -> type of its GPUs."""

GPUS, CPUS, MEMORY_MB = 4, 8, 8000
"""Of each node, whatever this machine has."""

CGROUPS = Path("/sys/fs/cgroup")

JOB_IDS = 1000
"""Job ids that no other cluster on this machine uses."""

PARTITIONS = {"sim": ("sim0", "sim1"), "train": ("train0", "train1"), "urgent": tuple(NODES)}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What differs between two clusters.

    Attributes:
        root: the directory that holds everything.
        host: name of this machine.
        user: who runs the daemons, and the only one who may submit.
        ports: on 127.0.0.1, for `slurmctld`, `slurmdbd` and each node.
        cgroups: whether this machine lets them confine a job's memory.
    """

    root: Path
    host: str
    user: str
    ports: dict[str, int]
    cgroups: bool

    @property
    def first_job(self) -> int:
        """Id of the first job; those of two clusters differ, because a job's cgroup bears its id."""
        return self.ports["slurmctld"] * JOB_IDS

    @property
    def slurm_conf(self) -> Path:
        """The file that makes a client talk to this cluster, and that marks its processes."""
        return self.root / "slurm.conf"

    @property
    def munge_socket(self) -> Path:
        """Where clients and daemons have their messages signed."""
        return self.root / "run/munge"

    @property
    def database_socket(self) -> Path:
        """The database's only door."""
        return self.root / "run/db"

    def log(self, daemon: str) -> Path:
        """Log of a daemon."""
        return self.root / "log" / f"{daemon}.log"

    def errors(self, daemon: str) -> Path:
        """What a daemon says before it opens its log, and without the time after that."""
        return self.root / "log" / f"{daemon}.err"


def slurm_conf(settings: Settings) -> str:
    """Text of slurm.conf.

    Args:
        settings: of the cluster.

    Returns:
        The text; nodes believe in the CPUs, memory and GPUs it names, whatever this machine has.
    """
    root, ports = settings.root, settings.ports
    nodes = "\n".join(
        f"NodeName={node} NodeHostname={settings.host} NodeAddr=127.0.0.1 Port={ports[node]} "
        f"CPUs={CPUS} RealMemory={MEMORY_MB} Gres=gpu:{gpu}:{GPUS} State=UNKNOWN"
        for node, gpu in NODES.items()
    )
    return f"""\
ClusterName={NAME}
SlurmctldHost={settings.host}(127.0.0.1)
SlurmctldPort={ports["slurmctld"]}
SlurmUser={settings.user}
SlurmdUser={settings.user}
AuthType=auth/munge
# A requeued job waits for as long as a credential is valid, two minutes by default.
AuthInfo=socket={settings.munge_socket},cred_expire=5
CredType=cred/munge
MpiDefault=none
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/%n.pid
SlurmctldLogFile={settings.log("slurmctld")}
SlurmdLogFile={settings.log("%n")}

# Tests wait for all of these. Ended jobs stay visible to squeue and scontrol for MinJobAge.
SlurmdTimeout=10
SlurmctldTimeout=10
KillWait=10
MinJobAge=300
BatchStartTimeout=20
InactiveLimit=0
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
ReturnToService=2
JobRequeue=1
MaxArraySize=1001
FirstJobId={settings.first_job}

SlurmdParameters=config_overrides
# The limits of whoever submits may exceed what this machine allows.
PropagateResourceLimits=NONE
ProctrackType=proctrack/linuxproc
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
# With cgroups a job that exceeds its memory is OUT_OF_MEMORY, without them FAILED with exit code 0:9.
{"TaskPlugin=task/cgroup" if settings.cgroups else "TaskPlugin=task/none"}
{"" if settings.cgroups else "JobAcctGatherParams=OverMemoryKill"}

SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU={MEMORY_MB // CPUS}
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE

AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={ports["slurmdbd"]}
# With munge this is no password but the socket of the munge that slurmdbd trusts; AuthInfo is not asked.
AccountingStoragePass={settings.munge_socket}
AccountingStorageTRES=gres/gpu,gres/gpu:h100,gres/gpu:rtx
AccountingStorageEnforce=associations,limits,qos
AccountingStoreFlags=job_comment,job_script

{nodes}
PartitionName=sim Nodes={",".join(PARTITIONS["sim"])} Default=YES PriorityTier=1
PartitionName=train Nodes={",".join(PARTITIONS["train"])} PriorityTier=1
PartitionName=urgent Nodes={",".join(PARTITIONS["urgent"])} PriorityTier=10 PreemptMode=OFF
"""


def gres_conf(settings: Settings) -> str:
    """Text of gres.conf.

    Args:
        settings: of the cluster.

    Returns:
        The text; with `nvidia_gpu_env` a job sees its cards in CUDA_VISIBLE_DEVICES.
    """
    lines = [
        f"NodeName={node} Name=gpu Type={gpu} Flags=nvidia_gpu_env File={settings.root}/gpu[0-{GPUS - 1}]"
        for node, gpu in NODES.items()
    ]
    return "\n".join(["AutoDetect=off", *lines, ""])


def cgroup_conf() -> str:
    """Text of cgroup.conf.

    Returns:
        The text; read only where the machine has cgroups of version 1 to give.
    """
    return f"""\
CgroupPlugin=cgroup/v1
CgroupMountpoint={CGROUPS}
CgroupAutomount=no
ConstrainRAMSpace=yes
"""


def slurmdbd_conf(settings: Settings) -> str:
    """Text of slurmdbd.conf.

    Args:
        settings: of the cluster.

    Returns:
        The text; the database knows the user by the socket, there is no password.
    """
    return f"""\
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={settings.ports["slurmdbd"]}
SlurmUser={settings.user}
AuthType=auth/munge
AuthInfo=socket={settings.munge_socket}
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser={settings.user}
StorageLoc=slurm
PidFile={settings.root}/run/slurmdbd.pid
LogFile={settings.log("slurmdbd")}
"""
