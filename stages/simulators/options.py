"""What the options of every simulator are held to, and the words in which a wrong one is refused."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from stages.simulators.interface import SimulatorConfigError

Bounds = tuple[type, float, float]
"""Type of a number (int or float), the least and the most that it may be."""


def known(simulator: str, options: Iterable[str], valid: Iterable[str]) -> None:
    """Refuse options that a simulator does not have.

    Args:
        simulator: its name.
        options: names of those that were given.
        valid: names of those that there are.
    """
    valid = list(valid)
    for name in options:
        if name not in valid:
            raise SimulatorConfigError(
                f"{simulator}: no option {name!r}{nearest(name, valid)}; valid: {', '.join(valid)}"
            )


def number(simulator: str, name: str, value: Any, bounds: Bounds) -> Any:
    """The value of an option that is a number within bounds."""
    kind, least, most = bounds
    accepted = (int,) if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, accepted) or not least <= value <= most:
        noun = "an integer" if kind is int else "a number"
        possible = f"{least:g}" if least == most else f"{noun} from {least:g} to {most:g}"
        raise SimulatorConfigError(f"{simulator}: {name} is {value!r}; it must be {possible}")
    return kind(value)


def choice(simulator: str, name: str, value: Any, valid: Iterable[str]) -> str:
    """The value of an option that is one of some texts."""
    valid = list(valid)
    if value not in valid:
        raise SimulatorConfigError(
            f"{simulator}: {name} has no {value!r}{nearest(str(value), valid)}; valid: {', '.join(valid)}"
        )
    return str(value)


def switch(simulator: str, name: str, value: Any) -> bool:
    """The value of an option that is on or off."""
    if not isinstance(value, bool):
        raise SimulatorConfigError(f"{simulator}: {name} is {value!r}; it must be true or false")
    return value


def tasks(simulator: str, value: Any) -> tuple[str, ...]:
    """The option `tasks`: names that the simulator's catalogue has still to look up."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise SimulatorConfigError(f"{simulator}: tasks is {value!r}; it must be a list of names of tasks or suites")
    return tuple(value)


def multiple(simulator: str, options: Any, larger: str, smaller: str) -> None:
    """Refuse options of which one should be a multiple of another and is not."""
    a, b = getattr(options, larger), getattr(options, smaller)
    if a % b:
        raise SimulatorConfigError(f"{simulator}: {larger} {a} is not a multiple of {smaller} {b}; choose one that is")


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint at the valid name that a wrong one comes close to; empty if none does."""
    close = difflib.get_close_matches(name, list(valid), n=1)
    return f", did you mean {close[0]!r}?" if close else ""
