"""What a cluster has and allows, as scontrol, sinfo and sacctmgr tell: partitions, nodes, settings, a user's limits."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping

from slurm import client
from slurm.client import SEPARATOR, Unanswered
from slurm.launcher import LaunchError, TryLater
from slurm.options import minutes

UNLIMITED = ("", "UNLIMITED", "INFINITE", "NONE", "N/A")
# Base states, as sinfo's %T writes them before a flag such as `*`.
UNUSABLE = ("down", "drained", "draining", "drain", "fail", "failing", "error", "unknown", "future", "inval")
ENFORCING = ("limits", "safe", "qos", "all")
ASSOCIATION = "DefaultAccount,Account,Partition,DefaultQOS,MaxSubmitJobs,GrpSubmitJobs,MaxWall"
QUALITY = "Name,MaxSubmitJobsPerUser,MaxSubmitJobsPerAccount,GrpSubmitJobs,MaxWall"


@dataclasses.dataclass(frozen=True)
class Partition:
    """A partition.

    Attributes:
        name: its name.
        state: `UP`, or why nothing starts there: `DOWN`, `DRAIN`, `INACTIVE`.
        default: jobs that name no partition go there.
        minutes: longest time limit of a job; None: any.
        max_nodes: most nodes of a job; None: any.
        qos: quality of service whose limits it has; empty: none.
    """

    name: str
    state: str
    default: bool = False
    minutes: int | None = None
    max_nodes: int | None = None
    qos: str = ""


@dataclasses.dataclass(frozen=True)
class Node:
    """A node, once for each partition it is in.

    Attributes:
        name: its name.
        partition: name of the partition.
        state: Slurm's word, e.g. `idle` or `down*`.
        cpus: what Slurm counts as CPUs.
        memory: megabytes.
        gpus: kind, in lower case and empty where it has none -> number.
    """

    name: str
    partition: str
    state: str
    cpus: int
    memory: int
    gpus: Mapping[str, int]

    @property
    def usable(self) -> bool:
        """Whether jobs may start there, now or when others have ended."""
        return re.sub(r"[^a-z].*", "", self.state) not in UNUSABLE

    def gpu_count(self, kind: str | None) -> int:
        """GPUs of a kind; None: of any."""
        return sum(self.gpus.values()) if kind is None else self.gpus.get(kind.lower(), 0)


@dataclasses.dataclass(frozen=True)
class Site:
    """A cluster.

    Attributes:
        settings: of its controller, by Slurm's names.
        partitions: by name.
        nodes: of all partitions.
    """

    settings: Mapping[str, str]
    partitions: Mapping[str, Partition]
    nodes: tuple[Node, ...]

    @property
    def version(self) -> str:
        """Slurm's version."""
        return self.settings.get("SLURM_VERSION", "unknown")

    @property
    def accounting(self) -> bool:
        """Whether jobs are recorded in a database."""
        return self.settings.get("AccountingStorageType", "").endswith("slurmdbd")

    @property
    def enforces_limits(self) -> bool:
        """Whether the limits in that database bind."""
        return any(word in ENFORCING for word in self.settings.get("AccountingStorageEnforce", "").split(","))

    @property
    def default_partition(self) -> str | None:
        """Where jobs go that name no partition."""
        return next((partition.name for partition in self.partitions.values() if partition.default), None)

    def number(self, setting: str) -> int | None:
        """A setting that is a number; None where it is not set."""
        text = self.settings.get(setting, "")
        return int(text) if text.isdigit() else None


@dataclasses.dataclass(frozen=True)
class Limit:
    """A limit and what sets it, e.g. `QOS normal`."""

    value: int
    of: str


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a user may do.

    Attributes:
        submit: jobs that may be in the queue at once; None: any number.
        minutes: longest time limit of a job; None: any.
    """

    submit: Limit | None = None
    minutes: Limit | None = None


@dataclasses.dataclass(frozen=True)
class Database:
    """What the accounting database says of a user; rows by sacctmgr's column names."""

    associations: tuple[Mapping[str, str], ...]
    qualities: Mapping[str, Mapping[str, str]]

    def limits(self, account: str | None, partition: Partition | None, qos: str | None) -> Limits:
        """The limits on jobs of an account, a partition and a quality of service; None: the user's default.

        Limits that an account has as a whole are not told to its users and are left out.
        """
        rows = [
            row
            for row in self.associations
            if row["Account"] == (account or row["DefaultAccount"])
            and row["Partition"] in ("", partition.name if partition else "")
        ]
        named = qos or next((row["DefaultQOS"] for row in rows if row["DefaultQOS"]), "normal")
        sources = [(row, f"account {row['Account']}") for row in rows]
        for quality in filter(None, (named, partition.qos if partition else "")):
            if quality in self.qualities:
                sources.append((self.qualities[quality], f"QOS {quality}"))
        submit = [
            Limit(int(value), of)
            for row, of in sources
            for column, value in row.items()
            if "Submit" in column and value.isdigit()
        ]
        wall = [Limit(minutes(row["MaxWall"]), of) for row, of in sources if row["MaxWall"] not in UNLIMITED]
        return Limits(_least(submit), _least(wall))


def read() -> Site:
    """Ask the controller what there is, hidden partitions included.

    Raises:
        Unanswered: it does not answer.
        LaunchError: there are no commands of Slurm, or they refuse.
    """
    columns = SEPARATOR.join(("%N", "%R", "%T", "%c", "%m", "%G"))
    return Site(
        read_settings(client.run(["scontrol", "show", "config"])),
        read_partitions(client.run(["scontrol", "--all", "--oneliner", "show", "partition"])),
        read_nodes(client.run(["sinfo", "--all", "--Node", "--noheader", f"--format={columns}"])),
    )


def read_database(site: Site, user: str) -> Database | None:
    """Ask the accounting database about a user.

    Args:
        site: the cluster.
        user: login name.

    Returns:
        What it says; None where it does not answer.
    """
    cluster = site.settings.get("ClusterName", "")
    sacctmgr = ["sacctmgr", "--noheader", "--parsable2", "show"]
    theirs = ["user", user, "withassoc", f"cluster={cluster}", f"format={ASSOCIATION}"]
    try:
        users = client.run([*sacctmgr, *theirs], seconds=20)
        qualities = client.run([*sacctmgr, "qos", f"format={QUALITY}"], seconds=20)
    except (Unanswered, LaunchError, TryLater):
        return None
    return Database(tuple(_rows(users, ASSOCIATION)), {row["Name"]: row for row in _rows(qualities, QUALITY)})


def read_settings(text: str) -> dict[str, str]:
    """What `scontrol show config` prints."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def read_partitions(text: str) -> dict[str, Partition]:
    """What `scontrol --oneliner show partition` prints."""
    found = {}
    for line in text.splitlines():
        fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if name := fields.get("PartitionName"):
            time, nodes, qos = (fields.get(key, "") for key in ("MaxTime", "MaxNodes", "QoS"))
            found[name] = Partition(
                name,
                fields.get("State", "UP"),
                fields.get("Default") == "YES",
                None if time in UNLIMITED else minutes(time),
                int(nodes) if nodes.isdigit() else None,
                "" if qos in UNLIMITED else qos,
            )
    return found


def read_nodes(text: str) -> tuple[Node, ...]:
    """What sinfo prints for each node and partition."""
    rows = (line.split(SEPARATOR) for line in text.splitlines() if line)
    return tuple(
        Node(name, partition, state, _number(cpus), _number(memory), read_gpus(gres))
        for name, partition, state, cpus, memory, gres in rows
    )


def read_gpus(gres: str) -> dict[str, int]:
    """The GPUs among generic resources, e.g. `gpu:h100:4(S:0-1),nvme:1`: kind in lower case -> number."""
    found: dict[str, int] = {}
    for entry in re.sub(r"\([^)]*\)", "", gres).split(","):
        name, *rest = entry.split(":")
        if name == "gpu":
            kind = ":".join(word for word in rest if not word.isdigit() and word != "no_consume").lower()
            number = rest[-1] if rest and rest[-1].isdigit() else "1"
            found[kind] = found.get(kind, 0) + int(number)
    return found


def _rows(text: str, columns: str) -> Iterator[dict[str, str]]:
    names = columns.split(",")
    return (dict(zip(names, line.split("|"), strict=True)) for line in text.splitlines() if line)


def _least(limits: Collection[Limit]) -> Limit | None:
    return min(limits, key=lambda limit: limit.value, default=None)


def _number(text: str) -> int:
    found = re.match(r"\d+", text)
    return int(found[0]) if found else 0
