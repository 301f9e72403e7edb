"""Curves as SVG whose text is text, whose colours follow the page's theme, and whose points tell their numbers."""

from __future__ import annotations

import dataclasses
import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from pipeline.report.html.thinning import Thinned

# Colours of the drawing stand for variables of the style sheet, which differ between light and dark.
INK, FAINT, LINE, PAPER = "#010101", "#020202", "#030303", "#040404"
ROLES = {"#010101": "ink", "#020202": "faint", "#030303": "line", "#040404": "paper"}
SERIES = [f"#1000{index:02x}" for index in range(8)]
SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
STYLE: Any = {  # matplotlib's own type lists every key there is
    "svg.fonttype": "none",
    "text.parse_math": False,  # names of tasks and runs may hold dollars
    "font.family": "sans-serif",
    "font.size": 10.5,
    "axes.edgecolor": LINE,
    "axes.labelcolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": FAINT,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 10.5,
    "legend.labelcolor": INK,
}


@dataclasses.dataclass(frozen=True)
class Line:
    """A series of a plot.

    Attributes:
        label: in the legend and in what its points tell.
        points: where it goes.
        color: index of its colour in the style sheet.
        intervals: x -> low and high end of the interval around it.
        dashed: whether it is drawn as the lesser of two.
    """

    label: str
    points: Thinned
    color: int = 0
    intervals: dict[float, tuple[float, float]] = dataclasses.field(default_factory=dict)
    dashed: bool = False


@dataclasses.dataclass(frozen=True)
class Plot:
    """Series over epochs or steps.

    Attributes:
        name: of its own on the page, letters and digits.
        title: what is drawn, for those who cannot see it.
        lines: the series.
        percent: whether the values are fractions to be shown as percentages between 0 and 100.
        x: name of the horizontal axis.
        legend: whether series are named in the plot.
    """

    name: str
    title: str
    lines: tuple[Line, ...]
    percent: bool = False
    x: str = "epoch"
    legend: bool = False


def curves(plot: Plot, width: int, height: int) -> Markup:
    """Draw series as lines with points.

    Args:
        plot: what to draw.
        width: in CSS pixels at which its text has the size of the page's small print.
        height: the same.
    """
    tips: list[list[str]] = []

    def draw(axes: Axes) -> None:
        for line in plot.lines:
            tips.append(_line(axes, line, plot, f"tips-{len(tips)}"))
        if plot.percent:
            axes.set_ylim(-0.03, 1.03)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
            axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
        else:
            axes.yaxis.set_major_locator(MaxNLocator(4))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
            axes.margins(y=0.12)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        axes.set_xlabel(plot.x)
        if plot.legend:
            axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=3, borderaxespad=0, handlelength=1.6)

    return _svg(plot.name, plot.title, width, height, draw, tips)


def number(value: float) -> str:
    """A number in few digits, as a person would write it."""
    plain = value == 0 or 1e-4 <= abs(value) < 1e5
    text = f"{value:.2g}" if not plain else f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:,.4g}"
    return text.replace("-", "\N{MINUS SIGN}", 1) if value < 0 else text


def printable(text: str) -> str:
    """Text without the control characters that neither XML nor a terminal can bear."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "\N{REPLACEMENT CHARACTER}", text)


def _line(axes: Axes, line: Line, plot: Plot, gid: str) -> list[str]:
    """Draw a series; what its points tell."""
    color, points = SERIES[line.color % len(SERIES)], line.points
    spread = [
        line.intervals.get(x, (low, high)) for x, low, high in zip(points.x, points.low, points.high, strict=True)
    ]
    if any(low < high for low, high in spread):
        lows, highs = [low for low, _ in spread], [high for _, high in spread]
        if len(spread) > 8 or not line.intervals:
            axes.fill_between(points.x, lows, highs, color=color, alpha=0.16, linewidth=0)
        else:
            axes.vlines(points.x, lows, highs, color=color, alpha=0.45, linewidth=2.2)
    size = 4.2 if len(points.x) <= 40 else 1.8
    axes.plot(
        points.x,
        points.y,
        color=color,
        linewidth=1.7,
        linestyle=(0, (3, 2)) if line.dashed else "-",
        label=printable(line.label),
        solid_joinstyle="round",
    )
    axes.plot(points.x, points.y, color=color, linestyle="none", marker="o", markersize=size, mew=0, gid=gid)
    show = (lambda value: f"{100 * value:.1f} %") if plot.percent else number
    tips = []
    for index, (x, y) in enumerate(zip(points.x, points.y, strict=True)):
        span = points.spans[index]
        tip = f"{line.label}, {plot.x} {span}: {show(y)}"
        if x in line.intervals:
            tip += " [{}, {}]".format(*map(show, line.intervals[x]))
        elif points.low[index] < points.high[index]:
            tip += f" (mean; {show(points.low[index])} to {show(points.high[index])})"
        tips.append(tip)
    return tips


def _svg(
    name: str, title: str, width: int, height: int, draw: Callable[[Axes], None], tips: Sequence[Sequence[str]]
) -> Markup:
    file = io.StringIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # the page's own font will have it
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        matplotlib.rcParams["svg.hashsalt"] = name
        # A unit of the drawing is a point, of which matplotlib counts 72 to the inch; on the page it is a pixel.
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _themed(file.getvalue(), title, f"{name}-{width}", tips)


def _themed(text: str, title: str, prefix: str, tips: Sequence[Sequence[str]]) -> Markup:
    """Give a drawing the page's colours and fonts, names that clash with no other's, and what its points tell."""
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    root = ElementTree.fromstring(text[text.index("<svg") :])
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    for styles in root.findall(f"{{{SVG}}}defs/{{{SVG}}}style/.."):
        root.remove(styles)  # they would hold for the whole page
    root.attrib |= {"role": "img", "aria-label": printable(title)}
    for index, told in enumerate(tips):
        (group,) = root.iterfind(f".//*[@id='tips-{index}']")
        for point, tip in zip(group.iter(f"{{{SVG}}}use"), told, strict=True):
            ElementTree.SubElement(point, f"{{{SVG}}}title").text = printable(tip)
    for element in root.iter():
        if "id" in element.attrib:
            element.set("id", f"{prefix}-{element.get('id')}")
        if target := element.get(f"{{{XLINK}}}href"):
            element.set(f"{{{XLINK}}}href", f"#{prefix}-{target.removeprefix('#')}")
        if clip := element.get("clip-path"):
            element.set("clip-path", clip.replace("url(#", f"url(#{prefix}-"))
        if style := element.get("style"):
            element.set("style", _themed_style(style))
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _themed_style(style: str) -> str:
    style = re.sub(r"#1000([0-9a-f]{2})", lambda found: f"var(--c{int(found[1], 16)})", style)
    style = re.sub("|".join(ROLES), lambda found: f"var(--{ROLES[found[0]]})", style)
    return re.sub(r" font-family: [^;]*;", "", style)
