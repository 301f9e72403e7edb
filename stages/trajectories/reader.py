"""Reading a shard: everything but its images at once, and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import zarr
from zarr.errors import NodeNotFoundError

from pipeline.errors import UserError
from stages.trajectories.consistency import check_decisions, check_episodes
from stages.trajectories.schema import (
    EPISODE_ARRAYS,
    IMAGES,
    SCHEMA_VERSION,
    InconsistentEpisode,
    ShardAttributes,
    ShardSpec,
)
from stages.trajectories.storage import DAMAGE, REMEDY, check_shape, fetch, first_line, open_array
from stages.trajectories.trajectories import Episodes, ShardImages, Trajectories


def read(path: Path) -> Trajectories:
    """Open a shard, load everything but its images, and check that it agrees with itself.

    The bytes are the manifest's to verify. A file of images must be there; what is in it is checked when it is read.

    Args:
        path: directory of the shard.

    Returns:
        The shard.

    Raises:
        UserError: it is unfinished, of another schema, or an array is missing, damaged or inconsistent.
    """
    spec, attributes = _header(path)
    layouts = spec.decision_arrays()
    stored = {field: open_array(path, layout) for field, layout in (layouts | EPISODE_ARRAYS).items()}
    decisions = next(iter(stored["executed"].shape), 0)
    episodes = next(iter(stored["start"].shape), 0)
    for fields, count in ((layouts, decisions), (EPISODE_ARRAYS, episodes)):
        for field, layout in fields.items():
            check_shape(path, layout, stored[field], count)
    arrays = {
        field: fetch(array, slice(None), path, (layouts | EPISODE_ARRAYS)[field].path)
        for field, array in stored.items()
        if field not in IMAGES
    }
    columns = {field: arrays[field] for field in EPISODE_ARRAYS}
    try:
        if not episodes:
            raise InconsistentEpisode("episodes/start: there is no episode")
        check_decisions(arrays, spec)
        check_episodes(columns, arrays["rewards"], attributes)
    except InconsistentEpisode as error:
        raise UserError(f"{path}: {error}; {REMEDY}") from None
    return Trajectories(
        spec=spec,
        sources=(attributes,),
        tasks=attributes.tasks,
        instructions=attributes.instructions,
        episodes=Episodes(**columns),
        stored_images=(ShardImages(path, stored["head"], stored.get("wrist")),),
        **{field: arrays[field] for field in layouts if field not in IMAGES},
    )


def _header(path: Path) -> tuple[ShardSpec, ShardAttributes]:
    """What the root's attributes say."""
    try:
        stored = dict(zarr.open_group(path, mode="r", zarr_format=3, use_consolidated=False).attrs)
    except (NodeNotFoundError, FileNotFoundError):
        raise UserError(f"{path} is not a shard: it has no zarr.json; name the directory of one") from None
    except DAMAGE as error:
        raise UserError(f"{path}: zarr.json cannot be read ({first_line(error)}); {REMEDY}") from None
    if not stored:
        raise UserError(f"{path} is unfinished: its writer ended before closing it; {REMEDY}")
    version = stored.pop("schema_version", None)
    if version != SCHEMA_VERSION:
        raise UserError(f"{path}: schema_version is {version!r}, this Baton reads {SCHEMA_VERSION}; {REMEDY}")
    try:
        layout: Any = stored.pop("layout")
        return ShardSpec.from_json(layout), ShardAttributes.from_json(stored)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: the attributes of zarr.json do not fit ({first_line(error)}); {REMEDY}") from None
