"""Runs side by side: what each came to, whether the difference is one, and what their configs say otherwise."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from pipeline import rundir
from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.report.course import Series, course
from pipeline.report.difference import Difference, paired, unpaired
from pipeline.report.results import Episode, Result, collect, evaluated, published
from pipeline.shards import EPISODES

# Together with a task and a seed they decide an initial state.
WORLD = ("name", "options", "action_frequency", "physics_frequency")
# These make an evaluation another test on the same initial states.
CONDITIONS = ("simulator.max_episode_steps", "simulator.image_size", "evaluate.temperature")
UNINTERESTING = ("name", "runs_dir")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A run among others.

    Attributes:
        label: its name; its path where names repeat.
        path: the run directory.
        config: its config.
        result: what it came to so far.
        episodes: of its newest evaluation; empty without one.
        measured: its course, as `course` has it.
    """

    label: str
    path: Path
    config: Config
    result: Result
    episodes: list[Episode]
    measured: dict[str, dict[str, Series]]

    @property
    def training_episodes(self) -> int:
        """Episodes of RL played so far."""
        return int(sum(self.measured.get("rollout", {}).get(EPISODES, {}).values()))

    @property
    def epochs(self) -> int:
        """Updates so far."""
        return len(self.measured.get("update", {}).get("actor/loss", {}))


@dataclasses.dataclass(frozen=True)
class Contest:
    """The newest evaluation of a run against that of the first run.

    Attributes:
        first: label of the first.
        second: label of the other.
        tasks: tasks that both evaluated, over which the difference goes.
        difference: success of the second minus that of the first; None where there is nothing to compare.
        note: what limits the comparison; empty where nothing does.
    """

    first: str
    second: str
    tasks: tuple[str, ...]
    difference: Difference | None
    note: str


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        entries: the runs, as they were named.
        contests: each run but the first against the first.
        differences: dotted key -> its value in each run, for keys that are not the same in all.
        tasks: task -> labels of the runs that train on it, where not all do.
    """

    entries: tuple[Entry, ...]
    contests: tuple[Contest, ...]
    differences: dict[str, tuple[Any, ...]]
    tasks: dict[str, tuple[str, ...]]


def compare(runs: Sequence[Path]) -> Comparison:
    """Read runs and put them side by side.

    Args:
        runs: at least two run directories, each once.

    Raises:
        UserError: there are fewer, one is named twice, or one cannot be read.
    """
    if len(runs) < 2:
        raise UserError("compare needs two runs or more: baton compare RUN RUN")
    places = [run.resolve() for run in runs]
    if twice := [str(run) for index, run in enumerate(runs) if places[index] in places[:index]]:
        raise UserError(f"{twice[0]} is named twice; name each run once")
    names = [place.name for place in places]
    entries = tuple(
        _entry(run, place.name if names.count(place.name) == 1 else str(run))
        for run, place in zip(runs, places, strict=True)
    )
    every = {task for entry in entries for task in entry.config.simulator.tasks}
    having = {task: tuple(e.label for e in entries if task in e.config.simulator.tasks) for task in sorted(every)}
    return Comparison(
        entries,
        tuple(contest(entries[0], other) for other in entries[1:]),
        config_differences([entry.config for entry in entries]),
        {task: labels for task, labels in having.items() if len(labels) < len(entries)},
    )


def contest(first: Entry, second: Entry) -> Contest:
    """Compare the newest evaluations of two runs over the tasks that both have."""
    missing = [entry.label for entry in (first, second) if not entry.episodes]
    if missing:
        return Contest(first.label, second.label, (), None, f"{' and '.join(missing)}: not evaluated yet")
    tasks = tuple(sorted({one.task for one in first.episodes} & {one.task for one in second.episodes}))
    if not tasks:
        return Contest(first.label, second.label, (), None, "no task in common")
    before, after = ([one for one in entry.episodes if one.task in tasks] for entry in (first, second))
    notes = []
    if any(len({one.task for one in entry.episodes}) > len(tasks) for entry in (first, second)):
        notes.append(f"over the {len(tasks)} {'task' if len(tasks) == 1 else 'tasks'} that both evaluated")
    if unlike := [name for name in CONDITIONS if _at(first, name) != _at(second, name)]:
        notes.append(f"under other conditions: {' and '.join(unlike)} differ")
    outcomes = [{(one.task, one.seed): one.success for one in episodes} for episodes in (before, after)]
    common = outcomes[0].keys() & outcomes[1].keys()
    if worlds := _worlds_differ(first, second):
        notes.append(f"{worlds} differ, so that a seed is not the same initial state")
    elif not common:
        notes.append("no initial state in common")
    else:
        if any(len(each) > len(common) for each in outcomes):
            notes.append(f"over the {len(common)} initial states that both played")
        pairs = [(outcomes[0][state], outcomes[1][state]) for state in sorted(common)]
        return Contest(first.label, second.label, tasks, paired(pairs), "; ".join(notes))
    counts = [(sum(one.success for one in episodes), len(episodes)) for episodes in (before, after)]
    return Contest(first.label, second.label, tasks, unpaired(counts[0], counts[1]), "; ".join(notes))


def config_differences(configs: Sequence[Config]) -> dict[str, tuple[Any, ...]]:
    """Dotted key -> its value in each config, for keys that are not the same in all; None where one lacks it."""
    flats = [rundir.flat(config) for config in configs]
    changed = [
        key
        for key in dict.fromkeys(key for one in flats for key in one)
        if any(one.get(key) != flats[0].get(key) for one in flats)
    ]
    return {key: tuple(one.get(key) for one in flats) for key in innermost(changed) if key not in UNINTERESTING}


def innermost(keys: Collection[str]) -> list[str]:
    """The dotted keys that are no block of others: of a block that is empty on one side its entries speak."""
    return [key for key in sorted(keys) if not any(other.startswith(f"{key}.") for other in keys)]


def record(comparison: Comparison) -> dict[str, Any]:
    """The comparison for programs."""
    return {
        "runs": [
            {
                "label": entry.label,
                "path": str(entry.path),
                "seed": entry.config.seed,
                "epochs": entry.epochs,
                "training_episodes": entry.training_episodes,
                "result": dataclasses.asdict(entry.result),
            }
            for entry in comparison.entries
        ],
        "contests": [dataclasses.asdict(each) for each in comparison.contests],
        "config_differences": {key: list(values) for key, values in comparison.differences.items()},
        "tasks_not_in_all": {task: list(labels) for task, labels in comparison.tasks.items()},
    }


def _entry(run: Path, label: str) -> Entry:
    config, artifacts = rundir.load(run), published(run)
    episodes = evaluated(artifacts)
    newest = episodes[max(episodes)] if episodes else []
    return Entry(label, run, config, collect(run), newest, course(artifacts, config))


def _worlds_differ(first: Entry, second: Entry) -> str:
    """What of the simulators is not the same, in words; empty where the same seed is the same initial state."""
    one, other = first.config.simulator, second.config.simulator
    unlike = [f"simulator.{name}" for name in WORLD if getattr(one, name) != getattr(other, name)]
    versions = [(entry.result.simulator or {}).get("version") for entry in (first, second)]
    return " and ".join([*unlike, *(["the simulators' versions"] if versions[0] != versions[1] else [])])


def _at(entry: Entry, key: str) -> Any:
    return rundir.flat(entry.config)[key]
