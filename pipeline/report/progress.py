"""How far a run is: its units gathered by epoch and stage, their success so far, and the time they still need."""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections import defaultdict
from collections.abc import Sequence

from pipeline.report.standing import Overview, Standing

SUCCESS = ("env/success_rate", "rollout/success_rate")


@dataclasses.dataclass(frozen=True)
class Group:
    """The units of one stage in one epoch: a stage's shards, or the one unit of it.

    Attributes:
        epoch: 0 is the warm start.
        stage: one of `pipeline.artifacts.STAGES`.
        units: where its units stand.
        episodes: episodes a unit runs; 0 where the stage runs none.
    """

    epoch: int
    stage: str
    units: tuple[Standing, ...]
    episodes: float = 0

    @property
    def done(self) -> int:
        """Units published."""
        return self.count("published")

    @functools.cached_property
    def status(self) -> str:
        """What matters most of its units: failed, running, queued, published, begun (some of them), waiting."""
        for status in ("failed", "running", "queued"):
            if self.count(status):
                return status
        return "published" if self.done == len(self.units) else "begun" if self.done else "waiting"

    @property
    def attempts(self) -> int:
        """Attempts at all its units."""
        return sum(unit.state.attempts for unit in self.units)

    @functools.cached_property
    def success(self) -> float | None:
        """Success over its units, each weighted by its episodes so far; None until known."""
        rates = [rate for unit in self.units if (rate := self._rate(unit)) is not None]
        weight = sum(episodes for _, episodes in rates)
        return sum(rate * episodes for rate, episodes in rates) / weight if weight else None

    @property
    def loss(self) -> float | None:
        """The loss that its newest unit told of; None where the stage has none."""
        return self.told("actor/loss")

    def told(self, metric: str) -> float | None:
        """A metric as its newest unit told of it, published or so far; None where none did."""
        every = (unit.state.metrics or (unit.state.progress or {}).get("metrics", {}) for unit in self.units)
        values = [metrics[metric] for metrics in every if metrics.get(metric) is not None]
        return values[-1] if values else None

    @property
    def steps(self) -> tuple[int, int] | None:
        """Steps done and in all of its running units, as they report them; None where none does."""
        reports = [unit.state.progress for unit in self.units if unit.status == "running" and unit.state.progress]
        return (sum(each["done"] for each in reports), sum(each["total"] for each in reports)) if reports else None

    @property
    def began(self) -> float | None:
        """Unix time at which its first unit began to run."""
        return min((unit.began for unit in self.units if unit.began is not None), default=None)

    def count(self, status: str) -> int:
        """Units of that status."""
        return sum(unit.status == status for unit in self.units)

    def span(self) -> float | None:
        """Seconds from its first start to its last end; None until all is published."""
        if self.status != "published":
            return None
        states = [unit.state for unit in self.units]
        ends = [state.started + state.seconds for state in states if state.started and state.seconds is not None]
        if self.began is None or len(ends) < len(self.units):
            return max(state.seconds or 0.0 for state in states)
        return max(ends) - self.began

    def _rate(self, unit: Standing) -> tuple[float, float] | None:
        """Success of a unit, as published or as reported so far, and over how many episodes."""
        state = unit.state
        if unit.status == "published":
            metrics, episodes = state.metrics, self.episodes
        elif unit.status == "running" and state.progress:
            metrics, episodes = state.progress["metrics"], state.progress["done"]
        else:
            return None
        # A rate that is not a number, e.g. over no episodes yet, is written as null.
        rate = next((metrics[name] for name in SUCCESS if metrics.get(name) is not None), None)
        return None if rate is None else (rate, episodes)


def groups(overview: Overview) -> list[Group]:
    """The units of a run by epoch and stage, in the order of the plan."""
    found: dict[tuple[int, str], list[Standing]] = defaultdict(list)
    for standing in overview.units:
        found[standing.unit.epoch, standing.unit.stage].append(standing)
    config = overview.snapshot.config
    episodes = {"rollout": config.rollout.episodes, "evaluate": config.evaluate.episodes}
    return [
        Group(epoch, stage, tuple(units), episodes.get(stage, 0) / len(units))
        for (epoch, stage), units in found.items()
    ]


def current(of: Sequence[Group]) -> Group | None:
    """The group to speak of: the first that failed, runs or is queued, else the first unfinished; None: all done."""
    for wanted in (("failed",), ("running",), ("queued",), ("begun", "waiting")):
        for group in of:
            if group.status in wanted:
                return group
    return None


def seconds_left(of: Sequence[Group], now: float) -> float | None:
    """Seconds until all is published, as if one group followed the other.

    A group is expected to take the median of the finished ones of its stage; one that runs and reports how far it is
    may know better.

    Args:
        of: every group of a run.
        now: Unix time.

    Returns:
        Seconds; None while a stage is ahead of which nothing is known.
    """
    spans: dict[str, list[float]] = defaultdict(list)
    for group in of:
        if (span := group.span()) is not None:
            spans[group.stage].append(span)
    left = 0.0
    for group in of:
        if group.status == "published":
            continue
        elapsed = max(now - group.began, 0.0) if group.began is not None and group.status == "running" else 0.0
        steps = group.steps
        if spans[group.stage]:
            left += max(statistics.median(spans[group.stage]) - elapsed, 0.0)
        elif steps and steps[0] and elapsed and len(group.units) == group.count("running") + group.done:
            left += elapsed * max(steps[1] - steps[0], 0) / steps[0]
        else:
            return None
    return left
