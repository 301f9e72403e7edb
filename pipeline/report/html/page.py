"""Makes the report of a run: one HTML file that can be sent and printed."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from pipeline import ledger, rundir, tasks, validation
from pipeline.artifacts import Artifact, Unit, write_synced
from pipeline.config import Config
from pipeline.ledger import Snapshot
from pipeline.report.comparison import innermost
from pipeline.report.course import Series, course
from pipeline.report.html import films, lineage, plots, tables
from pipeline.report.html.drawings import curve_drawings, span_drawing, success_drawing
from pipeline.report.quantities import duration
from pipeline.report.results import Result, collect, published, suites_of
from pipeline.report.setbacks import ends, redone, setbacks

REPORT = "report.html"
FOLDER = Path(__file__).parent
SETBACKS_SHOWN = 50
HEATS = (
    ("Evaluation, held-out initial states", "evaluate", "env/success_rate"),
    ("Rollouts in training, actions drawn at random", "rollout", "rollout/success_rate"),
)


def write(run: Path, target: Path) -> Result:
    """Write the report of a run, finished or not.

    Args:
        run: the run directory.
        target: the HTML file, written whole or not at all.

    Returns:
        The numbers at its top.

    Raises:
        UserError: the run was made by another version of Baton, or is damaged.
    """
    snapshot, result, artifacts = ledger.read(run), collect(run), published(run)
    context = {
        "result": result,
        "config": snapshot.config,
        "identity": rundir.identity(run),
        "state": state(snapshot),
        **_success(result, snapshot.config, artifacts),
        **_time(run, snapshot, artifacts),
        "differences": differences(snapshot.config),
        "whole_config": validation.dump(snapshot.config),
        "lineage": lineage.trace(run, artifacts),
        "films": films.choose(run, result),
        "films_rule": films.RULE,
    }
    render("report.html.jinja", target, context)
    return result


def render(template: str, target: Path, context: Mapping[str, Any]) -> None:
    """Fill in a template; every value is escaped, and nothing may be left undefined.

    Args:
        template: a file beside this module.
        target: the HTML file, written whole or not at all.
        context: what the template speaks of.
    """
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": lambda rate: f"{100 * rate:.1f}",
        "points": lambda gain: f"{100 * gain:+.1f}".replace("-", "\N{MINUS SIGN}"),
        "duration": duration,
        "number": plots.number,
        "value": _value,
        "moment": _moment,
        "breakable": _breakable,
        "zip": lambda one, other: list(zip(one, other, strict=True)),
    }
    environment.finalize = lambda value: plots.printable(value) if type(value) is str else value
    style = Markup((FOLDER / "style.css").read_text(encoding="utf-8"))
    text = environment.get_template(template).render(style=style, **context)
    write_synced(target.absolute(), text.encode())


def state(snapshot: Snapshot) -> tuple[str, str]:
    """How far a run is: a word, and a sentence."""
    units = snapshot.units
    done = sum(unit.status == "published" for unit in units)
    many = f"{done} of {len(units)} units are published"
    failed = [unit for unit in units if unit.status == "failed"]
    if failed:
        more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        return "failed", f"{failed[0].unit}{more} failed; {many}"
    if done == len(units):
        return "finished", f"all {done} units are published"
    return "running" if snapshot.driver else "unfinished", many


def differences(config: Config) -> list[tuple[str, Any, Any]]:
    """What a config says other than the defaults: key, default, value."""
    changed = rundir.differences(Config(name=config.name, runs_dir=config.runs_dir), config)
    speaking = innermost({key for key, _, _ in changed})
    return [(key, default, here) for key, default, here in changed if key in speaking]


def _success(result: Result, config: Config, artifacts: Mapping[Unit, Artifact]) -> dict[str, Any]:
    measured, order = course(artifacts, config), config.simulator.tasks
    instructions = {task.task_name: task.task for task in tasks.catalogue(config.simulator.name) or ()}
    heats = [tables.heat_map(title, measured.get(stage, {}), metric, order) for title, stage, metric in HEATS]
    return {
        "rows": tables.success_rows(result, order, suites_of(config), instructions),
        "episodes": int(sum(_series(measured, "rollout", "rollout/episodes").values())),
        "success": success_drawing(result, measured),
        "epochs_done": sum(unit.stage == "update" for unit in artifacts),
        "curves": curve_drawings(measured, artifacts),
        "heats": [heat for heat in heats if heat is not None],
    }


def _time(run: Path, snapshot: Snapshot, artifacts: Mapping[Unit, Artifact]) -> dict[str, Any]:
    ended = ends(run)
    lost = setbacks(ended)
    return {
        "times": tables.stage_times(artifacts, ended),
        "spans": span_drawing(artifacts),
        "busy": tables.busy_seconds(artifacts),
        "failed": [unit for unit in snapshot.units if unit.status == "failed"],
        "setbacks": lost[:SETBACKS_SHOWN],
        "setbacks_hidden": len(lost[SETBACKS_SHOWN:]),
        "lost_seconds": sum(one.seconds or 0.0 for one in lost),
        "tries": len(ended),
        "redone": redone(run),
    }


def _series(measured: Mapping[str, Mapping[str, Series]], stage: str, name: str) -> Series:
    return measured.get(stage, {}).get(name, {})


def _value(value: Any) -> str:
    """A value of the config as YAML would have it on one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _breakable(name: str) -> Markup:
    """A name that may go on in the next line behind each of its separators."""
    return Markup(re.sub(r"([_./-])", r"\1<wbr>", str(escape(plots.printable(name)))))


def _moment(time: str | float) -> str:
    """A time as people write it, in UTC, whether ISO 8601 or Unix seconds."""
    utc = datetime.UTC
    moment = datetime.datetime.fromtimestamp(time, utc) if isinstance(time, float) else None
    moment = moment or datetime.datetime.fromisoformat(str(time)).astimezone(utc)
    return f"{moment:%Y-%m-%d %H:%M} UTC"
