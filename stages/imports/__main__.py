"""The process behind `baton import`: imports recorded demonstrations, with a bar on a terminal and lines elsewhere.

    python -m stages.imports /data/2025-challenge-demos '{... the resolved config as JSON ...}' --shard 3

It ends like a stage: 0 all is there, 2 a user's mistake, told in one line, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import errno
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.config import Config
from pipeline.errors import UserError

if TYPE_CHECKING:
    from stages.imports.importer import Done

INTERRUPTED = 130
NEEDED = ("av", "h5py", "google_crc32c")


def main() -> int:
    """Import what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m stages.imports")
    parser.add_argument("source", type=Path)
    parser.add_argument("config")
    parser.add_argument("--shard", type=int, action="append", default=[])
    parser.add_argument("--episodes", default="")
    parser.add_argument("--turn", action=argparse.BooleanOptionalAction)
    asked = parser.parse_args()
    config = Config.model_validate_json(asked.config)
    try:
        if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
            raise UserError(f"imports need {' and '.join(missing)}: pip install 'baton-vla[import]'")
        carry_out(asked.source, config, asked.shard, ranges(asked.episodes), asked.turn)
    except UserError as error:
        print(f"baton: {error}", file=sys.stderr)
        return UserError.EXIT_CODE
    except OSError as error:
        place = error.filename or config.demonstrate.imported
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            print(f"baton: the disk is full: {place}; make room, and the same command goes on", file=sys.stderr)
        elif error.filename is not None:  # what may not be read or written
            print(f"baton: {place}: {error.strerror}; mend that, and the same command goes on", file=sys.stderr)
        else:
            raise
        return UserError.EXIT_CODE
    except KeyboardInterrupt:
        print("\nstopped; what is published stays, and the same command goes on from there", file=sys.stderr)
        return INTERRUPTED
    return 0


def ranges(text: str) -> list[range]:
    """Numbers and ranges of them, e.g. `10,40-90`; a range has both its ends.

    Raises:
        UserError: it says something else.
    """
    found = []
    for part in filter(None, text.split(",")):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or int(last or first) < int(first):
            raise UserError(f"--episodes {part.strip()}: it is no number and no range of them; say e.g. 10,40-90")
        found.append(range(int(first), int(last or first) + 1))
    return found


def carry_out(source: Path, config: Config, only: list[int], numbers: list[range], turn: bool | None) -> None:
    """Import, and show how far it is."""
    # These take seconds, in which Ctrl-C has to be answered as well.
    from stages.imports.importer import Import
    from stages.imports.opening import open_source

    console = Console(stderr=True, highlight=False)
    work = Import(open_source(source, config, turn), config, only, numbers)
    total = sum(len(work.parts[shard]) for shard in work.wanted)
    done: list[Done] = []
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} episodes"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    with bar:
        shown = bar.add_task("importing", total=total)

        def tell(number: int, task: str) -> None:
            bar.update(shown, completed=sum(shard.episodes for shard in done) + number, description=task)

        for shard in work.carry_out(tell):
            done.append(shard)
            bar.update(shown, completed=sum(shard.episodes for shard in done))
            decisions = shard.artifact.manifest.metrics["import/decisions"]
            word = "written" if shard.fresh else "there already"
            line = (
                f"shard {shard.shard} of {work.shards}: {decisions:.0f} decisions, {shard.bytes / 1e6:.1f} MB, {word}"
            )
            (console.print if console.is_terminal else print)(line)
    metrics = [shard.artifact.manifest.metrics for shard in done]
    summed = {name: sum(each[name] for each in metrics) for name in metrics[0]}
    print(
        f"{summed['import/episodes']:.0f} episodes, {summed['import/decisions']:.0f} decisions, "
        f"{sum(shard.bytes for shard in done) / 1e9:.3f} GB in {config.demonstrate.imported}; "
        f"{summed['import/frames_left_out'] / summed['import/frames']:.1%} of {summed['import/frames']:.0f} frames "
        "were left out"
    )
    if held_out := summed.get("import/held_out", 0):
        print(f"left out for they begin from states that are kept for evaluation: {held_out:.0f} episodes")


if __name__ == "__main__":
    sys.exit(main())
