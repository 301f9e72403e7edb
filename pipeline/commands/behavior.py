"""The command about BEHAVIOR's tasks: `behavior-tasks`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import UserError


def behavior_tasks(
    out: Annotated[Path | None, typer.Option("--out", help="File to write; without it they are printed.")] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="Instructions of a public JSONL instead of those made of the goals.")
    ] = None,
) -> None:
    """List the 50 tasks of the BEHAVIOR challenge.

    A JSON object a line, made of their goals in BDDL; simulator.options.tasks_file names such a file.
    """
    from pipeline.behavior import challenge

    lines = challenge.generated() if source is None else challenge.public(source)
    text = "".join(f"{line}\n" for line in lines)
    if out is None:
        print(text, end="")
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written: {error.strerror}") from None
    print(f"{len(lines)} tasks in {out}")
