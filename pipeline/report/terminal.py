"""The terminal, or the file that stands in its place: how wide it is, and whether it can be drawn on."""

from __future__ import annotations

import os
from typing import TextIO

from rich.console import Console, RenderableType
from rich.text import Text

# Lines of a pipe or a file are not folded, so that programs like grep find them whole.
UNFOLDED = 400
READABLE = 120


def console_on(file: TextIO) -> Console:
    """A console that draws in place only on a real terminal, whatever asks for colour.

    Args:
        file: stdout or stderr.
    """
    terminal, dumb = file.isatty(), os.environ.get("TERM", "").lower() in ("dumb", "unknown")
    width = height = None
    if not terminal and "COLUMNS" not in os.environ:
        width = UNFOLDED
    elif terminal and dumb:  # the size of others is followed
        size = os.get_terminal_size(file.fileno())
        width, height = size.columns or None, size.lines or None
    return Console(file=file, highlight=False, width=width, height=height, force_interactive=terminal and not dumb)


def trimmed(console: Console, renderable: RenderableType) -> None:
    """Print without the blanks that tables put behind the last word of a line.

    Args:
        console: where to.
        renderable: what to print.
    """
    for line in console.render_lines(renderable, pad=False, new_lines=False):
        text = Text.assemble(*((segment.text, segment.style or "") for segment in line if not segment.control))
        text.rstrip()
        console.print(text, soft_wrap=True)
