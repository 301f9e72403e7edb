"""What a run came to, read from its published artifacts alone, and written as `result.json`."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections import defaultdict
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline import ledger, rundir
from pipeline.artifacts import Artifact, Unit, require_artifact, write_synced
from pipeline.errors import UserError
from pipeline.report.wilson import interval

RESULT = "result.json"


class Episode(BaseModel):
    """One line of an evaluation's episodes.jsonl; what else it says is not needed here."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    task: str
    seed: int
    success: bool


@dataclasses.dataclass(frozen=True)
class Rate:
    """A success rate with its 95 % Wilson interval; fractions in 0..1."""

    success: float
    episodes: int
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Evaluation(Rate):
    """The success of one policy, over all episodes and by task."""

    tasks: dict[str, Rate]


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        run: its name.
        warm_start: evaluation of policy 0; None until published.
        rl: evaluation of the newest evaluated policy after it; None until published.
        policy_version: of the newest evaluation; None without one.
        same_initial_states: whether both evaluations ran the same (task, seed) pairs; None unless there are both.
        success_by_epoch: of every evaluation.
        seconds: of each stage, summed over its units, which may have run side by side.
        wall_seconds: from the start of the first published unit to the publishing of the last, pauses included.
        simulator: name, version and renderer of the newest evaluation's simulator; None without one.
        evaluations: published directories behind `warm_start` and `rl`, relative to the run.
        videos: films of those evaluations, relative to the run.
    """

    run: str
    warm_start: Evaluation | None
    rl: Evaluation | None
    policy_version: int | None
    same_initial_states: bool | None
    success_by_epoch: dict[int, float]
    seconds: dict[str, float]
    wall_seconds: float
    simulator: dict[str, str] | None
    evaluations: list[str]
    videos: list[str]


def collect(run: Path) -> Result:
    """Read what a run has published.

    Args:
        run: the run directory.

    Returns:
        The result so far.

    Raises:
        UserError: an evaluation is damaged.
    """
    artifacts = published(run)
    episodes = {
        unit.epoch: read_episodes(require_artifact(artifact.path, unit))
        for unit, artifact in artifacts.items()
        if unit.stage == "evaluate"
    }
    scores = {epoch: score(each) for epoch, each in episodes.items()}
    newest = max(scores, default=None)
    shown = sorted({0, newest} & set(scores)) if newest is not None else []
    states = [{(episode.task, episode.seed) for episode in episodes[epoch]} for epoch in shown]
    evaluations = [artifacts[Unit(epoch, "evaluate")] for epoch in shown]
    return Result(
        run=run.resolve().name,
        warm_start=scores.get(0),
        rl=scores[newest] if newest else None,
        policy_version=newest,
        same_initial_states=states[0] == states[1] if len(states) == 2 else None,
        success_by_epoch={epoch: each.success for epoch, each in sorted(scores.items())},
        seconds=stage_seconds(artifacts),
        wall_seconds=_wall_seconds(artifacts),
        simulator=_simulator(evaluations[-1]) if evaluations else None,
        evaluations=[str(artifact.path.relative_to(run)) for artifact in evaluations],
        videos=[
            str((artifact.path / name).relative_to(run))
            for artifact in evaluations
            for name in sorted(artifact.manifest.files)
            if name.endswith(".mp4")
        ],
    )


def write_result(run: Path) -> Result:
    """Collect a run's result and write `result.json`, whole or not at all.

    Returns:
        What was written.
    """
    result = collect(run)
    write_synced(run / RESULT, (json.dumps(dataclasses.asdict(result), indent=1) + "\n").encode())
    return result


def published(run: Path) -> dict[Unit, Artifact]:
    """Every published unit of a run with the artifact that says so, in the order of the plan."""
    units = [plan.unit for plan in ledger.run_plan(run, rundir.load(run))]
    return {unit: artifact for unit in units if (artifact := ledger.published(run, unit)) is not None}


def read_episodes(artifact: Artifact) -> list[Episode]:
    """The episodes of an evaluation.

    Raises:
        UserError: a line cannot be read, or there is none.
    """
    path = artifact.path / "episodes.jsonl"
    unit = Unit.parse(artifact.manifest.unit)
    run = artifact.path.parents[len(Path(unit.marker).parts) - 1]
    remedy = f"to make it again: baton rerun {run} evaluate --epoch {unit.epoch}"
    if path.name not in artifact.manifest.files:
        raise UserError(f"{artifact.path} lists no {path.name}; {remedy}")
    episodes = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            episodes.append(Episode.model_validate_json(line))
        except ValidationError as error:
            raise UserError(f"{path}:{number}: {error.errors()[0]['msg']}; {remedy}") from None
    if not episodes:
        raise UserError(f"{path} holds no episodes; {remedy}")
    return episodes


def score(episodes: list[Episode]) -> Evaluation:
    """Success with intervals, over all episodes and by task, tasks in alphabetical order."""
    tasks: dict[str, list[Episode]] = defaultdict(list)
    for episode in episodes:
        tasks[episode.task].append(episode)
    overall = _rate(episodes)
    return Evaluation(
        overall.success,
        overall.episodes,
        overall.low,
        overall.high,
        {task: _rate(tasks[task]) for task in sorted(tasks)},
    )


def stage_seconds(artifacts: dict[Unit, Artifact]) -> dict[str, float]:
    """Seconds of each stage, summed over its units."""
    seconds: dict[str, float] = defaultdict(float)
    for unit, artifact in artifacts.items():
        seconds[unit.stage] += artifact.manifest.seconds["total"]
    return dict(seconds)


def _simulator(evaluation: Artifact) -> dict[str, str] | None:
    if "simulator.json" not in evaluation.manifest.files:
        return None
    about: dict[str, str] = json.loads((evaluation.path / "simulator.json").read_text())
    return about


def _rate(episodes: list[Episode]) -> Rate:
    successes = sum(episode.success for episode in episodes)
    return Rate(successes / len(episodes), len(episodes), *interval(successes, len(episodes)))


def _wall_seconds(artifacts: dict[Unit, Artifact]) -> float:
    parse = datetime.datetime.fromisoformat
    manifests = [artifact.manifest for artifact in artifacts.values()]
    if not manifests:
        return 0.0
    begin, end = min(parse(each.started) for each in manifests), max(parse(each.published) for each in manifests)
    return (end - begin).total_seconds()
