"""The mission's expressions of GPU indices: "all", "3", "0-3,6,8-9", and "0-1:0-3", two processes on each of two GPUs.

Parts are joined by commas. After the colon stand the processes that share a part's GPUs evenly; without it each GPU has
one, counted on from the part before.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence

SPAN = r"([0-9]{1,9})(?:\s*-\s*([0-9]{1,9}))?"
PART = re.compile(rf"(?:(all)|{SPAN})(?:\s*:\s*{SPAN})?")
FORMS = "write 'all', an index ('3'), indices ('0-3,6') or GPUs:processes ('0-1:0-3')"


class PlacementError(ValueError):
    """A placement that cannot be; the message is one line with the place, the arithmetic and the remedy."""


@dataclasses.dataclass(frozen=True)
class Part:
    """Consecutive GPUs and the processes spread over them.

    Attributes:
        gpus: their indices; None: all there are.
        processes: their ranks; None: one on each GPU.
    """

    gpus: range | None
    processes: range | None = None


Expression = tuple[Part, ...]
ALL: Expression = (Part(None),)


def parse(value: object, place: str) -> Expression:
    """Read an expression; how many GPUs there are is not yet asked.

    Args:
        value: what the config holds: text, or a number where YAML saw one.
        place: begins every message.

    Returns:
        Its parts; GPUs ascend over all of them, and ranks count from 0 without a gap.

    Raises:
        PlacementError: it is no such expression.
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise PlacementError(f"{place} is no expression of indices; {FORMS}")
    texts = [text.strip() for text in str(value).split(",")]
    parts: list[Part] = []
    ranks = 0
    for text in texts:
        part = _part(text, place)
        if part.gpus is None and len(texts) > 1:
            raise PlacementError(f"{place}: 'all' already holds every other GPU; leave the others out")
        if parts and part.gpus and (last := parts[-1].gpus) and part.gpus[0] <= last[-1]:
            raise PlacementError(f"{place}: {text} comes after {last[-1]}; name each once, in ascending order")
        if part.processes and part.processes[0] != ranks:
            raise PlacementError(
                f"{place}: the processes of {text} begin at {part.processes[0]}, but the next is {ranks}; "
                f"number processes from 0 without gaps"
            )
        ranks += len(part.processes or part.gpus or ())
        parts.append(part)
    return tuple(parts)


def highest(expression: Expression) -> int:
    """The highest index that an expression names; -1 for all."""
    gpus = expression[-1].gpus
    return -1 if gpus is None else gpus[-1]


def states_processes(expression: Expression) -> bool:
    """Whether it says anywhere how many processes share GPUs."""
    return any(part.processes is not None for part in expression)


def spread(expression: Expression, total: int, place: str) -> dict[int, int]:
    """Spread the processes over the GPUs.

    Args:
        expression: what `parse` returned.
        total: how many GPUs there are, more than the highest index named.
        place: begins every message.

    Returns:
        The number of processes of each GPU by its index, ascending.

    Raises:
        PlacementError: a part's processes do not divide by its GPUs.
    """
    load: dict[int, int] = {}
    for part in expression:
        gpus = range(total) if part.gpus is None else part.gpus
        each, rest = divmod(len(gpus if part.processes is None else part.processes), len(gpus))
        if part.processes is not None and rest:
            raise PlacementError(
                f"{place}: processes {_span(part.processes)} are {len(part.processes)} and GPUs {_span(gpus)} are "
                f"{len(gpus)}: they do not spread evenly; give a multiple of {len(gpus)} processes"
            )
        load |= dict.fromkeys(gpus, each)
    return load


def node_ranks(value: object, total: int, place: str) -> Sequence[int]:
    """Read the node ranks of a node group: "0-1", "2,3" or "all".

    Args:
        value: what the config holds.
        total: how many nodes there are.
        place: begins every message.

    Raises:
        PlacementError: it is no such expression, or names nodes that are not there.
    """
    expression = parse(value, place)
    if states_processes(expression):
        raise PlacementError(f"{place} names processes, but nodes are what a group is made of; write e.g. '0-1,3'")
    if highest(expression) >= total:
        raise PlacementError(
            f"{place} names node {highest(expression)}, but cluster.num_nodes={total} are {_span(range(total))}; "
            f"name nodes up to {total - 1}, or raise cluster.num_nodes"
        )
    return tuple(spread(expression, total, place))


def compact(indices: Iterable[int]) -> str:
    """Ascending indices as an expression, e.g. "0-3,6"; `parse` reads it back."""
    runs: list[range] = []
    for index in indices:
        if runs and index == runs[-1].stop:
            runs[-1] = range(runs[-1].start, index + 1)
        else:
            runs.append(range(index, index + 1))
    return ",".join(map(_span, runs))


def _part(text: str, place: str) -> Part:
    match = PART.fullmatch(text)
    if not match:
        raise PlacementError(f"{place}: {text!r} names nothing; {FORMS}")
    _, first, last, first_process, last_process = match.groups()
    return Part(
        _range(first, last, place) if first else None,
        _range(first_process, last_process, place) if first_process else None,
    )


def _range(first: str, last: str | None, place: str) -> range:
    start, end = int(first), int(last or first)
    if end < start:
        raise PlacementError(f"{place}: {start}-{end} runs backwards; write {end}-{start}")
    return range(start, end + 1)


def _span(indices: range) -> str:
    return f"{indices[0]}" if len(indices) == 1 else f"{indices[0]}-{indices[-1]}"
