"""What a check came to."""

from __future__ import annotations

import dataclasses
from typing import Literal

Verdict = Literal["pass", "warn", "fail", "skip"]


@dataclasses.dataclass(frozen=True)
class Check:
    """What was looked at and how it is.

    Attributes:
        name: the subject, and what of the run or the site it is about: `nodes: rollout`.
        verdict: `fail`: the run will not work like this; `skip`: it could not be looked at or need not.
        found: what was found.
        remedy: what to do about it; empty where nothing is to be done.
    """

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""


def passed(name: str, found: str) -> Check:
    """All is well."""
    return Check(name, "pass", found)


def warned(name: str, found: str, remedy: str) -> Check:
    """It may work."""
    return Check(name, "warn", found, remedy)


def failed(name: str, found: str, remedy: str = "") -> Check:
    """It will not work."""
    return Check(name, "fail", found, remedy)


def skipped(name: str, found: str, remedy: str = "") -> Check:
    """Not looked at."""
    return Check(name, "skip", found, remedy)


def softened(check: Check) -> Check:
    """A check of a job that the run works without."""
    if check.verdict != "fail":
        return check
    return dataclasses.replace(check, verdict="warn", remedy=f"{check.remedy}; `baton run` needs no such job")


def size(bytes_: float) -> str:
    """Bytes for people: `1.5 GB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if bytes_ < 1000 or unit == "TB":
            break
        bytes_ /= 1000
    return f"{bytes_:.0f} {unit}" if unit in ("B", "kB") or bytes_ >= 100 else f"{bytes_:.1f} {unit}"


def count(number: int, noun: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
