"""`baton doctor`: tells whether a config will run on this cluster or machine, before anything is submitted."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.doctor.check import Check, Verdict, failed

if TYPE_CHECKING:
    from pipeline.config import Config

__all__ = ["Check", "Verdict", "doctor_command", "examine"]

WAIT_SECONDS = 60.0
FAILED = 2


def doctor_command(
    config: Path,
    overrides: list[str] | None,
    as_json: bool,
    wait: float = WAIT_SECONDS,
    simulator: str | None = None,
) -> None:
    """Examine a config and print what was found; exit code 2 if something will not work.

    Args:
        config: YAML file.
        overrides: `key=value` each.
        as_json: print for programs.
        wait: seconds that a probe's job may wait in the queue; 0: no node is looked at.
        simulator: the simulator to examine instead, by starting it.
    """
    from pipeline.compose import compose
    from pipeline.doctor import report
    from pipeline.errors import UserError

    try:
        composed = compose(config, overrides or [])
    except UserError as error:
        checks = [failed("config", line) for line in str(error).splitlines()]
    else:
        checks = _checks(composed, wait, simulator)
    if as_json:
        print(report.as_json(config, checks))
    else:
        report.show(checks)
    if any(check.verdict == "fail" for check in checks):
        sys.exit(FAILED)


def _checks(config: Config, wait: float, simulator: str | None) -> list[Check]:
    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    if simulator is None:
        return examine(config, wait, say)
    from pipeline.doctor import simulator as probe

    return list(probe.examine(config, simulator, wait, say))


def examine(config: Config, wait: float = WAIT_SECONDS, say: Callable[[str], None] = lambda line: None) -> list[Check]:
    """Examine a config; nothing stays of it but some numbers of jobs that Slurm will not use again.

    Args:
        config: the config.
        wait: seconds that a probe's job may wait in the queue; 0: no node is looked at.
        say: shows one line to the user while they wait.

    Returns:
        What was found, in the order in which one would mend it.
    """
    from pipeline.doctor import examination  # which imports what `baton --help` must not wait for

    return list(examination.examine(config, wait, say))
