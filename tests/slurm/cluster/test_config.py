"""The texts of the configuration, without a cluster."""

import dataclasses
from pathlib import Path

import pytest

from slurm.cluster import config

PORTS = {name: 20000 + i for i, name in enumerate(["slurmctld", "slurmdbd", *config.NODES])}
SETTINGS = config.Settings(Path("/r"), "box", "ada", PORTS, cgroups=True)


def options(text):
    """Name -> value of the lines with one option each."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


def test_everything_is_in_the_root_and_on_this_machine():
    found = options(config.slurm_conf(SETTINGS))
    paths = ("StateSaveLocation", "SlurmdSpoolDir", "SlurmctldPidFile", "SlurmdPidFile", "SlurmctldLogFile")
    assert all(found[name].startswith("/r/") for name in (*paths, "SlurmdLogFile"))
    assert found["SlurmctldHost"] == "box(127.0.0.1)"
    assert found["SlurmUser"] == found["SlurmdUser"] == "ada"
    assert (found["SlurmctldPort"], found["AccountingStoragePort"]) == ("20000", "20001")


@pytest.mark.parametrize("node", config.NODES)
def test_a_node_has_its_port_and_typed_gpus(node):
    [line] = [x for x in config.slurm_conf(SETTINGS).splitlines() if x.startswith(f"NodeName={node} ")]
    assert f" Port={PORTS[node]} CPUs=8 RealMemory=8000 Gres=gpu:{config.NODES[node]}:4 " in line
    [line] = [x for x in config.gres_conf(SETTINGS).splitlines() if x.startswith(f"NodeName={node} ")]
    assert line.endswith(f"Type={config.NODES[node]} Flags=nvidia_gpu_env File=/r/gpu[0-3]")


def test_urgent_spans_all_nodes_and_preempts():
    lines = config.slurm_conf(SETTINGS).splitlines()
    assert "PartitionName=urgent Nodes=sim0,sim1,train0,train1 PriorityTier=10 PreemptMode=OFF" in lines
    assert {"PreemptType=preempt/partition_prio", "PreemptMode=REQUEUE"} <= set(lines)


def test_memory_is_enforced_with_and_without_cgroups():
    with_cgroups = options(config.slurm_conf(SETTINGS))
    assert with_cgroups["TaskPlugin"] == "task/cgroup"
    assert "JobAcctGatherParams" not in with_cgroups
    without = options(config.slurm_conf(dataclasses.replace(SETTINGS, cgroups=False)))
    assert (without["TaskPlugin"], without["JobAcctGatherParams"]) == ("task/none", "OverMemoryKill")


def test_two_clusters_share_no_job_ids():
    other = dataclasses.replace(SETTINGS, ports={**PORTS, "slurmctld": 20001})
    assert SETTINGS.first_job + config.JOB_IDS <= other.first_job


def test_accounting_trusts_the_clusters_own_munge():
    assert options(config.slurmdbd_conf(SETTINGS))["AuthInfo"] == "socket=/r/run/munge"
    assert options(config.slurm_conf(SETTINGS))["AccountingStoragePass"] == "/r/run/munge"
