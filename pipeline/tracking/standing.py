"""`tracking.json`: what is wrong with the trackers of a run, for `baton status`; written by the tracking process."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.artifacts import now, write_synced

FILE = "tracking.json"


def write(run: Path, troubles: Mapping[str, Sequence[str]]) -> None:
    """Note what is wrong, where it differs from what is noted.

    Args:
        run: the run directory.
        troubles: tracker -> lines for the user; none where all is well.
    """
    told = {name: list(lines) for name, lines in troubles.items() if lines}
    if told != _noted(run):
        write_synced(run / FILE, (json.dumps({"since": now(), "troubles": told}, indent=1) + "\n").encode())


def troubles(run: Path) -> list[str]:
    """Lines for the user about trackers that lack something; none where all is well or nothing was tracked.

    Args:
        run: the run directory.
    """
    return [line for lines in _noted(run).values() for line in lines]


def _noted(run: Path) -> dict[str, list[str]]:
    path = run / FILE
    try:
        noted: dict[str, list[str]] = json.loads(path.read_text())["troubles"]
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        return {FILE: [f"{path} cannot be read ({error}); it is written anew by: baton track {run}"]}
    return noted
