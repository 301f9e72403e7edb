"""Commands that sum up runs: `report` makes a page of one, `compare` puts several side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.arguments import RunArgument, console, find_run, shorten
from pipeline.errors import UserError


def report(
    run: RunArgument,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The page; default: report.html in the run directory.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: what result.json holds, and no page.")] = False,
) -> None:
    """Show what a run came to so far, and write a page of it.

    The page is one HTML file that can be sent and needs no network: success with intervals, curves, films, where the
    time went, failures, config and lineage. Also writes result.json and result.txt.
    """
    from pipeline.report.results import RESULT
    from pipeline.report.tables import TABLE, write_report

    directory = find_run(run)
    write_report(directory)
    if as_json:
        print((directory / RESULT).read_text(), end="")
        return
    print((directory / TABLE).read_text(encoding="utf-8"), end="")
    from pipeline.report.html import page

    target = _file(out or directory / page.REPORT, "--out")
    page.write(directory, target)
    print(f"page:      {shorten(target)}")


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN...", help="Run directories, or names under runs/.")],
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write a page, with curves over each other.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Put runs side by side.

    Shows success, cost, and what differs between their configs. Each run is compared with the first, paired where both
    were evaluated on the same initial states.
    """
    from pipeline.report import comparison, records, side_by_side

    compared = comparison.compare([find_run(run) for run in runs])
    if as_json:
        records.write(comparison.record(compared))
    else:
        side_by_side.show(compared, console())
    if html is None:
        return
    from pipeline.report.html import side_by_side as page

    target = _file(html, "--html")
    page.write(compared, target)
    if not as_json:
        print(f"page: {shorten(target)}")


def _file(path: Path, option: str) -> Path:
    if path.is_dir():
        raise UserError(f"{option} {path} is a directory; name a file, e.g. {path / 'report.html'}")
    if not path.absolute().parent.is_dir():
        raise UserError(f"{option} {path}: {path.parent} does not exist; make it, or name another file")
    return path
