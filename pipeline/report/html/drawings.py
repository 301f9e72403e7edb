"""The plots of the report: what goes into each, and what is said below it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pipeline.artifacts import Artifact, Unit
from pipeline.report.course import Series, warm_start
from pipeline.report.html.plots import Line, Plot, curves
from pipeline.report.html.tables import spans
from pipeline.report.html.thinning import rule, thin
from pipeline.report.results import Result
from pipeline.report.wilson import interval
from pipeline.shards import EPISODES

SMALL, WIDE, NARROW = (336, 196), (900, 280), (336, 250)  # pixels, width and height
# Stage, metric, what people call it, and whether it is a share.
CURVES = (
    ("rollout", "rollout/reward_mean", "Return of an episode", False),
    ("rollout", "rollout/episode_length", "Length of an episode, steps", False),
    ("update", "actor/loss", "Loss", False),
    ("update", "actor/value_loss", "Value loss", False),
    ("update", "actor/explained_variance", "Explained variance", False),
    ("update", "actor/entropy", "Entropy", False),
    ("update", "actor/approx_kl", "Approximate KL of an update", False),
    ("update", "actor/clip_fraction", "Clip fraction", True),
    ("update", "actor/ratio_max", "Largest probability ratio", False),
    ("update", "actor/grad_norm", "Norm of the gradient", False),
    ("update", "actor/lr", "Learning rate", False),
)
WARM_START = (
    ("actor/loss", "Warm start: loss", False),
    ("actor/token_accuracy", "Warm start: accuracy", True),
)


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A plot for each width of the page.

    Attributes:
        title: what is drawn.
        metric: its name in MLflow; empty where there is no single one.
        wide: for a wide page.
        narrow: for a narrow one; None where one does for both.
        notes: how to read it.
    """

    title: str
    metric: str
    wide: Markup
    narrow: Markup | None = None
    notes: tuple[str, ...] = ()


def success_drawing(result: Result, measured: Mapping[str, Mapping[str, Series]]) -> Drawing | None:
    """Success over epochs, of evaluations and of rollouts in training, with intervals; None before the first."""
    rollouts = measured.get("rollout", {})
    played = rollouts.get("rollout/success_rate", {}), rollouts.get(EPISODES, {})
    lines = [
        rate_line("evaluation", result.success_by_epoch, result.episodes_by_epoch, 0),
        dataclasses.replace(rate_line("rollouts in training", *played, 2), dashed=True),
    ]
    return wide_drawing("success", "Success over epochs", "", lines, percent=True)


def rate_line(label: str, rates: Mapping[Any, float], episodes: Mapping[Any, float], color: int) -> Line:
    """A success rate over epochs with Wilson's interval of every point, where a point is one epoch.

    Args:
        label: of the series.
        rates: epoch -> success.
        episodes: epoch -> episodes that it was measured over.
        color: index of its colour.
    """
    points = thin(rates)
    known = [x for x in points.x if points.each == 1 and x in episodes]
    intervals = {x: interval(round(rates[x] * episodes[x]), round(episodes[x])) for x in known}
    return Line(label, points, color, intervals)


def wide_drawing(name: str, title: str, metric: str, lines: Sequence[Line], *, percent: bool = False) -> Drawing | None:
    """A plot across the page, with a legend, for both widths of the page; None where there is nothing to draw."""
    drawn = tuple(line for line in lines if line.points)
    if not drawn:
        return None
    plot = Plot(name, title, drawn, percent, legend=True)
    notes = tuple(f"{line.label}: {rule(line.points.each, 'epochs')}" for line in drawn if line.points.each > 1)
    return Drawing(title, metric, curves(plot, *WIDE), curves(plot, *NARROW), notes)


def curve_drawings(measured: Mapping[str, Mapping[str, Series]], artifacts: Mapping[Unit, Artifact]) -> list[Drawing]:
    """What the stages measured by epoch, and the warm start by step."""
    warm = warm_start(artifacts, [name for name, _, _ in WARM_START])
    found = [
        *((name, title, share, "epoch", measured.get(stage, {}).get(name)) for stage, name, title, share in CURVES),
        *((name, title, share, "step", warm.get(name)) for name, title, share in WARM_START),
    ]
    drawings = []
    for index, (name, title, share, axis, series) in enumerate(found):
        if not series:
            continue
        points = thin(series)
        plot = Plot(f"curve{index}", title, (Line(title, points),), share, axis)
        notes = (rule(points.each, f"{axis}s"),) if points.each > 1 else ()
        drawings.append(Drawing(title, name, curves(plot, *SMALL), notes=notes))
    return drawings


def span_drawing(artifacts: Mapping[Unit, Artifact]) -> Drawing | None:
    """How long each stage took from its first start to its last end, by epoch; None before the second epoch."""
    series = {stage: found for stage, found in spans(artifacts).items() if len(found) > 1}
    lines = [Line(stage, thin(found), index) for index, (stage, found) in enumerate(series.items())]
    return wide_drawing("spans", "Seconds from a stage's first start to its last end", "", lines)
