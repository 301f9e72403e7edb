"""What `meta` of a LeRobot set of LIBERO says: which columns it has, which episodes, and where each of them lies."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from stages.imports import tables
from stages.imports.films import AGAIN
from stages.imports.libero.conventions import ACTION_NUMBERS, STATE_NUMBERS

VERSIONS = ("v2.0", "v2.1", "v3.0")
SCENE = ("observation.images.image", "image")
WRIST = ("observation.images.wrist_image", "observation.images.image2", "wrist_image")
STATE, ACTION = ("observation.state", "state"), ("action", "actions")
FITTING = "import one of LIBERO's, e.g. lerobot/libero_object_image or HuggingFaceVLA/libero"


@dataclasses.dataclass(frozen=True)
class Recorded:
    """An episode as the metadata describe it.

    Attributes:
        number: its episode_index.
        instruction: of its task.
        frames: how many it has.
        chunk: of its table; so is `file`, in v3 alone.
        file: see `chunk`.
        film_files: camera -> chunk and file of its film, in v3 alone.
        begins: camera -> second of the film at which it begins, in v3 alone.
    """

    number: int
    instruction: str
    frames: int
    chunk: int
    file: int = 0
    film_files: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    begins: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Meta:
    """Metadata that fit.

    Attributes:
        path: the directory of the set.
        many_a_file: whether a file holds many episodes (v3).
        views: columns of the scene's camera and the wrist's.
        films: whether they are films; else they are pictures in the tables.
        state: column of the state.
        action: column of the action.
        picture_size: H and W.
        rate: frames a second of the films.
        said_by: the file that says how long episodes are.
    """

    path: Path
    many_a_file: bool
    views: tuple[str, str]
    films: bool
    state: str
    action: str
    picture_size: int
    rate: float
    said_by: str
    _chunk_size: int
    _table: str
    _film: str

    @classmethod
    def open(cls, path: Path) -> Meta:
        """Read `meta/info.json`.

        Raises:
            UserError: it is missing or damaged, or does not describe such a set.
        """
        source, info = tables.info(path)
        version, features = info.get("codebase_version"), info.get("features")
        if version not in VERSIONS:
            raise UserError(
                f"{source}: codebase_version is {version!r}, {', '.join(VERSIONS)} can be imported; {FITTING}"
            )
        features = features if isinstance(features, dict) else {}
        scene, wrist, state, action = (_column(source, features, names) for names in (SCENE, WRIST, STATE, ACTION))
        for name, width in ((state, STATE_NUMBERS), (action, ACTION_NUMBERS)):
            if (shape := features[name].get("shape")) != [width]:
                raise UserError(f"{source}: {name} has the shape {shape}, [{width}] can be imported; {FITTING}")
        shapes = [sorted(features[view].get("shape") or []) for view in (scene, wrist)]  # channels are first or last
        if shapes[0] != shapes[1] or len(shapes[0]) != 3 or shapes[0][0] != 3 or shapes[0][1] != shapes[0][2]:
            raise UserError(
                f"{source}: {scene} and {wrist} have the shapes {features[scene].get('shape')} and "
                f"{features[wrist].get('shape')}, square pictures of one size can be imported; {FITTING}"
            )
        many = version == "v3.0"
        found = cls(
            path=path,
            many_a_file=many,
            views=(scene, wrist),
            films=features[scene].get("dtype") == "video",
            state=state,
            action=action,
            picture_size=shapes[0][1],
            rate=float(info.get("fps") or 0),
            said_by="meta/episodes" if many else "meta/episodes.jsonl",
            _chunk_size=int(info.get("chunks_size") or 1000),
            _table=str(info.get("data_path")),
            _film=str(info.get("video_path")),
        )
        example = Recorded(0, "", 1, 0, film_files={view: (0, 0) for view in found.views})
        try:
            found.table(example)
            found.film(example, scene)
        except (KeyError, IndexError, ValueError) as error:
            raise UserError(f"{source}: data_path and video_path name {error}, which is not known; {AGAIN}") from None
        return found

    def table(self, episode: Recorded) -> Path:
        """The file of an episode's numbers."""
        return self.path / self._table.format(**self._names(episode, episode.chunk, episode.file))

    def film(self, episode: Recorded, view: str) -> Path:
        """The film of a camera that has an episode in it."""
        chunk, file = episode.film_files.get(view, (episode.chunk, episode.file))
        return self.path / self._film.format(video_key=view, **self._names(episode, chunk, file))

    def episodes(self) -> Iterator[Recorded]:
        """All episodes.

        Raises:
            UserError: the metadata are missing or damaged.
        """
        return self._of_tables() if self.many_a_file else self._of_lines()

    def _of_lines(self) -> Iterator[Recorded]:
        for place, line in tables.lines(self.path / "meta" / "episodes.jsonl"):
            try:
                number, (instruction, *_), frames = int(line["episode_index"]), line["tasks"], int(line["length"])
            except (KeyError, TypeError, ValueError):
                raise UserError(f"{place}: an episode needs episode_index, tasks and length; {AGAIN}") from None
            yield Recorded(number, str(instruction), frames, number // self._chunk_size)

    def _of_tables(self) -> Iterator[Recorded]:
        files = sorted((self.path / "meta" / "episodes").glob("*/*.parquet"))
        if not files:
            raise UserError(f"{self.path}/meta/episodes holds no table; {AGAIN}")
        own = ("episode_index", "tasks", "length", "data/chunk_index", "data/file_index")
        of_film = {
            view: [f"videos/{view}/{name}" for name in ("chunk_index", "file_index", "from_timestamp")]
            for view in (self.views if self.films else ())
        }
        columns = [*own, *(name for names in of_film.values() for name in names)]
        for file in files:
            table = tables.read(file, columns)
            if missing := [name for name in columns if name not in table.column_names]:
                raise UserError(f"{file}: there is no column {missing[0]}; {AGAIN}")
            for row in table.to_pylist():
                yield Recorded(
                    number=row["episode_index"],
                    instruction=row["tasks"][0],
                    frames=row["length"],
                    chunk=row["data/chunk_index"],
                    file=row["data/file_index"],
                    film_files={view: (row[chunk], row[file_]) for view, (chunk, file_, _) in of_film.items()},
                    begins={view: row[begin] for view, (_, _, begin) in of_film.items()},
                )

    def _names(self, episode: Recorded, chunk: int, file: int) -> dict[str, int]:
        if self.many_a_file:
            return {"chunk_index": chunk, "file_index": file}
        return {"episode_chunk": chunk, "episode_index": episode.number}


def _column(source: Path, features: Mapping[str, Any], names: tuple[str, ...]) -> str:
    for name in names:
        if name in features:
            return name
    raise UserError(f"{source}: there is no feature {' or '.join(names)}; {FITTING}")
