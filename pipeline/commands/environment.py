"""The command about environments of simulators: `env`."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Annotated

import typer

from pipeline.commands.arguments import console
from pipeline.errors import UserError


def env(
    action: Annotated[str, typer.Argument(metavar="create|check|list", help="What to do.")],
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The simulator, e.g. omnigibson.")] = None,
    python: Annotated[str | None, typer.Option("--python", help="Interpreter to build with.")] = None,
) -> None:
    """Build, check or list environments of simulators.

    Environments lie in $BATON_ENVS, else ~/.local/share/baton/envs; a config without simulator.python uses them.
    """
    from pipeline import building, environments

    if action not in ("create", "check", "list"):
        raise UserError(f"env {action!r}: say create, check or list")
    if action == "list":
        for each in environments.names():
            found = environments.find(each)
            state = "built" if found.current else "built from another definition" if found.built else "not built"
            print(f"{each:<14}{state:<31}{found.path if found.built else found.definition.description}")
        return
    if name is None:
        raise UserError(f"env {action} needs a NAME: {', '.join(environments.names())}")
    environment = environments.find(name)
    if action == "create":
        fresh = building.create(environment, _told, python)
        print(f"{name} {'is ready' if fresh else 'was ready already'}: {environment.python}")
        print("configs with this simulator use it unless they set simulator.python")
        return
    checks = building.check(environment)
    for check, wrong in checks:
        print(f"pass  {check}" if wrong is None else f"fail  {check}: {wrong}")
    if any(wrong for _, wrong in checks):
        again = f"rm -r {environment.path}; baton env create {name}"
        raise UserError(f"{name} does not work as it is; to build it again: {again}")


@contextlib.contextmanager
def _told(line: str) -> Iterator[None]:
    """Say what is being done, and how long it took; on a terminal the clock runs meanwhile."""
    begin, terminal = time.monotonic(), console()
    if terminal.is_terminal:
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=terminal, transient=True) as progress:
            progress.add_task(line, total=None)
            yield
    else:
        print(line, file=sys.stderr, flush=True)
        yield
    print(f"{line}, {time.monotonic() - begin:.0f} s", flush=True)
