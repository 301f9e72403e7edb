"""The command that makes a film of an episode that was played before: `replay`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.arguments import RunArgument, find_run
from pipeline.errors import UserError

STAGES = ("demonstrate", "rollout", "evaluate")


def replay(
    run: RunArgument,
    epoch: Annotated[int, typer.Option("--epoch", min=0, help="Epoch that the episode was played in.")],
    episode: Annotated[int, typer.Option("--episode", min=0, help="Its number, as in the names of films.")],
    stage: Annotated[str | None, typer.Option("--stage", help="rollout, evaluate or demonstrate.")] = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Simulate the recorded actions again, and show every step.")
    ] = False,
    size: Annotated[int, typer.Option("--size", help="Height of the film in pixels.")] = 448,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE.mp4", help="Where it goes.")] = None,
) -> None:
    """Make a film of any episode that a run has played.

    Of rollouts and demonstrations from the pictures in their shard, a frame a decision, or with --simulate every step.
    An evaluation keeps no pictures: its policy plays the episode again.
    """
    directory = find_run(run)
    stage = stage or ("rollout" if epoch else "demonstrate")
    if stage not in STAGES:
        raise UserError(f"--stage {stage}: stages whose episodes can be filmed are {', '.join(STAGES)}")
    check_published(directory, stage, epoch)
    arguments = [
        str(directory),
        "--epoch",
        str(epoch),
        "--episode",
        str(episode),
        "--stage",
        stage,
        "--size",
        str(size),
    ]
    arguments += [*(["--simulate"] if simulate else []), *([] if out is None else ["--out", str(out)])]
    os.execv(sys.executable, [sys.executable, "-m", "stages.replay", *arguments])


def check_published(run: Path, stage: str, epoch: int) -> None:
    """Refuse an epoch whose episodes are not there.

    Args:
        run: the run directory.
        stage: demonstrate, rollout or evaluate.
        epoch: as asked for.

    Raises:
        UserError: it was freed, or is not published; names the epochs that are.
    """
    from pipeline.ledger import FREED

    there = sorted({int(path.parent.name) for path in run.glob(f"epochs/*/{stage}")})
    if epoch in there:
        return
    if there:
        numbers = ", ".join(map(str, there[-10:]))
        remedy = f"published of {stage} {'is epoch' if len(there) == 1 else 'are epochs'} {numbers}"
    else:
        remedy = f"nothing of {stage} is published yet; `baton status {run}` shows what is"
    if freed := sorted(run.glob(f"{FREED}/e{epoch:04d}-{stage}*")):
        filmed = [str(unit / "videos") for unit in freed if (unit / "videos").is_dir()]
        kept = f"; films that were made lie in {', '.join(filmed)}" if filmed else ""
        raise UserError(
            f"--epoch {epoch}: its shards were freed (keep.rollouts in {run / 'config.yaml'}){kept}; {remedy}"
        )
    raise UserError(f"--epoch {epoch}: {remedy}")
