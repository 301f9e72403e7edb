"""Config -> the units of a run, what each needs and what it takes: pure functions."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Iterable

from pipeline.artifacts import Unit
from pipeline.config import Cluster, Config
from pipeline.errors import UserError

ORDER = ("demonstrate", "sft", "rollout", "update", "evaluate")


@dataclasses.dataclass(frozen=True)
class UnitPlan:
    """A unit, its inputs and its share of the machine.

    Attributes:
        unit: the unit.
        needs: units whose artifacts it reads.
        module: module of the stages package that does it.
        processes: data-parallel ranks.
        threads: CPU threads of each rank.
        simulator_workers: simulator processes.
        cores: CPU cores it keeps busy.
    """

    unit: Unit
    needs: tuple[Unit, ...]
    module: str
    processes: int
    threads: int
    simulator_workers: int
    cores: int


def make_plan(config: Config, also_evaluate: Collection[int] = ()) -> tuple[UnitPlan, ...]:
    """List the units of a run.

    Args:
        config: the run's config.
        also_evaluate: epochs evaluated beside those that the config asks for.

    Returns:
        Units in an order in which each comes after all that it needs; within an epoch as in `ORDER`.
    """
    plans = [_simulating(config, Unit(0, "demonstrate", shard), ()) for shard in range(config.demonstrate.shards)]
    plans.append(_training(config, policy_unit(0), tuple(p.unit for p in plans)))
    evaluated = evaluation_epochs(config) | set(also_evaluate)
    for epoch in range(config.epochs + 1):
        if epoch:
            behaviour = policy_unit(max(0, epoch - 1 - config.rollout.staleness))
            shards = [Unit(epoch, "rollout", shard) for shard in range(config.rollout.shards)]
            plans += [_simulating(config, shard, (behaviour,)) for shard in shards]
            plans.append(_training(config, policy_unit(epoch), (*shards, policy_unit(epoch - 1))))
        if epoch in evaluated:
            plans.append(_simulating(config, Unit(epoch, "evaluate"), (policy_unit(epoch),)))
    return tuple(plans)


def policy_unit(version: int) -> Unit:
    """The unit that publishes a policy version."""
    return Unit(version, "update" if version else "sft")


def evaluation_epochs(config: Config) -> set[int]:
    """Epochs whose policy is evaluated: the warm start, the last, and every `evaluate.interval` between."""
    interval = config.evaluate.interval
    return {0, config.epochs} | (set(range(interval, config.epochs, interval)) if interval else set())


def by_urgency(plans: Iterable[UnitPlan]) -> list[UnitPlan]:
    """Sort units that may start: epoch by epoch, within one what the next policy waits for before the evaluation."""
    return sorted(plans, key=lambda p: (p.unit.epoch, ORDER.index(p.unit.stage), p.unit))


def dependents(plans: Iterable[UnitPlan], unit: Unit) -> tuple[Unit, ...]:
    """A unit and all that is made from it, directly or not, in plan order."""
    affected = {unit}
    for plan in plans:  # in plan order, so one pass reaches everything
        if affected.intersection(plan.needs):
            affected.add(plan.unit)
    return tuple(plan.unit for plan in plans if plan.unit in affected)


def machine_cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0))


def check_cores(config: Config, plans: Iterable[UnitPlan], cores: int) -> None:
    """Refuse a plan with a unit that would never fit.

    Args:
        config: the run's config, for the message.
        plans: the units.
        cores: cores of the machine.

    Raises:
        UserError: a unit takes more cores than there are.
    """
    for plan in plans:
        if plan.cores > cores:
            stage = plan.unit.stage
            keys = {
                "demonstrate": ("num_workers",),
                "sft": ("processes", "threads"),
                "update": ("processes", "threads"),
            }.get(stage, ("num_workers", "threads"))
            block = getattr(config, stage)
            values = ", ".join(f"{stage}.{key}={getattr(block, key)}" for key in keys)
            raise UserError(
                f"{values}: a unit of {stage} takes {plan.cores} cores and this machine has {cores}; "
                f"lower {' or '.join(f'{stage}.{key}' for key in keys)} so that it takes at most {cores}"
            )


def check_placement(config: Config) -> None:
    """Refuse a placement that nothing here would honour.

    Raises:
        UserError: the config places components on GPUs or nodes, and units run on this machine.
    """
    if config.cluster != Cluster():
        given = ", ".join(
            f"cluster.{name}={getattr(config.cluster, name)}" for name in sorted(config.cluster.model_fields_set)
        )
        raise UserError(f"{given}: units run as processes of this machine and share its cores; leave cluster out")


def _simulating(config: Config, unit: Unit, needs: tuple[Unit, ...]) -> UnitPlan:
    block = {"demonstrate": config.demonstrate, "rollout": config.rollout, "evaluate": config.evaluate}[unit.stage]
    if unit.stage == "demonstrate":
        cores = block.num_workers  # the expert runs inside the workers
    elif unit.stage == "rollout" and config.rollout.pipeline_stage_num > 1:
        cores = block.threads + block.num_workers
    else:
        cores = max(block.threads, block.num_workers)  # simulators and policy take turns
    module = "evaluate" if unit.stage == "evaluate" else "rollout"
    return UnitPlan(unit, needs, module, 1, block.threads, block.num_workers, cores)


def _training(config: Config, unit: Unit, needs: tuple[Unit, ...]) -> UnitPlan:
    block = config.update if unit.stage == "update" else config.sft
    cores = block.processes * block.threads
    return UnitPlan(unit, needs, unit.stage, block.processes, block.threads, 0, cores)
