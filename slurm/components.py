"""`cluster` of the config, in the mission's syntax -> the nodes and the GPUs of each component.

Components are `env` (simulators), `rollout` (the policy that acts) and `actor` (the ranks of sft and update). Plain
indices count GPUs over all nodes in order; {node_group, placement} counts within the nodes of a group.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
from collections.abc import Collection, Mapping, Sequence

from slurm.indices import (
    ALL,
    Expression,
    PlacementError,
    compact,
    highest,
    node_ranks,
    parse,
    spread,
    states_processes,
)

COMPONENTS = ("env", "rollout", "actor")


@dataclasses.dataclass(frozen=True)
class NodeGroup:
    """Nodes of one kind.

    Attributes:
        label: names it; empty for the nodes that are in no group.
        node_ranks: its nodes, e.g. "0-1" or "2,3".
        gpus_per_node: GPUs of each of its nodes; None: as the cluster says. Never None in a result.
        gpu_type: Slurm's name of the GPUs.
        partition: Slurm partition of the nodes.
    """

    label: str
    node_ranks: str | int
    gpus_per_node: int | None = None
    gpu_type: str | None = None
    partition: str | None = None


NO_GROUP = NodeGroup("", "all")


@dataclasses.dataclass(frozen=True)
class ClusterSpec:
    """What the config says of the cluster.

    Attributes:
        num_nodes: number of nodes, at least 1.
        gpus_per_node: GPUs of each node whose group does not say otherwise; None: as the placement implies.
        component_placement: expressions of GPUs by component, or by components joined with commas.
        node_groups: nodes that differ from the others.
    """

    num_nodes: int
    gpus_per_node: int | None
    component_placement: Mapping[str, object]
    node_groups: Sequence[NodeGroup] = ()


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A GPU: its index over the cluster, its node, its index on that node, and the node's group."""

    index: int
    node: int
    local: int
    group: NodeGroup


@dataclasses.dataclass(frozen=True)
class Wish:
    """What the config says of a component.

    Attributes:
        place: names key and value; begins every message.
        expression: the GPUs it names.
        label: the node group they are counted in; empty: over the cluster.
    """

    place: str
    expression: Expression
    label: str


@dataclasses.dataclass(frozen=True)
class Placed:
    """The GPUs of a component.

    Attributes:
        name: the component.
        place: as in `Wish`.
        indices: its GPUs, counted as the config counts them.
        gpus: the same GPUs.
        processes: number of processes on each.
        stated: the config gives the number of processes.
    """

    name: str
    place: str
    indices: tuple[int, ...]
    gpus: tuple[Gpu, ...]
    processes: tuple[int, ...]
    stated: bool

    def __str__(self) -> str:
        return f"{self.name} {compact(self.indices)}"


def read_components(cluster: ClusterSpec) -> dict[str, Wish]:
    """Read what the config says of each component.

    Args:
        cluster: the cluster.

    Returns:
        By the component's name; components may be missing.

    Raises:
        PlacementError: something is unknown, said twice, or no expression.
    """
    labels = [group.label for group in cluster.node_groups]
    wishes: dict[str, Wish] = {}
    for key, value in cluster.component_placement.items():
        where = f"cluster.component_placement.{key}"
        names = [part.strip() for part in str(key).split(",")]
        for name in names:
            if name not in COMPONENTS:
                raise PlacementError(f"{where}: {_unknown(name, COMPONENTS, 'component')}")
        wish = _wish(where, value, labels)
        for name in names:
            if name in wishes:
                raise PlacementError(
                    f"{wish.place} places {name} a second time; remove it here or from {wishes[name].place}"
                )
            wishes[name] = wish
    return wishes


def read_nodes(cluster: ClusterSpec, wishes: Mapping[str, Wish]) -> list[NodeGroup]:
    """Find the group of each node, its number of GPUs filled in.

    Args:
        cluster: the cluster.
        wishes: what `read_components` returned; the highest GPU named implies a number that the config leaves open.

    Raises:
        PlacementError: groups overlap or leave the cluster, or the number of GPUs stays unknown.
    """
    nodes = [NO_GROUP] * cluster.num_nodes
    labels = {""}
    for group in cluster.node_groups:
        if group.label in labels:
            raise PlacementError(
                f"cluster.node_groups: label {group.label!r} is empty or given twice; give each its own"
            )
        labels.add(group.label)
        where = f"cluster.node_groups.{group.label}.node_ranks = {group.node_ranks!r}"
        for rank in node_ranks(group.node_ranks, cluster.num_nodes, where):
            if nodes[rank].label:
                raise PlacementError(f"{where} holds node {rank}, as {nodes[rank].label} does; leave it in one of them")
            nodes[rank] = group
    default = cluster.gpus_per_node
    if default is None and any(group.gpus_per_node is None for group in nodes):
        default = _inferred(nodes, wishes.values())
    return [dataclasses.replace(g, gpus_per_node=default) if g.gpus_per_node is None else g for g in nodes]


def locate(name: str, wish: Wish, gpus: Sequence[Gpu]) -> Placed:
    """Find the GPUs of a component.

    Args:
        name: the component.
        wish: what the config says of it.
        gpus: all GPUs of the cluster.

    Raises:
        PlacementError: GPUs are named that are not there, or processes do not divide by GPUs.
    """
    there = [gpu for gpu in gpus if wish.label in ("", gpu.group.label)]
    last = highest(wish.expression)
    if last >= len(there) or not there:
        of = f" of node group {wish.label}" if wish.label else ""
        if not there:
            raise PlacementError(f"{wish.place} names GPUs, but nodes{of} have 0 each; set gpus_per_node")
        more = "its node_ranks" if of else "cluster.num_nodes"
        sizes = [len(list(same)) for _, same in itertools.groupby(there, key=lambda gpu: gpu.node)]
        runs = [(size, len(list(same))) for size, same in itertools.groupby(sizes)]
        extent = " + ".join(f"{count} node{'s' * (count > 1)} x {size} GPU{'s' * (size > 1)}" for size, count in runs)
        raise PlacementError(
            f"{wish.place} names GPU {last}, but {extent}{of} are {compact(range(len(there)))}; "
            f"name GPUs up to {len(there) - 1}, or raise {more} or gpus_per_node"
        )
    load = spread(wish.expression, len(there), wish.place)
    chosen = tuple(there[index] for index in load)
    return Placed(name, wish.place, tuple(load), chosen, tuple(load.values()), states_processes(wish.expression))


def _wish(where: str, value: object, labels: Sequence[str]) -> Wish:
    if not isinstance(value, Mapping):
        return Wish(f"{where} = {value!r}", parse(value, f"{where} = {value!r}"), "")
    for key in value:
        if key not in ("node_group", "placement"):
            raise PlacementError(f"{where}: {_unknown(str(key), ('node_group', 'placement'), 'key')}")
    if "placement" not in value:
        raise PlacementError(f"{where} = {dict(value)} names no GPUs; add placement: all, or GPU indices")
    label = "" if value.get("node_group") is None else str(value["node_group"])
    if label and label not in labels:
        raise PlacementError(f"{where}.node_group: {_unknown(label, labels, 'label of cluster.node_groups')}")
    where = f"{where}.placement = {value['placement']!r}"
    return Wish(where, parse(value["placement"], where), label)


def _unknown(name: str, known: Sequence[str], what: str) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    guess = f"did you mean {near[0]}? " if near else ""
    return f"{name!r} is no {what}; {guess}known: {', '.join(known) or 'none'}"


def _inferred(nodes: Sequence[NodeGroup], wishes: Collection[Wish]) -> int:
    """GPUs of a node, from the highest plain index that is named; 0 where nothing suggests that there are any."""
    counted = any(group.gpus_per_node is not None for group in nodes)
    top = max((wish for wish in wishes if not wish.label), key=lambda wish: highest(wish.expression), default=None)
    if top and (total := highest(top.expression) + 1) and not counted:
        if total % len(nodes):
            raise PlacementError(
                f"{top.place} names the highest GPU, {total - 1}: {total} GPUs over {len(nodes)} nodes are "
                f"{total / len(nodes):.4g} each; set cluster.gpus_per_node"
            )
        return total // len(nodes)
    if counted or any(group.gpu_type for group in nodes) or any(wish.expression != ALL for wish in wishes):
        node, group = next((rank, group) for rank, group in enumerate(nodes) if group.gpus_per_node is None)
        here = f" or cluster.node_groups.{group.label}.gpus_per_node" if group.label else ""
        raise PlacementError(
            f"cluster.gpus_per_node is not set, and nothing says how many node {node} has; set it{here}"
        )
    return 0
