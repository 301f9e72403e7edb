"""What units take of machines, and what their jobs ask of Slurm, from the config and the placement."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import resources
from pipeline.artifacts import Unit
from pipeline.compose import compose
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.plan import make_plan
from pipeline.resolve import resolve
from pipeline.resources import Share, check_machine, grown, options, share

SFT, UPDATE, EVALUATE = Unit(0, "sft"), Unit(1, "update"), Unit(1, "evaluate")
TWO_GROUPS = {
    "num_nodes": 4,
    "component_placement": {
        "env": {"node_group": "sim", "placement": "0-3"},
        "rollout": {"node_group": "sim", "placement": "4-7"},
        "actor": {"node_group": "train", "placement": "all"},
    },
    "node_groups": [
        {"label": "sim", "node_ranks": "0-1", "gpus_per_node": 4, "gpu_type": "rtx", "partition": "sim"},
        {"label": "train", "node_ranks": "2-3", "gpus_per_node": 4, "gpu_type": "h100", "partition": "train"},
    ],
}


def config(**values: Any) -> Config:
    return Config.model_validate({"name": "run", "epochs": 1, **values})


def placed(env: object, rollout: object, actor: object, shards: int = 1, **cluster: Any) -> Config:
    """A config on one node with GPUs, resolved."""
    components = {"env": env, "rollout": rollout, "actor": actor}
    return resolve(config(cluster={"component_placement": components, **cluster}, rollout={"shards": shards}))


def refusal(**values: Any) -> str:
    with pytest.raises(UserError) as caught:
        resolve(config(**values))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_gpus_a_training_stage_has_one_rank_unless_it_says_otherwise() -> None:
    found = resolve(config(update={"processes": 2}))
    assert (found.sft.processes, found.update.processes) == (1, 2)
    assert resolve(found) == found
    assert share(found, UPDATE) == Share(processes=2, threads=2, simulator_workers=0, cores=4)


def test_gpus_of_the_actor_are_ranks_of_both_training_stages() -> None:
    found = placed("0-3", "0-3", "0-3", shards=4)
    assert (found.sft.processes, found.update.processes) == (4, 4)
    assert resolve(found) == found
    explicit = config(
        cluster={"component_placement": {"env,rollout,actor": "0-3"}},
        rollout={"shards": 4},
        sft={"processes": 4},
    )
    assert resolve(explicit).sft.processes == 4


def test_ranks_that_contradict_the_placement_are_refused_with_both_numbers() -> None:
    message = refusal(
        cluster={"component_placement": {"env,rollout,actor": "0-3"}}, rollout={"shards": 4}, sft={"processes": 3}
    )
    assert message == (
        "sft.processes=3, but cluster.component_placement gives the actor 4 GPUs, one rank each: leave sft.processes "
        "out or set it to 4"
    )


def test_a_batch_that_does_not_split_over_the_ranks_is_refused_with_the_division() -> None:
    assert refusal(update={"processes": 3}) == (
        "update.minibatch=128 does not split over 3 processes: 128 / 3 leaves 2; set it to a multiple of 3"
    )
    implied = {
        "cluster": {"component_placement": {"env,rollout,actor": "0-2"}},
        "rollout": {"shards": 3, "episodes": 66},
    }
    assert refusal(**implied).startswith("sft.batch=32 does not split over 3 processes: 32 / 3 leaves 2;")


def test_shards_that_leave_cells_idle_are_refused_with_the_arithmetic() -> None:
    cluster = {"component_placement": {"env": "0-3", "rollout": "4-7", "actor": "0-7"}}
    message = refusal(cluster=cluster, rollout={"shards": 6, "episodes": 66})
    assert message.startswith("rollout.shards=6 does not spread over 4 cells")
    assert "6 = 1 x 4 + 2, so 2 would idle; set it to 4 or 8" in message


def test_a_placement_that_contradicts_itself_is_one_line() -> None:
    assert "do not pair up" in refusal(
        cluster={"component_placement": {"env": "0-2", "rollout": "3-4", "actor": "all"}}
    )
    left_out = refusal(cluster={"component_placement": {"env": "0-3"}})
    assert "leaves out rollout and actor" in left_out


def test_nodes_that_contradict_placement_or_ranks_are_refused() -> None:
    by_placement = {"cluster": {"component_placement": {"env,rollout,actor": "0-3"}}, "rollout": {"shards": 4}}
    message = refusal(**by_placement, slurm={"update": {"nodes": 2}})
    assert message.startswith("slurm.update.nodes=2, but cluster.component_placement puts the actor on 1 nodes")
    assert refusal(sft={"processes": 4}, slurm={"sft": {"nodes": 3}}) == (
        "sft.processes=4 does not spread over slurm.sft.nodes=3: 4 / 3 leaves 1; set sft.processes to a multiple of 3"
    )
    spread = resolve(config(sft={"processes": 4}, update={"processes": 2}, slurm={"nodes": 2}))
    assert (share(spread, SFT).nodes, share(spread, UPDATE).nodes) == (2, 2)
    assert share(spread, Unit(1, "rollout", 0)).nodes == 1, "a rollout is one process"


def test_the_stages_of_a_cell_share_its_gpus_as_it_says() -> None:
    found = placed("0-3", "4-5", "0-3", shards=2)
    first, second = (share(found, Unit(1, "rollout", shard)) for shard in (0, 1))
    assert (first.gpus, first.devices, first.cell) == (3, (0, 1, 4), "2+1")
    assert (second.gpus, second.devices, second.cell) == (3, (2, 3, 5), "2+1")
    assert share(found, Unit(1, "rollout", 2)) == first, "a third shard takes its turn"
    assert (share(found, EVALUATE).devices, share(found, EVALUATE).cell) == ((0, 1, 4), "2+1")
    expert = share(found, Unit(0, "demonstrate", 1))
    assert (expert.gpus, expert.devices, expert.cell) == (2, (2, 3), "2+0"), "the expert needs no policy's GPU"
    assert share(found, UPDATE).devices == (0, 1, 2, 3)
    together = placed("0-1", "0-1", "0-1", shards=2)
    assert (share(together, EVALUATE).gpus, share(together, EVALUATE).cell) == (1, "shared:1")


def test_processes_of_a_placement_are_simulator_workers() -> None:
    found = placed("0-1:0-3", "2-3", "all", shards=2)
    rollout = share(found, Unit(1, "rollout", 0))
    assert (rollout.simulator_workers, rollout.cores) == (2, 2)
    plain = placed("0-1", "2-3", "all", shards=2)
    assert share(plain, Unit(1, "rollout", 0)).simulator_workers == plain.rollout.num_workers == 1


def test_processes_that_contradict_the_placement_are_refused_with_both_numbers() -> None:
    components = {"env": "0-1:0-3", "rollout": "2-3", "actor": "0-3"}
    cluster = {"component_placement": components}
    message = refusal(cluster=cluster, rollout={"shards": 2, "num_workers": 3})
    assert message.startswith("rollout.num_workers=3, but cluster.component_placement.env puts 2 simulator processes")
    assert resolve(config(cluster=cluster, rollout={"shards": 2, "num_workers": 2})).evaluate.num_workers == 2
    uneven = {"component_placement": {**components, "env": "0:0-1,1:2"}}
    assert "gives cells 1 and 2 simulator processes" in refusal(cluster=uneven, rollout={"shards": 2})


def test_node_groups_give_units_their_partition_and_kind_of_gpu() -> None:
    found = resolve(config(cluster=TWO_GROUPS, rollout={"shards": 4}))
    rollout, update = share(found, Unit(1, "rollout", 0)), share(found, UPDATE)
    assert (rollout.nodes, rollout.gpus, rollout.gpu_type, rollout.partition) == (1, 2, "rtx", "sim")
    assert (update.nodes, update.gpus, update.gpu_type, update.partition) == (2, 4, "h100", "train")
    assert (update.processes, update.gpu_count) == (8, 8)
    cells = [share(found, Unit(1, "rollout", shard)) for shard in range(4)]
    assert [(cell.node, cell.devices) for cell in cells] == [(0, (0, 1)), (0, (2, 3)), (1, (0, 1)), (1, (2, 3))]
    assert [*itertools.chain(*(cell.places for cell in cells))] == list(range(8)), "no two share a GPU"
    assert (update.node, update.devices, update.places) == (2, (0, 1, 2, 3), tuple(range(8, 16)))
    assert options(found, "rollout", rollout).partition == "sim"
    assert options(found, "rollout", rollout).array_throttle == 4, "as many at once as there are cells"
    assert options(found, "update", update).partition == "train"
    assert options(found, "update", update).array_throttle is None


@pytest.mark.parametrize(
    ("env", "rollout", "nodes", "first"),
    [("0-3", "0-3", (1, 1, 1, 1), 8), ("0-3", "4-7", (1, 1, 2, 2), 8)],
    ids=["on one node", "counted on two nodes"],
)
def test_seats_are_right_where_nodes_differ_in_size(env: str, rollout: str, nodes: tuple[int, ...], first: int) -> None:
    components = {
        "env": {"node_group": "small", "placement": env},
        "rollout": {"node_group": "small", "placement": rollout},
        "actor": {"node_group": "big", "placement": "all"},
    }
    groups = [
        {"label": "big", "node_ranks": 0, "gpus_per_node": 8},
        {"label": "small", "node_ranks": "1-2", "gpus_per_node": 4},
    ]
    cluster = {"num_nodes": 3, "component_placement": components, "node_groups": groups}
    found = resolve(config(cluster=cluster, rollout={"shards": 4}))
    cells = [share(found, Unit(1, "rollout", shard)) for shard in range(4)]
    assert tuple(cell.node for cell in cells) == nodes
    places = [*itertools.chain(*(cell.places for cell in cells))]
    assert places == list(range(first, first + len(places)))
    assert not set(places) & set(share(found, UPDATE).places)


def test_a_stages_own_option_goes_before_the_groups_and_the_shared_one() -> None:
    slurm = {"partition": "shared", "array_throttle": 2, "update": {"partition": "own"}}
    found = resolve(config(cluster=TWO_GROUPS, rollout={"shards": 4}, slurm=slurm))
    assert options(found, "rollout", share(found, Unit(1, "rollout", 0))).partition == "sim"
    assert options(found, "rollout", share(found, Unit(1, "rollout", 0))).array_throttle == 2
    assert options(found, "update", share(found, UPDATE)).partition == "own"
    assert options(found, "update").partition == "own"
    assert options(found, "sft").partition == "shared", "without a share nobody knows the group"


def test_every_option_of_a_stage_overrides_the_shared_one_and_that_the_default() -> None:
    shared = {
        "account": "lab",
        "qos": "low",
        "constraint": "ib",
        "reservation": "r",
        "nodelist": "n1",
        "exclude": "n2",
        "gres": "nvme:1",
        "mem": "4G",
        "time": "2:00:00",
        "array_throttle": 3,
        "mail_user": "me",
        "mail_type": "FAIL",
        "setup": ["module load cuda"],
        "python": "python3",
        "extra": {"nice": 1},
    }
    own = {name: f"own-{name}" for name in shared if name not in ("time", "mem", "array_throttle", "setup", "extra")}
    own |= {"mem": "8G", "time": 7, "array_throttle": 1, "setup": ["a", "b"], "extra": {"exclusive": True}}
    found = config(
        slurm={**shared, "update": own, "gpu_option": "gpus-per-node", "requeue": False, "signal_seconds": 5}
    )
    general = options(found, "evaluate")
    assert {name: getattr(general, name) for name in shared} == {**shared, "time": 120, "setup": ("module load cuda",)}
    special = options(found, "update")
    assert {name: getattr(special, name) for name in own} == {**own, "setup": ("a", "b")}
    for each in (general, special):
        assert (each.gpu_option, each.requeue, each.signal_seconds) == ("gpus-per-node", False, 5)
    default = options(config(), "update")
    assert (default.time, default.partition, default.mem, default.setup, default.extra) == (240, None, None, (), {})
    assert (options(config(), "orchestrator").time, options(config(), "orchestrator").mem) == (1440, "2G")
    assert options(config(), "pilot").time == 720
    assert options(config(slurm={"time": None}), "sft").time == 240


def test_memory_grows_in_slurms_form() -> None:
    assert grown("64G", 1.0) == "64G", "what does not grow stays as it was written"
    assert grown("64G", 1.5) == "98304M"
    assert grown("500", 2) == "1000M"
    assert grown("3M", 1.25) == "4M"


def shares(of: Config) -> list[tuple[str, Share]]:
    return [(plan.unit.stage, plan.share) for plan in make_plan(of)]


def test_a_unit_larger_than_the_machine_is_refused_by_name() -> None:
    asked = config(update={"processes": 2, "threads": 3})
    with pytest.raises(UserError, match=r"update\.processes=2, update\.threads=3: .* takes 6 cores .* has 4"):
        check_machine(asked, shares(asked), 4, 0)
    check_machine(asked, shares(asked), 6, 0)
    asked = config(demonstrate={"num_workers": 9})
    with pytest.raises(
        UserError, match=r"^demonstrate\.num_workers=9: a unit of demonstrate takes 9 cores .* at most 8$"
    ):
        check_machine(asked, shares(asked), 8, 0)


def test_gpus_that_this_machine_has_not_are_refused_by_index() -> None:
    asked = placed("0-3", "0-3", "0-3", shards=4)
    check_machine(asked, shares(asked), 64, 4)
    with pytest.raises(UserError) as refused:
        check_machine(asked, shares(asked), 64, 3)
    assert str(refused.value) == (
        "cluster.component_placement gives sft GPU 3, and this machine has 3 (GPUs 0 to 2); name others, or run on CPU "
        "cores: add cluster.component_placement={} to the command"
    )


@pytest.mark.parametrize(
    ("cluster", "overrides"),
    [
        ({"gpus_per_node": 1}, ["cluster.gpus_per_node=null"]),
        ({"component_placement": {"env,rollout,actor": 0}}, ["cluster.component_placement={}"]),
        (
            {"node_groups": [{"label": "a", "node_ranks": 0, "gpus_per_node": 1}]},
            ["cluster.node_groups=[]"],
        ),
    ],
)
def test_where_there_are_no_gpus_the_remedy_is_one_that_works(
    tmp_path: Path, cluster: dict[str, object], overrides: list[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"cluster": cluster}))
    asked = compose(recipe)
    with pytest.raises(UserError) as refused:
        check_machine(asked, shares(asked), 64, 0)
    assert str(refused.value) == (
        "cluster.component_placement gives demonstrate GPU 0, and this machine has 0 (no NVIDIA driver is loaded); "
        f"name others, or run on CPU cores: add {' '.join(overrides)} to the command"
    )
    mended = compose(recipe, overrides)
    check_machine(mended, shares(mended), 64, 0)


def test_several_nodes_without_slurm_are_refused() -> None:
    asked = config()
    check_machine(asked, shares(asked), 64, 0)
    asked = config(cluster={"num_nodes": 2})
    with pytest.raises(UserError, match=r"cluster\.num_nodes=2: without Slurm .* set cluster\.num_nodes=1"):
        check_machine(asked, shares(asked), 64, 8)


def test_this_machine_has_cores_and_counts_its_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resources.machine_cores() >= 1
    monkeypatch.setattr(resources, "Path", lambda folder: tmp_path / folder.strip("/"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert resources.machine_gpus() == 0
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert resources.machine_gpus() == 0
    (tmp_path / "dev").mkdir()
    for name in ("nvidia0", "nvidia10", "nvidiactl", "nvidia-uvm", "nvidia-caps", "null"):
        (tmp_path / "dev" / name).touch()
    assert resources.machine_gpus() == 2
    for value, count in (("", 0), ("-1", 0), ("1", 1), ("1,-1,0", 1), ("GPU-5f2a, MIG-7, MIG-8", 3)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert resources.machine_gpus() == count


def test_gpus_that_are_not_shown_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    asked = config(cluster={"gpus_per_node": 2, "component_placement": {"env,rollout,actor": "0-1"}})
    with pytest.raises(UserError, match=r"this machine has 1 \(GPUs 0 to 0; CUDA_VISIBLE_DEVICES='3'\); name others"):
        check_machine(asked, shares(asked), 64, 1)


MISSION = """
cluster:
  num_nodes: 2
  component_placement:
    env: 0-7
    rollout: 8-15
    actor: 0-15
rollout:
  pipeline_stage_num: 2
"""


def test_the_missions_snippet_works_as_it_stands(tmp_path: Path) -> None:
    recipe = tmp_path / "mission.yaml"
    recipe.write_text(MISSION)
    config = compose(recipe)
    assert (config.rollout.shards, config.update.processes, config.sft.processes) == (8, 16, 16)
    with pytest.raises(UserError, match=r"mission\.yaml .*rollout\.shards=6 does not spread over 8 cells"):
        compose(recipe, ["rollout.shards=6", "rollout.episodes=12"])
    with pytest.raises(UserError, match=r"rollout\.episodes=60 is not a multiple of 8"):
        compose(recipe, ["rollout.episodes=60"])
