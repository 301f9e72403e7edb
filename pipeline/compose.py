"""YAML files and `key=value` overrides -> a validated `Config`.

OmegaConf merges (defaults, then the files named by `extends`, then the file, then the overrides) and resolves
interpolations; suites become their tasks; pydantic validates. Every problem becomes one line with its place, its key
and value, and a remedy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.resolve import resolve
from pipeline.simulator_config import OWN_DEFAULTS
from pipeline.tasks import expand
from pipeline.tracking.installed import uninstalled
from pipeline.validation import (
    Keys,
    Source,
    at_line,
    first_line,
    lookup,
    parse_tree,
    place_of,
    syntax_error,
    validate,
)

# Overlapping keys make a merged placement meaningless ("env: 0-3" beside "env,rollout,actor: all"): the newest counts.
REPLACED: tuple[Keys, ...] = (("cluster", "component_placement"),)

INTERPOLATION = "a value may be another key's, written like ${sft.batch}"


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
        name = lookup(OmegaConf.to_container(given), ("simulator", "name"))
        if isinstance(name, str):
            defaults.simulator = OmegaConf.merge(defaults.simulator, OWN_DEFAULTS.get(name, {}))
        # Before the defaults come in, because a default would fill what a recipe leaves open on purpose.
        own = OmegaConf.to_container(given)
        for keys in _left_open(own):
            key = ".".join(keys)
            raise UserError(f"{place_of(sources, keys)}: {key} = ??? is left open; add {key}=... to the command")
        resolved = OmegaConf.to_container(OmegaConf.merge(defaults, given), resolve=True)
    except OmegaConfBaseException as error:
        keys = _full_key(error)
        raise UserError(f"{place_of(sources, keys)}: {'.'.join(keys)}: {first_line(error)}; {INTERPOLATION}") from None
    _expand_suites(resolved, sources)
    config = validate(resolved, sources)
    try:
        placed = resolve(config, lambda key: lookup(own, key.split(".")) is not None)
    except UserError as error:
        raise UserError(f"{place_of(sources, ())}: {error}") from None
    for name, line in uninstalled(placed).items():
        raise UserError(f"{place_of(sources, ('trainer', 'logger', name, 'enable'))}: {line}")
    return placed if placed == config else validate(placed.model_dump(mode="json"), sources)


def _expand_suites(values: Any, sources: Sequence[Source]) -> None:
    """Name every task of the suites among `simulator.tasks`; what is no list of names is left to validation."""
    keys = ("simulator", "tasks")
    simulator, names = lookup(values, ("simulator", "name")), lookup(values, keys)
    if lookup(values, ("simulator", "options", "tasks_file")) is not None:  # tasks of the user's own
        return
    if isinstance(simulator, str) and isinstance(names, list) and all(isinstance(name, str) for name in names):
        try:
            values["simulator"]["tasks"] = expand(simulator, names)
        except UserError as error:
            place = place_of(sources, keys)
            raise UserError("\n".join(f"{place}: {line}" for line in str(error).splitlines())) from None


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
    node = parse_tree(text, str(path))
    if node is None:
        return []
    try:
        values: Any = OmegaConf.to_container(OmegaConf.create(_without_base_60(text, node)))
    except yaml.MarkedYAMLError as error:
        raise UserError(syntax_error(error, str(path))) from None
    except OmegaConfBaseException as error:
        keys = _full_key(error)
        place = at_line(Source(str(path), {}, node), keys)
        raise UserError(f"{place}: {'.'.join(keys)}: {first_line(error)}; {INTERPOLATION}") from None

    bases = values.pop("extends", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise UserError(f"{path}: extends = {bases!r}: must be a file or a list of files, relative to {path.parent}")
    if chain:
        values.pop("name", None)
    inherited = [source for base in bases for source in _load(path.parent / base, (*chain, path))]
    return [*inherited, Source(str(path), values, node)]


def _without_base_60(text: str, node: yaml.Node | None) -> str:
    """Quote what YAML 1.1 would read as a number to the base 60: 4:00:00 is a time and 0:3 a placement."""
    quoted: set[tuple[int, int]] = set()  # an alias leads to the same place again

    def look(at: yaml.Node | None) -> None:
        if isinstance(at, yaml.ScalarNode):
            if at.tag.endswith((":int", ":float")) and ":" in at.value and at.style is None:
                end = at.end_mark.index
                quoted.add((end - len(at.value), end))  # before it may stand an anchor
        elif isinstance(at, yaml.MappingNode):
            for _, value in at.value:
                look(value)
        elif isinstance(at, yaml.SequenceNode):
            for value in at.value:
                look(value)

    look(node)
    for begin, end in sorted(quoted, reverse=True):
        text = f'{text[:begin]}"{text[begin:end]}"{text[end:]}'
    return text


def _override(text: str) -> Source:
    """`a.b=value` as nested values."""
    key, equals, value = text.partition("=")
    place = f"override {text}"
    if not equals or not all(part.strip() for part in key.split(".")):
        raise UserError(f"{place}: not of the form key=value; an example: sft.steps=500")
    try:
        node = yaml.compose(value, Loader=yaml.SafeLoader)
        plain = f"{key}={_without_base_60(value, node)}"
        values: Any = OmegaConf.to_container(OmegaConf.from_dotlist([plain]))
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        problem = getattr(error, "problem", None) or first_line(error)
        remedy = f"quote text, e.g. '{key}=\"text\"'; {INTERPOLATION}"
        raise UserError(f"{place}: the value {value!r} cannot be read: {problem}; {remedy}") from None
    return Source(place, values, override=text)


def _left_open(values: Any) -> Iterator[Keys]:
    """Paths of values that a recipe leaves to those who extend it: `???`."""
    for key, value in values.items() if isinstance(values, dict) else ():
        if value == "???":
            yield (str(key),)
        yield from ((str(key), *rest) for rest in _left_open(value))


def _full_key(error: OmegaConfBaseException) -> Keys:
    """The path that OmegaConf complains of; a list's index is no key of ours."""
    return tuple(re.sub(r"\[\d+\]", "", str(getattr(error, "full_key", None) or "")).split("."))


def _configs_beside(path: Path) -> str:
    """What could have been meant by a file that is not there."""
    folder = path.parent
    names = sorted(file.name for file in folder.glob("*.yaml"))
    if not folder.is_dir():
        return f"there is no directory {folder} either"
    return f"configs in {folder}: {', '.join(names)}" if names else f"{folder} holds no .yaml files"
