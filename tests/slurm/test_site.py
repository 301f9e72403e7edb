"""What scontrol, sinfo and sacctmgr print, in types."""

import pytest

from slurm import site
from slurm.client import SEPARATOR
from slurm.site import Database, Limit, Node, Partition


def test_the_test_cluster(cluster):
    there = site.read()
    assert there.version[0].isdigit()
    assert there.accounting
    assert there.enforces_limits
    assert there.default_partition == "sim"
    assert set(there.partitions) >= {"sim", "train", "urgent"}
    assert there.number("MaxArraySize") == 1001
    sims = [node for node in there.nodes if node.partition == "sim"]
    assert [(node.name, node.cpus, node.memory, node.gpus) for node in sims] == [
        (name, 8, 8000, {"rtx": 4}) for name in ("sim0", "sim1")
    ]
    database = site.read_database(there, "root")
    assert database.limits(None, there.partitions["sim"], None) == site.Limits()


def test_a_database_that_does_not_answer(cluster, monkeypatch, tmp_path):
    (tmp_path / "sacctmgr").write_text("#!/bin/sh\necho 'sacctmgr: error: Connection refused' >&2; exit 1\n")
    (tmp_path / "sacctmgr").chmod(0o755)
    there = site.read()
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert site.read_database(there, "root") is None


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("(null)", {}),
        ("gpu:h100:8(S:0-1)", {"h100": 8}),
        ("gpu:4", {"": 4}),
        ("gpu", {"": 1}),
        ("gpu:A100:4(S:0,1),gpu:v100:2,nvme:1", {"a100": 4, "v100": 2}),
        ("gpu:nvidia_a100_3g.20gb:2,shard:8", {"nvidia_a100_3g.20gb": 2}),
    ],
)
def test_gpus(gres, gpus):
    assert site.read_gpus(gres) == gpus


@pytest.mark.parametrize(
    ("state", "usable"),
    [("idle", True), ("mixed-", True), ("allocated*", True), ("idle~", True), ("down*", False), ("draining", False)],
)
def test_states_of_nodes(state, usable):
    line = SEPARATOR.join(("n1", "gpu", state, "64", "512000+", "gpu:h100:8"))
    (node,) = site.read_nodes(line + "\n")
    assert (node.usable, node.memory, node.gpu_count(None), node.gpu_count("H100")) == (usable, 512000, 8, 8)


def test_partitions():
    text = (
        "PartitionName=long AllowGroups=ALL Default=NO QoS=part MaxNodes=4 MaxTime=7-00:00:00 State=UP\n"
        "PartitionName=any Default=YES QoS=N/A MaxNodes=UNLIMITED MaxTime=UNLIMITED State=DRAIN\n"
    )
    assert site.read_partitions(text) == {
        "long": Partition("long", "UP", False, 7 * 24 * 60, 4, "part"),
        "any": Partition("any", "DRAIN", True),
    }


def test_the_tightest_limit_counts():
    association = {"DefaultAccount": "lab", "Account": "lab", "Partition": "", "DefaultQOS": "", "MaxSubmitJobs": "50"}
    association |= {"GrpSubmitJobs": "", "MaxWall": "2-00:00:00"}
    quality = {"MaxSubmitJobsPerUser": "", "MaxSubmitJobsPerAccount": "", "GrpSubmitJobs": "", "MaxWall": ""}
    database = Database(
        (association, {**association, "Account": "other", "MaxSubmitJobs": "1"}),
        {
            "normal": quality,
            "debug": {**quality, "MaxSubmitJobsPerUser": "5", "MaxWall": "01:00:00"},
            "part": {**quality, "GrpSubmitJobs": "20"},
        },
    )
    partition = Partition("p", "UP", qos="part")
    assert database.limits(None, None, None) == site.Limits(Limit(50, "account lab"), Limit(2880, "account lab"))
    assert database.limits("other", None, None).submit == Limit(1, "account other")
    assert database.limits(None, partition, None).submit == Limit(20, "QOS part")
    assert database.limits(None, partition, "debug") == site.Limits(Limit(5, "QOS debug"), Limit(60, "QOS debug"))


def test_settings():
    settings = site.read_settings(
        "Configuration data as of now\nMaxArraySize   = 1001\nPlugin = a=b\nSlurmctld is UP\n"
    )
    assert settings == {"MaxArraySize": "1001", "Plugin": "a=b"}


def test_gpus_of_no_kind():
    assert Node("n", "p", "idle", 1, 1, {}).gpu_count("h100") == 0
