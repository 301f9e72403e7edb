"""What a unit takes of machines: cores, GPUs and nodes, from the config and the placement of its components."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.artifacts import Unit
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.slurm_config import Cluster, SlurmOptions
from slurm import placement
from slurm.options import Options, megabytes, minutes
from slurm.placement import Cell, ClusterSpec, NodeGroup, Placement, PlacementError
from slurm.visible import DEVICES, shown

TRAINING = ("sft", "update")
CELL_VARIABLE = "BATON_CELL"


@dataclasses.dataclass(frozen=True)
class Share:
    """A unit's share of the machines.

    Attributes:
        processes: data-parallel ranks.
        threads: CPU threads of each rank.
        simulator_workers: simulator processes.
        cores: CPU cores it keeps busy, over all ranks.
        nodes: machines its ranks are spread over.
        gpus: GPUs on each of them.
        gpu_type: which kind, in Slurm's word.
        partition: of the node group it runs in.
        node: the first of its machines, counted over the cluster.
        devices: indices of its GPUs on each machine.
        places: indices of its GPUs over the cluster.
        cell: how simulators and policy share the GPUs, as `stages.devices` reads it; empty without GPUs.
    """

    processes: int
    threads: int
    simulator_workers: int
    cores: int
    nodes: int = 1
    gpus: int = 0
    gpu_type: str | None = None
    partition: str | None = None
    node: int = 0
    devices: tuple[int, ...] = ()
    places: tuple[int, ...] = ()
    cell: str = ""

    @property
    def gpu_count(self) -> int:
        """GPUs on all machines."""
        return self.nodes * self.gpus


def place(config: Config) -> Placement:
    """The placement of a config's components.

    Raises:
        UserError: it contradicts itself, or nothing could honour it.
    """
    cluster = config.cluster
    groups = tuple(NodeGroup(**group.model_dump()) for group in cluster.node_groups)
    given = {
        key: value if isinstance(value, (str, int)) else tuple(value.items())
        for key, value in cluster.component_placement.items()
    }
    return _place(cluster.num_nodes, cluster.gpus_per_node, tuple(given.items()), groups)


def share(config: Config, unit: Unit) -> Share:
    """What a unit takes."""
    if unit.stage in TRAINING:
        return _training(config, unit.stage)
    return _simulating(config, unit)


def options(config: Config, stage: str, of: Share | None = None) -> Options:
    """What the jobs of a stage ask of Slurm.

    Args:
        config: the run's config.
        stage: a stage, or `orchestrator` or `pilot`.
        of: the share of its units, which knows partition and cells.
    """
    slurm, own = config.slurm, getattr(config.slurm, stage)

    def asked(name: str) -> Any:
        value = getattr(own, name)
        return getattr(slurm, name) if value is None else value

    fields = set(SlurmOptions.model_fields) - {"time", "nodes", "cpus", "setup", "extra"}
    given = {name: asked(name) for name in fields}
    if own.partition is None and of is not None and of.partition is not None:
        given["partition"] = of.partition
    if given["array_throttle"] is None and stage == "rollout" and of is not None and of.gpus:
        given["array_throttle"] = len(place(config).cells)
    return Options(
        time=minutes(own.time or slurm.time or 240),
        setup=tuple(asked("setup") or ()),
        extra=dict(asked("extra") or {}),
        gpu_option=slurm.gpu_option,
        requeue=slurm.requeue,
        signal_seconds=slurm.signal_seconds,
        **given,
    )


def grown(amount: str, factor: float) -> str:
    """An amount of memory times a factor, in Slurm's form."""
    return amount if factor == 1 else f"{round(megabytes(amount) * factor)}M"


def machine_cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0))


def machine_gpus() -> int:
    """NVIDIA GPUs of this machine, or of the container that this is, that this process may use."""
    there = sum(1 for device in Path("/dev").glob("nvidia*") if device.name.removeprefix("nvidia").isdigit())
    value = os.environ.get(DEVICES)
    return there if value is None or not there else len(shown(value))


def check_machine(config: Config, shares: Iterable[tuple[str, Share]], cores: int, gpus: int) -> None:
    """Refuse a plan with a unit that would never fit on this machine.

    Args:
        config: the run's config, for the message.
        shares: stages and what their units take.
        cores: cores of the machine.
        gpus: GPUs of the machine.

    Raises:
        UserError: a unit takes more cores or GPUs than there are, or more than one node.
    """
    if config.cluster.num_nodes > 1:
        raise UserError(
            f"cluster.num_nodes={config.cluster.num_nodes}: without Slurm units run on this machine alone; "
            f"set cluster.num_nodes=1, or slurm.launcher=slurm where sbatch answers"
        )
    for stage, each in dict(shares).items():
        if each.cores > cores:
            keys = ("num_workers",) if stage == "demonstrate" else ("num_workers", "threads")
            keys = ("processes", "threads") if stage in TRAINING else keys
            block = getattr(config, stage)
            values = ", ".join(f"{stage}.{key}={getattr(block, key)}" for key in keys)
            raise UserError(
                f"{values}: a unit of {stage} takes {each.cores} cores and this machine has {cores}; "
                f"lower {' or '.join(f'{stage}.{key}' for key in keys)} so that it takes at most {cores}"
            )
        if missing := [device for device in each.devices if device >= gpus]:
            limited = f"; {DEVICES}={os.environ[DEVICES]!r}" if DEVICES in os.environ else ""
            raise UserError(
                f"cluster.component_placement gives {stage} GPU {missing[0]}, and this machine has {gpus} "
                f"({'GPUs 0 to ' + str(gpus - 1) if gpus else 'no NVIDIA driver is loaded'}{limited}); "
                f"name others, or run on CPU cores: add {_without_gpus(config.cluster)} to the command"
            )


def _without_gpus(cluster: Cluster) -> str:
    """The overrides by which a config asks for no GPU."""
    nothing = {"gpus_per_node": "null", "component_placement": "{}", "node_groups": "[]"}
    fields, default = dict(cluster), dict(Cluster())
    return " ".join(f"cluster.{key}={value}" for key, value in nothing.items() if fields[key] != default[key])


@functools.lru_cache(maxsize=32)
def _place(
    nodes: int, gpus: int | None, given: tuple[tuple[str, object], ...], groups: tuple[NodeGroup, ...]
) -> Placement:
    components = {key: dict(value) if isinstance(value, tuple) else value for key, value in given}
    try:
        return placement.place(ClusterSpec(nodes, gpus, components, groups))
    except PlacementError as error:
        raise UserError(str(error)) from None


def _simulating(config: Config, unit: Unit) -> Share:
    stage, placed = unit.stage, place(config)
    block = getattr(config, stage)
    workers = block.num_workers
    cell = None if placed.cpu else placed.cells[(unit.shard or 0) % len(placed.cells)]
    if stage == "demonstrate":
        cores = workers  # the expert runs inside the workers
    elif block.pipeline_stage_num > 1:
        cores = block.threads + workers
    else:
        cores = max(block.threads, workers)  # simulators and policy take turns
    seat = Share(1, block.threads, workers, cores, node=unit.shard or 0)
    if cell is None:
        return seat
    env, policy = len(cell.env), len(cell.policy)
    gpus = env if stage == "demonstrate" else cell.gpus
    node, devices, start = _seat(placed, placed.cells.index(cell))
    return dataclasses.replace(
        seat,
        gpus=gpus,
        gpu_type=cell.group.gpu_type,
        partition=cell.group.partition,
        node=node,
        devices=devices[:gpus],
        places=tuple(start + device for device in devices[:gpus]),
        cell=f"{env}+0" if stage == "demonstrate" else f"shared:{env}" if cell.shared else f"{env}+{policy}",
    )


def _seat(placed: Placement, number: int) -> tuple[int, tuple[int, ...], int]:
    """Node and GPUs of a cell where nobody else chooses them: as the config names them, if a node holds them.

    Returns:
        The node; its GPUs; the first GPU of the node, counted over the cluster.
    """
    cell = placed.cells[number]
    here, starts = cell.policy_global[0] - cell.policy[0], _starts(cell)
    if starts == {here}:
        return cell.node, tuple(dict.fromkeys((*cell.env, *cell.policy))), here
    # The config counts simulators and policies on different nodes: the same numbers of GPUs, node by node.
    alike = [other for other in placed.cells if other.group == cell.group]
    per_node = cell.group.gpus_per_node or 1
    first = min(start for other in alike for start in _starts(other))
    down, along = divmod(alike.index(cell), per_node // cell.gpus)
    node = cell.node + (first - here) // per_node + down
    return node, tuple(range(along * cell.gpus, (along + 1) * cell.gpus)), first + down * per_node


def _starts(cell: Cell) -> set[int]:
    """The first GPUs of a cell's nodes, counted over the cluster."""
    every = zip((*cell.env_global, *cell.policy_global), (*cell.env, *cell.policy), strict=True)
    return {over_cluster - on_node for over_cluster, on_node in every}


def _training(config: Config, stage: str) -> Share:
    block, placed = getattr(config, stage), place(config)
    processes = block.processes or (1 if placed.cpu else placed.actor.processes)
    cores = processes * block.threads
    if placed.cpu:
        return Share(processes, block.threads, 0, cores, getattr(config.slurm, stage).nodes or config.slurm.nodes or 1)
    actor = placed.actor
    return Share(
        processes,
        block.threads,
        0,
        cores,
        nodes=actor.nodes,
        gpus=actor.gpus_per_node,
        gpu_type=actor.group.gpu_type,
        partition=actor.group.partition,
        node=actor.global_gpus[0] // (actor.group.gpus_per_node or 1),
        devices=actor.node_gpus[0],
        places=actor.global_gpus,
    )
