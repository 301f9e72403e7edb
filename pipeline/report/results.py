"""What a run came to, read from its published artifacts alone, and written as `result.json`."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline import ledger, rundir, tasks
from pipeline.artifacts import Artifact, Unit, require_artifact, write_synced
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.report.difference import Difference, paired, unpaired
from pipeline.report.setbacks import ends, setbacks
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
    """The success of one policy: over all episodes, by task, and by suite where the simulator lists suites."""

    tasks: dict[str, Rate]
    suites: dict[str, Rate] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        run: its name.
        warm_start: evaluation of policy 0; None until published.
        rl: evaluation of the newest evaluated policy after it; None until published.
        policy_version: of the newest evaluation; None without one.
        gain: success of `rl` minus that of `warm_start`; None unless there are both.
        same_initial_states: whether both evaluations ran the same (task, seed) pairs; None unless there are both.
        success_by_epoch: of every evaluation.
        episodes_by_epoch: of every evaluation.
        seconds: of each stage, summed over its units, which may have run side by side.
        gpu_hours: hours times GPUs of every attempt, published or not.
        core_hours: the same of CPU cores.
        wall_seconds: from the start of the first published unit to the publishing of the last, pauses included.
        simulator: name, version and renderer of the newest evaluation's simulator; None without one.
        evaluations: published directories behind `warm_start` and `rl`, relative to the run.
        videos: films of those evaluations, relative to the run.
    """

    run: str
    warm_start: Evaluation | None
    rl: Evaluation | None
    policy_version: int | None
    gain: Difference | None
    same_initial_states: bool | None
    success_by_epoch: dict[int, float]
    episodes_by_epoch: dict[int, int]
    seconds: dict[str, float]
    gpu_hours: float
    core_hours: float
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
    config, artifacts = rundir.load(run), published(run)
    episodes = evaluated(artifacts)
    suites = suites_of(config)
    scores = {epoch: score(each, suites) for epoch, each in episodes.items()}
    newest = max(scores, default=None)
    shown = sorted({0, newest} & set(scores)) if newest is not None else []
    states = [{(episode.task, episode.seed) for episode in episodes[epoch]} for epoch in shown]
    evaluations = [artifacts[Unit(epoch, "evaluate")] for epoch in shown]
    gpu_hours, core_hours = _hours(run, config, artifacts)
    return Result(
        run=run.resolve().name,
        warm_start=scores.get(0),
        rl=scores[newest] if newest else None,
        policy_version=newest,
        gain=difference(episodes[0], episodes[newest]) if newest and len(shown) == 2 else None,
        same_initial_states=states[0] == states[1] if len(states) == 2 else None,
        success_by_epoch={epoch: each.success for epoch, each in sorted(scores.items())},
        episodes_by_epoch={epoch: each.episodes for epoch, each in sorted(scores.items())},
        seconds=stage_seconds(artifacts),
        gpu_hours=gpu_hours,
        core_hours=core_hours,
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


def evaluated(artifacts: Mapping[Unit, Artifact]) -> dict[int, list[Episode]]:
    """The episodes of every evaluation, by epoch.

    Args:
        artifacts: the published units of a run.

    Raises:
        UserError: an evaluation is damaged.
    """
    return {
        unit.epoch: read_episodes(require_artifact(artifact.path, unit))
        for unit, artifact in artifacts.items()
        if unit.stage == "evaluate"
    }


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


def score(episodes: list[Episode], suites: Mapping[str, str]) -> Evaluation:
    """Success with intervals, over all episodes, by task and by suite, both in alphabetical order.

    Args:
        episodes: at least one.
        suites: task -> its suite, for tasks that belong to one.
    """
    by_task: dict[str, list[Episode]] = defaultdict(list)
    by_suite: dict[str, list[Episode]] = defaultdict(list)
    for episode in episodes:
        by_task[episode.task].append(episode)
        if episode.task in suites:
            by_suite[suites[episode.task]].append(episode)
    overall = _rate(episodes)
    return Evaluation(
        overall.success,
        overall.episodes,
        overall.low,
        overall.high,
        {task: _rate(by_task[task]) for task in sorted(by_task)},
        {suite: _rate(by_suite[suite]) for suite in sorted(by_suite)},
    )


def suites_of(config: Config) -> dict[str, str]:
    """Task -> its suite; empty where the simulator lists none."""
    return {task.task_name: task.suite for task in tasks.catalogue(config.simulator.name) or ()}


def difference(first: list[Episode], second: list[Episode]) -> Difference:
    """Success of the second minus that of the first, paired where both played the same initial states."""
    before, after = ({(one.task, one.seed): one.success for one in episodes} for episodes in (first, second))
    if before.keys() == after.keys() and len(before) == len(first) == len(second):
        return paired([(before[state], after[state]) for state in before])
    counts = [(sum(one.success for one in episodes), len(episodes)) for episodes in (first, second)]
    return unpaired(counts[0], counts[1])


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


def _hours(run: Path, config: Config, artifacts: Mapping[Unit, Artifact]) -> tuple[float, float]:
    """GPU-hours and core-hours of every attempt."""
    spent = {unit: artifact.manifest.seconds["total"] for unit, artifact in artifacts.items()}
    for lost in setbacks(ends(run)):
        spent[lost.unit] = spent.get(lost.unit, 0.0) + (lost.seconds or 0.0)
    shares = {plan.unit: plan.share for plan in ledger.run_plan(run, config)}
    known = [(seconds / 3600, shares[unit]) for unit, seconds in spent.items() if unit in shares]
    return sum(h * share.gpu_count for h, share in known), sum(h * share.cores for h, share in known)


def _wall_seconds(artifacts: dict[Unit, Artifact]) -> float:
    parse = datetime.datetime.fromisoformat
    manifests = [artifact.manifest for artifact in artifacts.values()]
    if not manifests:
        return 0.0
    begin, end = min(parse(each.started) for each in manifests), max(parse(each.published) for each in manifests)
    return (end - begin).total_seconds()
