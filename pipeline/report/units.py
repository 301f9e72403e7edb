"""Open and failed units in words: what they are called, how far they are, what they wait for and why."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.artifacts import attempt_directory
from pipeline.failures import log_path
from pipeline.ledger import UnitState
from pipeline.report.progress import SUCCESS, Group
from pipeline.report.quantities import duration, percent
from pipeline.report.reasons import job_name
from pipeline.report.standing import Standing

METRICS_SHOWN = 3
COLORS = {"failed": "red", "running": "cyan", "queued": "yellow", "published": "green"}
# Of the metrics that a running unit tells, those that come first.
TOLD_FIRST = (*SUCCESS, "rollout/reward_mean", "actor/loss", "actor/approx_kl", "actor/entropy", "actor/grad_norm")


def alike(row: Group) -> list[list[Standing]]:
    """The open units of a group, neighbours that wait for the same together."""
    units = [unit for unit in row.units if unit.status not in ("published", "failed")]
    # Those with a job have more to say than what they wait for.
    told = ((unit.why if unit.status == "waiting" else unit.unit, unit) for unit in units)
    return [[unit for _, unit in group] for _, group in itertools.groupby(told, lambda pair: pair[0])]


def name_of(members: Sequence[Standing]) -> str:
    """What units that are told of together are called."""
    first = members[0].unit
    return str(first) if len(members) == 1 else f"{dataclasses.replace(first, shard=None)} x {len(members)}"


def said(standing: Standing) -> str:
    """What there is to say of an open unit: its job, how far it is, what it waits for and why."""
    state, parts = standing.state, []
    if standing.status == "waiting":
        return standing.why
    if standing.job:
        place = f"{job_name(standing.job)} on {standing.node}" if standing.node else job_name(standing.job)
        since = standing.seconds if standing.status == "running" else standing.queued
        parts.append(place + (f" for {duration(since)}" if since is not None else ""))
    if state.attempts > 1:
        parts.append(f"attempt {state.attempt}")
    if standing.status == "running" and state.progress:
        parts += [f"{state.progress['done']}/{state.progress['total']}", *metric_words(state.progress["metrics"])]
    if standing.starts_at and standing.starts_at > time.time():
        parts.append(f"expected to start {_moment(standing.starts_at)}")
    return ": ".join(filter(None, (", ".join(parts), standing.why)))


def metric_words(metrics: Mapping[str, float | None]) -> list[str]:
    """The metrics that matter most of those that a unit tells, in a few words each.

    Args:
        metrics: name -> number; None: not finite.
    """
    first = (name for name in TOLD_FIRST if name in metrics)
    known = [(name, value) for name in dict.fromkeys((*first, *metrics)) if (value := metrics[name]) is not None]
    return [
        f"success {percent(value)}" if name in SUCCESS else f"{name.rpartition('/')[2]} {value:.4g}"
        for name, value in known[:METRICS_SHOWN]
    ]


def failure(run: Path, state: UnitState) -> list[str]:
    """A failed unit in two lines: its error, and where to read on.

    Args:
        run: the run directory.
        state: of the unit.
    """
    first = f"{state.unit} failed after {state.attempts} attempts: {state.error or 'it left no error line'}"
    if state.attempt is None:
        return [first]
    return [first, f"  log: {log_path(attempt_directory(run, state.unit, state.attempt))}"]


def _moment(unix: float) -> str:
    moment = datetime.datetime.fromtimestamp(unix)
    today = moment.date() == datetime.date.today()
    return moment.strftime("at %H:%M" if today else "on %b %d at %H:%M")
