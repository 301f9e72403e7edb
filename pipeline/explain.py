"""The schema of the config as a table: every field with its type, its default and what it does."""

from __future__ import annotations

import types
import typing
from typing import Any

from pydantic.fields import FieldInfo
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pipeline.block import Block
from pipeline.validation import Keys, fields

BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def explain() -> Group:
    """A table for each block, in the order of the schema, the fields of the config itself first."""
    titles: dict[Keys, str] = {(): "one run"}
    rows: dict[Keys, list[tuple[str, str, str, str]]] = {(): []}
    for keys, field in fields():
        if _is_block(field.annotation):
            titles[keys] = field.description or ""
            rows[keys] = []
        else:
            rows[keys[:-1]].append((".".join(keys), describe_type(field), _default(field), field.description or ""))
    tables: list[RenderableType] = []
    width = max(len(entry[0]) for entries in rows.values() for entry in entries if len(entry[0]) <= 30)
    for keys, entries in rows.items():
        if not entries:
            continue
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), expand=True, show_header=not tables)
        table.add_column("field", no_wrap=True, min_width=width)
        for heading, ratio in (("type", 4), ("default", 3), ("what it does", 7)):
            table.add_column(heading, ratio=ratio, overflow="fold")
        for entry in entries:
            # Text, because brackets of a list default are not markup.
            table.add_row(*map(Text, entry))
        title = Text(f"{'.'.join(keys)}: {titles[keys]}" if keys else titles[keys], style="bold")
        tables.append(Group(title, table, Text("")))
    return Group(*tables)


def explained_fields() -> list[dict[str, str]]:
    """The same for programs: a record for every field that is no block."""
    return [
        {
            "field": ".".join(keys),
            "type": describe_type(field),
            "default": _default(field),
            "description": field.description or "",
        }
        for keys, field in fields()
        if not _is_block(field.annotation)
    ]


def describe_type(field: FieldInfo) -> str:
    """The type and bounds of a field in a few words, e.g. `int >= 1 | null`."""
    return _words(field.annotation, field.metadata)


def _words(kind: Any, constraints: typing.Iterable[Any] = ()) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _words(arguments[0], kind.__metadata__)
    if origin is typing.Literal:
        return " | ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_words(argument) for argument in arguments)
    if origin in (list, tuple, dict):
        return f"{origin.__name__} of {', '.join(_words(argument) for argument in arguments)}"
    name = "null" if kind is type(None) else "any" if kind is Any else kind.__name__
    return " ".join([name, *_bounds(constraints)])


def _bounds(constraints: typing.Iterable[Any]) -> list[str]:
    """Bounds as pydantic keeps them: markers like Ge(1), or a FieldInfo that holds markers."""
    words = []
    for constraint in constraints:
        if isinstance(constraint, FieldInfo):
            words += _bounds(constraint.metadata)
        words += [f"{sign} {getattr(constraint, name)}" for name, sign in BOUNDS.items() if hasattr(constraint, name)]
    return words


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "the file's name" if field.annotation is str else "required"
    value = field.default
    if isinstance(value, str):
        return value
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _is_block(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Block)
