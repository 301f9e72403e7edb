"""The mission's placement syntax becomes cells and training units, or one line that says why not."""

import re

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from slurm.indices import Part, compact, parse, spread
from slurm.placement import ClusterSpec, NodeGroup, PlacementError, check_shards, describe, place

SIM = NodeGroup("sim", "0-1", gpus_per_node=4, gpu_type="rtx", partition="render")
TRAIN = NodeGroup("train", "2,3", gpus_per_node=8, gpu_type="h100", partition="train")


def placed(num_nodes, gpus_per_node, components, groups=()):
    return place(ClusterSpec(num_nodes, gpus_per_node, components, groups))


def of_group(label, placement):
    return {"node_group": label, "placement": placement}


def test_all_components_on_all_gpus_share_cells_and_take_turns():
    placement = placed(1, 8, {"env,rollout,actor": "all"})
    assert [(c.node, c.env, c.policy, c.shared, c.gpus) for c in placement.cells] == [
        (0, (gpu,), (gpu,), True, 1) for gpu in range(8)
    ]
    assert (placement.actor.nodes, placement.actor.gpus_per_node, placement.actor.processes) == (1, 8, 8)
    assert not placement.overlap
    assert not placement.cpu
    assert placement.all_gpus == 8


def test_simulators_on_one_node_and_policies_on_another_are_cells_of_two_gpus_of_any_node():
    placement = placed(2, 8, {"env": "0-7", "rollout": "8-15", "actor": "0-15"})
    assert [(c.env_global, c.policy_global, c.gpus) for c in placement.cells] == [
        ((gpu,), (8 + gpu,), 2) for gpu in range(8)
    ]
    assert placement.actor.node_gpus == (tuple(range(8)),) * 2
    assert placement.actor.processes == 16
    assert not placement.overlap


def test_an_update_on_gpus_of_its_own_may_run_beside_rollouts():
    placement = placed(2, 8, {"env": "0-3", "rollout": "4-7", "actor": "8-15"})
    assert [(c.node, c.env, c.policy) for c in placement.cells] == [(0, (gpu,), (4 + gpu,)) for gpu in range(4)]
    assert placement.actor.global_gpus == tuple(range(8, 16))
    assert placement.overlap


def test_node_groups_bring_their_partition_and_count_their_own_gpus():
    placement = placed(
        4, None, {"env,rollout": of_group("sim", "0-7"), "actor": of_group("train", "all")}, [SIM, TRAIN]
    )
    assert {(c.group.partition, c.group.gpu_type) for c in placement.cells} == {("render", "rtx")}
    assert [(c.node, *c.env) for c in placement.cells] == [(n, gpu) for n in range(2) for gpu in range(4)]
    assert placement.actor.global_gpus == tuple(range(8, 24))
    assert placement.actor.group == TRAIN
    assert placement.all_gpus == 24


def test_plain_indices_count_over_nodes_of_unlike_size():
    placement = placed(4, None, {"env,rollout": "0-7", "actor": "8-23"}, [SIM, TRAIN])
    assert placement == placed(
        4, None, {"env,rollout": of_group("sim", "all"), "actor": of_group("train", "all")}, [SIM, TRAIN]
    )


def test_nodes_without_a_group_have_no_partition():
    placement = placed(3, 2, {"env,rollout": "8-9", "actor": "0-7"}, [SIM])
    (group,) = {cell.group for cell in placement.cells}
    assert (group.label, group.gpus_per_node, group.partition, group.gpu_type) == ("", 2, None, None)
    assert placement.actor.group == SIM


def test_simulator_processes_are_counted_per_cell_and_otherwise_left_to_the_stage():
    placement = placed(1, 8, {"env": "0-1:0-3,2-3:4-5", "rollout": "4-5", "actor": "all"})
    assert [(c.env, c.policy, c.env_processes) for c in placement.cells] == [((0, 1), (4,), 4), ((2, 3), (5,), 2)]
    assert placed(1, 8, {"env": "0-3", "rollout,actor": "4-5"}).cells[0].env_processes == 0


def test_a_shared_cell_may_have_several_simulator_processes():
    placement = placed(1, 2, {"env": "all:0-5", "rollout,actor": "all"})
    assert [(c.shared, c.env_processes) for c in placement.cells] == [(True, 3)] * 2


@pytest.mark.parametrize(
    ("num_nodes", "components", "gpus"),
    [
        (1, {"env": "0-3", "rollout": "4-7", "actor": "8-15"}, 16),
        (2, {"env": "0-3", "rollout": "4-7", "actor": "8-15"}, 16),
        (1, {"env": 0, "rollout": 1, "actor": "all"}, 2),
    ],
)
def test_the_highest_index_implies_the_gpus_of_a_node(num_nodes, components, gpus):
    assert placed(num_nodes, None, components).all_gpus == gpus


@pytest.mark.parametrize(
    "cluster",
    [
        ClusterSpec(1, None, {"env,rollout,actor": "all"}),
        ClusterSpec(1, None, {}),
        ClusterSpec(2, 0, {"env": "all", "rollout, actor": "all"}),
        ClusterSpec(2, None, {"env,rollout,actor": "all"}, [NodeGroup("any", "0-1", partition="cpu")]),
    ],
)
def test_without_gpus_everything_runs_on_the_cpu(cluster):
    placement = place(cluster)
    assert placement.cpu
    assert placement.cells == ()
    assert placement.all_gpus == 0
    check_shards(placement, 3, "rollout")
    assert describe(placement) == ["no GPUs: every stage runs on CPU cores"]


def test_a_dry_run_reads_what_runs_where():
    components = {
        "env": of_group("train", "0-7"),
        "rollout": of_group("train", "8-15"),
        "actor": of_group("train", "all"),
    }
    assert describe(placed(4, None, components, [SIM, TRAIN])) == [
        "rollout: 8 cells of 1 simulator GPU + 1 policy GPU (h100, partition train)",
        "update: 2 nodes x 8 GPUs, 16 ranks (h100, partition train)",
        "update and rollouts share GPUs and take turns",
    ]
    assert describe(placed(1, 4, {"env": "0-1:0-3", "rollout": "2", "actor": "3"})) == [
        "rollout: 1 cell of 2 simulator GPUs + 1 policy GPU, 4 simulator processes",
        "update: 1 node x 1 GPU, 1 rank",
        "update may run beside rollouts",
    ]


@pytest.mark.parametrize(
    ("num_nodes", "gpus_per_node", "components", "says"),
    [
        (1, 8, {"env,rollout": "0-7", "actor": "0-15"}, "actor = '0-15' names GPU 15, but 1 node x 8 GPUs are 0-7; "),
        (
            1,
            8,
            {"env": "0-2", "rollout,actor": "4-7"},
            "env 0-2 are 3 GPUs, rollout 4-7 are 4: .*; give env a multiple of 4",
        ),
        (
            1,
            8,
            {"env": "0-3", "rollout,actor": "2-5"},
            "env 0-3 and rollout 2-5 share GPUs 2-3 .*; give env and rollout",
        ),
        (
            2,
            8,
            {"env": "0-7", "rollout,actor": "8"},
            r"cells of 8 \+ 1 = 9 GPUs, .* a node has 8; give env at most 7 times",
        ),
        (
            2,
            1,
            {"env": "0", "rollout,actor": "1"},
            r"cells of 1 \+ 1 = 2 GPUs, .* a node has 1; give env and rollout the",
        ),
        (
            1,
            8,
            {"env,actor": "all", "rollout": "0-7:0-15"},
            "puts 2 processes on a GPU, but .* one policy .*; write 0-7",
        ),
        (1, 8, {"env,rollout": "all", "actor": "all:0-15"}, "puts 2 processes on a GPU, but NCCL .*; write 0-7"),
        (
            2,
            8,
            {"env,rollout": "all", "actor": "0-11"},
            "actor 0-11 puts 8 GPUs on node 0 and 4 GPUs on node 1, .* e.g. 4",
        ),
        (4, None, {"env,rollout,actor": "0-9"}, "10 GPUs over 4 nodes are 2.5 each; set cluster.gpus_per_node"),
        (1, 8, {"env": "0-3", "rollout": "4-7"}, "leaves out actor; add actor: all"),
        (1, 8, {}, "leaves out env and rollout and actor"),
        (1, 8, {"evn": "all"}, "evn: 'evn' is no component; did you mean env.*known: env, rollout, actor"),
        (1, 8, {"env,": "all"}, "'' is no component; known: env, rollout, actor"),
        (1, 8, {"env": 0, "env, rollout": "all"}, "env, rollout = 'all' places env a second time; .*env = 0"),
        (1, 8, {"env": {"placment": "all"}}, "env: 'placment' is no key; did you mean placement"),
        (1, 8, {"env": {"node_group": "sim", "placement": "all"}}, "node_group: 'sim' is no label .* known: none"),
        (1, 8, {"env": {"node_group": None}}, "names no GPUs; add placement"),
        (1, 0, {"env,rollout,actor": 0}, "names GPUs, but nodes have 0 each; set gpus_per_node"),
    ],
)
def test_a_placement_that_cannot_be_says_so_with_the_arithmetic(num_nodes, gpus_per_node, components, says):
    with pytest.raises(PlacementError, match=rf"^cluster\.component_placement.*{says}"):
        placed(num_nodes, gpus_per_node, components)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("", "'' names nothing; write 'all', an index"),
        ("0-3,", "'' names nothing"),
        ("one", "'one' names nothing"),
        ("0:0:0", "'0:0:0' names nothing"),
        ("0-1:all", "'0-1:all' names nothing"),
        (-1, "'-1' names nothing"),
        ("٣", "names nothing"),
        ("3-0", "3-0 runs backwards; write 0-3"),
        ("0-2,2", "2 comes after 2; name each once, in ascending order"),
        ("all,3", "'all' already holds"),
        ("0-1:1-4", "begin at 1, but the next is 0"),
        ("0-1:0-3,2-3:5-6", "begin at 5, but the next is 4"),
        ("0-2:0-3", "processes 0-3 are 4 and GPUs 0-2 are 3: .* a multiple of 3 processes"),
        ("0-1:0", "processes 0 are 1 and GPUs 0-1 are 2"),
        ("all:0-9", "processes 0-9 are 10 and GPUs 0-7 are 8"),
        (True, "is no expression"),
        (None, "is no expression"),
        ([0, 1], "is no expression"),
    ],
)
def test_an_expression_that_cannot_be_read_says_why(value, says):
    with pytest.raises(PlacementError, match=rf"^cluster\.component_placement\.env = .*{says}"):
        placed(1, 8, {"env": value, "rollout,actor": "all"})


@pytest.mark.parametrize(
    ("groups", "components", "says"),
    [
        (
            [SIM, TRAIN],
            {"env": of_group("sim", "all"), "rollout": of_group("train", "0-7"), "actor": "8-23"},
            "env.* on node group sim where rollout 0-7 is on node group train, .* one job on one node; place env and",
        ),
        ([SIM, TRAIN], {"env,rollout,actor": "all"}, "actor 0-23 is on node group sim and node group train, "),
        ([SIM], {"env,rollout,actor": "6-9"}, "actor 6-9 is on node group sim and nodes of no group"),
        ([SIM], {"env,rollout": of_group("smi", "all")}, "'smi' is no label of cluster.node_groups; did you mean sim"),
        (
            [SIM],
            {"env,rollout,actor": of_group("sim", "0-8")},
            "names GPU 8, but 2 nodes x 4 GPUs of node group sim are 0-7; .* raise its node_ranks",
        ),
        ([NodeGroup("far", "3-4")], {}, "far.node_ranks = '3-4' names node 4, but cluster.num_nodes=4 are 0-3"),
        ([NodeGroup("odd", "0:0")], {}, "odd.node_ranks = '0:0' names processes"),
        ([SIM, NodeGroup("more", 1)], {}, "more.node_ranks = 1 holds node 1, as sim does"),
        ([SIM, NodeGroup("sim", "2")], {}, "label 'sim' is empty or given twice"),
    ],
)
def test_node_groups_that_contradict_each_other_are_refused(groups, components, says):
    with pytest.raises(PlacementError, match=rf"^cluster\..*{says}"):
        placed(4, 8, components, groups)


@pytest.mark.parametrize(
    ("groups", "components"),
    [
        ([NodeGroup("sim", "0-1", gpu_type="rtx")], {"env,rollout,actor": "all"}),
        ([NodeGroup("sim", "0-1")], {"env,rollout,actor": of_group("sim", "0-3")}),
        ([NodeGroup("sim", "0"), NodeGroup("train", "1", gpus_per_node=8)], {"env,rollout,actor": "0-7"}),
    ],
)
def test_a_number_of_gpus_that_nothing_implies_is_asked_for(groups, components):
    with pytest.raises(PlacementError, match=r"^cluster.gpus_per_node is not set, .* node 0 .*sim\.gpus_per_node"):
        placed(2, None, components, groups)


SPACE = st.sampled_from(["", " ", "  "])


@st.composite
def expressions(draw):
    """Parts and a text that means them."""
    parts, texts, ranks, stop = [], [], 0, 0
    for _ in range(draw(st.integers(1, 4))):
        first = stop + draw(st.integers(0, 3))
        stop = first + draw(st.integers(1, 4))
        text = f"{first}-{stop - 1}" if stop - first > 1 or draw(st.booleans()) else f"{first}"
        processes = None
        if each := draw(st.integers(0, 3)):
            processes = range(ranks, ranks + each * (stop - first))
            text += f"{draw(SPACE)}:{draw(SPACE)}{processes[0]}-{processes[-1]}"
        ranks += (each or 1) * (stop - first)
        parts.append(Part(range(first, stop), processes))
        texts.append(draw(SPACE) + text + draw(SPACE))
    return tuple(parts), ",".join(texts), ranks


@given(expressions())
def test_an_expression_is_read_as_it_was_written(expression):
    parts, text, ranks = expression
    assert parse(text, "here") == parts
    load = spread(parts, parts[-1].gpus[-1] + 1, "here")
    assert list(load) == [gpu for part in parts for gpu in part.gpus]
    assert sum(load.values()) == ranks


@given(st.sets(st.integers(0, 40), min_size=1).map(sorted))
def test_indices_survive_being_written(indices):
    assert list(spread(parse(compact(indices), "here"), 41, "here")) == indices


@st.composite
def clusters(draw):
    """A cluster whose nodes differ in size, and components placed on it in a way that often works."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    grouped = draw(st.booleans())
    if not grouped:
        sizes = [max(sizes)] * len(sizes)
    groups = [
        NodeGroup(f"kind{size}", compact(n for n, s in enumerate(sizes) if s == size), size) for size in set(sizes)
    ]
    gpus = range(sum(sizes))
    each = draw(st.integers(0, 2))
    cells = draw(st.integers(1, max(1, len(gpus) // (each + 1))))
    chosen = draw(st.permutations(gpus))
    rollout = sorted(chosen[:cells])
    env = sorted(chosen[cells : cells * (each + 1)]) if each else rollout
    first, last = sorted(draw(st.tuples(st.sampled_from(gpus), st.sampled_from(gpus))))
    actor = draw(st.sampled_from([gpus, gpus[first : last + 1], rollout]))
    components = {"env": compact(env or rollout), "rollout": compact(rollout), "actor": compact(actor)}
    return sizes, ClusterSpec(len(sizes), None if grouped else sizes[0], components, groups if grouped else ())


def refusal(action, *arguments):
    """What it is refused with, or None."""
    try:
        action(*arguments)
    except PlacementError as refused:
        return str(refused)
    return None


@given(clusters())
def test_cells_and_training_units_use_each_gpu_once_and_fit_on_nodes(case):
    sizes, cluster = case
    if refused := refusal(place, cluster):
        event("refused")
        assert re.match(r"cluster\.component_placement\.(env|rollout|actor) = ", refused)
        return
    placement = place(cluster)
    event("placed")
    where = [(node, local) for node, size in enumerate(sizes) for local in range(size)]
    asked = {name: list(spread(parse(text, ""), 16, "")) for name, text in cluster.component_placement.items()}

    assert sorted(gpu for cell in placement.cells for gpu in cell.env_global) == asked["env"]
    assert sorted(gpu for cell in placement.cells for gpu in cell.policy_global) == asked["rollout"]
    taken = [gpu for cell in placement.cells for gpu in {*cell.env_global, *cell.policy_global}]
    assert len(taken) == len(set(taken)) == sum(cell.gpus for cell in placement.cells)
    for cell in placement.cells:
        assert [where[gpu][1] for gpu in cell.env_global] == list(cell.env)
        assert [where[gpu] for gpu in cell.policy_global] == [(cell.node, gpu) for gpu in cell.policy]
        assert cell.gpus <= cell.group.gpus_per_node == sizes[cell.node]

    actor = placement.actor
    assert list(actor.global_gpus) == asked["actor"]
    nodes = sorted({where[gpu][0] for gpu in actor.global_gpus})
    pairs = [(node, local) for node, gpus in zip(nodes, actor.node_gpus, strict=True) for local in gpus]
    assert pairs == [where[gpu] for gpu in actor.global_gpus]
    assert actor.processes == actor.nodes * actor.gpus_per_node == len(pairs)
    assert placement.overlap == set(taken).isdisjoint(actor.global_gpus)
    assert placement.all_gpus == len(where)
    assert all("\n" not in line for line in describe(placement))


TEXTS = st.text("0123-,: al")
VALUES = TEXTS | st.integers(-1, 99) | st.none() | st.fixed_dictionaries({"node_group": TEXTS, "placement": TEXTS})


@given(st.dictionaries(st.sampled_from(["env", "rollout", "actor", "env,rollout", "acter"]), VALUES))
def test_whatever_is_written_is_placed_or_refused_in_one_line_that_names_the_key(components):
    refused = refusal(place, ClusterSpec(2, 4, components))
    assert refused is None or re.fullmatch(r"cluster\.component_placement.*", refused)


@given(st.integers(1, 8), st.integers(1, 40))
def test_shards_fill_all_cells_or_are_refused_with_numbers_that_do(cells, shards):
    placement = placed(1, cells, {"env,rollout,actor": "all"})
    refused = refusal(check_shards, placement, shards, "rollout")
    assert (refused is None) == (shards % cells == 0)
    if refused:
        better = re.match(rf"rollout\.shards={shards} does not .*; set it to (\d+) or (\d+)$", refused)
        assert [refusal(check_shards, placement, int(number), "rollout") for number in better.groups()] == [None, None]
