"""How checks are shown: a table for people, JSON for programs."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.doctor.check import Check, Verdict

STYLES: dict[Verdict, str] = {"pass": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}
SUMMARY: dict[Verdict, str] = {"fail": "failed", "warn": "warned", "pass": "passed", "skip": "skipped"}
NAME_WIDTH = 24


def show(checks: Sequence[Check], console: Console | None = None) -> None:
    """Print a table, and below it what is to be done first.

    Args:
        checks: what was found.
        console: where to; None: stdout.
    """
    console = console or Console(highlight=False)
    together = merged(checks)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(max_width=NAME_WIDTH)
    table.add_column(overflow="fold")
    for check in together:
        remedy = f"-> {check.remedy}" if check.remedy else ""
        if console.is_terminal:
            found = Text(check.found).append(f"\n{remedy}" if remedy else "", style="italic")
            table.add_row(Text(check.verdict, style=STYLES[check.verdict]), Text(check.name), found)
        else:  # programs like grep want a line to stay whole
            print(check.verdict, check.name.ljust(NAME_WIDTH), check.found, remedy, sep="  ", file=console.file)
    if console.is_terminal:
        console.print(table)
    print(summary(together), file=console.file)


def as_json(config: Path, checks: Sequence[Check]) -> str:
    """All checks for programs.

    Args:
        config: the YAML file that was examined.
        checks: what was found.
    """
    record = {
        "config": str(config),
        "verdict": "fail" if any(check.verdict == "fail" for check in checks) else "pass",
        "checks": [dataclasses.asdict(check) for check in checks],
    }
    return json.dumps(record, indent=1)


def merged(checks: Iterable[Check]) -> list[Check]:
    """The same said of several things becomes one: `time: sft, update`."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for check in checks:
        subject, _, of = check.name.partition(": ")
        alike.setdefault((subject, check.verdict, check.found, check.remedy), []).append(of)
    return [
        Check(f"{subject}: {', '.join(of)}" if any(of) else subject, verdict, found, remedy)  # type: ignore[arg-type]
        for (subject, verdict, found, remedy), of in alike.items()
    ]


def summary(checks: Iterable[Check]) -> str:
    """`2 failed, 20 passed: ...`."""
    counted = collections.Counter(check.verdict for check in checks)
    parts = ", ".join(f"{counted[verdict]} {word}" for verdict, word in SUMMARY.items() if counted[verdict])
    return f"{parts}: {'this will not run as it is' if counted['fail'] else 'this should run'}"
