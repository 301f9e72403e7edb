"""The course of a run: what each of its stages measured, epoch by epoch, and step by step in the warm start."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping

from pipeline.artifacts import Artifact, Unit
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.shards import expected, pooled

Series = dict[float, float]


def course(artifacts: Mapping[Unit, Artifact], config: Config) -> dict[str, dict[str, Series]]:
    """What the manifests say, by stage, metric and epoch.

    Args:
        artifacts: the published units of a run.
        config: of the run.

    Returns:
        `course["update"]["actor/loss"][3]`. Shards count once all of an epoch are there, pooled as in the trackers.
        Numbers that are not finite are left out.
    """
    shards: dict[tuple[str, int], list[Mapping[str, float]]] = defaultdict(list)
    for unit, artifact in artifacts.items():
        shards[unit.stage, unit.epoch].append(artifact.manifest.metrics)
    found: dict[str, dict[str, Series]] = defaultdict(lambda: defaultdict(dict))
    for (stage, epoch), metrics in sorted(shards.items()):
        if len(metrics) < expected(config, stage):
            continue
        for name, value in pooled(metrics).items():
            if math.isfinite(value):
                found[stage][name][epoch] = value
    return {stage: dict(metrics) for stage, metrics in found.items()}


def warm_start(artifacts: Mapping[Unit, Artifact], names: Iterable[str]) -> dict[str, Series]:
    """The course of the supervised warm start, metric by step; empty where there was none.

    Args:
        artifacts: the published units of a run.
        names: metrics that are wanted; those never logged are left out.

    Raises:
        UserError: its log is damaged.
    """
    artifact = artifacts.get(Unit(0, "sft"))
    if artifact is None or "metrics.jsonl" not in artifact.manifest.files:
        return {}
    path = artifact.path / "metrics.jsonl"
    found: dict[str, Series] = {name: {} for name in names}
    try:
        for text in path.read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            for name, series in found.items():
                if line["metrics"].get(name) is not None:
                    series[line["step"]] = line["metrics"][name]
    except (OSError, ValueError, KeyError) as error:
        run = artifact.path.parents[2]
        raise UserError(f"{path} cannot be read ({error}); to make it again: baton rerun {run} sft") from None
    return {name: series for name, series in found.items() if series}


def by_task(metrics: Mapping[str, Series], prefix: str) -> dict[str, Series]:
    """The part of a stage's course that is told by task, e.g. of `rollout/success_rate/<task>`."""
    return {
        name.removeprefix(f"{prefix}/"): series for name, series in metrics.items() if name.startswith(f"{prefix}/")
    }
