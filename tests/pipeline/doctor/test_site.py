"""What the doctor says of a real cluster: each check can fail, and says what is there and what to do."""

import pytest

from pipeline.compose import compose
from pipeline.doctor import acceptance, asks, site
from slurm import site as slurm_site
from slurm.site import Node, Partition, Site

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture
def examine(make, by_name):
    """The checks of the recipe with changes: `checks = examine("slurm.sft.mem=90G")`."""

    def examine(*overrides, gpus=True, limits=False):
        config, there = make(*overrides, gpus=gpus), slurm_site.read()
        database = slurm_site.read_database(there, site.user()) if limits else slurm_site.Database((), {})
        return by_name(site.examine(config, asks.read(config), there, database))

    return examine


@pytest.fixture
def sbatch(make, by_name):
    return lambda *overrides, gpus=True: by_name(acceptance.examine(asks.read(make(*overrides, gpus=gpus))))


@pytest.fixture
def partition(cluster):
    """Makes a partition: `partition("short", "maxtime=30")`; it goes when the test is over."""
    made = []

    def partition(name, *settings, nodes="sim0"):
        cluster.run("scontrol", "create", f"partitionname={name}", f"nodes={nodes}", *settings)
        made.append(name)

    yield partition
    for name in made:
        cluster.run("scontrol", "delete", f"partitionname={name}")


def test_what_fits_passes(examine, sbatch):
    assert {check.verdict for check in [*examine().values(), *sbatch().values()]} == {"pass"}


def test_a_partition_that_is_not_there(examine, sbatch):
    check = examine("slurm.sft.partition=nope")["partition: nope"]
    assert check.verdict == "fail"
    assert "sim, train, urgent" in check.found
    assert "slurm.sft.partition" in check.remedy
    refused = sbatch("slurm.sft.partition=nope")["sbatch: sft"]
    assert refused.verdict == "fail"
    assert "invalid partition specified: nope" in refused.found


def test_a_partition_in_which_nothing_starts(examine, partition):
    partition("shut", "state=down")
    check = examine("slurm.sft.partition=shut", gpus=False)["partition: shut"]
    assert check.verdict == "fail"
    assert "DOWN" in check.found


def test_more_time_than_the_partition_gives(examine, partition):
    partition("short", "maxtime=30")
    checks = examine("slurm.partition=short", "slurm.time=45", "slurm.evaluate.time=0:30:00", gpus=False)
    assert checks["time: sft"].verdict == "fail"
    assert checks["time: sft"].found == "00:45:00 is more than the MaxTime of short, 00:30:00"
    assert checks["time: sft"].remedy == "set slurm.sft.time=00:30:00 or less"
    assert checks["time: evaluate"].verdict == "pass"
    # `baton run` needs no such job.
    assert checks["time: orchestrator"].verdict == "warn"


def test_one_of_several_partitions_will_do(examine, partition):
    partition("short", "maxtime=30")
    check = examine("slurm.partition='short,sim'", "slurm.time=45", gpus=False)["time: sft"]
    assert check.verdict == "warn"
    assert "another partition" in check.remedy


def test_more_nodes_than_a_job_may_have(examine, partition):
    partition("narrow", "maxnodes=1", nodes="sim0,sim1")
    wide = ("sft.processes=2", "slurm.sft.nodes=2")
    assert examine("slurm.partition=narrow", *wide, gpus=False)["nodes: sft"].verdict == "fail"
    assert examine("slurm.partition=sim", *wide, gpus=False)["nodes: sft"].verdict == "pass"


@pytest.mark.parametrize(
    ("overrides", "wanted", "remedy"),
    [
        (["slurm.sft.mem=900G"], "900G", "slurm.sft.mem or slurm.mem to 8000M"),
        (["slurm.sft.cpus=9"], "18 cores", "slurm.sft.cpus"),
        (
            ["cluster.gpus_per_node=8", "cluster.component_placement.actor.placement=0-7"],
            "8 h100 GPUs",
            "gpus_per_node",
        ),
    ],
)
def test_more_than_a_node_has(examine, sbatch, overrides, wanted, remedy):
    check = examine(*overrides)["nodes: sft"]
    assert check.verdict == "fail"
    assert wanted in check.found
    assert "train0, the nearest, has 8 cores, 8000M, 4 h100 GPUs" in check.found
    assert remedy in check.remedy
    assert sbatch(*overrides)["sbatch: sft"].verdict == "fail"


def test_a_kind_of_gpu_that_is_not_there(make, recipe, by_name):
    make()
    recipe.write_text(recipe.read_text().replace("h100", "v100"))
    jobs = asks.read(compose(recipe))
    check = by_name(site.examine(compose(recipe), jobs, slurm_site.read(), None))["nodes: update"]
    assert check.verdict == "fail"
    assert "2 v100 GPUs; train0, the nearest, has 8 cores, 8000M, 4 h100 GPUs" in check.found
    assert "sinfo -o '%P %G'" in check.remedy
    assert by_name(acceptance.examine(jobs))["sbatch: update"].verdict == "fail"


def test_more_such_nodes_than_there_are(examine):
    check = examine("sft.processes=3", "slurm.sft.nodes=3", "slurm.partition=sim", "sft.batch=33", gpus=False)[
        "nodes: sft"
    ]
    assert check.verdict == "fail"
    assert "sim has 2" in check.found


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("account=nobody", "Invalid account"),
        ("qos=nope", "Invalid qos"),
        ("constraint=nope", "Invalid feature"),
        ("reservation=nope", "reservation is invalid"),
        ("gres=tape:1", "Invalid generic resource"),
        ("nodelist=zzz", "Invalid node name"),
    ],
)
def test_what_only_slurm_can_judge(sbatch, override, sentence):
    checks = sbatch(f"slurm.{override}")
    assert checks["sbatch: rollout"].verdict == "fail"
    assert sentence in checks["sbatch: rollout"].found
    assert checks["sbatch: orchestrator"].verdict == "warn"


def test_the_job_that_a_schedule_needs(sbatch):
    chain = sbatch("slurm.schedule=chain", "slurm.orchestrator.account=nobody", gpus=False)
    assert chain["sbatch: orchestrator"].verdict == "fail"
    assert chain["sbatch: sft"].verdict == "pass"
    pilot = sbatch("slurm.schedule=pilot", "slurm.pilot.account=nobody", gpus=False)
    assert list(pilot) == ["sbatch: pilot"]
    assert pilot["sbatch: pilot"].verdict == "fail"


def test_more_shards_than_an_array_may_have(examine, sbatch):
    many = ("rollout.shards=1002", "rollout.episodes=1002")
    check = examine(*many, gpus=False)["array: rollout"]
    assert check.verdict == "fail"
    assert "MaxArraySize is 1001" in check.found
    assert sbatch(*many, gpus=False)["sbatch: rollout"].verdict == "fail"
    assert examine("rollout.shards=1001", "rollout.episodes=1001", gpus=False)["array: rollout"].verdict == "pass"


def test_limits_of_an_account(cluster, examine):
    change = ("sacctmgr", "--immediate")
    cluster.run(*change, "add", "account", "tight", "cluster=baton")
    cluster.run(*change, "add", "user", "root", "account=tight", "maxsubmitjobs=3", "maxwall=60")
    try:
        tight = ("slurm.account=tight", "slurm.time=30", "slurm.orchestrator.time=90")
        checks = examine(*tight, limits=True)
        assert checks["queue"].verdict == "warn"
        assert "account tight may have 3" in checks["queue"].found
        assert checks["time: sft"].verdict == "pass"
        assert "01:30:00 is more than the MaxWall of account tight, 01:00:00" in checks["time: orchestrator"].found
        chained = examine(*tight, "slurm.schedule=chain", limits=True)["queue"]
        assert chained.verdict == "warn"
        assert "slurm.chain_epochs" in chained.remedy
        shards = ("rollout.shards=4", "rollout.num_envs=1")
        assert examine(*tight, *shards, gpus=False, limits=True)["queue"].verdict == "fail"
    finally:
        cluster.run(*change, "delete", "user", "root", "account=tight")
        cluster.run(*change, "delete", "account", "tight")


def test_nodes_that_are_down(make, by_name):
    config = make(gpus=False)
    nodes = (Node("a", "p", "down*", 8, 8000, {}), Node("b", "p", "drained", 8, 8000, {}))
    there = Site({}, {"p": Partition("p", "UP", True)}, nodes)
    checks = by_name(site.examine(config, asks.read(config), there, None))
    assert checks["partition: p"].verdict == "fail"
    assert "a down*, b drained" in checks["partition: p"].found
    assert checks["nodes: sft"].verdict == "warn"
    assert checks["accounting"].verdict == "warn"
