"""What follows from the placement is filled into the config, and what contradicts it is refused."""

from __future__ import annotations

from collections.abc import Callable

from pipeline import environments, simulator_facts
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.resources import TRAINING, place
from slurm import placement
from slurm.placement import Placement, PlacementError


def resolve(config: Config, stated: Callable[[str], bool] = lambda key: True) -> Config:
    """Fill in what follows from the machine and the placement.

    That is the simulator's interpreter, ranks of the training stages, shards and simulator processes of cells.

    Args:
        config: the validated config.
        stated: whether a key was set by the user; what was not and has a default may follow the placement.

    Raises:
        UserError: the placement cannot be honoured, or a stage asks for another number of ranks.
    """
    simulator_facts.check(config)
    if config.simulator.python is None:
        built = environments.python_of(config.simulator.name)
        config = config.model_copy(update={"simulator": config.simulator.model_copy(update={"python": built})})
    placed = place(config)
    if not placed.cpu and not stated("rollout.shards"):
        config = config.model_copy(update={"rollout": config.rollout.model_copy(update={"shards": len(placed.cells)})})
    if not placed.cpu:
        try:
            placement.check_shards(placed, config.rollout.shards, "rollout")
        except PlacementError as error:
            raise UserError(str(error)) from None
    ranks = 1 if placed.cpu else placed.actor.processes
    changes = {}
    for name in TRAINING:
        stage = getattr(config, name)
        if not placed.cpu and stage.processes not in (None, ranks):
            raise UserError(
                f"{name}.processes={stage.processes}, but cluster.component_placement gives the actor {ranks} GPUs, "
                f"one rank each: leave {name}.processes out or set it to {ranks}"
            )
        if stage.processes is None:
            changes[name] = stage.model_copy(update={"processes": ranks})
    changes |= _simulator_processes(config, placed)
    resolved = config.model_copy(update=changes)
    check_batches(resolved)
    _check_worlds(resolved)
    for name in TRAINING:
        _check_nodes(resolved, name, placed)
    return resolved


def check_batches(config: Config) -> None:
    """Refuse batches that do not split over the ranks.

    Raises:
        UserError: one does not.
    """
    for key, batch, ranks in (
        ("sft.batch", config.sft.batch, config.sft.processes or 1),
        ("update.minibatch", config.update.minibatch, config.update.processes or 1),
    ):
        if batch % ranks:
            raise UserError(
                f"{key}={batch} does not split over {ranks} processes: {batch} / {ranks} leaves "
                f"{batch % ranks}; set it to a multiple of {ranks}"
            )


def _simulator_processes(config: Config, placed: Placement) -> dict[str, object]:
    """The simulator processes that the placement gives each cell, as the stages' `num_workers`."""
    given = {cell.env_processes for cell in placed.cells}
    if given <= {0}:
        return {}
    if len(given) > 1:
        raise UserError(
            f"cluster.component_placement.env gives cells {' and '.join(map(str, sorted(given)))} simulator processes: "
            f"the shards of an epoch are alike; spread the processes evenly"
        )
    (processes,) = given
    changes: dict[str, object] = {}
    for name in ("demonstrate", "rollout", "evaluate"):
        stage = getattr(config, name)
        if stage.num_workers not in (1, processes):
            raise UserError(
                f"{name}.num_workers={stage.num_workers}, but cluster.component_placement.env puts {processes} "
                f"simulator processes in a cell: leave {name}.num_workers out or set it to {processes}"
            )
        changes[name] = stage.model_copy(update={"num_workers": processes})
    return changes


def _check_worlds(config: Config) -> None:
    """Refuse several groups in a process whose worlds have one clock, and several tasks in one of OmniGibson."""
    simulator = config.simulator
    if not simulator_facts.one_clock(simulator):
        return
    acting = (("rollout", config.rollout), ("evaluate", config.evaluate))
    for name, stage in acting:
        if stage.num_workers < stage.pipeline_stage_num:
            raise UserError(
                f"{name}.pipeline_stage_num={stage.pipeline_stage_num} with {name}.num_workers={stage.num_workers}: "
                f"the worlds of a process of {simulator.name} are stepped together, so it belongs to one group: set "
                f"{name}.num_workers to {stage.pipeline_stage_num} or more"
            )
    if simulator.name != "omnigibson" or len(simulator.tasks) == 1:
        return
    for name, stage in acting:
        if stage.num_workers != stage.num_envs:
            raise UserError(
                f"{name}.num_envs={stage.num_envs} with {name}.num_workers={stage.num_workers}: a process of "
                f"omnigibson simulates one task at a time, and simulator.tasks names {len(simulator.tasks)}: "
                "set both to the same number, or name one task"
            )


def _check_nodes(config: Config, stage: str, placed: Placement) -> None:
    asked = getattr(config.slurm, stage).nodes or config.slurm.nodes
    if asked is None:
        return
    if not placed.cpu and asked != placed.actor.nodes:
        raise UserError(
            f"slurm.{stage}.nodes={asked}, but cluster.component_placement puts the actor on {placed.actor.nodes} "
            f"nodes: leave slurm.{stage}.nodes out"
        )
    ranks = getattr(config, stage).processes
    if ranks % asked:
        raise UserError(
            f"{stage}.processes={ranks} does not spread over slurm.{stage}.nodes={asked}: {ranks} / {asked} leaves "
            f"{ranks % asked}; set {stage}.processes to a multiple of {asked}"
        )
