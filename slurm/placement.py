"""`cluster` of the config -> where the stages run: cells of rollout units, and nodes of training units. Pure functions.

On Slurm the nodes of a group are interchangeable: a job asks for numbers of GPUs, and which ones it gets is Slurm's
choice. On a single machine the indices are those of its GPUs.
"""

from __future__ import annotations

import collections
import dataclasses

from slurm.components import (
    COMPONENTS,
    NO_GROUP,
    ClusterSpec,
    Gpu,
    NodeGroup,
    Placed,
    locate,
    read_components,
    read_nodes,
)
from slurm.indices import ALL, PlacementError, compact

__all__ = [
    "ActorPlacement",
    "Cell",
    "ClusterSpec",
    "NodeGroup",
    "Placement",
    "PlacementError",
    "check_shards",
    "describe",
    "place",
]


@dataclasses.dataclass(frozen=True)
class Cell:
    """The GPUs of one rollout unit, which is a job on one node.

    Attributes:
        node: rank of the policy's node. On more than one node it is nominal: Slurm chooses the node.
        env: the simulators' GPUs, counted on their node.
        policy: the policy's GPU, counted on its node.
        env_global: the simulators' GPUs, counted over the cluster.
        policy_global: the policy's GPU, counted over the cluster.
        env_processes: simulator processes; 0: as the stage configures.
        shared: simulators and policy use the same GPU.
        group: the node group it runs in.
    """

    node: int
    env: tuple[int, ...]
    policy: tuple[int, ...]
    env_global: tuple[int, ...]
    policy_global: tuple[int, ...]
    env_processes: int
    shared: bool
    group: NodeGroup

    @property
    def gpus(self) -> int:
        """GPUs its job asks for."""
        return len({*self.env_global, *self.policy_global})


@dataclasses.dataclass(frozen=True)
class ActorPlacement:
    """The GPUs of a training unit, one rank each.

    Attributes:
        nodes: number of nodes.
        gpus_per_node: GPUs it uses on each of them.
        processes: number of ranks.
        node_gpus: its GPUs counted on their node, node by node.
        global_gpus: its GPUs, counted over the cluster.
        group: the node group it runs in.
    """

    nodes: int
    gpus_per_node: int
    processes: int
    node_gpus: tuple[tuple[int, ...], ...]
    global_gpus: tuple[int, ...]
    group: NodeGroup


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where the stages run.

    Attributes:
        cpu: there are no GPUs; then the rest says nothing.
        cells: places of rollout units.
        actor: place of a training unit.
        overlap: an update may run beside rollouts, because they share no GPU.
        all_gpus: GPUs of the cluster, used or not.
    """

    cpu: bool
    cells: tuple[Cell, ...]
    actor: ActorPlacement
    overlap: bool
    all_gpus: int


CPU = Placement(True, (), ActorPlacement(1, 0, 0, (), (), dataclasses.replace(NO_GROUP, gpus_per_node=0)), True, 0)


def place(cluster: ClusterSpec) -> Placement:
    """Place the stages.

    Args:
        cluster: what the config says.

    Raises:
        PlacementError: it contradicts itself, or no job could honour it.
    """
    wishes = read_components(cluster)
    gpus: list[Gpu] = []
    for node, group in enumerate(read_nodes(cluster, wishes)):
        gpus += [Gpu(len(gpus) + local, node, local, group) for local in range(group.gpus_per_node or 0)]
    if not gpus and all(wish.expression == ALL for wish in wishes.values()):
        return CPU
    if missing := [name for name in COMPONENTS if name not in wishes]:
        raise PlacementError(
            f"cluster.component_placement = {dict(cluster.component_placement)} leaves out {' and '.join(missing)}; "
            f"add {' and '.join(f'{name}: all' for name in missing)}, or the GPUs they should have"
        )
    env, rollout, actor = (locate(name, wishes[name], gpus) for name in COMPONENTS)
    overlap = set(actor.gpus).isdisjoint((*env.gpus, *rollout.gpus))
    return Placement(False, _cells(env, rollout), _actor(actor), overlap, len(gpus))


def check_shards(placement: Placement, shards: int, stage: str) -> None:
    """Refuse a number of shards that leaves cells idle.

    Args:
        placement: the placement.
        shards: units that the stage is cut into.
        stage: the stage.

    Raises:
        PlacementError: the shards are no multiple of the cells.
    """
    cells = len(placement.cells)
    if not cells or (shards >= cells and shards % cells == 0):
        return
    rounds, rest = divmod(shards, cells)
    fits = max(rounds, 1) * cells
    idle = f"{shards} = {rounds} x {cells} + {rest}, so {cells - rest} would idle"
    raise PlacementError(
        f"{stage}.shards={shards} does not spread over {cells} cells (cluster.component_placement.rollout): {idle}; "
        f"set it to {fits} or {fits + cells}"
    )


def describe(placement: Placement) -> list[str]:
    """Say in a few lines what runs where, for a dry run."""
    if placement.cpu:
        return ["no GPUs: every stage runs on CPU cores"]
    sizes = collections.Counter(_size(cell) for cell in placement.cells)
    actor = placement.actor
    return [
        *(f"rollout: {_count(number, 'cell')} of {size}" for size, number in sizes.items()),
        f"update: {_count(actor.nodes, 'node')} x {_count(actor.gpus_per_node, 'GPU')}, "
        f"{_count(actor.processes, 'rank')}{_kind(actor.group)}",
        "update may run beside rollouts" if placement.overlap else "update and rollouts share GPUs and take turns",
    ]


def _cells(env: Placed, rollout: Placed) -> tuple[Cell, ...]:
    """Deal the simulators' GPUs out to the policies'."""
    _one_process_each(rollout, "the simulators of a cell share one policy process")
    shared = env.gpus == rollout.gpus
    both = sorted({gpu.index for gpu in env.gpus} & {gpu.index for gpu in rollout.gpus})
    if both and not shared:
        raise PlacementError(
            f"{env.place}: {env} and {rollout} share GPUs {compact(both)} of the cluster, but not all; "
            f"give env and rollout the same GPUs or none in common"
        )
    each, rest = divmod(len(env.gpus), len(rollout.gpus))
    if rest:
        raise PlacementError(
            f"{env.place}: {env} are {_count(len(env.gpus), 'GPU')}, {rollout} are {len(rollout.gpus)}: "
            f"they do not pair up; give env a multiple of {len(rollout.gpus)}"
        )
    cells = []
    for number, policy in enumerate(rollout.gpus):
        mine = slice(number * each, (number + 1) * each)
        cells.append(_cell(env, mine, rollout, policy, shared))
    return tuple(cells)


def _cell(env: Placed, mine: slice, rollout: Placed, policy: Gpu, shared: bool) -> Cell:
    """The cell of one policy GPU and its part of the simulators' GPUs."""
    simulators, group = env.gpus[mine], policy.group
    for gpu in simulators:
        if gpu.group != group:
            raise PlacementError(
                f"{env.place}: {env} is on {_name(gpu.group)} where {rollout} is on {_name(group)}, but observations "
                f"reach the policy through shared memory, so a rollout unit is one job on one node; "
                f"place env and rollout in the same node group"
            )
    available = group.gpus_per_node or 0
    size = 1 if shared else len(simulators) + 1
    if size > available:
        remedy = (
            f"give env at most {available - 1} times as many GPUs as rollout"
            if available > 1
            else "give env and rollout the same GPUs"
        )
        raise PlacementError(
            f"{env.place}: {env} and {rollout} make cells of {len(simulators)} + 1 = {size} GPUs, "
            f"but a cell is a job on one node and a node has {available}; {remedy}"
        )
    return Cell(
        node=policy.node,
        env=tuple(gpu.local for gpu in simulators),
        policy=(policy.local,),
        env_global=tuple(gpu.index for gpu in simulators),
        policy_global=(policy.index,),
        env_processes=sum(env.processes[mine]) if env.stated else 0,
        shared=shared,
        group=group,
    )


def _actor(actor: Placed) -> ActorPlacement:
    _one_process_each(actor, "NCCL takes one rank a GPU")
    groups = list(dict.fromkeys(gpu.group for gpu in actor.gpus))
    if len(groups) > 1:
        raise PlacementError(
            f"{actor.place}: {actor} is on {' and '.join(map(_name, groups))}, but a training unit is one job on nodes "
            f"of one kind; place actor within one node group"
        )
    counts = collections.Counter(gpu.node for gpu in actor.gpus)
    if len(set(counts.values())) > 1:
        puts = [f"{_count(count, 'GPU')} on node {node}" for node, count in counts.items()]
        raise PlacementError(
            f"{actor.place}: {actor} puts {' and '.join(puts)}, but a training unit has as many on each of its nodes; "
            f"name the same number on each, e.g. {min(counts.values())}"
        )
    return ActorPlacement(
        nodes=len(counts),
        gpus_per_node=min(counts.values()),
        processes=len(actor.gpus),
        node_gpus=tuple(tuple(gpu.local for gpu in actor.gpus if gpu.node == node) for node in counts),
        global_gpus=tuple(gpu.index for gpu in actor.gpus),
        group=groups[0],
    )


def _one_process_each(placed: Placed, why: str) -> None:
    if (most := max(placed.processes)) > 1:
        raise PlacementError(
            f"{placed.place} puts {most} processes on a GPU, but {why}; write {compact(placed.indices)}"
        )


def _size(cell: Cell) -> str:
    size = f"{_count(len(cell.env), 'simulator GPU')} + 1 policy GPU"
    if cell.shared:
        size = "1 GPU shared by simulators and policy"
    workers = f", {cell.env_processes} simulator process{'es' * (cell.env_processes > 1)}" if cell.env_processes else ""
    return f"{size}{workers}{_kind(cell.group)}"


def _kind(group: NodeGroup) -> str:
    words = [group.gpu_type or "", f"partition {group.partition}" if group.partition else ""]
    return f" ({', '.join(filter(None, words))})" if any(words) else ""


def _name(group: NodeGroup) -> str:
    return f"node group {group.label}" if group.label else "nodes of no group"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
