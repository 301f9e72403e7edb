"""Configs as frozen dataclasses: changing some fields, and refusing what does not fit with one clear line."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from stages.policies.interface import PolicyConfigError, nearest
from stages.policies.statistics import Statistics

Config = TypeVar("Config")


def check(holds: bool, place: str, value: Any, remedy: str) -> None:
    """Refuse a value.

    Args:
        holds: whether it fits.
        place: name of the field.
        value: what it holds.
        remedy: what it must be.

    Raises:
        PolicyConfigError: it does not fit.
    """
    if not holds:
        raise PolicyConfigError(f"{place}: {value!r} does not fit; it must be {remedy}")


def check_choices(config: Any) -> None:
    """Refuse values that are none of those a field's `Literal` type names.

    Args:
        config: a dataclass.

    Raises:
        PolicyConfigError: a value is none of them.
    """
    for place, hint in get_type_hints(type(config)).items():
        if get_origin(hint) is Literal:
            value, known = getattr(config, place), get_args(hint)
            check(value in known, place, value, f"{', '.join(known[:-1])} or {known[-1]}")


def check_statistics(statistics: Statistics, action_dim: int, proprio_dim: int) -> None:
    """Refuse statistics of other vectors than a config's.

    Args:
        statistics: of the demonstrations.
        action_dim: A.
        proprio_dim: P; 0 where the policy sees none.

    Raises:
        PolicyConfigError: they are of others.
    """
    for place, expected, moments in (
        ("action_dim", action_dim, statistics.action),
        ("proprio_dim", proprio_dim, statistics.proprio),
    ):
        if expected not in (0, len(moments.mask)):
            raise PolicyConfigError(f"{place}: {expected} does not fit; the demonstrations have {len(moments.mask)}")


def preset_of(presets: Mapping[str, Config], options: Mapping[str, Any], default: str) -> tuple[Config, dict[str, Any]]:
    """The preset that options start from.

    Args:
        presets: by name.
        options: field names and values, and perhaps `preset`.
        default: the preset of options that name none.

    Returns:
        The preset, and the other options.

    Raises:
        PolicyConfigError: no preset has this name.
    """
    fields = dict(options)
    name = fields.pop("preset", default)
    if name not in presets:
        raise PolicyConfigError(f"preset: no preset is called {name!r}; known: {', '.join(presets)}")
    return presets[name], fields


def replaced(base: Any, options: Mapping[str, Any], place: str = "") -> Any:
    """A dataclass with some fields changed.

    Args:
        base: the dataclass.
        options: field names and values; mappings for fields that are dataclasses, lists for tuples.
        place: before the names in messages.

    Returns:
        The changed one.

    Raises:
        PolicyConfigError: a field is unknown or of another type than what it replaces.
    """
    known = list(base.__dataclass_fields__)
    changes: dict[str, Any] = {}
    for key, value in options.items():
        if key not in known:
            raise PolicyConfigError(f"{place}{key}: unknown; {nearest(key, known)}")
        changes[key] = _typed(f"{place}{key}", value, getattr(base, key))
    return dataclasses.replace(base, **changes)


def _typed(place: str, value: Any, like: Any) -> Any:
    """`value` as the type of `like`: parts from mappings, tuples from lists, whole numbers where floats are meant."""
    if dataclasses.is_dataclass(like) and isinstance(value, Mapping):
        return replaced(like, value, f"{place}.")
    if isinstance(like, tuple) and isinstance(value, list | tuple):
        names = all(isinstance(part, str) for part in like)  # a list of names may have any length
        if names or len(value) == len(like):
            return tuple(_typed(f"{place}[{i}]", part, "" if names else like[i]) for i, part in enumerate(value))
    if isinstance(like, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(like):
        raise PolicyConfigError(f"{place}: {value!r} is not of the type of {like!r}")
    return value
