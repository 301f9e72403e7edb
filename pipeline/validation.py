"""Values -> a validated `Config`, and the text of one: every problem a line with its place, its value and a remedy."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from pipeline.block import Block
from pipeline.config import Config
from pipeline.errors import UserError

Keys = tuple[str, ...]

# libyaml reads a config in a tenth of the time, where PyYAML was built with it.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclasses.dataclass(frozen=True)
class Source:
    """Where values come from: a file or an override.

    Attributes:
        place: how messages name it.
        values: its nested values, interpolations unresolved.
        node: its YAML tree, which knows line numbers; None for an override.
        override: the key=value of an override; None for a file.
    """

    place: str
    values: dict[str, Any]
    node: yaml.Node | None = None
    override: str | None = None

    def replaces(self, keys: Keys) -> bool:
        """Whether it gives a new mapping at this path, rather than one entry of it or nothing."""
        if self.override is not None:
            return self.override.partition("=")[0] == ".".join(keys)
        return lookup(self.values, keys) is not None


def parse(text: str, place: str = "config") -> Config:
    """Read what `dump` wrote; nothing is merged or interpolated.

    Args:
        text: YAML.
        place: how messages name it.

    Raises:
        UserError: a line for each thing to put right.
    """
    try:
        return Config.model_validate(yaml.load(text, LOADER))
    except (yaml.YAMLError, ValidationError):
        # Once more, to say what is wrong and where.
        node = parse_tree(text, place)
        values = yaml.safe_load(text) if node else {}
        return validate(values, [Source(place, values, node)])


def dump(config: Config) -> str:
    """The whole config as YAML, defaults included, in the order of the schema."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, width=120)


def validate(values: Any, sources: Sequence[Source]) -> Config:
    """Make a config of nested values.

    Args:
        values: everything merged and resolved.
        sources: where it comes from, in the order in which it was merged.

    Raises:
        UserError: a line for each thing to put right.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        messages: dict[tuple[Keys, str], list[str]] = {}
        for problem in error.errors():
            keys, rest = _split(problem["loc"])
            if problem["type"] in ("extra_forbidden", "invalid_key"):
                described = _unknown((*keys, *rest))
                keys = (*keys, *rest)
            elif problem["type"] == "model_type":
                described = "must be a block of key: value lines"
            elif problem["type"] == "value_error":
                described = problem["msg"].removeprefix("Value error, ")
            else:
                described = re.sub(r"^(Input|String|List|Tuple|Dictionary|Value) should", "must", problem["msg"])
            where = place_of(sources, keys)
            if _is_field(keys) or (keys and problem["type"] == "model_type"):
                where = f"{where}: {'.'.join(keys)} = {lookup(values, keys)!r}"
            parts = messages.setdefault((keys, where), [])
            if described not in parts:
                parts.append(described)
        lines = [f"{where}: {' or '.join(parts)}{_hint(keys)}" for (keys, where), parts in messages.items()]
        raise UserError("\n".join(lines)) from None


def parse_tree(text: str, place: str) -> yaml.Node | None:
    """The YAML tree of a file's text; None for an empty one."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        raise UserError(syntax_error(error, place)) from None
    except yaml.YAMLError as error:
        raise UserError(f"{place}: not YAML: {first_line(error)}; remove what is not text") from None
    if node is not None and not isinstance(node, yaml.MappingNode):
        raise UserError(f"{place}: must hold `key: value` lines, not a single {node.tag.rpartition(':')[2]}")
    return node


def fields(block: type[Block] = Config, prefix: Keys = ()) -> Iterator[tuple[Keys, FieldInfo]]:
    """Every field of the schema with its path, blocks before what they hold."""
    for name, field in block.model_fields.items():
        yield (*prefix, name), field
        if (inner := _inner(field)) is not None:
            yield from fields(inner, (*prefix, name))


def lookup(values: Any, keys: Iterable[str]) -> Any:
    """The value at a path of nested mappings, or None where the path ends early."""
    for key in keys:
        if not isinstance(values, Mapping) or key not in values:
            return None
        values = values[key]
    return values


def place_of(sources: Sequence[Source], keys: Keys) -> str:
    """The newest source that sets the key; for the config as a whole the file and all overrides."""
    for source in reversed(sources):
        block = lookup(source.values, keys[:-1])
        if keys and isinstance(block, Mapping) and keys[-1] in block:
            return at_line(source, keys)
    file = [source.place for source in sources if source.override is None][-1]
    overrides = [source.override for source in sources if source.override is not None]
    return f"{file} with {' '.join(overrides)}" if overrides else file


def at_line(source: Source, keys: Keys) -> str:
    """The source's name, with the line of the key where it has lines."""
    node, line = source.node, None
    for key in keys:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        match = [(name, value) for name, value in pairs if getattr(name, "value", None) == key]
        if not match:
            break
        line, node = match[-1][0].start_mark.line + 1, match[-1][1]
    return source.place if line is None else f"{source.place}:{line}"


def syntax_error(error: yaml.MarkedYAMLError, place: str) -> str:
    """What YAML complains of, in a line."""
    line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
    context = f" {error.context}" if error.context else ""
    return f"{place}{line}: not YAML: {error.problem}{context}; check indentation, quotes and brackets there"


def first_line(error: Exception) -> str:
    """An error's first line."""
    return str(error).partition("\n")[0]


def _split(location: tuple[int | str, ...]) -> tuple[Keys, Keys]:
    """Pydantic's location as the path of a field and the rest (an index, a key of a dictionary, a union's branch)."""
    block: type[Block] | None = Config
    for depth, key in enumerate(location):
        if block is None or key not in block.model_fields:
            return tuple(map(str, location[:depth])), tuple(map(str, location[depth:]))
        block = _inner(block.model_fields[str(key)])
    return tuple(map(str, location)), ()


def _inner(field: FieldInfo) -> type[Block] | None:
    """The block that a field holds, if it holds one."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Block) else None


def _is_field(keys: Keys) -> bool:
    """Whether the path is that of a value, not of the whole config, a block or something unknown."""
    return any(path == keys and _inner(field) is None for path, field in fields())


def _hint(keys: Keys) -> str:
    """What the field means, so that the remedy is on the same line."""
    described = [field.description for path, field in fields() if path == keys and _inner(field) is None]
    return f" ({described[0]})" if described else ""


def _unknown(keys: Keys) -> str:
    """An unknown key: the nearest known one and all of its block."""
    *block, key = keys
    known = [path[-1] for path, _ in fields() if path[:-1] == tuple(block)]
    near = difflib.get_close_matches(key, known, n=1)
    elsewhere = [".".join(path) for path, _ in fields() if path[-1] == key or ".".join(path) == key]
    guess = [".".join((*block, *near))] if near else elsewhere[:3]
    meant = f"; did you mean {' or '.join(guess)}?" if guess else ";"
    home = f"under {'.'.join(block)}" if block else "at the top"
    return f"unknown key {'.'.join(keys)}{meant} Known {home}: {', '.join(known)}"
