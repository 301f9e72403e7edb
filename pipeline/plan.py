"""Config -> the units of a run, what each needs and what it takes: pure functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable

from pipeline.artifacts import Unit
from pipeline.config import Config
from pipeline.resources import Share, share

ORDER = ("demonstrate", "sft", "rollout", "update", "evaluate")


@dataclasses.dataclass(frozen=True)
class UnitPlan:
    """A unit, its inputs and its share of the machines.

    Attributes:
        unit: the unit.
        needs: units whose artifacts it reads.
        module: module of the stages package that does it.
        share: what it takes.
    """

    unit: Unit
    needs: tuple[Unit, ...]
    module: str
    share: Share


def make_plan(config: Config, also_evaluate: Collection[int] = ()) -> tuple[UnitPlan, ...]:
    """List the units of a run.

    Args:
        config: the run's config.
        also_evaluate: epochs evaluated beside those that the config asks for.

    Returns:
        Units in an order in which each comes after all that it needs; within an epoch as in `ORDER`.
    """
    demonstrations = config.demonstrate.shards if config.sft.steps and config.demonstrate.imported is None else 0
    plans = [_plan(config, Unit(0, "demonstrate", shard), ()) for shard in range(demonstrations)]
    plans.append(_plan(config, policy_unit(0), tuple(p.unit for p in plans)))
    evaluated = evaluation_epochs(config) | set(also_evaluate)
    for epoch in range(config.epochs + 1):
        if epoch:
            behaviour = policy_unit(max(0, epoch - 1 - config.rollout.staleness))
            shards = [Unit(epoch, "rollout", shard) for shard in range(config.rollout.shards)]
            plans += [_plan(config, shard, (behaviour,)) for shard in shards]
            plans.append(_plan(config, policy_unit(epoch), (*shards, policy_unit(epoch - 1))))
        if epoch in evaluated:
            plans.append(_plan(config, Unit(epoch, "evaluate"), (policy_unit(epoch),)))
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


def _plan(config: Config, unit: Unit, needs: tuple[Unit, ...]) -> UnitPlan:
    module = "rollout" if unit.stage == "demonstrate" else unit.stage
    return UnitPlan(unit, needs, module, share(config, unit))
