"""Films of a success and of a failure, before and after RL, embedded in the page."""

from __future__ import annotations

import base64
import dataclasses
import re
from pathlib import Path

from pipeline.report.results import Result

LARGEST = 4_000_000  # bytes of a film that is embedded; four of them still go by mail
NAME = re.compile(r"^epoch-(\d+)-(?:evaluate-)?(.+)-episode-(\d+)-(success|failure)\.mp4$")
RULE = (
    "Of the films of each evaluation the first success and the first failure are shown, in the order of episodes; "
    f"episodes whose outcome RL has changed go first. A film of more than {LARGEST // 1_000_000} MB is not embedded."
)


@dataclasses.dataclass(frozen=True)
class Film:
    """A film of an evaluation.

    Attributes:
        when: of which policy, in words.
        task: as its file's name has it.
        episode: its number in the evaluation.
        success: its outcome.
        path: the file, relative to the run.
        data: the film as a data URL; None where it is too large.
        megabytes: its size.
    """

    when: str
    task: str
    episode: int
    success: bool
    path: str
    data: str | None
    megabytes: float


def choose(run: Path, result: Result) -> list[Film]:
    """The films that the page shows; the same for the same run.

    Args:
        run: the run directory.
        result: what it came to.

    Returns:
        At most a success and a failure of the warm start, then the same of the newest evaluated policy.
    """
    filmed: dict[str, list[tuple[str, int, bool, str]]] = {evaluation: [] for evaluation in result.evaluations}
    for video in result.videos:
        if found := NAME.match(Path(video).name):
            _, task, episode, outcome = found.groups()
            home = next(evaluation for evaluation in filmed if Path(video).is_relative_to(evaluation))
            filmed[home].append((task, int(episode), outcome == "success", video))
    outcomes: dict[tuple[str, int], set[bool]] = {}
    for films in filmed.values():
        for task, episode, success, _ in films:
            outcomes.setdefault((task, episode), set()).add(success)
    chosen = []
    for evaluation, films in filmed.items():
        epoch = int(Path(evaluation).parts[1])
        when = f"after RL, epoch {epoch}" if epoch else "warm start"
        for wanted in (True, False):
            of_kind = [film for film in films if film[2] is wanted]
            if of_kind:
                task, episode, _, path = min(of_kind, key=lambda f: (len(outcomes[f[0], f[1]]) < 2, f[1], f[0]))
                chosen.append(_film(run, when, task, episode, wanted, path))
    return chosen


def _film(run: Path, when: str, task: str, episode: int, success: bool, path: str) -> Film:
    size = (run / path).stat().st_size
    data = None
    if size <= LARGEST:
        data = f"data:video/mp4;base64,{base64.b64encode((run / path).read_bytes()).decode()}"
    return Film(when, task, episode, success, path, data, size / 1e6)
