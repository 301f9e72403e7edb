"""A picture of what a robot can be asked to do: each task before and after the scripted expert's success.

python -m stages.video.contact_sheet docs/household.png
python -m stages.video.contact_sheet long.png --suite long --seed 3
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from pipeline.errors import UserError
from stages.simulators import interface
from stages.simulators.interface import Episode, Simulator, SimulatorConfigError
from stages.video.lettering import font, wrap

WIDTH, COLUMNS = 1600, 4
MARGIN, GAP = 16, 20  # around the sheet; between two tasks
PICTURE = (WIDTH - 2 * MARGIN - (COLUMNS - 1) * GAP) // COLUMNS // 2
RENDERED = 2 * PICTURE  # drawn larger and shrunk, so that edges are smooth
TEXT, TITLE, LINES = 20, 32, 3
LINE_HEIGHT, TITLE_HEIGHT = 24, 60
INK, PAPER = (32, 32, 32), (255, 255, 255)
COLOURS = 255  # of the file; renderings have few, and it takes a third of the bytes
CHUNK, SEEDS = 8, 5


@dataclasses.dataclass(frozen=True)
class Shot:
    """A task in two pictures.

    Attributes:
        suite: its suite.
        instruction: what the robot is asked to do.
        before: uint8 [S, S, 3], RGB of the head camera at the start.
        after: the same when the task is done.
    """

    suite: str
    instruction: str
    before: np.ndarray
    after: np.ndarray


def main() -> int:
    """Draw the sheet that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m stages.video.contact_sheet", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT.png")
    parser.add_argument("--simulator", default="household")
    parser.add_argument("--suite", action="append", help="only this one; may be given several times")
    parser.add_argument("--seed", type=int, default=0, help="of the initial states")
    parser.add_argument("--options", type=json.loads, default={}, help="""e.g. '{"renderer": "raycast"}'""")
    asked = parser.parse_args()
    try:
        tasks = listed(asked.simulator, asked.suite)
        options = {"image_size": RENDERED, **asked.options, "tasks": list(tasks)}
        simulator = interface.make(asked.simulator, 1, options)
        try:
            picture = draw(list(shoot(simulator, tasks, asked.seed)))
        finally:
            simulator.close()
        picture.quantize(COLOURS, dither=Image.Dither.NONE).save(asked.out, optimize=True)
    except (UserError, SimulatorConfigError, OSError) as error:
        print(f"contact sheet: {error}", file=sys.stderr)
        return UserError.EXIT_CODE
    print(f"{asked.out}: {len(tasks)} tasks, {picture.width} x {picture.height}, {asked.out.stat().st_size:,} bytes")
    return 0


def listed(simulator: str, suites: Sequence[str] | None) -> dict[str, str]:
    """The tasks of a simulator.

    Args:
        simulator: a folder under stages/simulators with a `tasks.jsonl`.
        suites: those wanted; None: all.

    Returns:
        Task name -> suite, as listed.

    Raises:
        UserError: it lists no tasks, or has no such suite.
    """
    path = Path(interface.__file__).parent / simulator / "tasks.jsonl"
    if not path.is_file():
        raise UserError(f"--simulator {simulator}: {path} is not there")
    tasks = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    there = list(dict.fromkeys(task["suite"] for task in tasks))
    for suite in suites or ():
        if suite not in there:
            raise UserError(f"--suite {suite}: {simulator} has {', '.join(there)}")
    return {task["task_name"]: task["suite"] for task in tasks if task["suite"] in (suites or there)}


def shoot(simulator: Simulator, tasks: Mapping[str, str], seed: int) -> Iterator[Shot]:
    """Let the expert do each task, from the first of a few initial states that it solves.

    Args:
        simulator: has at least one world, which is used, and all the tasks.
        tasks: task name -> suite.
        seed: of the first initial state.

    Yields:
        A shot of each task.

    Raises:
        UserError: the expert solves none of the states.
    """
    instructions = {task.name: task.instruction for task in simulator.spec.tasks}
    for task, suite in tasks.items():
        for attempt in range(seed, seed + SEEDS):
            simulator.reset([0], [Episode(task, attempt)], [False])
            before = _head(simulator)
            if _solve(simulator):
                yield Shot(suite, instructions[task], before, _head(simulator))
                break
        else:
            raise UserError(f"the expert did not solve {task} from the states {seed} to {seed + SEEDS - 1}: see --seed")


def draw(shots: Sequence[Shot]) -> Image.Image:
    """Put shots on a sheet, a heading for each suite.

    Args:
        shots: those of a suite one after another.

    Returns:
        The sheet, WIDTH pixels wide and as high as it needs to be.
    """
    suites: dict[str, list[Shot]] = {}
    for shot in shots:
        suites.setdefault(shot.suite, []).append(shot)
    rows = [(suite, own[i : i + COLUMNS]) for suite, own in suites.items() for i in range(0, len(own), COLUMNS)]
    sheet = Image.new("RGB", (WIDTH, 10 * WIDTH), PAPER)
    pen, y, heading = ImageDraw.Draw(sheet), MARGIN, ""
    for suite, row in rows:
        if suite != heading:
            pen.text((MARGIN, y), suite, INK, font(TITLE))
            y, heading = y + TITLE_HEIGHT, suite
        lines = 1
        for column, shot in enumerate(row):
            x = MARGIN + column * (2 * PICTURE + GAP)
            for picture, left in ((shot.before, x), (shot.after, x + PICTURE)):
                shrunk = Image.fromarray(picture).resize((PICTURE - 2, PICTURE), Image.Resampling.LANCZOS)
                sheet.paste(shrunk, (left, y))
            written = wrap(shot.instruction, font(TEXT), 2 * PICTURE, LINES)
            for number, line in enumerate(written):
                pen.text((x, y + PICTURE + 4 + number * LINE_HEIGHT), line, INK, font(TEXT))
            lines = max(lines, len(written))
        y += PICTURE + lines * LINE_HEIGHT + GAP
    return sheet.crop((0, 0, WIDTH, y))


def _solve(simulator: Simulator) -> bool:
    """Let the expert act until the episode ends; returns whether it succeeded."""
    while True:
        _, _, result = simulator.expert_chunk([0], CHUNK)
        if result.terminated[0] or result.truncated[0]:
            return bool(result.success[0])


def _head(simulator: Simulator) -> np.ndarray:
    """What the head camera of the first world sees, uint8 [H, W, 3]."""
    return np.ascontiguousarray(simulator.observe([0]).head[0].transpose(1, 2, 0))


if __name__ == "__main__":
    sys.exit(main())
