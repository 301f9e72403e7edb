"""Success and loss over the epochs of a run, as numbers and as sparklines."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.report.progress import Group
from pipeline.report.quantities import percent
from pipeline.report.sparkline import ASCII_BARS, BARS, sparkline

WIDEST = 60  # columns of a sparkline
OTHERS = 48  # columns beside it: the metric's name and three numbers
BEST_FROM = 72  # columns from which the best value fits beside the first and the last


@dataclasses.dataclass(frozen=True)
class Curve:
    """A metric over epochs.

    Attributes:
        metric: its name, as trackers have it.
        values: of every epoch of the run from 0 on; None where it is not known or not measured.
        rate: whether it is a fraction in 0..1 that should rise, rather than a loss.
    """

    metric: str
    values: tuple[float | None, ...]
    rate: bool

    @property
    def known(self) -> list[float]:
        """The values there are."""
        return [value for value in self.values if value is not None]

    def text(self, value: float) -> str:
        """A value for people."""
        return percent(value) if self.rate else f"{value:.4g}"


def curves(groups: Sequence[Group], epochs: int) -> list[Curve]:
    """What is known of a run so far, running units included; metrics without any value are left out.

    Args:
        groups: of the run.
        epochs: the last epoch.
    """

    def values(stage: str, of: Callable[[Group], float | None]) -> tuple[float | None, ...]:
        known = {group.epoch: of(group) for group in groups if group.stage == stage}
        return tuple(known.get(epoch) for epoch in range(epochs + 1))

    every = [
        Curve("env/success_rate", values("evaluate", lambda group: group.success), True),
        Curve("rollout/success_rate", values("rollout", lambda group: group.success), True),
        Curve("actor/loss", values("update", lambda group: group.loss), False),
        # How far an update moves the policy: what tells a learning rate that is too high.
        Curve("actor/approx_kl", values("update", lambda group: group.told("actor/approx_kl")), False),
    ]
    return [curve for curve in every if curve.known]


def curve_table(of: Sequence[Curve], console: Console) -> Table:
    """A row for each metric: its sparkline, all of them over the same epochs, its first, last and best value.

    Args:
        of: at least one.
        console: where it will be printed.
    """
    last = len(of[0].values) - 1
    best = console.width >= BEST_FROM
    width = min(max(console.width - OTHERS, 10), WIDEST)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column(f"epochs 0 to {last}" if last else "epoch 0", no_wrap=True, overflow="crop")
    for heading in ("first", "last", "best")[: 3 if best else 2]:
        table.add_column(heading, justify="right")
    for curve in of:
        low, high = (0.0, 1.0) if curve.rate else (None, None)
        bars = sparkline(curve.values, width, low=low, high=high, bars=bars_of(console))
        known = curve.known
        # Of a policy-gradient loss neither the lowest nor the highest is the best.
        numbers = [known[0], known[-1], *([max(known)] if best and curve.rate else [])]
        shown = [Text(curve.text(number)) for number in numbers]
        table.add_row(Text(curve.metric), Text(bars, style="green" if curve.rate else "cyan"), *shown)
    return table


def bars_of(console: Console) -> str:
    """The bars that the console's encoding has."""
    return ASCII_BARS if console.options.ascii_only else BARS
