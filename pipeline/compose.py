"""YAML files and `key=value` overrides -> a validated `Config`, and back to text.

OmegaConf merges (defaults, then the files named by `extends`, then the file, then the overrides) and resolves
interpolations; pydantic validates. Every problem becomes one line with its place, its key and value, and a remedy.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from pipeline.config import Block, Config
from pipeline.errors import UserError

Keys = tuple[str, ...]

# Overlapping keys make a merged placement meaningless ("env: 0-3" beside "env,rollout,actor: all"): the newest counts.
REPLACED: tuple[Keys, ...] = (("cluster", "component_placement"),)

INTERPOLATION = "a value may be another key's, written like ${sft.batch}"


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


def compose(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Build the config of a run.

    A file may extend others: `extends: base.yaml`, or a list, relative to itself; later ones win. `name` is never
    inherited: without one the run is called like its file.

    Args:
        path: the YAML file.
        overrides: `key=value` each, the key with dots, the value as YAML; later ones win.

    Returns:
        The validated config.

    Raises:
        UserError: a line for each thing to put right.
    """
    sources = [Source(str(path), {"name": path.stem}), *_load(path, ()), *map(_override, overrides)]
    given: Any = OmegaConf.create({})
    defaults: Any = OmegaConf.create(Config(name="default").model_dump(mode="json", exclude={"name"}))
    try:
        for source in sources:
            for keys in REPLACED:
                if source.replaces(keys):
                    OmegaConf.update(given, ".".join(keys), {}, merge=False)
                if lookup(source.values, keys) is not None:
                    OmegaConf.update(defaults, ".".join(keys), {}, merge=False)
            given = OmegaConf.merge(given, source.values)
        # Before the defaults come in, because a default would fill what a recipe leaves open on purpose.
        for keys in _left_open(OmegaConf.to_container(given)):
            key = ".".join(keys)
            raise UserError(f"{_place(sources, keys)}: {key} = ??? is left open; add {key}=... to the command")
        resolved = OmegaConf.to_container(OmegaConf.merge(defaults, given), resolve=True)
    except OmegaConfBaseException as error:
        keys = _full_key(error)
        raise UserError(f"{_place(sources, keys)}: {'.'.join(keys)}: {_first_line(error)}; {INTERPOLATION}") from None
    return _validate(resolved, sources)


def parse(text: str, place: str = "config") -> Config:
    """Read what `dump` wrote; nothing is merged or interpolated.

    Args:
        text: YAML.
        place: how messages name it.

    Raises:
        UserError: a line for each thing to put right.
    """
    node = _parse_tree(text, place)
    values = yaml.safe_load(text) if node else {}
    return _validate(values, [Source(place, values, node)])


def dump(config: Config) -> str:
    """The whole config as YAML, defaults included, in the order of the schema."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, width=120)


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


def _load(path: Path, chain: tuple[Path, ...]) -> list[Source]:
    """The files that `path` extends, in order, then itself; `chain` is who asked for it, outermost first."""
    asked = f" (extended by {chain[-1]})" if chain else ""
    if path.resolve() in (seen.resolve() for seen in chain):
        circle = " -> ".join(str(seen) for seen in (*chain, path))
        raise UserError(f"{chain[-1]}: extends goes in a circle: {circle}; remove one of them")
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise UserError(f"{path}{asked}: no such file; {_configs_beside(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}{asked} cannot be read: {error}; give a readable UTF-8 text file") from None
    node = _parse_tree(text, str(path))
    if node is None:
        return []
    try:
        values: Any = OmegaConf.to_container(OmegaConf.create(text))
    except yaml.MarkedYAMLError as error:
        raise UserError(_syntax(error, str(path))) from None
    except OmegaConfBaseException as error:
        keys = _full_key(error)
        place = _at(Source(str(path), {}, node), keys)
        raise UserError(f"{place}: {'.'.join(keys)}: {_first_line(error)}; {INTERPOLATION}") from None

    bases = values.pop("extends", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise UserError(f"{path}: extends = {bases!r}: must be a file or a list of files, relative to {path.parent}")
    if chain:
        values.pop("name", None)
    inherited = [source for base in bases for source in _load(path.parent / base, (*chain, path))]
    return [*inherited, Source(str(path), values, node)]


def _parse_tree(text: str, place: str) -> yaml.Node | None:
    """The YAML tree of a file's text; None for an empty one."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        raise UserError(_syntax(error, place)) from None
    except yaml.YAMLError as error:
        raise UserError(f"{place}: not YAML: {_first_line(error)}; remove what is not text") from None
    if node is not None and not isinstance(node, yaml.MappingNode):
        raise UserError(f"{place}: must hold `key: value` lines, not a single {node.tag.rpartition(':')[2]}")
    return node


def _override(text: str) -> Source:
    """`a.b=value` as nested values."""
    key, equals, value = text.partition("=")
    place = f"override {text}"
    if not equals or not all(part.strip() for part in key.split(".")):
        raise UserError(f"{place}: not of the form key=value; an example: sft.steps=500")
    try:
        values: Any = OmegaConf.to_container(OmegaConf.from_dotlist([text]))
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        problem = getattr(error, "problem", None) or _first_line(error)
        remedy = f"quote text, e.g. '{key}=\"text\"'; {INTERPOLATION}"
        raise UserError(f"{place}: the value {value!r} cannot be read: {problem}; {remedy}") from None
    return Source(place, values, override=text)


def _left_open(values: Any) -> Iterator[Keys]:
    """Paths of values that a recipe leaves to those who extend it: `???`."""
    for key, value in values.items() if isinstance(values, dict) else ():
        if value == "???":
            yield (str(key),)
        yield from ((str(key), *rest) for rest in _left_open(value))


def _validate(values: Any, sources: Sequence[Source]) -> Config:
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
            where = _place(sources, keys)
            if _is_field(keys) or (keys and problem["type"] == "model_type"):
                where = f"{where}: {'.'.join(keys)} = {lookup(values, keys)!r}"
            parts = messages.setdefault((keys, where), [])
            if described not in parts:
                parts.append(described)
        lines = [f"{where}: {' or '.join(parts)}{_hint(keys)}" for (keys, where), parts in messages.items()]
        raise UserError("\n".join(lines)) from None


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


def _place(sources: Sequence[Source], keys: Keys) -> str:
    """The newest source that sets the key; for the config as a whole the file and all overrides."""
    for source in reversed(sources):
        block = lookup(source.values, keys[:-1])
        if keys and isinstance(block, Mapping) and keys[-1] in block:
            return _at(source, keys)
    file = [source.place for source in sources if source.override is None][-1]
    overrides = [source.override for source in sources if source.override is not None]
    return f"{file} with {' '.join(overrides)}" if overrides else file


def _at(source: Source, keys: Keys) -> str:
    """The source's name, with the line of the key where it has lines."""
    node, line = source.node, None
    for key in keys:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        match = [(name, value) for name, value in pairs if getattr(name, "value", None) == key]
        if not match:
            break
        line, node = match[-1][0].start_mark.line + 1, match[-1][1]
    return source.place if line is None else f"{source.place}:{line}"


def _syntax(error: yaml.MarkedYAMLError, place: str) -> str:
    line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
    context = f" {error.context}" if error.context else ""
    return f"{place}{line}: not YAML: {error.problem}{context}; check indentation, quotes and brackets there"


def _full_key(error: OmegaConfBaseException) -> Keys:
    """The path that OmegaConf complains of; a list's index is no key of ours."""
    return tuple(re.sub(r"\[\d+\]", "", str(getattr(error, "full_key", None) or "")).split("."))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _configs_beside(path: Path) -> str:
    """What could have been meant by a file that is not there."""
    folder = path.parent
    names = sorted(file.name for file in folder.glob("*.yaml"))
    if not folder.is_dir():
        return f"there is no directory {folder} either"
    return f"configs in {folder}: {', '.join(names)}" if names else f"{folder} holds no .yaml files"
